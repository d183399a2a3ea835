"""What a selection leaves of a ranking, read from its documentation: an oracle that shares no line with the code."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def by_the_rules(
    scores: Sequence[float | None],
    sizes: Sequence[int],
    degraded: bool,
    *,
    top_n: int | None = None,
    threshold: float | None = None,
    min_gap: float | None = None,
    max_tokens: int | None = None,
    keep_at_least: int = 0,
) -> list[int]:
    """One document after another, without a thought for speed. Diversity is none of it.

    Args:
        scores: As reported, in the ranking's order.
        sizes: The tokens of each.
        degraded: Whether the order is only the best that could be had.
        top_n: As for the reranker, and so the rest.
    """
    scored = [number for number, score in enumerate(scores) if score is not None]
    drops = [(scores[above] - scores[below], -below) for above, below in pairwise(scored)]
    drop, below = max(drops, default=(0.0, 0))
    cut = -below if min_gap is not None and drop >= min_gap else len(scores)
    result: list[int] = []
    tokens = 0
    for number, score in enumerate(scores):
        if number >= keep_at_least:
            if score is None and not degraded and (threshold is not None or number >= cut):
                continue
            if score is not None and (number >= cut or (threshold is not None and score < threshold)):
                continue
        if max_tokens is not None:
            if tokens >= max_tokens:
                break
            if tokens + sizes[number] > max_tokens:
                continue
        if len(result) == top_n:
            break
        tokens += sizes[number]
        result.append(number)
    return result
