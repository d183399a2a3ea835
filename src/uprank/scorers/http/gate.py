"""How many requests a host gets at once, and how many a minute.

The number at once falls by half when the host answers 429, creeps back with each success, and is
what it was after a minute without one (additive increase, multiplicative decrease, as TCP does: RFC
5681). One gate serves threads and event loops alike: who must wait holds a
``concurrent.futures.Future``.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from uprank.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Gate", "NoPlace", "NoTurn", "Ticket", "shared_gate"]

_MINUTE = 60.0


class NoPlace(Exception):  # noqa: N818 - an answer rather than an error
    """No place came free in the time there was."""


class NoTurn(Exception):  # noqa: N818 - likewise
    """The place came, but the minute's limit is reached: see :meth:`Gate.until_turn`."""


class Ticket:
    """One request on its way. ``throttled`` is set by who sees its reply."""

    __slots__ = ("number", "ok", "throttled")

    def __init__(self, number: int) -> None:
        self.number = number
        self.ok = False
        self.throttled = False


class _Place(Future[Ticket]):
    """What one who waits will get; ``loop`` is where a task waits for it."""

    def __init__(self, loop: AbstractEventLoop | None) -> None:
        super().__init__()
        self.loop = loop

    @property
    def forsaken(self) -> bool:
        """Whether its loop was closed, and the task left as it was: it would never leave."""
        return self.loop is not None and self.loop.is_closed()


class Gate:
    """Lets requests through to one host.

    Args:
        most: At most so many at once.
        per_minute: At most so many begin within any 60 seconds; ``None`` sets no limit.

    Raises:
        ConfigurationError: If one of them is no positive integer.
    """

    def __init__(self, most: int, per_minute: int | None = None) -> None:
        for name, value in (("max_concurrency", most), ("requests_per_minute", per_minute)):
            if name == "requests_per_minute" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} must be an integer of at least 1, got {value!r}.")
        self.most = most
        self.per_minute = per_minute
        self._limit = float(most)
        self._cut_time = 0.0
        self._begun: deque[float] = deque(maxlen=per_minute)
        self.empty()

    def empty(self) -> None:
        """Forget who is inside or waits, e.g. after a fork: those threads are not there."""
        self._inside = 0
        self._entered = 0
        self._cut_at = 0
        self._waiting: deque[_Place] = deque()
        self._lock = threading.RLock()  # a task that is collected in here leaves the gate

    @property
    def limit(self) -> int:
        """How many may be inside at once, at present."""
        return int(self._limit)

    def until_turn(self) -> float:
        """Seconds until another request may begin within the minute's limit; 0 if it may now.

        Nothing is reserved: who comes to be sent first takes the turn.
        """
        with self._lock:
            return self._until_turn()

    def _until_turn(self) -> float:
        if self.per_minute is None or len(self._begun) < self.per_minute:
            return 0.0
        return max(0.0, self._begun[0] + _MINUTE - time.monotonic())

    def lower(self, most: int) -> None:
        """Let no more than ``most`` through at once from now on, e.g. because the host says so."""
        with self._lock:
            self.most = max(1, min(self.most, most))
            self._limit = min(self._limit, float(self.most))

    @contextmanager
    def entered(self, timeout: float) -> Iterator[Ticket]:
        """Wait for a place and hold it.

        Raises:
            NoPlace: If none is free within ``timeout`` seconds.
            NoTurn: If one was, but not in the minute's limit.
        """
        place = self._ask()
        try:
            ticket = place.result(min(timeout, threading.TIMEOUT_MAX))
        except BaseException as error:
            self._give_up(place)
            if isinstance(error, FutureTimeoutError):  # a class of its own before Python 3.11
                raise NoPlace from None
            raise
        try:
            yield ticket
        finally:
            self._leave(ticket)

    @asynccontextmanager
    async def aentered(self, timeout: float) -> AsyncIterator[Ticket]:
        """As :meth:`entered`, without blocking the event loop."""
        import asyncio

        place = self._ask(asyncio.get_running_loop())
        if not place.done():
            try:  # not asyncio.wait_for: before Python 3.12 it swallows a cancellation as the place comes
                await asyncio.wait([asyncio.wrap_future(place)], timeout=None if timeout == float("inf") else timeout)
                if not place.done():
                    raise NoPlace
            except BaseException:
                self._give_up(place)
                raise
        ticket = place.result()
        try:
            yield ticket
        finally:
            self._leave(ticket)

    def _ask(self, loop: AbstractEventLoop | None = None) -> _Place:
        place = _Place(loop)
        with self._lock:
            self._waiting.append(place)
            self._admit()
        return place

    def _give_up(self, place: _Place) -> None:
        if not place.cancel() and place.exception() is None:  # it came in the meantime: it is for the next
            self._leave(place.result())

    def _leave(self, ticket: Ticket) -> None:
        with self._lock:
            self._inside -= 1
            if ticket.throttled and ticket.number > self._cut_at:  # those sent before the last cut say nothing new
                self._limit = max(1.0, self._limit / 2)
                self._cut_at, self._cut_time = self._entered, time.monotonic()
            elif ticket.ok:
                self._limit = min(float(self.most), self._limit + 1 / self._limit)
            self._admit()

    def _admit(self) -> None:
        if self._limit < self.most and time.monotonic() - self._cut_time > _MINUTE:
            self._limit = float(self.most)  # what a host said a minute ago says nothing of now
        while self._waiting and self._inside < int(self._limit):
            place = self._waiting.popleft()
            if place.forsaken or not place.set_running_or_notify_cancel():
                continue
            if self._until_turn():
                place.set_exception(NoTurn())
                continue
            self._begun.append(time.monotonic())
            self._entered += 1
            self._inside += 1
            place.set_result(Ticket(self._entered))


_gates: dict[tuple[object, ...], Gate] = {}
_MOST_GATES = 1000  # kept although nobody uses them: what they know of the last minute still counts
_lock = threading.Lock()


def shared_gate(host: str, most: int, per_minute: int | None, key: str) -> Gate:
    """The gate of everything that asks this host under the same key and limits.

    Args:
        host: Scheme, name and port.
        most: As for :class:`Gate`.
        per_minute: Likewise.
        key: What the host counts requests by. Only its hash is kept.
    """
    name = (host, most, per_minute, hash(key))
    with _lock:
        gate = _gates.pop(name, None) or Gate(most, per_minute)
        _gates[name] = gate  # the one used last comes last
        if len(_gates) > _MOST_GATES:
            del _gates[next(iter(_gates))]
        return gate


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it
    for gate in _gates.values():
        gate.empty()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
