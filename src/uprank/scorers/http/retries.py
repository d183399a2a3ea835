"""One retry layer: which failures are worth another attempt, how long to wait, and when to give up.

:func:`attempts` is a generator that neither sleeps nor sends: it yields what is to be done next, so
that the same lines serve threads and event loops.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TypeAlias, TypeVar

from uprank.errors import ConfigurationError, ServiceError
from uprank.scorers.http.failures import Asked, is_retryable, lost_error, reply_error
from uprank.scorers.http.gate import Gate
from uprank.scorers.http.messages import Call, Lost, Reply
from uprank.scorers.http.replies import Results

__all__ = ["Clock", "Meter", "RetryPolicy", "Send", "Step", "Wait", "attempts", "wait_hint"]

logger = logging.getLogger("uprank")

_FIRST_WAIT = 0.5  # seconds; doubled for each further retry
_MOST_DOUBLINGS = 16
_LONGEST_WAIT = 60.0
_LONGEST_HINT = 600.0  # without a deadline: a service may ask to come back tomorrow
_MOST_TIMEOUTS = 1  # a request that timed out may have been served, and billed: it is repeated once

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often to try.

    Args:
        max_retries: Further attempts after the first.
        timeout: Seconds for one attempt, from sending to the last byte of the reply.
        deadline: Seconds for the whole call, all waiting included; ``None`` sets none.
        rate_limit_wait: The most seconds to wait at first after a 429 that says nothing of it; doubled
            for each further retry. More for services that count by the minute.

    Raises:
        ConfigurationError: If one of them is out of range.
    """

    max_retries: int = 4
    timeout: float = 60.0
    deadline: float | None = 120.0
    rate_limit_wait: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.max_retries, bool) or not isinstance(self.max_retries, int) or self.max_retries < 0:
            raise ConfigurationError(f"max_retries must be an integer of at least 0, got {self.max_retries!r}.")
        for name, value in (("timeout", self.timeout), ("deadline", self.deadline)):
            if name == "deadline" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ConfigurationError(f"{name} must be a positive number of seconds, got {value!r}.")


@dataclass(slots=True)
class Clock:
    """The time one call has left. It starts when the first of its requests is taken up."""

    deadline: float | None
    _ends: float | None = None
    _paused: float | None = None

    def remaining(self) -> float:
        """Seconds left; infinite without a deadline."""
        if self.deadline is None:
            return float("inf")
        if self._ends is None:
            self._ends = time.monotonic() + self.deadline
        return self._ends - time.monotonic()

    def passed(self) -> bool:
        """Whether it has begun, and is over."""
        return self._ends is not None and self.remaining() <= 0

    def pause(self) -> None:
        """One of the call's requests has ended. If it is the last, what follows is not the call's time."""
        self._paused = time.monotonic()

    def resume(self) -> None:
        """Go on: since the last of its requests ended, the call only waited for others of its batch."""
        if self._ends is not None and self._paused is not None:
            self._ends += time.monotonic() - self._paused


@dataclass(slots=True)
class Meter:
    """Counts what one call sends, and what the service says it used for it."""

    requests: int = 0
    retries: int = 0
    tokens: int | None = None
    search_units: float | None = None

    def add(self, results: Results) -> None:
        """Count the use that a reply reports."""
        if results.tokens is not None:
            self.tokens = (self.tokens or 0) + results.tokens
        if results.search_units is not None:
            self.search_units = (self.search_units or 0) + results.search_units


@dataclass(frozen=True, slots=True)
class Send:
    """Step: wait for a place, send the request, and answer with its :class:`Reply` or :class:`Lost`.

    Args:
        call: The request.
        timeout: Seconds from sending to the last byte of the reply; waiting for a place does not count.
        clock: What is left of the call's time counts for both.
    """

    call: Call
    timeout: float
    clock: Clock

    def time(self) -> float:
        """Seconds for the sending itself, now that its place has come."""
        return max(0.001, min(self.timeout, self.clock.remaining()))


@dataclass(frozen=True, slots=True)
class Wait:
    """Step: do nothing for so many seconds."""

    seconds: float


Step: TypeAlias = "Send | Wait"


