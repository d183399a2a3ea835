"""What all strategies share: settings, refinement, and what they promise under judges that lie."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ranking_oracles import (
    INPUTS,
    Judge,
    Run,
    assert_fits,
    assert_head,
    contrary,
    exact,
    fresh_first,
    indifferent,
    level,
    permuted,
    ran,
    run,
    shown,
    whimsical,
)
from uprank.errors import ConfigurationError
from uprank.scorers.llm.questions import Order, Prefer, Score, Select
from uprank.scorers.llm.strategies import STRATEGIES, Settings, auto, consistent, refined

KINDS = {"order": Order, "select": Select, "prefer": Prefer, "score": Score}


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 1},
        {"window": 20.0},
        {"top": True},
        {"top": 0},
        {"passes": 0},
        {"tournaments": 0},
        {"blocks": 0},
        {"step": 0},
        {"step": 20},
        {"step": 1.5},
        {"seed": "7"},
        {"seed": None},
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(wrong: dict[str, object]):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]  # that is what is tested


def test_the_step_is_half_a_window_and_the_head_no_more():
    assert (Settings().stride, Settings(window=7).stride, Settings(step=3).stride) == (10, 3, 3)
    assert (Settings().head, Settings(window=8).head, Settings(top=3).head) == (10, 4, 3)


@pytest.mark.parametrize(
    ("method", "n", "name"),
    [
        ("listwise", 0, "window"),
        ("listwise", 20, "window"),
        ("listwise", 21, "sliding"),
        ("listwise", 50, "sliding"),
        ("listwise", 51, "top-down"),
        ("setwise", 5, "tree"),
        ("pairwise", 5, "pairwise-heap"),
        ("pointwise", 5, "pointwise"),
    ],
)
def test_auto(method: str, n: int, name: str):
    assert auto(method, n, Settings()) == name
    assert name in STRATEGIES


def test_auto_of_an_unknown_method():
    with pytest.raises(ConfigurationError, match="'elsewise'"):
        auto("elsewise", 5, Settings())


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_order_is_not_asked_about(name: str, n: int):
    assert run(STRATEGIES[name].start(n, Settings()), contrary, n) == Run(tuple(range(n)), [])
    assert run(consistent(tuple(range(n)), Settings(), 5), contrary, n).rounds == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_two_candidates_take_one_question(name: str):
    found = ran(name, 2, "reversed", Settings())
    if name == "tournament":  # the last two share their points
        assert found == Run((0, 1), [])
    else:
        assert (found.order, len(found.questions)) == ((1, 0), 1)


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_asks_one_kind_of_question(name: str):
    assert {type(question) for question in ran(name, 30, "reversed", Settings()).questions} == {
        KINDS[STRATEGIES[name].asks]
    }


@pytest.mark.parametrize("name", [name for name, row in STRATEGIES.items() if row.fixed])
@pytest.mark.parametrize("n", [2, 19, 20, 21, 61, 100])
def test_where_it_says_so_the_number_of_questions_depends_on_n_alone(name: str, n: int):
    judges: list[Judge] = [exact(permuted(n, "sorted")), contrary, indifferent, whimsical(1), fresh_first()]
    counts = {
        tuple(len(asked.questions) for asked in run(STRATEGIES[name].start(n, Settings()), judge, n).rounds)
        for judge in judges
    }
    assert len(counts) == 1


@pytest.mark.parametrize("name", [name for name, row in STRATEGIES.items() if not row.fixed])
def test_elsewhere_it_depends_on_the_answers(name: str):
    judges: list[Judge] = [exact(permuted(45, kind)) for kind in INPUTS] + [whimsical(seed) for seed in range(5)]
    assert len({run(STRATEGIES[name].start(45, Settings(window=4)), judge, 45).calls for judge in judges}) > 1


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_seed_asks_the_same(name: str):
    def asked(seed: int) -> Run:
        return run(STRATEGIES[name].start(60, Settings(seed=seed)), exact(permuted(60, "any")), 60)

    assert asked(3) == asked(3)
    drawn_by_lot = name in ("top-down", "tournament", "blocks")
    assert (asked(3).rounds != asked(4).rounds) == drawn_by_lot


# ---------------------------------------------------------------- refining


@pytest.mark.parametrize("n", [2, 12, 30])
def test_consistent_shows_the_final_window_so_often(n: int):
    order = tuple(range(n))[::-1]
    found = run(consistent(order, Settings(), 5), exact(permuted(n, "sorted")), n)
    (asked,) = found.rounds
    assert len(asked.questions) == 5
    assert all(set(shown(question)) == set(order[:20]) for question in asked.questions)
    assert n < 12 or len(set(asked.questions)) == 5
    assert asked.order == order
    assert found.order == (*sorted(order[:20]), *order[20:])


def test_consistent_averages_the_ranks_and_keeps_the_order_of_equals():
    order = (3, 1, 0, 2)
    answers = iter([(1, 0, 3, 2), (0, 3, 2, 1), (3, 1, 0, 2)])  # mean ranks: 1 and 0 and 3 alike, 2 behind
    found = run(consistent(order, Settings(), 3), lambda _: next(answers), 4)
    ranks = {0: 1 + 0 + 2, 1: 0 + 3 + 1, 2: 3 + 2 + 3, 3: 2 + 1 + 0}
    assert found.order == tuple(sorted(order, key=ranks.__getitem__)) == (3, 0, 1, 2)


def test_refined_is_a_strategy_and_one_more_round():
    settings = Settings()
    plain = ran("top-down", 100, "one shuffle", settings)
    judge = exact(permuted(100, "one shuffle"))
    found = run(refined(STRATEGIES["top-down"].start(100, settings), settings, 5), judge, 100)
    assert found.rounds[:-1] == plain.rounds
    assert len(found.rounds[-1].questions) == 5
    assert_head(found, "one shuffle", 10)


# ---------------------------------------------------------------- whatever is answered


JUDGES: dict[str, Callable[[int], Judge]] = {
    "whimsical": whimsical,
    "contrary": lambda _: contrary,
    "indifferent": lambda _: indifferent,
    "fresh first": lambda _: fresh_first(),
}


def most(name: str, n: int, settings: Settings) -> int:
    """Questions that a strategy may take at the very most."""
    window = settings.window
    depth = n.bit_length() + 1
    return {
        "window": 1,
        "sliding": settings.passes * (1 + ceil(max(0, n - window) / settings.stride)),
        "top-down": 4 * level(n, window) + settings.blocks * ceil(n / window) + 1,
        "tree": n + settings.top * depth,
        "heap": 2 * (n + settings.top * depth),
        "tournament": settings.tournaments * (2 * n + depth),
        "blocks": settings.blocks * ceil(n / window) + 1,
        "all-pairs": n * (n - 1) // 2,
        "pairwise-heap": 2 * (n + settings.top * depth),
        "pairwise-sliding": sum(n - 1 - done for done in range(min(settings.top, n))),
        "pointwise": 1,
    }[name]


@st.composite
def any_settings(draw: st.DrawFn) -> Settings:
    window = draw(st.integers(2, 12))
    return Settings(
        window=window,
        step=draw(st.none() | st.integers(1, window - 1)),
        top=draw(st.integers(1, 15)),
        passes=draw(st.integers(1, 3)),
        tournaments=draw(st.integers(1, 3)),
        blocks=draw(st.integers(1, 3)),
        seed=draw(st.integers(-5, 5)),
    )


@pytest.mark.no_cover
@pytest.mark.parametrize("name", STRATEGIES)
@hypothesis_settings(max_examples=25, deadline=None)
@given(data=st.data(), n=st.integers(0, 60), settings=any_settings(), judge=st.sampled_from(sorted(JUDGES)))
def test_whatever_is_answered_all_candidates_come_back(
    name: str, data: st.DataObject, n: int, settings: Settings, judge: str
):
    """``run`` holds every round and the result to their promises, and the questions to ``most``."""
    strategy = STRATEGIES[name].start(n, settings)
    shuffles = data.draw(st.integers(0, 3)) if STRATEGIES[name].asks == "order" else 0
    found = run(
        refined(strategy, settings, shuffles) if shuffles else strategy,
        JUDGES[judge](data.draw(st.integers(0, 100))),
        n,
        most(name, n, settings) + shuffles,
    )
    if STRATEGIES[name].asks in ("order", "select"):
        assert_fits(found, settings.window)
