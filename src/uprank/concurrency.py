"""Rounds of independent calls, run at once by threads or by asyncio.

A plan that talks to several places yields a *round*: a list of smaller plans, one a call, that may
run at once. It receives their outcomes, each a result or the exception that stands for it, in the
same order. :func:`together` runs many such plans in step; what one of them asked for is a *group*
that fails as one, so that nothing more is sent for a plan that cannot succeed.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from uprank.rounds import adrive, drive

__all__ = ["Abandoned", "Outcomes", "Part", "RoundPlan", "arun_round", "run_round", "together"]

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Result = TypeVar("Result")
Total = TypeVar("Total")

Outcomes: TypeAlias = "list[Result | Exception]"
Smaller: TypeAlias = "Generator[Question, Answer, Result]"
RoundPlan: TypeAlias = "Generator[list[Smaller[Question, Answer, Result]], Outcomes[Result], Total]"


class Abandoned(Exception):  # noqa: N818 - no error: nobody sees it but the round
    """Raised in a call whose group has failed: its result is no longer wanted."""


@dataclass(frozen=True, slots=True)
class Part(Generic[Question, Answer, Result]):
    """One call of a round.

    Args:
        plan: Its own plan.
        group: The parts of one group fail together.
    """

    plan: Generator[Question, Answer, Result]
    group: int


def together(
    plans: Sequence[RoundPlan[Question, Answer, Result, Total]],
) -> Generator[list[Part[Question, Answer, Result]], Outcomes[Result], Outcomes[Total]]:
    """Run plans in step: the first rounds of all, then the second rounds, and so on.

    Args:
        plans: Each yields rounds.

    Returns:
        One outcome a plan, in their order: one that fails does not stop the others.
    """
    outcomes: list[Total | Exception | None] = [None] * len(plans)
    wanted: dict[int, list[Smaller[Question, Answer, Result]]] = {}

    def advance(number: int, received: Outcomes[Result] | None) -> None:
        try:
            wanted[number] = next(plans[number]) if received is None else plans[number].send(received)
        except StopIteration as stop:
            outcomes[number] = stop.value
        except Exception as error:  # handed on as a value: each plan fails by itself
            outcomes[number] = error

    try:
        for number in range(len(plans)):
            advance(number, None)
        while wanted:
            asked, wanted = wanted, {}
            received = yield [Part(plan, number) for number, calls in asked.items() for plan in calls]
            answers = iter(received)
            for number, calls in asked.items():
                advance(number, [next(answers) for _ in calls])
    finally:
        for plan in plans:
            plan.close()
    return outcomes  # type: ignore[return-value]  # every plan has ended


def run_round(
    parts: Sequence[Part[Question, Answer, Result]],
    answer: Callable[[Question, threading.Event], Answer],
    *,
    workers: int,
) -> Outcomes[Result]:
    """Run the parts of a round in threads; a single one in the caller's.

    Args:
        parts: At least one.
        answer: Answers a part's question; raises :class:`Abandoned` soon after the event is set.
        workers: At most so many at once; the others begin as these end.

    Returns:
        One outcome a part. Where one fails, the rest of its group gets the same exception at once,
        and what is still on its way is not waited for.
    """
    stops = {part.group: threading.Event() for part in parts}
    if len(parts) == 1:
        return [_outcome(parts[0].plan, partial(_stoppable, answer, stops[parts[0].group]))]
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Result | BaseException]] = queue.SimpleQueue()
    for number in range(len(parts)):
        todo.put(number)

    def work() -> None:
        while True:
            try:
                number = todo.get_nowait()
            except queue.Empty:
                return
            part = parts[number]
            stop = stops[part.group]
            outcome: Result | BaseException
            try:
                outcome = _outcome(part.plan, partial(_stoppable, answer, stop))
            except BaseException as error:  # e.g. SystemExit in a callback: raised in the caller's thread
                outcome = error
            done.put((number, outcome))
            if isinstance(outcome, BaseException):
                stop.set()  # not earlier: nobody's Abandoned may be put before its cause

    try:
        for _ in range(min(workers, len(parts))):
            context = contextvars.copy_context()  # by which frameworks know whose call this is
            threading.Thread(target=context.run, args=(work,), name="uprank-round", daemon=True).start()
        return _gathered(parts, done)
    finally:
        for stop in stops.values():
            stop.set()  # also where the caller was interrupted


def _gathered(
    parts: Sequence[Part[Question, Answer, Result]],
    done: queue.SimpleQueue[tuple[int, Result | BaseException]],
) -> Outcomes[Result]:
    outcomes: dict[int, Result | Exception] = {}
    while len(outcomes) < len(parts):
        number, outcome = done.get()
        if number in outcomes:
            continue  # of a group that has failed
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
        outcomes[number] = outcome
        if isinstance(outcome, Exception):
            group = parts[number].group
            siblings = (other for other, part in enumerate(parts) if part.group == group)
            outcomes.update((other, outcome) for other in siblings if other not in outcomes)
    return [outcomes[number] for number in range(len(parts))]


async def arun_round(
    parts: Sequence[Part[Question, Answer, Result]],
    answer: Callable[[Question], Awaitable[Answer]],
    *,
    workers: int,
) -> Outcomes[Result]:
    """As :func:`run_round`, in tasks. Those no longer wanted are cancelled; none outlives the call."""
    import asyncio  # imported late: a third of the time of `import uprank`

    if len(parts) == 1:
        return [await _aoutcome(parts[0].plan, answer)]
    free = asyncio.Semaphore(workers)
    failures: dict[int, Exception] = {}

    async def run(part: Part[Question, Answer, Result]) -> Result | Exception:
        async with free:
            outcome = await _aoutcome(part.plan, answer)
        if isinstance(outcome, Exception) and part.group not in failures:
            failures[part.group] = outcome
            for other, task in zip(parts, tasks, strict=True):
                if other.group == part.group and task is not asyncio.current_task():
                    task.cancel()
        return outcome

    tasks = [asyncio.ensure_future(run(part)) for part in parts]
    try:
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    outcomes: Outcomes[Result] = []
    for part, outcome in zip(parts, ended, strict=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            if part.group not in failures:
                raise outcome
            outcome = failures[part.group]
        outcomes.append(outcome)
    return outcomes


def _stoppable(
    answer: Callable[[Question, threading.Event], Answer], stop: threading.Event, question: Question
) -> Answer:
    if stop.is_set():
        raise Abandoned
    return answer(question, stop)


def _outcome(plan: Generator[Question, Answer, Result], answer: Callable[[Question], Answer]) -> Result | Exception:
    try:
        return drive(plan, answer)
    except Exception as error:  # handed on as a value
        return error


async def _aoutcome(
    plan: Generator[Question, Answer, Result], answer: Callable[[Question], Awaitable[Answer]]
) -> Result | Exception:
    try:
        return await adrive(plan, answer)
    except Exception as error:  # handed on as a value
        return error
