"""The score format of SIE (https://github.com/superlinked/sie), in JSON and in msgpack."""

from __future__ import annotations

from uprank.server.dialects.base import Body, Given, GivenDocuments
from uprank.server.questions import Answer, Json, Question
from uprank.server.refusals import Refusal

__all__ = ["SieBody"]

_CODES = {
    "missing_api_key": "UNAUTHORIZED",
    "invalid_api_key": "UNAUTHORIZED",
    "model_not_found": "MODEL_NOT_FOUND",
    "model_unavailable": "MODEL_LOAD_FAILED",
    "overloaded": "QUEUE_FULL",
    "rate_limited": "QUEUE_FULL",
}


class SieBody(Body):
    """A request as SIE's clients send it: items with ids of their own, by which the scores name them.

    Attributes:
        model: The path's.
    """

    model: str
    query: Given
    items: GivenDocuments
    instruction: str | None = None

    unlisted = ("options",)
    msgpack = True
    spoken_by = "SIE"
    examples = (
        {
            "query": {"id": "q1", "text": "how do I parse JSON?"},
            "items": [
                {"id": "bread", "text": "Sourdough needs a starter."},
                {"id": "json", "text": "Use json.loads to parse JSON."},
            ],
        },
        {
            "query": {"text": "how do I parse JSON?"},
            "items": [{"text": "Sourdough needs a starter."}, {"text": "Use json.loads to parse JSON."}],
        },
    )

    def question(self) -> Question:
        items = [one if isinstance(one, str) else _text_of(one, number) for number, one in enumerate(self.items)]
        query = self.query if isinstance(self.query, str) else _text_of(self.query)
        return Question([query], [items], self.model, instruction=self.instruction)

    def reply(self, answer: Answer) -> Json:
        scored = zip(answer.ranking.hits, self.scores(answer.ranking), strict=True)
        ids = [_id_of(item, f"item-{number}") for number, item in enumerate(self.items)]
        return {
            "model": answer.model,
            "query_id": _id_of(self.query, None),
            "scores": [
                {"item_id": ids[hit.index], "score": score, "rank": rank} for rank, (hit, score) in enumerate(scored)
            ],
        }

    @classmethod
    def refused(cls, refusal: Refusal, request_id: str) -> Json:
        code = _CODES.get(refusal.code, "INVALID_INPUT" if refusal.status < 500 else "INTERNAL_ERROR")
        return {"detail": {"code": code, "message": refusal.message}}


def _text_of(given: dict[str, object], number: int | None = None) -> str:
    text = given.get("text")
    if isinstance(text, str) and not given.get("images"):
        return text
    where = "query" if number is None else f"items[{number}]"
    what = "has images. Images cannot be reranked here" if given.get("images") else 'has no string under "text"'
    raise Refusal(422, "invalid_request", f"{where} {what}.")


def _id_of(given: Given, default: str | None) -> str | None:
    found = None if isinstance(given, str) else given.get("id")
    return found if isinstance(found, str) else default
