"""Which documents come back: what may be asked for, and what threshold, gap, budget and count leave of a ranking."""

from __future__ import annotations

import math
import pickle
from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection_rules import by_the_rules
from uprank import Reranker
from uprank.choosing import Candidate, Kept, keep
from uprank.errors import ConfigurationError, InvalidInputError, ScoreKindError
from uprank.rounds import drive
from uprank.selection import UNSET, CallOptions, Selection
from uprank.tokens import estimate_tokens


def nobody(request):
    raise AssertionError("similarities were asked for")


def kept(scores, *, texts=None, kind="logit", degraded=False, count=len, **options) -> Kept:
    """What is kept of documents with these scores, in this order; their text is as long as their tokens."""
    ordered = [Candidate(index, score, "") for index, score in enumerate(scores)]
    if texts is not None:
        ordered = [Candidate(index, score, text) for index, (score, text) in enumerate(zip(scores, texts, strict=True))]
    plan = keep(ordered, Selection(**options), kind=kind, model="m", degraded=degraded, count_tokens=count)
    return drive(plan, nobody)


def positions(scores, **options) -> list[int]:
    return list(kept(scores, **options).positions)


# --- what may be asked for


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("top_n", [0, -1, 2.5, True, "3", math.nan, [1]]),
        ("threshold", ["0.5", True, math.nan, math.inf, [0.5], b"1"]),
        ("min_gap", [0, 0.0, -0.1, math.nan, math.inf, "0.1", True, [1]]),
        ("max_tokens", [0, -5, 100.0, True, "100", math.inf]),
        ("diversity", [-0.1, 1.1, math.nan, math.inf, "0.5", True, [1]]),
        ("keep_at_least", [-1, 1.0, True, "1", math.nan]),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(name, values):
    for value in values:
        with pytest.raises(InvalidInputError, match=f"{name} must be") as caught:
            Selection(**{name: value})
        assert repr(value) in str(caught.value) or str(value) in str(caught.value)
        with pytest.raises(InvalidInputError, match=name):
            Selection().with_options({name: value})


def test_numbers_of_other_libraries_become_plain_ones():
    selection = Selection(np.int64(3), np.float32(0.5), Fraction(1, 4), np.int8(9), np.float64(1.0), np.uint8(2))
    assert selection == Selection(3, 0.5, 0.25, 9, 1.0, 2)
    assert [type(value) for value in (selection.top_n, selection.min_gap, selection.keep_at_least)] == [int, float, int]


def test_by_default_nothing_is_left_out():
    assert Selection() == Selection(None, None, None, None, None, 0)
    assert Selection(diversity=0) == Selection()  # as a sweep over values begins
    assert Selection(keep_at_least=None) == Selection()
    assert positions([1.0, None, -5.0]) == [0, 1, 2]
    assert positions([]) == []


def test_a_selection_does_not_change_and_can_be_kept():
    selection = Selection(top_n=3, min_gap=0.5)
    with pytest.raises(FrozenInstanceError):
        selection.top_n = 4
    assert pickle.loads(pickle.dumps(selection)) == selection  # noqa: S301 - our own
    assert len({selection, Selection(3, None, 0.5)}) == 1


def test_a_call_changes_what_it_gives_and_nothing_else():
    own = Selection(top_n=5, threshold=0.3, max_tokens=100, keep_at_least=1)
    assert own.with_options({}) is own
    assert own.with_options({"top_n": UNSET, "instruction": "prefer code"}) is own
    assert own.with_options({"top_n": 2, "threshold": UNSET}) == Selection(2, 0.3, None, 100, None, 1)
    assert own.with_options({"threshold": None, "max_tokens": None}) == Selection(5, keep_at_least=1)
    assert own.with_options({"keep_at_least": None}) == Selection(5, 0.3, None, 100)
    assert own.with_options({"diversity": 0.5, "min_gap": 1}) == Selection(5, 0.3, 1.0, 100, 0.5, 1)
    assert own == Selection(top_n=5, threshold=0.3, max_tokens=100, keep_at_least=1)


def test_every_option_of_a_selection_is_one_of_a_call():
    assert {*Selection.__dataclass_fields__, "instruction"} == CallOptions.__annotations__.keys()


