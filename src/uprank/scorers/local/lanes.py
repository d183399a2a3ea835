"""Lanes run batches, one after the other each, on threads of their own, and hand out what they gave."""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from uprank.errors import ScorerError
from uprank.scorers.local.batching import is_out_of_memory
from uprank.scorers.local.jobs import Runner
from uprank.scorers.local.pool import Batch
from uprank.scorers.local.tasks import Task

if TYPE_CHECKING:
    from uprank.scorers.local.session import Session

__all__ = ["AnyRunner", "Lanes", "Mailbox"]

AnyRunner: TypeAlias = Runner[Any, Any]  # as for jobs
Mailbox: TypeAlias = "SimpleQueue[Session | None]"
Verdict: TypeAlias = Literal["again", "alone", "failed"]


class Lanes:
    """The lanes of a session and their threads, each started when first needed. To be used with the lock held.

    Args:
        name: Of the threads.
        count: How many lanes.
        mailboxes: Where the mailboxes of the threads are noted.

    Attributes:
        idle: Lanes that have nothing to do; the one that rests since last is woken first.
        woken: How many were woken for a batch and have not asked for it yet.
    """

    def __init__(self, name: str, count: int, mailboxes: list[Mailbox]) -> None:
        self.idle = list(reversed(range(count)))
        self.woken = 0
        self._name = name
        self._mailboxes = mailboxes
        self._started: list[tuple[Mailbox, threading.Thread] | None] = [None] * count

    def __len__(self) -> int:
        return len(self._started)

    def wake(self, session: Session) -> None:
        """Let an idle lane work for the session. Without a thread for it, those that have one must do."""
        lane = self.idle.pop()
        started = self._started[lane]
        if started is None:
            mailbox: Mailbox = SimpleQueue()
            thread = threading.Thread(target=_run_lane, args=(mailbox, lane), name=f"{self._name} {lane}")
            try:
                thread.start()
            except RuntimeError:
                if any(self._started):
                    return
                self.idle.append(lane)
                raise
            self._mailboxes.append(mailbox)
            started = self._started[lane] = mailbox, thread
        self.woken += 1
        started[0].put(session)

    def end(self) -> None:
        """Let the threads end, and wait for that. To be called without the lock."""
        for started in self._started:
            if started is not None:
                mailbox, thread = started
                mailbox.put(None)
                thread.join()


def _run_lane(mailbox: Mailbox, index: int) -> None:
    """Work for the session whenever it calls. Nothing is held between calls, so that it can be collected."""
    while (session := mailbox.get()) is not None:
        try:
            _Lane(session, index).work()
        except BaseException as error:  # e.g. of release_memory: nobody shall wait for ever
            session.break_down(index, error)
        del session


class _Lane:
    """A lane while it has work.

    Args:
        session: Gives batches.
        index: Which lane this is.
    """

    def __init__(self, session: Session, index: int) -> None:
        self._session = session
        self._runner = session.loaded
        self._index = index
        self._launched: deque[tuple[Batch[Task], object]] = deque()  # run, and not taken yet

    def work(self) -> None:
        """Run batches until there is none."""
        fresh = True
        while True:
            batch = self._session.form(self._index, fresh=fresh, pending=bool(self._launched))
            fresh = False
            if batch is not None:
                self._launch(batch)
            elif not self._launched:
                return
            ahead = 1 if batch is not None and self._runner.ahead else 0
            while len(self._launched) > ahead:
                self._take()

    def _launch(self, batch: Batch[Task]) -> None:
        try:
            self._launched.append((batch, self._runner.run(batch.rows, self._index)))
        except BaseException as error:
            verdict = self._judge(batch, error)
        else:
            return
        # Outside the except block: the error's traceback holds the failed batch's tensors.
        while self._launched:
            self._take()
        tasks = list(batch.shares)
        self._recover(batch, again=tasks if verdict == "again" else [], alone=tasks if verdict == "alone" else [])

    def _take(self) -> None:
        """Hand out the oldest output."""
        batch, output = self._launched.popleft()
        troubled: dict[Verdict, list[Task]] = {"again": [], "alone": [], "failed": []}
        for task, positions in batch.shares.items():
            if task.call.done():  # cancelled, or failed elsewhere
                continue
            try:
                task.job.take([batch.rows[place] for place in positions], self._runner.part(output, positions))
            except BaseException as error:
                troubled[self._judge(batch, error, task)].append(task)
            else:
                self._session.taken(task, len(positions))
        del output
        self._recover(batch, again=troubled["again"], alone=troubled["alone"])

    def _judge(self, batch: Batch[Task], error: BaseException, task: Task | None = None) -> Verdict:
        """Whose fault an error is; fails the task that it is the fault of.

        Args:
            batch: What was run.
            error: What it raised.
            task: Whose output was to be taken.

        Returns:
            What to do with the rows.
        """
        if is_out_of_memory(error):
            if len(batch.rows) > 1 or self._launched:
                return "again"
            (task,) = batch.shares
            lacking = ScorerError(
                f"{self._session.name} ran out of memory on a single input of {batch.longest} tokens; "
                "use a smaller max_length, another dtype or another device."
            )
            lacking.__cause__ = error
            self._session.fail(task, lacking)
            return "failed"
        if len(batch.shares) > 1:
            return "alone"
        (task,) = batch.shares
        self._session.fail(task, error)
        return "failed"

    def _recover(self, batch: Batch[Task], *, again: list[Task], alone: list[Task]) -> None:
        if again:
            self._session.lack_memory(batch, again)
            self._runner.release_memory()
        for task in alone:  # one caller's bad row fails that caller only
            self._launch(batch.only(task))
            while self._launched:
                self._take()
