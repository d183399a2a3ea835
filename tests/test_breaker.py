"""Circuit breakers: when a model is left alone, who may try it, and what is learned from it."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback_parts import Clock
from http_loopback import forked
from uprank import ConfigurationError
from uprank.scorers.combined.breaker import Breaker, Circuit, CircuitState


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit("a-model", Breaker(failures=3, cooldown=30.0), clock)


def fail(circuit: Circuit, times: int = 1, **more: float) -> None:
    for _ in range(times):
        admission = circuit.enter()
        assert admission is not None
        with admission:
            admission.failed("ServerError: down", **more)


def succeed(circuit: Circuit) -> None:
    admission = circuit.enter()
    assert admission is not None
    with admission:
        admission.succeeded()


def test_it_opens_after_so_many_failures_in_a_row_and_tells_why(circuit):
    assert circuit.state == CircuitState("a-model", "closed", 0, None, 0.0)
    fail(circuit, 2)
    assert circuit.state == CircuitState("a-model", "closed", 2, "ServerError: down", 0.0)
    fail(circuit)
    assert circuit.state == CircuitState("a-model", "open", 3, "ServerError: down", 30.0)
    assert circuit.enter() is None


def test_a_success_between_failures_begins_the_count_anew(circuit):
    for _ in range(4):
        fail(circuit, 2)
        succeed(circuit)
        assert circuit.state == CircuitState("a-model", "closed", 0, None, 0.0)


def test_it_stays_open_to_the_end_of_the_cooldown_and_then_lets_one_try(circuit, clock):
    fail(circuit, 3)
    clock.now += 29.999
    assert circuit.enter() is None
    assert circuit.state.state == "open"
    clock.now += 0.001
    assert circuit.state == CircuitState("a-model", "half-open", 3, "ServerError: down", 0.0)
    probe = circuit.enter()
    assert probe is not None
    assert circuit.state.state == "half-open"
    assert [circuit.enter() for _ in range(3)] == [None] * 3
    with probe:
        probe.succeeded()
    assert circuit.state == CircuitState("a-model", "closed", 0, None, 0.0)
    fail(circuit, 2)  # the count begins anew too
    assert circuit.state.state == "closed"


def test_each_failed_try_doubles_the_cooldown_up_to_the_longest_and_a_success_resets_it(circuit, clock):
    fail(circuit, 3)
    waits = []
    for _ in range(4):
        waits.append(circuit.state.retry_in)
        clock.now += circuit.state.retry_in
        fail(circuit)
    assert waits == [30.0, 60.0, 120.0, 120.0]
    assert circuit.state.failures == 7
    clock.now += 120.0
    succeed(circuit)
    fail(circuit, 3)
    assert circuit.state.retry_in == 30.0


def test_the_longest_cooldown_may_be_given(clock):
    circuit = Circuit("a-model", Breaker(failures=1, cooldown=10.0, max_cooldown=10.0), clock)
    for _ in range(3):
        fail(circuit)
        assert circuit.state.retry_in == 10.0
        clock.now += 10.0


@pytest.mark.parametrize(("asked", "waited"), [(5.0, 30.0), (45.0, 45.0), (3_600.0, 120.0)])
def test_a_wait_that_the_service_asks_for_is_kept_within_bounds(circuit, asked, waited):
    fail(circuit, 3, wait=asked)
    assert circuit.state.retry_in == waited


def test_several_failures_at_once_count_as_so_many(circuit):
    fail(circuit, count=3)
    assert circuit.state.state == "open"


def test_a_call_that_tells_nothing_counts_neither_way(circuit, clock):
    fail(circuit, 2)
    with circuit.enter():
        pass
    assert circuit.state.failures == 2
    fail(circuit)
    clock.now += 30.0
    with pytest.raises(KeyboardInterrupt), circuit.enter():
        raise KeyboardInterrupt  # the place is free again, and the circuit no more closed than before
    assert circuit.state == CircuitState("a-model", "half-open", 3, "ServerError: down", 0.0)
    succeed(circuit)
    assert circuit.state.state == "closed"


def test_what_began_before_a_change_is_not_counted(circuit, clock):
    early, late = circuit.enter(), circuit.enter()
    fail(circuit, 3)
    early.succeeded()  # sent when the service was still up
    assert circuit.state.state == "open"
    late.failed("ServerError: late")
    assert circuit.state == CircuitState("a-model", "open", 3, "ServerError: down", 30.0)
    clock.now += 30.0
    succeed(circuit)
    late.failed("ServerError: late", count=9)
    assert circuit.state.state == "closed"
    assert circuit.state.failures == 0


def test_leaving_late_does_not_free_the_place_of_another_try(circuit, clock):
    fail(circuit, 3)
    clock.now += 30.0
    stuck = circuit.enter()
    assert circuit.state.retry_in == 120.0
    clock.now += 119.9
    assert circuit.enter() is None
    clock.now += 0.1  # it has not come back for the longest cooldown: another may try
    second = circuit.enter()
    assert second is not None
    with stuck:
        stuck.failed("ServerError: at last")
    assert circuit.enter() is None
    with second:
        second.succeeded()
    assert circuit.state.state == "closed"


def test_asked_although_open_an_answer_closes_it_and_a_failure_is_no_news(circuit, clock):
    fail(circuit, 3)
    with circuit.enter(always=True) as extra:
        extra.failed("ServerError: still")
    assert circuit.state == CircuitState("a-model", "open", 3, "ServerError: down", 30.0)
    clock.now += 30.0
    probe = circuit.enter(always=True)  # takes the place as any other
    assert circuit.enter() is None
    with circuit.enter(always=True) as extra:
        extra.failed("ServerError: still")
    assert circuit.enter() is None  # and the extra call neither frees nor ends it
    with circuit.enter(always=True) as extra:
        extra.succeeded()
    assert circuit.state.state == "closed"
    with probe:
        probe.failed("ServerError: from before")
    assert circuit.state == CircuitState("a-model", "closed", 0, None, 0.0)


def test_without_a_breaker_it_never_opens(clock):
    circuit = Circuit("a-model", None, clock)
    fail(circuit, 1_000)
    assert circuit.state == CircuitState("a-model", "closed", 1_000, "ServerError: down", 0.0)


def test_opening_and_closing_are_logged_once_each(circuit, clock, caplog):
    caplog.set_level(logging.INFO, logger="uprank")
    fail(circuit, 3)
    circuit.enter()
    clock.now += 30.0
    succeed(circuit)
    succeed(circuit)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "a-model is not asked for 30 s, after 3 failures in a row: ServerError: down"),
        ("INFO", "a-model answers again"),
    ]


def test_of_threads_that_race_for_the_try_exactly_one_gets_it(circuit, clock):
    together = threading.Barrier(8)
    fail(circuit, 3)

    def race(_: int) -> bool:
        together.wait(10)
        return circuit.enter() is not None

    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            clock.now += circuit.state.retry_in
            assert sum(threads.map(race, range(8))) == 1
            clock.now += 120.0  # that try never came back


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_neither_hangs_nor_waits_for_a_try_of_its_parent(circuit, clock):
    fail(circuit, 3)
    clock.now += 30.0
    probe = circuit.enter()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with circuit._lock:
            held.set()
            done.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(10)

        def child() -> None:
            assert circuit.state.state == "half-open"  # what is known of the model is known here too
            succeed(circuit)
            assert circuit.state.state == "closed"

        assert forked(child) == 0
    finally:
        done.set()
        holder.join(10)
    assert circuit.enter() is None  # the parent's try is under way still
    with probe:
        probe.succeeded()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["fail", "succeed", "nothing", "wait", "wait long", "hang"]), max_size=40))
def test_whatever_happens_it_is_asked_again_in_time_and_by_one_at_once(events):
    clock = Clock()
    circuit = Circuit("a-model", Breaker(failures=2, cooldown=1.0), clock)
    hanging = []
    for event in events:
        if event.startswith("wait"):
            clock.now += 1.0 if event == "wait" else 4.0
            continue
        before = circuit.state
        admission = circuit.enter()
        if admission is None:
            assert before.state != "closed"
            assert 0.0 < before.retry_in <= 4.0
            continue
        if before.state != "closed":
            assert circuit.enter() is None
        if event == "hang":
            hanging.append(admission)
            continue
        with admission:
            if event == "fail":
                admission.failed("down")
            elif event == "succeed":
                admission.succeeded()
                assert circuit.state.state == "closed"
    clock.now += 4.0
    succeed(circuit)
    assert circuit.state == CircuitState("a-model", "closed", 0, None, 0.0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"failures": 0}, "failures must be an integer of at least 1, got 0"),
        ({"failures": True}, "failures must be"),
        ({"failures": 2.5}, "failures must be"),
        ({"cooldown": 0}, "cooldown must be a positive number of seconds, got 0"),
        ({"cooldown": float("inf")}, "cooldown must be"),
        ({"cooldown": float("nan")}, "cooldown must be"),
        ({"cooldown": "30"}, "cooldown must be"),
        ({"cooldown": None}, "cooldown must be"),
        ({"max_cooldown": -1.0}, "max_cooldown must be"),
        ({"cooldown": 60, "max_cooldown": 30}, "max_cooldown=30 is less than cooldown=60"),
    ],
)
def test_what_makes_no_sense_is_refused(options, told):
    with pytest.raises(ConfigurationError, match=told):
        Breaker(**options)
