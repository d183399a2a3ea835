"""The rerank format of Text Embeddings Inference (https://huggingface.github.io/text-embeddings-inference/)."""

from __future__ import annotations

from collections.abc import Mapping

from uprank.server.dialects.base import Body, Count, Texts
from uprank.server.questions import Answer, Json, Question
from uprank.server.refusals import Refusal

__all__ = ["TeiBody"]

_KINDS = {429: "Overloaded", 503: "Unhealthy"}


class TeiBody(Body):
    """A request as TEI's clients send it: documents are called ``texts``, and the reply is a bare list.

    Scores are probabilities, or logits with ``raw_scores``, of models whose scores are one of the two. ``truncate:
    false`` makes a text that the model would cut an error; without it texts are cut. TEI itself serves one model and
    returns everything; ``model`` and ``top_n`` are taken too, since gateways send them.
    """

    query: str
    texts: Texts
    truncate: bool | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None
    model: str | None = None
    top_n: Count = None

    unlisted = ("truncation_direction",)
    spoken_by = "Text Embeddings Inference"
    examples = (
        {
            "query": "how do I parse JSON?",
            "texts": ["Sourdough needs a starter.", "Use json.loads to parse JSON."],
            "raw_scores": False,
            "return_text": False,
            "truncate": True,
        },
        {
            "query": "how do I parse JSON?",
            "texts": ["Sourdough needs a starter.", "Use json.loads to parse JSON."],
            "return_text": True,
        },
    )

    @classmethod
    def fits(cls, given: Mapping[str, object]) -> bool:
        return "texts" in given and "documents" not in given

    def question(self) -> Question:
        return Question([self.query], [self.texts], self.model, self.top_n, whole=self.truncate is False)

    def reply(self, answer: Answer) -> Json:
        scored = zip(answer.ranking.hits, self.scores(answer.ranking), strict=True)
        if self.return_text:
            return [{"index": hit.index, "text": self.texts[hit.index], "score": score} for hit, score in scored]
        return [{"index": hit.index, "score": score} for hit, score in scored]

    @property
    def raw(self) -> bool:
        return bool(self.raw_scores)

    @classmethod
    def refused(cls, refusal: Refusal, request_id: str) -> Json:
        kind = _KINDS.get(refusal.status, "Validation" if refusal.status < 500 else "Backend")
        return {"error": refusal.message, "error_type": kind}
