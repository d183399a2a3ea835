"""Scores with judgements of relevance: what calibrators are fitted on and measured by."""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

from uprank.errors import InvalidInputError
from uprank.scorers.base import ScoreKind

__all__ = ["JudgedScores", "Labels", "RankingLike", "ScoresLike", "judged_scores"]


class HitLike(Protocol):
    """What is read of a :class:`~uprank.RankedDocument`."""

    @property
    def index(self) -> int: ...
    @property
    def score(self) -> float | None: ...


class RankingLike(Protocol):
    """What is read of a :class:`~uprank.Ranking`."""

    @property
    def model(self) -> str: ...
    @property
    def score_kind(self) -> ScoreKind | None: ...
    @property
    def degraded(self) -> bool: ...
    def __iter__(self) -> Iterator[HitLike]: ...


ScoresLike: TypeAlias = "Sequence[float] | Sequence[RankingLike]"
"""Scores of any number of queries in one list, or the rankings that hold them."""

Labels: TypeAlias = "Sequence[float | None] | Sequence[Sequence[float | None]]"
"""A label a score; of rankings a list a query, one a document in the order they were given. ``None``: not judged."""


@dataclass(frozen=True, slots=True)
class JudgedScores:
    """Scores, and which are of relevant documents.

    Args:
        scores: All finite.
        relevant: As many.
        model: Whose scores they are; ``None`` where that is not known.
        kind: What they mean; ``None`` where that is not known.
    """

    scores: tuple[float, ...]
    relevant: tuple[bool, ...]
    model: str | None = None
    kind: ScoreKind | None = None

    @property
    def positives(self) -> int:
        """How many are of relevant documents."""
        return sum(self.relevant)

    def digest(self) -> str:
        """A SHA-256 of the scores and labels, whatever their order."""
        import hashlib  # late: only fitting needs it

        together = hashlib.sha256()
        for score, relevant in sorted(zip(self.scores, self.relevant, strict=True)):
            together.update(struct.pack("<d?", score + 0.0, relevant))  # -0.0 + 0.0 is 0.0
        return together.hexdigest()


def judged_scores(scores: ScoresLike, labels: Labels, *, relevant_from: float = 1.0) -> JudgedScores:
    """Check scores and labels, and leave out what is not judged.

    Args:
        scores: As :data:`ScoresLike`.
        labels: As :data:`Labels`.
        relevant_from: The least label that counts as relevant.

    Raises:
        InvalidInputError: If they do not fit each other, are no finite numbers, or nothing is judged. Also if a
            ranking is degraded, lacks a score, or is not by the model of the others.
    """
    for what, values in (("scores", scores), ("labels", labels)):
        if isinstance(values, (str, bytes)) or not hasattr(values, "__len__") or not hasattr(values, "__iter__"):
            raise InvalidInputError(f"{what} must be a list, got {type(values).__name__}.")
    if isinstance(relevant_from, bool) or not isinstance(relevant_from, (int, float)) or math.isnan(relevant_from):
        raise InvalidInputError(f"relevant_from must be a number, got {relevant_from!r}.")
    if len(scores) != len(labels):
        raise InvalidInputError(
            f"Got {len(scores)} scores but {len(labels)} labels; one label a score, in their order."
        )
    model: str | None = None
    kind: ScoreKind | None = None
    pairs: list[tuple[object, object]]
    if len(scores) and all(hasattr(one, "score_kind") for one in scores):
        rankings = cast("Sequence[RankingLike]", scores)
        model, kind = _common(rankings)
        pairs = []
        for number, (ranking, judgements) in enumerate(zip(rankings, labels, strict=True)):
            pairs += _hits(number, ranking, judgements)
    else:
        pairs = list(zip(scores, labels, strict=True))
    known = [(_score(score, at), _label(label, at)) for at, (score, label) in enumerate(pairs) if label is not None]
    if not known:
        raise InvalidInputError("There is nothing to learn from: no score has a label.")
    return JudgedScores(
        tuple(score for score, _ in known), tuple(label >= relevant_from for _, label in known), model, kind
    )


def _common(rankings: Sequence[RankingLike]) -> tuple[str, ScoreKind | None]:
    """The model and the kind that all rankings share."""
    first = rankings[0]
    for number, ranking in enumerate(rankings):
        if ranking.degraded:
            raise InvalidInputError(f"Ranking {number} is degraded: its scores are not those of {ranking.model}.")
        if (ranking.model, ranking.score_kind) != (first.model, first.score_kind):
            raise InvalidInputError(
                f"Ranking {number} has {ranking.score_kind!r} scores of {ranking.model}, but the first has "
                f"{first.score_kind!r} scores of {first.model}; a calibrator is of one model."
            )
    return first.model, first.score_kind


def _hits(number: int, ranking: RankingLike, judgements: object) -> list[tuple[object, object]]:
    if isinstance(judgements, (str, bytes)) or not isinstance(judgements, Sequence):
        raise InvalidInputError(
            f"The labels of ranking {number} must be a list, one a document in the order they were given; got "
            f"{type(judgements).__name__}."
        )
    found: list[tuple[object, object]] = []
    for hit in ranking:
        if hit.index >= len(judgements):
            raise InvalidInputError(
                f"Ranking {number} has a document of index {hit.index}, but there are {len(judgements)} labels; give "
                "one a document, in the order in which the documents were given."
            )
        if hit.score is None and judgements[hit.index] is not None:
            raise InvalidInputError(f"Ranking {number} has no score for its document of index {hit.index}.")
        found.append((hit.score, judgements[hit.index]))
    return found


def _score(value: object, at: int) -> float:
    number = _number(value)
    if number is None:
        raise InvalidInputError(f"Score {at} is {value!r}; a score must be a finite number.")
    return number


def _label(value: object, at: int) -> float:
    number = _number(value)
    if number is None:
        raise InvalidInputError(
            f"Label {at} is {value!r}; a label must be a finite number, True or False, or None where nobody judged."
        )
    return number


def _number(value: object) -> float | None:
    """A finite number as a float; NumPy's too, but no text."""
    if isinstance(value, (str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        return None
    try:
        number = float(cast(float, value)) if hasattr(value, "__float__") else float(operator.index(cast(int, value)))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
