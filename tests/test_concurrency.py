"""Rounds of independent calls: by threads, by tasks, and many plans in step."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from http_loopback import eventually
from uprank.concurrency import Abandoned, Part, arun_round, run_round, together
from uprank.rounds import adrive, drive

Plan = Generator[float, str, str]


class Boom(Exception):
    """Something that went wrong."""


def plan(name: str, *questions: float) -> Plan:
    """Asks all of the questions and returns its name with the last answer."""
    answer = ""
    for question in questions:
        answer = yield question
    return name + answer


def asleep(question: float, stop: threading.Event) -> str:
    """Takes as long as it is asked to; a negative question fails."""
    if question < 0:
        raise Boom(question)
    if stop.wait(question):
        raise Abandoned
    return f":{question}"


async def aasleep(question: float) -> str:
    if question < 0:
        raise Boom(question)
    await asyncio.sleep(question)
    return f":{question}"


def by_threads(parts: list[Part[float, str, str]], workers: int = 8) -> list[str | Exception]:
    return run_round(parts, asleep, workers=workers)


def by_tasks(parts: list[Part[float, str, str]], workers: int = 8) -> list[str | Exception]:
    async def main() -> list[str | Exception]:
        outcomes = await arun_round(parts, aasleep, workers=workers)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return outcomes

    return asyncio.run(main())


Run = Callable[..., "list[str | Exception]"]


@pytest.fixture(params=[by_threads, by_tasks], ids=["threads", "tasks"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param


def timed(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def round_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "uprank-round"]


# One round.


def test_outcomes_come_in_the_order_of_the_parts_whichever_ends_first(run: Run) -> None:
    parts = [
        Part(plan(name, seconds, 0.0), number)
        for number, (name, seconds) in enumerate(zip("abc", (0.06, 0.03, 0.0), strict=True))
    ]
    assert run(parts) == ["a:0.0", "b:0.0", "c:0.0"]


def test_a_part_that_asks_nothing_has_its_result(run: Run) -> None:
    assert run([Part(plan("a"), 0)]) == ["a"]
    assert run([Part(plan("a"), 0), Part(plan("b"), 0)]) == ["a", "b"]


def test_a_single_part_runs_in_the_callers_thread() -> None:
    asked: list[int] = []

    def answer(question: float, stop: threading.Event) -> str:
        asked.append(threading.get_ident())
        return ""

    run_round([Part(plan("a", 0.0), 0)], answer, workers=4)
    assert asked == [threading.get_ident()]


def test_a_failure_is_an_outcome_and_does_not_touch_other_groups(run: Run) -> None:
    outcomes = run([Part(plan("a", 0.02), 0), Part(plan("b", -1.0), 1), Part(plan("c", 0.02), 2)])
    assert outcomes[0] == "a:0.02"
    assert isinstance(outcomes[1], Boom)
    assert outcomes[2] == "c:0.02"
    assert isinstance(run([Part(plan("a", -1.0), 0)])[0], Boom)


def test_a_failure_stops_its_own_group_at_once_and_only_that(run: Run) -> None:
    parts = [
        Part(plan("slow", 20.0), 0),
        Part(plan("fails", 0.02, -1.0), 0),
        Part(plan("other", 0.1, 0.1), 1),
        Part(plan("never asked", 20.0), 0),
    ]
    outcomes: list[str | Exception] = []
    assert timed(lambda: outcomes.extend(run(parts, workers=3))) < 5
    assert isinstance(outcomes[1], Boom)
    assert outcomes[0] is outcomes[1] is outcomes[3]
    assert outcomes[2] == "other:0.1"


def test_a_plan_may_answer_for_its_own_failure(run: Run) -> None:
    def careful() -> Plan:
        try:
            yield -1.0
        except Boom:
            return "saved" + (yield 0.0)
        return "not reached"

    assert run([Part(careful(), 0), Part(plan("b", 0.05), 0)]) == ["saved:0.0", "b:0.05"]


def test_no_more_run_at_once_than_there_are_workers(run: Run) -> None:
    now, most, lock = 0, 0, threading.Lock()

    def counted() -> Plan:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        yield 0.01
        with lock:
            now -= 1
        return "done"

    assert run([Part(counted(), number % 3) for number in range(20)], workers=4) == ["done"] * 20
    assert most == 4


def test_nothing_is_asked_for_a_group_that_has_failed(run: Run) -> None:
    """What is asked costs money."""
    answered: list[str] = []

    def telling(name: str, question: float) -> Plan:
        answer = yield question
        answered.append(name)
        return answer

    parts = [Part(telling("fails", -1.0), 0), *(Part(telling("later", 0.0), 0) for _ in range(30))]
    outcomes = run(parts, workers=1)
    assert all(isinstance(outcome, Boom) for outcome in outcomes)
    assert answered == []


def test_threads_end_with_their_round() -> None:
    by_threads([Part(plan("a", 0.01), 0) for _ in range(20)])
    assert eventually(lambda: not round_threads())
    by_threads([Part(plan("slow", 30.0), 0), Part(plan("fails", -1.0), 0)])
    assert eventually(lambda: not round_threads())


@pytest.mark.parametrize("leaving", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_program_is_raised_in_the_callers_thread(leaving: type[BaseException]) -> None:
    def answer(question: float, stop: threading.Event) -> str:
        if question < 0:
            raise leaving
        return asleep(question, stop)

    with pytest.raises(leaving):
        run_round([Part(plan("a", 30.0), 0), Part(plan("b", -1.0), 1), Part(plan("c", 30.0), 2)], answer, workers=3)
    assert eventually(lambda: not round_threads())
    with pytest.raises(leaving):
        run_round([Part(plan("a", -1.0), 0)], answer, workers=3)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")
def test_an_interrupt_is_raised_at_once_and_stops_the_threads() -> None:
    def interrupt() -> None:
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            by_threads([Part(plan("slow", 30.0), number) for number in range(4)])
        assert time.monotonic() - started < 3
    assert eventually(lambda: not round_threads())


def test_the_plan_of_an_interrupted_part_tidies_up() -> None:
    closed: list[str] = []

    def tidy() -> Plan:
        try:
            yield 30.0
        finally:
            closed.append("closed")
        return ""

    def answer(question: float, stop: threading.Event) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_round([Part(tidy(), 0)], answer, workers=1)
    assert closed == ["closed"]


# Cancelled rounds.


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("workers", [1, 8])
async def test_a_cancelled_round_ends_at_once_and_leaves_no_task(count: int, workers: int) -> None:
    closed = 0

    def tidy() -> Plan:
        nonlocal closed
        try:
            yield 30.0
        finally:
            closed += 1
        return ""

    before = asyncio.all_tasks()
    parts = [Part(tidy(), 0) for _ in range(count)]
    task = asyncio.create_task(arun_round(parts, aasleep, workers=workers))
    await asyncio.sleep(0.02)
    task.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 1
    assert asyncio.all_tasks() == before
    assert closed == min(count, workers)  # the others never began


async def test_a_cancelled_round_waits_until_its_calls_have_tidied_up() -> None:
    tidied = 0

    async def answer(question: float) -> str:
        nonlocal tidied
        try:
            await asyncio.sleep(question)
        finally:
            await asyncio.sleep(0.05)  # e.g. a connection that is closed
            tidied += 1
        return ""

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(arun_round([Part(plan("a", 30.0), 0) for _ in range(3)], answer, workers=3), 0.05)
    assert tidied == 3


async def test_a_group_that_fails_cancels_its_calls_in_flight() -> None:
    cancelled: list[float] = []

    async def answer(question: float) -> str:
        try:
            return await aasleep(question)
        except asyncio.CancelledError:
            cancelled.append(question)
            raise

    parts = [Part(plan("a", 30.0), 0), Part(plan("b", 0.02, -1.0), 0), Part(plan("c", 0.1), 1)]
    outcomes = await arun_round(parts, answer, workers=3)
    assert isinstance(outcomes[1], Boom)
    assert (outcomes[0], outcomes[2]) == (outcomes[1], "c:0.1")
    assert cancelled == [30.0]


async def test_a_round_whose_call_is_cancelled_from_inside_is_cancelled() -> None:
    async def answer(question: float) -> str:
        raise asyncio.CancelledError

    for count in (1, 3):
        with pytest.raises(asyncio.CancelledError):
            await arun_round([Part(plan("a", 0.0), 0) for _ in range(count)], answer, workers=3)


# Many plans in step.

Rounds = Generator["list[Plan]", "list[str | Exception]", object]


def two_rounds(name: str) -> Rounds:
    first = yield [plan(f"{name}1", 0.0), plan(f"{name}2", 0.0)]
    second = yield [plan(f"{name}3", 0.0)]
    return [*first, *second]


def one_round(name: str) -> Rounds:
    return (yield [plan(name, 0.0)])


def no_round(name: str) -> Rounds:
    return name
    yield []


def failing(name: str, question: float = -1.0) -> Rounds:
    outcomes = yield [plan(name, 0.05), plan(name, question)]
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


def raising() -> Rounds:
    raise Boom("before anything is asked")
    yield []


def drive_together(plans: list[Rounds], run: Run) -> list[object]:
    if run is by_threads:
        return list(drive(together(plans), run))

    async def around(parts: list[Part[float, str, str]]) -> list[str | Exception]:
        return await arun_round(parts, aasleep, workers=8)

    return list(asyncio.run(_adrive(together(plans), around)))


async def _adrive(whole: Generator, answer: Callable[..., Awaitable[object]]) -> list[object]:
    return await adrive(whole, answer)


def test_plans_of_different_lengths_each_get_their_own_outcomes(run: Run) -> None:
    assert drive_together([two_rounds("a"), no_round("b"), one_round("c"), two_rounds("d")], run) == [
        ["a1:0.0", "a2:0.0", "a3:0.0"],
        "b",
        ["c:0.0"],
        ["d1:0.0", "d2:0.0", "d3:0.0"],
    ]
    assert drive_together([], run) == []
    assert drive_together([no_round("a")], run) == ["a"]


def test_a_plan_that_fails_does_not_stop_the_others(run: Run) -> None:
    outcomes = drive_together([two_rounds("a"), failing("b"), raising(), one_round("c")], run)
    assert outcomes[0] == ["a1:0.0", "a2:0.0", "a3:0.0"]
    assert [type(outcome) for outcome in outcomes[1:3]] == [Boom, Boom]
    assert outcomes[3] == ["c:0.0"]


def test_the_rounds_of_all_plans_are_asked_as_one() -> None:
    whole = together([two_rounds("a"), one_round("b")])
    first = next(whole)
    assert [part.group for part in first] == [0, 0, 1]
    second = whole.send(["x", "y", "z"])
    assert [part.group for part in second] == [0]
    with pytest.raises(StopIteration) as stop:
        whole.send(["w"])
    assert stop.value.value == [["x", "y", "w"], ["z"]]


def test_plans_are_closed_when_the_round_is_interrupted() -> None:
    closed: list[str] = []

    def tidy(name: str) -> Rounds:
        try:
            return (yield [plan(name, 0.0)])
        finally:
            closed.append(name)

    def interrupted(parts: object) -> list[str | Exception]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(together([tidy("a"), tidy("b")]), interrupted)
    assert sorted(closed) == ["a", "b"]
