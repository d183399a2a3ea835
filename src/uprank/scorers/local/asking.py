"""Which call on a model is asked for its next rows; how much waits is bounded here."""

from __future__ import annotations

from uprank.scorers.local.pool import Pool
from uprank.scorers.local.tasks import Task

__all__ = ["Askable"]


_AGEING = 8  # of so many times that somebody is asked, one is the turn of the oldest call that has no rows waiting


class Askable:
    """The calls that have more rows to give.

    Rows are asked for in the order in which they are run. Room is kept in the pool for calls that have
    none waiting, and some more for one whose turn it is: a small call does not wait until a pool full of
    large ones has shrunk.
    """

    def __init__(self) -> None:
        self._new: dict[int, dict[Task, None]] = {}  # never asked; by size, small first come first
        self._asked: dict[Task, None] = {}
        self._times = 0  # that somebody was asked

    def add(self, task: Task) -> None:
        """Take on a call that was not asked yet."""
        self._new.setdefault(_size(task), {})[task] = None

    def note_asked(self, task: Task) -> None:
        """Note that a call has been asked for rows."""
        self._times += 1
        if task not in self._asked:
            self.remove(task)
            self._asked[task] = None

    def remove(self, task: Task) -> None:
        """Forget a call."""
        if task in self._asked:
            del self._asked[task]
            return
        alike = self._new[_size(task)]
        del alike[task]
        if not alike:
            del self._new[_size(task)]

    def next(self, pool: Pool[Task], budget: int, mark: int) -> Task | None:
        """Whom to ask next.

        Args:
            pool: Where the rows wait.
            budget: Tokens of a full batch.
            mark: So many tokens may wait of calls that have some waiting already; twice as many of all; three
                times as many where a call is asked whose turn it is, or of which nothing runs.
        """
        if pool.tokens >= 3 * mark:
            return None
        ready = [task for task in self._asked if not task.stalled]
        without = [task for task in ready if not task.tokens]
        if self._times % _AGEING == 0 and (without or self._new):
            firsts = [next(iter(alike)) for alike in self._new.values()]
            return min(without + firsts, key=lambda task: task.number)
        if self._new:
            alike = self._new[min(self._new)]
            without.append(next(reversed(alike) if pool.latest_first else iter(alike)))
        first = _first(without, pool, budget)
        if first is not None and (pool.tokens < 2 * mark or pool.would_lead(first, budget)):
            return first
        if pool.tokens < mark:
            return _first(ready, pool, budget)
        return _first([task for task in ready if not task.untaken], pool, budget)  # such a call may be done


def _first(tasks: list[Task], pool: Pool[Task], budget: int) -> Task | None:
    return min(tasks, key=lambda task: pool.rank(task, budget), default=None)


def _size(task: Task) -> int:
    return task.announced.bit_length()
