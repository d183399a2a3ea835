"""From a model's answer to grades of passages. A grade that is not a plain number on the scale is no grade."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from uprank.scorers.llm.answer_json import SCORE_KEYS, Pairs, Value, members, number_of, read_json
from uprank.scorers.llm.answer_text import Vocabulary, answer_part, flat
from uprank.scorers.llm.answers import id_of

__all__ = ["parse_grades", "parse_yes_no"]

_GRADE_KEYS = (*SCORE_KEYS, "value")

# After a label: a sign or a word that says a grade follows, then the grade, then nothing or what explains it.
_GIVEN = re.compile(
    r"[\s\"')\]>]{0,4}(?:[:=|,–—-]|(?=[0-9.+-]))[\s\"'|(]{0,4}"
    r"(?:(?:relevance|grade|score|rating)(?: (?:grade|score|rating))?[\s:=]{0,3})?",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(-?[0-9]{1,9}(?:\.[0-9]{1,12})?)(?=\s*\.?[\s|,;\"')}}\]]*$|\s*[(;,–—-]\s*[^\W\d])")
_STARTS_ENTRY = re.compile(r"(?:^|[\n,;|{])[\s\"'(\-+>#|]{0,6}$|(?:^|\n)\d{1,4}[.)] ?[\"'(]{0,2}$")

_YES = frozenset({"yes", "true"})
_NO = frozenset({"no", "false"})
_WORD = re.compile(r"[^\W_]+")


def parse_grades(text: object, labels: Sequence[str], top: int) -> tuple[float | None, ...]:
    """Read how a model grades passages, each by itself: what is wrong with one grade never touches another.

    Grades are taken from JSON, as ``{"passage": label, "grade": 2}`` or ``{label: 2}``, of which what is complete
    counts if the rest is missing, or from text, as ``label: 2``. With one label, the number
    may also stand alone. No grade: a word, a share such as ``8/10``, a number that is not from 0 to ``top``, true or
    false, and two different grades for one label.

    Args:
        text: The answer, whatever it is.
        labels: What the passages were called, no two alike.
        top: The highest grade; the lowest is 0.

    Returns:
        For each label its grade divided by ``top``, from 0 to 1, or ``None``.

    Raises:
        ValueError: If two labels are the same, or ``top`` is less than 1.
    """
    if top < 1:
        raise ValueError(f"The highest grade is {top}; it must be at least 1.")
    vocabulary = Vocabulary(len(labels), labels)
    answer, failure = answer_part(text)
    if failure:
        return (None,) * len(labels)
    entries = list(_in_json(answer, vocabulary)) or list(_in_lines(flat(answer), vocabulary))
    if not entries and len(labels) == 1:
        entries = [(1, _alone(answer))]
    given: dict[int, set[float | None]] = {}
    for one, value in entries:
        given.setdefault(one, set()).add(_grade(value, top))
    return tuple(_agreed(given.get(position, set())) for position in range(1, len(labels) + 1))


def _agreed(grades: set[float | None]) -> float | None:
    return next(iter(grades)) if len(grades) == 1 else None


def _grade(value: Value, top: int) -> float | None:
    number = number_of(value)
    return number / top if number is not None and 0 <= number <= top else None


def _in_json(answer: str, vocabulary: Vocabulary) -> Iterator[tuple[int, Value]]:
    for root in read_json(answer):
        for object_ in _objects(root.value):
            if one := id_of(object_, vocabulary):
                # An object that was cut off before its grade says nothing yet.
                if root.state == "complete" or object_.has(_GRADE_KEYS):
                    yield one, object_.get(_GRADE_KEYS)
                continue
            for key, value in object_.items:
                if one := vocabulary.read(key):
                    yield one, value.get(_GRADE_KEYS) if isinstance(value, Pairs) else value


def _objects(root: list[Value] | Pairs) -> Iterator[Pairs]:
    if isinstance(root, Pairs):
        yield root
    else:
        yield from (value for value in root if isinstance(value, Pairs))
    for _, value in members(root):
        if isinstance(value, Pairs):
            yield value
        elif isinstance(value, list):
            yield from (each for each in value if isinstance(each, Pairs))


def _in_lines(text: str, vocabulary: Vocabulary) -> Iterator[tuple[int, Value]]:
    """Labels at the beginning of a line, or after a comma, that are followed by what should be a grade."""
    tokens = [token for token in vocabulary.tokens(text) if len(token.ids) == 1 and token.ids[0]]
    starts = [token for token in tokens if _STARTS_ENTRY.search(text, max(0, token.start - 12), token.start)]
    for number, token in enumerate(starts):
        end = starts[number + 1].start if number + 1 < len(starts) else len(text)
        newline = text.find("\n", token.end, end)
        said = text[token.end : newline if newline >= 0 else end]
        if (given := _GIVEN.match(said)) and token.ids[0]:
            number_given = _NUMBER.match(said, given.end())
            yield token.ids[0], number_given[1] if number_given else said


def _alone(answer: str) -> Value:
    """The number that is the whole answer, or its only grade in JSON."""
    for root in read_json(answer):
        if isinstance(root.value, Pairs):
            return root.value.get(_GRADE_KEYS)
    said = re.sub(r"^(?:the )?(?:relevance|grade|score|rating|answer)[\s:=]{1,3}", "", answer, flags=re.IGNORECASE)
    return said.strip(" \n\"'[]().")


def parse_yes_no(text: object) -> bool | None:
    """Read whether a model says yes or no, or true or false.

    It does if that is its whole answer, the value of a JSON object, its first word before a comma, full stop or
    line's end, or its last line; "yes and no" and answers that contradict themselves are neither.

    Args:
        text: The answer, whatever it is.
    """
    answer, failure = answer_part(text)
    if failure:
        return None
    for root in read_json(answer):
        if isinstance(root.value, Pairs) and root.state == "complete":
            return _one_of(_truth(str(value)) for _, value in root.value.items if not isinstance(value, (Pairs, list)))
    lines = [line for line in flat(answer).split("\n") if _WORD.search(line)]
    if not lines:
        return None
    return _one_of((_first(lines[0]), _truth(lines[-1].rsplit(":", 1)[-1])))


def _one_of(said: Iterator[bool | None] | tuple[bool | None, ...]) -> bool | None:
    known = {each for each in said if each is not None}
    return known.pop() if len(known) == 1 else None


def _truth(text: str) -> bool | None:
    """Of a text that is one word."""
    words = [word.lower() for word in _WORD.findall(text[:200])]
    if len(text) > 200 or len(words) != 1:
        return None
    return True if words[0] in _YES else False if words[0] in _NO else None


def _first(line: str) -> bool | None:
    """Of the word that a line begins with, if the sentence does not go on or take it back."""
    found = re.match(r"\W{0,8}([^\W_]{1,12})(?= ?(?:[.,:;!\n–—-]|$))", line)
    said = _truth(found[1]) if found else None
    if found is None or said is None:
        return None
    following = [word.lower() for word in _WORD.findall(line[found.end() : found.end() + 40])]
    if following[:1] == ["and"]:
        del following[0]
    return None if following and following[0] in {"or", "but", *(_NO if said else _YES)} else said
