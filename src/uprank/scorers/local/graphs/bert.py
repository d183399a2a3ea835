"""BERT and its kin as ONNX: one graph, with the names that each family has for its weights.

Devlin et al., "BERT", 2018 (arXiv 1810.04805); Liu et al., "RoBERTa", 2019 (1907.11692); Sanh et al.,
"DistilBERT", 2019 (1910.01108); Clark et al., "ELECTRA", 2020 (2003.10555).

A classifier reads the first token alone. So in the last layer only that token asks: the query, the
output and the feed-forward are computed for it, the keys and values for all. That is exact, and
spares most of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.local.graphs.layers import (
    ACTIVATIONS,
    Source,
    attention,
    first_token,
    head_linear,
    layer_norm,
    linear,
    mask_bias,
    split_heads,
)

if TYPE_CHECKING:
    from onnx import ModelProto

    from uprank.scorers.local.graphs.config import Config
    from uprank.scorers.local.graphs.writer import GraphWriter

__all__ = ["FAMILIES", "Family", "build_bert"]

HeadActivation = Literal["tanh", "relu", "gelu"]


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between the families.

    Args:
        prefix: What the encoder's weights begin with in a classifier.
        layer: Path of a layer, with ``{}`` for its number.
        query: Path of the query's projection in a layer; likewise the others.
        head: Path of the classifier's first product.
        head_activation: What follows it.
        classifier: Path of the classifier's last product.
        offset: Whether positions count from the padding token's number on, over what is no padding.
        epsilon: Of layer normalisation, where the configuration has none.
    """

    prefix: str
    head: str
    classifier: str
    head_activation: HeadActivation
    offset: bool = False
    layer: str = "encoder.layer.{}"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    output_norm: str = "attention.output.LayerNorm"
    inner: str = "intermediate.dense"
    outer: str = "output.dense"
    outer_norm: str = "output.LayerNorm"
    epsilon: float | None = None


_ROBERTA = Family("roberta.", "classifier.dense", "classifier.out_proj", "tanh", offset=True)

