"""The gate: how many requests a minute, what can be set, and who shares one."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from http_loopback import answered, assert_free, forked
from rerank_servers import serve
from uprank import Reranker
from uprank.errors import ConfigurationError, DeadlineExceededError
from uprank.scorers.http import gate as gate_module
from uprank.scorers.http.gate import Gate, NoTurn, shared_gate

# Requests a minute.


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> float:
    """A short one."""
    monkeypatch.setattr(gate_module, "_MINUTE", 0.2)
    return 0.2


def begin(gate: Gate) -> float:
    """Wait for a turn as often as others are first, and say when it came."""
    while True:
        time.sleep(gate.until_turn())
        try:
            with gate.entered(10.0):
                return time.monotonic()
        except NoTurn:
            continue


def test_no_minute_holds_more_than_its_requests(minute: float) -> None:
    gate = Gate(64, per_minute=4)
    with ThreadPoolExecutor(8) as pool:
        begins = sorted(running.result(10) for running in [pool.submit(begin, gate) for _ in range(14)])
    for first, fifth in zip(begins, begins[4:], strict=False):
        assert fifth - first >= minute - 0.02
    assert begins[3] - begins[0] < minute / 2  # within the limit nobody waits


def test_no_minute_holds_more_than_its_requests_where_places_are_scarce(minute: float) -> None:
    """A turn counts from when the request is sent, not from when its turn was waited for."""
    gate = Gate(1, per_minute=2)
    begins: list[float] = []

    def slow() -> None:
        while True:
            time.sleep(gate.until_turn())
            try:
                with gate.entered(10.0):
                    begins.append(time.monotonic())
                    time.sleep(minute * 0.45)
                    return
            except NoTurn:
                continue

    with ThreadPoolExecutor(6) as pool:
        for running in [pool.submit(slow) for _ in range(6)]:
            running.result(10)
    begins.sort()
    for first, third in zip(begins, begins[2:], strict=False):
        assert third - first >= minute - 0.02


def test_who_does_not_go_takes_no_turn(minute: float) -> None:
    gate = Gate(64, per_minute=1)
    answered(gate)
    assert 0 < gate.until_turn() <= minute
    for _ in range(5):
        with pytest.raises(NoTurn), gate.entered(1.0):
            pass
    time.sleep(minute + 0.01)
    assert gate.until_turn() == 0.0
    answered(gate)
    assert_no_place_is_lost(gate)


def assert_no_place_is_lost(gate: Gate) -> None:
    assert gate._inside == 0
    assert not gate._waiting


async def test_calls_that_are_cancelled_before_they_are_sent_take_no_turn() -> None:
    with serve("vllm") as server, Reranker("vllm:m", base_url=server.base_url, requests_per_minute=2) as reranker:
        await reranker.arank("q", ["a"])
        await reranker.arank("q", ["a"])
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reranker.arank("q", ["a"]), 0.02)
        gate = reranker.scorer._target.gate
        assert 55 < gate.until_turn() <= 60  # one minute after the first, whoever waited since
        assert_no_place_is_lost(gate)
        await reranker.aclose()


def test_without_a_limit_there_is_no_waiting() -> None:
    gate = Gate(1)
    for _ in range(1_000):
        answered(gate)
        assert gate.until_turn() == 0.0


def test_rerankers_made_anew_share_what_the_minute_has_left() -> None:
    with serve("vllm") as server:
        options = {"base_url": server.base_url, "requests_per_minute": 2, "deadline": 5.0}
        for _ in range(2):
            Reranker("vllm:m", **options).rank("q", ["a"])
        with pytest.raises(DeadlineExceededError, match="requests_per_minute=2 leaves none within the deadline"):
            Reranker("vllm:m", **options).rank("q", ["a"])
        assert len(server.posts) == 2


def test_a_batch_takes_up_no_more_queries_than_the_minute_has_turns(minute: float) -> None:
    """Else the deadline of those at its end would pass while they wait for the others."""
    with serve("vllm") as server:
        reranker = Reranker("vllm:m", base_url=server.base_url, requests_per_minute=4, deadline=2 * minute + 0.3)
        rankings = reranker.rank_many([f"q{number}" for number in range(20)], [["a", "b"]] * 20)
        reranker.close()
    assert len(rankings) == 20


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


def test_what_a_gate_knows_outlives_its_users() -> None:
    gate = shared_gate(HOST, 6, None, "once")
    answered(gate, throttled=True)
    del gate
    gc.collect()
    assert shared_gate(HOST, 6, None, "once").limit == 3


def test_a_host_that_was_busy_a_minute_ago_gets_all_again(minute: float) -> None:
    gate = Gate(8)
    answered(gate, throttled=True)
    assert gate.limit == 4
    time.sleep(minute + 0.01)
    answered(gate)
    assert gate.limit == 8


def test_gates_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "_gates", {})
    monkeypatch.setattr(gate_module, "_MOST_GATES", 3)
    for number in range(5):
        shared_gate(HOST, 6, None, f"key {number}")
        shared_gate(HOST, 6, None, "in use")
    assert len(gate_module._gates) == 3


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
