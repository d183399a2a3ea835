"""The test servers of self-hosted software keep to its documentation, and Infinity's to what the real one answered."""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path

import httpx
import pytest

from rerank_servers import relevance, serve
from rerank_servers.client import BODIES, HEADERS, OBJECTS, QUERY, TEXTS, ask, entries, message, post


def test_nvidia() -> None:
    with serve("nvidia") as server:
        logits = dict(entries(server, ask(server)))
        assert logits[0] < 0 < logits[1]
        hosted = "/v1/retrieval/a/b-1_0/reranking"
        assert ask(server, path=hosted).json()["rankings"][0]["index"] == 1
        assert ask(server, path="/v1/retrieval/a/b-1.0/reranking").json()["status"] == 404
        anonymous = post(server.url + hosted, json=BODIES["nvidia"])
        assert anonymous.status_code == 401
        assert ask(server, passages=[{"text": "x"}] * 513).status_code == 422
        for wrong in ({"passages": TEXTS}, {"query": QUERY}, {"passages": [{"text": ""}]}, {"top_n": 2}):
            assert ask(server, **wrong).status_code == 422
        long = {"passages": [{"text": "x " * 9000}], "truncate": ...}
        assert ask(server, **long).status_code == 400
        assert ask(server, path=hosted, **long).status_code == 200


def test_vllm() -> None:
    with serve("vllm") as server:
        for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
            reply = ask(server, path=path, return_documents=False, top_n=0)
            assert reply.json()["results"][0]["document"] == {"text": TEXTS[1], "multi_modal": None}
            assert len(reply.json()["results"]) == 4
        assert ask(server, top_n=None).json()["error"]["code"] == 400
        assert ask(server, documents=OBJECTS).status_code == 400
        assert ask(server, priority=1).status_code == 400
        assert dict(entries(server, ask(server, use_activation=False)))[0] < 0
        assert ask(server, documents=["x " * 9000]).status_code == 400
        assert ask(server, documents=["x " * 9000], truncate_prompt_tokens=-1).status_code == 200
        assert ask(server, path="/nowhere").json() == {"detail": "Not Found"}
    with serve("vllm", old_errors=True) as server:
        assert ask(server, top_n=None).json()["object"] == "error"
    with serve("vllm-score") as server:
        pairs = ask(server, data_1=["a", "b"], data_2=["a", "a"]).json()["data"]
        assert [each["score"] for each in pairs] == [relevance("a", "a"), relevance("b", "a")]
        assert ask(server, data_1=["a", "b"], data_2=["a", "a", "a"]).status_code == 400
        assert ask(server, data_1=..., data_2=..., queries=QUERY, documents=TEXTS).status_code == 200


def test_tei() -> None:
    with serve("tei", key="k", payload_limit=5000) as server:
        assert ask(server, texts=["x"] * 32, truncate=None, model="m").status_code == 200
        over = ask(server, texts=["x"] * 33)
        assert (over.status_code, over.json()["error_type"]) == (422, "Validation")
        assert "33 > maximum allowed batch size 32" in over.json()["error"]
        assert ask(server, texts=[]).json()["error_type"] == "Empty"
        assert ask(server, texts=["x" * 5000]).status_code == 413
        assert ask(server, texts=["x " * 600]).status_code == 200
        assert ask(server, texts=["x " * 600], truncate=False).status_code == 422
        assert [index for index, _ in entries(server, ask(server, texts=["a", "b", "a"]))][-2:] in ([2, 0], [0, 1])
        ties = [index for index, _ in entries(server, ask(server, texts=["same"] * 4))]
        assert ties == [3, 2, 1, 0]
        assert dict(entries(server, ask(server, raw_scores=True)))[0] < 0
        assert ask(server, return_text=True).json()[0]["text"] == TEXTS[1]
        assert ask(server, raw_scores=None).status_code == 422
        assert httpx.get(server.url + "/info").status_code == 401
        info = httpx.get(server.url + "/info", headers=HEADERS).json()
        assert (info["max_client_batch_size"], info["max_concurrent_requests"]) == (32, 512)
        assert httpx.get(server.url + "/health").status_code == 200


async def test_tei_never_waits_for_permits() -> None:
    with serve("tei", permits=10, delay=0.2) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            calls = [client.post("/rerank", json=BODIES["tei"]) for _ in range(4)]
            replies = await asyncio.gather(*calls)
            after = await client.post("/rerank", json=BODIES["tei"])
    assert sorted(reply.status_code for reply in replies) == [200, 200, 429, 429]
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.json() == {"error": "Model is overloaded", "error_type": "Overloaded"}
    assert "retry-after" not in refused.headers
    assert after.status_code == 200


