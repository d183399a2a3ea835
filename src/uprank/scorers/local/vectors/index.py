"""Which documents a store on disk holds: a file of entries of one size, each written once, at its end."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENTRY_BYTES", "Entry", "Index", "complete", "packed"]

_ENTRY = struct.Struct("<16sQIIII")  # digest, offset, vectors, tokens, checksum of the record, checksum of all this
ENTRY_BYTES = _ENTRY.size
_CHECKED = _ENTRY.size - 4
_DTYPE = np.dtype([("head", "<u8"), ("rest", "V32")])
_MOST_RECENT = 50_000  # entries looked up in a dictionary before all are sorted anew


class Entry(NamedTuple):
    """Where the record of a document lies.

    Attributes:
        key: The digest of its text.
        offset: Of its first byte.
        size: Its vectors.
        tokens: What the model read of the text.
        checksum: CRC-32 of the record.
    """

    key: bytes
    offset: int
    size: int
    tokens: int
    checksum: int


def packed(entry: Entry) -> bytes:
    """The bytes of an entry."""
    start = _ENTRY.pack(*entry, 0)[:_CHECKED]
    return start + struct.pack("<I", zlib.crc32(start))


def complete(size: int) -> int:
    """The bytes of whole entries in a file of ``size`` bytes."""
    return size - size % ENTRY_BYTES


class Index:
    """The entries of a file, found by digest. Others may append to the file meanwhile.

    Sorted by the first eight bytes of the digest when it is opened (12 bytes of memory an entry); the
    entries themselves stay in the file.

    Args:
        path: May be missing, as long as nothing is stored.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mapped: NDArray[np.void] | None = None
        self._heads: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._order: NDArray[np.uint32] = np.empty(0, dtype=np.uint32)
        self._recent: dict[bytes, int] = {}
        self._seen = 0  # entries that are sorted or in the dictionary
        self.refresh()

    def __len__(self) -> int:
        return self._seen

    def refresh(self) -> bool:
        """Look for entries that were appended; return whether there are any."""
        try:
            count = self._path.stat().st_size // ENTRY_BYTES
        except FileNotFoundError:
            count = 0
        if count == self._seen:
            return False
        if count < self._seen:  # made anew by someone
            self._recent, self._seen, self._heads = {}, 0, np.empty(0, dtype=np.uint64)
        self._mapped = np.memmap(self._path, dtype=_DTYPE, mode="r", shape=(count,)) if count else None
        if self._mapped is not None:
            if count - len(self._heads) > _MOST_RECENT:
                heads = np.array(self._mapped["head"])
                self._order = np.argsort(heads).astype(np.uint32)
                self._heads = heads[self._order]
                self._recent = {}
            else:
                for position in range(self._seen, count):
                    self._recent[self._mapped[position].tobytes()[:16]] = position
        self._seen = count
        return True

    def find(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """The latest whole entry of each digest."""
        found = [self._whole(self._recent.get(key), key) for key in keys]
        missing = [place for place, entry in enumerate(found) if entry is None]
        if not missing or not len(self._heads):
            return found
        heads = np.frombuffer(b"".join(keys[place] for place in missing), dtype="<u8")[::2]
        first = np.searchsorted(self._heads, heads, side="left").tolist()
        last = np.searchsorted(self._heads, heads, side="right").tolist()
        for place, start, stop in zip(missing, first, last, strict=True):
            for position in sorted(self._order[start:stop].tolist(), reverse=True):
                found[place] = self._whole(position, keys[place])
                if found[place] is not None:
                    break
        return found

    def _whole(self, position: int | None, key: bytes) -> Entry | None:
        if position is None or self._mapped is None:
            return None
        content = self._mapped[position].tobytes()
        *fields, checksum = _ENTRY.unpack(content)
        if fields[0] != key or zlib.crc32(content[:_CHECKED]) != checksum:
            return None
        return Entry(*fields)
