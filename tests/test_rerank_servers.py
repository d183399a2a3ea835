"""The servers that other tests rely on are as strict as the services' documentation, seen by a plain HTTP client."""

from __future__ import annotations

import itertools
import time

import httpx
import pytest

from rerank_servers import SERVICES, native, pair_tokens, relevance, serve, tokens
from rerank_servers.client import BODIES, HEADERS, OBJECTS, QUERY, TEXTS, ask, entries, post

every_service = pytest.mark.parametrize("name", SERVICES)


# What they score.


def test_relevance_can_be_computed_and_says_who_answers() -> None:
    scores = [relevance(QUERY, text) for text in TEXTS]
    assert scores == [relevance(QUERY, text) for text in TEXTS]
    assert scores[1] > 0.8 > scores[2] > 0.4 > 0.2 > max(scores[0], scores[3]) > 0
    many = {relevance(f"q{i}", f"d{j}") for i, j in itertools.product(range(40), range(50))}
    assert len(many) == 2000
    assert relevance("ab", "c") != relevance("a", "bc")


def test_native_is_what_the_services_report() -> None:
    assert native("cohere", 0.25) == native("llama-cpp", 0.25, model="Qwen3-Reranker-0.6B") == 0.25
    assert native("llama-cpp", 0.5) == 0
    assert native("nvidia", 0.9) == pytest.approx(2.1972, abs=1e-4) == -native("nvidia", 0.1)
    assert native("tei", 0.9) == 0.9
    assert native("tei", 0.9, raw_scores=True) == native("infinity", 0.9, raw_scores=True) == native("nvidia", 0.9)
    assert native("jina", 0.1, model="jina-reranker-v2-base-multilingual") == 0.1
    assert native("jina", 0.1, model="jina-reranker-v3", count=3) == pytest.approx(-0.6)
    assert native("jina", 0.1, model="jina-reranker-v3.5", count=4) != native(
        "jina", 0.1, model="jina-reranker-v3", count=3
    )


@every_service
def test_the_reply_holds_every_document_once_best_first(name: str) -> None:
    with serve(name, key="k") as server:
        got = entries(server, ask(server))
        expected = server.scores(QUERY, TEXTS)
    order = range(4) if name == "vllm-score" else sorted(range(4), key=expected.__getitem__, reverse=True)
    assert got == [(index, expected[index]) for index in order]
    assert expected == [native(name, relevance(QUERY, text), count=1) for text in TEXTS]
    request = server.posts[0]
    assert (request.query, request.texts, request.number) == (QUERY, TEXTS, 0)
    assert request.headers["authorization"] == "Bearer k"
    assert request.json == BODIES[name]


# Whom and what they refuse.


@every_service
def test_a_wrong_key_is_refused(name: str) -> None:
    hosted = SERVICES[name].hosted and name != "nvidia"  # NVIDIA's own container needs none
    with serve(name, key="other") as server:
        refused = ask(server)
    with serve(name) as server:
        anonymous = post(
            server.url + server.path.replace("{model}", "m"),
            json=BODIES[name],
            headers={"Accept": "application/json", "X-Pinecone-Api-Version": "2026-04"},
        )
    assert refused.status_code == 401
    assert (refused.content == b"") == (name == "tei")
    assert anonymous.status_code == (401 if hosted else 200)


@every_service
@pytest.mark.parametrize("raw", [b"{", b"", b'{"query": NaN}', b"\xff"])
def test_what_is_not_json_is_refused(name: str, raw: bytes) -> None:
    with serve(name, key="k") as server:
        url = server.url + server.path.replace("{model}", "m")
        reply = post(url, content=raw, headers={**HEADERS, "Content-Type": "application/json"})
        wrong_type = post(url, content=b"{}", headers={**HEADERS, "Content-Type": "text/plain"})
    assert reply.status_code == (422 if name == "infinity" else 400)
    assert server.posts[0].body == raw
    assert server.posts[0].json is None
    assert wrong_type.status_code == 415


UNKNOWN = {"jina": 422, "cohere": 422, "mixedbread": 422, "fireworks": 422, "nvidia": 422} | dict.fromkeys(
    ("voyage", "together", "pinecone", "openrouter"), 400
)


