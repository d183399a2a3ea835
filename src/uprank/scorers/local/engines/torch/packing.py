"""Batches without padding: the tokens of all sequences in one row, and where each sequence begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.local.engines.base import Tokens
from uprank.scorers.local.engines.torch.devices import sent

if TYPE_CHECKING:
    import torch

__all__ = ["PackedBatch", "Run", "pack_tokens"]


class Run(NamedTuple):
    """Sequences of the same length that lie next to each other.

    Attributes:
        start: The first token of the first.
        rows: How many.
        length: Tokens of each.
    """

    start: int
    rows: int
    length: int


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences one behind the other, longest first. All tensors are of int32, on the model's device.

    Args:
        order: The row of the caller that each sequence is.
        longest: Tokens of the longest sequence.
        runs: The same bounds for attention that takes sequences of one length at a time.
        ids: Token ids, of shape (tokens,).
        positions: What position each token has in its sequence, as the model counts.
        types: Which of the two texts each token belongs to, or ``None``.
        bounds: Of shape (sequences + 1,): sequence i is tokens ``bounds[i]`` to ``bounds[i + 1] - 1``.
        singles: The bounds of a batch that has but one token of each sequence.
    """

    order: NDArray[np.intp]
    longest: int
    runs: tuple[Run, ...]
    ids: torch.Tensor
    positions: torch.Tensor
    types: torch.Tensor | None
    bounds: torch.Tensor
    singles: torch.Tensor

    @property
    def firsts(self) -> torch.Tensor:
        """Where the first token of each sequence is."""
        return self.bounds[:-1]

    def __len__(self) -> int:
        return len(self.order)


def pack_tokens(rows: Sequence[Tokens], device: torch.device, padding_id: int | None = None) -> PackedBatch:
    """Pack rows; everything is counted on the host and sent in one piece.

    Args:
        rows: At least one, each of at least one token.
        device: Where the model is.
        padding_id: For models that count positions from ``padding_id + 1`` and leave tokens of that
            id out of the count, as RoBERTa does; ``None`` for those that count from 0.
    """
    lengths = np.array([len(row.ids) for row in rows], dtype=np.int32)
    order = np.argsort(-lengths, kind="stable")
    lengths = lengths[order]
    sorted_rows = [rows[row] for row in order]
    bounds = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum(lengths, out=bounds[1:])
    ids = np.concatenate([row.ids for row in sorted_rows], dtype=np.int32)
    pieces = [ids, _positions(ids, bounds, lengths, padding_id), bounds, np.arange(len(rows) + 1, dtype=np.int32)]
    types = [row.types for row in sorted_rows if row.types is not None]
    if types:
        pieces.append(np.concatenate(types, dtype=np.int32))
    everything = sent(np.concatenate(pieces), device)
    ends = np.cumsum([len(piece) for piece in pieces]).tolist()
    parts = [everything[end - len(piece) : end] for end, piece in zip(ends, pieces, strict=True)]
    return PackedBatch(
        order=order,
        longest=int(lengths[0]),
        runs=_runs(lengths, bounds),
        ids=parts[0],
        positions=parts[1],
        types=parts[4] if types else None,
        bounds=parts[2],
        singles=parts[3],
    )


def _positions(
    ids: NDArray[np.int32], bounds: NDArray[np.int32], lengths: NDArray[np.int32], padding_id: int | None
) -> NDArray[np.int32]:
    if padding_id is None:
        return np.arange(len(ids), dtype=np.int32) - np.repeat(bounds[:-1], lengths)
    counted = (ids != padding_id).astype(np.int32)
    running = np.zeros(len(ids) + 1, dtype=np.int32)
    np.cumsum(counted, out=running[1:])
    places: NDArray[np.int32] = (running[1:] - np.repeat(running[bounds[:-1]], lengths)) * counted
    places += np.int32(padding_id)
    return places


def _runs(lengths: NDArray[np.int32], bounds: NDArray[np.int32]) -> tuple[Run, ...]:
    changes = np.flatnonzero(np.diff(lengths)) + 1
    starts = [0, *changes.tolist()]
    ends = [*changes.tolist(), len(lengths)]
    return tuple(Run(int(bounds[a]), b - a, int(lengths[a])) for a, b in zip(starts, ends, strict=True))
