"""Runs the calls on one local model: rows of all callers share batches, small calls go first, none starves."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from weakref import WeakSet

from uprank.errors import ConfigurationError
from uprank.scorers.base import Outcome
from uprank.scorers.local.lanes import AnyRunner
from uprank.scorers.local.session import Session
from uprank.scorers.local.tasks import Failed, MakeJob

__all__ = ["MAX_QUEUE", "Scheduler"]

MAX_QUEUE = 1_024


class Scheduler:
    """Loads a model when it is first called, and runs jobs on it, rows of several in one batch.

    Its threads start with the first call and end with :meth:`close`, when nobody refers to the
    scheduler any more, or when the interpreter exits; calls that were submitted are answered first.
    A forked child starts anew, and loads the model again: the threads of its engine were not forked.

    Args:
        name: Of the model, in errors and as the name of the threads.
        load: Loads the model; called on the scheduler's thread, again after an error or :meth:`close`.
            It should not keep alive what owns the scheduler, or only :meth:`close` ends the threads.
        unload: Lets go of what ``load`` left elsewhere; called on that thread too.
        max_wait_ms: Milliseconds that a batch which is not full waits for other calls to join while
            all lanes are idle. It waits only where calls come at the same time. ``None`` is 2 on a
            runner that runs ahead, else 0: what comes while a lane is busy shares a batch anyway.
        max_queue: The most calls at once that have no answer yet.

    Raises:
        ConfigurationError: If a number is out of range.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], AnyRunner],
        unload: Callable[[], None] | None = None,
        *,
        max_wait_ms: float | None = None,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        if max_wait_ms is not None and not (_is_number(max_wait_ms) and 0 <= max_wait_ms < math.inf):
            raise ConfigurationError(f"max_wait_ms must be a number of at least 0 or None, got {max_wait_ms!r}.")
        if not (_is_number(max_queue) and isinstance(max_queue, int) and max_queue > 0):
            raise ConfigurationError(f"max_queue must be a positive integer, got {max_queue!r}.")
        self._name = name
        self._load = load
        self._unload = unload or _nothing
        self._max_wait = None if max_wait_ms is None else max_wait_ms / 1_000
        self._max_queue = max_queue
        self._inherited = False
        self._reset()
        _schedulers.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._ending: Session | None = None

    @property
    def runner(self) -> AnyRunner | None:
        """The loaded model; ``None`` before the first call."""
        session = self._session
        return None if session is None else session.runner

    def submit(self, make: MakeJob, failed: Failed | None = None, *, rows: int = 0) -> Future[list[Outcome]]:
        """Queue a job.

        Args:
            make: Makes the job; called on the scheduler's thread once the model is loaded.
            failed: Makes outcomes of an error that the whole call fails with; by default the future
                raises it.
            rows: About how many rows the job will give: small calls go before large ones. Without, it counts for
                as large as what it has given so far and was not run yet.

        Returns:
            A future that can be cancelled at any time: rows that wait leave the pool at once, those
            that run are not waited for.

        Raises:
            OverloadedError: If ``max_queue`` calls have no answer yet.
        """
        with self._lock:
            session = self._session
            if session is None:
                session = self._session = Session(
                    self._name,
                    self._load,
                    self._unload,
                    max_wait=self._max_wait,
                    max_queue=self._max_queue,
                    predecessor=self._ending,
                )
            try:
                return session.submit(make, failed, rows)
            finally:
                if _exiting:  # from a thread that outlives the main one: nothing would end the threads later
                    self._end(unload=False)

    def close(self) -> None:
        """Answer the calls that were submitted, free the model, end the threads. The next call starts anew."""
        with self._lock:
            self._end(unload=True)
            ending = self._ending
            inherited, self._inherited = self._inherited, False
        if ending is not None:
            try:
                ending.join()
            finally:
                with self._lock:
                    if self._ending is ending:
                        self._ending = None
        elif inherited:
            self._unload()

    def _end(self, *, unload: bool) -> None:
        if self._session is not None:
            self._session.end(unload=unload)
            self._ending, self._session = self._session, None

    def _end_at_exit(self) -> None:
        with self._lock:
            self._end(unload=False)

    def _start_anew(self) -> None:
        if self._session is not None or self._ending is not None:
            _lost.append((self._session, self._ending))
            self._inherited = True
        self._reset()


_schedulers: WeakSet[Scheduler] = WeakSet()
_lost: list[object] = []  # sessions of the parent process: an engine freed without its threads could wait for them
_exiting = False


def _after_fork() -> None:
    """Threads do not survive a fork, and another thread may have held a lock."""
    for scheduler in _schedulers:
        scheduler._start_anew()


def _at_exit() -> None:
    """Let idle threads end: the interpreter waits for all threads before it exits."""
    global _exiting
    _exiting = True
    for scheduler in list(_schedulers):
        scheduler._end_at_exit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
# What concurrent.futures registers its threads with: atexit comes too late, after the wait for all threads.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # not in typeshed


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _nothing() -> None:
    pass
