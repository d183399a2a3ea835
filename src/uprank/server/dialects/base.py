"""What a dialect is: one class that reads a request body and writes the reply to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from uprank.documents import Document, DocumentLike
from uprank.fields import Rendering
from uprank.server.questions import Answer, Json, Question
from uprank.server.refusals import Refusal

__all__ = ["Body", "Count", "Given", "all_errors", "as_documents"]

_SHOWN = 5

Given = str | dict[str, object]
"""A document: its text, or an object that holds it."""


def _all_for_zero(value: object) -> object:
    """0 means all in some dialects, and no client that sends it can want nothing."""
    return None if value == 0 and not isinstance(value, bool) else value


Count = Annotated[Annotated[int, Field(ge=1, strict=True)] | None, BeforeValidator(_all_for_zero)]
"""How many results are wanted: ``null``, 0, and more than there are mean all."""


class Body(BaseModel):
    """A request body; the fields are the dialect's own.

    A new dialect is a subclass in a file of its own and a row in ``ROUTES``.

    Attributes:
        without_effect: Fields of the dialect that nothing here follows; the reply's warnings say so.
        unlisted: Fields that other clients of the dialect send, which are known and mean nothing.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    without_effect: ClassVar[Collection[str]] = ()
    unlisted: ClassVar[Collection[str]] = ()

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
            known = {field.alias or name for name, field in cls.model_fields.items()} | set(cls.unlisted)
            unknown = [name for name in given if name not in known]
            if unknown:
                named = ", ".join(repr(name[:50]) for name in unknown[:_SHOWN])
                raise Refusal(422, "unknown_field", f"There is no field {named}. There are {', '.join(sorted(known))}.")
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise Refusal(422, "invalid_request", _told(error)) from None

    def question(self) -> Question:
        """What the client asks.

        Raises:
            Refusal: If that is not to be had here.
        """
        raise NotImplementedError

    def reply(self, answer: Answer) -> Json:
        """The body of the reply."""
        raise NotImplementedError

    @classmethod
    def refused(cls, refusal: Refusal, request_id: str) -> Json:
        """The body that tells of a refusal."""
        return all_errors(refusal, request_id)

    @property
    def notes(self) -> tuple[str, ...]:
        """A warning for each field given that has no effect."""
        given = sorted(name for name in self.without_effect if getattr(self, name, None) is not None)
        return tuple(
            f"{name} has no effect: the server's settings say how much of a document is read." for name in given
        )


def all_errors(refusal: Refusal, request_id: str) -> Json:
    """An error in which clients of Cohere, Jina, Voyage and OpenAI each find what they look for."""
    error = {"message": refusal.message, "type": refusal.code, "param": None, "code": refusal.status}
    return {"id": request_id, "message": refusal.message, "detail": refusal.message, "error": error}


def as_documents(given: Sequence[Given], fields: Sequence[str] | None = None) -> list[DocumentLike]:
    """Documents as rerankers take them.

    Args:
        given: The client's; an object has its text under ``"text"``.
        fields: Of an object, the fields that are scored instead, one a line.

    Raises:
        Refusal: 422, if an object has no text.
    """
    rendering = Rendering(fields) if fields else None
    return [one if isinstance(one, str) else _text_of(number, one, rendering) for number, one in enumerate(given)]


def _text_of(number: int, given: Mapping[str, object], rendering: Rendering | None) -> DocumentLike:
    text = given.get("text")
    if rendering is not None:
        return rendering.text(Document(text if isinstance(text, str) else "", metadata=given))
    if not isinstance(text, str):
        more = " Images cannot be reranked here." if "image" in given else ""
        raise Refusal(422, "invalid_request", f'documents[{number}] has no string under "text".{more}')
    return text


def _told(error: ValidationError) -> str:
    """Where a body is wrong and why; never what it holds."""
    problems: dict[str, str] = {}
    for one in error.errors(include_input=False, include_url=False, include_context=False):
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in one["loc"])
        problems.setdefault(place.lstrip("."), one["msg"])
    shown = [f"{place}: {message}" for place, message in list(problems.items())[:_SHOWN]]
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "The request cannot be used. " + "; ".join(shown) + more
