"""Document vectors on disk: one writer at a time, any number of readers, in any number of processes.

A store is a folder of three files, all numbers little-endian:

``store.json``
    The header, written once: ``{"format": "uprank vectors", "version": 1, "dtype": "float32" |
    "float16" | "int8", "dimensions": D, "made_by": {...}}``, where ``made_by`` tells the model and what
    else its vectors depend on. No text and no secret is stored.

``vectors.bin``
    Records, each at a multiple of 8 bytes. The record of a document of ``n`` vectors is, of float32
    and float16, its ``n × D`` numbers, vector by vector; of int8, ``n`` scales in float32, then ``n × D``
    numbers, to be multiplied by their vector's scale.

``index.bin``
    Entries of 40 bytes, in the order of writing: BLAKE2b-128 of the text in UTF-8 (16 bytes), offset
    of the record (8), its vectors (4), tokens that the model read (4), CRC-32 of the record (4), CRC-32
    of the 36 bytes before (4). Of two entries with one digest the later holds.

Files only grow. A record is written before its entry, and both are checked when they are read: what a
crash has left half done is not found, and is stored again. ``lock`` is locked while something is written.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from uprank.errors import ConfigurationError
from uprank.scorers.local.vectors.blocks import Known, from_record, record_size, to_record
from uprank.scorers.local.vectors.index import Entry, Index, complete, packed
from uprank.scorers.local.vectors.options import StoreDType

__all__ = ["DiskStore", "Fingerprint"]

logger = logging.getLogger("uprank")

Fingerprint = Mapping[str, "str | int | None"]
"""What vectors depend on: the model's digest, its window, its precision."""

_State: TypeAlias = "tuple[int, int, int] | None"
"""The inode, time and size of a header; ``None`` where there is none."""

_FORMAT, _VERSION = "uprank vectors", 1
_ALIGNMENT = 8
_PATIENCE = 10.0  # seconds to wait for another process that writes


