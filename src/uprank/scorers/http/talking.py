"""What all scorers share that talk to something: rounds of requests under one gate, by threads or by asyncio.

No HTTP client is imported here: what carries the requests is given as an :class:`Endpoint`.
"""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import Generator, Sequence
from typing import Generic, Protocol, TypeAlias, TypeVar

from uprank.concurrency import Abandoned, Outcomes, Part, arun_round, run_round
from uprank.errors import ServiceError
from uprank.rounds import adrive, drive
from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores
from uprank.scorers.http.gate import Gate, NoPlace, NoTurn, Ticket
from uprank.scorers.http.messages import Call, Lost, Reply
from uprank.scorers.http.retries import Step, Wait

__all__ = ["Endpoint", "RoundsPlan", "TalkingScorer", "bare"]

Result = TypeVar("Result")

RoundsPlan: TypeAlias = "Generator[list[Part[Step, Reply | Lost | None, Result]], Outcomes[Result], list[Outcome]]"


class Endpoint(Protocol):
    """Sends one request and returns what came of it.

    A failure is a value, not an exception: no traceback holds the request, and with it the key.
    """

    def send(self, call: Call, timeout: float) -> Reply | Lost: ...

    async def asend(self, call: Call, timeout: float) -> Reply | Lost: ...

    def close(self) -> None: ...

    async def aclose(self) -> None: ...


class TalkingScorer(Scorer, Generic[Result]):
    """Base of the scorers that talk. A subclass says what is asked, in :meth:`_plan`.

    Args:
        endpoint: What carries the requests.
        gate: Counts the requests in flight.
    """

    def __init__(self, endpoint: Endpoint, gate: Gate) -> None:
        self._endpoint = endpoint
        self._gate = gate

    @abstractmethod
    def __reduce__(self) -> tuple[object, ...]:
        """Remake from what it was made of, less the key: a pickle holds no secret."""

    @abstractmethod
    def _plan(self, requests: Sequence[ScoreRequest]) -> RoundsPlan[Result]:
        """Yield rounds of parts, receive their outcomes, and return one outcome a request."""

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return _raised(self.score_many([ScoreRequest(query, texts, instruction)])[0])

    async def ascore(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return _raised((await self.ascore_many([ScoreRequest(query, texts, instruction)]))[0])

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`Scorer.score_many`, with as many requests in flight as ``max_concurrency`` allows."""
        return bare(drive(self._plan(requests), self._round))

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`score_many`. Cancelling the task cancels the requests in flight."""
        return bare(await adrive(self._plan(requests), self._around))

    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        self._endpoint.close()

    async def aclose(self) -> None:
        """As :meth:`close`; waits until those of the running event loop are closed."""
        await self._endpoint.aclose()

    def _round(self, parts: list[Part[Step, Reply | Lost | None, Result]]) -> Outcomes[Result]:
        return run_round(parts, self._step, workers=self._workers())

    async def _around(self, parts: list[Part[Step, Reply | Lost | None, Result]]) -> Outcomes[Result]:
        return await arun_round(parts, self._astep, workers=self._workers())

    def _workers(self) -> int:
        """How many are taken up at once: one that would only wait for its turn has not begun, nor has its deadline."""
        gate = self._gate
        return gate.most if gate.per_minute is None else min(gate.most, gate.per_minute)

    def _step(self, step: Step, stop: threading.Event) -> Reply | Lost | None:
        if isinstance(step, Wait):
            if stop.wait(step.seconds):
                raise Abandoned
            return None
        try:
            with self._gate.entered(step.clock.remaining()) as ticket:
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
            async with self._gate.aentered(step.clock.remaining()) as ticket:
                return _noted(ticket, await self._endpoint.asend(step.call, step.time()))
        except (NoPlace, NoTurn) as none:
            return _NOT_SENT[type(none)]
        except asyncio.CancelledError as cancelled:
            raise cancelled.with_traceback(None)  # noqa: B904 - the same, without the frames that hold the headers


_NOT_SENT = {NoPlace: Lost("queue", "all places were taken"), NoTurn: Lost("turn", "the minute's limit is reached")}


def bare(outcomes: list[Outcome]) -> list[Outcome]:
    """Drop the traceback of a service's error: it says nothing, and holds the request and what the reply repeats."""
    return [outcome.with_traceback(None) if isinstance(outcome, ServiceError) else outcome for outcome in outcomes]


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
