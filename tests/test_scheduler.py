"""Many calls on one model: who shares batches, who waits for company, and how much waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_parts import Numbers, Schedulers, Squares, padded, squares, submit, until
from uprank import ConfigurationError, ScorerError
from uprank.errors import OverloadedError
from uprank.scorers.local.scheduler import Scheduler


@pytest.fixture
def schedule() -> Iterator[Schedulers]:
    with Schedulers() as schedulers:
        yield schedulers


# --- batches


def test_64_callers_share_batches(schedule):
    runner, scheduler, first = schedule.busy()
    jobs = [Numbers([10] * 5, first=100 * number) for number in range(64)]
    futures = [submit(scheduler, job) for job in jobs]
    until(lambda: all(job.complete for job in jobs))
    runner.gate.set()
    for job, future in zip(jobs, futures, strict=True):
        assert future.result(20) == squares(job)
    assert first.done()
    assert len(runner.batches) == 1 + 64 * 5 * 10 // 100


def test_one_call_runs_longest_first_within_the_budget(schedule):
    runner = Squares(token_budget=100)
    job = Numbers(range(1, 60))
    assert submit(schedule(runner), job).result(20) == squares(job)
    flat = [row.length for batch in runner.batches for row in batch]
    assert flat == sorted(job.lengths, reverse=True)
    assert all(padded(batch) <= 100 for batch in runner.batches)


def test_few_rows_are_split_evenly_over_the_lanes(schedule):
    """Both lanes must be in a batch at the same time, or the barrier breaks."""
    runner = Squares(lanes=2, token_budget=1_000)
    barrier = threading.Barrier(2)
    runner.before_run = lambda rows, lane: barrier.wait(20)
    job = Numbers([20] * 10)
    assert submit(schedule(runner), job).result(30) == squares(job)
    assert [len(batch) for batch in runner.batches] == [5, 5]
    assert all(len(threads) == 1 for threads in runner.threads.values())


def test_the_last_batches_of_a_long_call_are_as_large_as_the_others(schedule):
    runner = Squares(lanes=2, token_budget=1_000)
    barrier = threading.Barrier(2)
    runner.before_run = lambda rows, lane: barrier.wait(20)
    job = Numbers([10] * 630)  # 6.3 full batches
    assert submit(schedule(runner), job).result(30) == squares(job)
    assert len(runner.batches) == 8  # four a lane
    assert min(map(len, runner.batches)) >= 75


def test_one_row_is_not_split(schedule):
    runner = Squares(lanes=4, token_budget=1_000)
    job = Numbers([20])
    assert submit(schedule(runner), job).result(20) == squares(job)
    assert len(runner.batches) == 1


def test_a_lane_keeps_to_its_thread_and_threads_have_the_models_name(schedule):
    runner = Squares(lanes=3, token_budget=50)
    scheduler = schedule(runner)
    job = Numbers([10] * 300, chunk=40)
    assert submit(scheduler, job).result(20) == squares(job)
    used = [threads for threads in runner.threads.values() if threads]
    assert all(len(threads) == 1 for threads in used)
    assert all(thread.name.startswith("uprank squares") for (thread,) in used)
    assert len(job.threads) == 1
    assert not job.threads & {thread.ident for (thread,) in used}


def test_rows_and_batches_overlap(schedule):
    """The second chunk is asked for while the first runs: the first batch waits for just that."""
    runner, job = Squares(), Numbers([10] * 4, chunk=2)
    runner.before_run = lambda rows, lane: until(lambda: job.given == 4)
    assert submit(schedule(runner), job).result(30) == squares(job)


def test_a_job_may_have_nothing_to_give_for_now(schedule):
    """E.g. one that finds all of a chunk's results kept: it is asked again, also where nothing of it is under way."""

    class Sparse(Numbers):
        turns = 0

        def rows(self):
            self.turns += 1
            return [] if self.turns % 3 else super().rows()

    job = Sparse([10] * 6, chunk=2)
    assert submit(schedule(Squares()), job).result(20) == squares(job)


# --- bounds