@dataclass(slots=True)
class _Trouble:
    """What has gone wrong so far."""

    rate_limit_wait: float
    retries: int = 0
    timeouts: int = 0
    jitter: Callable[[float, float], float] = field(default=random.uniform)

    def wait(self, outcome: Reply | Lost, hint: float | None) -> float:
        """Seconds until the next attempt: what the service asks, or full-jitter backoff.

        Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        if hint:  # zero, or a date that has passed, is no wait to go by
            return hint + self.jitter(0.0, 0.1 * hint)  # never earlier; spread over those told the same
        limited = isinstance(outcome, Reply) and outcome.status == 429
        first = self.rate_limit_wait if limited else _FIRST_WAIT
        return self.jitter(0.0, min(_LONGEST_WAIT, first * 2 ** min(self.retries, _MOST_DOUBLINGS)))


def attempts(
    call: Call,
    asked: Asked,
    accept: Callable[[Reply], Result],
    *,
    policy: RetryPolicy,
    clock: Clock,
    meter: Meter,
    gate: Gate,
    recover: Callable[[Reply], Result | None] = lambda reply: None,
) -> Generator[Step, Reply | Lost | None, Result]:
    """Send ``call`` until it succeeds, cannot succeed, or time runs out.

    Args:
        call: The request.
        asked: For the errors.
        accept: Makes the result of a successful reply, or raises.
        policy: How often and how long.
        clock: Shared by all requests of one call.
        meter: Likewise.
        gate: Tells when the next request may be sent, where requests are limited by the minute.
        recover: Makes a result of a reply other than a success, where the caller can go on from it.

    Raises:
        ServiceError: The one that the last outcome stands for.
    """
    trouble = _Trouble(policy.rate_limit_wait)
    while True:
        turn = gate.until_turn()
        if turn >= clock.remaining():
            limit = f"requests_per_minute={gate.per_minute} leaves none within the deadline of {clock.deadline} s"
            raise lost_error(Lost("turn", limit), asked, tried=_tried(trouble))
        if turn > 0:
            yield Wait(turn)
        if clock.remaining() <= 0:
            raise lost_error(Lost("queue", _ran_out(clock)), asked, tried=_tried(trouble))
        outcome = yield Send(call, policy.timeout, clock)
        if outcome is None:  # an answer to Wait where one to Send is due: the driver is wrong
            raise TypeError("a Send must be answered by a Reply or by Lost")
        if isinstance(outcome, Lost) and outcome.why == "turn":
            continue  # others were first
        if isinstance(outcome, Lost) and outcome.why == "queue":
            raise _error(outcome, asked, None, trouble, clock)
        meter.requests += 1
        if isinstance(outcome, Reply) and 200 <= outcome.status < 300 and outcome.status != 202:
            return accept(outcome)
        recovered = recover(outcome) if isinstance(outcome, Reply) else None
        if recovered is not None:
            return recovered
        hint = wait_hint(outcome.headers) if isinstance(outcome, Reply) else None
        error = _error(outcome, asked, hint, trouble, clock)
        if not _worth_retrying(outcome, trouble) or trouble.retries >= policy.max_retries:
            raise error
        pause = trouble.wait(outcome, hint)
        if pause >= clock.remaining() or (clock.deadline is None and pause > _LONGEST_HINT):
            raise error  # better to know now than at the deadline
        discreet = f"{asked.model}: {type(error).__name__}; trying again in {pause:.1f} s"
        logger.info("%s; trying again in %.1f s", error, pause, extra={"discreet": discreet})
        yield Wait(pause)
        trouble.retries += 1
        meter.retries += 1


def wait_hint(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait: ``retry-after-ms``, or ``Retry-After`` in seconds or as a date.

    Args:
        headers: With names in lower case.

    Returns:
        At least 0; ``None`` where it asks nothing that can be understood.
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / scale
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):  # no date, or one with a number out of all bounds
        return None
    if moment.tzinfo is None:  # "-0000" in the header
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def _worth_retrying(outcome: Reply | Lost, trouble: _Trouble) -> bool:
    if isinstance(outcome, Reply):
        return is_retryable(outcome)
    if outcome.why == "timeout":
        trouble.timeouts += 1
        return trouble.timeouts <= _MOST_TIMEOUTS
    return not outcome.permanent


def _error(outcome: Reply | Lost, asked: Asked, hint: float | None, trouble: _Trouble, clock: Clock) -> ServiceError:
    tried = _tried(trouble)
    if isinstance(outcome, Reply):
        return reply_error(outcome, asked, retry_after=hint, tried=tried)
    if outcome.why in ("timeout", "queue") and clock.remaining() <= 0:
        outcome = Lost(outcome.why, _ran_out(clock))
    return lost_error(outcome, asked, tried=tried)


def _tried(trouble: _Trouble) -> str:
    if not trouble.retries:
        return ""
    return f"after {trouble.retries} {'retry' if trouble.retries == 1 else 'retries'}"


def _ran_out(clock: Clock) -> str:
    return f"the deadline of {clock.deadline:g} s has passed"
