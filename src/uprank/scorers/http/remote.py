"""What all scorers share that ask a service: rounds of requests under one gate, by threads or by asyncio."""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import Generator, Sequence
from typing import TypeAlias

from uprank.concurrency import Abandoned, Part, arun_round, run_round, together
from uprank.errors import ServiceError
from uprank.rounds import adrive, drive
from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores
from uprank.scorers.http.endpoint import Endpoint
from uprank.scorers.http.gate import NoPlace, NoTurn, Ticket
from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.http.plan import Memory, Target, TooLarge, prepare, score_plan
from uprank.scorers.http.replies import Results
from uprank.scorers.http.retries import Clock, Meter, Step, Wait

__all__ = ["RemoteScorer"]

_Round: TypeAlias = "list[Part[Step, Reply | Lost | None, Results | TooLarge]]"
_Answer: TypeAlias = "Results | TooLarge | Exception"


class RemoteScorer(Scorer):
    """Base of the scorers that ask a service. A subclass says whom (the target) and how (the endpoint).

    Args:
        target: What is asked of whom.
        endpoint: What carries the requests.
    """

    def __init__(self, target: Target, endpoint: Endpoint) -> None:
        self._target = target
        self._endpoint = endpoint
        self._memory = Memory()
        self.name = target.name
        self.score_kind = target.native or target.kind
        self.listwise = target.listwise
        self.accepts_instruction = target.instruction is not None

    @abstractmethod
    def __reduce__(self) -> tuple[object, ...]:
        """Remake from what it was made of, less the key: a pickle holds no secret."""

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return _raised(self.score_many([ScoreRequest(query, texts, instruction)])[0])

    async def ascore(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return _raised((await self.ascore_many([ScoreRequest(query, texts, instruction)]))[0])

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`Scorer.score_many`, with as many requests in flight as ``max_concurrency`` allows."""
        return drive(self._plan(requests), self._round)

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`score_many`. Cancelling the task cancels the requests in flight."""
        return await adrive(self._plan(requests), self._around)

    def _plan(self, requests: Sequence[ScoreRequest]) -> Generator[_Round, list[_Answer], list[Outcome]]:
        """The body of both: what must be known of the server first, then all requests at once."""
        if not requests:
            return []
        target, memory = self._target, self._memory
        clocks = [Clock(target.policy.deadline) for _ in requests]
        meters = [Meter() for _ in requests]
        # What is asked first counts for the first request.
        (problem,) = yield from together([prepare(target, memory, clocks[0], meters[0])])
        if isinstance(problem, Exception):
            return [_bare(problem)] * len(requests)
        each = zip(requests, clocks, meters, strict=True)
        outcomes = yield from together([score_plan(target, memory, *one) for one in each])
        return [_bare(outcome) for outcome in outcomes]

    def close(self) -> None:
        """Close the connections. The next call opens new ones, and asks the server anew for its limits."""
        self._memory = Memory()
        self._endpoint.close()

    async def aclose(self) -> None:
        """As :meth:`close`; waits until those of the running event loop are closed."""
        self._memory = Memory()
        await self._endpoint.aclose()

    def _round(self, parts: _Round) -> list[_Answer]:
        return run_round(parts, self._step, workers=self._workers())

    async def _around(self, parts: _Round) -> list[_Answer]:
        return await arun_round(parts, self._astep, workers=self._workers())

    def _workers(self) -> int:
        """How many are taken up at once: one that would only wait for its turn has not begun, nor has its deadline."""
        gate = self._target.gate
        return gate.most if gate.per_minute is None else min(gate.most, gate.per_minute)

    def _step(self, step: Step, stop: threading.Event) -> Reply | Lost | None:
        if isinstance(step, Wait):
            if stop.wait(step.seconds):
                raise Abandoned
            return None
        try:
            with self._target.gate.entered(step.clock.remaining()) as ticket:
                if stop.is_set():
                    raise Abandoned
                return _noted(ticket, self._endpoint.send(step.call, step.time()))
        except (NoPlace, NoTurn) as none:
            return _NOT_SENT[type(none)]

    async def _astep(self, step: Step) -> Reply | Lost | None:
        if isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
            return None
        try:
            async with self._target.gate.aentered(step.clock.remaining()) as ticket:
                return _noted(ticket, await self._endpoint.asend(step.call, step.time()))
        except (NoPlace, NoTurn) as none:
            return _NOT_SENT[type(none)]
        except asyncio.CancelledError as cancelled:
            raise cancelled.with_traceback(None)  # noqa: B904 - the same, without the frames that hold the headers


_NOT_SENT = {NoPlace: Lost("queue", "all places were taken"), NoTurn: Lost("turn", "the minute's limit is reached")}


def _bare(outcome: Outcome) -> Outcome:
    """Drop the traceback of a service's error: it says nothing, and holds the request and what the reply repeats."""
    return outcome.with_traceback(None) if isinstance(outcome, ServiceError) else outcome


def _noted(ticket: Ticket, outcome: Reply | Lost) -> Reply | Lost:
    """Tell the gate what its next limit depends on."""
    if isinstance(outcome, Reply):
        ticket.throttled = outcome.status == 429
        ticket.ok = outcome.status < 400
    return outcome


def _raised(outcome: Outcome) -> Scores:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
