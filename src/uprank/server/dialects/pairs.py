"""vLLM's score format (https://docs.vllm.ai/en/latest/models/pooling_models.html): pairs of texts, in their order."""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasChoices, Field

from uprank.server.dialects.base import Body, Texts, usage_of
from uprank.server.questions import Answer, Json, Question
from uprank.server.refusals import Refusal

__all__ = ["PairsBody"]


class PairsBody(Body):
    """Texts to be scored in pairs: one with one, one with many, or as many with as many.

    Scores come in the order of the pairs. They are probabilities, or logits with ``use_activation: false``, of models
    whose scores are one of the two; ``null`` is the score of a document that the model was set up to leave out.
    """

    data_1: Annotated[str | Texts, Field(validation_alias=AliasChoices("data_1", "text_1", "queries"))]
    data_2: Annotated[str | Texts, Field(validation_alias=AliasChoices("data_2", "text_2", "documents", "items"))]
    model: str | None = None
    instruction: str | None = None
    use_activation: bool | None = None

    unlisted = (
        "cache_salt",
        "max_tokens_per_doc",
        "max_tokens_per_query",
        "mm_processor_kwargs",
        "priority",
        "request_id",
        "truncate_prompt_tokens",
        "truncation_side",
        "user",
    )
    spoken_by = "vLLM"
    examples = (
        {
            "model": "embedded",
            "data_1": "how do I parse JSON?",
            "data_2": ["Sourdough needs a starter.", "Use json.loads to parse JSON."],
        },
        {
            "model": "embedded",
            "queries": ["how do I parse JSON?", "how do I bake bread?"],
            "documents": ["Use json.loads to parse JSON.", "Sourdough needs a starter."],
        },
    )

    def question(self) -> Question:
        queries = [self.data_1] if isinstance(self.data_1, str) else self.data_1
        documents = [self.data_2] if isinstance(self.data_2, str) else self.data_2
        if len(queries) == 1:
            # All scores are wanted, however few documents the model was set up to return.
            return Question(queries, [documents], self.model, len(documents) or None, self.instruction)
        if len(queries) != len(documents):
            told = f"{len(queries)} and {len(documents)} texts make no pairs: give one and many, or as many of both."
            raise Refusal(422, "invalid_request", told)
        return Question(queries, [[one] for one in documents], self.model, None, self.instruction)

    def reply(self, answer: Answer) -> Json:
        scores: list[float | None] = []
        for ranking, texts in zip(answer.rankings, answer.question.documents, strict=True):
            in_order: list[float | None] = [None] * len(texts)
            for hit, score in zip(ranking.hits, self.scores(ranking), strict=True):
                in_order[hit.index] = score
            scores += in_order
        return {
            "id": answer.request_id,
            "object": "list",
            "created": answer.created,
            "model": answer.model,
            "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
            "usage": usage_of(answer),
        }

    @property
    def raw(self) -> bool:
        return self.use_activation is False
