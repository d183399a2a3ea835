"""Where candidates go that an answer left out, or that were not shown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["in_their_places", "placed"]


def placed(given: Sequence[int], missing: Sequence[int], around: Sequence[int]) -> tuple[int, ...]:
    """Put each missing one midway between its neighbours among those that were placed."""
    place = {one: float(number) for number, one in enumerate(given)}
    placed: dict[int, float] = {}
    for number, one in enumerate(around):
        if one not in missing:
            continue
        before = next((place[other] for other in reversed(around[:number]) if other in place), -1.0)
        after = next((place[other] for other in around[number:] if other in place), float(len(given)))
        placed[one] = (before + after) / 2
    rank = {one: number for number, one in enumerate(around)}
    everything = {**place, **{one: placed.get(one, float(len(given))) for one in missing}}
    return tuple(sorted(everything, key=lambda one: (everything[one], one in place, rank.get(one, len(rank)))))


def in_their_places(ids: Sequence[int], order: Sequence[int], refused: set[int]) -> tuple[int, ...]:
    """An order of some of the candidates, with the others where they were shown."""
    ordered = iter(order)
    return tuple(one if one in refused else next(ordered) for one in ids)
