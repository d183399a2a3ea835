"""Mixedbread's reranking format (https://www.mixedbread.com/api-reference/endpoints/reranking)."""

from __future__ import annotations

from collections.abc import Mapping

from uprank.server.dialects.base import Body, Count, GivenDocuments, as_documents, usage_of
from uprank.server.questions import Answer, Json, Question

__all__ = ["MixedbreadBody"]


class MixedbreadBody(Body):
    """A request as Mixedbread's clients send it: documents are called ``input``, and come back as they were sent."""

    query: str
    input: GivenDocuments
    model: str | None = None
    rank_fields: list[str] | None = None
    top_k: Count = None
    return_input: bool | None = None
    instruction: str | None = None

    unlisted = ("rewrite_query",)
    spoken_by = "Mixedbread"
    examples = (
        {
            "model": "embedded",
            "query": "how do I parse JSON?",
            "input": ["Sourdough needs a starter.", "Use json.loads to parse JSON."],
        },
        {
            "model": "embedded",
            "query": "how do I parse JSON?",
            "input": [{"title": "Bread", "text": "Sourdough needs a starter."}, "Use json.loads to parse JSON."],
            "top_k": 2,
            "return_input": True,
        },
    )

    @classmethod
    def fits(cls, given: Mapping[str, object]) -> bool:
        return "input" in given and "documents" not in given

    def question(self) -> Question:
        documents = as_documents(self.input, self.rank_fields, called="input")
        return Question([self.query], [documents], self.model, self.top_k, self.instruction)

    def reply(self, answer: Answer) -> Json:
        given = self.input if self.return_input else [None] * len(self.input)
        scored = zip(answer.ranking.hits, self.scores(answer.ranking), strict=True)
        return {
            "object": "list",
            "model": answer.model,
            "data": [
                {"index": hit.index, "score": score, "input": given[hit.index], "object": "rank_result"}
                for hit, score in scored
            ],
            "usage": usage_of(answer),
            "top_k": self.top_k or len(self.input),
            "return_input": bool(self.return_input),
        }
