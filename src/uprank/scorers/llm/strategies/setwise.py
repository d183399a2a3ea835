"""Strategies that ask which of several is the best (setwise ranking, arXiv:2310.09497)."""

from __future__ import annotations

from collections.abc import Sequence

from uprank.scorers.llm.questions import Select, Strategy
from uprank.scorers.llm.strategies.asking import Asking, ask_selections, flat
from uprank.scorers.llm.strategies.heaps import heap_sort
from uprank.scorers.llm.strategies.settings import Settings

__all__ = ["heap", "tree"]


def heap(n: int, settings: Settings) -> Strategy:
    """Heap sort with ``window - 1`` children a parent, for the best ``top``.

    At 100 candidates about 130 calls in 70 rounds with a window of 3, 21 in 17 with a window of 20. The best
    ``top`` are found for certain.
    """

    def best(ids: Sequence[int], order: Sequence[int]) -> Asking[int]:
        winner, *rest = sorted(ids)  # in first-stage order: the parent may be anyone, and models like the first shown
        while rest:  # once, but for a window of 2, which holds two of a parent and its two children
            shown = (winner, *rest[: settings.window - 1])
            ((winner, *_),) = yield from ask_selections([Select(shown)], order)
            rest = rest[settings.window - 1 :]
        return winner

    return heap_sort(n, settings.top, max(2, settings.window - 1), best)


def tree(n: int, settings: Settings) -> Strategy:
    """A knock-out tree of groups of ``window`` that keeps its results (as in ListT5, arXiv:2402.15838).

    The groups of a level play in one round; once the best is taken out, only the groups on its way up play
    again. 24 calls in 20 rounds at 100 candidates and a window of 20. The best ``top`` are found for certain.
    """
    width = settings.window
    found: list[int] = []
    left = list(range(n))
    # levels[0] holds the candidates, each further level the winners of groups of the one below; () where none is left.
    levels: list[list[tuple[int, ...]]] = [[(each,) for each in left]]
    while len(levels[-1]) > 1:
        levels.append([()] * -(-len(levels[-1]) // width))

    def play(level: int, places: Sequence[int]) -> Asking[None]:
        groups = {place: flat(levels[level - 1][place * width : (place + 1) * width]) for place in places}
        questions = {place: Select(ids) for place, ids in groups.items() if len(ids) > 1}
        answers = iter((yield from ask_selections(questions.values(), [*found, *left])) if questions else ())
        for place, ids in groups.items():
            levels[level][place] = next(answers) if place in questions else ids

    for level in range(1, len(levels)):
        yield from play(level, range(len(levels[level])))
    while left:
        ((best,),) = levels[-1]
        found.append(best)
        left.remove(best)
        if len(found) == settings.top:
            break
        levels[0][best] = ()
        for level in range(1, len(levels)):
            yield from play(level, [best // width**level])
    return (*found, *left)
