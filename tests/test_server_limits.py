"""What is read of documents that are objects, and what may not be cut."""

from __future__ import annotations

import httpx
import pytest

from serving import serving
from table_scorer import TableScorer
from uprank import Reranker
from uprank.scorers.evidence import Evidence

TABLE = {"a": 0.25, "b": 0.75}


def reading(*cut: str) -> Reranker:
    """A model that reads only the beginning of some texts, and says so."""
    return Reranker(TableScorer("table", TABLE, evidence=lambda text: Evidence(truncated=text in cut)))


@pytest.mark.parametrize("limits", [{"document_chars": 40}, {"batch_tokens": 20}])
def test_what_a_model_reads_beside_the_text_counts_too(limits):
    async def lengths(query: str, texts: list[str]) -> list[float]:
        return [float(len(text)) for text in texts]

    titled = Reranker(lengths, fields=["title", "text"])
    with serving({"titled": titled, "plain": Reranker(lengths)}, limits=limits) as address:

        def status(title: str, model: str) -> int:
            body = {"model": model, "query": "q", "documents": [{"title": title, "text": "a"}]}
            return httpx.post(f"{address}/v1/rerank", json=body).status_code

        assert status("short", "titled") == 200
        assert status("long " * 20, "titled") == 422
        assert status("long " * 20, "plain") == 200  # which does not read it


def test_that_none_may_be_cut_holds_for_documents_that_are_not_returned_too():
    with serving({"table": reading("a")}) as address:
        body = {"query": "q", "documents": ["a", "b"], "top_n": 1}
        allowed = httpx.post(f"{address}/v1/rerank", json=body)
        assert [result["index"] for result in allowed.json()["results"]] == [1]
        assert httpx.post(f"{address}/v1/rerank", json={**body, "truncation": False}).status_code == 422
    with serving({"table": reading()}) as address:
        reply = httpx.post(f"{address}/v1/rerank", json={**body, "truncation": False})
        assert [result["index"] for result in reply.json()["results"]] == [1]


def test_too_many_documents_are_refused_before_each_is_looked_at():
    with serving({"table": Reranker(TableScorer("table", TABLE))}, limits={"documents": 3}) as address:
        reply = httpx.post(f"{address}/v1/rerank", json={"query": "q", "documents": [17] * 4})
        assert reply.json()["error"]["type"] == "too_many_documents"


def test_compressed_bodies_are_refused_by_name():
    with serving({"table": Reranker(TableScorer("table", TABLE))}) as address:
        reply = httpx.post(f"{address}/v1/rerank", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (415, "unsupported_encoding")
