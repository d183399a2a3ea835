"""What the server tells of itself: metrics, log lines, request ids and timings, and nothing of what it was asked."""

from __future__ import annotations

import json
import logging
import re
import threading
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving import serving
from table_scorer import TableScorer
from uprank import MemoryCache, Reranker
from uprank.server.logs import JsonLines, request_id_of, set_up_logging

TABLE = {"a": 0.25, "b": 0.75, "c": 0.5, "d": 0.125}


def ask(address: str, *texts: str, query: str = "q", headers: dict[str, str] | None = None, **more: object):
    body = {"query": query, "documents": list(texts), **more}
    return httpx.post(f"{address}/v1/rerank", json=body, headers=headers)


def samples(address: str) -> dict[str, float]:
    """Each sample as ``name{label=value,…}``, without the times at which it was made."""
    reply = httpx.get(f"{address}/metrics")
    assert reply.status_code == 200
    found = [one for family in text_string_to_metric_families(reply.text) for one in family.samples]
    return {
        f"{one.name}{{{','.join(f'{name}={value}' for name, value in sorted(one.labels.items()))}}}": one.value
        for one in found
        if not one.name.endswith("_created")
    }


def test_requests_are_counted_by_route_model_and_status():
    rerankers = {"one": Reranker(TableScorer("one", TABLE)), "two": Reranker(TableScorer("two", TABLE))}
    with serving(rerankers) as address:
        ask(address, "a", "b", model="one")
        ask(address, "a", "b", "c", model="two")
        ask(address, "a", "b", "c", model="two")
        httpx.post(f"{address}/rerank", content=b"no json")
        found = samples(address)
    assert found["uprank_requests_total{model=one,route=/v1/rerank,status=200}"] == 1
    assert found["uprank_requests_total{model=two,route=/v1/rerank,status=200}"] == 2
    assert found["uprank_requests_total{model=,route=/rerank,status=400}"] == 1
    assert sum(value for name, value in found.items() if name.startswith("uprank_requests_total")) == 4
    assert found["uprank_refusals_total{code=invalid_json}"] == 1
    assert found["uprank_request_duration_seconds_count{model=two,status=200}"] == 2
    assert 0 < found["uprank_request_duration_seconds_sum{model=two,status=200}"] < 10
    assert found["uprank_request_documents_bucket{le=2.0,model=one}"] == 1
    assert found["uprank_request_documents_bucket{le=2.0,model=two}"] == 0
    assert found["uprank_request_documents_sum{model=two}"] == 6
    assert found["uprank_tokens_total{model=two}"] == 6  # the table counts one a text
    assert found["uprank_requests_in_progress{}"] == 0
    assert found["uprank_requests_in_progress_limit{}"] == 512
    assert found["uprank_models_loaded{}"] == 1
    assert any(name.startswith("uprank_build_info{python=") for name in found)
    assert found["process_resident_memory_bytes{}"] > 1e6


def test_a_refused_request_is_counted_under_the_model_that_was_meant():
    reranker = Reranker(TableScorer("table", TABLE, fails={"*": RuntimeError("a secret of the scorer")}))
    with serving({"table": reranker}, limits={"documents": 2}) as address:
        assert ask(address, "a", model="an-alias").status_code == 500  # "*" is an alias of the first
        assert ask(address, "a", "b", "c", model="table").status_code == 422
        found = samples(address)
    assert found["uprank_requests_total{model=table,route=/v1/rerank,status=500}"] == 1
    assert found["uprank_requests_total{model=table,route=/v1/rerank,status=422}"] == 1
    assert found["uprank_refusals_total{code=internal_error}"] == 1
    assert found["uprank_refusals_total{code=too_many_documents}"] == 1
    assert found["uprank_request_documents_count{model=table}"] == 0


