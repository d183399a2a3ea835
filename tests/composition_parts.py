"""Random scorers made of scorers, and what may come out of them.

A *spec* says what a scorer is made of, so that the same one can be built again. Its leaves score by a formula, so
that the numbers that a composition may show for a text are known without asking it.
"""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from uprank.cache import MemoryCache
from uprank.calibration import sigmoid
from uprank.calibrations.curves import Logistic
from uprank.calibrator import Calibrator
from uprank.errors import (
    BadReplyError,
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    ModelLoadError,
    QueryTooLongError,
    RateLimitError,
    RequestRefusedError,
    ScorerError,
    ServerError,
)
from uprank.scorers.base import Scorer, Scores, Usage
from uprank.scorers.callable import CallableScorer
from uprank.scorers.combined.cached import Cached
from uprank.scorers.combined.calibrated import Calibrated
from uprank.scorers.combined.cascade import Cascade
from uprank.scorers.combined.fallback import Fallback
from uprank.scorers.combined.fusion import Fusion
from uprank.scorers.combined.passages import Passages
from uprank.scorers.evidence import Evidence

KINDS = ("logit", "sigmoid", "probability", "graded", "cosine", "rank")
LIKELY = ("logit", "sigmoid", "probability", "graded")  # those that have probabilities
RAISED: list[Callable[[], BaseException]] = [
    lambda: ScorerError("broken"),
    lambda: ModelLoadError("no file"),
    lambda: QueryTooLongError("too long"),
    lambda: RateLimitError("slow down", retry_after=1.0),
    lambda: ServerError("500", status=500),
    lambda: ConnectionFailedError("refused"),
    lambda: DeadlineExceededError("late"),
    lambda: BadReplyError("no JSON"),
    lambda: RequestRefusedError("404"),
    lambda: OSError("disk"),
    lambda: TimeoutError("late"),
    lambda: asyncio.TimeoutError(),
    lambda: StopIteration("end"),
    lambda: KeyError("score"),
    lambda: ZeroDivisionError(),
]
ANSWERED: list[Callable[[list[float]], object]] = [
    lambda values: [*values[:-1], math.nan],
    lambda values: [math.inf, *values[1:]],
    lambda values: values[:-1],
    lambda values: [*values, 0.5],
    lambda values: [str(value) for value in values],
    lambda values: [None] * len(values),
    lambda values: None,
    lambda values: [[value] for value in values],
    lambda values: {value: value for value in values},
]


@dataclass(frozen=True)
class Fault:
    """What goes wrong in a leaf.

    Args:
        how: A number of ``RAISED`` or ``ANSWERED``; ``"misuse"``, a mistake in the set-up; or ``"hang"``.
        always: At every query, or only at those with a question mark.
    """

    how: tuple[str, int]
    always: bool

    def strikes(self, query: str) -> bool:
        return self.always or "?" in query


@dataclass(frozen=True)
class Leaf:
    """A scorer by a formula.

    Args:
        name: Its own.
        kind: One of ``KINDS``. ``"sigmoid"`` gives logits and reports probabilities, ``"graded"`` an order and
            probabilities for some texts, as a language model does.
        form: ``"scorer"``, ``"batch"``, ``"sync"`` or ``"async"``: a class, one whose fault is that of a whole batch,
            or a function.
        declared: Whether a function says what its numbers mean.
        listwise: Whether it claims to compare documents.
        instructed: Whether it takes an instruction.
        degraded: Whether it calls its answers so.
        fault: What goes wrong.
    """

    name: str
    kind: str
    form: str = "scorer"
    declared: bool = True
    listwise: bool = False
    instructed: bool = False
    degraded: bool = False
    fault: Fault | None = None


@dataclass(frozen=True)
class Node:
    """A scorer made of others.

    Args:
        part: The name of its class.
        members: What it is made of.
        options: Of the class.
    """

    part: str
    members: tuple[Spec, ...]
    options: dict[str, object] = field(default_factory=dict)


Spec = Leaf | Node


def leaves_of(spec: Spec) -> Iterator[Leaf]:
    if isinstance(spec, Leaf):
        yield spec
    else:
        for member in spec.members:
            yield from leaves_of(member)


def parts_of(spec: Spec) -> set[str]:
    return set() if isinstance(spec, Leaf) else {spec.part}.union(*map(parts_of, spec.members))


# --- the formula


def dice(*parts: str) -> int:
    return zlib.crc32("\0".join(parts).encode())


def raw(leaf: Leaf, query: str, text: str) -> tuple[float, float | None]:
    """The value that decides the order, and the probability that is shown beside it, by ``"graded"`` alone.

    Few values are possible, so that ties are common.
    """
    number = dice(leaf.name, query, text)
    if leaf.kind in ("logit", "sigmoid"):
        return (number % 33 - 16) / 4, None
    if leaf.kind == "probability":
        return number % 11 / 10, None
    if leaf.kind == "cosine":
        return (number % 21 - 10) / 10, None
    if leaf.kind == "graded":
        grade = None if number % 4 == 0 else number % 11 / 10
        return (-1.0 if grade is None else grade), grade
    return float(number % 7), None


