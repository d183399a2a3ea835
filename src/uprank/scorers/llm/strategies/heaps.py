"""Heap sort over any way to find the best of a few."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from uprank.scorers.llm.questions import Round, Strategy
from uprank.scorers.llm.strategies.asking import Asking

__all__ = ["Best", "abreast", "heap_sort"]

Best: TypeAlias = "Callable[[Sequence[int], Sequence[int]], Asking[int]]"
"""Given a parent and its children, and all candidates in order, asks which of the former is the best."""


def heap_sort(n: int, top: int, arity: int, best: Best) -> Strategy:
    """Build a heap in which each has ``arity`` children, then take out the best ``top``, one after another.

    Subtrees beside each other are built in the same rounds. Those not taken out stay as they stood.
    """
    heap = list(range(n))
    found: list[int] = []

    def sift(place: int) -> Asking[None]:
        while children := heap[place * arity + 1 : place * arity + 1 + arity]:
            winner = yield from best([heap[place], *children], [*found, heap[0], *sorted(heap[1:])])
            if winner == heap[place]:
                return
            below = place * arity + 1 + children.index(winner)
            heap[place], heap[below] = heap[below], heap[place]
            place = below

    for level in reversed(_levels(n, arity)):
        yield from abreast(sift(place) for place in level)
    while heap:
        found.append(heap[0])
        last = heap.pop()
        if heap:
            heap[0] = last
        if len(found) == top:
            break
        yield from sift(0)
    return (*found, *sorted(heap))


def _levels(n: int, arity: int) -> list[range]:
    """The places that have children, level by level from the root."""
    levels, start, width = [], 0, 1
    while start * arity + 1 < n:
        levels.append(range(start, start + width))
        start, width = start + width, width * arity
    return levels


def abreast(parts: Iterable[Asking[None]]) -> Asking[None]:
    """Run parts that do not touch each other in the same rounds."""
    asking = [(part, asked) for part in parts if (asked := next(part, None))]
    while asking:
        answers = iter((yield Round(tuple(q for _, asked in asking for q in asked.questions), asking[-1][1].order)))
        still = []
        for part, asked in asking:
            try:
                still.append((part, part.send([next(answers) for _ in asked.questions])))
            except StopIteration:
                continue
        asking = still
