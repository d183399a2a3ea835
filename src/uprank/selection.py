"""What a caller may say about which documents come back, checked in one place."""

from __future__ import annotations

import difflib
import math
import operator
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Final, TypedDict

from uprank.errors import InvalidInputError, ScoreKindError
from uprank.scorers.base import ScoreKind

__all__ = [
    "UNSET",
    "CallOptions",
    "Selection",
    "Unset",
    "gap_on_ranks",
    "threshold_on_ranks",
    "valid_threshold",
    "valid_top_n",
]


class Unset(Enum):
    """Tells "not given" (use the reranker's own) from ``None`` (no limit)."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


class CallOptions(TypedDict, total=False):
    """What one call may say; absent or :data:`UNSET` where the reranker's own applies, ``None`` for none of it."""

    top_n: int | Unset | None
    threshold: float | Unset | None
    min_gap: float | Unset | None
    max_tokens: int | Unset | None
    diversity: float | Unset | None
    keep_at_least: int | Unset | None
    instruction: str | Unset | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of the ranked documents are returned. :func:`uprank.choosing.keep` does it.

    Args:
        top_n: How many at most; ``None`` for all.
        threshold: Those whose reported score is at least this; ``None`` for all.
        min_gap: Those above the largest drop between neighbouring reported scores, where that is at least this, above
            0; ``None`` cuts at none.
        max_tokens: As many as have together at most so many tokens; ``None`` for no limit.
        diversity: From 0 to 1, how much it counts that a document differs from those chosen before it, where ``top_n``
            or ``max_tokens`` leaves some out: 0 or ``None`` not at all, 1 alone. It is 1 - λ in
            maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998,
            https://doi.org/10.1145/290941.291025).
        keep_at_least: How many ``threshold`` and ``min_gap`` leave, where there are so many: the best.

    Raises:
        InvalidInputError: If one of them is out of range.
    """

    top_n: int | None = None
    threshold: float | None = None
    min_gap: float | None = None
    max_tokens: int | None = None
    diversity: float | None = None
    keep_at_least: int = 0

    def __post_init__(self) -> None:
        checked = {
            "top_n": valid_top_n(self.top_n),
            "threshold": valid_threshold(self.threshold),
            "min_gap": _valid_min_gap(self.min_gap),
            "max_tokens": _valid_max_tokens(self.max_tokens),
            "diversity": _valid_diversity(self.diversity),
            "keep_at_least": _valid_keep_at_least(self.keep_at_least),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # NumPy's numbers become Python's

    def with_options(self, options: CallOptions, *, function: str = "rank()") -> Selection:
        """The same with what one call changes.

        Args:
            options: Those of the call; an instruction among them is nothing to choose by.
            function: Named where a keyword is unknown.

        Raises:
            TypeError: If there is a keyword that is no option.
            InvalidInputError: If a value is out of range.
        """
        for name in options:
            if name not in CallOptions.__annotations__:
                raise TypeError(_unexpected(name, function))
        names = [field.name for field in fields(self)]
        given = {name: options[name] for name in names if name in options}  # type: ignore[literal-required]  # as above
        changed = {name: value for name, value in given.items() if not isinstance(value, Unset)}
        return replace(self, **changed) if changed else self

    def without_score_limits(self) -> Selection:
        """The same without ``threshold`` and ``min_gap``, for scores on another scale than they were meant for."""
        return replace(self, threshold=None, min_gap=None) if self.limits_scores else self

    def passes(self, score: float | None, *, degraded: bool) -> bool:
        """What has no score passes no threshold, but that of a degraded order, which would lose it for a failure."""
        return self.threshold is None or (degraded if score is None else score >= self.threshold)

    @property
    def limits_scores(self) -> bool:
        """Whether it looks at what scores are, and not at their order alone."""
        return self.threshold is not None or self.min_gap is not None

    def check_kind(self, kind: ScoreKind | None, model: str) -> None:
        """Refuse what cannot be asked of scores of this kind.

        Raises:
            ScoreKindError: If their order alone means something, and a threshold or gap is set.
        """
        if kind == "rank" and self.threshold is not None:
            raise threshold_on_ranks(model)
        if kind == "rank" and self.min_gap is not None:
            raise gap_on_ranks(model)


def threshold_on_ranks(model: str) -> ScoreKindError:
    """The error for a threshold on numbers that mean an order alone."""
    return _on_ranks(model, "a threshold would cut at a different relevance for each query")


def gap_on_ranks(model: str) -> ScoreKindError:
    """The error for a gap between numbers that mean an order alone."""
    return _on_ranks(model, "min_gap would measure distances that mean nothing")


def _on_ranks(model: str, why: str) -> ScoreKindError:
    return ScoreKindError(
        f"{model} gives scores of kind 'rank': only their order means something, so {why}. "
        'Use top_n, or score="probability" with calibrator=; of a language '
        'model, scores=True or method="pointwise".'
    )


def _unexpected(name: str, function: str) -> str:
    close = difflib.get_close_matches(str(name), CallOptions.__annotations__, n=1)
    hint = f". Did you mean {close[0]!r}?" if close else ""
    return f"{function} got an unexpected keyword argument {name!r}{hint}"


def valid_top_n(top_n: int | None) -> int | None:
    """Return it as a plain integer.

    Raises:
        InvalidInputError: If it is neither a positive integer nor ``None``.
    """
    if top_n is None:
        return None
    number = _integer(top_n)
    if number is None:
        raise InvalidInputError(f"top_n must be a positive integer or None (all), got {top_n!r}.")
    if number < 1:
        raise InvalidInputError(f"top_n must be at least 1, or None for all documents; got {number}.")
    return number


def valid_threshold(threshold: float | None) -> float | None:
    """Return it as a plain float.

    Raises:
        InvalidInputError: If it is neither a finite number nor ``None``.
    """
    if threshold is None:
        return None
    number = _number(threshold)
    if number is None:
        raise InvalidInputError(f"threshold must be a number or None, got {threshold!r}.")
    if not math.isfinite(number):
        raise InvalidInputError(f"threshold must be finite, got {number}.")
    return number


def _valid_min_gap(min_gap: float | None) -> float | None:
    if min_gap is None:
        return None
    number = _number(min_gap)
    if number is None or not 0.0 < number < math.inf:
        raise InvalidInputError(f"min_gap must be a number above 0, or None to cut at no gap; got {min_gap!r}.")
    return number


def _valid_max_tokens(max_tokens: int | None) -> int | None:
    if max_tokens is None:
        return None
    number = _integer(max_tokens)
    if number is None or number < 1:
        raise InvalidInputError(f"max_tokens must be a positive integer or None (no limit), got {max_tokens!r}.")
    return number


def _valid_diversity(diversity: float | None) -> float | None:
    if diversity is None:
        return None
    number = _number(diversity)
    if number is None or not 0.0 <= number <= 1.0:
        raise InvalidInputError(f"diversity must be a number from 0 (none) to 1, or None; got {diversity!r}.")
    return number or None


def _valid_keep_at_least(keep_at_least: int | None) -> int:
    number = 0 if keep_at_least is None else _integer(keep_at_least)
    if number is None or number < 0:
        raise InvalidInputError(f"keep_at_least must be a positive integer, or 0 for none; got {keep_at_least!r}.")
    return number


def _integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # it may be anything
    except TypeError:
        return None


def _number(value: object) -> float | None:
    if isinstance(value, (bool, str, bytes)):
        return None
    try:
        return float(value)  # type: ignore[arg-type]  # it may be anything
    except (TypeError, ValueError, OverflowError):
        return None
