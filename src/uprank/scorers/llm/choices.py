"""From a model's answer to the passage, or the few passages, that it chooses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from uprank.scorers.llm.answer_json import Value, members, name_of, names, read_json
from uprank.scorers.llm.answer_orders import chains, lists
from uprank.scorers.llm.answer_text import Token, Vocabulary, answer_part, ends_of, flat
from uprank.scorers.llm.answers import ids_in

__all__ = ["parse_choice"]

_MOST = 4_000  # characters that are read: choices are short, reasons stand before or after
_NAMES = names(
    "best choice chosen choices selected selection selections answer answers finalanswer winner preferred mostrelevant "
    "mostrelevantpassage mostrelevantpassages ranking passage passages label labels output result top"
)
_ORDERED = ("ranking",)
_EXPLICIT = re.compile(
    r"\b(?:answer|choice|choose|chosen|select(?:ed)?|pick|winner|output|verdict|conclusion"
    r"|(?:most|more|best|better) (?:relevant|suitable|appropriate|matching|fitting|helpful|useful)|best|better)\b",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:not|no|none|neither|nor|never|less|least|worse|worst|cannot)\b|n't\b", re.IGNORECASE)
_NOTHING = re.compile(
    r"\b(?:none|neither|no (?:passage|document|one|single)|tie|tied|equally|cannot|can't|unable|sorry)\b", re.IGNORECASE
)

_LINKS = re.compile(r"[^\w\[\]]|\band\b", re.IGNORECASE)
_BEFORE = re.compile(r"^$|[\n\"':]$|(?:: ?|\bis )$")
_AFTER = re.compile(r"\s*$|[.:,;)\"'\n]| is\b| because\b")


def parse_choice(text: object, labels: Sequence[str], count: int = 1) -> tuple[int, ...] | None:
    """Read which of some labels a model chooses.

    What counts, the first that is there: JSON under a name such as ``"best"``; an order, as a chain or a
    list; an answer or last line that is only labels; lines that call something the answer, or the best; the
    only label, or labels, that the text names. A label of one letter, or of digits, in a sentence counts only
    in brackets, in quotes or after a word such as "passage". Of more than 4,000 characters after thinking the middle
    is not read.

    Args:
        text: The answer, whatever it is.
        labels: What the passages were called, no two alike.
        count: How many were to be chosen.

    Returns:
        Positions of at least one and at most ``count``, in the order given; ``None`` if nothing is
        chosen, or more than ``count`` with nothing to tell which are meant.

    Raises:
        ValueError: If two labels are the same, or ``count`` is less than 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}; it must be at least 1.")
    vocabulary = Vocabulary(len(labels), labels)
    answer, failure = answer_part(text)
    if failure:
        return None
    answer = ends_of(answer, _MOST)
    found = _in_json(answer, vocabulary, count)
    if found is None:
        found = _in_text(flat(answer), vocabulary, count)
    return tuple(one - 1 for one in found[:count]) or None


def _distinct(ids: Iterable[int | None]) -> list[int]:
    return list(dict.fromkeys(one for one in ids if one is not None))


def _limited(ids: Iterable[int | None], count: int) -> list[int]:
    """The ids of a list that was to hold one or several: two where one was asked choose nothing."""
    found = _distinct(ids)
    return [] if count == 1 and len(found) > 1 else found


def _in_json(answer: str, vocabulary: Vocabulary, count: int) -> list[int] | None:
    """What JSON chooses; nothing if it chooses nothing; ``None`` if there is no such JSON."""
    said: list[int] | None = None
    best = len(_NAMES)
    for root in read_json(answer):
        if root.state == "broken":
            continue
        for key, value in members(root.value):
            name = name_of(key)
            if name in _NAMES and _NAMES.index(name) <= best and (ids := _values(value, vocabulary)) is not None:
                best = _NAMES.index(name)
                said = _distinct(ids) if name in _ORDERED else _limited(ids, count)
        if said is None and isinstance(root.value, list) and root.state == "complete":
            said = _limited(ids_in(root.value, vocabulary)[0], count) or None
    return said


def _values(value: Value, vocabulary: Vocabulary) -> Sequence[int | None] | None:
    if isinstance(value, list):
        return ids_in(value, vocabulary)[0]
    if isinstance(value, str) and vocabulary.read(value) is None:
        return _in_text(flat(value), vocabulary, vocabulary.count)
    return ids_in([value], vocabulary)[0]


def _in_text(text: str, vocabulary: Vocabulary, count: int) -> list[int]:
    tokens = list(vocabulary.tokens(text))
    strong, weak = chains(text, tokens, vocabulary)
    # A list answers the question for several; for one, it leaves open which.
    listed = lists(text, vocabulary) if count > 1 else ()
    ordered = [found for each in (*strong, *weak, *listed) if (found := _distinct(each.ids))]
    if ordered:
        longest = max(map(len, ordered))
        return next(found for found in reversed(ordered) if len(found) == longest)
    lines = [line for line in text.split("\n") if line.strip(" .:")]
    if found := _only_labels(text, vocabulary):
        return _limited(found, count)
    outer = [found for line in (lines[:1], lines[-1:]) if (found := _only_labels("".join(line), vocabulary))]
    if outer:
        return _limited(outer[-1] if outer[0] == outer[-1] or count > 1 else (), count)
    named = _explicit(lines, vocabulary)
    if len(named) == 1 or 1 < len(named) <= count:
        return named
    if named or _NOTHING.search(text) or _NEGATED.search(text):
        return []
    found = _mentioned(text, vocabulary)
    return found if len(found) <= count else []


def _only_labels(text: str, vocabulary: Vocabulary) -> list[int]:
    """The labels of a text that is nothing else, but for what links or announces them."""
    found: list[int | None] = []
    end, between = 0, []
    for token in vocabulary.tokens(text):
        if None not in token.ids:
            found += token.ids
            between.append(text[end : token.start])
            end = token.end
    rest = _LINKS.sub("", "".join((*between, text[end:])))
    return [] if rest else _distinct(found)


def _explicit(lines: Sequence[str], vocabulary: Vocabulary) -> list[int]:
    """The labels in lines that call something the answer, or the best; of a comparison what comes before "than"."""
    found: list[int] = []
    for line in lines:
        if _EXPLICIT.search(line) and not _NEGATED.search(line):
            found += _mentioned(line.split(" than ", 1)[0], vocabulary)
    return _distinct(found)


def _mentioned(text: str, vocabulary: Vocabulary) -> list[int]:
    return _distinct(one for token in vocabulary.tokens(text) if _meant(text, token, vocabulary) for one in token.ids)


def _meant(text: str, token: Token, vocabulary: Vocabulary) -> bool:
    """Whether a token is a label rather than a word or number of the sentence."""
    if vocabulary.distinct(token):
        return True
    if not vocabulary.exact(text, token):
        return False
    before, after = text[max(0, token.start - 4) : token.start], text[token.end : token.end + 9]
    if token.named and text[token.end - 1 : token.end] != "I":  # "a passage I like"
        return True
    return (token.named or _BEFORE.search(before) is not None) and _AFTER.match(after) is not None