def test_a_keyword_that_is_no_option_is_pythons_own_error():
    with pytest.raises(TypeError, match=r"arank\(\) got an unexpected keyword argument 'topn'. Did you mean 'top_n'\?"):
        Selection().with_options({"topn": 3}, function="arank()")
    with pytest.raises(TypeError, match=r"^rank\(\) got an unexpected keyword argument 'zzz'$"):
        Selection().with_options({"top_n": 3, "zzz": 3})


@pytest.mark.parametrize(("name", "value"), [("threshold", 0.5), ("min_gap", 0.5)])
def test_scores_that_mean_an_order_alone_are_not_compared(name, value):
    selection = Selection(**{name: value})
    assert selection.limits_scores
    for kind in ("probability", "logit", "cosine", None):
        selection.check_kind(kind, "bm25")
    with pytest.raises(ScoreKindError, match=f"bm25 gives scores of kind 'rank'.*{name}.*top_n"):
        selection.check_kind("rank", "bm25")
    with pytest.raises(ScoreKindError, match="kind 'rank'"):
        kept([2.0, 1.0], kind="rank", **{name: value})
    with pytest.raises(ScoreKindError, match="kind 'rank'"):  # also where nothing could be cut
        kept([], kind="rank", **{name: value})


def test_what_looks_at_scores_can_be_taken_off():
    selection = Selection(2, 0.5, 0.1, 50, 0.3, 1)
    assert selection.without_score_limits() == Selection(2, None, None, 50, 0.3, 1)
    assert not selection.without_score_limits().limits_scores
    plain = Selection(top_n=2, max_tokens=5, diversity=0.5, keep_at_least=1)
    assert plain.without_score_limits() is plain
    assert positions([3.0, 2.0, 1.0], kind="rank", top_n=2, keep_at_least=3) == [0, 1]


# --- threshold


def test_a_threshold_keeps_what_reaches_it():
    assert positions([0.9, 0.5, 0.5, 0.49], threshold=0.5) == [0, 1, 2]
    assert positions([0.9, 0.5], threshold=0.95) == []
    assert positions([-1.0, -2.0], threshold=-1.5) == [0]


def test_what_has_no_score_passes_only_where_that_is_a_failures_fault():
    assert positions([0.9, None, 0.1, None], threshold=0.5) == [0]
    assert positions([0.9, None, 0.1, None], threshold=0.5, degraded=True) == [0, 1, 3]


# --- min_gap


@pytest.mark.parametrize(
    ("scores", "min_gap", "expected"),
    [
        ([9.0, 8.0, 3.0, 2.0], 1.0, 2),  # the largest drop, not the first that is large enough
        ([9.0, 8.0, 3.0, 2.0], 5.0, 2),  # exactly as large as asked
        ([9.0, 8.0, 3.0, 2.0], 5.5, 4),  # none is as large
        ([9.0, 6.0, 5.0, 2.0], 2.0, 1),  # of two equal ones the first
        ([4.0, 4.0, 4.0], 0.1, 3),
        ([4.0], 0.1, 1),
        ([], 0.1, 0),
        ([1e308, -1e308], 1.0, 1),  # a drop beyond the largest float
        ([5.0, None, 4.5, 1.0, None], 1.0, 3),  # neighbours are those with scores
        ([5.0, 4.0, None], 2.0, 3),  # having no score is no drop
    ],
)
def test_the_cut_is_at_the_largest_drop(scores, min_gap, expected):
    assert positions(scores, min_gap=min_gap) == [*range(expected)]


def test_a_gap_takes_nothing_without_score_from_a_degraded_ranking():
    scores = [9.0, None, 1.0, None]
    assert positions(scores, min_gap=2.0) == [0, 1]
    assert positions(scores, min_gap=2.0, degraded=True) == [0, 1, 3]
    assert positions([None, None], min_gap=2.0, threshold=1.0, degraded=True) == [0, 1]


def test_threshold_and_gap_do_not_depend_on_each_other():
    """A gap among those that pass a threshold would cut here after the first."""
    assert positions([0.9, 0.7, 0.6, 0.0], threshold=0.5, min_gap=0.1) == [0, 1, 2]
    assert positions([0.9, 0.2, 0.1], threshold=0.15, min_gap=0.5) == [0]
    assert positions([0.9, 0.8, 0.1], threshold=0.85, min_gap=0.5) == [0]


