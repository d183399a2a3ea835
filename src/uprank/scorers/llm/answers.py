"""From a model's answer to an order of passages: every answer is read, none is guessed at.

The forms in which an order may be given, the first that is there being taken:

1. JSON: a list under a known name such as ``"ranking"``, a list by itself, or the only list of ids
   in an object; what a truncated answer holds of a list under a known name counts;
2. a chain such as ``[3] > [1] = [2]``, with or without numbering;
3. a list, an id a line;
4. a chain without brackets, as a line or at least three long;
5. a line that is nothing but ids;
6. a single id, where it is the whole answer or there is but one passage.

Of several in one form the longest is taken, of equally long ones the last. A number in a sentence is never an id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from uprank.scorers.llm.answer_json import (
    LABEL_KEYS,
    RANK_KEYS,
    SCORE_KEYS,
    Pairs,
    Root,
    Value,
    members,
    name_of,
    names,
    number_of,
    read_json,
)
from uprank.scorers.llm.answer_orders import Found, longest, order_in_text, valid_ids
from uprank.scorers.llm.answer_text import Vocabulary, answer_part, flat, refuses

__all__ = ["Failure", "ParsedRanking", "id_of", "ids_in", "parse_ranking"]

Failure: TypeAlias = Literal["empty", "refusal", "truncated-thinking", "no-ranking"]
"""Why no order could be read: no text, a refusal, thinking that never ended, or a text that gives none."""


@dataclass(frozen=True, slots=True)
class ParsedRanking:
    """What an answer says about an order. ``order`` and ``missing`` together hold each position once.

    Args:
        order: Positions, counted from 0, of the passages that the answer names, the most relevant first.
        missing: Positions of those that it does not name, ascending.
        repaired: What had to be put right: ``"repeated ids dropped"`` (the first place counts), ``"unknown
            ids dropped"``, ``"read as 0-based"``, ``"truncated"``, ``"sorted by stated rank"``,
            ``"sorted by stated score"``, ``"malformed JSON"``, ``"one of several orders"``.
        failure: Why ``order`` is empty; ``None`` if it is not, or if there are no passages.
    """

    order: tuple[int, ...]
    missing: tuple[int, ...]
    repaired: tuple[str, ...] = ()
    failure: Failure | None = None


def parse_ranking(text: object, num_passages: int, labels: Sequence[str] | None = None) -> ParsedRanking:
    """Read an order of passages from a model's answer.

    Ids are the numbers from 1, or from 0 if the answer holds a 0 and not the highest number; if labels are
    given, only these are ids, and numbers are not. Thinking is not read, nor are numbers in sentences.

    Args:
        text: The answer, whatever it is; ``None`` and everything else that is no string counts as empty.
        num_passages: How many passages were shown.
        labels: What they were called, one each; ``None`` for numbers from 1.

    Returns:
        The order as far as it is given, and what had to be put right. No text makes this raise.

    Raises:
        ValueError: If ``num_passages`` is negative, or ``labels`` are not as many different strings.
    """
    vocabulary = Vocabulary(num_passages, labels)
    answer, failure = answer_part(text)
    if failure:
        return _none(num_passages, failure)
    found = _find(answer, vocabulary)
    if found is None:
        return _none(num_passages, "refusal" if refuses(answer) else "no-ranking")
    return _settled(found, vocabulary)


def _none(count: int, failure: Failure) -> ParsedRanking:
    return ParsedRanking((), tuple(range(count)), (), failure if count else None)


def _settled(found: Found, vocabulary: Vocabulary) -> ParsedRanking:
    """Each id once, and the rest."""
    count, repairs = vocabulary.count, list(found.repairs)
    base = 1
    if vocabulary.numeric and 0 in found.ids and count not in found.ids:
        base = 0
        repairs.append("read as 0-based")
    order: dict[int, None] = {}
    for one in found.ids:
        if one is None or not 0 <= one - base < count:
            repairs.append("unknown ids dropped")
        elif one - base in order:
            repairs.append("repeated ids dropped")
        else:
            order[one - base] = None
    missing = tuple(position for position in range(count) if position not in order)
    return ParsedRanking(tuple(order), missing, tuple(dict.fromkeys(repairs)))


def _find(answer: str, vocabulary: Vocabulary) -> Found | None:
    roots = read_json(answer)
    by_json = _in_json(roots, answer, vocabulary)
    if by_json is not None and (valid_ids(by_json, vocabulary) or not by_json.ids):
        return by_json if by_json.ids else None
    return order_in_text(flat(answer), vocabulary) or _in_broken_json(roots, vocabulary)


# JSON

_ORDERS = names(
    "ranking ranked rankedlist rankedpassages rankeddocuments rankedids rankedlabels rankingorder rankings order "
    "ordering orderedlist orderedpassages permutation sorted rank ranks result results answer output response "
    "passages documents docs items ids labels choices"
)


def _in_json(roots: Sequence[Root], text: str, vocabulary: Vocabulary) -> Found | None:
    """The order that sound or truncated JSON gives; one without ids if it says that there is none."""
    best: Found | None = None
    best_key = (False, False, 0)
    for root in roots:
        if root.state == "broken":
            continue
        repairs = ("truncated",) if root.state == "truncated" else ()
        for name, found in _named(root, vocabulary, repairs):
            key = (valid_ids(found, vocabulary) > 0, not repairs, -name)
            if best is None or key >= best_key:
                best, best_key = found, key
    if best is None:
        alone = [one for root in roots if (one := _unnamed(root, text, vocabulary))]
        return alone[-1] if alone else None
    return best


def _named(root: Root, vocabulary: Vocabulary, repairs: tuple[str, ...]) -> Iterator[tuple[int, Found]]:
    """Lists, and chains as strings, under a known name, with the place of the name among those."""
    for key, value in members(root.value):
        name = name_of(key)
        if name not in _ORDERS:
            continue
        if isinstance(value, list):
            ids, more = ids_in(value, vocabulary, cut_off=bool(repairs))
            if repairs and ids and ids[-1] is None:
                ids = ids[:-1]  # an object that was cut off before its id
            yield _ORDERS.index(name), Found(ids, (*more, *repairs))
        elif isinstance(value, str) and (found := order_in_text(flat(value), vocabulary)):
            yield _ORDERS.index(name), Found(found.ids, (*found.repairs, *repairs))


def _unnamed(root: Root, text: str, vocabulary: Vocabulary) -> Found | None:
    """A list that begins its line, or the only list of ids in an object."""
    if root.state != "complete":
        return None
    if isinstance(root.value, list):
        before = text[max(0, root.start - 200) : root.start].rstrip(" \t")
        lists_found = [root.value] if not before or before[-1] == "\n" or before.endswith("json") else []
    else:
        lists_found = [value for _, value in members(root.value) if isinstance(value, list)]
    found = [Found(*ids_in(each, vocabulary)) for each in lists_found]
    found = [each for each in found if valid_ids(each, vocabulary) > (vocabulary.count > 1)]
    return found[0] if len(found) == 1 else None


def _in_broken_json(roots: Sequence[Root], vocabulary: Vocabulary) -> Found | None:
    named = (
        found for root in roots if root.state == "broken" for _, found in _named(root, vocabulary, ("malformed JSON",))
    )
    return longest(named, vocabulary)


def ids_in(
    values: Sequence[Value], vocabulary: Vocabulary, *, cut_off: bool = False
) -> tuple[tuple[int | None, ...], tuple[str, ...]]:
    """The ids in a list of numbers, strings, objects with an id, or lists of these, and what was put right.

    Objects that all state a rank, else a score, come in the order of these.

    Args:
        values: The list.
        vocabulary: What counts as an id.
        cut_off: Whether the answer may break off in the last value.
    """
    objects = [value for value in values if isinstance(value, Pairs)]
    if objects and len(objects) == len(values) and (stated := _as_stated(objects, cut_off=cut_off)):
        return tuple(id_of(value, vocabulary) for value in stated[0]), (stated[1],)
    ids: list[int | None] = []
    todo = list(reversed(values))
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo += reversed(value)
        else:
            ids.append(id_of(value, vocabulary))
    return tuple(ids), ()


def _as_stated(objects: Sequence[Pairs], *, cut_off: bool) -> tuple[list[Pairs], str] | None:
    """Objects by their ranks, or by falling scores, if they stand in another order."""
    for keys, sign, repair in ((RANK_KEYS, 1, "sorted by stated rank"), (SCORE_KEYS, -1, "sorted by stated score")):
        known = [number_of(each.get(keys)) for each in objects]
        if cut_off and len(known) > 1 and known[-1] is None:
            known.pop()  # it was to follow
        numbers = [sign * number for number in known if number is not None]
        if len(numbers) < len(known) or (keys is RANK_KEYS and len(set(numbers)) < len(numbers)):
            continue
        places = sorted(range(len(numbers)), key=numbers.__getitem__)
        return ([objects[place] for place in places], repair) if numbers != sorted(numbers) else None
    return None


def id_of(value: Value, vocabulary: Vocabulary) -> int | None:
    """The id that a number or string is, or that an object gives as the first of its usual keys that holds one."""
    if isinstance(value, Pairs):
        read = (id_of(each, vocabulary) for each in value.get_all(LABEL_KEYS) if not isinstance(each, Pairs))
        return next((one for one in read if one is not None), None)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e9:
        value = int(value)
    return vocabulary.read(str(value)) if isinstance(value, (int, str)) else None
