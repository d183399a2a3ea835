"""A batch of token ids as a model takes them: padded to the longest, in int64."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.local.engines.base import TokenIds, Tokens

__all__ = ["padded"]


def padded(rows: Sequence[Tokens], inputs: Collection[str], padding: int) -> dict[str, NDArray[np.int64]]:
    """Return the arrays that a model takes, of shape (rows, longest row).

    Args:
        rows: At least one.
        inputs: The model's names of them, of ``input_ids``, ``attention_mask`` and ``token_type_ids``.
        padding: The token that fills the rows up.
    """
    shape = len(rows), max(1, *(len(row.ids) for row in rows)) if len(rows) > 1 else max(1, len(rows[0].ids))
    arrays = {"input_ids": _block(shape, [row.ids for row in rows], padding)}
    if "attention_mask" in inputs:
        lengths = np.array([len(row.ids) for row in rows])
        arrays["attention_mask"] = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
    if "token_type_ids" in inputs:
        arrays["token_type_ids"] = _block(shape, [row.types for row in rows], 0)
    return arrays


def _block(shape: tuple[int, int], rows: Sequence[TokenIds | None], padding: int) -> NDArray[np.int64]:
    block = np.full(shape, padding, dtype=np.int64)
    for line, row in zip(block, rows, strict=True):
        if row is not None:
            line[: len(row)] = row
    return block
