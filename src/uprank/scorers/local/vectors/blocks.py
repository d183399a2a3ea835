"""Vectors in rows, as they are kept and as they are multiplied: float32, or int8 with a scale for each vector."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.local.vectors.options import StoreDType

__all__ = ["Block", "Known", "from_record", "record_size", "rounded", "to_record", "widened"]

Floats: TypeAlias = "NDArray[np.float32]"

_LARGEST = 127  # of int8; -128 is left out, so that the range is even on both sides
# A half's exponent and fraction, moved up by 13 bits, are those of a float that is smaller by this factor.
_HALF_TO_FLOAT = np.float32(2.0**112)
_HALF_BITS = np.int32(-0x80000000 | 0x0FFFE000)
# Multiplications in one product. Beyond, OpenBLAS starts threads that spin: a gain of a third where cores stand
# idle, a loss of ten times and more where they are at work. (With one query it counts otherwise.)
_PRODUCT, _PRODUCT_OF_ONE = 250_000, 9_000
_WIDENED = 32_768  # likewise, numbers


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Vectors, one a row.

    Args:
        values: Of shape (vectors, dimensions): float32, or int8 with ``scales``.
        scales: Of shape (vectors,): what each vector of int8 is multiplied by; ``None`` for float32.
    """

    values: NDArray[np.float32] | NDArray[np.int8]
    scales: Floats | None = None

    def slice(self, start: int, stop: int) -> Block:
        """Some consecutive vectors, not copied."""
        scales = None if self.scales is None else self.scales[start:stop]
        return Block(self.values[start:stop], scales)

    def times(self, queries: Floats, out: Floats) -> None:
        """The products of each vector with each query.

        Args:
            queries: Of shape (dimensions, queries).
            out: Of shape (vectors, queries): filled.
        """
        dimensions, count = queries.shape
        step = max(1, (_PRODUCT_OF_ONE if count == 1 else _PRODUCT) // (dimensions * count))
        buffer = None if self.scales is None else np.empty((step, dimensions), dtype=np.float32)
        for start in range(0, len(self.values), step):
            values = self.values[start : start + step]
            if buffer is not None:  # widened a little at a time, it stays in the processor's cache
                buffer[: len(values)] = values
                values = buffer[: len(values)]
            np.matmul(values, queries, out=out[start : start + step])
        if self.scales is not None:
            out *= self.scales[:, None]


class Known(NamedTuple):
    """The vectors of one text: consecutive rows of a block.

    Attributes:
        block: Where they lie.
        start: The first of them.
        size: How many.
        tokens: What the model read of the text, special tokens included.
    """

    block: Block
    start: int
    size: int
    tokens: int


def rounded(values: Floats, dtype: StoreDType) -> Block:
    """Unit vectors as precise as they are kept, so that it makes no difference whether they were.

    Args:
        values: Of shape (vectors, dimensions).
        dtype: What they are kept in.
    """
    if dtype == "float32":
        return Block(values)
    if dtype == "float16":
        return Block(widened(values.astype(np.float16)))
    scales = np.abs(values).max(axis=1, initial=0.0) / _LARGEST
    divisors = np.where(scales > 0, scales, np.float32(1.0))  # a zero vector stays one
    return Block(np.rint(values / divisors[:, None]).astype(np.int8), scales.astype(np.float32))


def widened(halves: NDArray[np.float16]) -> Floats:
    """Finite float16 as float32, exactly; several times as fast as NumPy's own conversion."""
    result = np.empty(halves.shape, dtype=np.float32)
    bits = result.view(np.int32)
    step = max(1, _WIDENED // max(1, halves.shape[1]))
    for start in range(0, len(halves), step):
        part = bits[start : start + step]
        part[...] = halves[start : start + step].view(np.int16)
        part <<= 13
        part &= _HALF_BITS
        result[start : start + step] *= _HALF_TO_FLOAT
    return result


def record_size(count: int, dimensions: int, dtype: StoreDType) -> int:
    """The bytes of so many vectors as :func:`to_record` writes them."""
    if dtype == "int8":
        return count * (dimensions + 4)
    return count * dimensions * (4 if dtype == "float32" else 2)


def to_record(block: Block, dtype: StoreDType) -> bytes:
    """What is written of a block that was :func:`rounded` to ``dtype``: scales, then values, little-endian."""
    if dtype == "int8":
        assert block.scales is not None  # noqa: S101 - as rounded() made it
        return block.scales.astype("<f4").tobytes() + block.values.tobytes()
    return block.values.astype("<f4" if dtype == "float32" else "<f2").tobytes()


def from_record(record: NDArray[np.uint8], count: int, dimensions: int, dtype: StoreDType) -> Block:
    """The block that :func:`to_record` wrote; of float32 and int8 without a copy where bytes lie as here."""
    if dtype == "int8":
        scales = _native(record[: 4 * count].view("<f4"))
        return Block(record[4 * count :].view(np.int8).reshape(count, dimensions), scales)
    if dtype == "float32":
        return Block(_native(record.view("<f4")).reshape(count, dimensions))
    halves = record.view("<f2").astype(np.float16, copy=False)
    return Block(widened(halves.reshape(count, dimensions)))


def _native(values: NDArray[np.float32]) -> Floats:
    return values if sys.byteorder == "little" else values.astype(np.float32)
