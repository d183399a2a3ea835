"""Request bodies as data: what each field may hold, and the first thing that is wrong with a body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Field:
    """One field of a request.

    Attributes:
        what: What the field must be, in words.
        allows: True for the values it may have.
        required: Whether it must be there.
        nullable: Whether null is as good as leaving it out; never so for a required one.
    """

    what: str
    allows: Callable[[object], bool]
    required: bool = False
    nullable: bool = True


@dataclass(frozen=True)
class Problem:
    """What is wrong with a body.

    Attributes:
        kind: A field is missing, has a wrong value, or is not known.
        field: Its name.
        message: Both in words.
        value: The value found.
    """

    kind: Literal["missing", "value", "unknown"]
    field: str
    message: str
    value: object = None


def _is_int(value: object, least: int, most: float) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def required(field: Field) -> Field:
    """The same field, but it must be there."""
    return replace(field, required=True, nullable=False)


def not_null(field: Field) -> Field:
    """The same field, which may be left out but not be null."""
    return replace(field, nullable=False)


def integer(least: int, most: float = float("inf")) -> Field:
    """A whole number from ``least`` to ``most``."""
    return Field(f"an integer of at least {least}", lambda value: _is_int(value, least, most))


def one_of(*values: str) -> Field:
    """One of some strings."""
    return Field(f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values)


def listed(what: str, allows: Callable[[object], bool], *, empty: bool = False) -> Field:
    """A list of things; ``empty`` says whether it may hold none."""
    return Field(
        f"a {'' if empty else 'non-empty '}list of {what}",
        lambda value: isinstance(value, list) and (empty or bool(value)) and all(map(allows, value)),
    )


def is_text(value: object) -> bool:
    """True for a string."""
    return isinstance(value, str)


def is_object(value: object) -> bool:
    """True for a JSON object."""
    return isinstance(value, dict)


def holds(value: object, *keys: str) -> bool:
    """True for an object with nothing but some of these keys, all strings."""
    return isinstance(value, dict) and bool(value) and all(key in keys and isinstance(value[key], str) for key in value)


TEXT = Field("a string", is_text)
FLAG = Field("a boolean", lambda value: isinstance(value, bool))
OBJECT = Field("an object", is_object)
TEXTS = listed("strings", is_text)
TEXTS_OR_NONE = listed("strings", is_text, empty=True)


def problems(body: Mapping[str, object], fields: Mapping[str, Field], *, refuse_unknown: bool) -> list[Problem]:
    """Everything that is wrong with a body, missing fields first, then wrong values, then unknown fields."""
    missing = [
        Problem("missing", name, f"field '{name}' is required")
        for name, field in fields.items()
        if field.required and name not in body
    ]
    wrong = [
        Problem("value", name, f"field '{name}' must be {field.what}", body[name])
        for name, field in fields.items()
        if name in body and not (body[name] is None and field.nullable) and not field.allows(body[name])
    ]
    unknown = [Problem("unknown", name, f"unknown field '{name}'", body[name]) for name in body if name not in fields]
    return [*missing, *wrong, *(unknown if refuse_unknown else [])]
