"""What is wrong with a request body, told by places and kinds, and never by what the body holds."""

from __future__ import annotations

import re

from pydantic import ValidationError

__all__ = ["mistakes_in"]

_SHOWN = 5
_LONGEST_NAME = 50

_KINDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "an object",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "an object",
    "none_required": "null",
    "string_type": "a string",
    "tuple_type": "a list",
}
"""What each of pydantic's errors of type would have taken."""


def mistakes_in(error: ValidationError) -> str:
    """Tell where a body is wrong and why, each place once.

    Args:
        error: Of a body's class. Of a place that takes one of several types it has an error for each.
    """
    kinds: dict[str, list[str]] = {}
    others: dict[str, str] = {}
    for one in error.errors(include_input=False, include_url=False, include_context=False):
        place = _place(one["loc"])
        if one["type"] in _KINDS:
            kinds.setdefault(place, []).append(_KINDS[one["type"]])
        elif one["type"] == "missing":
            others.setdefault(place, f"{place} is missing")
        else:
            others.setdefault(place, f"{place}: {_told(one['msg'])}")
    # A place that was almost right is better described by what it lacks than by its other types.
    told = {**{place: f"{place} must be {_either(types)}" for place, types in kinds.items()}, **others}
    shown = list(told.values())[:_SHOWN]
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return f"The request cannot be used. {'; '.join(shown)}{more}."


def _told(message: str) -> str:
    return re.sub(r"greater than or equal to (\S+)", r"\1 or more", message.replace("Input should be", "it must be"))


def _place(parts: tuple[int | str, ...]) -> str:
    """Where it is; of a union's types, which pydantic names as if they were fields, none is shown."""
    place = ""
    for part in parts:
        if isinstance(part, int):
            place += f"[{part}]"
        elif _names_field(part):
            place += f".{part}" if place else part
    return place or "the body"


def _names_field(part: str) -> bool:
    # Fields are lower-case words; types are built-in ones, such as "dict[str,any]", or classes and functions.
    return part.isidentifier() and part.islower() and part not in _TYPES and len(part) <= _LONGEST_NAME


_TYPES = frozenset({"bool", "bytes", "dict", "float", "int", "list", "none", "nullable", "str", "tuple"})


def _either(types: list[str]) -> str:
    *first, last = dict.fromkeys(types)
    return f"{', '.join(first)} or {last}" if first else last
