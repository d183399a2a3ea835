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
from typing import TypeVar

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
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._closing: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def __reduce__(self) -> tuple[type[Worker], tuple[str]]:
        return type(self), (self._name,)  # a thread of its own wherever it arrives

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Queue ``job``; cancelling the future takes it off the queue if it has not begun."""
        with self._lock:
            if self._executor is None or self._process != os.getpid():  # threads do not survive a fork
                self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name)
                if self._closing is not None and self._process == os.getpid():
                    self._executor.submit(self._closing.shutdown)  # never two threads: the former ends first
                self._process = os.getpid()
            return self._executor.submit(job)

    def close(self, last: Callable[[], None] | None = None) -> None:
        """Let the queued jobs finish, then ``last``, then end the thread."""
        with self._lock:
            if self._executor is None or self._process != os.getpid():
                return
            done = None if last is None else self._executor.submit(last)
            self._closing, self._executor = self._executor, None
        self._closing.shutdown(wait=True)
        if done is not None:
            done.result()


class LocalScorer(Scorer):
    """Base of the scorers that hold a model: they score whole batches of requests on one thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._worker = Worker(f"uprank {name}")

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
        try:
            yield self._worker.submit(lambda: self._outcomes(requests, abandoned))
        except BaseException:  # cancelled, or interrupted: the others in the queue need not wait for this
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
