"""What of the ranked documents a call returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from uprank.errors import ScoreKindError

__all__ = ["UNSET", "Selection", "Unset", "threshold_on_ranks"]


class Unset(Enum):
    """Tells "not given" (use the reranker's own) from ``None`` (no limit)."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class Selection:
    """Which documents are returned.

    Args:
        top_n: How many at most; ``None`` for all.
        threshold: Those whose reported score is at least this; ``None`` for all.
    """

    top_n: int | None
    threshold: float | None

    def passes(self, score: float | None, *, degraded: bool) -> bool:
        """What has no score passes no threshold, but that of a degraded order, which would lose it for a failure."""
        return self.threshold is None or (degraded if score is None else score >= self.threshold)


def threshold_on_ranks(model: str) -> ScoreKindError:
    """The error for a threshold on numbers that mean an order alone."""
    return ScoreKindError(
        f"{model} gives scores of kind 'rank': only their order means something, so a threshold would cut at a "
        'different relevance for each query. Use top_n, or score="probability" with calibrator=; of a language '
        'model, scores=True or method="pointwise".'
    )