def test_llama_cpp() -> None:
    with serve("llama-cpp", n_ctx=50) as server:
        assert ask(server, documents=OBJECTS).json()["error"]["type"] == "invalid_request_error"
        assert dict(entries(server, ask(server, return_documents=True)))[0] < 0
        assert min(dict(entries(server, ask(server, model="Qwen3-Reranker-4B"))).values()) > 0
        assert isinstance(ask(server, documents=..., texts=TEXTS).json(), list)
        assert len(entries(server, ask(server, top_n=2))) == 2
        long = ask(server, documents=["x " * 60]).json()["error"]
        assert (long["type"], long["n_ctx"]) == ("exceed_context_size_error", 50)
    with serve("llama-cpp", old=True, n_ctx=50) as server:
        assert [index for index, _ in entries(server, ask(server, top_n=2))] == [0, 1, 2, 3]
        assert ask(server).json()["usage"]["total_tokens"] == 0
        long = ask(server, documents=["x " * 60])
        assert long.status_code == 500
        assert "too large to process" in message(long)
    with serve("llama-cpp", reranking=False) as server:
        assert ask(server).status_code == 501


RECORDED = Path(__file__).parent / "recorded" / "infinity"
# These need a model that is no reranker, and a server that is busy.
ELSEWHERE = ("not_a_reranker", "overloaded")


def shape(value: object) -> object:
    """The keys and types of a value; of a list those of its first item."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items() if key not in ("ctx", "msg", "type", "input")}
    return [shape(value[0])] if isinstance(value, list) else type(value)


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded replies are not there")
def test_infinity_answers_as_the_real_server_did() -> None:
    files = [path for path in sorted(RECORDED.glob("*.json")) if path.stem not in ELSEWHERE]
    assert len(files) > 8
    for path in files:
        record = json.loads(path.read_text())
        several = record["server"] == "all models"
        key, models = ("loopback-key-5f0c", ["bert", "embedder"]) if several else (None, ["bert"])
        with serve("infinity", key=key, models=models, max_documents=8) as server:
            headers = {"Content-Type": "application/json", **record["request"]["headers"]}
            url = server.url + record["request"]["path"]
            reply = post(url, content=record["request"]["body"].encode(), headers=headers)
        real, there = json.loads(record["reply"]["body"]), record["reply"]["headers"]
        assert reply.status_code == record["reply"]["status"], path.stem
        assert reply.headers["content-type"] == there["content-type"]
        assert reply.headers.get("www-authenticate") == there.get("www-authenticate")
        assert shape(reply.json()) == shape(real), path.stem
        if isinstance(real.get("detail"), list):
            assert [each["loc"] for each in reply.json()["detail"]] == [each["loc"] for each in real["detail"]]
        if "results" in real:
            assert sorted((each["index"], each["document"]) for each in reply.json()["results"]) == sorted(
                (each["index"], each["document"]) for each in real["results"]
            )


def test_infinity_xinference_localai() -> None:
    with serve("infinity") as server:
        assert ask(server).json()["results"][0]["document"] is None
        assert ask(server, return_documents=True).json()["results"][0]["document"] == TEXTS[1]
        assert ask(server, documents=["x"] * 2049).status_code == 422
        assert ask(server, top_n=0).json()["detail"][0]["loc"] == ["body", "top_n"]
        assert dict(entries(server, ask(server, raw_scores=True)))[0] < 0
        assert ask(server, documents=[" padded "], return_documents=True).json()["results"][0]["document"] == "padded"
    for engine, echo in (("transformers", {"text": TEXTS[1]}), ("llama.cpp", TEXTS[1])):
        with serve("xinference", engine=engine) as server:
            assert ask(server).json()["results"][0]["document"] is None
            assert ask(server, return_documents=True).json()["results"][0]["document"] == echo
            assert ask(server, kwargs="{").status_code == 500
            assert ask(server, documents=OBJECTS).status_code == 500
    with serve("localai") as server:
        assert ask(server).json()["results"][0]["document"] == {"text": TEXTS[1]}
        refused = ask(server, top_n=0)
        assert (refused.status_code, isinstance(refused.json(), str)) == (422, True)


def test_sie() -> None:
    with serve("sie", provisioning=1, provisioning_retry_after=1) as server:
        waiting = ask(server)
        assert (waiting.status_code, waiting.headers["retry-after"]) == (202, "1")
        items = [{"id": f"id {index}", "text": text} for index, text in enumerate(TEXTS)]
        reply = ask(server, items=items, path="/v1/score/org/model").json()
        assert reply["model"] == "org/model"
        assert [each["rank"] for each in reply["scores"]] == [0, 1, 2, 3]
        assert reply["scores"][0]["item_id"] == "id 1"
        assert "index" not in reply["scores"][0]
        assert ask(server, items=TEXTS).json()["detail"]["code"] == "INVALID_INPUT"
        packed = post(server.url + "/v1/score/m", json=BODIES["sie"])
        assert packed.headers["content-type"] == "application/msgpack"
        assert packed.content.startswith(b"\xdf\x00\x00\x00\x03\xdb\x00\x00\x00\x05model")
        assert struct.pack(">d", relevance(QUERY, TEXTS[1])) in packed.content
