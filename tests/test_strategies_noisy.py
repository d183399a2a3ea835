"""Strategies under judges that err: how much of the order each recovers, simulated over 60 topics."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import mean

import pytest

from ranking_oracles import NoisyJudge, Topic, run, topic
from uprank.scorers.llm.strategies import STRATEGIES, Settings, refined

pytestmark = pytest.mark.no_cover  # the same few lines, many thousand times

N = 100
TOPICS = [topic(seed) for seed in range(60)]
SETTINGS = Settings()


def independent(of: Topic) -> NoisyJudge:
    """Every question errs anew, and likes what is shown early."""
    return NoisyJudge(of, independent=0.6, position_bias=0.5)


def systematic(of: Topic) -> NoisyJudge:
    """The same total error, most of it about the documents themselves: no other question makes up for it."""
    return NoisyJudge(of, independent=0.25, systematic=0.55, position_bias=0.5)


def unbiased(of: Topic) -> NoisyJudge:
    """As :func:`systematic`, but with no liking for what is shown early."""
    return NoisyJudge(of, independent=0.25, systematic=0.55)


@cache
def quality(
    name: str, judge: Callable[[Topic], NoisyJudge], *, shuffles: int = 0, settings: Settings = SETTINGS
) -> float:
    """Mean nDCG@10 over the topics of the strategy of this name, refined by so many shuffles."""

    def found(of: Topic) -> tuple[int, ...]:
        strategy = STRATEGIES[name].start(N, settings)
        return run(refined(strategy, settings, shuffles) if shuffles else strategy, judge(of), N).order

    return mean(each.ndcg(found(each)) for each in TOPICS)


def test_the_first_stage_is_a_typical_one():
    assert mean(each.ndcg(range(N)) for each in TOPICS) == pytest.approx(0.564, abs=0.03)


@pytest.mark.parametrize(
    ("name", "shuffles", "least"),
    [
        ("sliding", 0, 0.935),
        ("top-down", 0, 0.93),
        ("top-down", 5, 0.965),
        ("tournament", 0, 0.95),
        ("pointwise", 0, 0.90),
    ],
)
def test_independent_errors_are_outvoted(name: str, shuffles: int, least: float):
    assert quality(name, independent, shuffles=shuffles) >= least


def test_more_shuffles_are_better_where_errors_are_independent():
    one, three, five = (quality("top-down", independent, shuffles=shuffles) for shuffles in (1, 3, 5))
    assert one < three < five


def test_more_shuffles_buy_nothing_where_errors_are_systematic():
    assert abs(quality("top-down", systematic, shuffles=5) - quality("top-down", systematic)) <= 0.03


def test_no_strategy_looks_better_than_another_where_errors_are_systematic():
    """If one did, the simulation would flatter it: there is little more to be learnt by asking otherwise."""
    named = ("sliding", "top-down", "tree", "tournament", "blocks", "pairwise-heap", "pointwise")
    found = {name: quality(name, systematic) for name in named}
    found["heap"] = quality("heap", systematic, settings=Settings(window=4))
    found["top-down, refined"] = quality("top-down", systematic, shuffles=5)
    assert max(found.values()) - min(found.values()) <= 0.03, found


@cache
def without_bias(name: str) -> float:
    return quality(name, unbiased, settings=Settings(window=4) if name == "heap" else SETTINGS)


def test_nor_without_a_liking_for_what_is_shown_early():
    """All strategies but ``window``, which looks at a fifth of the candidates, and ``all-pairs``, which is slow."""
    found = {name: without_bias(name) for name in STRATEGIES if name not in ("window", "all-pairs")}
    assert max(found.values()) - min(found.values()) <= 0.03, found


def test_pairwise_sliding_suffers_from_a_liking_for_what_is_shown_early():
    """The whole bias lies between two, where the pair is a draw, and a draw moves nothing."""
    assert quality("pairwise-sliding", systematic) < without_bias("pairwise-sliding") - 0.03


@pytest.mark.slow
def test_nor_is_all_pairs_better():
    found = {name: without_bias(name) for name in STRATEGIES if name != "window"}
    assert max(found.values()) - min(found.values()) <= 0.03, found