FAMILIES: dict[str, Family] = {
    "bert": Family("bert.", "bert.pooler.dense", "classifier", "tanh"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Family("electra.", "classifier.dense", "classifier.out_proj", "gelu"),
    "distilbert": Family(
        "distilbert.",
        "pre_classifier",
        "classifier",
        "relu",
        layer="transformer.layer.{}",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        output_norm="sa_layer_norm",
        inner="ffn.lin1",
        outer="ffn.lin2",
        outer_norm="output_layer_norm",
        epsilon=1e-12,
    ),
}


def build_bert(
    graph: GraphWriter, config: Config, weights: Mapping[str, NDArray[np.float32]], *, logits: bool
) -> ModelProto:
    """Write the whole model.

    Args:
        graph: Where it is written.
        config: Of a model that ``graphs.unsupported`` has no objection to.
        weights: Of the checkpoint.
        logits: Whether to give logits of shape (rows,) or hidden states of shape (rows, tokens, width).

    Raises:
        WeightsError: If a weight is missing.
    """
    return _Bert(graph, config, weights).model(logits=logits)


class _Bert:
    def __init__(self, graph: GraphWriter, config: Config, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self._graph = graph
        self._config = config
        self._family = FAMILIES[config.model_type]
        self._source = Source(weights, "embeddings.word_embeddings.weight", (self._family.prefix, ""))
        types = "embeddings.token_type_embeddings.weight"
        self._types = self._source.of(types) if self._source.has(types) else None
        self._typed = self._types is not None and len(self._types) > 1
        self._heads = config.integer("num_attention_heads", "n_heads")
        self._layers = config.integer("num_hidden_layers", "n_layers")
        self._width = config.integer("hidden_size", "dim")
        self._epsilon = self._family.epsilon or config.number("layer_norm_eps", default=1e-12)
        self._activation = ACTIVATIONS[config.text("hidden_act", "activation", default="gelu")]

    def model(self, *, logits: bool) -> ModelProto:
        graph = self._graph
        inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if self._typed else [])]
        x = self._embeddings()
        bias = mask_bias(graph, "attention_mask")
        for number in range(self._layers):
            x = self._layer(x, bias, number, first_only=logits and number == self._layers - 1)
        if not logits:
            return graph.model(inputs, x, "last_hidden_state", ["rows", "tokens", self._width])
        return graph.model(inputs, self._head(x), "logits", ["rows"])

    def _embeddings(self) -> str:
        graph, source = self._graph, self._source
        words = graph.weight("embeddings.words", source.of("embeddings.word_embeddings.weight"))
        x = graph.node("Gather", words, "input_ids")
        positions = source.of("embeddings.position_embeddings.weight")
        if self._types is not None and not self._typed:
            positions = positions + self._types[0]  # the only type there is
        table = graph.weight("embeddings.positions", positions)
        if self._family.offset:
            x = graph.node("Add", x, graph.node("Gather", table, self._counted_positions()))
        else:
            length = graph.node("Shape", "input_ids", start=1, end=2)
            x = graph.node("Add", x, graph.node("Slice", table, graph.constant([0]), length, graph.constant([0])))
        if self._types is not None and self._typed:
            types = graph.weight("embeddings.types", self._types)
            x = graph.node("Add", x, graph.node("Gather", types, "token_type_ids"))
        x = self._norm(x, "embeddings.LayerNorm")
        return self._linear(x, "embeddings_project") if source.has("embeddings_project.weight") else x

    def _counted_positions(self) -> str:
        graph = self._graph
        padding = graph.constant(self._config.integer("pad_token_id", default=1))
        real = graph.node("Cast", graph.node("Not", graph.node("Equal", "input_ids", padding)), to=7)
        counted = graph.node("CumSum", real, graph.constant(1))
        return graph.node("Add", graph.node("Mul", counted, real), padding)

    def _layer(self, x: str, bias: str, number: int, *, first_only: bool) -> str:
        graph, family, heads = self._graph, self._family, self._heads
        path = family.layer.format(number)
        size = self._width // heads
        asking = first_token(graph, x) if first_only else x
        query = self._linear(asking, f"{path}.{family.query}", scale=size**-0.5)
        mixed = attention(
            graph,
            split_heads(graph, query, heads, size),
            split_heads(graph, self._linear(x, f"{path}.{family.key}"), heads, size, order=(0, 2, 3, 1)),
            split_heads(graph, self._linear(x, f"{path}.{family.value}"), heads, size),
            bias,
            self._width,
        )
        x = graph.node("Add", self._linear(mixed, f"{path}.{family.output}"), asking)
        x = self._norm(x, f"{path}.{family.output_norm}")
        inner = self._activation(graph, self._linear(x, f"{path}.{family.inner}"))
        x = graph.node("Add", self._linear(inner, f"{path}.{family.outer}"), x)
        return self._norm(x, f"{path}.{family.outer_norm}")

    def _head(self, x: str) -> str:
        graph, source, family = self._graph, self._source, self._family
        x = graph.node("Squeeze", x, graph.constant([1]))
        for name, activation in ((family.head, family.head_activation), (family.classifier, None)):
            x = head_linear(graph, x, name, source.outside(f"{name}.weight"), source.outside(f"{name}.bias"))
            if activation is not None:
                x = ACTIVATIONS[activation](graph, x)
        return graph.node("Squeeze", x, graph.constant([1]))

    def _linear(self, x: str, path: str, *, scale: float = 1.0) -> str:
        weight, bias = self._source.of(f"{path}.weight"), self._source.of(f"{path}.bias")
        return linear(self._graph, x, path, weight * np.float32(scale), bias * np.float32(scale))

    def _norm(self, x: str, path: str) -> str:
        weight, bias = self._source.of(f"{path}.weight"), self._source.of(f"{path}.bias")
        return layer_norm(self._graph, x, path, weight, bias, self._epsilon)
