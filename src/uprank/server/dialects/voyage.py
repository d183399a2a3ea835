"""Voyage's rerank format (https://docs.voyageai.com/reference/reranker-api)."""

from __future__ import annotations

from collections.abc import Mapping

from uprank.server.dialects.base import Body, Count, GivenDocuments, as_documents
from uprank.server.questions import Answer, Json, Question
from uprank.server.refusals import Refusal

__all__ = ["VoyageBody"]


class VoyageBody(Body):
    """A request as Voyage's clients send it: results are ``data``, and a document comes back as a string."""

    query: str
    documents: GivenDocuments
    model: str | None = None
    top_k: Count = None
    return_documents: bool | None = None
    truncation: bool | None = None

    spoken_by = "Voyage AI"
    examples = (
        {
            "model": "rerank-2.5",
            "query": "how do I parse JSON?",
            "documents": ["Sourdough needs a starter.", "Use json.loads to parse JSON."],
            "top_k": None,
            "truncation": True,
        },
        {
            "model": "rerank-2.5",
            "query": "how do I parse JSON?",
            "documents": ["Sourdough needs a starter.", "Use json.loads to parse JSON."],
            "top_k": 1,
            "truncation": True,
            "return_documents": True,
        },
    )

    @classmethod
    def fits(cls, given: Mapping[str, object]) -> bool:
        """Whether this is what its own client always sends, and no other: one that fills in all fields sends nulls."""
        return "top_k" in given and "top_n" not in given and isinstance(given.get("truncation"), bool)

    def question(self) -> Question:
        documents = as_documents(self.documents)
        return Question([self.query], [documents], self.model, self.top_k, whole=self.truncation is False)

    def reply(self, answer: Answer) -> Json:
        hits = answer.ranking.hits
        scored = zip(hits, self.scores(answer.ranking), strict=True)
        data: list[dict[str, object]] = [{"index": hit.index, "relevance_score": score} for hit, score in scored]
        if self.return_documents:
            for result, hit in zip(data, hits, strict=True):
                result["document"] = hit.document.text
        return {"object": "list", "data": data, "model": answer.model, "usage": {"total_tokens": answer.tokens}}

    @classmethod
    def refused(cls, refusal: Refusal, request_id: str) -> Json:
        return {"detail": refusal.message}
