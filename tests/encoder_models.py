"""Tiny encoders of every family that graphs are built for, with what torch makes of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.local.engines.base import Tokens

if TYPE_CHECKING:
    import pytest

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 90,
    "max_position_embeddings": 70,
    "initializer_range": 0.5,
}
_DISTILBERT = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 48,
    "vocab_size": 90,
    "max_position_embeddings": 70,
    "initializer_range": 0.5,
}
_MODERNBERT = {
    **_SMALL,
    "num_hidden_layers": 3,
    "local_attention": 8,
    "initializer_cutoff_factor": 3.0,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
}
_ROBERTA = {**_SMALL, "pad_token_id": 1, "type_vocab_size": 1}

# Name: the prefix of transformers' classes, and the settings.
ENCODERS: dict[str, tuple[str, dict[str, object]]] = {
    "bert": ("Bert", {**_SMALL, "type_vocab_size": 2}),
    "bert, tanh gelu": ("Bert", {**_SMALL, "hidden_act": "gelu_new"}),
    "bert, relu, one type": ("Bert", {**_SMALL, "hidden_act": "relu", "type_vocab_size": 1, "layer_norm_eps": 1e-3}),
    "bert, silu": ("Bert", {**_SMALL, "hidden_act": "silu"}),
    "roberta": ("Roberta", _ROBERTA),
    "roberta, two types": ("Roberta", {**_ROBERTA, "type_vocab_size": 2, "pad_token_id": 3}),
    "xlm-roberta": ("XLMRoberta", _ROBERTA),
    "camembert": ("Camembert", _ROBERTA),
    "distilbert": ("DistilBert", _DISTILBERT),
    "electra": ("Electra", {**_SMALL, "embedding_size": 16}),
    "electra, one width": ("Electra", {**_SMALL, "embedding_size": 32}),
    "modernbert, mean": ("ModernBert", {**_MODERNBERT, "classifier_pooling": "mean"}),
    "modernbert, first": ("ModernBert", {**_MODERNBERT, "classifier_pooling": "cls"}),
    "modernbert, all biases": (
        "ModernBert",
        {
            **_MODERNBERT,
            "num_hidden_layers": 4,
            "classifier_pooling": "cls",
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "classifier_bias": True,
            "classifier_activation": "silu",
            "hidden_activation": "gelu_pytorch_tanh",
            "norm_eps": 1e-3,
        },
    ),
}


class Example(NamedTuple):
    """A batch of unequal lengths, with what torch computes for it in float32."""

    rows: list[Tokens]
    logits: NDArray[np.float32]
    vectors: list[NDArray[np.float32]]


class Prepared(NamedTuple):
    """A saved model, not to be changed, and an example."""

    folder: Path
    example: Example


_prepared: dict[str, Prepared] = {}


def prepare(name: str, factory: pytest.TempPathFactory) -> Prepared:
    """Save an encoder once for all tests."""
    if name not in _prepared:
        folder = factory.mktemp("encoder")
        save_encoder(name, folder)
        _prepared[name] = Prepared(folder, example(folder))
    return _prepared[name]


def save_encoder(name: str, folder: Path, *, dtype: str = "float32", **saving: object) -> None:
    """Save a classifier with random weights: biases and norms too, which transformers would leave at 0 and 1."""
    import torch
    import transformers

    prefix, settings = ENCODERS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{prefix}Config")(**settings, num_labels=1)
    model = getattr(transformers, f"{prefix}ForSequenceClassification")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.to(getattr(torch, dtype)).save_pretrained(folder, **saving)


def example(folder: Path, lengths: tuple[int, ...] = (40, 7, 23, 1), *, types: bool = True) -> Example:
    """A batch of random tokens, with a padding token amid one text, and torch's results."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    config = model.config
    padding = config.pad_token_id
    typed = types and getattr(config, "type_vocab_size", 1) > 1
    random = np.random.default_rng(0)
    rows = []
    for length in lengths:
        ids = random.integers(4, config.vocab_size, length).astype(np.int32)
        if length > 5:
            ids[3] = padding  # a text may spell it out
        rows.append(Tokens(ids, (np.arange(length) > length // 2).astype(np.int32) if typed else None))
    width = max(lengths)
    feed = {
        "input_ids": np.full((len(rows), width), padding),
        "attention_mask": np.zeros((len(rows), width), dtype=np.int64),
    }
    if typed:
        feed["token_type_ids"] = np.zeros((len(rows), width), dtype=np.int64)
    for number, row in enumerate(rows):
        feed["input_ids"][number, : len(row.ids)] = row.ids
        feed["attention_mask"][number, : len(row.ids)] = 1
        if typed:
            feed["token_type_ids"][number, : len(row.ids)] = row.types
    with torch.inference_mode():
        output = model(**{name: torch.from_numpy(value) for name, value in feed.items()}, output_hidden_states=False)
        hidden = model.base_model(**{name: torch.from_numpy(value) for name, value in feed.items()})
    vectors = hidden.last_hidden_state.numpy()
    return Example(rows, output.logits[:, 0].numpy(), [vectors[n, : len(row.ids)] for n, row in enumerate(rows)])
