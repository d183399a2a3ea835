"""A job and a runner of plain numbers, for tests of what stands between the two."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import NoReturn

from uprank.scorers import Scores
from uprank.scorers.base import Outcome
from uprank.scorers.local.jobs import Job, Row, Runner
from uprank.scorers.local.scheduler import Scheduler


def until(condition: Callable[[], object], *, seconds: float = 20) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


class Numbers(Job[object, list[float]]):
    """Rows of given lengths; row ``n`` holds ``(first + n)``, and what comes back must be its square.

    Args:
        lengths: Tokens of each row.
        first: The number of the first row.
        chunk: Rows given at a time.
        group: Of all rows, or of each.
        pauses: Whether to give the second and later chunks only when the ones before are back.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        first: int = 0,
        chunk: int = 1_000_000,
        group: Hashable | Sequence[Hashable] = None,
        pauses: bool = False,
    ) -> None:
        self.lengths = list(lengths)
        self.groups = list(group) if isinstance(group, (list, tuple)) else [group] * len(self.lengths)
        self.first = first
        self.chunk = chunk
        self.pauses = pauses
        self.given = 0
        self.complete = False  # whether all rows are with the scheduler
        self.threads: set[int] = set()
        self.asked = threading.Event()
        self.taken: dict[int, float] = {}
        self.twice: list[int] = []
        self.before_rows: Callable[[], object] = lambda: None
        self.before_take: Callable[[Sequence[Row[object]]], object] = lambda rows: None
        self.before_outcomes: Callable[[], object] = lambda: None

    def rows(self) -> list[Row[object]] | None:
        self.threads.add(threading.get_ident())
        self.asked.set()
        self.before_rows()
        if self.given == len(self.lengths):
            self.complete = True
            return None
        if self.pauses and len(self.taken) < self.given:
            return []
        places = range(self.given, min(len(self.lengths), self.given + self.chunk))
        self.given = places.stop
        return [Row(self.lengths[place], self.first + place, place, self.groups[place]) for place in places]

    def take(self, rows: Sequence[Row[object]], output: list[float]) -> None:
        self.before_take(rows)
        for row, value in zip(rows, output, strict=True):
            assert row.payload == self.first + row.place, "a row of another job"
            assert value == (self.first + row.place) ** 2, "the output of another row"
            if row.place in self.taken:
                self.twice.append(row.place)
            self.taken[row.place] = value

    def outcomes(self) -> list[Outcome]:
        self.threads.add(threading.get_ident())
        self.before_outcomes()
        assert not self.twice
        return [Scores([self.taken[place] for place in range(len(self.lengths))], "logit")]


class Squares(Runner[object, list[float]]):
    """Squares numbers, and notes how they came.

    Args:
        lanes: As for any runner.
        token_budget: Likewise.
        ahead: Likewise.
        padded: Likewise.
        capacity: More tokens than that, padding counted where there is any, run out of memory.
        bad: Numbers that cannot be squared.
        gate: What each batch waits for.
    """

    def __init__(
        self,
        *,
        lanes: int = 1,
        token_budget: int = 100,
        ahead: bool = False,
        padded: bool = True,
        capacity: int = 10**9,
        bad: Sequence[int] = (),
        gate: threading.Event | None = None,
    ) -> None:
        self.lanes = lanes
        self.token_budget = token_budget
        self.ahead = ahead
        self.padded = padded
        self.capacity = capacity
        self.bad = set(bad)
        self.gate = gate
        self.entered = threading.Event()
        self.batches: list[list[Row[object]]] = []
        self.events: list[str] = []
        self.threads: dict[int, set[threading.Thread]] = {lane: set() for lane in range(lanes)}
        self.inside = [threading.Lock() for _ in range(lanes)]
        self.released = 0
        self.before_run: Callable[[Sequence[Row[object]], int], object] = lambda rows, lane: None

    def run(self, rows: Sequence[Row[object]], lane: int) -> list[float]:
        assert self.inside[lane].acquire(blocking=False), "two batches at once in a lane"
        try:
            self.threads[lane].add(threading.current_thread())
            self.batches.append(list(rows))
            self.events.append(f"run {len(self.batches)}")
            self.entered.set()
            if self.gate is not None:
                assert self.gate.wait(20)
            self.before_run(rows, lane)
            assert len({row.group for row in rows}) == 1
            size = padded(rows) if self.padded else sum(row.length for row in rows)
            if size > self.capacity:
                raise MemoryError(f"no room for {size} tokens")
            if any(row.payload in self.bad for row in rows):
                raise ValueError("a bad row")
            return [row.payload**2 for row in rows]
        finally:
            self.inside[lane].release()

    def part(self, output: list[float], positions: Sequence[int]) -> list[float]:
        self.events.append("part")
        return [output[position] for position in positions]

    def release_memory(self) -> None:
        self.released += 1


def padded(rows: Sequence[Row[object]]) -> int:
    """The tokens of a batch once its rows are padded to the longest."""
    return max(1, *(row.length for row in rows), 1) * len(rows)


def squares(job: Numbers) -> list[Outcome]:
    """What a job must come to."""
    return [Scores([(job.first + place) ** 2 for place in range(len(job.lengths))], "logit")]


class Schedulers:
    """Makes schedulers, and closes them in the end."""

    def __init__(self) -> None:
        self.made: list[Scheduler] = []

    def __call__(self, runner: Squares, **options: float) -> Scheduler:
        self.made.append(Scheduler("squares", lambda: runner, **options))
        return self.made[-1]

    def __enter__(self) -> Schedulers:
        return self

    def __exit__(self, *error: object) -> None:
        for scheduler in self.made:
            scheduler.close()

    def busy(self, **options: object) -> tuple[Squares, Scheduler, Future[list[Outcome]]]:
        """A scheduler whose first batch, of a call of its own, waits for the gate."""
        runner = Squares(gate=threading.Event(), **options)
        scheduler = self(runner)
        future = submit(scheduler, Numbers([10], first=1_000_000))
        assert runner.entered.wait(20)
        return runner, scheduler, future


def submit(scheduler: Scheduler, job: Numbers) -> Future[list[Outcome]]:
    return scheduler.submit(lambda: job)


def throw(error: BaseException) -> NoReturn:
    raise error
