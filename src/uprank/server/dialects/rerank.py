"""The rerank format that Cohere began and most services and servers share, in one reply that suits all their clients.

Read by clients of Cohere v1 and v2 (https://docs.cohere.com/reference/rerank), Jina (https://api.jina.ai/redoc),
vLLM, llama.cpp, Infinity, Xinference, LocalAI, Together and OpenRouter.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasChoices, Field

from uprank.server.dialects.base import Body, Count, Given, as_documents
from uprank.server.questions import Answer, Json, Question

__all__ = ["RerankBody"]


class RerankBody(Body):
    """A rerank request. Every optional field may be ``null``."""

    query: str
    documents: list[Given]
    model: str | None = None
    top_n: Count = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None
    instruction: Annotated[str | None, Field(validation_alias=AliasChoices("instruction", "instruct", "task"))] = None
    truncation: bool | None = None
    max_tokens_per_doc: int | None = None
    max_chunks_per_doc: int | None = None
    max_doc_length: int | None = None

    without_effect = ("max_chunks_per_doc", "max_doc_length", "max_tokens_per_doc")

    def question(self) -> Question:
        return Question(
            [self.query],
            [as_documents(self.documents, self.rank_fields)],
            self.model,
            self.top_n,
            self.instruction,
            whole=self.truncation is False,
            notes=self.notes,
        )

    def reply(self, answer: Answer) -> Json:
        results: list[dict[str, object]] = [
            {"index": hit.index, "relevance_score": hit.score} for hit in answer.ranking.hits
        ]
        if self.return_documents:
            for result, hit in zip(results, answer.ranking.hits, strict=True):
                given = self.documents[hit.index]
                result["document"] = {"text": given} if isinstance(given, str) else given
        return {
            "id": answer.request_id,
            "object": "list",
            "model": answer.model,
            "results": results,
            "usage": {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens},
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": 1},
                "warnings": list(answer.warnings),
            },
        }
