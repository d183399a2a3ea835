"""Scores kept in a file of SQLite, which any number of threads and processes may share.

The file holds, in write-ahead mode, a record for each key, and when it was last of use. A write is one short
transaction: whoever is killed in the midst of one leaves the file as it was before. The journal is not waited
for to reach the disk, so that a power cut may take the last writes with it, but leaves the file whole.
https://www.sqlite.org/wal.html
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from weakref import WeakSet

from uprank.cache.base import CacheEntry, CacheStats, valid_max_entries
from uprank.cache.database import opened
from uprank.errors import ConfigurationError

__all__ = ["DiskCache"]

_AT_ONCE = 500  # keys of one statement: older SQLite takes 999 parameters
_REST = 10.0  # seconds without a write after one that failed, so that a stuck writer does not slow every ranking
_SLACK = 0.05  # of what may be kept is dropped at once, so that not every write has to drop something
_NOTED = 100_000  # keys whose use is noted until the next write
_FORKING = 5.0  # seconds that a fork waits for a call under way


class DiskCache:
    """Keeps scores in a file.

    Safe to share: between rerankers, threads, and processes of one machine, forked ones and killed ones included. No
    text is in the file unless ``store_text`` is true, only digests and numbers. It must not lie on a network
    drive, whose locks SQLite cannot rely on; and while it is in use it must not be deleted: :meth:`clear` it instead.

    Args:
        path: Of the file; made, with its folder, where it does not exist. Two more beside it, ``-wal`` and ``-shm``,
            belong to it while it is open.
        max_entries: The most that is kept; what was not used for longest goes first. By default no limit is set: a
            score takes about 120 bytes.
        store_text: Keep query and texts as well, to look at with any SQLite tool (table ``texts``).

    Raises:
        ConfigurationError: If the file is something else than a cache, or one of another version (it is left as it
            is), or cannot be opened; or if ``max_entries`` is no positive integer.
    """

    blocking = True
    _connection: sqlite3.Connection | None = None  # also of one that could not be made, when it is thrown away

    def __init__(
        self, path: str | os.PathLike[str], *, max_entries: int | None = None, store_text: bool = False
    ) -> None:
        if not isinstance(path, (str, os.PathLike)) or not str(path):
            raise ConfigurationError(f"A disk cache needs the path of a file, got {path!r}.")
        self._path = Path(path).expanduser().absolute()  # so that it stays where it is if the process changes folders
        self._most = valid_max_entries(max_entries)
        self._store_text = store_text
        self._lock = threading.Lock()
        self._resting_until = 0.0
        self._used: set[bytes] = set()
        self._hits = self._misses = 0
        self._connection = opened(self._path)
        _caches.add(self)

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._path

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The record of each key, in their order; ``None`` where there is none.

        Raises:
            OSError: If the file cannot be read.
        """
        found: dict[bytes, bytes] = {}
        with self._connected("read") as connection:
            rest = iter(keys)
            while some := list(islice(rest, _AT_ONCE)):
                marks = ",".join("?" * len(some))
                question = f"SELECT key, record FROM entries WHERE key IN ({marks})"  # noqa: S608 - marks alone
                found.update(connection.execute(question, some))
            records = [found.get(key) for key in keys]
            hits = len(keys) - records.count(None)
            self._hits += hits
            self._misses += len(keys) - hits
            if self._most is not None and len(self._used) < _NOTED:
                self._used.update(found)
        return records

    def put_many(self, entries: Sequence[CacheEntry]) -> None:
        """Keep records, in place of those that have the same keys.

        Nothing is kept for ten seconds after a write that failed.

        Raises:
            OSError: If the file cannot be written to: another process has it locked, the disk is full, it is read-only.
        """
        if time.monotonic() < self._resting_until:
            return
        now = time.time_ns()
        try:
            with self._connected("written to") as connection, _transaction(connection):
                connection.executemany(
                    "INSERT INTO entries VALUES (?, ?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET record = excluded.record, used = excluded.used",
                    [(entry.key, entry.record, now) for entry in entries],
                )
                if self._store_text:
                    rows = [(entry.key, _text(entry.query), _text("\n\n".join(entry.texts))) for entry in entries]
                    connection.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", rows)
                if self._most is not None:
                    self._make_room(connection, self._most, now)
        except OSError:
            self._resting_until = time.monotonic() + _REST
            raise

    def stats(self) -> CacheStats:
        """How much is kept, and how often that was of use.

        Raises:
            OSError: If the file cannot be read.
        """
        with self._connected("read") as connection:
            (entries,) = connection.execute("SELECT entries FROM counts").fetchone()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            (size,) = connection.execute("PRAGMA page_size").fetchone()
            return CacheStats(self._hits, self._misses, entries, pages * size)

    def clear(self) -> None:
        """Forget all scores and texts, for all who share the file, which keeps its size.

        Raises:
            OSError: If the file cannot be written to.
        """
        with self._connected("written to") as connection, _transaction(connection):
            connection.execute("DELETE FROM texts")
            connection.execute("DELETE FROM entries")

    def close(self) -> None:
        """Close the file. The next call opens it again."""
        with self._lock:
            self._disconnect()

    def __reduce__(self) -> tuple[Callable[..., DiskCache], tuple[str, int | None, bool]]:
        return _remake, (str(self._path), self._most, self._store_text)

    def __repr__(self) -> str:
        return f"DiskCache({str(self._path)!r})"

    def __del__(self) -> None:
        self._disconnect()

    @contextmanager
    def _connected(self, what: str) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone while the block lasts."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = opened(self._path)
                yield self._connection
            except ConfigurationError as error:  # it was a cache once, and is no longer
                raise OSError(str(error)) from error
            except sqlite3.Error as error:
                raise OSError(f"{self._path} cannot be {what}: {_in_words(error)}") from error

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _make_room(self, connection: sqlite3.Connection, most: int, now: int) -> None:
        used, self._used = self._used, set()
        connection.executemany("UPDATE entries SET used = ? WHERE key = ?", [(now, key) for key in used])
        (entries,) = connection.execute("SELECT entries FROM counts").fetchone()
        if entries > most:
            surplus = entries - most + int(most * _SLACK)
            connection.execute(
                "DELETE FROM entries WHERE key IN (SELECT key FROM entries ORDER BY used LIMIT ?)", (surplus,)
            )

    def _before_fork(self) -> bool:
        """Close the connection: one that is open must not cross a fork (https://www.sqlite.org/howtocorrupt.html).

        Returns:
            Whether the lock is held now, so that nobody opens another one.
        """
        held = self._lock.acquire(timeout=_FORKING)
        if held:
            self._disconnect()
        return held

    def _after_fork(self) -> None:
        """In the child: nothing is open, and nobody holds the lock."""
        self._lock = threading.Lock()
        if self._connection is not None:  # a call of another thread took too long
            _lost.append(self._connection)
            self._connection = None


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:  # an interrupt, too, must leave no transaction open
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _in_words(error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text or "busy" in text:
        return f"another process holds it ({text})"
    if "malformed" in text or "not a database" in text:
        return f"it is damaged ({text}); delete it while nobody uses it, and it is made anew"
    return text


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # SQLite takes no lone surrogates


def _remake(path: str, max_entries: int | None, store_text: bool) -> DiskCache:  # noqa: FBT001 - called by pickle
    return DiskCache(path, max_entries=max_entries, store_text=store_text)


_caches: WeakSet[DiskCache] = WeakSet()
_held: dict[int, list[DiskCache]] = {}  # by the thread that forks
_lost: list[sqlite3.Connection] = []  # of a parent process: not to be used, nor closed


def _before_fork() -> None:
    _held[threading.get_ident()] = [cache for cache in list(_caches) if cache._before_fork()]


def _after_fork_in_parent() -> None:
    for cache in _held.pop(threading.get_ident(), []):
        cache._lock.release()


def _after_fork_in_child() -> None:
    _held.clear()
    for cache in list(_caches):
        cache._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
