"""Base of the scorers that run a model in this process."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import ClassVar, TypeVar
from weakref import ref

from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores
from uprank.scorers.local.lanes import AnyRunner
from uprank.scorers.local.loading import Checkpoint
from uprank.scorers.local.scheduler import MAX_QUEUE, Scheduler
from uprank.scorers.local.tasks import AnyJob, Failed, MakeJob

__all__ = ["LocalScorer"]

Self = TypeVar("Self", bound="LocalScorer")


class LocalScorer(Scorer):
    """Base of the scorers that hold a model. Calls from all threads and tasks share its batches.

    Args:
        name: Shown in rankings and errors, and the name of the threads.
        max_wait_ms: As for :class:`~uprank.scorers.local.scheduler.Scheduler`.
        max_queue: As there.

    Raises:
        ConfigurationError: If a number is out of range.
    """

    _loaded_parts: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold what is loaded: ``None`` before loading, and in a pickle."""

    def __init__(self, name: str, *, max_wait_ms: float | None = None, max_queue: int = MAX_QUEUE) -> None:
        self.name = name
        self._max_wait_ms = max_wait_ms
        self._max_queue = max_queue
        self._process: int | None = None  # where it was loaded
        self._scheduler = self._new_scheduler()

    def _new_scheduler(self) -> Scheduler:
        me = ref(self)  # the scheduler must not keep its owner alive

        def load() -> AnyRunner:
            scorer = _present(me())
            scorer._forget_parent()
            scorer._process = os.getpid()
            return scorer._load_runner()

        def unload() -> None:
            scorer = me()
            if scorer is not None:
                scorer._forget_parent()
                scorer._unload()

        return Scheduler(self.name, load, unload, max_wait_ms=self._max_wait_ms, max_queue=self._max_queue)

    def _forget_parent(self) -> None:
        """In a forked child, let go of what the parent loaded, but do not free it: its threads were not forked."""
        if self._process not in (None, os.getpid()):
            _lost.append([self.__dict__.get(part) for part in self._loaded_parts])
            self.__dict__.update(dict.fromkeys(self._loaded_parts))
            self._process = None

    def __getstate__(self) -> dict[str, object]:
        """For a pickle: without what is loaded, and without the token, which there comes from the environment."""
        state = {**self.__dict__, **dict.fromkeys(self._loaded_parts)}  # loaded again where it arrives
        for name, value in state.items():
            if isinstance(value, Checkpoint):
                state[name] = replace(value, token=None)
        del state["_scheduler"]
        state["_process"] = None
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._scheduler = self._new_scheduler()

    def _twin(self: Self, **changed: object) -> Self:
        """The same scorer with other settings, nothing loaded. What is secret must be among the changed."""
        twin = object.__new__(type(self))
        twin.__setstate__({**self.__getstate__(), **changed})
        return twin

    def __copy__(self) -> LocalScorer:
        return self  # one loaded model is enough, and may be shared

    def __deepcopy__(self, memo: dict[int, object]) -> LocalScorer:
        return self

    def __repr__(self) -> str:
        runner = self._scheduler.runner
        return f"<{type(self).__name__} {self.name}{'' if runner is None else f' by {runner!r}'}>"

    @abstractmethod
    def _load_runner(self) -> AnyRunner:
        """Load the model. Runs on the scheduler's thread, once until unloaded; what it raises, all callers get."""

    @abstractmethod
    def _job(self, requests: Sequence[ScoreRequest]) -> AnyJob:
        """A job with one outcome for each request. Runs on the scheduler's thread, with the model loaded.

        Args:
            requests: At least one.
        """

    def _unload(self) -> None:
        """Let go of what loading left elsewhere than in the runner. Runs on the scheduler's thread."""

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return _unwrap(self.score_many([ScoreRequest(query, texts, instruction)]))

    async def ascore(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return _unwrap(await self.ascore_many([ScoreRequest(query, texts, instruction)]))

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """Score all requests as one call, in batches that it shares with other calls."""
        with self._requested(requests) as future:
            return future.result()

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`score_many`; of a cancelled call no more is run than the batches that run already."""
        import asyncio

        with self._requested(requests) as future:
            return await asyncio.wrap_future(future)

    def _requested(self, requests: Sequence[ScoreRequest]) -> AbstractContextManager[Future[list[Outcome]]]:
        def failed(error: Exception) -> list[Outcome]:
            return [error] * len(requests)  # as values: asyncio cannot carry every error out of a thread

        texts = sum(len(request.texts) for request in requests)
        return self._submitted(lambda: self._job(requests), failed, rows=texts)

    @contextmanager
    def _submitted(
        self, make: MakeJob, failed: Failed | None = None, *, rows: int = 0
    ) -> Iterator[Future[list[Outcome]]]:
        """Run a job while the block lasts; cancelled where the block is left by an error.

        Args:
            make: Makes the job, on the scheduler's thread, with the model loaded.
            failed: Makes outcomes of an error; by default the future raises it.
            rows: About how many rows it will give.
        """
        future = self._scheduler.submit(make, failed, rows=rows)
        try:
            yield future
        except BaseException:  # cancelled, or interrupted: others need not wait for this
            future.cancel()
            raise

    def load(self) -> None:
        self.score("a", ["a"])

    def close(self) -> None:
        """Free the model and end its threads, after the calls that are queued."""
        self._scheduler.close()

    async def aclose(self) -> None:
        import asyncio

        await asyncio.to_thread(self.close)


_lost: list[object] = []  # what parent processes had loaded


def _present(scorer: LocalScorer | None) -> LocalScorer:
    if scorer is None:
        raise ReferenceError("the scorer is gone, and nobody waits for its scores")
    return scorer


def _unwrap(outcomes: list[Outcome]) -> Scores:
    (outcome,) = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
