"""A call on a local model, as its caller sees it and as it is worked on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeAlias
from weakref import WeakMethod

from uprank.scorers.base import Outcome
from uprank.scorers.local.jobs import Job, Row
from uprank.scorers.local.pool import Share

__all__ = ["AnyJob", "Call", "Failed", "MakeJob", "Task"]

AnyJob: TypeAlias = Job[Any, Any]  # what rows and outputs are is between a job and its runner
MakeJob: TypeAlias = Callable[[], AnyJob]
Failed: TypeAlias = Callable[[Exception], list[Outcome]]

_ROW_TOKENS = 128  # that a row is thought to have before one is seen


class Call(Future[list[Outcome]]):
    """A job's future. It can be cancelled at any time before the answer, also while its rows run.

    Args:
        withdraw: Told when the call is cancelled. It must take no lock: a finaliser may be what cancels.
    """

    def __init__(self, withdraw: Callable[[Call], None]) -> None:
        super().__init__()
        self._withdraw: Callable[[Call], None] | None = withdraw

    def cancel(self) -> bool:
        cancelled = super().cancel()
        withdraw, self._withdraw = self._withdraw, None
        if cancelled and withdraw is not None:
            withdraw(self)
        return cancelled

    def settle(self, answer: list[Outcome] | BaseException) -> None:
        """Give the answer, unless the call was cancelled."""
        self._withdraw = None  # whoever keeps the answer keeps nothing else
        with suppress(InvalidStateError):
            if isinstance(answer, BaseException):
                self.set_exception(answer)
            else:
                self.set_result(answer)


class Task(Share):
    """A job while it is worked on.

    Args:
        make: Makes the job.
        call: Who waits for it.
        failed: Makes outcomes of an error; without, the call raises it.
        rows: About how many rows it will give.

    Attributes:
        announced: About how many rows it will give.
        since: When it came, by the monotonic clock.
        expected: About how many rows it has still to give.
        untaken: How many of its rows wait or run.
        given: Whether it has given all its rows.
        stalled: Whether it gives more only when those are taken.
    """

    def __init__(self, make: MakeJob, call: Call, failed: Failed | None, rows: int = 0) -> None:
        super().__init__()
        self.since = time.monotonic()
        self.announced = self.expected = rows
        self.coming = rows * _ROW_TOKENS
        self.call = call
        self._make = make
        self._job: AnyJob | None = None
        self._failed = failed
        self.untaken = 0
        self.given = False
        self.stalled = False

    @property
    def job(self) -> AnyJob:
        """What to run; first asked for on the scheduler's thread, with the model loaded."""
        if self._job is None:
            self._job = self._make()
            close = WeakMethod(self._job.close)  # whoever keeps the answer keeps no job
            self.call.add_done_callback(lambda _: _if_there(close()))
        return self._job

    def note_given(self, rows: Sequence[Row[object]] | None) -> None:
        """Note what the job gave when it was asked for rows. More rows are thought to be as long as the last ones."""
        if rows is None:
            self.given = True
            self.expected = self.coming = 0
            return
        self.untaken += len(rows)
        self.stalled = not rows and self.untaken > 0
        if rows:
            self.expected = max(0, self.expected - len(rows))
            self.coming = self.expected * sum(row.length for row in rows) // len(rows)

    def fail(self, error: BaseException) -> None:
        """Give the error as the answer."""
        if self._failed is not None and isinstance(error, Exception):
            self.call.settle(self._failed(error))
        else:
            self.call.settle(error)


def _if_there(close: Callable[[], None] | None) -> None:
    if close is not None:
        close()
