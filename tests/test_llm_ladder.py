"""What is done about an answer that is none, or half of one: each rung of the ladder by itself."""

from __future__ import annotations

import itertools
import math
import re

import pytest

from faulty_chat import (
    QUERY,
    Fault,
    FaultyChat,
    Sent,
    at_place,
    check_right,
    holding,
    leaving_out,
    order_of,
    ranked,
    says,
    shuffled,
    status,
    texts_of,
    told,
)
from uprank.errors import ContentRefusedError, RequestRefusedError, ServerError
from uprank.scorers.llm import Budget, Completion

WINDOW = {"strategy": "window", "window": 20}
GRADES = {"method": "pointwise", "grades": 9}


# What cannot be read


def test_what_cannot_be_read_is_asked_again_with_a_reminder() -> None:
    model = FaultyChat(shuffled(8), says("All of them are fine."), times=1)
    ranking = ranked(model, 8, **WINDOW)
    check_right(ranking, shuffled(8))
    first, second = model.sent
    assert second.prompt.startswith(first.prompt)
    assert "could not be read" in second.prompt[len(first.prompt) :]
    assert "could not be read" not in first.prompt
    assert "asked again (1)" in told(ranking)


# What is left out


@pytest.mark.no_cover
def test_ids_left_out_are_asked_for_next_to_four_that_were_placed() -> None:
    truth = shuffled(12)
    for lost in list(itertools.combinations(range(12), 2))[::3]:
        model = FaultyChat(truth, leaving_out(truth, *lost), at_place(0))
        ranking = ranked(model, 12, **WINDOW)
        _, again = model.sent
        given = [one for one in truth if one not in lost]
        anchors = [one for one in given if one in again.shown]
        assert set(again.shown) == {*anchors, *lost}
        assert list(again.shown) == sorted(again.shown)  # as they were shown before
        assert len(anchors) == 4
        places = [given.index(one) for one in anchors]
        gaps = [later - earlier for earlier, later in zip([-1, *places], [*places, 10], strict=True)]
        assert max(gaps) <= 4  # spread over all of them
        # Each stands where the anchors put it, and the others as they did.
        order = order_of(ranking)
        assert [one for one in order if one in given] == given
        known = [one for one in truth if one in again.shown]
        assert [one for one in order if one in again.shown] == known
        assert not ranking.degraded
        assert "missing ids asked for again (2)" in told(ranking)


def test_one_left_out_lands_within_half_a_gap_of_its_rank() -> None:
    truth = shuffled(20)
    for lost in range(0, 20, 3):
        ranking = ranked(FaultyChat(truth, leaving_out(truth, lost), at_place(0)), 20, **WINDOW)
        assert abs(order_of(ranking).index(lost) - truth.index(lost)) <= 3


@pytest.mark.parametrize("again", [says("Nothing to add."), says("", finish="refusal"), status(413)])
def test_if_they_are_not_placed_they_are_appended(again: Fault) -> None:
    truth = shuffled(12)
    lost = (truth[2], truth[5])
    fault = leaving_out(truth, *lost)
    model = FaultyChat(truth, lambda sent: fault(sent) if len(sent.shown) == 12 else again(sent))
    ranking = ranked(model, 12, **WINDOW)
    assert order_of(ranking) == [*(one for one in truth if one not in lost), *sorted(lost)]
    assert "missing ids appended (2)" in told(ranking)


def test_a_call_that_only_repairs_does_not_fail_in_silence() -> None:
    """It fails for good, as any other: flagged, or raised where that is asked for."""
    truth = shuffled(12)
    left_out, gone = leaving_out(truth, truth[2], truth[5]), status(500)

    def model() -> FaultyChat:
        return FaultyChat(truth, lambda sent: left_out(sent) if len(sent.shown) == 12 else gone(sent))

    ranking = ranked(model(), 12, max_retries=0, **WINDOW)
    assert order_of(ranking)[:2] == truth[:2]
    assert ranking.degraded
    assert "HTTP 500" in told(ranking)
    with pytest.raises(ServerError):
        ranked(model(), 12, max_retries=0, strict=True, **WINDOW)


def test_asking_for_them_is_not_afforded_at_any_price() -> None:
    truth = shuffled(12)
    model = FaultyChat(truth, leaving_out(truth, truth[0]), at_place(0))
    ranking = ranked(model, 12, budget=Budget(max_calls=1), **WINDOW)
    assert order_of(ranking) == [*truth[1:], truth[0]]
    assert len(model.sent) == 1


def test_a_wrong_key_is_raised_there_too() -> None:
    truth = shuffled(12)
    fault = leaving_out(truth, truth[3])
    model = FaultyChat(truth, lambda sent: fault(sent) if len(sent.shown) == 12 else status(404)(sent))
    with pytest.raises(RequestRefusedError):
        ranked(model, 12, **WINDOW)


def test_many_left_out_are_appended_as_they_came() -> None:
    truth = shuffled(12)
    lost = (truth[0], truth[4], truth[9])  # more than a fifth: it stopped early
    model = FaultyChat(truth, leaving_out(truth, *lost), at_place(0))
    ranking = ranked(model, 12, **WINDOW)
    assert order_of(ranking) == [*(one for one in truth if one not in lost), *sorted(lost)]
    assert len(model.sent) == 1
    assert "missing ids appended (3)" in told(ranking)


def test_what_an_answer_cut_short_leaves_out_is_appended() -> None:
    truth = shuffled(12)
    model = FaultyChat(truth, leaving_out(truth, *truth[-2:], finish="length"), at_place(0))
    ranking = ranked(model, 12, **WINDOW)
    assert order_of(ranking) == [*truth[:-2], *sorted(truth[-2:])]
    assert len(model.sent) == 1
    assert "cut off" in told(ranking)


