"""The rerank format that Cohere began and most services and servers share, in one reply that suits all their clients.

Read by clients of Cohere v1 and v2 (https://docs.cohere.com/reference/rerank), Jina (https://api.jina.ai/redoc),
vLLM, llama.cpp, Infinity, Xinference, LocalAI, Together and OpenRouter. Documents come back where the request has
``return_documents: true``, and not otherwise: the services differ in what they do unasked.

The simple form is spoken here too: ``{query, documents, top_k, return_documents}``, or ``{query, documents, config:
{model, top_k}}``. It is known by ``top_k`` or ``config``, which no client of the others sends; ``top_n`` wins over
both. Its reply is the other's with more keys; only ``document`` is a string in it, not an object. A request of nothing
but query and documents may be either: it gets all keys, and objects.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from uprank.server.dialects.base import Body, Count, GivenDocuments, as_documents, echoed, usage_of
from uprank.server.questions import Answer, Json, Question

__all__ = ["Config", "RerankBody", "RerankV1Body"]

_IN_ALL_FORMS = frozenset(("query", "documents", "return_documents"))
_SIMPLE = _IN_ALL_FORMS | {"top_k"}


class Config(BaseModel):
    """What one of the simple forms has in an object of its own."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    model: str | None = None
    top_k: Count = None


class RerankBody(Body):
    """A rerank request. Every optional field may be ``null``."""

    query: str
    documents: GivenDocuments
    model: str | None = None
    top_n: Count = None
    top_k: Count = None
    config: Config | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None
    instruction: Annotated[str | None, Field(validation_alias=AliasChoices("instruction", "instruct", "task"))] = None
    truncation: bool | None = None
    raw_scores: bool | None = None
    use_activation: bool | None = None
    max_tokens_per_doc: int | None = None
    max_tokens_per_query: int | None = None
    max_chunks_per_doc: int | None = None
    max_doc_length: int | None = None
    truncate_prompt_tokens: int | None = None
    relevant_spans: dict[str, object] | None = None
    return_embeddings: bool | None = None

    api_version: ClassVar[str] = "2"
    without_effect = (
        "max_chunks_per_doc",
        "max_doc_length",
        "max_tokens_per_doc",
        "max_tokens_per_query",
        "relevant_spans",
        "return_embeddings",
        "truncate_prompt_tokens",
    )
    unlisted = (
        "api_version",
        "backend",
        "cache_salt",
        "kwargs",
        "mm_processor_kwargs",
        "parameters",
        "priority",
        "provider",
        "request_id",
        "return_len",
        "truncation_side",
        "user",
    )
    spoken_by = (
        "Cohere, Jina, vLLM, llama.cpp, Infinity, Xinference, LocalAI, Together, OpenRouter; and the simple form"
    )
    examples = (
        {
            "model": "embedded",
            "query": "how do I parse JSON?",
            "documents": ["Sourdough needs a starter.", "Use json.loads to parse JSON."],
            "top_n": 1,
        },
        {
            "model": "embedded",
            "query": "how do I parse JSON?",
            "documents": [{"text": "Use json.loads to parse JSON.", "id": "7"}, "Sourdough needs a starter."],
            "return_documents": True,
        },
        {
            "query": "how do I parse JSON?",
            "documents": ["Sourdough needs a starter.", "Use json.loads to parse JSON."],
            "top_k": 1,
            "return_documents": True,
        },
    )

    def question(self) -> Question:
        in_config = self.config or Config()
        return Question(
            [self.query],
            [as_documents(self.documents, self.rank_fields)],
            self.model or in_config.model,
            self.top_n or self.top_k or in_config.top_k,
            self.instruction,
            whole=self.truncation is False,
            notes=self.notes,
        )

    def reply(self, answer: Answer) -> Json:
        ranking = answer.ranking
        scored = zip(ranking.hits, self.scores(ranking), strict=True)
        simple, given = self._is_simple, self.documents
        every_key = simple or all(getattr(self, name) is None for name in self.model_fields_set - _IN_ALL_FORMS)
        results: list[dict[str, object]]
        if every_key:
            results = [{"index": hit.index, "relevance_score": score, "score": score} for hit, score in scored]
        else:
            results = [{"index": hit.index, "relevance_score": score} for hit, score in scored]
        if self.return_documents:
            for result, hit in zip(results, ranking.hits, strict=True):
                result["document"] = hit.document.text if simple else echoed(given[hit.index])
        reply: dict[str, object] = {
            "id": answer.request_id,
            "object": "list",
            "model": answer.model,
            "results": results,
            "usage": usage_of(answer),
            "meta": {
                "api_version": {"version": self.api_version},
                "billed_units": {"search_units": 1},
                "warnings": list(answer.warnings),
            },
        }
        if every_key:
            counts = {"total_documents": len(given), "returned_documents": len(results)}
            reply.update(query=self.query, **counts)
        return reply

    @property
    def raw(self) -> bool:
        # Infinity says raw_scores, vLLM the opposite.
        return bool(self.raw_scores) if self.use_activation is None else not self.use_activation

    @property
    def _is_simple(self) -> bool:
        if self.top_n is not None:
            return False
        named = self.model_fields_set  # of a client that fills in every field it knows, most are null
        alone = "top_k" in named and named <= _SIMPLE
        return alone or self.top_k is not None or self.config is not None


class RerankV1Body(RerankBody):
    """The same where version 1 is asked for: clients find it in the reply."""

    api_version = "1"