def test_nothing_of_a_request_becomes_a_label(monkeypatch):
    monkeypatch.setenv("A_TEST_KEY", "planted-key")
    settings = {
        "models": {"table": {"model": "bm25"}, "second": {"model": "bm25"}},
        "keys": [{"name": "team", "env": "A_TEST_KEY"}],
    }
    with serving({"table": Reranker(TableScorer("table", {"planted-text": 1.0}))}, **settings) as address:
        right = {"authorization": "Bearer planted-key"}
        assert ask(address, "planted-text", query="planted-query", headers=right).status_code == 200
        assert ask(address, "planted-text", model="planted-model", headers=right).status_code == 404
        assert ask(address, "planted-text", headers={"authorization": "Bearer planted-wrong"}).status_code == 401
        httpx.post(f"{address}/planted-path", json={}, headers=right)
        text = httpx.get(f"{address}/metrics").text  # without a key
        found = samples(address)
    assert "planted" not in text
    assert found["uprank_requests_total{model=,route=/v1/rerank,status=404}"] == 1
    assert found["uprank_key_requests_total{key=team,status=200}"] == 1
    assert found["uprank_key_requests_total{key=team,status=404}"] == 1
    assert found["uprank_refusals_total{code=invalid_api_key}"] == 1


def test_two_servers_of_one_process_count_apart():
    def reranker() -> Reranker:
        return Reranker(TableScorer("table", TABLE))

    with serving({"table": reranker()}) as first, serving({"table": reranker()}) as second:
        ask(first, "a")
        assert samples(first)["uprank_request_documents_count{model=table}"] == 1
        assert samples(second)["uprank_request_documents_count{model=table}"] == 0


def test_metrics_can_be_turned_off():
    with serving({"table": Reranker(TableScorer("table", TABLE))}, metrics=False) as address:
        assert ask(address, "a").status_code == 200
        assert httpx.get(f"{address}/metrics").status_code == 404


def test_degraded_rankings_and_kept_scores_are_counted():
    rerankers = {
        "worse": Reranker(TableScorer("worse", TABLE, degraded=True)),
        "kept": Reranker(TableScorer("kept", TABLE), cache=True),
    }
    with serving(rerankers) as address:
        assert ask(address, "a", "b", model="worse").headers["x-uprank-degraded"] == "true"
        ask(address, "a", "b", "c", model="kept")
        ask(address, "a", "b", "d", model="kept")
        found = samples(address)
    assert found["uprank_degraded_rankings_total{model=worse}"] == 1
    assert found["uprank_degraded_rankings_total{model=kept}"] == 0
    assert found["uprank_cache_hits_total{model=kept}"] == 2
    assert found["uprank_cache_misses_total{model=kept}"] == 4
    assert found["uprank_cache_entries{model=kept}"] == 4
    assert found["uprank_cache_bytes{model=kept}"] > 0
    assert "uprank_cache_hits_total{model=worse}" not in found


def test_a_cache_without_statistics_hides_no_other_metric(caplog):
    class Silent(MemoryCache):
        def stats(self):
            raise OSError("planted-place")

    with serving({"table": Reranker(TableScorer("table", TABLE), cache=Silent())}) as address:
        ask(address, "a")
        assert samples(address)["uprank_request_documents_count{model=table}"] == 1
    assert "OSError" in caplog.text
    assert "planted" not in caplog.text


def test_requests_under_way_are_seen_while_they_wait():
    release = threading.Event()

    def judge(query, texts):
        assert release.wait(30)
        return [0.5] * len(texts)

    with serving({"slow": Reranker(judge)}) as address:
        waiting = [threading.Thread(target=ask, args=(address, "a")) for _ in range(2)]
        for thread in waiting:
            thread.start()
        try:
            deadline = time.monotonic() + 10
            while samples(address)["uprank_requests_in_progress{}"] < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            release.set()
        for thread in waiting:
            thread.join(timeout=30)
        assert samples(address)["uprank_requests_in_progress{}"] == 0


@pytest.mark.parametrize("given", ["a", "Root=1-678;x@y/z+w.v:u", "6f9a4c2e-1111-4222-8333-444455556666", "x" * 128])
def test_a_sane_request_id_is_taken_over(given):
    assert request_id_of({"x-request-id": given}) == given


