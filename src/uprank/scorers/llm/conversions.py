"""Every question can be put to every judge: what a judge of one kind is asked in place of a question of another.

A judge knows how to ask one thing: to put passages in order, to select the best of them, to
compare two, or to score each. :func:`answered` turns a round of any questions into rounds of what
the judge at hand can be asked, and its answers into answers to the questions.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from math import ceil
from typing import Literal, TypeAlias, cast

from uprank.scorers.llm.questions import Answer, Compare, Order, Prefer, Question, Score, Select, ids_of

__all__ = ["JudgeKind", "Scale", "answered"]

JudgeKind: TypeAlias = Literal["order", "select", "prefer", "score"]

Conversion: TypeAlias = "Generator[list[Question], list[Answer], Answer]"
"""Yields what the judge is asked at once, receives its answers, returns that to the question."""


@dataclass(slots=True)
class Scale:
    """How many candidates a judge can be asked about at once, and what it has answered already.

    Args:
        window: Most candidates of one :class:`Order` or :class:`Select`.
        batch: Most candidates of one :class:`Score`.
        scores: What is known: a candidate is scored once, however often a strategy asks.
    """

    window: int
    batch: int
    scores: dict[int, float | None] = field(default_factory=dict)


def answered(
    questions: Sequence[Question], kind: JudgeKind, scale: Scale
) -> Generator[list[Question], list[Answer], list[Answer]]:
    """Answer a round of questions by a judge of one kind.

    Args:
        questions: Of any kind.
        kind: What the judge can be asked: ``"order"`` :class:`Order`, ``"select"`` :class:`Select`,
            ``"prefer"`` :class:`Compare`, ``"score"`` :class:`Score`.
        scale: How many at once.

    Yields:
        What the judge is asked at once; all questions advance in step.

    Returns:
        One answer a question.
    """
    if kind == "score":
        return (yield from _by_scores(questions, scale))
    plans = [_conversion(question, kind, scale) for question in questions]
    answers: dict[int, Answer] = {}
    wanted: dict[int, list[Question]] = {}

    def advance(number: int, received: list[Answer] | None) -> None:
        try:
            wanted[number] = next(plans[number]) if received is None else plans[number].send(received)
        except StopIteration as stop:
            answers[number] = stop.value

    for number in range(len(plans)):
        advance(number, None)
    while wanted:
        asked, wanted = wanted, {}
        together = [question for each in asked.values() for question in each]
        answer = iter((yield together) if together else ())
        for number, each in asked.items():
            advance(number, [next(answer) for _ in each])
    return [answers[number] for number in range(len(plans))]


def _conversion(question: Question, kind: JudgeKind, scale: Scale) -> Conversion:
    if isinstance(question, Prefer):
        return _preference(question, kind)
    if isinstance(question, Select):
        return _selection(question, kind, scale)
    if isinstance(question, Score):
        return _standing(question, kind, scale)
    return _ordering(cast(Order, question), kind, scale)


def _by_scores(questions: Sequence[Question], scale: Scale) -> Generator[list[Question], list[Answer], list[Answer]]:
    """Anything, by scores: those that are not known yet are asked for, all of the round together."""
    unknown = [one for one in dict.fromkeys(chain(*map(ids_of, questions))) if one not in scale.scores]
    batches = [tuple(unknown[start : start + scale.batch]) for start in range(0, len(unknown), scale.batch)]
    received = (yield [Score(batch) for batch in batches]) if batches else []
    for batch, scores in zip(batches, received, strict=True):
        scale.scores.update(zip(batch, cast("tuple[float | None, ...]", scores), strict=True))
    return [_from_scores(question, scale.scores) for question in questions]


def _from_scores(question: Question, scores: Mapping[int, float | None]) -> Answer:
    """What has no score stands behind the others, as it came."""
    ids = ids_of(question)
    if isinstance(question, Score):
        return tuple(scores[one] for one in ids)
    known = [-1.0 if (score := scores[one]) is None else score for one in ids]
    if isinstance(question, (Prefer, Compare)):
        return 0.5 if known[0] == known[1] else float(known[0] > known[1])
    order = sorted(range(len(ids)), key=lambda position: -known[position])
    return tuple(ids[position] for position in order[: question.count if isinstance(question, Select) else None])


def _preference(question: Prefer, kind: JudgeKind) -> Conversion:
    """Which of two, shown in both orders: a preference that depends on the order is none."""
    first, second = question.first, question.second
    both = ((first, second), (second, first))
    if kind == "prefer":
        forward, backward = yield [Compare(*pair) for pair in both]
        return (cast(float, forward) + 1.0 - cast(float, backward)) / 2
    received = yield [Order(pair) if kind == "order" else Select(pair) for pair in both]
    wins = [0.5 if answer is None else float(cast("tuple[int, ...]", answer)[0] == first) for answer in received]
    return sum(wins) / 2


def _selection(question: Select, kind: JudgeKind, scale: Scale) -> Conversion:
    if kind == "select":
        (chosen,) = yield [question]
        return chosen
    order = yield from _ordering(Order(question.ids), kind, scale)
    return (question.ids if order is None else cast("tuple[int, ...]", order))[: question.count]


def _ordering(question: Order, kind: JudgeKind, scale: Scale) -> Conversion:
    if kind == "order":
        (order,) = yield [question]
        return order
    if kind == "select":
        return (yield from _by_halves(question.ids))
    wins = yield from _wins(question.ids)
    return tuple(sorted(question.ids, key=lambda one: -wins[one]))  # stable: ties as they were shown


def _by_halves(ids: tuple[int, ...]) -> Generator[list[Question], list[Answer], tuple[int, ...]]:
    """An order by selecting the better half, then the better half of each half, and so on.

    At most ``len(ids) - 1`` calls in about ``log2(len(ids))`` rounds.
    """
    groups = [ids]
    while any(len(group) > 1 for group in groups):
        split = [group for group in groups if len(group) > 1]
        received = yield [Select(group, len(group) // 2) for group in split]
        chosen = {group: cast("tuple[int, ...]", answer) for group, answer in zip(split, received, strict=True)}
        halves: list[tuple[int, ...]] = []
        for group in groups:
            best = chosen.get(group, group)
            rest = tuple(one for one in group if one not in best)
            halves += [half for half in (best, rest) if half]
        groups = halves
    return tuple(one for group in groups for one in group)


def _wins(ids: tuple[int, ...]) -> Generator[list[Question], list[Answer], dict[int, float]]:
    """How many of the others each is preferred to: all pairs, in both orders, in one round."""
    pairs = list(combinations(dict.fromkeys(ids), 2))
    received = yield [Compare(*pair) for one in pairs for pair in (one, one[::-1])]
    wins = dict.fromkeys(ids, 0.0)
    answers = iter(received)
    for first, second in pairs:
        forward, backward = cast(float, next(answers)), cast(float, next(answers))
        share = (forward + 1.0 - backward) / 2
        wins[first] += share
        wins[second] += 1.0 - share
    return wins


def _standing(question: Score, kind: JudgeKind, scale: Scale) -> Conversion:
    """Numbers by a judge that gives none: the share of the others, within its windows, that it ranks lower.

    These say something about the order alone.
    """
    ids = question.ids
    if kind == "prefer":
        wins = yield from _wins(ids)
        return tuple(wins[one] / max(1, len(ids) - 1) for one in ids)
    windows = _windows(ids, scale.window)
    received = yield from answered([Order(window) for window in windows], kind, scale)
    shares: dict[int, list[float]] = {one: [] for one in ids}
    for window, answer in zip(windows, received, strict=True):
        for place, one in enumerate(cast("tuple[int, ...]", answer or ())):
            shares[one].append(1.0 - place / max(1, len(window) - 1))
    return tuple(sum(found) / len(found) if (found := shares[one]) else 0.5 for one in ids)


def _windows(ids: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    """Two windows for each: neighbours, and those as far apart as can be."""
    if len(ids) <= size:
        return [ids] if len(ids) > 1 else []
    count = ceil(len(ids) / size)
    apart = [ids[start::count] for start in range(count)]
    near = [ids[start : start + size] for start in range(0, len(ids), size)]
    return [window for window in (*apart, *near) if len(window) > 1]
