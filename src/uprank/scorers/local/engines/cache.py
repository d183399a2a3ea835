"""Exported models on disk, by what they were made from.

A model is built once, in a folder of its own under a name that is a digest of everything that went
into it. It is built beside its place and moved there whole, so several processes may build it at
once, and nobody sees half of one. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

__all__ = ["CachedModel", "cache_folder", "cached_model", "content_digest", "key_of"]

logger = logging.getLogger("uprank")

_MANIFEST = "manifest.json"
_UNFINISHED = ".new-"
_STALE_SECONDS = 24 * 3600
_CHUNK = 1 << 20


class CachedModel:
    """A folder with a built model, kept as long as this object where the cache could not be written.

    Args:
        folder: Where the model is.
        temporary: Whether to delete it in the end.
    """

    def __init__(self, folder: Path, *, temporary: bool = False) -> None:
        self.folder = folder
        self.temporary = temporary
        if temporary:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)


def cache_folder() -> Path:
    """Where built models are kept.

    ``UPRANK_CACHE`` if it is set; else ``uprank`` under the user's cache folder: ``XDG_CACHE_HOME`` or
    ``~/.cache``, on macOS ``~/Library/Caches``, on Windows ``LOCALAPPDATA``.
    """
    own = os.environ.get("UPRANK_CACHE")
    if own:
        return Path(own).expanduser()
    usual = os.environ.get("XDG_CACHE_HOME")
    if usual and Path(usual).is_absolute():  # as the specification has it
        return Path(usual) / "uprank"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/uprank").expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local").expanduser() / "uprank"
    return Path("~/.cache/uprank").expanduser()


def key_of(parts: Mapping[str, object]) -> str:
    """A name for what is made of ``parts``, which JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def cached_model(key: str, build: Callable[[Path], None], root: Path | None = None) -> CachedModel:
    """Return the model of that name, built if it is not there or not whole.

    Args:
        key: From :func:`key_of`.
        build: Writes the model's files into the empty folder that it is given.
        root: By default :func:`cache_folder`.

    Returns:
        The folder. Where the cache cannot be written (read-only, full), a temporary one, with a
        warning in the log.

    Raises:
        Exception: What ``build`` raises, in the cache and then in the temporary folder.
    """
    models = (root or cache_folder()) / "models"
    folder = models / key
    if _whole(folder):
        return CachedModel(folder)
    try:
        models.mkdir(parents=True, exist_ok=True)
        _sweep(models)
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=models))
    except OSError as error:
        return _temporary(build, error)
    try:
        build(unfinished)
        _seal(unfinished)
        _move(unfinished, folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        return CachedModel(folder) if _whole(folder) else _temporary(build, error)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return CachedModel(folder)


def content_digest(paths: Iterable[Path], root: Path | None = None) -> list[str]:
    """The SHA-256 of each file's content.

    Gigabytes take seconds, so a digest is remembered as long as the file has the same size, times
    and inode.

    Raises:
        OSError: If a file cannot be read.
    """
    notes = (root or cache_folder()) / "digests"
    return [_remembered_digest(path, notes) for path in paths]


def _remembered_digest(path: Path, notes: Path) -> str:
    path = path.resolve()
    stat = path.stat()
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    note = notes / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:40]}.json"
    try:
        known = json.loads(note.read_text())
        if known["state"] == state:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not seen yet, or what was noted is of no use
    digest = _sha256(path)
    try:
        notes.mkdir(parents=True, exist_ok=True)
        _write(note, {"state": state, "sha256": digest})
    except OSError as error:
        logger.debug("the digest of %s could not be noted: %s", path, error)
    return digest


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _write(path: Path, content: object) -> None:
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        unfinished.write_text(json.dumps(content))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _seal(folder: Path) -> None:
    """Note what belongs to the model, and have it on the disk before it gets its name."""
    files: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        stat = path.stat()
        files[path.name] = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": _sha256(path)}
    _write(folder / _MANIFEST, {"files": files})


def _whole(folder: Path) -> bool:
    """Whether a model's files are as they were built; contents are compared where a file was touched since."""
    try:
        files = cast("dict[str, dict[str, object]]", json.loads((folder / _MANIFEST).read_text())["files"])
        for name, noted in files.items():
            stat = (folder / name).stat()
            if stat.st_size != noted["size"]:
                return False
            if stat.st_mtime_ns != noted["mtime_ns"] and _sha256(folder / name) != noted["sha256"]:
                return False
        return bool(files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _move(unfinished: Path, folder: Path) -> None:
    """Give a finished model its name; one that has it already, and is whole, is kept instead."""
    for _ in range(3):
        try:
            unfinished.rename(folder)
            return
        except OSError:
            if _whole(folder):  # another process was first
                shutil.rmtree(unfinished, ignore_errors=True)
                return
            if not folder.exists():
                raise
        broken = folder.with_name(f"{_UNFINISHED}broken-{secrets.token_hex(8)}")
        try:
            folder.rename(broken)
        except FileNotFoundError:
            continue
        logger.warning("the exported model in %s was damaged; it is built anew", folder)
        shutil.rmtree(broken, ignore_errors=True)
    raise OSError(f"{folder} could not be written")


def _sweep(models: Path) -> None:
    """Delete what processes that ended early have left."""
    for path in models.glob(f"{_UNFINISHED}*"):
        try:
            stale = time.time() - path.stat().st_mtime > _STALE_SECONDS
        except OSError:
            continue
        if stale:
            shutil.rmtree(path, ignore_errors=True)


def _temporary(build: Callable[[Path], None], error: OSError) -> CachedModel:
    logger.warning(
        "the cache of exported models cannot be written (%s); this model is built in a temporary folder. "
        "UPRANK_CACHE names another place.",
        error,
    )
    folder = Path(tempfile.mkdtemp(prefix="uprank-"))
    try:
        build(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return CachedModel(folder, temporary=True)
