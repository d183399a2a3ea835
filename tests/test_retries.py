"""The retry layer, driven by hand: it neither sleeps nor sends, so a table says what it asks for next."""

from __future__ import annotations

import random
import time
from collections.abc import Generator

import pytest

from uprank import Reranker
from uprank.errors import (
    AuthenticationError,
    BillingError,
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    RateLimitError,
    RequestRefusedError,
    RequestTooLargeError,
    ServerError,
    ServiceError,
)
from uprank.scorers.http.failures import Asked
from uprank.scorers.http.gate import Gate
from uprank.scorers.http.messages import Call, Lost, Reply
from uprank.scorers.http.retries import Clock, Meter, RetryPolicy, Send, Step, Wait, attempts

CALL = Call("http://127.0.0.1/v1/rerank", {"query": "q", "documents": ["d"]})
ASKED = Asked("jina", "jina:m", CALL, 1, "Pass a key.")
OK = Reply(200, {}, {"results": []})
CONNECT, BROKEN, TIMEOUT = Lost("connect", "refused"), Lost("broken", "reset"), Lost("timeout", "too slow")
UNTRUSTED = Lost("connect", "certificate verify failed", permanent=True)
NO_PLACE = Lost("queue", "all places were taken")


def failed(status: int, **headers: str) -> Reply:
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, {"detail": "no"})


class Driven:
    """Answers a plan's steps with given outcomes, and keeps what it asked for.

    Attributes:
        steps: ``"send"``, or the seconds of a wait.
        result: What it returned; ``None`` if it raised.
        error: What it raised, if it did.
    """

    def __init__(self, *outcomes: Reply | Lost, policy: RetryPolicy | None = None, gate: Gate | None = None) -> None:
        self.policy, self.meter = policy or RetryPolicy(), Meter()
        self.clock = Clock(self.policy.deadline)
        self.sends: list[Send] = []
        self.steps: list[str | float] = []
        self.result: Reply | None = None
        self.error: ServiceError | None = None
        plan: Generator[Step, Reply | Lost | None, Reply] = attempts(
            CALL,
            ASKED,
            lambda reply: reply,
            policy=self.policy,
            clock=self.clock,
            meter=self.meter,
            gate=gate or Gate(1),
        )
        left = list(outcomes)
        try:
            step = next(plan)
            while True:
                if isinstance(step, Wait):
                    self.steps.append(step.seconds)
                    step = plan.send(None)
                else:
                    self.sends.append(step)
                    self.steps.append("send")
                    step = plan.send(left.pop(0))
        except StopIteration as stop:
            self.result = stop.value
        except ServiceError as error:
            self.error = error
        assert not left, "it gave up earlier than expected"

    @property
    def waits(self) -> list[float]:
        return [step for step in self.steps if isinstance(step, float)]


# Which outcomes are tried again.

SHORT = RetryPolicy(max_retries=2)
PERMANENT: dict[int, type[ServiceError]] = {
    400: RequestRefusedError,
    401: AuthenticationError,
    402: BillingError,
    403: AuthenticationError,
    404: RequestRefusedError,
    405: RequestRefusedError,
    413: RequestTooLargeError,
    422: RequestRefusedError,
    424: ServiceError,
    498: AuthenticationError,
    499: ServiceError,
    501: ServerError,
}
PASSING: dict[int, type[ServiceError]] = {
    202: ServiceError,
    408: ServiceError,
    409: ServiceError,
    425: ServiceError,
    429: RateLimitError,
    500: ServerError,
    502: ServerError,
    503: ServerError,
    504: ServiceError,
    524: ServiceError,
}


def test_a_success_is_returned_at_once() -> None:
    driven = Driven(OK)
    assert (driven.result, driven.steps) == (OK, ["send"])
    assert (driven.meter.requests, driven.meter.retries) == (1, 0)
    assert driven.sends[0].call is CALL


@pytest.mark.parametrize("status", PERMANENT)
def test_permanent_statuses_are_never_sent_again(status: int) -> None:
    driven = Driven(failed(status, retry_after="0"))
    assert driven.steps == ["send"]
    assert isinstance(driven.error, PERMANENT[status])
    assert driven.error.status == status


@pytest.mark.parametrize("status", PASSING)
def test_passing_statuses_are_tried_again_until_they_pass_or_too_often(status: int) -> None:
    driven = Driven(failed(status), failed(status), OK, policy=SHORT)
    assert driven.result is OK
    assert [type(step) for step in driven.steps] == [str, float, str, float, str]
    assert (driven.meter.requests, driven.meter.retries) == (3, 2)
    hopeless = Driven(failed(status), failed(status), failed(status), policy=SHORT)
    assert isinstance(hopeless.error, PASSING[status])
    assert "after 2 retries" in str(hopeless.error)
    assert hopeless.steps[-1] == "send"  # no wait before giving up


@pytest.mark.parametrize("lost", [CONNECT, BROKEN], ids=lambda lost: lost.why)
def test_lost_connections_are_tried_again(lost: Lost) -> None:
    assert Driven(lost, lost, OK, policy=SHORT).result is OK
    assert isinstance(Driven(lost, lost, lost, policy=SHORT).error, ConnectionFailedError)


