"""One thread per local model.

Tokenizers and models are not safe to share between threads, and frameworks call from many. So each
local scorer owns one worker thread: every call queues to it, whatever thread or task it comes from,
and the model is loaded there, once, on the first call.
"""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar, TypeVar
from weakref import WeakSet

from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores

__all__ = ["LocalScorer", "Worker"]

Result = TypeVar("Result")


class Worker:
    """A queue with one thread, started on first use, and again after a fork or :meth:`close`.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._forked = False
        self._reset()
        _workers.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._closing: ThreadPoolExecutor | None = None

    def __reduce__(self) -> tuple[type[Worker], tuple[str]]:
        return type(self), (self._name,)  # a thread of its own wherever it arrives

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Queue ``job``; cancelling the future takes it off the queue if it has not begun."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name)
                if self._closing is not None:
                    self._executor.submit(self._closing.shutdown)  # never two threads: the former ends first
            return self._executor.submit(job)

    def close(self, last: Callable[[], None] | None = None) -> None:
        """Let the queued jobs finish, then ``last``, then end the thread. Nothing to do if none was started."""
        with self._lock:
            executor, self._executor = self._executor, None
            if executor is not None:
                done = None if last is None else executor.submit(last)
                self._closing = executor
        if executor is not None:
            executor.shutdown(wait=True)
            if done is not None:
                done.result()
        elif self._forked and last is not None:  # what the parent had loaded is here, its thread is not
            last()


_workers: WeakSet[Worker] = WeakSet()


def _after_fork() -> None:
    """Threads do not survive a fork, and another thread may have held the lock."""
    for worker in _workers:
        worker._reset()
        worker._forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class LocalScorer(Scorer):
    """Base of the scorers that hold a model: they score whole batches of requests on one thread."""

    _loaded_parts: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold the loaded model: ``None`` before loading, and in a pickle."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._worker = Worker(f"uprank {name}")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, **dict.fromkeys(self._loaded_parts)}  # loaded again where it arrives

    def __deepcopy__(self, memo: dict[int, object]) -> LocalScorer:
        return self  # one loaded model is enough, and may be shared

    @abstractmethod
    def _score_batch(self, requests: Sequence[ScoreRequest], abandoned: threading.Event) -> list[Outcome]:
        """Score the requests, one outcome each; load the model if need be. Runs on the worker's thread.

        Args:
            requests: At least one.
            abandoned: Set when nobody waits for the answer any more: for :func:`run_batches`.
        """

    @abstractmethod
    def _unload(self) -> None:
        """Let go of the model. Runs on the worker's thread."""

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return _unwrap(self.score_many([ScoreRequest(query, texts, instruction)]))

    async def ascore(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return _unwrap(await self.ascore_many([ScoreRequest(query, texts, instruction)]))

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """Score all requests in one flattened batch on the worker's thread."""
        with self._submitted(requests) as future:
            return future.result()

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`score_many`; a call cancelled in the queue never runs, one that runs ends with its batch."""
        import asyncio

        with self._submitted(requests) as future:
            return await asyncio.wrap_future(future)

    @contextmanager
    def _submitted(self, requests: Sequence[ScoreRequest]) -> Iterator[Future[list[Outcome]]]:
        abandoned = threading.Event()
        future = self._worker.submit(lambda: self._outcomes(requests, abandoned))
        try:
            yield future
        except BaseException:  # cancelled, or interrupted: the others in the queue need not wait for this
            future.cancel()
            abandoned.set()
            raise

    def _outcomes(self, requests: Sequence[ScoreRequest], abandoned: threading.Event) -> list[Outcome]:
        try:
            return self._score_batch(requests, abandoned)
        except Exception as error:  # as a value: asyncio cannot carry every error out of a thread
            return [error] * len(requests)

    def close(self) -> None:
        """Free the model and end its thread, after the calls that are queued."""
        self._worker.close(self._unload)

    async def aclose(self) -> None:
        import asyncio

        await asyncio.to_thread(self.close)


def _unwrap(outcomes: list[Outcome]) -> Scores:
    (outcome,) = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
