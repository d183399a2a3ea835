"""Fallback: models tried in order; who answers, what is told of it, and what is raised."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback_parts import LEADING, QUERY, RAISED, TEXTS, Clock, Model, both_ways, made, ranked
from uprank import (
    ConfigurationError,
    InvalidInputError,
    MissingDependencyError,
    QueryTooLongError,
    RateLimitError,
    Reranker,
    ScorerError,
    ServerError,
    ServiceError,
    errors,
)
from uprank.errors import AllModelsFailedError
from uprank.scorers import HTTPScorer, Scorer, ScoreRequest, Scores, registry
from uprank.scorers.callable import CallableScorer
from uprank.scorers.combined.breaker import Breaker
from uprank.scorers.combined.fallback import Fallback
from uprank.testing import MockTransport


def service(transport: MockTransport, name: str = "a", **options: object) -> HTTPScorer:
    options = {"max_retries": 0, "api_key": "k", **options}
    return HTTPScorer(name, provider="jina", transport=transport, **options)


# --- who answers, and what is told of it


@both_ways
async def test_the_first_that_answers_is_the_only_one_asked_and_nothing_is_said(way):
    first, second = Model("first"), Model("second")
    ranking = await ranked(Reranker(Fallback([first, second])), way)
    assert [hit.index for hit in ranking] == [0, 1, 2]
    assert [hit.score for hit in ranking] == [31.0, 28.0, 20.0]
    assert (ranking.model, ranking.attempts, ranking.warnings, ranking.degraded) == ("first", (), (), False)
    assert ranking.usage.pairs == 3
    assert second.asked == []


@both_ways
async def test_the_ranking_tells_who_answered_and_why_the_earlier_ones_did_not(way):
    clock = Clock()

    def slow(query: str) -> Exception:
        clock.now += 2.5
        return RateLimitError("too many requests", retry_after=7.0)

    models = [Model("first", slow), Model("second", ValueError("no GPU")), Model("third")]
    reranker = Reranker(Fallback(models, clock=clock))
    ranking = await ranked(reranker, way)
    assert reranker.model == "first"
    assert ranking.model == "third"
    assert [(a.model, a.kind, a.error, a.seconds) for a in ranking.attempts] == [
        ("first", "RateLimitError", "too many requests", 2.5),
        ("second", "ScorerError", "second failed with ValueError: no GPU", 0.0),
    ]
    assert ranking.warnings == (
        "third answered; first did not (RateLimitError: too many requests); "
        "second did not (ScorerError: second failed with ValueError: no GPU)",
    )
    assert [hit.score for hit in ranking] == [31.0, 28.0, 20.0]
    assert not ranking.degraded


@both_ways
async def test_of_several_queries_only_those_that_failed_go_on(way):
    first = Model("first", lambda query: ServerError("down") if query in ("b", "d") else None)
    second = Model("second", lambda query: ScorerError("not that one") if query == "d" else None)
    third = Model("third")
    reranker = Reranker(Fallback([first, second, third]))
    queries = ["a", "b", "c", "d"]
    lists = [[f"{query}{'.' * length}" for length in (3, 1, 2)] for query in queries]
    rankings = reranker.rank_many(queries, lists) if way == "sync" else await reranker.arank_many(queries, lists)
    assert [ranking.query for ranking in rankings] == queries
    assert [ranking.model for ranking in rankings] == ["first", "second", "first", "third"]
    assert [len(ranking.attempts) for ranking in rankings] == [0, 1, 0, 2]
    assert [ranking.hits[0].document.text for ranking in rankings] == ["a...", "b...", "c...", "d..."]
    assert (sorted(first.queries), sorted(second.queries), third.queries) == (queries, ["b", "d"], ["d"])


def test_an_answer_that_is_only_the_best_to_be_had_is_an_answer():
    class Budgeted(Model):
        def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
            return Scores([0.0] * len(texts), "rank", degraded=True, warnings=("the budget is used up",))

    second = Model("second")
    ranking = Reranker(Fallback([Budgeted("first"), second])).rank(QUERY, TEXTS)
    assert (ranking.model, ranking.degraded, ranking.warnings) == ("first", True, ("the budget is used up",))
    assert second.asked == []


def test_scores_that_cannot_be_used_are_no_answer():
    def one_short(query: str, texts: list[str]) -> list[float]:
        return [1.0] * (len(texts) - 1)

    ranking = Reranker(Fallback([one_short, lambda query, texts: [float("nan")] * len(texts), "bm25"])).rank(
        QUERY, TEXTS
    )
    assert ranking.model == "bm25"
    assert ranking[0].index == 1
    assert [attempt.kind for attempt in ranking.attempts] == ["InvalidScoresError"] * 2


def test_what_is_told_beforehand_is_told_of_the_first():
    logits, cosines = CallableScorer(len, name="logits", score_kind="logit"), Model("cosines")
    cosines.score_kind, cosines.document_window, cosines.calibrated = "cosine", 512, True
    fallback = Fallback([logits, cosines])
    assert (fallback.name, fallback.score_kind, fallback.calibrated) == ("logits", "logit", False)
    assert fallback.document_window == 512  # the smallest that is known
    other = fallback.with_members([cosines, logits])
    assert (other.name, other.score_kind, other.calibrated) == ("cosines", "cosine", True)
    assert repr(other) == "<Fallback cosines, then logits>"


def test_the_instruction_goes_only_to_those_that_take_one():
    taking, other = Model("taking", ServerError("down")), Model("other")
    taking.accepts_instruction = True
    reranker = Reranker(Fallback([taking, other]), instruction="prefer recipes")
    ranking = reranker.rank(QUERY, TEXTS)
    assert [request.instruction for request in taking.asked + other.asked] == ["prefer recipes", None]
    assert ranking.warnings == (
        "other answered; taking did not (ServerError: down)",
        "The instruction was not used: other takes none.",
    )
    taking.fail = None
    assert reranker.rank(QUERY, TEXTS).warnings == ()
    ranking = Reranker(Fallback([other, taking]), instruction="prefer recipes").rank(QUERY, TEXTS)
    assert (ranking.model, ranking.attempts) == ("other", ())
    assert ranking.warnings == ("The instruction was not used: other takes none.",)


def test_r18_a_fallback_is_never_silent_and_no_threshold_of_another_scale_cuts_its_answer():
    """Elsewhere the scores of a fallback were cut by the threshold of the first model, and nobody was told."""
    down = CallableScorer(lambda query, texts: 1 / 0, name="down", score_kind="probability")
    ranking = Reranker(Fallback([down, "bm25"]), threshold=0.9).rank(QUERY, TEXTS)
    assert len(ranking) == 3
    assert ranking.warnings[0].startswith("bm25 answered; down did not (ScorerError: down failed with ZeroDivision")


def test_a_chain_within_a_chain_tells_of_all_who_did_not_answer():
    inner = Fallback([Model("second", ServerError("down")), Model("third")])
    ranking = Reranker(Fallback([Model("first", ServerError("down")), inner])).rank(QUERY, TEXTS)
    assert ranking.model == "third"
    assert [attempt.model for attempt in ranking.attempts] == ["first", "second"]
    ranking = Reranker(Fallback([inner, Model("last")])).rank(QUERY, TEXTS)
    assert (ranking.model, [attempt.model for attempt in ranking.attempts]) == ("third", ["second"])


# --- which errors lead on


@pytest.mark.parametrize("name", LEADING)
@both_ways
async def test_r17_every_error_of_a_model_leads_to_the_next_wherever_it_stands(name, way):
    """Elsewhere a reranker that failed took the whole retrieval with it."""
    for failing in range(3):
        models = [Model(str(place), made(name) if place <= failing else None) for place in range(3)]
        reranker = Reranker(Fallback(models))
        if failing < 2:
            ranking = await ranked(reranker, way)
            assert ranking.model == str(failing + 1)
            assert [attempt.kind for attempt in ranking.attempts] == [name] * (failing + 1)
            continue
        with pytest.raises(AllModelsFailedError, match=r"None of 3 models answered\. 0: .*; 1: .*; 2: ") as raised:
            await ranked(reranker, way)
        assert raised.value.__cause__ is models[2].fail
        assert [(attempt.model, attempt.kind) for attempt in raised.value.attempts] == [(n, name) for n in "012"]
        passed = await ranked(Reranker(Fallback(models), on_error="passthrough", threshold=0.5), way)
        assert [(hit.index, hit.score) for hit in passed] == [(0, None), (1, None), (2, None)]
        assert passed.degraded
        assert "None of 3 models answered" in passed.warnings[0]


@pytest.mark.parametrize("name", RAISED)
@both_ways
async def test_mistakes_are_raised_wherever_they_show(name, way):
    for place in range(3):
        models = [Model(str(number), ServerError("down") if number < place else made(name)) for number in range(3)]
        with pytest.raises(getattr(errors, name)):
            await ranked(Reranker(Fallback(models), on_error="passthrough"), way)
        assert [len(model.asked) for model in models] == [1] * (place + 1) + [0] * (2 - place)


def test_the_most_specific_class_of_the_policy_counts():
    policy = {ScorerError: "raise", ServiceError: "next", RateLimitError: "raise"}
    for error, led_on in [
        (ScorerError("it failed"), False),
        (QueryTooLongError("too long"), False),
        (ServiceError("it failed"), True),
        (ServerError("down"), True),
        (errors.BadReplyError("not JSON"), True),  # also an InvalidScoresError, which comes later
        (RateLimitError("too many"), False),
        (ValueError("a bug"), False),  # arrives as a ScorerError
    ]:
        second = Model("second")
        reranker = Reranker(Fallback([Model("first", error), second], on=policy))
        if led_on:
            assert reranker.rank(QUERY, TEXTS).model == "second"
        else:
            with pytest.raises(ScorerError) as raised:
                reranker.rank(QUERY, TEXTS)
            assert error in (raised.value, raised.value.__cause__)
            assert second.asked == []


def test_an_error_that_is_to_be_raised_fails_its_query_alone_and_never_opens_the_circuit():
    first = Model("first", lambda query: RateLimitError("too many") if query.startswith("b") else ServerError("down"))
    fallback = Fallback([first, Model("second")], on={RateLimitError: "raise"}, breaker=Breaker(failures=2))
    rankings = Reranker(fallback, on_error="passthrough").rank_many(["b1", "a", "b2"], [TEXTS] * 3)
    assert [ranking.degraded for ranking in rankings] == [True, False, True]
    assert rankings[1].model == "second"
    for _ in range(5):  # with an open circuit, the caller would no longer see what is to be raised
        with pytest.raises(RateLimitError):
            Reranker(fallback).rank("b", TEXTS)
    assert fallback.states[0].failures == 1


def test_a_query_too_long_for_all_is_the_callers_mistake():
    first, second = Model("first", QueryTooLongError("900 tokens of 512")), Model("second", QueryTooLongError("of 256"))
    with pytest.raises(QueryTooLongError, match=r"900 tokens of 512.*of 256") as raised:
        Reranker(Fallback([first, second])).rank(QUERY, TEXTS)
    assert isinstance(raised.value, AllModelsFailedError)
    assert isinstance(raised.value, ValueError)
    second.fail = ServerError("down")
    with pytest.raises(AllModelsFailedError) as raised:
        Reranker(Fallback([first, second])).rank(QUERY, TEXTS)
    assert not isinstance(raised.value, ValueError)


def test_the_error_survives_a_process_boundary():
    with pytest.raises(AllModelsFailedError) as raised:
        Fallback([Model("first", ServerError("down")), Model("second", ServerError("too"))]).score(QUERY, TEXTS)
    copied = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - our own bytes
    assert type(copied) is AllModelsFailedError
    assert (str(copied), copied.attempts) == (str(raised.value), raised.value.attempts)


def test_a_single_model_gives_its_own_error():
    with pytest.raises(ServerError, match=r"^down$"):
        Reranker(Fallback([Model("first", ServerError("down"))])).rank(QUERY, TEXTS)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*[st.booleans()] * 4), min_size=1, max_size=6),
    st.sampled_from([None, Breaker(failures=1), Breaker(failures=3)]),
)
def test_each_query_is_answered_by_the_first_model_that_can_or_a_later_one(works, breaker):
    """Asked together, and then one by one with what was learned of the models."""

    def model(place: int) -> Model:
        return Model(str(place), lambda query: None if works[int(query)][place] else ServerError("down"))

    models = [model(place) for place in range(4)]
    fallback = Fallback(models, breaker=breaker)
    queries = [str(number) for number in range(len(works))]
    outcomes = fallback.score_many([ScoreRequest(query, TEXTS[: int(query) % 3 + 1]) for query in queries])
    for number, outcome in enumerate(outcomes):
        able = [place for place in range(4) if works[number][place]]
        if not able:
            assert isinstance(outcome, AllModelsFailedError)
            continue
        assert isinstance(outcome, Scores)
        assert outcome.values == [float(len(text)) for text in TEXTS[: number % 3 + 1]]
        assert (outcome.model or "0") == str(able[0])
        assert [attempt.model for attempt in outcome.attempts] == [str(place) for place in range(able[0])]
    for request in [ScoreRequest(query, TEXTS) for query in queries]:  # one by one, and with what was learned
        [outcome] = fallback.score_many([request])
        able = works[int(request.query)]
        if able[3]:
            assert isinstance(outcome, Scores)
        if isinstance(outcome, Scores):
            assert able[int(outcome.model or "0")]


# --- services, for real


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (500, "ServerError"),
        (503, "ServerError"),
        (429, "RateLimitError"),
        (401, "AuthenticationError"),
        (402, "BillingError"),
        (404, "RequestRefusedError"),
        (413, "RequestTooLargeError"),
        ("refused", "ConnectionFailedError"),
        ("broken", "ConnectionFailedError"),
        ("timeout", "DeadlineExceededError"),
    ],
)
@both_ways
async def test_a_service_that_fails_is_stood_in_for(failure, kind, way):
    down, up = MockTransport(fail=[failure] * 9), MockTransport()
    async with Reranker(Fallback([service(down, "a"), service(up, "b")])) as reranker:
        ranking = await ranked(reranker, way, texts=["Paris", "whales swim"])
    assert ranking.model == "jina:b"
    assert [hit.index for hit in ranking] == [1, 0]
    assert [(attempt.model, attempt.kind) for attempt in ranking.attempts] == [("jina:a", kind)]
    assert up.requests[0].documents == ("Paris", "whales swim")


# --- what is refused


@pytest.mark.parametrize(
    ("models", "options", "told"),
    [
        ([], {}, "a list of at least one model"),
        ("bm25", {}, "a list of at least one model"),
        (Model("a"), {}, "a list of at least one model"),
        (["no-such-scheme:x"], {}, "No scheme or preset"),
        (["bm25"], {"deadline": 0}, "deadline must be a positive number of seconds or None, got 0"),
        (["bm25"], {"deadline": float("nan")}, "deadline must be"),
        (["bm25"], {"deadline": True}, "deadline must be"),
        (["bm25"], {"breaker": 5}, "breaker must be a Breaker or None, got int"),
        (["bm25"], {"on": ["next"]}, "on must map error classes"),
        (["bm25"], {"on": {ValueError: "next"}}, "on takes ScorerError and the classes below it, not <class 'ValueE"),
        (["bm25"], {"on": {InvalidInputError: "next"}}, "mistakes in the input or the set-up are always raised"),
        (["bm25"], {"on": {"ServerError": "next"}}, "not 'ServerError'"),
        (["bm25"], {"on": {ServerError: "retry"}}, r'on\[ServerError\] must be "next" or "raise", got \'retry\''),
    ],
)
def test_what_cannot_work_is_refused_at_once(models, options, told):
    with pytest.raises(ConfigurationError, match=told):
        Fallback(models, **options)


def test_a_missing_package_of_a_later_model_is_found_at_once(monkeypatch):
    def factory(model: str) -> Scorer:
        raise MissingDependencyError(f'model "{model}"', "extra", ("package",))

    monkeypatch.setitem(registry._registered, "planned", factory)
    with pytest.raises(MissingDependencyError, match=r"uprank\[extra\]"):
        Fallback(["bm25", "planned:x"])


def test_closing_closes_every_model():
    closed = []

    class Held(Model):
        def close(self) -> None:
            closed.append(self.name)

    with Reranker(Fallback([Held("first"), Held("second")])):
        pass
    assert closed == ["first", "second"]