def test_a_timeout_is_tried_once_more_however_many_retries_are_allowed() -> None:
    assert Driven(TIMEOUT, OK).result is OK
    driven = Driven(TIMEOUT, TIMEOUT, policy=RetryPolicy(max_retries=9))
    assert isinstance(driven.error, DeadlineExceededError)
    assert "after 1 retry:" in str(driven.error)
    # Also where something else happened between them.
    assert isinstance(Driven(TIMEOUT, BROKEN, TIMEOUT, policy=RetryPolicy(max_retries=9)).error, DeadlineExceededError)


@pytest.mark.parametrize(
    ("lost", "error"), [(UNTRUSTED, ConnectionFailedError), (NO_PLACE, DeadlineExceededError)], ids=["tls", "queue"]
)
def test_what_cannot_change_is_not_tried_again(lost: Lost, error: type[ServiceError]) -> None:
    driven = Driven(lost)
    assert driven.steps == ["send"]
    assert isinstance(driven.error, error)


def test_a_request_that_found_no_place_is_not_counted() -> None:
    assert Driven(NO_PLACE).meter.requests == 0


def test_an_input_too_long_is_not_sent_again_though_the_status_is_500() -> None:
    reply = Reply(500, {}, {"error": {"code": 500, "message": "input is too large to process"}})
    driven = Driven(reply)
    assert isinstance(driven.error, RequestTooLargeError)


def test_without_retries_the_first_failure_is_the_last() -> None:
    driven = Driven(failed(503), policy=RetryPolicy(max_retries=0))
    assert driven.steps == ["send"]
    assert "retr" not in str(driven.error)


def test_what_accept_raises_is_raised_and_the_request_not_paid_twice() -> None:
    def refuse(reply: Reply) -> None:
        raise ValueError("cannot be used")

    meter = Meter()
    plan = attempts(CALL, ASKED, refuse, policy=RetryPolicy(), clock=Clock(9.0), meter=meter, gate=Gate(1))
    next(plan)
    with pytest.raises(ValueError, match="cannot be used"):
        plan.send(OK)
    assert meter.requests == 1


# How long it waits.


def test_backoff_is_full_jitter_of_a_doubling_bound() -> None:
    random.seed(7)
    policy = RetryPolicy(max_retries=8, deadline=None)
    runs = [Driven(*[failed(503)] * 9, policy=policy).waits for _ in range(300)]
    for number, waits in enumerate(zip(*runs, strict=True)):
        bound = min(60.0, 0.5 * 2**number)
        assert 0 <= min(waits) < 0.05 * bound  # full: from zero
        assert 0.95 * bound < max(waits) <= bound
        assert 0.4 * bound < sum(waits) / len(waits) < 0.6 * bound


def test_backoff_after_429_without_a_hint_begins_longer_where_the_service_counts_by_the_minute() -> None:
    """Services that limit by the minute often send no hint: half a second would be lost on them."""
    random.seed(7)
    policy = RetryPolicy(deadline=None, rate_limit_wait=5.0)
    first = [Driven(failed(429), OK, policy=policy).waits[0] for _ in range(300)]
    assert 4.8 < max(first) <= 5.0
    assert max(Driven(failed(429), OK).waits[0] for _ in range(300)) <= 0.5  # a server that is busy for the moment
    hosted, own = (Reranker(name, api_key="key-1234").scorer._target.policy for name in ("voyage:m", "tei:m"))
    assert (hosted.rate_limit_wait, own.rate_limit_wait) == (5.0, 0.5)


def test_backoff_outlasts_a_minute_within_the_usual_deadline() -> None:
    """Voyage's free tier allows three requests a minute and sends no hint."""
    random.seed(7)
    policy = RetryPolicy(rate_limit_wait=5.0)
    long = 0
    for _ in range(200):
        waits = Driven(*[failed(429)] * 4, OK, policy=policy).waits
        assert sum(waits) < 120
        long += sum(waits) >= 20
    assert long > 150


@pytest.mark.parametrize("status", [429, 503, 500])
def test_a_hint_is_waited_out_with_a_little_spread(status: int) -> None:
    random.seed(7)
    waits = [Driven(failed(status, retry_after="3"), OK).waits[0] for _ in range(200)]
    assert 3.0 <= min(waits) < 3.05
    assert 3.25 < max(waits) <= 3.3


