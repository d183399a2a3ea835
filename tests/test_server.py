"""The server, by plain requests."""

from __future__ import annotations

import httpx
import pytest

from serving import serving
from table_scorer import TableScorer
from uprank import Reranker


@pytest.fixture(scope="module")
def address():
    with serving(
        {"table": Reranker(TableScorer("table", {"a": 0.25, "b": 0.75, "c": 0.5}, kind="probability"))}
    ) as address:
        yield address


def test_documents_come_back_best_first_with_their_indices(address):
    reply = httpx.post(f"{address}/v1/rerank", json={"query": "q", "documents": ["a", "b", "c"], "top_n": 2})
    assert reply.status_code == 200
    assert reply.json()["results"] == [{"index": 1, "relevance_score": 0.75}, {"index": 2, "relevance_score": 0.5}]
    assert reply.json()["model"] == "table"
    assert reply.headers["x-request-id"] == reply.json()["id"]


@pytest.mark.parametrize("top_n", [None, 0, 3, 9])
def test_all_documents_come_back_for_null_zero_and_more_than_there_are(address, top_n):
    body = {"query": "q", "documents": ["a", "b", "c"], "top_n": top_n}
    assert [one["index"] for one in httpx.post(f"{address}/rerank", json=body).json()["results"]] == [1, 2, 0]
