"""What an encoder makes of a batch of texts: unit vectors in rows, none of padding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DeviceVectors", "Encoded", "HostVectors", "normalised"]

_SMALLEST = 1e-12  # of a norm; a zero vector stays zero, and its cosine is 0


class Encoded(ABC):
    """The vectors of a batch, text by text.

    Attributes:
        counts: How many each text has.
    """

    counts: Sequence[int]

    @abstractmethod
    def part(self, positions: Sequence[int]) -> Encoded:
        """Those of some texts of the batch."""

    @abstractmethod
    def host(self) -> NDArray[np.float32]:
        """All of them in main memory, of shape (vectors, dimensions)."""

    def _rows(self, positions: Sequence[int]) -> NDArray[np.int64]:
        starts = [0, *accumulate(self.counts)]
        rows = [np.arange(starts[position], starts[position + 1]) for position in positions]
        return np.concatenate(rows) if rows else np.empty(0, dtype=np.int64)

    def _all(self, positions: Sequence[int]) -> bool:
        return len(positions) == len(self.counts) and all(map(int.__eq__, positions, range(len(positions))))


@dataclass(frozen=True, slots=True)
class HostVectors(Encoded):
    """In main memory.

    Args:
        values: Unit vectors of shape (vectors, dimensions).
        counts: How many each text has.
    """

    values: NDArray[np.float32]
    counts: Sequence[int]

    def part(self, positions: Sequence[int]) -> HostVectors:
        if self._all(positions):
            return self
        return HostVectors(self.values[self._rows(positions)], [self.counts[position] for position in positions])

    def host(self) -> NDArray[np.float32]:
        return self.values


@dataclass(frozen=True, slots=True)
class DeviceVectors(Encoded):
    """On an accelerator, where they may still be being computed.

    Args:
        values: Unit vectors of shape (vectors, dimensions), in float32.
        counts: How many each text has.
    """

    values: Tensor
    counts: Sequence[int]

    def part(self, positions: Sequence[int]) -> DeviceVectors:
        if self._all(positions):
            return self
        counts = [self.counts[position] for position in positions]
        return DeviceVectors(self.values[self._on_device(self._rows(positions))], counts)

    def host(self) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self.values.cpu().numpy()
        return values

    def maxsim(self, query: NDArray[np.float32], positions: Sequence[int]) -> list[float]:
        """As :func:`~uprank.scorers.local.vectors.maxsim.maxsim`, of some texts, where they are.

        Args:
            query: Unit vectors of shape (tokens, dimensions).
            positions: Of the texts.
        """
        import torch

        texts = self.part(positions)
        if not len(query):
            return [-1.0] * len(positions)
        with torch.inference_mode():
            cosines = texts.values @ torch.from_numpy(query).to(texts.values.device).T
            owner = self._on_device(np.repeat(np.arange(len(positions)), texts.counts))
            best = cosines.new_full((len(positions), len(query)), -1.0)
            best.scatter_reduce_(0, owner[:, None].expand_as(cosines), cosines, "amax")
            scores: list[float] = best.mean(dim=1).clamp(-1.0, 1.0).tolist()
        return scores

    def _on_device(self, numbers: NDArray[np.int64]) -> Tensor:
        import torch

        return torch.from_numpy(numbers).to(self.values.device, non_blocking=True)


def normalised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors at unit length, changed where they are."""
    norms = np.sqrt(np.einsum("ij,ij->i", values, values))
    values /= np.maximum(norms, _SMALLEST)[:, None]
    return values