@every_service
def test_unknown_fields(name: str) -> None:
    with serve(name, key="k") as server:
        reply = ask(server, no_such_field=None)
    with serve(name, key="k", strict=True) as server:
        strict = ask(server, no_such_field=None)
        fine = ask(server)
    assert reply.status_code == UNKNOWN.get(name, 200)
    assert 400 <= strict.status_code < 500 or name == "xinference"
    assert strict.status_code != 200
    assert fine.status_code == 200
    if name != "tei":
        assert "no_such_field" in strict.text


@every_service
def test_the_query_and_the_documents_are_required(name: str) -> None:
    for field in [key for key in BODIES[name] if key not in ("model", "truncate")]:
        with serve(name, key="k") as server:
            assert ask(server, **{field: ...}).status_code in (400, 422, 500)
            assert ask(server, **{field: 7}).status_code in (400, 422, 500)
            assert ask(server, **{field: []}).status_code in (400, 422, 500)
            if name != "sie":
                assert ask(server, **{field: None}).status_code in (400, 422, 500)


@every_service
def test_an_unknown_model_and_an_unknown_path(name: str) -> None:
    with serve(name, key="k", models=["known"]) as server:
        unknown = ask(server, model="unknown", no=...)
        assert ask(server, path="/nowhere").status_code == 404
        assert httpx.put(server.url + server.path, headers=HEADERS).status_code == 405
    if name == "infinity":  # with one model only, any name will do
        assert unknown.json()["model"] == "known"
        return
    statuses = {"jina": 400, "voyage": 400, "xinference": 400, "tei": 200, "llama-cpp": 200}
    assert unknown.status_code == statuses.get(name, 404)


# What is particular to each.


def test_cohere() -> None:
    with serve("cohere", key="k") as server:
        unknown = ask(server, top_k=3)
        assert unknown.json()["message"].startswith("unknown field: parameter 'top_k'")
        assert unknown.json()["id"] == server.posts[0].id
        nulls = ask(server, top_n=None, max_tokens_per_doc=None, priority=None)
        assert nulls.json()["meta"]["billed_units"] == {"search_units": 1}
        assert "warnings" not in nulls.json()["meta"]
        assert "document" not in nulls.json()["results"][0]
        assert len(entries(server, ask(server, top_n=2))) == 2
        cut = ask(server, documents=["one two three four", "one"], max_tokens_per_doc=3).json()["meta"]
        assert len(cut["warnings"]) == 1
        for count, units in ((100, 1), (200, 2), (201, 3)):
            assert ask(server, documents=["x"] * count).json()["meta"]["billed_units"] == {"search_units": units}
        for wrong in ({"documents": OBJECTS}, {"top_n": 0}, {"priority": 1000}, {"return_documents": False}):
            assert ask(server, **wrong).status_code == 422
        assert ask(server, documents=["x"] * 10_001).status_code == 400
        assert ask(server, documents=["", " "]).status_code == 400
        spans = {"relevant_spans": {"mode": "enabled"}}
        assert ask(server, **spans).status_code == 422
        best = ask(server, model="rerank-v5.0-pro", **spans).json()["results"][0]
        assert best["relevant_spans"][0]["end"] == len(TEXTS[1])


def test_jina() -> None:
    with serve("jina", key="k") as server:
        assert ask(server).json()["results"][0]["document"] == {"text": TEXTS[1]}
        assert "document" not in ask(server, return_documents=False).json()["results"][0]
        assert ask(server).json()["usage"] == {"total_tokens": pair_tokens(QUERY, TEXTS)}
        refused = ask(server, max_tokens_per_doc=3)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == "max_tokens_per_doc"
        assert isinstance(refused.json()["detail"], str)
        assert ask(server, documents=["x"] * 1025).status_code == 422
        assert ask(server, documents=[{"image": "u"}]).status_code == 422
        assert ask(server, model="jina-reranker-m0", documents=[{"image": "u"}, {"text": "t"}]).status_code == 200
        assert ask(server, max_doc_length=100).status_code == 422
        v3 = entries(server, ask(server, model="jina-reranker-v3", max_doc_length=100))
        part = entries(server, ask(server, model="jina-reranker-v3", documents=TEXTS[:2]))
        assert v3[-1][1] < 0 < v3[0][1]
        assert dict(part)[1] != dict(v3)[1]
        colbert = entries(server, ask(server, model="jina-colbert-v2"))
        assert dict(colbert)[1] == relevance(QUERY, TEXTS[1])
    with serve("jina", echo="text", returns_documents=False, max_tokens=10) as server:
        assert "document" not in ask(server).json()["results"][0]
        assert ask(server, return_documents=True).json()["results"][0]["document"] == TEXTS[1]
        assert ask(server, truncation=False).status_code == 422
        assert ask(server, truncation=True).status_code == 200


