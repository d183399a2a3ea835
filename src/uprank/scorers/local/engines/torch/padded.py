"""A cross-encoder of any kind on padded pairs, through its own forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.local.engines.base import TokenIds, Tokens
from uprank.scorers.local.engines.torch.devices import sent
from uprank.scorers.local.engines.torch.logits import Logits
from uprank.scorers.local.sentence_pairs import is_causal, modular

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder

__all__ = ["padded_logits"]


def padded_logits(
    model: CrossEncoder, rows: Sequence[Tokens], model_inputs: Mapping[str, object] | None = None
) -> Logits:
    """The logits of rows, padded to the longest; under ``torch.inference_mode``.

    Args:
        model: In evaluation mode. One without a padding token is given one row at a time.
        rows: At least one.
        model_inputs: What its forward needs beside token ids.
    """
    import torch

    if model.tokenizer.pad_token_id is None and len(rows) > 1:
        alone = [_forward(model, [row], model_inputs or {}) for row in rows]
        return Logits(torch.cat(alone))
    return Logits(_forward(model, rows, model_inputs or {}))


def _forward(model: CrossEncoder, rows: Sequence[Tokens], model_inputs: Mapping[str, object]) -> torch.Tensor:
    features: dict[str, object] = {**model_inputs, **_padded(model, rows)}
    logits: torch.Tensor = model(features)["scores"] if modular(model) else model(**features).logits
    return logits.reshape(-1)


def _padded(model: CrossEncoder, rows: Sequence[Tokens]) -> dict[str, torch.Tensor]:
    tokenizer = model.tokenizer
    device = model.device
    left = is_causal(model)  # those read the last position; an encoder reads the first, whatever its tokenizer says
    width = max(len(row.ids) for row in rows)

    def stack(values: Sequence[TokenIds], padding: int) -> NDArray[np.int64]:
        block = np.full((len(values), width), padding, dtype=np.int64)
        for line, row in zip(block, values, strict=True):
            line[slice(width - len(row), width) if left else slice(len(row))] = row
        return block

    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    features = {
        "input_ids": stack([row.ids for row in rows], padding),
        "attention_mask": stack([np.ones(len(row.ids), dtype=np.int32) for row in rows], 0),
    }
    types = [row.types for row in rows if row.types is not None]
    if types:
        features["token_type_ids"] = stack(types, tokenizer.pad_token_type_id)
    tensors = sent(np.stack(list(features.values())), device).unbind(0)  # in one piece
    return dict(zip(features, tensors, strict=True))
