"""Weights in safetensors files, read one tensor at a time, without torch.

The format: eight bytes with the length of a JSON header, the header, the tensors' bytes.
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Weights", "WeightsError"]

_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # NumPy knows no bfloat16
_LARGEST_HEADER = 100_000_000  # as the reference implementation has it


class WeightsError(ValueError):
    """A file of weights cannot be read, or lacks a tensor."""


class _Place(NamedTuple):
    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Weights(Mapping[str, NDArray[np.float32]]):
    """The tensors of one or several safetensors files by name, each widened to float32 when it is asked for.

    Nothing but the headers is kept: a tensor is read from the file each time.

    Args:
        paths: The files; of a sharded model, all shards.

    Raises:
        WeightsError: If a file is not in the format.
        OSError: If a file cannot be opened.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._places: dict[str, _Place] = {}
        for path in paths:
            self._places.update(_header(path))

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        place = self._places[name]
        if place.dtype not in _FLOATS:
            raise WeightsError(f"{place.path.name} holds {name!r} as {place.dtype}, not as floating-point numbers.")
        kind = np.dtype(_FLOATS[place.dtype])
        count = math.prod(place.shape)
        if place.end - place.begin != count * kind.itemsize:
            raise WeightsError(f"{place.path.name} holds {name!r} in a wrong number of bytes.")
        values = np.fromfile(place.path, dtype=kind, count=count, offset=place.begin)
        if len(values) != count:
            raise WeightsError(f"{place.path.name} ends before {name!r} does; it was probably cut off.")
        if place.dtype == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32, copy=False).reshape(place.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self._places[name].shape


def _header(path: Path) -> dict[str, _Place]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _LARGEST_HEADER:
            raise WeightsError(f"{path.name} is not a safetensors file.")
        content = file.read(length)
    start = 8 + length
    try:
        entries = json.loads(content)
        return {
            name: _Place(
                path,
                str(entry["dtype"]),
                tuple(int(size) for size in entry["shape"]),
                start + int(entry["data_offsets"][0]),
                start + int(entry["data_offsets"][1]),
            )
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise WeightsError(f"{path.name} has no readable safetensors header.") from error
