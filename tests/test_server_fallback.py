"""A model that fails behind the server: seen in the reply, in the log and in the metrics, though a fallback answers."""

from __future__ import annotations

import logging

import httpx
import pytest

from serving import serving
from table_scorer import TableScorer
from uprank import ConfigurationError, Hooks, Reranker
from uprank.errors import ConnectionFailedError
from uprank.server import ServerSettings, create_app

TABLE = {"a": 0.25, "b": 0.75, "c": 0.5}
BODY = {"query": "q", "documents": ["a", "b", "c"]}


def test_a_fallback_is_seen_everywhere(caplog):
    caplog.set_level(logging.INFO, logger="uprank.server")
    down = TableScorer("down", TABLE, fails={"*": ConnectionFailedError("refused, said the secret service")})
    chain = Reranker(down, fallback=[TableScorer("spare", TABLE)])
    with serving({"chain": chain, "sound": Reranker(TableScorer("sound", TABLE))}) as address:
        reply = httpx.post(f"{address}/v1/rerank", json=BODY)
        assert reply.status_code == 200
        assert reply.headers["x-uprank-fallback"] == "true"
        assert reply.json()["meta"]["warnings"] == ["spare answered; down did not (ConnectionFailedError)."]
        assert "x-uprank-fallback" not in httpx.post(f"{address}/v1/rerank", json={**BODY, "model": "sound"}).headers
        metrics = httpx.get(f"{address}/metrics").text
    failed = [line for line in metrics.splitlines() if line.startswith("uprank_failed_attempts_total{")]
    assert failed == ['uprank_failed_attempts_total{failed="down",kind="ConnectionFailedError",model="chain"} 1.0']
    first, second = [record.getMessage() for record in caplog.records if " POST " in record.getMessage()]
    assert first.endswith(" chain, 3 documents, not by down (ConnectionFailedError)")
    assert second.endswith(" sound, 3 documents")
    assert "secret" not in caplog.text


def test_the_log_says_why_a_request_was_refused_and_of_which_model(caplog):
    caplog.set_level(logging.INFO, logger="uprank.server")
    with serving({"one": Reranker(TableScorer("one", TABLE))}) as address:
        httpx.post(f"{address}/v1/rerank", json={**BODY, "query": " "})
        httpx.post(f"{address}/v1/rerank", content=b"no JSON")
    first, second = [record.getMessage() for record in caplog.records if " POST " in record.getMessage()]
    assert first.endswith(" one invalid_request")
    assert second.endswith(" ms invalid_json")


def test_a_rate_that_is_used_up_is_counted_for_its_key(monkeypatch):
    monkeypatch.setenv("A_TEST_KEY", "a-key-of-a-test")
    keys = [{"name": "team", "env": "A_TEST_KEY", "requests_per_minute": 1}]
    with serving({"one": Reranker(TableScorer("one", TABLE))}, keys=keys) as address:
        headers = {"authorization": "Bearer a-key-of-a-test"}
        statuses = [httpx.post(f"{address}/rerank", json=BODY, headers=headers).status_code for _ in range(3)]
        metrics = httpx.get(f"{address}/metrics").text
    assert statuses == [200, 429, 429]
    assert 'uprank_key_requests_total{key="team",status="429"} 2.0' in metrics


# --- which model answers


@pytest.mark.parametrize(("models", "status"), [({"one": "bm25"}, 200), ({"one": "bm25", "two": "bm25"}, 404)])
def test_a_model_that_is_the_only_one_answers_whatever_clients_ask_for(models, status):
    rerankers = {name: Reranker(TableScorer(name, TABLE)) for name in models}
    with serving(rerankers, models=models) as address:
        reply = httpx.post(f"{address}/v2/rerank", json={**BODY, "model": "rerank-v3.5"})
    assert reply.status_code == status


@pytest.mark.parametrize(
    ("settings", "rerankers", "told"),
    [
        ({"models": {"one": "bm25"}}, None, r"create_app\(\) takes ServerSettings"),
        (ServerSettings.of({"models": {"one": "bm25"}}), {"one": "bm25"}, "must be a Reranker, got str"),
        (ServerSettings.of({"models": {"one": "bm25"}}), {"oen": Reranker("bm25")}, "no model 'oen'"),
    ],
)
def test_what_no_application_can_be_made_of(settings, rerankers, told):
    with pytest.raises(ConfigurationError, match=told):
        create_app(settings, rerankers)


def test_a_list_of_the_models_is_no_ranking():
    class Heard(Hooks):
        starts = 0

        def on_start(self, start: object) -> None:
            type(self).starts += 1

    with serving({"one": Reranker(TableScorer("one", TABLE, kind="logit"), hooks=[Heard()])}) as address:
        found = httpx.get(f"{address}/v1/models").json()
        assert found["data"][0]["score_kind"] == "logit"
        assert Heard.starts == 0
        httpx.post(f"{address}/rerank", json=BODY)
        assert Heard.starts == 1


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/v1/models"])
def test_load_balancers_may_ask_with_head(path):
    with serving({"one": Reranker(TableScorer("one", TABLE))}) as address:
        assert httpx.head(f"{address}{path}").status_code == 200