class DiskStore:
    """A store in a folder. May be used by several threads.

    Args:
        folder: Made where it does not exist.
        dtype: What numbers are stored in.
        made_by: Must be that of the store, if there is one.
        name: Names the model in errors.

    Raises:
        ConfigurationError: If the folder holds a store made by another model or in another way, a
            store of a version that is not known here, or something else; or if it cannot be made.
    """

    def __init__(self, folder: Path, dtype: StoreDType, made_by: Fingerprint, *, name: str) -> None:
        self._folder, self._dtype, self._made_by, self._name = folder, dtype, dict(made_by), name
        self._lock = threading.Lock()
        self._writable = True
        self._data: NDArray[np.uint8] | None = None
        self._dimensions: int | None = None
        self._state: _State = None  # of the header that was read
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._check_header()
            self._index = Index(folder / "index.bin")
        except OSError as error:
            raise ConfigurationError(f"{name}: there can be no store at {folder}: {error}.") from error
        _stores.add(self)

    def __len__(self) -> int:
        return len(self._index)

    def get(self, keys: Sequence[bytes]) -> list[Known | None]:
        """What is stored of some documents, in their order.

        Raises:
            ConfigurationError: If another process has meanwhile made a store of another model here.
        """
        with self._lock:
            try:
                self._check_header()
                if self._dimensions is None:
                    return [None] * len(keys)
                found = self._index.find(keys)
                if None in found and self._index.refresh():
                    found = self._index.find(keys)
                return [None if entry is None else self._known(entry) for entry in found]
            except OSError as error:  # documents are then encoded as if nothing were stored
                logger.warning("%s: the store %s cannot be read: %s", self._name, self._folder, error)
                return [None] * len(keys)

    def put(self, keys: Sequence[bytes], documents: Sequence[Known]) -> None:
        """Store documents, but those that are stored already.

        A disk that is full or cannot be written to is told in the log, once: the store then is only read.

        Raises:
            ConfigurationError: If another process has meanwhile made a store of another model here.
        """
        if not self._writable or not keys:
            return
        with self._lock:
            try:
                with self._locked():
                    self._write_header(documents[0].block.values.shape[1])
                    self._index.refresh()
                    stored = self._index.find(keys)
                    self._append(
                        [
                            (key, known)
                            for key, known, entry in zip(keys, documents, stored, strict=True)
                            if entry is None or self._known(entry) is None
                        ]
                    )
                    self._index.refresh()
            except OSError as error:
                self._writable = False
                logger.warning("%s: nothing more is stored in %s: %s", self._name, self._folder, error)

    def _known(self, entry: Entry) -> Known | None:
        """The vectors of an entry, if its record is there and whole."""
        dimensions = self._dimensions or 0
        stop = entry.offset + record_size(entry.size, dimensions, self._dtype)
        if self._data is None or stop > len(self._data):
            path = self._folder / "vectors.bin"
            size = path.stat().st_size if path.is_file() else 0
            if stop > size:
                return None
            # An empty file cannot be mapped; documents without any vector have no bytes.
            self._data = np.memmap(path, dtype=np.uint8, mode="r") if size else np.empty(0, dtype=np.uint8)
        record = np.asarray(self._data[entry.offset : stop])
        if zlib.crc32(record.data) != entry.checksum:
            return None
        return Known(from_record(record, entry.size, dimensions, self._dtype), 0, entry.size, entry.tokens)

    def _append(self, documents: Sequence[tuple[bytes, Known]]) -> None:
        records: list[bytes] = []
        entries: list[bytes] = []
        with (self._folder / "vectors.bin").open("ab") as data:
            offset = data.seek(0, os.SEEK_END)
            for key, known in documents:
                padding = -offset % _ALIGNMENT
                record = to_record(known.block.slice(known.start, known.start + known.size), self._dtype)
                records += (bytes(padding), record)
                entries.append(packed(Entry(key, offset + padding, known.size, known.tokens, zlib.crc32(record))))
                offset += padding + len(record)
            data.write(b"".join(records))
        with (self._folder / "index.bin").open("ab") as index:
            size = index.seek(0, os.SEEK_END)
            if size != complete(size):  # the end of an entry that a crash has cut off
                index.truncate(complete(size))
            index.write(b"".join(entries))

    def _check_header(self) -> None:
        """Read the header if it is not the one that was read: someone may have removed the store, and made another."""
        state = _state(self._folder / "store.json")
        if state is not None and state == self._state:
            return
        if self._state is not None:
            self._dimensions = self._data = None
            self._index = Index(self._folder / "index.bin")
        self._dimensions = self._read_header()
        self._state = state  # as it was before it was read; one that is refused is so again

    def _read_header(self) -> int | None:
        """The dimensions of the vectors in the folder; ``None`` where nothing is stored yet."""
        path = self._folder / "store.json"
        try:
            header = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if any((self._folder / name).exists() for name in ("index.bin", "vectors.bin")):
                raise ConfigurationError(f"{self._folder} has lost its store.json; delete the folder.") from None
            return None
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{path} cannot be read: {error}. Delete the folder, or choose another."
            ) from error
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise ConfigurationError(f"{path} is not the header of a store of vectors; choose another folder.")
        if header.get("version") != _VERSION:
            raise ConfigurationError(
                f"{self._folder} is a store of version {header.get('version')!r}; this uprank knows version "
                f"{_VERSION}. Choose another folder, or delete this one."
            )
        stored = {"dtype": header.get("dtype"), **_mapping(header.get("made_by"))}
        here = {"dtype": self._dtype, **self._made_by}
        differences = [
            f"{key} is {stored.get(key)!r} there, {here.get(key)!r} here"
            for key in dict.fromkeys((*here, *stored))
            if stored.get(key) != here.get(key)
        ]
        if differences:
            raise ConfigurationError(
                f"The store {self._folder} was not made by {self._name} as it is set up: {'; '.join(differences)}. "
                "Choose another folder, or delete this one."
            )
        dimensions = header.get("dimensions")
        if not isinstance(dimensions, int) or dimensions < 1:
            raise ConfigurationError(f"{path} gives no dimensions. Delete the folder, or choose another.")
        return dimensions

    def _write_header(self, dimensions: int) -> None:
        """Write the header, if there is none yet. The lock is held."""
        self._check_header()
        if self._dimensions is None:
            header = {
                "format": _FORMAT,
                "version": _VERSION,
                "dtype": self._dtype,
                "dimensions": dimensions,
                "made_by": self._made_by,
            }
            descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix="store-", suffix=".json")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump(header, file, indent=1)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self._folder / "store.json")  # noqa: PTH105 - never seen half written
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            self._dimensions, self._state = dimensions, _state(self._folder / "store.json")
        if self._dimensions != dimensions:
            raise ConfigurationError(
                f"The store {self._folder} holds vectors of {self._dimensions} dimensions; {self._name} makes "
                f"{dimensions}. Choose another folder, or delete this one."
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from writing. A lock ends with its process, however that ends."""
        with (self._folder / "lock").open("ab") as file:
            deadline = time.monotonic() + _PATIENCE
            while not _try_lock(file.fileno()):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process has been writing for {_PATIENCE:.0f} seconds")
                time.sleep(0.002)
            try:
                yield
            finally:  # closing would not do: a process forked meanwhile has the file open, too
                _unlock(file.fileno())

    def _after_fork(self) -> None:
        """Another thread may have held the lock, in the midst of a change."""
        self._lock = threading.Lock()
        self._data = None
        self._index = Index(self._folder / "index.bin")


_stores: WeakSet[DiskStore] = WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _state(path: Path) -> _State:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
