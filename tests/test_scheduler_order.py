"""Many calls on one model: whose turn it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scheduler_parts import Numbers, Schedulers, Squares, squares, submit, until


@pytest.fixture
def schedule() -> Iterator[Schedulers]:
    with Schedulers() as schedulers:
        yield schedulers


def test_a_small_call_does_not_wait_for_a_large_one(schedule):
    runner = Squares(token_budget=100)
    scheduler = schedule(runner)
    small, answered = Numbers([9, 9, 10, 10, 11, 11, 12, 12, 13, 13], first=10**6), []
    small.before_outcomes = lambda: answered.append(len(runner.batches))

    def join(rows, lane):
        if len(runner.batches) == 20:
            submit(scheduler, small)
            until(lambda: small.complete)
        if len(runner.batches) == 40:
            until(lambda: answered)  # or this lane is ahead of the scheduler's thread

    runner.before_run = join
    large = Numbers([number % 15 + 5 for number in range(10_000)], chunk=200)
    assert submit(scheduler, large).result(60) == squares(large)
    own = [number for number, batch in enumerate(runner.batches) if any(row.payload >= 10**6 for row in batch)]
    assert own[-1] <= 20 + 4
    assert answered[0] <= 40
    assert len(runner.batches) > 900


def test_calls_that_came_together_are_answered_one_after_the_other(schedule):
    runner, scheduler, _ = schedule.busy()
    jobs = [Numbers([10 + place % 9 for place in range(30)], first=100 * number) for number in range(20)]
    answered = {}
    for number, job in enumerate(jobs):
        job.before_outcomes = lambda number=number: answered.setdefault(number, len(runner.batches))
    futures = [submit(scheduler, job) for job in jobs]
    until(lambda: all(job.complete for job in jobs))
    runner.before_run = lambda rows, lane: until(lambda: len(answered) >= sum(len(job.taken) == 30 for job in jobs))
    runner.gate.set()
    for job, future in zip(jobs, futures, strict=True):
        assert future.result(60) == squares(job)
    everything = len(runner.batches)
    assert sum(batches <= 0.63 * everything for batches in answered.values()) >= 9  # all alike: none
    assert max(answered[number] for number in range(5)) < min(answered[number] for number in range(15, 20))


def test_a_large_call_is_answered_while_small_ones_keep_coming(schedule):
    """There is always one that waits, and together they would take every batch."""
    runner, scheduler, _ = schedule.busy()
    large, small = Numbers([50] * 40, first=10**7), []

    def another():
        small.append(Numbers([50, 50], first=1_000 * len(small)))
        submit(scheduler, small[-1])
        until(lambda: small[-1].complete)

    runner.before_run = lambda rows, lane: another()
    future = submit(scheduler, large)
    until(lambda: large.complete)
    for _ in range(3):
        another()
    runner.gate.set()
    large.before_outcomes = lambda: setattr(runner, "before_run", lambda rows, lane: None)
    assert future.result(60) == squares(large)
    own = [number for number, batch in enumerate(runner.batches) if any(row.payload >= 10**7 for row in batch)]
    assert own[0] > 4  # small ones do come first
    assert max(map(int.__sub__, own[1:], own)) <= 8


def test_a_large_call_tokenises_although_small_ones_keep_coming(schedule):
    """Small calls are asked first, and there is always a new one; the large one gives little at a time."""
    scheduler = schedule(Squares())
    large, count = Numbers([50] * 40, chunk=2, first=10**6), 0

    def another():
        nonlocal count
        if count < 2_000 and not large.complete:
            count += 1
            job = Numbers([50], first=1_000 * count)
            job.before_rows = lambda: another() if not job.given else None
            scheduler.submit(lambda: job, rows=1)

    for _ in range(3):
        another()
    assert scheduler.submit(lambda: large, rows=40).result(60) == squares(large)
    assert count < 2_000


def test_a_small_call_does_not_wait_until_large_ones_that_fill_the_queue_are_done(schedule):
    runner, scheduler, _ = schedule.busy(token_budget=1_000)
    large = [Numbers([100] * 300, chunk=100, first=1_000 * number) for number in range(20)]
    futures = [scheduler.submit(lambda job=job: job, rows=300) for job in large]
    until(lambda: sum(job.given for job in large) * 100 >= 2 * 65_536)
    small = Numbers([100] * 2, first=10**7)
    future = scheduler.submit(lambda: small, rows=2)
    try:
        until(lambda: small.given)  # although no batch was run meanwhile
    finally:
        runner.gate.set()
    assert future.result(60) == squares(small)
    for other in futures:
        other.cancel()


@pytest.mark.parametrize("begun", [True, False])
def test_where_callers_leave_during_their_turn_the_last_to_come_is_served_first(schedule, begun):
    """Else each call would be begun just before its caller leaves, and none would be answered."""
    runner, scheduler, _ = schedule.busy()
    jobs = [Numbers([100] * 4, first=100 * number) for number in range(4)]
    futures = [submit(scheduler, job) for job in jobs]
    until(lambda: all(job.complete for job in jobs))
    for task in scheduler._session._tasks.values():
        task.since -= 60  # for about as long as who leaves has waited the order is another
    order = []

    def leave(rows, lane):
        if rows[0].payload < 100 and not futures[0].cancelled():
            futures[0].cancel()
        elif rows[0].payload < 10**6:
            order.append(rows[0].payload // 100)

    runner.before_run = leave
    if not begun:
        futures[0].cancel()
    runner.gate.set()
    for number in (1, 2, 3):
        assert futures[number].result(20) == squares(jobs[number])
    assert list(dict.fromkeys(order)) == ([3, 2, 1] if begun else [1, 2, 3])
