"""Listwise strategies under a judge that makes no mistakes: exactness and cost."""

from __future__ import annotations

from collections import Counter
from math import ceil
from statistics import mean

import pytest

from ranking_oracles import (
    INPUTS,
    assert_fits,
    assert_head,
    best_first,
    exact,
    fresh_first,
    level,
    permuted,
    ran,
    run,
    shown,
    topic,
)
from uprank.scorers.llm.strategies import STRATEGIES, Settings


@pytest.mark.parametrize("kind", INPUTS)
def test_window(kind: str):
    for n in range(2, 30):
        found = ran("window", n, kind, Settings(window=12))
        assert found.calls == 1
        head = best_first(permuted(n, kind)[:12])
        assert list(found.order) == head + list(range(12, n))


@pytest.mark.no_cover
@pytest.mark.parametrize(("window", "step"), [(20, 10), (10, 5), (4, 2), (7, 3), (20, 15)])
def test_sliding_takes_the_calls_it_should_and_finds_the_best_for_every_n(window: int, step: int):
    settings = Settings(window=window, step=step)
    for n in range(201):
        for kind in INPUTS[1:3]:
            found = ran("sliding", n, kind, settings)
            assert found.calls == len(found.rounds) == (1 + ceil(max(0, n - window) / step) if n > 1 else 0)
            assert_fits(found, window)
            assert_head(found, kind, window - step)


def test_the_head_is_ranked_whatever_is_left_over_by_the_steps():
    """RankGPT skips the first window where (n - 20) is no multiple of 10 or n < 20, rank_llm where n is 10."""
    for n in (2, 10, 19, 21, 25, 29, 35, 45, 95):
        found = ran("sliding", n, "reversed", Settings())
        assert 0 in shown(found.questions[-1])
        assert found.order[0] == n - 1


def test_d29_the_step_given_is_the_step_taken():
    """LangChain's RankLLMRerank takes a step_size and ignores it."""
    starts = [question.ids[0] for question in ran("sliding", 40, "sorted", Settings(step=5)).questions]
    assert starts == [20, 15, 10, 5, 0]


def test_sliding_passes_multiply():
    assert ran("sliding", 100, "reversed", Settings(passes=3)).calls == 27
    twice = ran("sliding", 30, "reversed", Settings(window=4, passes=2))
    assert_head(twice, "reversed", 4)  # one pass finds two for certain, two passes four


@pytest.mark.no_cover
@pytest.mark.parametrize(("window", "top"), [(20, 10), (20, 3), (10, 10), (7, 3), (4, 2), (4, 1)])
def test_top_down_finds_the_best_for_every_n(window: int, top: int):
    settings = Settings(window=window, top=top)
    for n in range(201):
        for kind in INPUTS[:3]:
            found = ran("top-down", n, kind, settings)
            assert_fits(found, window)
            assert_head(found, kind, n if n <= window else settings.head)
            assert found.calls <= 4 * level(n, window)  # so that nothing was settled roughly


@pytest.mark.parametrize(
    ("n", "kind", "calls", "rounds"),
    [
        (20, "reversed", 1, 1),
        (100, "sorted", 6, 2),
        (100, "reversed", 15, 7),
        (1000, "sorted", 53, 2),
        (1000, "reversed", 159, 10),
    ],
)
def test_top_down_costs_no_more_than_it_should(n: int, kind: str, calls: int, rounds: int):
    found = ran("top-down", n, kind, Settings())
    assert found.calls <= calls
    assert len(found.rounds) <= rounds
    assert_head(found, kind, 10)


def test_top_down_behind_a_typical_first_stage():
    """First stages with an nDCG@10 of about .56: utility plus noise, see ranking_oracles.topic."""
    found = []
    for seed in range(60):
        utilities = topic(seed).utilities
        found.append(run(STRATEGIES["top-down"].start(100, Settings()), exact(utilities), 100))
        assert list(found[-1].order[:10]) == best_first(utilities)[:10]
    assert mean(each.calls for each in found) <= 8
    assert mean(len(each.rounds) for each in found) <= 4


def test_top_down_sees_every_candidate():
    """The code published with the paper stops once it has collected enough, and never looks at the rest."""
    found = ran("top-down", 100, "reversed", Settings())
    assert {each for question in found.questions for each in shown(question)} == set(range(100))


def test_top_down_shows_the_pivot_anywhere():
    found = ran("top-down", 1000, "sorted", Settings())
    (head, *_), partitions = found.rounds[0].questions, found.rounds[1].questions
    places = Counter(shown(question).index(shown(head)[9]) for question in partitions)
    assert len(partitions) == 52
    assert len(places) > 10
    assert max(places.values()) < 10


@pytest.mark.parametrize("window", [2, 4, 20])
def test_top_down_gives_up_on_a_judge_that_contradicts_itself(window: int):
    """Everyone in the partitions beats every pivot: without a cap that takes a number of calls quadratic in n."""
    settings = Settings(window=window, blocks=3)
    found = run(STRATEGIES["top-down"].start(400, settings), fresh_first(), 400)
    assert found.calls <= 4 * level(400, window) + 3 * ceil(400 / window) + 1
    shown_in_blocks = Counter(each for question in found.rounds[-2].questions for each in shown(question))
    assert set(shown_in_blocks.values()) <= {3, 2} if window == 2 else {3}
    assert len(found.rounds[-1].questions) == 1
