"""A scorer that reads its scores from a table, records what it is asked, and fails when told to; and ways to ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import pytest

from uprank.scorers.base import Outcome, ScoreKind, Scorer, ScoreRequest, Scores, Usage
from uprank.scorers.evidence import Evidence


class Clock:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class TableScorer(Scorer):
    """Scores by table.

    Args:
        name: Of the model.
        table: The score of each text.
        kind: What they mean.
        fails: The error for queries that it has none for, by query; ``"*"`` stands for all.
        instructed: Whether it takes an instruction.
        clock: Moved on by each call, by so many seconds a document.
        seconds: See there.
        cost: Of a document.
        changes: Given to the scores: warnings, attempts, and so on.
    """

    def __init__(
        self,
        name: str,
        table: Mapping[str, float],
        *,
        kind: ScoreKind = "logit",
        fails: Mapping[str, Exception] | None = None,
        instructed: bool = False,
        clock: Clock | None = None,
        seconds: float | Callable[[int], float] = 0.0,
        cost: float | None = None,
        evidence: Callable[[str], Evidence] | None = None,
        **changes: object,
    ) -> None:
        self.name = name
        self.score_kind = kind
        self.accepts_instruction = instructed
        self.table = table
        self.fails = dict(fails or {})
        self.clock, self.seconds, self.cost, self.evidence, self.changes = clock, seconds, cost, evidence, changes
        self.calls: list[list[ScoreRequest]] = []
        self.closed = 0

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        raise AssertionError("asked for one, where several are asked at once")

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        self.calls.append(list(requests))
        documents = sum(len(request.texts) for request in requests)
        if self.clock is not None:
            self.clock.now += self.seconds(documents) if callable(self.seconds) else self.seconds * documents
        return [self._one(request) for request in requests]

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        return self.score_many(requests)

    def identity(self) -> Mapping[str, object] | None:
        return None if self.name == "nameless" else {"table": self.name}

    def close(self) -> None:
        self.closed += 1

    def _one(self, request: ScoreRequest) -> Outcome:
        error = self.fails.get(request.query) or self.fails.get("*")
        if error is not None:
            return error
        usage = Usage(tokens=len(request.texts), cost=None if self.cost is None else self.cost * len(request.texts))
        known = None if self.evidence is None else [self.evidence(text) for text in request.texts]
        values = [self.table[text] for text in request.texts]
        return Scores(values, self.score_kind or "logit", usage=usage, evidence=known, **self.changes)  # type: ignore[arg-type]  # as given

    @property
    def texts(self) -> list[list[str]]:
        """The texts of each request so far."""
        return [list(request.texts) for call in self.calls for request in call]


Ask = Callable[[Scorer, Sequence[ScoreRequest]], "list[Outcome]"]


def _asked_sync(scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[Outcome]:
    return scorer.score_many(requests)


def _asked_async(scorer: Scorer, requests: Sequence[ScoreRequest]) -> list[Outcome]:
    return asyncio.run(scorer.ascore_many(requests))


both_ways = pytest.mark.parametrize("ask", [_asked_sync, _asked_async], ids=["sync", "async"])
"""Runs a test with ``ask``, by plain calls and by asyncio."""


def scored(outcome: Outcome) -> Scores:
    """The scores, where there are some."""
    assert isinstance(outcome, Scores), outcome
    return outcome


def order(scores: Scores, texts: Sequence[str]) -> str:
    """The texts, best first."""
    return "".join(texts[number] for number in sorted(range(len(texts)), key=lambda n: (-scores.values[n], n)))
