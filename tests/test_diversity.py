"""Maximal marginal relevance: what it chooses by hand and by the formula, what it asks, and what where that fails."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diversity_cases import FOUR, TABLE, by_table, choice, letters, texts
from uprank.errors import ConfigurationError, InvalidScoresError, QueryTooLongError, ScorerError
from uprank.rounds import drive
from uprank.scorers.base import Scores


@pytest.mark.parametrize(
    ("diversity", "top_n", "expected"),
    [
        # After a, at 0.5: b 0.45 - 0.45 = 0, c 0.2 - 0.05 = 0.15, d 0 - 0.1.
        (0.5, 2, "ac"),
        # Then b 0 (its nearest is still a), d -0.4 (now c).
        (0.5, 3, "abc"),
        # At 0.2: b 0.72 - 0.18 = 0.54, c 0.32 - 0.02 = 0.3.
        (0.2, 2, "ab"),
        # Relevance does not count, but for the first: c -0.1, then d -0.8 and b -0.9.
        (1.0, 2, "ac"),
        (1.0, 3, "acd"),
        (None, 2, "ab"),
        (0.5, 1, "a"),
    ],
)
def test_by_hand(diversity, top_n, expected):
    result = drive(choice(FOUR, diversity=diversity, top_n=top_n), by_table(TABLE))
    assert "".join(texts(FOUR, result)) == expected
    assert (result.warnings, result.degraded) == ((), False)


def test_the_result_stays_in_score_order():
    """c is chosen before b, and returned after it."""
    result = drive(choice(FOUR, diversity=0.5, top_n=3), by_table(TABLE))
    assert result.positions == (0, 1, 2)


def test_what_is_asked():
    asked = []

    def answer(request):
        asked.append((request.query, list(request.texts)))
        return by_table(TABLE)(request)

    drive(choice(FOUR, diversity=0.5, top_n=3), answer)
    assert asked == [("a", ["b", "c", "d"]), ("c", ["b", "d"])]  # nothing once the last is chosen


@pytest.mark.parametrize("options", [{}, {"top_n": 4}, {"top_n": 9}, {"max_tokens": 4}, {"top_n": 2, "threshold": 9.0}])
def test_where_nothing_is_left_out_nothing_is_asked(options):
    """What a threshold cuts is not diversity's to bring back."""

    def nobody(request):
        raise AssertionError(request)

    result = drive(choice(FOUR, diversity=0.5, **options), nobody)
    assert result.positions == ((0, 1) if "threshold" in options else (0, 1, 2, 3))


def test_only_what_passes_may_be_chosen():
    assert texts(FOUR, drive(choice(FOUR, diversity=1.0, top_n=2, threshold=9.5), by_table(TABLE))) == ["a"]
    assert texts(FOUR, drive(choice(FOUR, diversity=1.0, top_n=1, min_gap=5.0), by_table(TABLE))) == ["a"]


def test_a_budget_is_filled_with_what_differs():
    documents = [("aab", 10.0), ("aabb", 9.0), ("ccc", 8.0), ("aa", 7.0), ("d", 6.0)]
    assert texts(documents, drive(choice(documents, max_tokens=7), letters)) == ["aab", "aabb"]
    # ccc after aab, since aabb is much like it; then d, the only one that fits.
    assert texts(documents, drive(choice(documents, max_tokens=7, diversity=0.6), letters)) == ["aab", "ccc", "d"]
    assert texts(documents, drive(choice(documents, max_tokens=7, diversity=0.6, top_n=2), letters)) == ["aab", "ccc"]


def test_the_first_is_the_best_that_fits():
    documents = [("aaaaaaaa", 10.0), ("bbb", 9.0), ("bb", 8.0), ("cc", 7.0)]
    result = drive(choice(documents, max_tokens=5, diversity=1.0), letters)
    assert texts(documents, result) == ["bbb", "cc"]
    assert "document 0 with 8" in result.warnings[0]


def test_places_count_where_scores_tell_an_order_alone():
    """By its score, b would be as good as nothing; by its place it is better than c."""
    documents = [("a", 1000.0), ("b", 1.1), ("c", 1.0), ("d", 0.0)]
    table = {"ab": 0.3, "ac": 0.2, "ad": 0.9}
    assert texts(documents, drive(choice(documents, diversity=0.5, top_n=2), by_table(table))) == ["a", "c"]
    assert texts(documents, drive(choice(documents, diversity=0.5, top_n=2, kind="rank"), by_table(table))) == [
        "a",
        "b",
    ]
    unscored = [(text, None) for text, _ in documents]
    result = drive(choice(unscored, diversity=0.5, top_n=2, degraded=True), by_table(table))
    assert texts(unscored, result) == ["a", "b"]


@pytest.mark.parametrize("scores", [[5.0] * 4, [1e308, 0.0, 0.0, -1e308], [5e-324, 0.0, 0.0, 0.0], [0.0, -0.0, 0, 0]])
def test_extreme_scores_are_scaled(scores):
    """Of equal relevance, c differs more from a than b does."""
    documents = list(zip("abcd", scores, strict=True))
    result = drive(choice(documents, diversity=0.5, top_n=2), by_table(TABLE))
    assert texts(documents, result) == ["a", "c"]


def test_a_text_is_like_itself_and_a_blank_one_like_none():
    """Neither is asked: a query must have words, and no two texts may be alike."""
    documents = [("a", 5.0), ("a", 4.9), (" ", 4.8), ("b", 4.7), ("b", 4.6)]
    asked = []

    def answer(request):
        asked.append((request.query, list(request.texts)))
        return letters(request)

    result = drive(choice(documents, diversity=1.0, top_n=3), answer)
    assert result.positions == (0, 2, 3)
    assert asked == [("a", ["b"])]  # the blank one is chosen second, and asks nothing