# What is refused

REFUSALS = {
    "refusal": says("", finish="refusal"),
    "filter": says("", finish="filter"),
    "filter-400": status(400, "flagged by our content filter"),
    "words": says("I'm sorry, but I can't help with that."),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("bad", [(0,), (5,), (11,), (2, 3), (0, 6, 11)])
@pytest.mark.parametrize("options", [WINDOW, {**GRADES, "batch": 12}], ids=["order", "grades"])
def test_exactly_the_documents_that_are_refused_are_flagged(
    options: dict[str, object], bad: tuple[int, ...], refusal: str
) -> None:
    truth = shuffled(12)
    model = FaultyChat(truth, REFUSALS[refusal], holding(*bad))
    if "method" in options:
        truth = sorted(truth, key=lambda one: -round(9 * model._relevance(QUERY, texts_of(12)[one])))
    ranking = ranked(model, 12, **options)
    flagged = re.findall(r"would not look at the document '(\d+)", told(ranking))
    assert sorted(map(int, flagged)) == sorted(bad)
    assert ranking.degraded
    good = [one for one in order_of(ranking) if one not in bad]
    found = {hit.index: hit.score for hit in ranking}
    if options is WINDOW:
        assert good == [one for one in truth if one not in bad]
        assert [order_of(ranking).index(one) for one in bad] == list(bad)  # where they came
    else:
        assert all(found[one] is None for one in bad)
        assert order_of(ranking)[-len(bad) :] == list(bad)
        assert None not in [found[one] for one in good]
    # Two halves a level for each, the whole and what remains of it; twice each if it refuses in words.
    most = 2 + 2 * len(bad) * math.ceil(math.log2(12))
    assert len(model.sent) <= most * (2 if refusal == "words" else 1)


def test_a_choice_is_made_without_those_refused() -> None:
    truth = shuffled(12)
    model = FaultyChat(truth, says("", finish="refusal"), holding(truth[1]))
    ranking = ranked(model, 12, method="setwise", window=6, top=3)
    assert [one for one in order_of(ranking) if one != truth[1]][:2] == [truth[0], truth[2]]
    assert ranking.degraded


def test_what_was_refused_once_is_not_looked_for_again() -> None:
    """The next window knows which of its documents the model will not look at."""
    truth = shuffled(30)
    model = FaultyChat(truth, says("", finish="refusal"), holding(22))
    ranking = ranked(model, 30, strategy="sliding", window=10)
    assert [one for one in order_of(ranking) if one != 22][:4] == [one for one in truth if one != 22][:4]
    alone = [sent for sent in model.sent if sent.shown == (22,)]
    assert len(alone) == 1


def test_refusing_everything_ends_soon() -> None:
    """What the model refuses is the query, not the documents."""
    model = FaultyChat(shuffled(30), says("", finish="refusal"))
    with pytest.raises(ContentRefusedError):
        ranked(model, 30, strategy="sliding", window=10)
    assert len(model.sent) <= 19  # the halves of one window, at most


def test_what_is_refused_only_together_keeps_its_order_and_is_flagged() -> None:
    model = FaultyChat(shuffled(30), says("", finish="refusal"), at_place(1))
    ranking = ranked(model, 30, strategy="sliding", window=10)
    assert ranking.degraded
    assert "would not look" not in told(ranking)
    assert sorted(order_of(ranking)) == list(range(30))


# What is graded or chosen in part


def forgetting(*numbers: int) -> Fault:
    """A grade of 5 for each passage but these."""

    def fault(sent: Sent) -> Completion:
        pairs = zip(sent.asked.labels, sent.shown, strict=True)
        return Completion("\n".join(f"{label}: 5" for label, number in pairs if number not in numbers))

    return fault


def test_grades_left_out_are_asked_for_alone() -> None:
    truth = shuffled(9)
    model = FaultyChat(truth, forgetting(2, 6), at_place(0))
    ranking = ranked(model, 9, batch=9, **GRADES)
    assert [sent.shown for sent in model.sent] == [tuple(range(9)), (2, 6)]
    assert not ranking.degraded
    assert "missing grades asked for again (2)" in told(ranking)
    assert None not in [hit.score for hit in ranking]


def test_grades_that_stay_away_are_none_and_flagged() -> None:
    model = FaultyChat(shuffled(9), forgetting(2, 6), lambda sent: True)
    ranking = ranked(model, 9, batch=9, **GRADES)
    assert {hit.index for hit in ranking if hit.score is None} == {2, 6}
    assert order_of(ranking)[-2:] == [2, 6]
    assert ranking.degraded
    assert len(model.sent) == 3  # the second question is asked again, as it holds no grade at all


@pytest.mark.parametrize("said", [1, 2])
def test_too_few_chosen_are_filled_up(said: int) -> None:
    """With those shown first, and that is said."""
    truth = shuffled(20)

    def fault(sent: Sent) -> Completion:
        pairs = sorted(
            (truth.index(number), label) for number, label in zip(sent.shown, sent.asked.labels, strict=True)
        )
        return Completion(", ".join(label for _, label in pairs[:said]))

    model = FaultyChat(truth, fault, lambda sent: sent.asked.count > said)
    ranking = ranked(model, 20, method="setwise", strategy="tournament", window=10)
    assert model.struck
    assert sorted(order_of(ranking)) == list(range(20))
    assert truth[0] in order_of(ranking)[:said]  # of equals, which comes first is open
    assert f"too few were chosen ({len(model.struck)})" in told(ranking)
    assert not ranking.degraded
