"""The contract of a cache: bytes are kept under bytes. What they mean is for ``keys`` and ``records``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from uprank.errors import ConfigurationError

__all__ = ["Cache", "CacheEntry", "CacheLike", "CacheStats", "cache_of", "valid_max_entries"]


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What became of a cache.

    Args:
        hits: Keys that were asked of this object and found.
        misses: Keys that were asked of this object and not found.
        entries: What is kept at present, by all who share the cache.
        bytes: What that takes up: of a memory cache its keys and records, of a disk cache the file.
    """

    hits: int
    misses: int
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One thing to keep.

    Args:
        key: 32 bytes, from which nothing can be told.
        record: What to give back; no text is in it but a scorer's own warnings.
        query: What was asked. Keep it only where the user has asked for that.
        texts: What was scored; likewise.
    """

    key: bytes
    record: bytes
    query: str
    texts: Sequence[str]


@runtime_checkable
class Cache(Protocol):
    """Where scores are kept. All methods may be called by several threads at once.

    What one raises costs nobody a ranking: scores are then computed as if nothing were kept, and a warning says so.

    Attributes:
        blocking: Whether its methods may take long enough that an event loop should not wait for them.
    """

    blocking: bool

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """The record of each key, in their order; ``None`` where there is none."""

    def put_many(self, entries: Sequence[CacheEntry]) -> None:
        """Keep records, in place of those that have the same keys."""

    def stats(self) -> CacheStats:
        """How much is kept, and how often that was of use."""

    def close(self) -> None:
        """Free what is held open. The next call opens it again."""


CacheLike: TypeAlias = "bool | str | os.PathLike[str] | Cache"
"""How a cache may be asked for: ``True`` is one in memory, a path one in that file; ``False`` is none."""


def cache_of(cache: CacheLike) -> Cache:
    """Return the cache that a caller's ``cache=`` stands for, unless that is ``False``.

    Args:
        cache: ``True`` makes a :class:`~uprank.cache.MemoryCache`, a path a :class:`~uprank.cache.DiskCache`.

    Raises:
        ConfigurationError: If it is no cache, or the file cannot be used as one.
    """
    if cache is True:
        from uprank.cache.memory import MemoryCache

        return MemoryCache()
    if isinstance(cache, (str, os.PathLike)) and cache != "":
        from uprank.cache.disk import DiskCache

        return DiskCache(cache)
    if isinstance(cache, Cache) and not isinstance(cache, type):
        return cache
    raise ConfigurationError(
        "cache must be True (in memory), the path of a file, or a cache with get_many, put_many, stats, close and "
        f"blocking; got {cache!r}."
    )


def valid_max_entries(number: int | None) -> int | None:
    """Return ``number`` if it is a positive integer or ``None``; raise ``ConfigurationError`` if not."""
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise ConfigurationError(f"max_entries must be a positive integer, got {number!r}.")
    return number
