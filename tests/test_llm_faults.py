"""Everything that can go wrong with a call of a language model, at every place of a ranking, by both drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pytest

from faulty_chat import (
    Fault,
    FaultyChat,
    Sent,
    at_place,
    order_of,
    raises,
    rank_by,
    replies,
    says,
    shuffled,
    status,
    texts_of,
)
from uprank import Ranking, Reranker
from uprank.errors import (
    AuthenticationError,
    BadReplyError,
    BillingError,
    ConnectionFailedError,
    ContentRefusedError,
    DeadlineExceededError,
    RateLimitError,
    RequestRefusedError,
    RequestTooLargeError,
    ScorerError,
    ServerError,
    ServiceError,
)
from uprank.scorers import LLMScorer
from uprank.scorers.base import ScoreRequest, Scores
from uprank.scorers.http import retries
from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.llm import Budget, Completion

pytestmark = pytest.mark.no_cover  # the same lines hundreds of times

DRIVERS = ("rank", "arank")


@dataclass(frozen=True)
class Trouble:
    """One thing that goes wrong.

    Attributes:
        kind: ``"fatal"``: no other call would fare better. ``"passing"``: it is sent again.
            ``"unread"``: it is asked again, with a reminder. ``"paid"``: it has been answered and paid for, and is
            not asked again. ``"refused"``: the documents are looked for that the model refuses. ``"large"``: the
            documents are shortened, then fewer are asked about at once. ``"bug"``: the model's own code breaks.
        fault: What comes.
        error: What it stands for.
        code: The status that the error names.
    """

    name: str
    kind: str
    fault: Fault
    error: type[ScorerError]
    code: int | None = None

    def __str__(self) -> str:
        return self.name


TOO_LONG = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9021 tokens."
FILTERED = "The response was filtered due to the prompt triggering the content management policy."
TROUBLES = [
    Trouble("401", "fatal", status(401), AuthenticationError, 401),
    Trouble("402", "fatal", status(402), BillingError, 402),
    Trouble("403", "fatal", status(403), AuthenticationError, 403),
    Trouble("404", "fatal", status(404), RequestRefusedError, 404),
    Trouble("429", "passing", status(429), RateLimitError, 429),
    Trouble("429-wait", "passing", status(429, retry_after="0.01"), RateLimitError, 429),
    Trouble("500", "passing", status(500), ServerError, 500),
    Trouble("503", "passing", status(503), ServerError, 503),
    Trouble("connect", "passing", replies(Lost("connect", "refused")), ConnectionFailedError),
    Trouble("broken", "passing", replies(Lost("broken", "reset")), ConnectionFailedError),
    Trouble("timeout", "passing", replies(Lost("timeout", "no reply within 1 s")), DeadlineExceededError),
    Trouble("prose", "unread", says("They all speak of whales, 1 as well as 2."), BadReplyError),
    Trouble("empty", "unread", says(""), BadReplyError),
    Trouble("sorry", "unread", says("I'm sorry, but I can't help with that."), ContentRefusedError),
    Trouble("not-a-completion", "paid", replies(Reply(200, {}, {"detail": "welcome"})), BadReplyError, 200),
    Trouble("filter-200", "refused", says("", finish="filter"), ContentRefusedError),
    Trouble("filter-400", "refused", status(400, FILTERED), ContentRefusedError),
    Trouble("refusal", "refused", says("", finish="refusal"), ContentRefusedError),
    Trouble("413", "large", status(413), RequestTooLargeError, 413),
    Trouble("400-long", "large", status(400, TOO_LONG), RequestTooLargeError, 400),
    Trouble("exception", "bug", raises(ZeroDivisionError("in the model")), ScorerError),
]


@dataclass(frozen=True)
class Run:
    """A ranking of several calls.

    Attributes:
        places: Calls that meet trouble: the first, one in the middle, the last.
    """

    name: str
    count: int
    places: tuple[int, ...]
    options: dict[str, object]

    def __str__(self) -> str:
        return self.name

    @property
    def truth(self) -> list[int]:
        return shuffled(self.count)

    def faulty(self, fault: Fault | None = None, *where: Callable[[Sent], bool], **more: object) -> FaultyChat:
        return FaultyChat(self.truth, fault, *where, **more)

    async def outcome(self, driver: str, model: FaultyChat, **more: object) -> Ranking | ScorerError:
        options = {"max_retries": 1, **self.options, **more}
        try:
            ranking = await rank_by(driver, model, self.count, **options)
        except ScorerError as error:
            return error
        assert sorted(order_of(ranking)) == list(range(self.count))
        return ranking

    async def clean(self) -> tuple[list[int], int]:
        """The order without any trouble, and how many calls it takes."""
        model = self.faulty()
        ranking = await self.outcome("arank", model)
        assert isinstance(ranking, Ranking)
        assert not ranking.degraded
        assert order_of(ranking)[:3] == self.truth[:3]
        assert model.places == len(model.sent) > max(self.places)
        return order_of(ranking), len(model.sent)


WINDOWS = {"window": 6, "top": 3}
SLIDING = Run("sliding", 15, (0, 2, 3), {"strategy": "sliding", **WINDOWS})
TOP_DOWN = Run("top-down", 20, (0, 2, 4), {"strategy": "top-down", **WINDOWS})  # the second to the fourth at once
POINTWISE = Run("pointwise", 6, (0, 2, 5), {"method": "pointwise", "batch": 1, "grades": 9})  # all at once
RUNS = [SLIDING, TOP_DOWN, POINTWISE]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.001)
    policy = partial(retries.RetryPolicy, rate_limit_wait=0.001)
    monkeypatch.setattr("uprank.scorers.llm.scorer.RetryPolicy", policy)


def turns(run: Run, trouble: Trouble) -> Iterator[tuple[int, str]]:
    """All places of a run, with one driver here and the other there; both come up for each place."""
    first = TROUBLES.index(trouble)
    return ((place, DRIVERS[(first + number) % 2]) for number, place in enumerate(run.places))


def of(*kinds: str) -> list[Trouble]:
    return [trouble for trouble in TROUBLES if trouble.kind in kinds]


def check_error(trouble: Trouble, outcome: Ranking | ScorerError) -> None:
    assert type(outcome) is trouble.error, outcome
    assert "llm:faulty" in str(outcome)
    if isinstance(outcome, ServiceError):
        assert (outcome.provider, outcome.model, outcome.status) == ("mock", "llm:faulty", trouble.code)
    if trouble.code not in (None, 200):
        assert f"HTTP {trouble.code}" in str(outcome)


def check_flagged(outcome: Ranking | ScorerError, trouble: Trouble) -> Ranking:
    assert isinstance(outcome, Ranking), outcome
    assert outcome.degraded
    told = "\n".join(outcome.warnings)
    assert "llm:faulty" in told
    assert "Some calls failed" in told
    if trouble.code not in (None, 200):
        assert f"HTTP {trouble.code}" in told
    return outcome


@pytest.mark.parametrize("run", RUNS, ids=str)
@pytest.mark.parametrize("trouble", of("fatal", "bug"), ids=str)
async def test_what_no_other_call_would_escape_is_raised_at_any_place(trouble: Trouble, run: Run) -> None:
    for place, driver in turns(run, trouble):
        model = run.faulty(trouble.fault, at_place(place))
        check_error(trouble, await run.outcome(driver, model))
        assert len(model.struck) == 1  # and it is not asked again


@pytest.mark.rotated(2)
@pytest.mark.parametrize("run", RUNS, ids=str)
@pytest.mark.parametrize("trouble", of("passing", "unread", "large"), ids=str)
async def test_what_passes_heals_without_a_flag_for_one_request_more(trouble: Trouble, run: Run) -> None:
    order, calls = await run.clean()
    for place, driver in turns(run, trouble):
        model = run.faulty(trouble.fault, at_place(place), times=1)
        ranking = await run.outcome(driver, model)
        assert isinstance(ranking, Ranking), ranking
        assert order_of(ranking) == order
        assert not ranking.degraded
        assert len(model.sent) == ranking.usage.requests == calls + 1
        assert len([sent for sent in model.sent if sent.place == place]) == 2
        assert ranking.usage.retries == (trouble.kind == "passing")
        told = " ".join(ranking.warnings)
        assert {"passing": told == "", "unread": "asked again (1)" in told, "large": "shortened" in told}[trouble.kind]


SENDS = {"passing": 2, "unread": 2, "paid": 1, "refused": 1, "large": 4}


@pytest.mark.rotated(2)
@pytest.mark.parametrize("run", RUNS, ids=str)
@pytest.mark.parametrize("trouble", of(*SENDS), ids=str)
async def test_what_stays_is_flagged_and_not_asked_more_than_it_helps(trouble: Trouble, run: Run) -> None:
    for place, driver in turns(run, trouble):
        model = run.faulty(trouble.fault, at_place(place))
        outcome = await run.outcome(driver, model)
        assert len(model.struck) <= SENDS[trouble.kind]
        if trouble.kind == "large" and run is not POINTWISE:  # answered in parts
            assert isinstance(outcome, Ranking)
            assert not outcome.degraded
            assert "split" in " ".join(outcome.warnings)
            continue
        if isinstance(outcome, ScorerError) and place == 0 and run is not POINTWISE:
            check_error(trouble, outcome)  # nothing had been answered
            continue
        ranking = check_flagged(outcome, trouble)
        if run is POINTWISE:
            (lost,) = model.struck[0].shown
            assert order_of(ranking) == [*(one for one in run.truth if one != lost), lost]
            assert {hit.index for hit in ranking if hit.score is None} == {lost}


@pytest.mark.rotated(3)
@pytest.mark.parametrize("run", RUNS, ids=str)
@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
async def test_if_every_call_fails_the_error_is_raised_or_the_order_kept(trouble: Trouble, run: Run) -> None:
    drivers = [driver for _, driver in turns(run, trouble)]
    check_error(trouble, await run.outcome(drivers[0], run.faulty(trouble.fault)))
    ranking = await run.outcome(drivers[1], run.faulty(trouble.fault), on_error="passthrough")
    assert isinstance(ranking, Ranking)
    assert ranking.degraded
    assert order_of(ranking) == list(range(run.count))
    assert {hit.score for hit in ranking} == {None}
    (warning,) = ranking.warnings
    assert "original order" in warning
    assert "llm:faulty" in warning


@pytest.mark.rotated(2)
@pytest.mark.parametrize("run", RUNS, ids=str)
@pytest.mark.parametrize("trouble", of(*SENDS), ids=str)
async def test_a_strict_ranking_fails_with_one_of_its_calls(trouble: Trouble, run: Run) -> None:
    place, driver = list(turns(run, trouble))[1]
    outcome = await run.outcome(driver, run.faulty(trouble.fault, at_place(place)), strict=True)
    if trouble.kind == "large" and run is not POINTWISE:  # all of it was answered, in parts
        assert isinstance(outcome, Ranking)
    else:
        check_error(trouble, outcome)


@pytest.mark.parametrize("trouble", of("passing", "unread", "paid"), ids=str)
async def test_a_model_that_is_gone_leaves_the_best_order_so_far(trouble: Trouble) -> None:
    (_, driver), (_, other), _ = turns(SLIDING, trouble)

    def gone(sent: Sent) -> bool:
        return sent.place >= 2

    ranking = check_flagged(await SLIDING.outcome(driver, SLIDING.faulty(trouble.fault, gone)), trouble)
    # Two windows were answered: of the last nine, the best three stand where the next would have begun.
    best = sorted(range(6, 15), key=SLIDING.truth.index)
    assert order_of(ranking)[6:9] == best[:3]
    assert order_of(ranking)[:6] == list(range(6))

    def after_the_head(sent: Sent) -> bool:
        return sent.place >= 1

    model = TOP_DOWN.faulty(trouble.fault, after_the_head)
    ranking = check_flagged(await TOP_DOWN.outcome(other, model), trouble)
    assert order_of(ranking)[:3] == sorted(range(6), key=TOP_DOWN.truth.index)[:3]


@pytest.mark.parametrize("trouble", of("unread", "refused"), ids=str)
async def test_one_window_without_an_answer_does_not_end_the_ranking(trouble: Trouble) -> None:
    """What its documents made it say, the model need not say of others."""
    for place, driver in turns(replace(SLIDING, places=(0, 1, 2)), trouble):
        model = SLIDING.faulty(trouble.fault, at_place(place))
        ranking = check_flagged(await SLIDING.outcome(driver, model), trouble)
        assert 0 in model.sent[-1].shown
        first = sorted(range(3), key=SLIDING.truth.index)  # seen by the last window alone
        assert [one for one in order_of(ranking) if one in first] == first


@pytest.mark.parametrize("trouble", of(*SENDS), ids=str)
async def test_one_partition_without_an_answer_does_not_spoil_the_head(trouble: Trouble) -> None:
    """Its documents beat nobody: the model has not said so."""
    truth = [0, 1, 2, 3, 4, 5, *range(7, 20), 6]  # the last of all is in one of the partitions

    def failing(sent: Sent) -> bool:
        return 6 in sent.shown and 0 not in sent.shown and len(sent.shown) > 3

    (_, driver) = next(turns(TOP_DOWN, trouble))
    model = FaultyChat(truth, trouble.fault, failing)
    outcome = await TOP_DOWN.outcome(driver, model)
    assert model.struck
    assert isinstance(outcome, Ranking), outcome
    assert order_of(outcome)[:3] == truth[:3]
    assert outcome.degraded == (trouble.kind != "large")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("headers", [{"retry_after": "0.06"}, {"retry_after_ms": "60"}])
@pytest.mark.parametrize("code", [429, 503])
async def test_a_wait_that_is_asked_for_is_kept(code: int, headers: dict[str, str], driver: str) -> None:
    model = SLIDING.faulty(status(code, **headers), at_place(1), times=1)
    ranking = await SLIDING.outcome(driver, model)
    assert isinstance(ranking, Ranking)
    assert not ranking.degraded
    first, second = (sent.began for sent in model.sent if sent.place == 1)
    assert second - first >= 0.06


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_wait_beyond_the_deadline_is_not_begun(driver: str) -> None:
    model = SLIDING.faulty(status(429, retry_after="300"), at_place(1))
    ranking = await SLIDING.outcome(driver, model, budget=Budget(deadline=200.0), max_retries=4)
    assert isinstance(ranking, Ranking)
    assert ranking.degraded
    assert len(model.struck) == 1
    assert "300 s" in " ".join(ranking.warnings)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("name", "sends"), [("500", 5), ("connect", 5), ("timeout", 2), ("not-a-completion", 1), ("refusal", 1)]
)
async def test_what_may_have_been_paid_for_is_not_sent_over_and_over(name: str, sends: int, driver: str) -> None:
    (trouble,) = [one for one in TROUBLES if one.name == name]
    model = SLIDING.faulty(trouble.fault, at_place(2))
    ranking = check_flagged(await SLIDING.outcome(driver, model, max_retries=4), trouble)
    assert len(model.struck) == sends
    assert ("after 4 retries" in " ".join(ranking.warnings)) == (sends == 5)


ONE_OF_EACH_KIND = list({trouble.kind: trouble for trouble in TROUBLES}.values())


@pytest.mark.parametrize("trouble", ONE_OF_EACH_KIND, ids=str)
async def test_a_query_that_fails_leaves_the_others_alone(trouble: Trouble) -> None:
    queries, documents = ["whales asleep", "whales at table", "whales in love"], [texts_of(15)] * 3
    clean, _ = await SLIDING.clean()
    model = SLIDING.faulty(trouble.fault, lambda sent: sent.asked.query == queries[1])
    reranker = Reranker(LLMScorer(model, max_retries=1, **SLIDING.options), on_error="passthrough")
    for rankings in (
        await reranker.arank_many(queries, documents),
        await asyncio.to_thread(reranker.rank_many, queries, documents),
    ):
        assert [ranking.degraded for ranking in rankings] == [False, True, False]
        assert order_of(rankings[0]) == order_of(rankings[2]) == clean
        assert order_of(rankings[1]) == list(range(15))
        assert rankings[0].warnings == rankings[2].warnings == ()


async def test_the_error_of_a_failed_query_is_its_own() -> None:
    model = SLIDING.faulty(status(401), lambda sent: sent.asked.query == "b")
    scorer = LLMScorer(model, **SLIDING.options)
    requests = [ScoreRequest(query, texts_of(15)) for query in "abc"]
    for outcomes in (scorer.score_many(requests), await scorer.ascore_many(requests)):
        assert [type(outcome) for outcome in outcomes] == [Scores, AuthenticationError, Scores]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("budget", [None, Budget(max_calls=50)])
async def test_a_context_too_small_for_any_question_is_said_of_the_model(budget: Budget | None, driver: str) -> None:
    model = SLIDING.faulty(context_window=100)
    error = await SLIDING.outcome(driver, model, budget=budget)
    assert isinstance(error, RequestTooLargeError)
    assert "context_window=100" in str(error)
    assert "llm:faulty" in str(error)
    assert (error.provider, error.model) == ("mock", "llm:faulty")
    assert not model.sent


@pytest.mark.parametrize("data", ["[1] > [2] > [3]", {"choices": []}, None, ["[1] > [2]"], Completion])
async def test_a_completion_alone_is_an_answer(data: object) -> None:
    """A text of an error, or of anything else, is none, whatever it says."""
    for driver in DRIVERS:
        model = SLIDING.faulty(replies(Reply(200, {}, data)))
        assert isinstance(await SLIDING.outcome(driver, model), BadReplyError)