@pytest.mark.parametrize("hint", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_hint_of_zero_is_no_reason_to_hammer(hint: str) -> None:
    waits = [Driven(failed(429, retry_after=hint), OK).waits[0] for _ in range(100)]
    assert max(waits) > 0.1


# The deadline.


def test_a_hint_beyond_the_deadline_is_raised_at_once_with_the_wait() -> None:
    driven = Driven(failed(429, retry_after="90"), policy=RetryPolicy(deadline=30.0))
    assert driven.steps == ["send"]
    assert isinstance(driven.error, RateLimitError)
    assert driven.error.retry_after == 90.0
    assert "90 s" in str(driven.error)


def test_without_a_deadline_a_hint_of_hours_is_raised_rather_than_waited_out() -> None:
    policy = RetryPolicy(deadline=None)
    driven = Driven(failed(429, retry_after="86400"), policy=policy)
    assert driven.steps == ["send"]
    assert isinstance(driven.error, RateLimitError)
    assert driven.error.retry_after == 86_400.0
    assert len(Driven(failed(429, retry_after="300"), OK, policy=policy).waits) == 1


def test_a_backoff_that_would_outlast_the_deadline_is_not_begun() -> None:
    driven = Driven(failed(500, retry_after="3"), policy=RetryPolicy(max_retries=9, deadline=1.0))
    assert driven.steps == ["send"]
    assert isinstance(driven.error, ServerError)


def test_the_deadline_counts_everything_from_the_first_send() -> None:
    clock = Clock(0.2)
    time.sleep(0.05)
    assert clock.remaining() > 0.19  # not begun until it is first looked at
    time.sleep(0.05)
    assert clock.remaining() < 0.16


def test_an_attempt_gets_no_more_time_than_the_deadline_leaves() -> None:
    send = Driven(OK, policy=RetryPolicy(timeout=60.0, deadline=2.0)).sends[0]
    assert 1.9 < send.time() <= 2.0
    send = Driven(OK, policy=RetryPolicy(timeout=0.5, deadline=2.0)).sends[0]
    assert send.time() == 0.5
    send = Driven(OK, policy=RetryPolicy(timeout=0.5, deadline=None)).sends[0]
    assert send.time() == 0.5


def test_an_attempt_after_the_deadline_fails_soon_rather_than_never() -> None:
    driven = Driven(OK, policy=RetryPolicy(deadline=0.01))
    time.sleep(0.02)
    assert 0 < driven.sends[0].time() <= 0.01  # zero would mean "no limit" to some clients


def test_the_message_tells_the_deadline_apart_from_the_timeout() -> None:
    clock = Clock(0.01)
    plan = attempts(CALL, ASKED, lambda reply: reply, policy=RetryPolicy(), clock=clock, meter=Meter(), gate=Gate(1))
    next(plan)
    time.sleep(0.02)
    with pytest.raises(DeadlineExceededError, match=r"the deadline of 0\.01 s has passed"):
        plan.send(TIMEOUT)
    assert "too slow" in str(Driven(TIMEOUT, TIMEOUT).error)


# Requests a minute.


def test_the_turn_of_the_minute_is_waited_for_before_each_attempt() -> None:
    gate = Gate(1, per_minute=1)
    with gate.entered(1.0):
        pass
    # Nothing is slept or sent here: the first turn is taken by another, so that it is waited for again.
    driven = Driven(Lost("turn", "others were first"), OK, gate=gate)
    first, second = driven.waits
    assert driven.steps == [first, "send", second, "send"]
    assert 59 < second <= first <= 60
    assert driven.meter.requests == 1


def test_a_turn_beyond_the_deadline_is_an_error_that_says_so() -> None:
    gate = Gate(1, per_minute=1)
    with gate.entered(1.0):
        pass
    driven = Driven(gate=gate, policy=RetryPolicy(deadline=5.0))
    assert driven.steps == []
    assert isinstance(driven.error, DeadlineExceededError)
    assert "requests_per_minute=1 leaves none" in str(driven.error)
    assert "Raise deadline or requests_per_minute." in str(driven.error)
    assert driven.meter.requests == 0


def test_nothing_is_sent_after_the_deadline() -> None:
    driven = Driven(policy=RetryPolicy(deadline=1e-9))
    assert driven.steps == []
    assert isinstance(driven.error, DeadlineExceededError)


def test_the_time_between_the_rounds_of_a_batch_is_not_the_calls() -> None:
    clock = Clock(1.0)
    clock.remaining()
    clock.pause()
    time.sleep(0.2)
    clock.resume()
    assert clock.remaining() > 0.9


# What can be set.


@pytest.mark.parametrize("value", [-1, 1.5, True, "3", None])
def test_max_retries_is_a_number_of_times(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^max_retries must be an integer of at least 0, got"):
        RetryPolicy(max_retries=value)  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "3"])
@pytest.mark.parametrize("name", ["timeout", "deadline"])
def test_time_limits_are_positive_and_finite(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} must be a positive number of seconds, got"):
        RetryPolicy(**{name: value})  # type: ignore[arg-type]  # the point


def test_no_deadline_is_allowed_but_no_timeout_is_not() -> None:
    assert RetryPolicy(deadline=None).deadline is None
    assert Clock(None).remaining() == float("inf")
    with pytest.raises(ConfigurationError, match=r"^timeout"):
        RetryPolicy(timeout=None)  # type: ignore[arg-type]  # the point


def test_an_answer_to_the_wrong_step_is_a_mistake_of_the_driver() -> None:
    plan = attempts(
        CALL, ASKED, lambda reply: reply, policy=RetryPolicy(), clock=Clock(9.0), meter=Meter(), gate=Gate(1)
    )
    next(plan)
    with pytest.raises(TypeError):
        plan.send(None)