@pytest.mark.parametrize("given", ["", " ", "a b", "a\nb", "é", "\x7f", '"', "x" * 129, "a\n", "%s{}"])
def test_any_other_gets_a_new_one(given):
    assert re.fullmatch("[0-9a-f]{32}", request_id_of({"x-request-id": given}))
    assert request_id_of({"x-request-id": given}) != request_id_of({"x-request-id": given})


def test_the_reply_names_the_request_and_its_time_and_so_does_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    with serving({"table": Reranker(TableScorer("table", {"planted-a": 1.0, "planted-b": 2.0}))}) as address:
        reply = ask(address, "planted-a", "planted-b", query="planted-query", headers={"x-request-id": "mine-1"})
        refused = ask(address, "planted-a", query="", headers={"x-request-id": "mine-2"})
    assert reply.headers["x-request-id"] == reply.json()["id"] == "mine-1"
    assert re.fullmatch(r"rank;dur=\d+\.\d", reply.headers["server-timing"])
    assert refused.headers["x-request-id"] == "mine-2"
    ours = [record for record in caplog.records if record.name == "uprank.server"]
    [line] = [one.getMessage() for one in ours if "mine-1" in one.getMessage()]
    assert re.fullmatch(r"mine-1 POST /v1/rerank 200 \d+\.\d ms table, 2 documents", line)
    assert any(re.match(r"mine-2 POST /v1/rerank 422 ", one.getMessage()) for one in ours)
    # What the client of this very test says of its sending does not count.
    assert not [one for one in caplog.records if "planted" in one.getMessage() and "httpcore" not in one.name]


def formatted(message: str, **more: object) -> dict[str, object]:
    record = logging.LogRecord("uprank.server", logging.INFO, __file__, 1, message, (), None)
    vars(record).update(more)
    line = JsonLines().format(record)
    assert "\n" not in line
    return json.loads(line)


def test_json_lines_hold_what_is_known_of_a_request():
    line = formatted("two\nlines \ud800", fields={"status": 200, "model": "m"})
    assert line["message"] == "two\nlines \ud800"
    assert (line["level"], line["logger"], line["status"], line["model"]) == ("INFO", "uprank.server", 200, "m")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", str(line["time"]))


def test_json_lines_hold_the_traceback():
    try:
        raise ValueError("why")
    except ValueError as error:
        line = formatted("it failed", exc_info=(type(error), error, error.__traceback__))
    assert str(line["exception"]).endswith("ValueError: why")


@pytest.fixture
def logging_as_it_was():
    """Logging is one for a process: what a test sets up is put back."""
    loggers = [logging.getLogger(name) for name in ("", "uprank", "uvicorn.error")]
    before = [(one, one.level, one.handlers[:]) for one in loggers]
    logging.getLogger().handlers = []  # so that those of the test runner are not closed
    yield
    for one, level, handlers in before:
        one.setLevel(level)
        one.handlers = handlers


@pytest.mark.usefixtures("logging_as_it_was")
def test_a_program_that_serves_logs_to_stderr_in_the_form_asked_for(capsys):
    set_up_logging("info", "json")
    with serving({"table": Reranker(TableScorer("table", TABLE))}) as address:
        ask(address, "a", "b", headers={"x-request-id": "mine"})
    logging.getLogger("another").info("not of interest")
    logging.getLogger("uprank").debug("nor this")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [line] = [one for one in lines if one.get("request_id") == "mine"]
    assert (line["route"], line["status"], line["model"], line["documents"]) == ("/v1/rerank", 200, "table", 2)
    assert line["milliseconds"] > 0
    assert {one["logger"] for one in lines} <= {"uprank.server", "uvicorn.error"}
    set_up_logging("warning")
    logging.getLogger("uprank.server").info("silent")
    logging.getLogger("uprank.server").warning("as text")
    assert re.fullmatch(r".* WARNING uprank\.server: as text\n", capsys.readouterr().err)
