"""The gate: how many requests at once and a minute, for threads and tasks alike."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http_loopback import answered, assert_free
from uprank.scorers.http.gate import Gate, NoPlace

FOREVER = float("inf")


class Count:
    """Who is inside now, and the most there were."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


# The number at once.


def test_threads_and_tasks_of_two_loops_never_exceed_the_limit() -> None:
    gate, count = Gate(5), Count()

    async def task() -> None:
        async with gate.aentered(FOREVER):
            with count:
                await asyncio.sleep(random.uniform(0, 0.004))

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(60)))

    def thread() -> None:
        for _ in range(10):
            with gate.entered(FOREVER), count:
                time.sleep(random.uniform(0, 0.004))

    with ThreadPoolExecutor(14) as pool:
        for running in [pool.submit(asyncio.run, tasks()) for _ in range(2)] + [pool.submit(thread) for _ in range(12)]:
            running.result(30)
    assert (count.now, count.most, count.total) == (0, 5, 240)
    assert_free(gate, 5)


def test_places_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    gate, order = Gate(1), []

    async def task(number: int) -> None:
        async with gate.aentered(FOREVER):
            order.append(number)
            await asyncio.sleep(0)

    async def main() -> None:
        async with gate.aentered(FOREVER):
            waiting = [asyncio.ensure_future(task(number)) for number in range(20)]
            await asyncio.sleep(0.01)
        await asyncio.gather(*waiting)

    asyncio.run(main())
    assert order == list(range(20))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
def test_whatever_is_raised_inside_frees_the_place(error: type[BaseException]) -> None:
    gate = Gate(1)
    with pytest.raises(error), gate.entered(1.0):
        raise error

    async def main() -> None:
        async with gate.aentered(1.0):
            raise error

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(error):
            loop.run_until_complete(main())
    finally:
        loop.close()
    assert_free(gate, 1)


def test_who_finds_no_place_in_time_is_told_and_holds_none() -> None:
    gate = Gate(1)
    with gate.entered(1.0):
        started = time.monotonic()
        with pytest.raises(NoPlace), gate.entered(0.05):
            pass
        assert time.monotonic() - started >= 0.05

        async def main() -> None:
            for timeout in (0.05, 0.0, -1.0):
                with pytest.raises(NoPlace):
                    async with gate.aentered(timeout):
                        pass

        asyncio.run(main())
        with pytest.raises(NoPlace), gate.entered(-1.0):
            pass
    assert_free(gate, 1)


@pytest.mark.parametrize("timeout", [FOREVER, 1e30, 0.0, -1.0])
def test_a_free_place_is_taken_whatever_the_timeout(timeout: float) -> None:
    gate = Gate(1)
    with gate.entered(timeout):
        pass

    async def main() -> None:
        async with gate.aentered(timeout):
            pass

    asyncio.run(main())
    assert_free(gate, 1)


def test_a_place_that_comes_free_is_had_by_who_waits_for_it_also_with_a_long_timeout() -> None:
    gate = Gate(1)
    for timeout in (FOREVER, 1e30, 5.0):
        holder, holds = gate.entered(1.0), threading.Event()

        def wait(timeout: float = timeout, holds: threading.Event = holds) -> None:
            holds.set()
            with gate.entered(timeout):
                pass

        holder.__enter__()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait)
            holds.wait(5)
            time.sleep(0.01)
            assert not waiting.done()
            holder.__exit__(None, None, None)
            waiting.result(5)
    assert_free(gate, 1)


# Who is cancelled while waiting.


def test_cancelled_tasks_and_late_threads_free_nothing_twice() -> None:
    gate, count = Gate(3), Count()

    async def task(patience: float) -> None:
        async with gate.aentered(patience):
            with count:
                await asyncio.sleep(random.uniform(0, 0.003))

    async def main() -> None:
        for _ in range(12):
            tasks = [asyncio.ensure_future(task(random.choice([3.0, 0.002, 0.01]))) for _ in range(25)]
            for each in random.sample(tasks, 12):
                await asyncio.sleep(random.choice([0, 0, 0.0005, 0.002]))
                each.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(outcome) for outcome in ended} <= {type(None), NoPlace, asyncio.CancelledError}

    def thread() -> None:
        for _ in range(25):
            try:
                with gate.entered(random.choice([0.0, 0.002, 1.0])), count:
                    time.sleep(random.uniform(0, 0.002))
            except NoPlace:
                pass

    with ThreadPoolExecutor(8) as pool:
        for running in [pool.submit(asyncio.run, main()) for _ in range(2)] + [pool.submit(thread) for _ in range(6)]:
            running.result(60)
    assert count.now == 0
    assert count.most <= 3
    assert_free(gate, 3)


