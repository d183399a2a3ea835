"""Rows of random tokens, and what transformers itself makes of them, one at a time and so without padding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uprank.scorers.local.engines.base import Tokens
from uprank.scorers.local.jobs import Row

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


def load(folder: Path, **options: object) -> CrossEncoder:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True, **options)
    model.eval()
    return model


def chained(source: Path, pooling: str, *, include_prompt: bool = True) -> CrossEncoder:
    """A cross-encoder of modules: a transformer without a head, a pooling, a dense layer."""
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from torch import nn

    front = Transformer(str(source), transformer_task="feature-extraction")
    torch.manual_seed(6)
    dense = Dense(
        32,
        1,
        activation_function=nn.Identity(),
        module_input_name="sentence_embedding",
        module_output_name="scores",
    )
    pool = Pooling(32, pooling, include_prompt=include_prompt)
    return CrossEncoder(modules=[front, pool, dense], device="cpu").eval()


def random_rows(model: CrossEncoder, lengths: Sequence[int], *, types: bool = False, seed: int = 0) -> list[Tokens]:
    """Rows of these lengths; with types, the latter part of each is of the second text."""
    numbers = np.random.default_rng(seed)
    vocabulary = len(model.tokenizer)
    rows = []
    for length in lengths:
        ids = numbers.integers(5, vocabulary, length).astype(np.int32)
        kinds = (np.arange(length) >= length // 3).astype(np.int32)
        rows.append(Tokens(ids, kinds if types else None))
    return rows


def as_jobs_give_them(rows: Sequence[Tokens], group: object = ()) -> list[Row[Tokens]]:
    return [Row(len(row.ids), row, place, group) for place, row in enumerate(rows)]


def own_logits(model: CrossEncoder, rows: Sequence[Tokens]) -> np.ndarray:
    """Through the model's own forward, each row by itself."""
    import torch

    logits = []
    for row in rows:
        features = {"input_ids": torch.from_numpy(row.ids)[None].long()}
        features["attention_mask"] = torch.ones_like(features["input_ids"])
        if row.types is not None:
            features["token_type_ids"] = torch.from_numpy(row.types)[None].long()
        with torch.inference_mode():
            logits.append(model(features)["scores"].float().reshape(()).numpy())
    return np.array(logits, dtype=np.float32)
