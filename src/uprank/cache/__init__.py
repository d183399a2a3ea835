"""Scores that are kept: in memory, or in a file that any number of processes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uprank.cache.base import Cache, CacheEntry, CacheLike, CacheStats, cache_of
from uprank.cache.memory import MemoryCache

if TYPE_CHECKING:
    from uprank.cache.disk import DiskCache

__all__ = ["Cache", "CacheEntry", "CacheLike", "CacheStats", "DiskCache", "MemoryCache", "cache_of"]


def __getattr__(name: str) -> object:
    if name == "DiskCache":  # imported late: SQLite is needed by those alone who keep scores on disk
        from uprank.cache.disk import DiskCache

        return DiskCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
