"""The file of a disk cache: opened if it is one, made if there is none, else left as it is."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from uprank.errors import ConfigurationError

__all__ = ["opened"]

_APPLICATION = 0x7570726B  # "uprk", in the header of the file
_VERSION = 1
_PATIENCE = 1.0  # seconds that a statement waits for another process
_MAKING = 10.0  # seconds to wait for others that make the same file
_SCHEMA = (
    "CREATE TABLE entries (key BLOB PRIMARY KEY, record BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX by_use ON entries (used)",
    "CREATE TABLE texts (key BLOB PRIMARY KEY, query TEXT NOT NULL, text TEXT NOT NULL)",
    "CREATE TABLE counts (entries INTEGER NOT NULL)",  # SQLite counts rows by reading them all
    "INSERT INTO counts VALUES (0)",
    "CREATE TRIGGER added AFTER INSERT ON entries BEGIN UPDATE counts SET entries = entries + 1; END",
    "CREATE TRIGGER removed AFTER DELETE ON entries BEGIN UPDATE counts SET entries = entries - 1; "
    "DELETE FROM texts WHERE key = OLD.key; END",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_VERSION}",
)


def opened(path: Path) -> sqlite3.Connection:
    """Open the file of a cache; make it if there is none, or an empty one.

    Args:
        path: Absolute.

    Raises:
        ConfigurationError: If it is something else, of another version, or can be neither made nor read.
    """
    try:
        if path.is_dir():
            raise ConfigurationError(f"{path} is a folder; a disk cache is a file, e.g. {path / 'scores.db'}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        return _opened(path)
    except (OSError, sqlite3.Error) as error:
        if "not a database" in str(error):
            raise ConfigurationError(
                f"{path} is something else than a cache of scores, and was left as it is; choose another path."
            ) from error
        raise ConfigurationError(f"There can be no cache at {path}: {error}.") from error


def _opened(path: Path) -> sqlite3.Connection:
    deadline = time.monotonic() + _MAKING
    while True:
        connection = _connect(str(path))
        try:
            _prepare(connection, path)
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            if "locked" in str(error) or "busy" in str(error):  # by others that make it, who are done soon
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            elif path.is_file() and not Path(f"{path}-wal").exists():
                return _read_only(path, error)
            else:
                raise
        except BaseException:
            connection.close()
            raise


def _read_only(path: Path, error: sqlite3.OperationalError) -> sqlite3.Connection:
    """Open a file where nothing can be written: neither to it nor beside it."""
    connection = _connect(f"{path.as_uri()}?immutable=1", uri=True)
    try:
        if not _is_cache(connection, path):
            raise error
        return connection
    except BaseException:
        connection.close()
        raise


def _connect(name: str, *, uri: bool = False) -> sqlite3.Connection:
    # Transactions are begun by us; calls come from several threads, one at a time.
    return sqlite3.connect(name, timeout=_PATIENCE, isolation_level=None, check_same_thread=False, uri=uri)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if not _is_cache(connection, path):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        if not _is_cache(connection, path):  # another process may have been first
            for statement in _SCHEMA:
                connection.execute(statement)
        connection.execute("COMMIT")
    connection.execute("PRAGMA synchronous = NORMAL")


def _is_cache(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether it is one; ``False`` for an empty database, an error for any other. Nothing is written."""
    alone = not connection.in_transaction
    if alone:
        connection.execute("BEGIN")  # so that all is read of one moment: another process may be making the tables
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        if alone and connection.in_transaction:
            connection.execute("ROLLBACK")
    if application == _APPLICATION:
        if version != _VERSION:
            raise ConfigurationError(
                f"{path} is a cache of version {version}; this uprank knows version {_VERSION}. It was left as it is: "
                "choose another path, or delete it."
            )
        return True
    if application or version or tables:
        raise ConfigurationError(
            f"{path} is a database of something else than a cache of scores, and was left as it is; choose another "
            "path."
        )
    return False
