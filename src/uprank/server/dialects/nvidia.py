"""The ranking format of NVIDIA's NIM (https://docs.nvidia.com/nim/nemo-retriever/text-reranking/latest/)."""

from __future__ import annotations

from uprank.server.dialects.base import Body, Count, Given, GivenDocuments, as_documents, usage_of
from uprank.server.questions import Answer, Json, Question
from uprank.server.refusals import Refusal

__all__ = ["NvidiaBody", "NvidiaHostedBody"]


class NvidiaBody(Body):
    """A request as NVIDIA's clients send it: passages with a text each, and logits come back.

    ``truncate: "NONE"`` makes a passage that the model would cut an error. ``top_k``, which gateways send, is followed.
    """

    query: Given
    passages: GivenDocuments
    model: str | None = None
    truncate: str | None = None
    top_k: Count = None

    spoken_by = "NVIDIA NIM"
    examples = (
        {
            "model": "embedded",
            "query": {"text": "how do I parse JSON?"},
            "passages": [{"text": "Sourdough needs a starter."}, {"text": "Use json.loads to parse JSON."}],
            "truncate": "END",
        },
    )

    def question(self) -> Question:
        query = self.query if isinstance(self.query, str) else self.query.get("text")
        if not isinstance(query, str):
            raise Refusal(422, "invalid_request", 'query has no string under "text".')
        for number, passage in enumerate(self.passages):
            if not isinstance(passage, str) and passage.get("image") is not None:  # the other half would be scored
                told = f"passages[{number}] has an image. Images cannot be reranked here."
                raise Refusal(422, "invalid_request", told)
        passages = as_documents(self.passages, called="passages")
        return Question([query], [passages], self.asked_model, self.top_k, whole=self.truncate == "NONE")

    def reply(self, answer: Answer) -> Json:
        scored = zip(answer.ranking.hits, self.scores(answer.ranking), strict=True)
        return {
            "rankings": [{"index": hit.index, "logit": logit} for hit, logit in scored],
            "usage": usage_of(answer),
        }

    @property
    def raw(self) -> bool:
        return True

    @property
    def asked_model(self) -> str | None:
        """Which model is meant."""
        return self.model


class NvidiaHostedBody(NvidiaBody):
    """The same where the path names the model, with underscores for its dots; the body's name wins.

    Attributes:
        slug: The path's.
    """

    slug: str

    @property
    def asked_model(self) -> str | None:
        return self.model or self.slug
