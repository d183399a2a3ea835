"""The gate: how many requests a minute, what can be set, and who shares one."""

from __future__ import annotations

import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from http_loopback import forked
from uprank.errors import ConfigurationError
from uprank.scorers.http import gate as gate_module
from uprank.scorers.http.gate import Gate, NoPlace, shared_gate

FOREVER = float("inf")


def assert_free(gate: Gate, places: int) -> None:
    """Exactly so many can enter: no place was lost, none was made up."""
    entered = [gate.entered(0.0) for _ in range(places)]
    for each in entered:
        each.__enter__()
    with pytest.raises(NoPlace), gate.entered(0.0):
        pass
    for each in entered:
        each.__exit__(None, None, None)


def answered(gate: Gate, *, ok: bool = False, throttled: bool = False) -> None:
    """One request comes and goes."""
    with gate.entered(1.0) as ticket:
        ticket.ok, ticket.throttled = ok, throttled


# Requests a minute.


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> float:
    """A short one."""
    monkeypatch.setattr(gate_module, "_MINUTE", 0.2)
    return 0.2


def test_no_minute_holds_more_than_its_requests(minute: float) -> None:
    gate = Gate(64, per_minute=4)
    begins: list[float] = []

    def begin() -> None:
        turn = gate.turn(FOREVER)
        assert turn is not None
        begins.append(time.monotonic() + turn)  # at the latest a moment after it was reserved

    with ThreadPoolExecutor(8) as pool:
        for running in [pool.submit(begin) for _ in range(14)]:
            running.result(10)
    begins.sort()
    for first, fifth in zip(begins, begins[4:], strict=False):
        assert fifth - first >= minute - 0.02
    assert begins[3] - begins[0] < minute / 2  # within the limit nobody waits
    assert begins[-1] - begins[0] < 3 * minute + 0.1  # nor longer than needed


def test_a_turn_that_comes_too_late_is_not_reserved(minute: float) -> None:
    gate = Gate(64, per_minute=1)
    assert gate.turn(1.0) == 0.0
    assert gate.turn(minute / 2) is None
    later = gate.turn(1.0)
    assert later is not None
    assert minute / 2 < later <= minute  # not two minutes away: the one refused took none
    time.sleep(later + minute + 0.01)
    assert gate.turn(0.01) == 0.0  # and a minute in which nobody asked holds nothing back


def test_without_a_limit_there_is_no_waiting() -> None:
    gate = Gate(1)
    assert [gate.turn(0.0) for _ in range(1_000)] == [0.0] * 1_000


# What can be set, and who shares.


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4", None])
def test_the_most_at_once_is_a_positive_integer(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^max_concurrency must be an integer of at least 1, got"):
        Gate(value)  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4"])
def test_requests_a_minute_are_a_positive_integer_or_none(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^requests_per_minute must be an integer of at least 1, got"):
        Gate(4, value)  # type: ignore[arg-type]  # the point


HOST = "https://api.example.com:443"


@pytest.mark.parametrize(
    ("host", "most", "per_minute", "key"),
    [
        ("https://api.example.org:443", 8, None, "a"),
        (HOST, 9, None, "a"),
        (HOST, 8, 100, "a"),
        (HOST, 8, None, "b"),
        (HOST, 8, None, ""),
    ],
)
def test_the_same_host_key_and_limits_share_a_gate_and_no_others(
    host: str, most: int, per_minute: int | None, key: str
) -> None:
    gate = shared_gate(HOST, 8, None, "a")
    assert shared_gate(HOST, 8, None, "a") is gate
    assert shared_gate(host, most, per_minute, key) is not gate


def test_threads_that_ask_at_once_get_one_gate() -> None:
    barrier = threading.Barrier(16)

    def ask(_: int) -> Gate:
        barrier.wait(10)
        return shared_gate(HOST, 7, None, "at once")

    with ThreadPoolExecutor(16) as pool:
        assert len({id(gate) for gate in list(pool.map(ask, range(16)))}) == 1


def test_a_gate_nobody_uses_is_forgotten() -> None:
    gate = shared_gate(HOST, 6, None, "once")
    answered(gate, throttled=True)
    assert gate.limit == 3
    del gate
    gc.collect()
    assert shared_gate(HOST, 6, None, "once").limit == 6


def test_the_key_is_nowhere_in_the_shared_gates() -> None:
    gate = shared_gate(HOST, 5, None, "sk-planted")
    names = [name for name, found in gate_module._gates.items() if found is gate]
    assert len(names) == 1
    assert "sk-planted" not in repr(names) + repr(vars(gate))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_finds_the_places_of_its_parents_threads_free() -> None:
    gate = shared_gate(HOST, 2, None, "fork")

    def enter() -> None:
        with shared_gate(HOST, 2, None, "fork").entered(0.0), gate.entered(0.0):
            pass

    with gate.entered(1.0), gate.entered(1.0), gate._lock, gate_module._lock:
        assert forked(enter) == 0
    assert_free(gate, 2)