# --- keep_at_least


def test_threshold_and_gap_leave_the_best():
    assert positions([0.3, 0.2, 0.1], threshold=0.5, keep_at_least=2) == [0, 1]
    assert positions([0.9, 0.2, 0.1], min_gap=0.5, keep_at_least=2) == [0, 1]
    assert positions([0.9, 0.8, 0.1], min_gap=0.5, keep_at_least=1) == [0, 1]
    assert positions([0.3, 0.2], threshold=0.5, keep_at_least=9) == [0, 1]
    assert positions([None, None], threshold=0.5, keep_at_least=1) == [0]


def test_the_count_and_the_budget_may_be_lower_than_what_is_to_be_left():
    assert positions([0.3, 0.2, 0.1], threshold=0.5, keep_at_least=3, top_n=2) == [0, 1]
    assert positions([0.3, 0.2], texts=["aaa", "bbb"], threshold=0.5, keep_at_least=2, max_tokens=5) == [0]


# --- top_n and max_tokens


def test_a_budget_takes_what_fits_in_order():
    texts = ["aaaa", "bbb", "cc", "dddd", "e"]
    scores = [5.0, 4.0, 3.0, 2.0, 1.0]
    assert positions(scores, texts=texts, max_tokens=14) == [0, 1, 2, 3, 4]
    assert positions(scores, texts=texts, max_tokens=7) == [0, 1]  # used up to the last token
    assert positions(scores, texts=texts, max_tokens=6) == [0, 2]  # the second is passed over
    assert positions(scores, texts=texts, max_tokens=5) == [0, 4]
    assert positions(scores, texts=texts, max_tokens=6, top_n=1) == [0]
    assert positions(scores, texts=texts, max_tokens=5, threshold=2.0) == [0]


def test_an_empty_document_fits_into_any_budget_that_is_not_used_up():
    assert positions([3.0, 2.0, 1.0], texts=["", "aa", "bbb"], max_tokens=2) == [0, 1]
    assert positions([3.0, 2.0, 1.0], texts=["aaa", "", "b"], max_tokens=4) == [0, 1, 2]


def test_where_nothing_fits_an_empty_context_is_not_silent():
    result = kept([2.0, 1.0], texts=["aaaa", "bbbbb"], max_tokens=3)
    assert result.positions == ()
    (warning,) = result.warnings
    assert "2 documents have more than max_tokens=3 tokens" in warning
    assert "document 0 with 4" in warning


def test_a_document_that_can_never_fit_is_told_and_others_are_not():
    result = kept([3.0, 2.0, 1.0], texts=["aaaa", "bbb", "c"], max_tokens=3)
    assert result.positions == (1,)
    (warning,) = result.warnings
    assert warning.startswith("1 document has more than max_tokens=3")
    assert kept([3.0, 2.0, 1.0], texts=["aaa", "bbb", "c"], max_tokens=4) == Kept((0, 2), ())


def test_no_more_is_counted_than_must_be():
    counted = []

    def count(text):
        counted.append(text)
        return len(text)

    texts = ["aa", "bb", "cc", "dd"]
    kept([4.0, 3.0, 2.0, 1.0], texts=texts, count=count, top_n=2)
    assert counted == []
    kept([4.0, 3.0, 2.0, 1.0], texts=texts, count=count, max_tokens=8, top_n=3)
    assert counted == ["aa", "bb", "cc"]
    counted.clear()
    kept([4.0, 3.0, 2.0, 1.0], texts=texts, count=count, max_tokens=4, threshold=1.5)
    assert counted == ["aa", "bb"]


def test_tokens_are_estimated_by_default():
    text = "The quick brown fox jumps over the lazy dog."
    need = estimate_tokens(text)
    for tokens, expected in ((need, (0,)), (need - 1, ())):
        plan = keep([Candidate(0, 1.0, text)], Selection(max_tokens=tokens), kind="logit", model="m")
        assert drive(plan, nobody).positions == expected


def test_what_is_counted_can_be_encoded():
    """A tokenizer of tiktoken's kind raises for a lone surrogate."""
    assert positions([1.0], texts=["\ud800"], count=lambda text: len(text.encode()), max_tokens=3) == [0]


