"""One reranker, and so one loaded model, for everything that asks for the same one."""

from __future__ import annotations

import os
import threading
from weakref import WeakValueDictionary

from uprank.reranker import Reranker
from uprank.scorers import registry
from uprank.scorers.registry import Model
from uprank.secrets import masked

__all__ = ["shared_reranker"]

_rerankers: WeakValueDictionary[tuple[object, ...], Reranker] = WeakValueDictionary()
_lock = threading.RLock()  # a scorer's factory may itself ask for a shared reranker


def _renew_lock() -> None:
    """After a fork: another thread may have held it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def shared_reranker(model: Model, **options: object) -> Reranker:
    """Return the reranker of this model and these options that is in use, or else a new one.

    Sharing is safe: a reranker never changes, and may be called from many threads. It lives as long
    as somebody holds it. Options that cannot be hashed are not shared, and a scheme that is
    registered anew is not answered with its former scorer.

    Args:
        model: As for :class:`~uprank.Reranker`.
        options: Likewise.

    Raises:
        UprankError: As :class:`~uprank.Reranker` does.
    """
    options = masked(options)  # so that a traceback that prints variables shows no secret
    # So that they can be hashed: a chain of models must keep its circuits, and a cache its scores.
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    # With the types, since 1, 1.0 and True are equal and hash alike.
    named = tuple((name, type(options[name]), options[name]) for name in sorted(options))
    key = (registry.generation(), model, named)
    try:
        hash(key)
    except TypeError:
        return Reranker(model, **options)  # type: ignore[arg-type]  # checked when called
    with _lock:
        found = _rerankers.get(key)
        if found is None:
            found = _rerankers[key] = Reranker(model, **options)  # type: ignore[arg-type]  # likewise
        return found
