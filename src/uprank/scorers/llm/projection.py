"""From an order and independent scores to scores that keep the order; and what does not fit together."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["projected", "suspicious"]


def projected(scores: Sequence[float]) -> list[float]:
    """The closest sequence, by squares, that never rises: isotonic regression by pooling neighbours.

    Keeps the order exactly and the mean of the scores, and changes nothing that falls already. The same idea
    as constrained regression of pointwise labels onto a listwise order (arXiv:2404.11791); the
    algorithm is pool-adjacent-violators (Ayer et al., 1955).

    Args:
        scores: Of the candidates in the order to keep, the best first.

    Returns:
        As many, each at most the one before it.
    """
    blocks: list[tuple[float, int]] = []  # mean, size
    for score in scores:
        mean, size = score, 1
        while blocks and blocks[-1][0] < mean:
            before, others = blocks.pop()
            mean, size = (before * others + mean * size) / (others + size), others + size
        blocks.append((mean, size))
    return [mean for mean, size in blocks for _ in range(size)]


def suspicious(order: Sequence[int], scores: Sequence[float | None]) -> list[int]:
    """Candidates that stand far higher among the others than their own score does.

    A document that holds instructions to the model may lift itself in a list, but is scored by
    itself where nothing else is at stake. Far is half of the list, and at least three places.

    Args:
        order: The candidates, the best first.
        scores: The score of each, in that order.
    """
    known = [(one, score) for one, score in zip(order, scores, strict=True) if score is not None]
    by_score = [one for one, _ in sorted(known, key=lambda pair: -pair[1])]
    place = {one: number for number, one in enumerate(by_score)}
    far = max(3, len(known) / 2)
    middle = sorted(score for _, score in known)[len(known) // 2] if known else 0.0
    return [one for number, (one, score) in enumerate(known) if place[one] - number >= far and score < middle]