def test_what_is_asked_can_be_encoded():
    documents = [("a\ud800", 5.0), ("b\udc00", 4.0), ("a\ufffd", 3.0)]

    def answer(request):
        for text in (request.query, *request.texts):
            text.encode()
        assert "a\ufffd" not in request.texts  # as read, it is the one chosen
        return letters(request)

    assert drive(choice(documents, diversity=1.0, top_n=2), answer).positions == (0, 1)


def test_as_many_are_looked_at_as_is_documented():
    """At least 50, else four times as many as are wanted; those below come in only where these do not fit."""
    documents = [(f"a{number:03}", 1000.0 - number) for number in range(300)]
    asked = []

    def answer(request):
        asked.append(len(request.texts))
        return letters(request)

    drive(choice(documents, diversity=0.5, top_n=3), answer)
    assert asked == [49, 48]
    asked.clear()
    drive(choice(documents, diversity=0.5, top_n=20), answer)
    assert asked[0] == 79
    asked.clear()
    drive(choice(documents, diversity=0.5, max_tokens=4 * 20), answer)  # four letters each
    assert asked[0] == 79


def test_a_pool_that_does_not_fill_the_budget_is_followed_by_the_rest():
    large = [("x" * 90, 1000.0 - number) for number in range(60)]
    documents = [("a" * 20, 2000.0), *large, ("b" * 5, 1.0), ("c" * 5, 0.5)]
    result = drive(choice(documents, max_tokens=110, diversity=1.0), letters)
    assert [len(text) for text in texts(documents, result)] == [20, 90]
    result = drive(choice(documents, max_tokens=31, diversity=1.0), letters)
    assert [len(text) for text in texts(documents, result)] == [20, 5, 5]


def test_a_text_too_long_to_ask_by_is_halved_until_it_is_not():
    documents = [("  " + "ab " * 10, 5.0), ("c", 4.0), ("d", 3.0)]
    asked = []

    def answer(request):
        asked.append(request.query)
        return QueryTooLongError("too long") if len(request.query) > 8 else letters(request)

    assert drive(choice(documents, diversity=0.5, top_n=2), answer).positions == (0, 1)
    assert [len(query) for query in asked] == [29, 14, 7]
    assert all(query.strip() for query in asked)
    with pytest.raises(QueryTooLongError):  # ends, whatever is answered
        drive(choice(documents, diversity=0.5, top_n=2), lambda request: QueryTooLongError("never short enough"))


# --- failures


def test_similarities_that_cannot_be_had_are_an_error():
    def broken(request):
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):  # thrown in by the driver: the choice does not hide it
        drive(choice(FOUR, diversity=0.5, top_n=2), broken)
    with pytest.raises(ScorerError, match="OSError: no disk"):
        drive(choice(FOUR, diversity=0.5, top_n=2), lambda request: OSError("no disk"))
    with pytest.raises(InvalidScoresError, match="2 scores for 3 texts"):
        drive(choice(FOUR, diversity=0.5, top_n=2), lambda request: Scores([0.1, 0.2], "cosine"))
    with pytest.raises(InvalidScoresError, match="finite"):
        drive(choice(FOUR, diversity=0.5, top_n=2), lambda request: Scores([0.1, math.nan, 0.2], "cosine"))


@pytest.mark.parametrize("failing", [1, 2])
def test_not_strict_chooses_without_and_says_so(failing):
    calls = []

    def answer(request):
        calls.append(request)
        return ScorerError("no such file") if len(calls) == failing else by_table(TABLE)(request)

    result = drive(choice(FOUR, diversity=1.0, top_n=3, strict=False), answer)
    assert texts(FOUR, result) == ["a", "b", "c"]  # also where some had been chosen already
    assert result.degraded
    assert result.warnings == ("Diversity was left out, since similarities were not to be had: no such file",)


def test_a_mistake_in_the_set_up_is_not_hidden():
    with pytest.raises(ConfigurationError):
        drive(choice(FOUR, diversity=1.0, top_n=2, strict=False), lambda request: ConfigurationError("no such option"))


# --- any case, against the formula


def by_the_formula(documents, diversity, top_n, similarity):
    """Carbonell and Goldstein's, as they write it."""
    scores = [score for _, score in documents]
    low, high = min(scores), max(scores)
    relevance = [1.0 if low == high else (score - low) / (high - low) for score in scores]
    taken = []
    while len(taken) < min(top_n, len(documents)):

        def marginal(number):
            near = max((similarity(documents[other][0], documents[number][0]) for other in taken), default=0.0)
            return (1 - diversity) * relevance[number] - diversity * near if taken else relevance[number]

        left = [number for number in range(len(documents)) if number not in taken]
        taken.append(max(left, key=lambda number: (marginal(number), -number)))
    return tuple(sorted(taken))


@pytest.mark.no_cover
@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.text("abc", min_size=1, max_size=4), st.integers(-4, 8).map(float)), min_size=1, max_size=9),
    st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    st.integers(1, 9),
)
def test_the_choice_is_the_formulas(documents, diversity, top_n):
    documents.sort(key=lambda pair: -pair[1])

    def similarity(one, other):
        if one == other:
            return 1.0
        return round(letters_of(one, other), 3)

    def letters_of(one, other):
        dot = sum(one.count(letter) * other.count(letter) for letter in "abc")
        return dot / math.sqrt(
            sum(one.count(letter) ** 2 for letter in "abc") * sum(other.count(letter) ** 2 for letter in "abc")
        )

    def answer(request):
        return Scores([similarity(request.query, text) for text in request.texts], "cosine")

    result = drive(choice(documents, diversity=diversity, top_n=top_n), answer)
    assert result.positions == by_the_formula(documents, diversity, top_n, similarity)