@settings(max_examples=60, deadline=None)
@given(
    most=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(["ask", "leave", "cancel", "yield"]), st.integers(0, 11)), max_size=60),
)
def test_any_order_of_asking_leaving_and_cancelling_keeps_the_count(most: int, steps: list[tuple[str, int]]) -> None:
    gate, count = Gate(most), Count()

    async def task(leave: asyncio.Event) -> None:
        async with gate.aentered(5.0):
            with count:
                await leave.wait()

    async def main() -> None:
        tasks: list[tuple[asyncio.Task[None], asyncio.Event]] = []
        for what, which in steps:
            if what == "ask":
                leave = asyncio.Event()
                tasks.append((asyncio.ensure_future(task(leave)), leave))
            elif what == "yield":
                for _ in range(4):
                    await asyncio.sleep(0)
            elif tasks and what == "leave":
                tasks[which % len(tasks)][1].set()
            elif tasks:
                tasks[which % len(tasks)][0].cancel()
            assert count.now <= most
        for _, leave in tasks:
            leave.set()
        await asyncio.wait_for(asyncio.gather(*(each for each, _ in tasks), return_exceptions=True), 10)

    asyncio.run(main())
    assert count.now == 0
    assert count.most <= most
    assert_free(gate, most)


@pytest.mark.parametrize("turns", range(5))
def test_a_task_cancelled_just_as_its_place_comes_is_cancelled_and_passes_the_place_on(turns: int) -> None:
    """`asyncio.wait_for` swallows such a cancellation before Python 3.12."""
    gate = Gate(1)
    ran: list[str] = []

    async def task(name: str) -> None:
        async with gate.aentered(10.0):
            ran.append(name)

    async def main() -> None:
        async with gate.aentered(1.0):
            first, second = asyncio.ensure_future(task("first")), asyncio.ensure_future(task("second"))
            await asyncio.sleep(0.01)
        # The place is the first one's now; depending on the turns, its task has been told of it or not.
        for _ in range(turns):
            await asyncio.sleep(0)
        cancelled = first.cancel()
        await asyncio.wait([first, second])
        assert first.cancelled() == cancelled
        assert not second.cancelled()

    asyncio.run(main())
    assert ran[-1] == "second"
    assert_free(gate, 1)


def test_a_loop_that_is_closed_with_tasks_waiting_loses_no_place() -> None:
    gate = Gate(1)

    async def task() -> None:
        async with gate.aentered(FOREVER):
            pass

    async def main() -> None:
        waiting.append(asyncio.ensure_future(task()))
        await asyncio.sleep(0)

    waiting: list[asyncio.Task[None]] = []
    with gate.entered(1.0):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending"
        loop.close()
        waiting.clear()
        gc.collect()
    assert_free(gate, 1)


# 429 and recovery.


def test_a_burst_of_429_halves_the_limit_once() -> None:
    gate = Gate(16)
    entered = [gate.entered(1.0) for _ in range(16)]
    tickets = [each.__enter__() for each in entered]
    for ticket, each in zip(tickets, entered, strict=True):
        ticket.throttled = True
        each.__exit__(None, None, None)
    assert gate.limit == 8
    answered(gate, throttled=True)  # sent after the cut: this is news
    assert gate.limit == 4


def test_the_limit_never_falls_below_one() -> None:
    gate = Gate(3)
    for expected in (1, 1, 1):
        answered(gate, throttled=True)
        assert gate.limit == expected
    assert_free(gate, 1)


def test_successes_raise_the_limit_by_one_a_round_up_to_the_most() -> None:
    gate = Gate(8)
    answered(gate, throttled=True)
    answered(gate, throttled=True)
    assert gate.limit == 2
    limits = []
    for _ in range(40):
        answered(gate, ok=True)
        limits.append(gate.limit)
    assert limits == sorted(limits)
    assert 3 in limits[:3]  # two at once, two successes: about one more
    assert 4 not in limits[:3]
    assert limits[-1] == 8
    answered(gate, ok=True)
    assert gate.limit == 8
    assert_free(gate, 8)


def test_neither_failures_nor_lost_requests_move_the_limit() -> None:
    gate = Gate(4)
    for _ in range(10):
        answered(gate)
    assert gate.limit == 4
    answered(gate, throttled=True)
    answered(gate)
    assert gate.limit == 2


def test_no_more_enter_until_enough_have_left_after_a_cut() -> None:
    gate = Gate(4)
    entered = [gate.entered(1.0) for _ in range(4)]
    tickets = [each.__enter__() for each in entered]
    tickets[0].throttled = True
    entered[0].__exit__(None, None, None)  # three inside, two allowed
    for leaving in (1, 2):
        with pytest.raises(NoPlace), gate.entered(0.0):
            pass
        entered[leaving].__exit__(None, None, None)
    with gate.entered(0.0):
        pass
    entered[3].__exit__(None, None, None)


def test_a_host_that_takes_fewer_lowers_the_most_for_good() -> None:
    gate = Gate(8)
    gate.lower(3)
    assert (gate.limit, gate.most) == (3, 3)
    gate.lower(5)
    assert gate.most == 3
    for _ in range(20):
        answered(gate, ok=True)
    assert gate.limit == 3
    gate.lower(0)
    assert (gate.limit, gate.most) == (1, 1)


def test_a_ticket_can_be_given_up_in_the_moment_it_comes() -> None:
    """The race itself: the place is given between the timeout and the giving up."""
    gate = Gate(1)
    holder = gate.entered(1.0)
    holder.__enter__()
    place = gate._ask()
    holder.__exit__(None, None, None)
    assert place.done()
    gate._give_up(place)
    assert_free(gate, 1)