def test_voyage() -> None:
    total = tokens(QUERY) * 4 + sum(map(tokens, TEXTS))
    with serve("voyage", key="k", budget=total) as server:
        assert ask(server, return_documents=True).json()["data"][0]["document"] == TEXTS[1]
        assert ask(server, top_k=None, truncation=True).json()["usage"] == {"total_tokens": total}
        assert len(entries(server, ask(server, top_k=9))) == 4
        over = ask(server, documents=[*TEXTS[:3], TEXTS[3] + "!!"])
        assert over.status_code == 400
        assert f"submitted batch is {total}. Your batch has {total + 1} tokens" in over.json()["detail"]
        assert ask(server, documents=["x"] * 1001).status_code == 400
        assert ask(server, documents=["", "x"]).status_code == 400
        assert "'top_n'" in ask(server, top_n=3).json()["detail"]
    with serve("voyage") as server:
        long = {"documents": ["x " * 70_000] * 19}
        assert ask(server, model="rerank-2.5", **long).status_code == 400
        assert ask(server, model="rerank-2.5", documents=long["documents"][:18]).status_code == 200
        assert ask(server, model="rerank-2-lite", **long).status_code == 200
        assert ask(server, truncation=False, **long).status_code == 400


def test_voyage_without_payment_method() -> None:
    with serve("voyage", free_requests=2, window=0.5) as server:
        assert [ask(server).status_code for _ in range(4)] == [200, 200, 429, 429]
        reply = ask(server)
        assert list(reply.json()) == ["detail"]
        assert "retry-after" not in reply.headers
        time.sleep(0.5)
        assert ask(server).status_code == 200


def test_other_hosted_services() -> None:
    with serve("mixedbread") as server:
        assert ask(server, return_input=True).json()["data"][0]["input"] == TEXTS[1]
        assert ask(server, top_k=1, input=OBJECTS, rank_fields=["text"]).json()["data"][0]["index"] == 1
        assert ask(server, input=["x"] * 1001).status_code == 422
        assert ask(server, top_k=None).status_code == 422
    with serve("together") as server:
        assert ask(server).json()["results"][0]["document"] == {"text": None}
        assert ask(server, return_documents=True).json()["results"][0]["document"] == {"text": TEXTS[1]}
        assert ask(server, documents=OBJECTS).status_code == 400
        objects = ask(server, model="Salesforce/Llama-Rank-V1", documents=OBJECTS, return_documents=True)
        assert objects.json()["results"][0]["document"] == {"text": f'{{"text": "{TEXTS[1]}"}}'}
        assert ask(server, documents=[*OBJECTS, "x"]).status_code == 400
        assert ask(server, top_n=None).status_code == 400
    with serve("fireworks") as server:
        assert ask(server, model=None, task="t").json()["data"][0]["document"] == TEXTS[1]
        assert "document" not in ask(server, return_documents=False).json()["data"][0]
        assert ask(server, truncation=True).status_code == 422
    with serve("pinecone") as server:
        assert ask(server).json()["data"][0]["document"] == OBJECTS[1]
        assert ask(server, documents=TEXTS).status_code == 400
        assert ask(server, documents=[{"other": "x"}]).status_code == 400
        assert ask(server, documents=OBJECTS * 26).json()["error"]["code"] == "INVALID_ARGUMENT"
        assert ask(server, model="cohere-rerank-3.5", documents=OBJECTS * 50).status_code == 200
        long = [{"text": "x " * 2000}]
        assert ask(server, documents=long).status_code == 400
        assert ask(server, documents=long, parameters={"truncate": "END"}).status_code == 200
        assert ask(server, model="cohere-rerank-3.5", parameters={"truncate": "END"}).status_code == 400
        unversioned = {key: value for key, value in HEADERS.items() if not key.startswith("X-")}
        reply = post(server.url + server.path, json=BODIES["pinecone"], headers=unversioned)
        assert reply.status_code == 400
    with serve("openrouter") as server:
        assert ask(server).json()["results"][0]["document"] == {"text": TEXTS[1]}
        assert ask(server, return_documents=False).json()["error"]["code"] == 400
