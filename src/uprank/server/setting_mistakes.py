"""What is wrong with settings, in words: by the names of settings, and never by what they hold."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ValidationError

__all__ = ["mistakes_in_settings", "no_such_settings"]

_Place = tuple[int | str, ...]

_KINDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
    "model_type": "a table",
    "path_type": "a path",
    "string_type": "a string",
    "tuple_type": "a list",
}
"""What each of pydantic's errors would have taken."""

_MORE: Mapping[_Place, str] = {
    ("models",): ' It says what is served, e.g. models.embedded = { model = "embedded" }.',
    ("keys",): " In TOML each key begins with [[keys]].",
}
"""Of settings whose form may not be clear."""

# A name without digits; others might be a key that stands in the wrong place.
_PLAIN = re.compile(r"[A-Za-z_-]{1,40}")


def mistakes_in_settings(error: ValidationError, tables: Mapping[str, type[BaseModel]]) -> str:
    """Tell what is wrong, in a sentence or more for each setting.

    Args:
        error: Of settings.
        tables: The tables that hold no other settings than their own, by name: ``limits``, ``keys``, and ``""`` for
            the whole.
    """
    unknown: dict[_Place, list[str]] = {}
    wrong, missing = [], []
    for one in error.errors(include_input=False, include_url=False):
        place = one["loc"]
        if one["type"] == "extra_forbidden":
            unknown.setdefault(place[:-1], []).append(str(place[-1]))
        elif one["type"] == "missing":
            missing.append(f"{_named(place)} is missing.{_MORE.get(place, '')}")
        else:
            wrong.append(_wrong(place, one["type"], one["msg"], one.get("ctx", {})))
    # What is missing comes last: it may well be there, under a name that is not quite right.
    return " ".join([*(_unknown(place, names, tables) for place, names in unknown.items()), *wrong, *missing])


def no_such_settings(names: Sequence[str], known: Sequence[str], meant: Mapping[str, str] | None = None) -> str:
    """Say that there are no such settings, which ones may be meant, and which there are.

    Args:
        names: Those that were given; not shown where they may be keys.
        known: Those that there are.
        meant: Of a given name, what is meant by it; of others it is what looks like them.
    """
    told = []
    for name in names:
        close = [meant[name]] if meant and name in meant else difflib.get_close_matches(name, known, n=1)
        instead = f"; did you mean {close[0]}?" if close else "."
        told.append(f"There is no setting {name if _PLAIN.fullmatch(name) else 'of that name'}{instead}")
    return f"{' '.join(told)} There are {', '.join(known)}."


def _unknown(place: _Place, names: Sequence[str], tables: Mapping[str, type[BaseModel]]) -> str:
    table = str(place[0]) if place else ""
    inner = {field: f"limits.{field}" for field in tables["limits"].model_fields} if not place else {}
    told = no_such_settings(names, list(tables[table].model_fields), inner)
    if table == "keys":
        told += ' The key itself stands elsewhere: env = "THE_NAME_OF_A_VARIABLE", or file = "PATH".'
    return f"In {_named(place)}: {told}" if place else told


def _wrong(place: _Place, kind: str, message: str, context: Mapping[str, object]) -> str:
    if kind == "invalid_key":
        return "The names of settings must be strings."
    if kind == "too_short":
        return f"{_named(place)} must not be empty.{_MORE.get(place, '')}"
    if kind in _KINDS:
        return f"{_named(place)} must be {_KINDS[kind].format(**context)}.{_MORE.get(place, '')}"
    told = message.removeprefix("Value error, ")
    return f"{_named(place)}: {told}." if place else f"{told}."


def _named(place: _Place) -> str:
    *around, last = map(str, place)
    if last == "[key]":  # of a table of names, e.g. of models
        return f'{".".join(around[:-1])}: the name "{around[-1]}"'
    return ".".join([*around, last])