def native(leaf: Leaf, query: str, text: str) -> float | None:
    value, grade = raw(leaf, query, text)
    return grade if leaf.kind == "graded" else sigmoid(value) if leaf.kind == "sigmoid" else value


def probability(leaf: Leaf, query: str, text: str) -> float | None:
    if leaf.kind not in LIKELY:
        return None
    return sigmoid(raw(leaf, query, text)[0]) if leaf.kind == "logit" else native(leaf, query, text)


def curve(value: float) -> float:
    """What a leaf's calibrator makes of its values."""
    return sigmoid(0.5 * value - 0.25)


# --- the leaves


class LeafScorer(Scorer):
    """A leaf as a class. What it is asked against the contract goes to ``complaints``, as an exception is a fault."""

    def __init__(self, leaf: Leaf, complaints: list[str]) -> None:
        self.leaf = leaf
        self.complaints = complaints
        self.name = leaf.name
        self.score_kind = {"sigmoid": "probability", "graded": "probability"}.get(leaf.kind, leaf.kind)
        self.accepts_instruction = leaf.instructed
        self.listwise = leaf.listwise

    def identity(self):
        return {"leaf": repr(self.leaf)}

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        if instruction is not None and not self.leaf.instructed:
            self.complaints.append(f"{self.name} was given an instruction")
        values = answer(self.leaf, query, texts, self.complaints)
        kind = {"sigmoid": "logit", "graded": "rank"}.get(self.leaf.kind, self.leaf.kind)
        return Scores(
            values,
            kind,
            native="probability" if self.leaf.kind == "sigmoid" else None,
            usage=Usage(tokens=len(texts)),
            warnings=(f"{self.name} warns",) if self.leaf.degraded else (),
            reported=[raw(self.leaf, query, text)[1] for text in texts] if self.leaf.kind == "graded" else None,
            degraded=self.leaf.degraded,
            evidence=[Evidence(truncated=bool(dice(text) % 2)) for text in texts] if self.leaf.listwise else None,
        )

    async def ascore(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        if self.leaf.fault is not None and self.leaf.fault.how[0] == "hang" and self.leaf.fault.strikes(query):
            await asyncio.sleep(0.05)
        return self.score(query, texts, instruction=instruction)


class BatchScorer(LeafScorer):
    """A leaf that fails as a whole: it raises instead of answering, or answers another number of requests."""

    def score_many(self, requests):
        return self._batch(super().score_many(requests))

    async def ascore_many(self, requests):
        return self._batch(await super().ascore_many(requests))

    def _batch(self, outcomes):
        if self.leaf.fault is None:
            return outcomes
        kind, number = self.leaf.fault.how
        if kind == "raised":
            raise RAISED[number]()
        if kind == "misuse":
            raise ConfigurationError("misused")
        return [outcomes[:-1], [*outcomes, *outcomes], None][number % 3]


def answer(leaf: Leaf, query: str, texts: Sequence[str], complaints: list[str]) -> list[float]:
    """The values of a leaf, or what goes wrong instead."""
    if not query.strip() or not texts or len(set(texts)) < len(texts):
        complaints.append(f"{leaf.name} was asked {query!r} of {list(texts)!r}")
    values = [raw(leaf, query, text)[0] for text in texts]
    if leaf.fault is None or not leaf.fault.strikes(query):
        return values
    kind, number = leaf.fault.how
    if kind == "raised":
        raise RAISED[number]()
    if kind == "misuse":
        raise ConfigurationError("misused")
    if kind == "hang":
        time.sleep(0.05)
        return values
    return ANSWERED[number](values)  # type: ignore[return-value]  # no numbers at all: that is the fault


def function_of(leaf: Leaf, complaints: list[str]) -> Scorer:
    kind = leaf.kind if leaf.declared else None
    if leaf.form == "sync":
        return CallableScorer(
            lambda query, texts: answer(leaf, query, texts, complaints), name=leaf.name, score_kind=kind
        )

    async def score(query, texts):
        await asyncio.sleep(0)
        return answer(leaf, query, texts, complaints)

    return CallableScorer(score, name=leaf.name, score_kind=kind)


# --- building


def build(spec: Spec, complaints: list[str]) -> Scorer:
    """The scorer that a spec describes, new in every part."""
    if isinstance(spec, Leaf):
        made = {"scorer": LeafScorer, "batch": BatchScorer}.get(spec.form, function_of)
        return made(spec, complaints)
    members = [build(member, complaints) for member in spec.members]
    options = dict(spec.options)
    if spec.part == "Cached":
        return Cached(members[0], MemoryCache())
    if spec.part == "Calibrated":
        calibrator = Calibrator("platt", Logistic(0.5, -0.25), members[0].name)
        return Calibrated(members[0], calibrator)
    if spec.part == "Passages":
        return Passages(members[0], **options)
    if spec.part == "Cascade":
        return Cascade(members, options.pop("keep"), **options)
    return {"Fallback": Fallback, "Fusion": Fusion}[spec.part](members, **options)