def test_rows_of_a_long_call_are_asked_for_as_they_are_needed(schedule):
    runner, scheduler, _ = schedule.busy()
    long = Numbers([100] * 5_000, chunk=50)  # 500,000 tokens
    future = submit(scheduler, long)
    until(lambda: long.given * 100 >= 65_536)
    time.sleep(0.05)
    assert long.given * 100 < 65_536 + 50 * 100
    other = Numbers([100] * 700, chunk=50, first=10**6)  # who comes later finds room all the same
    later = submit(scheduler, other)
    until(lambda: other.given)
    runner.gate.set()
    assert future.result(60) == squares(long)
    assert later.result(60) == squares(other)


def test_what_waits_is_bounded_with_many_callers_too(schedule):
    runner, scheduler, _ = schedule.busy(token_budget=4_000)
    jobs = [Numbers([100] * 100, chunk=10, first=1_000 * number) for number in range(200)]  # 2,000,000 tokens
    futures = [submit(scheduler, job) for job in jobs]
    until(lambda: sum(job.given for job in jobs) * 100 >= 2 * 65_536)
    time.sleep(0.05)
    assert sum(job.given for job in jobs) * 100 < 2 * 65_536 + 10 * 100
    runner.gate.set()
    assert [future.result(60) for future in futures] == [squares(job) for job in jobs]


def test_a_queue_that_is_full_says_so(schedule):
    runner = Squares(gate=threading.Event())
    scheduler = schedule(runner, max_queue=3)
    futures = [submit(scheduler, Numbers([10])) for _ in range(3)]
    with pytest.raises(OverloadedError, match=r"squares has 3 calls that wait .*max_queue") as caught:
        submit(scheduler, Numbers([10]))
    assert isinstance(caught.value, ScorerError)
    assert futures[1].cancel()  # a cancelled call makes room at once
    fourth = submit(scheduler, Numbers([10]))
    runner.gate.set()
    assert fourth.result(20) == squares(Numbers([10]))
    submit(scheduler, Numbers([10])).result(20)


# --- waiting for company


def crowd(scheduler, *jobs):
    """Submit jobs so that the scheduler has them all before it asks the first for rows, and the last takes a while."""
    here = threading.Event()
    jobs[0].before_rows = lambda: here.wait(20)
    jobs[-1].before_rows = lambda: time.sleep(0.03)
    futures = [submit(scheduler, job) for job in jobs]
    here.set()
    return futures


def test_calls_at_the_same_time_wait_for_one_another(schedule):
    runner = Squares(token_budget=100)
    jobs = Numbers([10] * 4), Numbers([10] * 6)
    for job, future in zip(jobs, crowd(schedule(runner, max_wait_ms=60_000), *jobs), strict=True):
        assert future.result(20) == squares(job)  # ten rows: the batch is full and goes out at once
    assert len(runner.batches) == 1


def test_a_batch_that_does_not_fill_goes_out_when_the_wait_is_over(schedule):
    runner = Squares(token_budget=100)
    jobs = Numbers([10] * 2), Numbers([10] * 3)
    for job, future in zip(jobs, crowd(schedule(runner, max_wait_ms=400), *jobs), strict=True):
        assert future.result(20) == squares(job)
    assert len(runner.batches) == 1


def test_who_calls_alone_does_not_wait(schedule):
    scheduler = schedule(Squares(), max_wait_ms=60_000)
    for _ in range(3):
        assert submit(scheduler, Numbers([10])).result(20) == squares(Numbers([10]))


def test_a_busy_model_makes_nobody_wait_longer(schedule):
    """What came while all lanes were busy goes out as soon as one is free, however little, if the wait is over."""
    runner = Squares(gate=threading.Event())
    scheduler = schedule(runner, max_wait_ms=1)
    first = submit(scheduler, Numbers([10]))
    assert runner.entered.wait(20)
    second = submit(scheduler, Numbers([10]))
    time.sleep(0.01)
    runner.gate.set()
    assert first.result(20) == second.result(20) == squares(Numbers([10]))


@pytest.mark.parametrize("options", [{"max_wait_ms": -1}, {"max_wait_ms": float("nan")}, {"max_wait_ms": "2"}])
def test_a_wait_that_is_none_is_refused(options):
    with pytest.raises(ConfigurationError, match="max_wait_ms must be a number of at least 0 or None, got"):
        Scheduler("squares", Squares, **options)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "many", None])
def test_a_queue_of_no_size_is_refused(size):
    with pytest.raises(ConfigurationError, match="max_queue must be a positive integer, got"):
        Scheduler("squares", Squares, max_queue=size)


