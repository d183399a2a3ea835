"""JSON as models write it: inside prose, broken off, with single quotes. Never raises, never recurses."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = [
    "LABEL_KEYS",
    "RANK_KEYS",
    "SCORE_KEYS",
    "Pairs",
    "Root",
    "Value",
    "members",
    "name_of",
    "names",
    "number_of",
    "read_json",
]


@dataclass(slots=True)
class Pairs:
    """An object, with every key in order, also those that come twice."""

    items: list[tuple[str, Value]] = field(default_factory=list)

    def get(self, wanted: Sequence[str]) -> Value:
        """The value of the first of these names (see :func:`name_of`) that is there; ``None`` if there is none."""
        return next(self.get_all(wanted), None)

    def get_all(self, wanted: Sequence[str]) -> Iterator[Value]:
        """The values of all of these names that are there, in the order of the names."""
        found = {name_of(key): value for key, value in reversed(self.items)}
        return (found[name] for name in wanted if name in found)

    def has(self, wanted: Sequence[str]) -> bool:
        """Whether one of these names is there."""
        return any(name_of(key) in wanted for key, _ in self.items)


Value: TypeAlias = "str | int | float | bool | list[Value] | Pairs | None"


@dataclass(frozen=True, slots=True)
class Root:
    """One outermost object or list of a text.

    Args:
        value: What was read of it.
        start: Where it begins in the text.
        end: Where it ends, or where reading stopped.
        state: ``"truncated"`` if the text ends before it does, ``"broken"`` if it goes on as no JSON does. What was
            complete before that is in ``value``; the number or string that the text breaks off in is not.
    """

    value: list[Value] | Pairs
    start: int
    end: int
    state: Literal["complete", "truncated", "broken"]


# A list of one number is no root: "[3] > [1]" is a chain.
_OPENING = re.compile(
    r"\{(?=\s{0,200}[\w\"'}])"
    r"|\[(?=[\[{\s]{0,16}(?:[\"']|-?\w{1,32}\s{0,16}[,:])|\s{0,16}\[[\[\s]{0,16}-?\w{1,32}\s{0,16}\])"
)
_TOKEN = re.compile(
    r"\s*(?:(?P<mark>[\[\]{},:])"
    r"|\"(?P<double>[^\"\\]*(?:\\.[^\"\\]*)*)(?P<ended>\"?)"
    r"|'(?P<single>[^'\\]*(?:\\.[^'\\]*)*)(?P<closed>'?)"
    r"|(?P<bare>[^\s\[\]{},:\"']+))",
    re.DOTALL,
)
_INTEGER = re.compile(r"-?[0-9]{1,15}")
_FLOAT = re.compile(r"-?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,4})?")
_CONSTANTS: dict[str, Value] = {
    "true": True,
    "false": False,
    "null": None,
    "none": None,
    "nan": math.nan,
    "infinity": math.inf,
}


def names(text: str) -> tuple[str, ...]:
    """The words of a text, as names of keys, the first being the best."""
    return tuple(text.split())


def name_of(key: str) -> str:
    """A key without what spellings of it differ in: ``"Passage_ID"`` and ``"passageId"`` are the same."""
    return re.sub(r"[^a-z]", "", key[:40].lower())


# What models call a passage, its place and its grade, in the order in which they count.
LABEL_KEYS = names(
    "passage label passageid passagelabel passagenumber id document documentid documentnumber doc docid identifier "
    "index number name"
)
RANK_KEYS = names("rank ranking position order")
SCORE_KEYS = names("grade relevancegrade score relevancescore relevance rating")

_PLAIN = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,12})?")


def number_of(value: Value) -> int | float | None:
    """A finite number, or a string that is a plain one (``"9.5"``, not ``"8/10"`` or ``"1e3"``); else ``None``."""
    if isinstance(value, str) and _PLAIN.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def read_json(text: str) -> list[Root]:
    """Return every object, and every list that is more than one bare number, in the order in which they stand."""
    roots: list[Root] = []
    start = _OPENING.search(text)
    while start:
        root = _Reader(text, start.start()).read()
        roots.append(root)
        start = _OPENING.search(text, root.end)
    return roots


def members(value: Value) -> Iterator[tuple[str, Value]]:
    """Every key and value at any depth, outer before inner."""
    todo: list[Value] = [value]
    while todo:
        inner: list[Value] = []
        for each in todo:
            if isinstance(each, Pairs):
                yield from each.items
                inner += [one for _, one in each.items]
            elif isinstance(each, list):
                inner += each
        todo = inner


class _Reader:
    """Reads one root. ``self._wants`` holds, for each open container, what may come next."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._start = start
        self._open: list[list[Value] | Pairs] = []
        self._wants: list[Literal["value", "key", "colon", "comma"]] = []
        self._keys: list[str] = []

    def read(self) -> Root:
        root: list[Value] | Pairs = Pairs() if self._text[self._start] == "{" else []
        self._enter(root)
        position = self._start + 1
        while True:
            token = _TOKEN.match(self._text, position)
            if token is None:
                return Root(root, self._start, len(self._text), "truncated")
            if token["mark"]:
                if not self._mark(token["mark"]):
                    return Root(root, self._start, token.end() - 1, "broken")
                if not self._open:
                    return Root(root, self._start, token.end(), "complete")
            else:
                quoted = token["bare"] is None
                if token.end() == len(self._text) and not (token["ended"] or token["closed"]):
                    return Root(root, self._start, len(self._text), "truncated")
                if not self._scalar(_scalar(token), quoted=quoted):
                    return Root(root, self._start, token.end(), "broken")
            position = token.end()

    def _enter(self, container: list[Value] | Pairs) -> None:
        self._open.append(container)
        self._wants.append("key" if isinstance(container, Pairs) else "value")
        self._keys.append("")

    def _mark(self, mark: str) -> bool:
        """Take a bracket, comma or colon; whether it may stand here."""
        container, wants = self._open[-1], self._wants[-1]
        if mark in "[{":
            if not self._may_come(quoted=True):
                return False
            inner: list[Value] | Pairs = Pairs() if mark == "{" else []
            self._attach(inner)
            self._enter(inner)
            return True
        if mark in "]}":
            if (mark == "}") is not isinstance(container, Pairs):
                return False
            for stack in (self._open, self._wants, self._keys):
                stack.pop()
            return True
        if mark == ",":
            if wants not in ("comma", "value" if isinstance(container, list) else "key"):
                return False
            self._wants[-1] = "value" if isinstance(container, list) else "key"
            return True
        self._wants[-1] = "value"
        return wants == "colon"

    def _may_come(self, *, quoted: bool) -> bool:
        """Whether a value may stand here. A comma may be left out before what shows where it begins."""
        return self._wants[-1] == "value" or (
            quoted and self._wants[-1] == "comma" and isinstance(self._open[-1], list)
        )

    def _scalar(self, value: Value, *, quoted: bool) -> bool:
        if isinstance(self._open[-1], Pairs) and (self._wants[-1] == "key" or (quoted and self._wants[-1] == "comma")):
            self._keys[-1] = str(value)
            self._wants[-1] = "colon"
            return True
        if not self._may_come(quoted=quoted):
            return False
        self._attach(value)
        return True

    def _attach(self, value: Value) -> None:
        container = self._open[-1]
        if isinstance(container, Pairs):
            container.items.append((self._keys[-1], value))
        else:
            container.append(value)
        self._wants[-1] = "comma"


def _scalar(token: re.Match[str]) -> Value:
    bare = token["bare"]
    if bare is None:
        return _unescaped(token["double"] if token["double"] is not None else token["single"])
    if _INTEGER.fullmatch(bare):
        return int(bare)
    if _FLOAT.fullmatch(bare):
        return float(bare)
    return _CONSTANTS.get(bare.lower(), bare)


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text
