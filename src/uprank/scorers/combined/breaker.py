"""Circuit breakers: a model that keeps failing is left alone for a while, then tried by one call.

A circuit is *closed* while its model is asked as usual. After some failures in a row it *opens*, and
the model is not asked. When its cooldown is over it is *half-open*: one call tries the model, and closes
the circuit or opens it again. See M. Nygard, Release It!, 2nd ed., 2018, chapter 5. Nothing here waits.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias
from weakref import WeakSet

from uprank.errors import ConfigurationError

__all__ = ["Admission", "Breaker", "Circuit", "CircuitState"]

logger = logging.getLogger("uprank")

State: TypeAlias = Literal["closed", "open", "half-open"]

_LONGEST = 4  # cooldowns


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a failing model is left alone, and for how long.

    Args:
        failures: After so many failures in a row the model is not asked for a while.
        cooldown: Seconds until one call may try it again. Doubled each time that such a try fails.
        max_cooldown: Seconds that it is left alone at most; by default four times ``cooldown``.

    Raises:
        ConfigurationError: If one of them is out of range.
    """

    failures: int = 5
    cooldown: float = 30.0
    max_cooldown: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.failures, bool) or not isinstance(self.failures, int) or self.failures < 1:
            raise ConfigurationError(f"failures must be an integer of at least 1, got {self.failures!r}.")
        for name, value in (("cooldown", self.cooldown), ("max_cooldown", self.max_cooldown)):
            if name == "max_cooldown" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ConfigurationError(f"{name} must be a positive number of seconds, got {value!r}.")
        if self.longest < self.cooldown:
            raise ConfigurationError(f"max_cooldown={self.max_cooldown!r} is less than cooldown={self.cooldown!r}.")

    @property
    def longest(self) -> float:
        """The longest cooldown, in seconds."""
        return _LONGEST * self.cooldown if self.max_cooldown is None else self.max_cooldown


@dataclass(frozen=True, slots=True)
class CircuitState:
    """What is known of one model at a moment, e.g. for a health page.

    Args:
        model: Its name.
        state: ``"closed"``: asked as usual; ``"open"``: not asked; ``"half-open"``: one call tries it, or the next
            one will.
        failures: How often it has failed in a row.
        error: The last of these failures, in words; ``None`` where there is none.
        retry_in: Seconds until a call may try it again; 0 where the next one may.
    """

    model: str
    state: State
    failures: int
    error: str | None
    retry_in: float


class Circuit:
    """The circuit of one model. May be used by any threads and tasks at once; a forked child has it too.

    Args:
        model: Named in states and logs.
        breaker: When it opens, and for how long; ``None`` for never.
        clock: Gives the time in seconds; must not go back.
    """

    def __init__(self, model: str, breaker: Breaker | None, clock: Callable[[], float]) -> None:
        self._model = model
        self._breaker = breaker
        self._clock = clock
        self._failures = 0
        self._error: str | None = None
        self._cooldown = 0.0  # of the last opening; 0 where it was closed since
        self._until: float | None = None  # when it may be tried again; None where closed
        self._probe: Admission | None = None
        self._probe_ends = 0.0
        self._era = 0  # changes with every opening, closing and probe: what began in an earlier one is not counted
        self._lock = threading.RLock()  # a plan that is collected in here leaves the circuit
        _circuits.add(self)

    @property
    def state(self) -> CircuitState:
        """What is known at this moment."""
        with self._lock:
            now = self._clock()
            name: State = "closed" if self._until is None else "open" if now < self._until else "half-open"
            wait = 0.0 if self._until is None else max(0.0, self._until - now)
            if name == "half-open" and self._tried(now):
                wait = max(0.0, self._probe_ends - now)
            return CircuitState(self._model, name, self._failures, self._error, wait)

    def enter(self, *, always: bool = False) -> Admission | None:
        """Ask whether the model may be asked.

        Args:
            always: It will be asked in any case; of an answer that comes nevertheless is learned.

        Returns:
            A context manager around the call, to be told what came of it; ``None`` if it may not.
        """
        with self._lock:
            if self._until is None:
                return Admission(self, self._era)
            now = self._clock()
            if now >= self._until and not self._tried(now):
                self._era += 1
                self._probe = Admission(self, self._era)
                # A call that hangs, or was ended so that nobody was told, does not keep others from trying for ever.
                self._probe_ends = now + self._longest()
                return self._probe
            return Admission(self, self._era) if always else None

    def _tried(self, now: float) -> bool:
        """Whether somebody is trying the model just now."""
        return self._probe is not None and now < self._probe_ends

    def _longest(self) -> float:
        return 0.0 if self._breaker is None else self._breaker.longest

    def _succeeded(self, admission: Admission) -> None:
        with self._lock:
            if admission.era != self._era:
                return
            reopened = self._until is not None
            self._failures, self._error = 0, None
            if reopened:
                self._until, self._probe, self._cooldown = None, None, 0.0
                self._era += 1
        if reopened:
            logger.info("%s answers again", self._model)

    def _failed(self, admission: Admission, error: str, count: int, wait: float) -> None:
        with self._lock:
            probe = admission is self._probe
            if admission.era != self._era or not (probe or self._until is None):
                return  # asked although open, which is no news; or the circuit has changed since
            self._failures += count
            self._error = error
            breaker = self._breaker
            if breaker is None or (self._failures < breaker.failures and not probe):
                return
            doubled = max(breaker.cooldown, 2 * self._cooldown)
            self._cooldown = min(doubled, breaker.longest)
            seconds = min(max(self._cooldown, wait), breaker.longest)
            self._until, self._probe = self._clock() + seconds, None
            self._era += 1
            failures = self._failures
        told = f"{self._model} is not asked for {seconds:.3g} s, after {failures} failures in a row"
        logger.warning("%s: %s", told, error, extra={"discreet": told})

    def _left(self, admission: Admission) -> None:
        with self._lock:
            if admission is self._probe:
                self._probe = None  # nothing was learned: the next call may try

    def _after_fork(self) -> None:
        self._lock = threading.RLock()  # another thread may have held it
        self._probe = None  # the thread that was trying is not here


class Admission:
    """One call's leave to ask a model. Leaving the ``with`` block without a word counts neither way."""

    __slots__ = ("_circuit", "era")

    def __init__(self, circuit: Circuit, era: int) -> None:
        self._circuit = circuit
        self.era = era

    def succeeded(self) -> None:
        """The model answered."""
        self._circuit._succeeded(self)

    def failed(self, error: str, *, count: int = 1, wait: float = 0.0) -> None:
        """The model failed.

        Args:
            error: Why, in words.
            count: How many times, where several requests were asked together.
            wait: Seconds that it asks to be left alone.
        """
        self._circuit._failed(self, error, count, wait)

    def __enter__(self) -> Admission:
        return self

    def __exit__(self, *_: object) -> None:
        self._circuit._left(self)


_circuits: WeakSet[Circuit] = WeakSet()


def _after_fork() -> None:
    for circuit in list(_circuits):
        circuit._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
