"""What the server says, for its documentation: replies made by the dialects themselves, and schemas read off them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic_core import from_json, to_json

from uprank.documents import as_document
from uprank.ranking import RankedDocument, Ranking
from uprank.scorers.base import Usage
from uprank.server.dialects.base import Body
from uprank.server.questions import Answer, Question
from uprank.server.refusals import Refusal

__all__ = ["REFUSALS", "REQUEST_ID", "objects_in", "refusal_sample", "reply_samples", "schema_of"]

REQUEST_ID = "5f0c4bb1a6d34c0d9a3a1f6a6c2e7b90"

REFUSALS: Mapping[int, tuple[str, Refusal]] = {
    one.status: (told, one)
    for told, one in (
        ("The body is not what it should be.", Refusal(400, "invalid_json", "The body is not JSON in UTF-8.")),
        ("The key is missing or wrong.", Refusal(401, "invalid_api_key", "The key is none of this server's.")),
        (
            "A web page of another origin asks.",
            Refusal(403, "origin_not_allowed", "Web pages of this origin may not use this server."),
        ),
        ("There is no such model.", Refusal(404, "model_not_found", "There is no such model here.")),
        ("The body did not come in time.", Refusal(408, "body_too_slow", "The body was not there after 60 s.")),
        (
            "The body is larger than the server allows.",
            Refusal(413, "body_too_large", "The body has more than the 16777216 bytes that are allowed here."),
        ),
        (
            "The body is compressed.",
            Refusal(415, "unsupported_encoding", "The body is compressed; send it as it is."),
        ),
        (
            "A field is wrong, or there is more of something than the server allows.",
            Refusal(422, "invalid_request", "The request cannot be used. query is missing."),
        ),
        (
            "The key's rate is used up, or too many requests are under way. Try again after Retry-After.",
            Refusal(429, "overloaded", "Too many requests are under way here.", retry_after=1),
        ),
        ("The server failed.", Refusal(500, "internal_error", "The server failed.")),
        (
            "A service behind this one failed.",
            Refusal(502, "upstream_error", "The service behind this model failed (HTTP 500)."),
        ),
        (
            "The model cannot be used now. Try again after Retry-After.",
            Refusal(503, "model_unavailable", "The model could not be loaded.", retry_after=5),
        ),
        ("There was no answer within the server's deadline.", Refusal(504, "deadline_exceeded", "No answer in time.")),
    )
}
"""By status, what it means and how a dialect is asked to say it."""


def objects_in(value: object) -> list[object]:
    """The objects that a value holds, at any depth."""
    if isinstance(value, Mapping):
        return [value, *(one for inner in value.values() for one in objects_in(inner))]
    return [one for inner in value for one in objects_in(inner)] if isinstance(value, (list, tuple)) else []


def reply_samples(dialect: type[Body], path_parameters: Mapping[str, str]) -> list[tuple[object, object]]:
    """The replies to a dialect's examples.

    Args:
        dialect: Its examples are read, ranked by the words that documents share with the query, and replied to.
        path_parameters: Of a path on which it is spoken.

    Returns:
        For each example the reply, and the reply where a model gave no scores but the original order and a warning.
    """
    samples = []
    for example in dialect.examples:
        body = dialect.read({**example, **path_parameters})
        question = body.question()
        samples.append((_reply(body, question, scored=True), _reply(body, question, scored=False)))
    return samples


def refusal_sample(dialect: type[Body], refusal: Refusal) -> object:
    """How a dialect tells of a refusal."""
    return from_json(to_json(dialect.refused(refusal, REQUEST_ID)))


def schema_of(values: Iterable[object], *, echoes: Sequence[object] = ()) -> dict[str, object]:
    """The JSON schema that all these values have.

    Args:
        values: What JSON has. Only keys that every object has are required; other keys than those seen are allowed.
            Of what is ``null`` in all of them nothing is said.
        echoes: Objects of the client's; where they come back, nothing is said of their keys.
    """
    found: dict[str, list[object]] = {}
    for value in values:
        found.setdefault(_kind(value), []).append(value)
    if "number" in found:
        found.pop("integer", None)
    schemas = [_schema_of_kind(kind, alike, echoes) for kind, alike in found.items()]
    if not schemas or list(found) == ["null"]:
        return {}
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _reply(body: Body, question: Question, *, scored: bool) -> object:
    rankings = [
        _ranking(*pair, question.top_n, scored=scored)
        for pair in zip(question.queries, question.documents, strict=True)
    ]
    answer = Answer(question, rankings, "embedded", REQUEST_ID, created=1_767_225_600)
    return from_json(to_json(body.reply(answer)))


def _ranking(query: str, documents: Sequence[object], top_n: int | None, *, scored: bool) -> Ranking:
    words = set(query.lower().split())
    given = [as_document(one, f"documents[{index}]") for index, one in enumerate(documents)]  # type: ignore[arg-type]  # checked there
    scores = [len(words & set(one.text.lower().split())) / (len(words) + 1) for one in given]
    order = sorted(range(len(given)), key=lambda index: (-scores[index] if scored else 0, index))
    hits = [
        RankedDocument(given[index], index, rank, round(scores[index], 4) if scored else None)
        for rank, index in enumerate(order[:top_n])
    ]
    warnings = () if scored else ("Nothing was scored.",)
    usage = Usage(tokens=sum(len(one.text.split()) + len(words) for one in given))
    return Ranking(query, tuple(hits), "embedded", "probability", usage, degraded=not scored, warnings=warnings)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, (list, tuple)):
        return "array"
    return {bool: "boolean", int: "integer", float: "number"}.get(type(value), "string")


def _schema_of_kind(kind: str, values: Sequence[object], echoes: Sequence[object]) -> dict[str, object]:
    schema: dict[str, object] = {"type": kind}
    if kind == "array":
        within = [one for value in values if isinstance(value, list) for one in value]
        schema["items"] = schema_of(within, echoes=echoes)
    elif kind == "object" and not any(value in echoes for value in values):
        objects = [value for value in values if isinstance(value, Mapping)]
        names = list(dict.fromkeys(name for one in objects for name in one))
        schema["properties"] = {
            name: schema_of((one[name] for one in objects if name in one), echoes=echoes) for name in names
        }
        required = [name for name in names if all(name in one for one in objects)]
        if required:
            schema["required"] = required
    return schema
