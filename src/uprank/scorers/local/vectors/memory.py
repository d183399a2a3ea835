"""Document vectors in memory, ready to be multiplied, bounded in bytes.

Vectors lie in slabs, one document after the other. Documents that came together are neighbours, and
their product with a query is one multiplication without a copy. The slab that was used least lately
goes first, with all its documents.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

import numpy as np

from uprank.scorers.local.vectors.blocks import Block, Known

__all__ = ["MemoryStore"]

_SLAB_BYTES = 8_000_000
_SLABS = 8  # at least so many, so that not everything goes at once
_ENTRY_BYTES = 300  # what the dictionary takes for a document


@dataclass(slots=True, eq=False)
class _Slab:
    """Room for vectors, filled from the start.

    Args:
        block: All of it.
        size: Its bytes.
        used: Vectors in it so far.
        keys: Of the documents in it.
    """

    block: Block
    size: int
    used: int = 0
    keys: list[bytes] = field(default_factory=list)


class MemoryStore:
    """The vectors of the documents that were used last. May be used by several threads.

    Args:
        limit: The most bytes that are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._entries: dict[bytes, tuple[_Slab, Known]] = {}
        self._slabs: OrderedDict[_Slab, None] = OrderedDict()  # the one used last at the end
        self._open: _Slab | None = None
        self._bytes = 0
        _stores.add(self)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """The bytes that are kept."""
        return self._bytes + len(self._entries) * _ENTRY_BYTES

    def get(self, keys: Sequence[bytes]) -> list[Known | None]:
        """What is known of some documents, in their order."""
        with self._lock:
            found: list[Known | None] = []
            used: dict[_Slab, None] = {}
            for key in keys:
                entry = self._entries.get(key)
                if entry is None:
                    found.append(None)
                    continue
                slab, known = entry
                used[slab] = None
                found.append(known)
            for slab in used:
                self._slabs.move_to_end(slab)
            return found

    def put(self, key: bytes, known: Known) -> Known:
        """Keep the vectors of a document, copied; nothing is done where it is too large, or there already.

        Returns:
            Where they lie from now on.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                return entry[1]
            self._make_room(_ENTRY_BYTES)
            slab = self._slab_for(known)
            if slab is None:
                return known
            start, stop = slab.used, slab.used + known.size
            target, source = slab.block.slice(start, stop), known.block.slice(known.start, known.start + known.size)
            target.values[...] = source.values
            if target.scales is not None and source.scales is not None:
                target.scales[...] = source.scales
            slab.used = stop
            slab.keys.append(key)
            kept = Known(slab.block, start, known.size, known.tokens)
            self._entries[key] = slab, kept
            self._slabs.move_to_end(slab)
            return kept

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()
            self._slabs.clear()
            self._open, self._bytes = None, 0

    def _slab_for(self, known: Known) -> _Slab | None:
        """A slab with room for a document; ``None`` where the limit leaves none."""
        slab = self._open
        values, scales = known.block.values, known.block.scales
        if slab is not None and slab.used + known.size <= len(slab.block.values):
            return slab
        dimensions = values.shape[1]
        vector = dimensions * values.itemsize + (0 if scales is None else scales.itemsize)
        rows = max(1, known.size, min(_SLAB_BYTES, self._limit // _SLABS) // vector)
        size = rows * vector
        if size + _ENTRY_BYTES > self._limit:
            return None
        self._make_room(size + _ENTRY_BYTES)
        block = Block(
            np.empty((rows, dimensions), dtype=values.dtype), None if scales is None else np.empty(rows, np.float32)
        )
        slab = self._open = _Slab(block, size)
        self._slabs[slab] = None
        self._bytes += size
        return slab

    def _make_room(self, size: int) -> None:
        """Let go of slabs until so many bytes more are within the limit."""
        while self._slabs and self.nbytes + size > self._limit:
            slab, _ = self._slabs.popitem(last=False)
            self._bytes -= slab.size
            for key in slab.keys:
                del self._entries[key]
            if slab is self._open:
                self._open = None

    def _after_fork(self) -> None:
        whole = self._lock.acquire(blocking=False)  # else another thread was in the midst of a change
        self._lock = threading.Lock()
        if not whole:
            self.clear()


_stores: WeakSet[MemoryStore] = WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