# --- running ahead


def test_the_next_batch_is_launched_before_the_last_one_is_taken(schedule):
    runner, job = Squares(ahead=True, token_budget=100), Numbers([50] * 6)
    assert submit(schedule(runner), job).result(20) == squares(job)
    assert runner.events == ["run 1", "run 2", "part", "run 3", "part", "part"]


def test_without_running_ahead_each_batch_is_taken_before_the_next(schedule):
    runner, job = Squares(token_budget=100), Numbers([50] * 6)
    assert submit(schedule(runner), job).result(20) == squares(job)
    assert runner.events == ["run 1", "part", "run 2", "part", "run 3", "part"]


def test_an_output_is_taken_at_once_where_no_batch_is_ready(schedule):
    """The job gives its second rows only when the first are taken: a lane that waited would wait for ever."""
    runner, job = Squares(ahead=True, token_budget=100), Numbers([10] * 6, chunk=2, pauses=True)
    assert submit(schedule(runner), job).result(20) == squares(job)
    assert len(runner.batches) == 3


def test_little_that_waits_is_not_launched_ahead(schedule):
    """While one batch is on the device, less than half a full one had better wait for company."""
    runner, small = Squares(ahead=True, token_budget=100), Numbers([10] * 3, first=50)
    scheduler = schedule(runner)

    def join(rows, lane):
        if len(runner.batches) == 1:
            later.append(submit(scheduler, small))
            until(lambda: small.complete)

    later = []
    runner.before_run = join
    job = Numbers([10] * 10)
    assert submit(scheduler, job).result(20) == squares(job)
    assert later[0].result(20) == squares(small)
    assert runner.events == ["run 1", "part", "run 2", "part"]


# --- any mix


@st.composite
def jobs(draw):
    lengths = draw(st.lists(st.integers(0, 50), max_size=30))
    return {
        "lengths": lengths,
        "chunk": draw(st.integers(1, 40)),
        "group": draw(st.lists(st.sampled_from("xy"), min_size=len(lengths), max_size=len(lengths))),
        "pauses": draw(st.booleans()),
    }


@settings(deadline=None, max_examples=60)
@given(
    st.lists(jobs(), min_size=1, max_size=8),
    st.integers(1, 3),
    st.booleans(),
    st.integers(1, 200),
    st.integers(50, 300),
    st.sets(st.integers(0, 7)),
)
def test_every_row_is_run_once_and_comes_back_to_its_job(mix, lanes, ahead, budget, capacity, cancelled):
    """``Numbers`` itself checks that it gets its own rows, and none twice."""
    runner = Squares(lanes=lanes, ahead=ahead, token_budget=budget, capacity=capacity)
    scheduler = Scheduler("squares", lambda: runner, max_wait_ms=0.1)
    made = [Numbers(first=1_000 * number, **options) for number, options in enumerate(mix)]
    futures = [submit(scheduler, job) for job in made]
    for number in cancelled:
        if number < len(futures):
            futures[number].cancel()
    for number, (job, future) in enumerate(zip(made, futures, strict=True)):
        if not future.cancelled():
            assert future.result(20) == squares(job), number
    scheduler.close()
    run = [row for batch in runner.batches if padded(batch) <= capacity for row in batch]
    assert len({id(row) for row in run}) == len(run)
    wanted = {
        job.first + place
        for job, future in zip(made, futures, strict=True)
        for place in range(len(job.lengths))
        if not future.cancelled()
    }
    assert wanted <= {row.payload for row in run}


@pytest.mark.no_cover
def test_many_threads_submit_cancel_and_close_at_once():
    loads = []

    def load():
        loads.append(1)
        return Squares(lanes=2, ahead=True, token_budget=60)

    scheduler, wrong = Scheduler("squares", load), []

    def call(number):
        for turn in range(60):
            job = Numbers([turn % 17 + 1] * (number + turn % 5), first=1_000 * number + turn, chunk=3)
            future = submit(scheduler, job)
            if (turn + number) % 4 == 0:
                future.cancel()
            elif future.result(30) != squares(job):
                wrong.append(job)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        scheduler.close()
        time.sleep(0.002)
    scheduler.close()
    assert not wrong
    assert loads
