"""Scores kept in this process."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from weakref import WeakSet

from uprank.cache.base import CacheEntry, CacheStats, valid_max_entries

__all__ = ["MemoryCache"]


class MemoryCache:
    """Keeps scores in memory; what was not used for longest goes first.

    May be shared by any number of rerankers, threads and event loops. A pickle of it holds no scores.

    Args:
        max_entries: The most that is kept: of a model that scores documents one by one, as many scores, each of about
            200 bytes; of one that orders a list as a whole, as many lists.

    Raises:
        ConfigurationError: If it is no positive integer.
    """

    blocking = False

    def __init__(self, max_entries: int = 100_000) -> None:
        self._most = valid_max_entries(max_entries) or 1
        self._lock = threading.Lock()
        self._records: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = self._hits = self._misses = 0
        _caches.add(self)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The record of each key, in their order; ``None`` where there is none."""
        with self._lock:
            found = [self._records.get(key) for key in keys]
            for key, record in zip(keys, found, strict=True):
                if record is not None:
                    self._records.move_to_end(key)
            hits = len(keys) - found.count(None)
            self._hits += hits
            self._misses += len(keys) - hits
        return found

    def put_many(self, entries: Sequence[CacheEntry]) -> None:
        """Keep records, in place of those that have the same keys."""
        with self._lock:
            for entry in entries:
                self._forget(self._records.pop(entry.key, None), entry.key)
                self._records[entry.key] = entry.record
                self._bytes += len(entry.key) + len(entry.record)
            while len(self._records) > self._most:
                key, record = self._records.popitem(last=False)
                self._forget(record, key)

    def stats(self) -> CacheStats:
        """How much is kept, and how often that was of use."""
        with self._lock:
            return CacheStats(self._hits, self._misses, len(self._records), self._bytes)

    def clear(self) -> None:
        """Forget all scores. What was counted stays."""
        with self._lock:
            self._records.clear()
            self._bytes = 0

    def close(self) -> None:
        """Nothing is held open. What is kept stays: others may share it."""

    def __reduce__(self) -> tuple[Callable[[int], MemoryCache], tuple[int]]:
        return type(self), (self._most,)

    def __repr__(self) -> str:
        return f"<MemoryCache of {len(self._records)} entries>"

    def _forget(self, record: bytes | None, key: bytes) -> None:
        self._bytes -= 0 if record is None else len(key) + len(record)


_caches: WeakSet[MemoryCache] = WeakSet()


def _after_fork() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    for cache in list(_caches):
        cache._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
