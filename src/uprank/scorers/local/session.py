"""One life of a scheduler, from its first call to its closing: the calls, their rows, who runs them.

The scheduler's thread loads the model, asks jobs for rows and gives answers. Lanes (``lanes.py``)
take batches whenever they are free, so that none waits while the next rows are being tokenised. All
state is under one lock. Threads are woken through mailboxes: ``SimpleQueue.put`` may be called from
anywhere, even by a finaliser that interrupts a thread which holds the lock.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from uprank.errors import OverloadedError
from uprank.scorers.local.asking import Askable
from uprank.scorers.local.lanes import AnyRunner, Lanes, Mailbox
from uprank.scorers.local.pool import Batch, Pool
from uprank.scorers.local.tasks import Call, Failed, MakeJob, Task

__all__ = ["Session"]

logger = logging.getLogger("uprank")

_WAITING_TOKENS = 65_536  # so many may wait in the pool, or
_WAITING_BATCHES = 4  # so many full batches a lane, if that is more
_DEVICE_WAIT = 0.002  # seconds that a batch waits for company where a device computes by itself
_PARTS = 32  # work is not split over lanes into less than this part of a full batch


class Session:
    """The threads of one model, what they work on, and the model.

    Args:
        name: Of the model.
        load: Loads it.
        unload: Lets go of what ``load`` has left elsewhere.
        max_wait: Seconds that a batch which is not full waits for other calls; ``None`` is 0.002
            where the runner runs ahead, else 0.
        max_queue: The most calls at once that have no answer yet.
        predecessor: What must end before this begins.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], AnyRunner],
        unload: Callable[[], None],
        *,
        max_wait: float | None,
        max_queue: int,
        predecessor: Session | None,
    ) -> None:
        self.name = name
        self.runner: AnyRunner | None = None
        self._load, self._unload = load, unload
        self._max_wait, self._max_queue = max_wait, max_queue
        self._predecessor = predecessor
        self._lock = threading.Lock()
        self._tasks: dict[Call, Task] = {}
        self._askable = Askable()
        self._finished: deque[Task] = deque()
        self._cancelled: deque[Call] = deque()
        self._short: set[Task] = set()  # those that memory ran out under
        self._pool: Pool[Task] = Pool()
        self._budget = self._full_budget = 1
        self._planned = 0  # batches that what waits shall make
        self._hurry = 0.0  # until when the last of like calls comes first
        self._filled = 0.0  # when the first of the rows came that wait
        self._company = self._met = False  # whether a call is likely to meet others
        self._lanes = Lanes(name, 0, [])
        self._ending = self._unloads = False
        self._error: BaseException | None = None
        self._mailbox: Mailbox = SimpleQueue()
        self._mailboxes = [self._mailbox]
        weakref.finalize(self, _end_threads, self._mailboxes).atexit = False  # at exit work is finished first
        self._thread = threading.Thread(target=_run_session, args=(self._mailbox,), name=f"uprank {name}")
        self._thread.start()

    # --- what callers do, on their own threads

    def submit(self, make: MakeJob, failed: Failed | None, rows: int = 0) -> Call:
        """Take on a call; as for :meth:`uprank.scorers.local.scheduler.Scheduler.submit`.

        Raises:
            OverloadedError: If too many wait.
        """
        call = Call(self._withdraw)
        with self._lock:
            self._sweep()
            if len(self._tasks) >= self._max_queue:
                raise OverloadedError(
                    f"{self.name} has {len(self._tasks)} calls that wait for their scores and takes no more at once "
                    "(max_queue). Call again later, have fewer calls at once, or raise max_queue."
                )
            others = bool(self._tasks)
            self._company, self._met = others or self._met, others
            task = self._tasks[call] = Task(make, call, failed, rows)
            self._askable.add(task)
        self._mailbox.put(self)
        return call

    def end(self, *, unload: bool) -> None:
        """Let the threads end once all calls are answered; no more may be submitted."""
        with self._lock:
            self._ending, self._unloads = True, unload
        self._mailbox.put(self)

    def join(self) -> None:
        """Wait for the end. Raises what unloading raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _withdraw(self, call: Call) -> None:
        self._cancelled.append(call)
        self._mailbox.put(self)

    # --- what the scheduler's thread does

    def serve(self) -> bool:
        """Work until no call is left; tells whether the thread should end."""
        while True:
            try:
                self._serve()
                break
            except BaseException as error:  # e.g. no thread is to be had: nobody shall wait for ever
                self._fail_all(error)
        if self._ending:
            self._finish()
        return self._ending

    def _serve(self) -> None:
        while True:
            timeout = finished = asked = None
            with self._lock:
                self._sweep()
                if not self._tasks:
                    return
                if self._finished:
                    finished = self._finished.popleft()
                else:
                    asked = self._next_to_ask()
                    if asked is None:
                        timeout = self._dispatch()
            if finished is not None:
                self._answer(finished)
            elif asked is None:
                with suppress(Empty):
                    self._mailbox.get(timeout=timeout)
            elif self.runner is not None or self._load_runner():
                self._ask(asked)

    def _load_runner(self) -> bool:
        try:
            runner = self._inherit() or self._load()
        except BaseException as error:
            self._fail_all(error)
            return False
        with self._lock:
            self.runner = runner
            self._budget = self._full_budget = runner.token_budget
            self._pool.padded = runner.padded
            self._lanes = Lanes(self._thread.name, runner.lanes, self._mailboxes)
            if self._max_wait is None:
                self._max_wait = _DEVICE_WAIT if runner.ahead else 0.0
        return True

    def _inherit(self) -> AnyRunner | None:
        """Wait for the predecessor; what it has not unloaded need not be loaded again."""
        predecessor, self._predecessor = self._predecessor, None
        if predecessor is None:
            return None
        predecessor._thread.join()
        return predecessor.runner

    def _ask(self, task: Task) -> None:
        try:
            rows = task.job.rows()
        except BaseException as error:
            self.fail(task, error)
            return
        with self._lock:
            if task.call not in self._tasks:
                return
            self._askable.note_asked(task)
            task.note_given(rows)
            if rows is None:
                self._askable.remove(task)
                if not task.untaken:
                    self._finished.append(task)
            if rows:
                if not self._pool:
                    self._filled = time.monotonic()
                self._pool.add(task, rows)
                self._planned = 0
                self._dispatch()

    def _answer(self, task: Task) -> None:
        if task.call.done():
            return
        try:
            outcomes = task.job.outcomes()
        except BaseException as error:
            self.fail(task, error)
            return
        with self._lock:
            self._forget(task)
        task.call.settle(outcomes)

    def _finish(self) -> None:
        self._lanes.end()
        self.runner = self.runner or self._inherit()
        if self._unloads:
            self.runner = None
            try:
                self._unload()
            except BaseException as error:  # for those who wait in join()
                self._error = error

    # --- what lanes do

    @property
    def loaded(self) -> AnyRunner:
        """The runner; no lane is woken before it is loaded."""
        if self.runner is None:
            raise RuntimeError("no runner is loaded")
        return self.runner

    def form(self, lane: int, *, fresh: bool, pending: bool) -> Batch[Task] | None:
        """The next batch of a lane.

        Args:
            lane: Which.
            fresh: Whether it was woken for this batch.
            pending: Whether it has run one already whose output it can take meanwhile.

        Returns:
            ``None`` if there is nothing to run now; unless something is pending, the lane is then idle.
        """
        with self._lock:
            self._lanes.woken -= fresh
            self._sweep()
            batch = None
            waits = False
            if pending:  # less than half a batch had better wait for company; where memory is short, run one at a time
                ready = 2 * self._pool.tokens >= self._budget and not self._short
            else:
                waits = self._company_awaited(len(self._lanes.idle) + 1) > 0
                ready = not waits
            if self._pool and ready:
                if self._planned < 1:
                    self._plan(len(self._lanes.idle) + self._lanes.woken + 1)
                target = self._budget if self._planned == 1 else -(-self._pool.tokens // self._planned)
                self._planned -= 1
                self._pool.latest_first = time.monotonic() < self._hurry
                batch = self._pool.take(self._budget, target)
                self._dispatch()
            elif not pending:
                self._lanes.idle.append(lane)
            if waits or self._next_to_ask() is not None:
                self._mailbox.put(self)
        return batch

    def taken(self, task: Task, count: int) -> None:
        """Note that a task has got back so many of its rows."""
        with self._lock:
            task.untaken -= count
            if task.untaken or task.call not in self._tasks or not (task.given or task.stalled):
                return
            task.stalled = False
            if task.given:
                self._finished.append(task)
        self._mailbox.put(self)

    def fail(self, task: Task, error: BaseException) -> None:
        """Answer a task with an error."""
        with self._lock:
            self._forget(task)
        task.fail(error)
        self._mailbox.put(self)

    def lack_memory(self, batch: Batch[Task], tasks: list[Task]) -> None:
        """Go on with smaller batches until the calls of now are answered, and let these tasks' rows wait again."""
        with self._lock:
            alive = [task for task in tasks if task.call in self._tasks]
            if not alive:
                return
            self._short.update(self._tasks.values())
            self._budget = budget = min(self._budget, max(batch.longest, batch.size // 2))
            for task in alive:
                self._pool.put_back(batch, task)
            self._planned = 0
        logger.warning("%s ran out of memory; going on with batches of %d tokens", self.name, budget)

    def break_down(self, lane: int, error: BaseException) -> None:
        """Fail all calls over an error that belongs to none; the lane is idle again."""
        with self._lock:  # first: whoever is woken below must find it idle, for nobody is woken again
            self._lanes.idle.append(lane)
        self._fail_all(error)

    # --- what is done with the lock held

    def _sweep(self) -> None:
        """Forget the calls that were cancelled."""
        while self._cancelled:
            call = self._cancelled.popleft()
            task = self._tasks.get(call)
            if task is not None:
                if task.begun and len(self._tasks) > 1:
                    # What was run of it was for nothing. As long as callers leave before they have their turn,
                    # those who came last have the most time left; for about as long as this one waited.
                    self._hurry = 2 * time.monotonic() - task.since
                self._forget(task)
                call.set_running_or_notify_cancel()  # tells those who wait for several futures

    def _forget(self, task: Task) -> None:
        if self._tasks.pop(task.call, None) is None:
            return
        if not task.given:
            self._askable.remove(task)
        self._pool.drop(task)
        self._planned = 0
        if task in self._short:
            self._short.remove(task)
            if not self._short:
                self._budget = self._full_budget

    def _next_to_ask(self) -> Task | None:
        """Whose rows to tokenise next."""
        mark = max(_WAITING_TOKENS, _WAITING_BATCHES * self._full_budget * len(self._lanes))
        return self._askable.next(self._pool, self._budget, mark)

    def _dispatch(self) -> float | None:
        """Wake as many idle lanes as there is work for; tells the seconds to wait before, if any."""
        lanes = self._lanes
        if not self._pool or not lanes.idle:
            return None
        awaited = self._company_awaited(len(lanes.idle))
        if awaited > 0:
            return awaited
        if self._planned < 1:
            self._plan(len(lanes.idle) + lanes.woken)
        for _ in range(min(len(lanes.idle), self._planned - lanes.woken)):
            lanes.wake(self)
        return None

    def _plan(self, free: int) -> None:
        """Split what waits evenly: no lane should stand idle while another runs a last, full batch."""
        tokens, lanes = self._pool.tokens, len(self._lanes)
        batches = -(-tokens // self._budget)
        if batches < lanes:
            batches = max(batches, min(free, tokens * _PARTS // self._budget))
        else:
            batches = -(-batches // lanes) * lanes
        self._planned = max(1, batches)

    def _company_awaited(self, idle: int) -> float:
        """Seconds that the next batch should still wait for other calls to join."""
        if not (self._max_wait and self._company and self._pool) or idle < len(self._lanes):
            return 0.0
        if self._pool.tokens >= self._budget:
            return 0.0
        return self._filled + self._max_wait - time.monotonic()

    def _fail_all(self, error: BaseException) -> None:
        """Takes the lock itself."""
        for task in list(self._tasks.values()):
            self.fail(task, error)


def _run_session(mailbox: Mailbox) -> None:
    """The scheduler's thread. It holds nothing between calls, so that a session nobody refers to is collected."""
    while (session := mailbox.get()) is not None:
        if session.serve():
            return
        del session


def _end_threads(mailboxes: list[Mailbox]) -> None:
    for mailbox in mailboxes:
        mailbox.put(None)
