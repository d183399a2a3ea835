"""Judges for strategies that know the hidden relevance: exact ones, noisy ones, and ones that lie.

They answer questions about numbers, without prompts or models, so that what is measured is the strategy alone.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from uprank.scorers.llm.questions import Answer, Compare, Order, Prefer, Question, Round, Score, Select, Strategy
from uprank.scorers.llm.strategies import STRATEGIES, Settings

Judge = Callable[[Question], Answer]


@dataclass(frozen=True)
class Run:
    """What a strategy found and asked."""

    order: tuple[int, ...]
    rounds: list[Round]

    @property
    def questions(self) -> list[Question]:
        return [question for asked in self.rounds for question in asked.questions]

    @property
    def calls(self) -> int:
        """Of a model: a preference is asked in both orders, a score of each candidate by itself."""
        return sum(
            2 if isinstance(question, Prefer) else len(question.ids) if isinstance(question, Score) else 1
            for question in self.questions
        )


def run(strategy: Strategy, judge: Judge, n: int, most: int = 100_000) -> Run:
    """Drive a strategy, holding it to what :mod:`uprank.scorers.llm.questions` promises of every round.

    Args:
        strategy: Over ``n`` candidates.
        judge: Answers.
        n: The number of candidates.
        most: Questions after which it is taken to have lost its way.
    """
    rounds: list[Round] = []
    everyone = set(range(n))
    left = most
    try:
        asked = next(strategy)
        while True:
            rounds.append(asked)
            assert_complete(asked.order, everyone)
            assert asked.questions, "a round of nothing"
            for question in asked.questions:
                assert legal(question, everyone), question
            left -= len(asked.questions)
            assert left >= 0, f"more than {most} questions"
            asked = strategy.send([judge(question) for question in asked.questions])
    except StopIteration as stop:
        order = stop.value
    assert_complete(order, everyone)
    return Run(order, rounds)


def assert_complete(order: tuple[int, ...], everyone: set[int]) -> None:
    assert isinstance(order, tuple)
    assert len(order) == len(everyone)
    assert set(order) == everyone


def shown(question: Question) -> tuple[int, ...]:
    """The candidates of a question, in the order in which they are shown."""
    return (question.first, question.second) if isinstance(question, (Prefer, Compare)) else question.ids


def legal(question: Question, everyone: set[int]) -> bool:
    """Whether a question is one that a judge may be asked."""
    ids = shown(question)
    least = 1 if isinstance(question, Score) else question.count + 1 if isinstance(question, Select) else 2
    enough = len(ids) >= least and (not isinstance(question, Select) or question.count >= 1)
    return enough and len(set(ids)) == len(ids) and everyone.issuperset(ids)


def exact(relevance: Sequence[float]) -> Judge:
    """A judge that makes no mistakes; ``relevance`` has no two alike, in [0, 1] where scores are asked."""

    def answer(question: Question) -> Answer:
        if isinstance(question, (Prefer, Compare)):
            return float(relevance[question.first] > relevance[question.second])
        if isinstance(question, Score):
            return tuple(relevance[each] for each in question.ids)
        ranked = tuple(sorted(question.ids, key=lambda each: -relevance[each]))
        return ranked[: question.count] if isinstance(question, Select) else ranked

    return answer


def best_first(relevance: Sequence[float]) -> list[int]:
    """The right order."""
    return sorted(range(len(relevance)), key=lambda each: -relevance[each])


def permuted(n: int, kind: str) -> list[float]:
    """Relevance in [0, 1) of ``n`` candidates, no two alike: ``"sorted"``, ``"reversed"``, or shuffled by this seed."""
    relevance = [1 - (each + 1) / (n + 1) for each in range(n)]
    if kind == "reversed":
        relevance.reverse()
    elif kind != "sorted":
        random.Random(kind).shuffle(relevance)
    return relevance


INPUTS = ("sorted", "reversed", "one shuffle", "another shuffle")
"""What :func:`permuted` is asked for."""


def ran(name: str, n: int, kind: str, settings: Settings) -> Run:
    """A strategy over candidates in this order, judged without a mistake."""
    return run(STRATEGIES[name].start(n, settings), exact(permuted(n, kind)), n)


def assert_head(found: Run, kind: str, count: int) -> None:
    """The first ``count`` are the best, in order."""
    n = len(found.order)
    assert list(found.order[:count]) == best_first(permuted(n, kind))[:count], f"n={n}, {kind}"


def assert_fits(found: Run, window: int) -> None:
    """No question shows more than a window."""
    assert max((len(shown(question)) for question in found.questions), default=0) <= window


def level(n: int, window: int) -> int:
    """Calls of the first level of partitioning."""
    return 1 + math.ceil(max(0, n - window) / (window - 1))


def fresh_first() -> Judge:
    """A judge that contradicts itself as badly as can be: who was shown least often so far is the best."""
    seen: Counter[int] = Counter()

    def answer(question: Question) -> Answer:
        ids = shown(question)
        ranked = tuple(sorted(ids, key=lambda each: seen[each]))
        seen.update(ids)
        if isinstance(question, (Prefer, Compare)):
            return float(ranked[0] == question.first)
        if isinstance(question, Score):
            return tuple(None for _ in ids)
        return ranked[: question.count] if isinstance(question, Select) else ranked

    return answer


def whimsical(seed: int) -> Judge:
    """A judge that answers at random, and now and then not at all."""
    chance = random.Random(seed)

    def answer(question: Question) -> Answer:
        ids = shown(question)
        if isinstance(question, (Prefer, Compare)):
            return chance.choice((0.0, 0.5, 1.0))
        if isinstance(question, Score):
            return tuple(chance.choice((None, 0.0, chance.random())) for _ in ids)
        ranked = tuple(chance.sample(ids, len(ids)))
        return ranked[: question.count] if isinstance(question, Select) else ranked

    return answer


def contrary(question: Question) -> Answer:
    """A judge that turns round whatever it is shown."""
    ids = shown(question)
    if isinstance(question, (Prefer, Compare)):
        return 0.0
    if isinstance(question, Score):
        return tuple(each / (each + 1) for each in ids)
    return ids[::-1][: question.count] if isinstance(question, Select) else ids[::-1]


def indifferent(question: Question) -> Answer:
    """A judge that sees no difference between any two."""
    ids = shown(question)
    if isinstance(question, (Prefer, Compare)):
        return 0.5
    if isinstance(question, Score):
        return (0.5,) * len(ids)
    return ids[: question.count] if isinstance(question, Select) else ids


# A collection like those of passage retrieval: of 100 candidates 13 are relevant, in three grades. The numbers were
# chosen once, over 300 topics, so that scoring one by one with normal errors of 0.6 gives an nDCG@10 of .91.
GRADES = (87, 7, 4, 2)  # how many candidates of the grades 0, 1, 2 and 3
WITHIN_GRADE = 0.25  # two documents of one grade differ in utility by up to this much
FIRST_STAGE_NOISE = 1.4  # gives the first stage an nDCG@10 of .56


@dataclass(frozen=True)
class Topic:
    """A query and its candidates, as a first stage orders them.

    ``grades`` are what nDCG counts; ``utilities``, a grade and a little more, are what judges perceive.
    """

    seed: int
    grades: tuple[int, ...]
    utilities: tuple[float, ...]

    def ndcg(self, order: Sequence[int], cut: int = 10) -> float:
        """With gains of ``2 ** grade - 1``; 1.0 where nothing is relevant."""
        best = _discounted(sorted(self.grades, reverse=True)[:cut])
        return _discounted([self.grades[each] for each in order[:cut]]) / best if best else 1.0


def topic(seed: int) -> Topic:
    """A topic; its first stage orders by utility plus normal noise."""
    chance = random.Random(f"topic {seed}")
    grades = [grade for grade, count in enumerate(GRADES) for _ in range(count)]
    utilities = [grade + chance.uniform(0, WITHIN_GRADE) for grade in grades]
    retrieved = sorted(range(len(grades)), key=lambda each: -(utilities[each] + chance.gauss(0, FIRST_STAGE_NOISE)))
    return Topic(seed, tuple(grades[each] for each in retrieved), tuple(utilities[each] for each in retrieved))


class NoisyJudge:
    """A judge that perceives utility with errors, as a model does.

    The same question always gets the same answer, as at temperature 0; any other, also the same candidates in
    another order, is answered with new independent errors.

    Args:
        of: The topic.
        independent: Standard deviation of the error that every question makes anew about every candidate.
        systematic: Of the error about a candidate that all questions share: a document misread each time.
        position_bias: By how much the first shown is liked better than the last, falling evenly between.
            A preference is asked in both orders, and is 0.5 where the two disagree; a score is free of it.
    """

    def __init__(self, of: Topic, *, independent: float, systematic: float = 0.0, position_bias: float = 0.0) -> None:
        chance = random.Random(f"systematic {of.seed}")
        self._seed = of.seed
        self._perceived = [utility + chance.gauss(0, systematic) for utility in of.utilities]
        self._independent = independent
        self._position_bias = position_bias

    def __call__(self, question: Question) -> Answer:
        if isinstance(question, Prefer):
            seen = self._ranked((question.first, question.second)), self._ranked((question.second, question.first))
            return sum(ranked[0] == question.first for ranked in seen) / 2
        if isinstance(question, Score):
            return tuple(self._score(each) for each in question.ids)
        assert isinstance(question, (Order, Select))
        ranked = self._ranked(question.ids)
        return ranked[: question.count] if isinstance(question, Select) else ranked

    def _ranked(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        chance = random.Random(f"question {self._seed} {ids}")
        bias = self._position_bias / (len(ids) - 1)
        seen = {
            each: self._perceived[each] + chance.gauss(0, self._independent) - bias * place
            for place, each in enumerate(ids)
        }
        return tuple(sorted(ids, key=lambda each: -seen[each]))

    def _score(self, each: int) -> float:
        error = random.Random(f"score {self._seed} {each}").gauss(0, self._independent)
        return 1 / (1 + math.exp(-self._perceived[each] - error))


def _discounted(grades: Sequence[int]) -> float:
    return sum((2**grade - 1) / math.log2(rank + 2) for rank, grade in enumerate(grades))
