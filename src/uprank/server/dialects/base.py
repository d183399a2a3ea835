"""What a dialect is: one class that reads a request body and writes the reply to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from uprank.documents import Document, DocumentLike
from uprank.errors import ConfigurationError, InvalidDocumentError
from uprank.fields import Rendering
from uprank.ranking import Ranking
from uprank.scorers.base import ScoreKind
from uprank.server.dialects.mistakes import mistakes_in
from uprank.server.dialects.scales import kind_on_scale, on_scale
from uprank.server.questions import Answer, Json, Question
from uprank.server.refusals import Refusal

__all__ = ["Body", "Count", "Given", "GivenDocuments", "Texts", "all_errors", "as_documents", "echoed", "usage_of"]

_SHOWN = 5

Given = str | dict[str, object]
"""A document: its text, or an object that holds it."""

# Of a million that are wrong, one error is enough.
Texts = Annotated[list[str], Field(fail_fast=True)]
"""Documents that must be strings."""

GivenDocuments = Annotated[list[Given], Field(fail_fast=True)]
"""Documents in either form."""


def _counted(value: object) -> object:
    """0 means all in some dialects, and no client that sends it can want nothing. In JSON, 5.0 is an integer."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value == 0 and not isinstance(value, bool) else value


Count = Annotated[
    Annotated[int, Field(ge=0, strict=True)] | None,
    BeforeValidator(_counted),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}),
]
"""How many results are wanted: ``null``, 0, and more than there are mean all."""


class Body(BaseModel):
    """A request body; the fields are the dialect's own.

    A new dialect is a subclass in a file of its own and a row in ``ROUTES``.

    Attributes:
        without_effect: Fields of the dialect that nothing here follows; the reply's warnings say so.
        unlisted: Fields that other clients of the dialect send, which are known and mean nothing.
        msgpack: Whether it is spoken in msgpack too.
        spoken_by: Whose clients speak it, for the documentation.
        examples: Requests, for the documentation, which shows them with the replies that this class gives.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    without_effect: ClassVar[Collection[str]] = ()
    unlisted: ClassVar[Collection[str]] = ()
    msgpack: ClassVar[bool] = False
    spoken_by: ClassVar[str] = ""
    examples: ClassVar[Sequence[Mapping[str, object]]] = ()

    @classmethod
    def fits(cls, given: Mapping[str, object]) -> bool:
        """Whether this dialect is meant, where a route speaks several."""
        return True

    @classmethod
    def read(cls, given: Mapping[str, object], *, strict: bool = False) -> Body:
        """Check a parsed body.

        Args:
            given: What the client sent.
            strict: Whether a field that the dialect does not have is an error.

        Raises:
            Refusal: 422, naming the fields that are wrong and nothing of what they hold.
        """
        if strict:
            known = cls.names()
            unknown = [name for name in given if name not in known]
            if unknown:
                named = ", ".join(repr(name[:50]) for name in unknown[:_SHOWN])
                raise Refusal(422, "unknown_field", f"There is no field {named}. There are {', '.join(sorted(known))}.")
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise Refusal(422, "invalid_request", mistakes_in(error)) from None

    @classmethod
    def names(cls) -> set[str]:
        """What the fields may be called."""
        known = set(cls.unlisted)
        for name, field in cls.model_fields.items():
            alias = field.validation_alias
            known.update(map(str, alias.choices) if isinstance(alias, AliasChoices) else [field.alias or name])
        return known

    def question(self) -> Question:
        """What the client asks.

        Raises:
            Refusal: If that is not to be had here.
        """
        raise NotImplementedError

    def reply(self, answer: Answer) -> Json:
        """The body of the reply."""
        raise NotImplementedError

    @property
    def raw(self) -> bool:
        """Whether the client wants logits, rather than probabilities, of models whose scores are one of the two."""
        return False

    def scores(self, ranking: Ranking) -> list[float | None]:
        """The scores of a ranking, best first, on the scale that the client wants."""
        return on_scale(ranking, raw=self.raw)

    def score_kind(self, answer: Answer) -> ScoreKind | None:
        """What the scores in the reply mean; ``None`` where there are none, or they differ in it."""
        scored = [ranking for ranking in answer.rankings if any(hit.score is not None for hit in ranking.hits)]
        kinds = {kind_on_scale(ranking.score_kind, raw=self.raw) for ranking in scored}
        return kinds.pop() if len(kinds) == 1 else None

    @classmethod
    def refused(cls, refusal: Refusal, request_id: str) -> Json:
        """The body that tells of a refusal."""
        return all_errors(refusal, request_id)

    @property
    def notes(self) -> tuple[str, ...]:
        """A warning for each field given that has no effect."""
        given = sorted(name for name in self.without_effect if getattr(self, name, None) is not None)
        return tuple(f"{name} has no effect here." for name in given)


def all_errors(refusal: Refusal, request_id: str) -> Json:
    """An error in which clients of Cohere, Jina, Voyage and OpenAI each find what they look for."""
    error = {"message": refusal.message, "type": refusal.code, "param": None, "code": refusal.status}
    return {"id": request_id, "message": refusal.message, "detail": refusal.message, "error": error}


def usage_of(answer: Answer) -> dict[str, int]:
    """What was read, as most dialects say it."""
    return {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens}


def echoed(given: Given) -> Given:
    """A client's own document, as it comes back in the dialects that have objects for it."""
    return {"text": given} if isinstance(given, str) else given


def as_documents(
    given: Sequence[Given], fields: Sequence[str] | None = None, *, called: str = "documents"
) -> list[DocumentLike]:
    """Documents as rerankers take them.

    Args:
        given: The client's; an object has its text under ``"text"``. What else it has is the document's metadata, for
            a model that was set up to read it.
        fields: Of an object, the fields that are scored instead, one a line.
        called: What the field with the documents is called, for the error.

    Raises:
        Refusal: 422, if an object has no text, or none of the fields.
    """
    if fields:
        return _rendered(given, fields, called)
    if set(map(type, given)) <= {str}:  # as nearly always
        return list(given)
    return [one if isinstance(one, str) else _with_text(number, one, called) for number, one in enumerate(given)]


def _with_text(number: int, given: dict[str, object], called: str) -> DocumentLike:
    text = given.get("text")
    if not isinstance(text, str):
        more = " Images cannot be reranked here." if "image" in given else ""
        raise Refusal(422, "invalid_request", f'{called}[{number}] has no string under "text".{more}')
    return text if len(given) == 1 else given


def _rendered(given: Sequence[Given], fields: Sequence[str], called: str) -> list[DocumentLike]:
    # The errors of the rendering are not handed on: they name the keys of a document.
    try:
        rendering = Rendering(fields)
    except ConfigurationError:
        raise Refusal(422, "invalid_request", "rank_fields must be names of fields, each once.") from None
    texts: list[DocumentLike] = []
    for number, one in enumerate(given):
        if isinstance(one, str):
            texts.append(one)
            continue
        text = one.get("text")
        try:
            texts.append(rendering.text(Document(text if isinstance(text, str) else "", metadata=one)))
        except InvalidDocumentError:
            told = f"{called}[{number}] has none of the rank_fields."
            raise Refusal(422, "invalid_request", told) from None
    return texts