@pytest.mark.parametrize("answer", [-1, 2.5, "3", None])
def test_a_count_that_is_none_is_an_error(answer):
    with pytest.raises(ConfigurationError, match=r"count_tokens .*document 0"):
        kept([1.0], texts=["a"], count=lambda text: answer, max_tokens=3)


def test_a_count_that_fails_says_where():
    def count(text):
        return 1 // (len(text) - 2)

    with pytest.raises(ConfigurationError, match="document 1 with ZeroDivisionError") as caught:
        kept([2.0, 1.0], texts=["aaa", "aa"], count=count, max_tokens=3)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert positions([1.0], texts=["aaa"], count=lambda text: np.int64(3), max_tokens=3) == [0]


# --- through the front door


def by_length(query, texts):
    return [float(len(text)) for text in texts]


DOCUMENTS = ["a" * 2, "b" * 9, "c" * 8, "d" * 3]


def indices(ranking):
    assert [hit.rank for hit in ranking] == [*range(len(ranking))]
    return [hit.index for hit in ranking]


def test_a_reranker_and_a_call_take_every_option():
    reranker = Reranker(by_length, min_gap=4.0, count_tokens=len)
    assert indices(reranker.rank("q", DOCUMENTS)) == [1, 2]
    assert indices(reranker.rank("q", DOCUMENTS, min_gap=None)) == [1, 2, 3, 0]
    assert indices(reranker.rank("q", DOCUMENTS, keep_at_least=3)) == [1, 2, 3]
    assert indices(reranker.rank("q", DOCUMENTS, min_gap=None, max_tokens=12)) == [1, 3]
    assert indices(reranker.rank("q", DOCUMENTS, max_tokens=12)) == [1]
    (ranking,) = reranker.rank_many(["q"], [DOCUMENTS], max_tokens=1)
    assert indices(ranking) == []
    assert "document 1 with 9" in ranking.warnings[0]
    with pytest.raises(TypeError, match="'maxtokens'"):
        reranker.rank("q", DOCUMENTS, maxtokens=3)


def test_ranks_are_not_compared_and_the_scorer_is_not_asked():
    def never(query, texts):
        raise AssertionError

    with pytest.raises(ScoreKindError, match="min_gap"):
        Reranker(never, score_kind="rank", min_gap=1.0)
    with pytest.raises(ScoreKindError, match="min_gap"):
        Reranker(never, score_kind="rank").rank("q", DOCUMENTS, min_gap=1.0)


async def test_a_budget_holds_for_a_ranking_that_was_passed_through():
    """It protects the context that the documents go into, whoever ordered them."""

    def broken(query, texts):
        raise OSError

    reranker = Reranker(broken, on_error="passthrough", threshold=5.0, min_gap=1.0, max_tokens=12, count_tokens=len)
    ranking = await reranker.arank("q", DOCUMENTS)
    assert indices(ranking) == [0, 1]
    assert ranking.degraded
    assert [hit.score for hit in ranking] == [None, None]


# --- all of it against a reading of the rules that is not the code's

numbers = st.one_of(st.none(), st.integers(-3, 6).map(lambda number: number / 2), st.floats(-3, 3))
choices = st.fixed_dictionaries(
    {},
    optional={
        "top_n": st.integers(1, 6),
        "threshold": st.sampled_from([-1.0, 0.0, 0.5, 1.0]),
        "min_gap": st.sampled_from([0.25, 0.5, 1.0, 2.0]),
        "max_tokens": st.integers(1, 15),
        "keep_at_least": st.integers(1, 4),
    },
)


@pytest.mark.no_cover
@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(numbers, st.integers(0, 6)), max_size=8), choices, st.booleans())
def test_all_options_together_do_what_the_rules_say(documents, options, degraded):
    documents.sort(key=lambda pair: -math.inf if pair[0] is None else pair[0], reverse=True)
    scores, sizes = [score for score, _ in documents], [size for _, size in documents]
    result = kept(scores, texts=["x" * size for size in sizes], degraded=degraded, **options)
    assert list(result.positions) == by_the_rules(scores, sizes, degraded, **options)
    limit = options.get("max_tokens", math.inf)
    assert sum(sizes[position] for position in result.positions) <= limit
    assert not result.degraded
