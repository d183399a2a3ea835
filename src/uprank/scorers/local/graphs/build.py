"""From a checkpoint to an ONNX file, or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.local.graphs.bert import FAMILIES, build_bert
from uprank.scorers.local.graphs.config import Config, ConfigError
from uprank.scorers.local.graphs.layers import ACTIVATIONS
from uprank.scorers.local.graphs.modernbert import build_modernbert, unsupported_modernbert
from uprank.scorers.local.graphs.writer import GraphWriter, Numbers, write

__all__ = ["GRAPH_VERSION", "Output", "build", "data_file", "unsupported"]

GRAPH_VERSION = 1
"""Raised with every change to what is built, so that graphs built before are not taken for it."""

Output: TypeAlias = Literal["logits", "vectors"]
"""A logit a pair, or the last hidden state of every token."""

_MODERNBERT = "modernbert"


def unsupported(settings: Mapping[str, object], output: Output) -> str | None:
    """Say why no graph is built for a model, from its configuration alone.

    Args:
        settings: The content of ``config.json``.
        output: What the graph should give.

    Returns:
        What this model is or has that is not built here, as the rest of a sentence; ``None`` if
        nothing is in the way.
    """
    config = Config(settings)
    try:
        return _in_the_way(config) or (_no_scorer(config) if output == "logits" else None)
    except ConfigError as error:
        return str(error).rstrip(".")


def build(
    settings: Mapping[str, object],
    weights: Mapping[str, NDArray[np.float32]],
    output: Output,
    path: Path,
    *,
    numbers: Numbers = "float32",
) -> None:
    """Write the ONNX model, its large weights in a second file beside it.

    The inputs are ``input_ids``, ``attention_mask`` and, where the model tells texts apart by them,
    ``token_type_ids``: int64 of shape (rows, tokens), any number of either. The output is ``logits``
    of shape (rows,), or ``last_hidden_state`` of shape (rows, tokens, dimensions), in float32.

    Args:
        settings: The content of ``config.json``, of a model that :func:`unsupported` has nothing against.
        weights: Of the checkpoint.
        output: What the graph should give.
        path: The file to write.
        numbers: What matrix products are written in.

    Raises:
        WeightsError: If a weight is missing or cannot be read.
        ConfigError: If a setting is missing or of the wrong kind.
        OSError: If the files cannot be written.
    """
    data = data_file(path)
    config = Config(settings)
    builder = build_modernbert if config.model_type == _MODERNBERT else build_bert
    with data.open("wb") as file:
        graph = GraphWriter(file, data.name, numbers=numbers)
        model = builder(graph, config, weights, logits=output == "logits")
    write(model, path)


def data_file(path: Path) -> Path:
    """Where the large weights of a model lie."""
    return path.with_name(path.name + ".data")


def _in_the_way(config: Config) -> str | None:
    kind = config.model_type
    if config.get("auto_map"):
        return "it brings Python code of its own"
    if kind not in FAMILIES and kind != _MODERNBERT:
        known = ", ".join(sorted([*FAMILIES, _MODERNBERT]))
        return f"its model_type is {kind or 'not stated'}, and graphs are built for {known}"
    positions = config.get("position_embedding_type")
    if positions not in (None, "absolute"):
        return f"its position embeddings are {positions}"
    for setting in ("is_decoder", "add_cross_attention", "pruned_heads", "quantization_config"):
        if config.get(setting):
            return f"its {setting} is set"
    activation = config.text("hidden_act", "activation", "hidden_activation", default="gelu")
    if activation not in ACTIVATIONS:
        return f"its activation is {activation}"
    if config.integer("hidden_size", "dim") % config.integer("num_attention_heads", "n_heads"):
        return "its width is not a multiple of its attention heads"
    return unsupported_modernbert(config) if kind == _MODERNBERT else None


def _no_scorer(config: Config) -> str | None:
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    if not any(name.endswith("ForSequenceClassification") for name in names):
        return f"it is no trained classifier ({', '.join(names) or 'no architecture stated'})"
    activation = config.text("classifier_activation", default="gelu")
    if activation not in ACTIVATIONS:
        return f"its classifier's activation is {activation}"
    return None if config.labels == 1 else f"it has {config.labels} labels, and a reranker one"
