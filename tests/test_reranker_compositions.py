"""A Reranker with what stands around its model: fallback, cache, passages, fields, calibrators."""

from __future__ import annotations

import inspect
import pickle

import pytest

from uprank import (
    Calibrator,
    Cascade,
    ConfigurationError,
    Document,
    Fallback,
    InvalidDocumentError,
    MemoryCache,
    Reranker,
    ScoreKindError,
    ScorerError,
)
from uprank.calibrations.curves import Logistic
from uprank.scorers import CallableScorer, Scores
from uprank.scorers.combined.cached import Cached
from uprank.scorers.combined.passages import Passages
from uprank.scorers.registry import RERANKER_OPTIONS

QUERY = "red fox"
TEXTS = ["a red fox runs", "a blue whale", "red paint"]


def shared_words(query: str, texts: list[str]) -> list[float]:
    words = set(query.split())
    return [len(words & set(text.split())) / len(words) for text in texts]


def down(query: str, texts: list[str]) -> list[float]:
    raise OSError("the network is gone")


def function(scores, kind="probability", *, name="words", identity=None) -> CallableScorer:
    return CallableScorer(scores, name=name, score_kind=kind, identity=identity)


def test_the_registry_knows_what_a_reranker_takes_for_itself():
    parameters = inspect.signature(Reranker).parameters
    own = [name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY]
    assert sorted(own) == sorted(RERANKER_OPTIONS)


class TestFallback:
    def test_the_ranking_says_who_answered_and_why_the_first_did_not(self):
        reranker = Reranker(function(down, name="first"), fallback=[function(shared_words)])
        ranking = reranker.rank(QUERY, TEXTS)
        assert reranker.model == "first"
        assert ranking.model == "words"
        assert [hit.index for hit in ranking] == [0, 2, 1]
        assert [(one.model, one.kind) for one in ranking.attempts] == [("first", "ScorerError")]
        assert "the network is gone" in ranking.attempts[0].error
        assert not ranking.degraded

    def test_a_threshold_holds_between_probabilities(self):
        reranker = Reranker(function(down), fallback=[function(shared_words)], threshold=0.4)
        assert [hit.index for hit in reranker.rank(QUERY, TEXTS)] == [0, 2]

    def test_a_threshold_is_not_applied_to_another_scale(self):
        reranker = Reranker(function(down), fallback=[function(shared_words, "logit", name="other")], threshold=0.9)
        ranking = reranker.rank(QUERY, TEXTS)
        assert len(ranking) == 3
        assert ranking.score_kind == "logit"
        assert any("No threshold" in note and "other" in note for note in ranking.warnings)

    def test_a_fallback_that_is_known_to_have_no_probabilities_is_refused(self):
        with pytest.raises(ScoreKindError, match="bm25 gives 'rank' scores"):
            Reranker(function(down), fallback=["bm25"], score="probability")
        with pytest.raises(ScoreKindError, match=r"what the numbers of .*shared_words mean"):
            Reranker("embedded", fallback=[shared_words], score="probability")
        with pytest.raises(ScoreKindError, match=r"what the numbers of .*shared_words mean"):
            Reranker(function(down), fallback=[shared_words], score="probability", calibrator=lambda one: one)

    def test_scores_that_turn_out_to_be_no_probabilities_are_not_shown_as_such(self):
        """The outage of the first model must not become an error about the second, nor lose its documents."""

        class TellsLate(CallableScorer):
            def score(self, query, texts, *, instruction=None):
                return Scores(shared_words(query, list(texts)), "rank")

        late = TellsLate(shared_words, name="late", score_kind="logit")
        ranking = Reranker(function(down), fallback=[late], score="probability", threshold=0.5).rank(QUERY, TEXTS)
        assert [hit.index for hit in ranking] == [0, 2, 1]
        assert [hit.score for hit in ranking] == [None, None, None]
        assert ranking.degraded
        assert any("late answered, which has no probabilities" in note for note in ranking.warnings)
        within = Cascade([function(shared_words), Fallback([function(down), late])], keep=[2], scores="probability")
        ranking = Reranker(within, threshold=0.5).rank(QUERY, TEXTS)
        assert [hit.index for hit in ranking] == [0, 2], "what a stand-in scored is not taken for unlikely"
        assert ranking.degraded

    def test_a_calibrator_is_of_the_first_model_alone(self):
        doubled = Reranker(
            function(down), fallback=[function(shared_words)], score="probability", calibrator=lambda one: one / 2
        )
        assert [hit.score for hit in doubled.rank(QUERY, TEXTS)] == [1.0, 0.5, 0.0]

    def test_where_all_fail_passthrough_tells_whom_it_asked(self):
        reranker = Reranker(
            function(down, name="first"),
            fallback=[function(down, name="second")],
            on_error="passthrough",
            threshold=0.5,
        )
        ranking = reranker.rank(QUERY, TEXTS)
        assert ranking.degraded
        assert [hit.score for hit in ranking] == [None, None, None]
        assert [one.model for one in ranking.attempts] == ["first", "second"]
        with pytest.raises(ScorerError, match="None of 2 models answered"):
            Reranker(function(down), fallback=[function(down)]).rank(QUERY, TEXTS)

    def test_deadline_is_of_the_chain(self):
        reranker = Reranker("bm25", fallback=["embedded"], deadline=3.0)
        assert isinstance(reranker.scorer, Fallback)
        assert reranker.scorer.deadline == 3.0

    def test_attempts_are_told_through_compositions(self):
        broken = Fallback([function(down, name="first"), function(down, name="second")])
        kept = Cascade([function(shared_words), broken], keep=[2], on_stage_error="keep")
        assert [one.model for one in Reranker(kept).rank(QUERY, TEXTS).attempts] == ["first", "second"]
        lost = Cascade([broken, broken], keep=[2], on_stage_error="keep")
        ranking = Reranker(lost, on_error="passthrough").rank(QUERY, TEXTS)
        assert [one.model for one in ranking.attempts] == ["first", "second"] * 2

    def test_none_is_no_fallback_and_a_name_is_no_list(self):
        assert repr(Reranker("bm25", fallback=None, cache=None, hooks=None).scorer) == repr(Reranker("bm25").scorer)
        with pytest.raises(ConfigurationError, match="fallback must be a list of models"):
            Reranker("bm25", fallback="embedded")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"give its \.scorer"):
            Reranker("bm25", fallback=[Reranker("embedded")])  # type: ignore[list-item]

    async def test_a_first_model_that_hangs_is_given_up(self):
        import asyncio

        async def hangs(query: str, texts: list[str]) -> list[float]:
            await asyncio.sleep(60)
            raise AssertionError

        reranker = Reranker(hangs, fallback=[shared_words], deadline=0.2)
        ranking = await reranker.arank(QUERY, TEXTS)
        assert ranking.attempts[0].kind == "DeadlineExceededError"
        assert ranking[0].index == 0


class TestCache:
    def test_each_model_of_a_composition_keeps_its_own(self):
        asked: list[str] = []

        def counted(name: str):
            def score(query: str, texts: list[str]) -> list[float]:
                asked.extend([name] * len(texts))
                return shared_words(query, texts)

            return function(score, name=name, identity=name)

        reranker = Reranker(Cascade([counted("one"), counted("two")], keep=[2]), cache=True)
        first, again = reranker.rank(QUERY, TEXTS), reranker.rank(QUERY, TEXTS)
        assert asked == ["one"] * 3 + ["two"] * 2
        assert first.hits == again.hits
        assert (first.usage.pairs, again.usage.pairs) == (5, 0)
        assert reranker.cache is not None
        assert (reranker.cache.stats().hits, reranker.cache.stats().misses) == (5, 5)

    def test_passages_stand_around_the_cache(self):
        reranker = Reranker(function(shared_words, identity="v1"), cache=True, long_documents="max_passage")
        assert isinstance(reranker.scorer, Passages)
        assert isinstance(reranker.scorer.member, Cached)

    def test_a_cache_may_be_shared(self):
        cache = MemoryCache()
        for _ in range(2):
            Reranker(function(shared_words, identity="v1"), cache=cache).rank(QUERY, TEXTS)
        assert (cache.stats().hits, cache.stats().misses) == (3, 3)

    def test_functions_of_one_identity_but_two_names_are_two(self):
        cache = MemoryCache()
        ones = function(lambda query, texts: [1.0] * len(texts), name="ones", identity="v1")
        halves = function(lambda query, texts: [0.5] * len(texts), name="halves", identity="v1")
        assert Reranker(ones, cache=cache).rank(QUERY, TEXTS)[0].score == 1.0
        assert Reranker(halves, cache=cache).rank(QUERY, TEXTS)[0].score == 0.5

    def test_the_float32_form_of_a_model_is_not_answered_from_the_cache(self):
        class Rounded(CallableScorer):
            def exact(self):
                return function(lambda query, texts: [0.25] * len(texts))

        rounded = Rounded(lambda query, texts: [0.2] * len(texts), name="rounded", score_kind="probability")
        cached = Cached(rounded, MemoryCache(), identity="m v1")
        assert list(cached.score(QUERY, TEXTS).values) == [0.2] * 3
        assert list(cached.exact().score(QUERY, TEXTS).values) == [0.25] * 3

    def test_what_is_found_under_another_identity_after_loading_is_not_kept(self):
        """A model that had to be run by another engine than was chosen tells so only once it is loaded."""

        class Loads(CallableScorer):
            engine = "chosen"

            def identity(self):
                return {"engine": self.engine}

            def score(self, query, texts, *, instruction=None):
                self.engine = "another"
                return super().score(query, texts)

        cache = MemoryCache()
        first = Reranker(Loads(shared_words), cache=cache)
        first.rank(QUERY, TEXTS)
        assert cache.stats().entries == 0
        first.rank(QUERY, TEXTS)
        assert cache.stats().entries == 3

    def test_what_nobody_can_tell_from_others_is_not_kept(self):
        with pytest.raises(ConfigurationError, match="identity"):
            Reranker(shared_words, cache=True)

    def test_an_undeclared_function_stays_undeclared_behind_a_cache(self):
        with pytest.raises(ScoreKindError, match="score_kind"):
            Reranker(CallableScorer(shared_words, identity="v1"), cache=True, score="probability")


class TestFields:
    DOCUMENTS = (
        {"title": "red fox", "text": "an animal"},
        Document("red", metadata={"title": "paint"}),
        {"title": "whale"},
    )

    def seen(self, **options: object) -> list[str]:
        texts: list[str] = []

        def record(query: str, given: list[str]) -> list[float]:
            texts.extend(given)
            return shared_words(query, given)

        Reranker(function(record), **options).rank(QUERY, self.DOCUMENTS)
        return texts

    def test_what_is_scored_are_the_fields(self):
        """A mapping without a text of its own is rendered once, not as its own text again."""
        assert self.seen(fields=["title", "text"]) == ["red fox\nan animal", "paint\nred", "whale"]

    def test_a_template_puts_them_together(self):
        assert self.seen(template="[{title}] {text}") == ["[red fox] an animal", "[paint] red", "[whale] "]

    def test_what_comes_back_is_the_callers_document(self):
        ranking = Reranker(function(shared_words), fields=["title"]).rank(QUERY, self.DOCUMENTS)
        assert ranking[0].document.text == "an animal"
        assert ranking[1].document is self.DOCUMENTS[1] or ranking[2].document is self.DOCUMENTS[1]

    def test_a_document_without_them_is_named(self):
        with pytest.raises(InvalidDocumentError, match="Document 1: A document has none of the fields 'title'"):
            Reranker(shared_words, fields=["title"]).rank(QUERY, [{"text": "a", "title": "x"}, {"text": "b"}])
        with pytest.raises(InvalidDocumentError, match="Document 0 of query 0"):
            Reranker(shared_words, fields=["title"]).rank_many([QUERY], [[{"other": "b"}]])

    def test_fidelity_reads_them_too(self):
        seen: list[str] = []

        class Own(CallableScorer):
            def exact(self):
                return self

        def record(query: str, texts: list[str]) -> list[float]:
            seen.extend(texts)
            return shared_words(query, texts)

        Reranker(Own(record), fields=["title"]).fidelity([QUERY], [[{"title": "a"}, {"title": "b", "text": "c"}]])
        assert set(seen) == {"a", "b"}

    def test_without_fields_a_mapping_needs_a_text(self):
        with pytest.raises(InvalidDocumentError, match='without a "text" key'):
            Reranker(shared_words).rank(QUERY, self.DOCUMENTS)


class TestCalibrators:
    def test_one_of_another_model_is_refused_at_once(self):
        other = Calibrator("platt", Logistic(1.0), model="cross-encoder:other")
        with pytest.raises(ScoreKindError, match="cross-encoder:other"):
            Reranker("embedded", score="probability", calibrator=other)

    def test_one_of_another_revision_is_refused_at_once(self):
        old = Calibrator("platt", Logistic(1.0), model="cross-encoder:x/y", revision="a")
        options = {"score": "probability", "calibrator": old}
        assert Reranker("cross-encoder:x/y", revision="a", **options)
        with pytest.raises(ScoreKindError, match="revision"):
            Reranker("cross-encoder:x/y", revision="b", **options)

    def test_the_embedded_model_brings_one(self):
        ranking = Reranker("embedded", score="probability").rank(QUERY, TEXTS)
        assert ranking.score_kind == "probability"
        assert ranking[0].index == 0
        assert all(0.0 <= hit.score <= 1.0 for hit in ranking)
        native = Reranker("embedded").rank(QUERY, TEXTS)
        assert [hit.index for hit in native] == [hit.index for hit in ranking]
        assert native.score_kind == "cosine"


def test_a_pickled_reranker_is_made_anew_with_all_its_options():
    reranker = Reranker(
        "bm25", top_n=2, max_tokens=50, fallback=["embedded"], cache=True, fields=["title", "text"], keep_at_least=1
    )
    again = pickle.loads(pickle.dumps(reranker))  # noqa: S301 - our own
    documents = [Document(text, metadata={"title": "on foxes"}) for text in TEXTS]
    assert again.selection == reranker.selection
    assert again.rendering == reranker.rendering
    assert again.rank(QUERY, documents).hits == reranker.rank(QUERY, documents).hits
    assert repr(again.scorer) == repr(reranker.scorer)


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigurationError, match="long_documents"):
        Reranker("bm25", passage_tokens=100)
    with pytest.raises(ConfigurationError, match="long_documents must be one of"):
        Reranker("bm25", long_documents="chunk")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="hooks must be a list"):
        Reranker("bm25", hooks=3)  # type: ignore[arg-type]


def test_an_unknown_option_of_a_call_is_named():
    with pytest.raises(
        TypeError, match=r"rank_many\(\) got an unexpected keyword argument 'topn'. Did you mean 'top_n'"
    ):
        Reranker("bm25").rank_many([QUERY], [TEXTS], topn=3)  # type: ignore[call-arg]


def test_scores_may_say_that_another_model_gave_them():
    class Router(CallableScorer):
        def score(self, query, texts, *, instruction=None):
            return Scores([1.0] * len(texts), "logit", model="small")

    assert Reranker(Router(shared_words)).rank(QUERY, TEXTS).model == "small"


def test_retrieval_scores_may_be_numpys():
    import numpy as np

    found: list[object] = []

    class Sees(CallableScorer):
        def score_many(self, requests):
            found.extend(request.retrieval_scores for request in requests)
            return super().score_many(requests)

    scores = (np.float32(0.5), np.int64(2), 10**400, True, "0.5", float("nan"))
    for score in scores:
        Reranker(Sees(shared_words)).rank(QUERY, [Document("a", metadata={"retrieval_score": score})])
    assert found == [(0.5,), (2.0,), None, None, None, None]


def test_load_loads_what_stands_behind_too():
    loaded: list[str] = []

    class Slow(CallableScorer):
        def load(self):
            loaded.append(self.name)

    first, second = Slow(shared_words, name="first"), Slow(shared_words, name="second")
    Reranker(Fallback([first, second])).load()
    assert loaded == ["first", "second"]


def test_closing_goes_on_where_one_fails():
    closed: list[str] = []

    class Closes(CallableScorer):
        def close(self):
            closed.append(self.name)
            raise OSError(f"{self.name} cannot be closed")

    chain = Fallback([Closes(shared_words, name="first"), Closes(shared_words, name="second")])
    with pytest.raises(OSError, match="first"):
        chain.close()
    assert closed == ["first", "second"]


async def test_a_members_own_timeout_is_not_told_as_the_deadline():
    async def times_out(query: str, texts: list[str]) -> list[float]:
        raise TimeoutError("the database is slow")

    chain = Fallback([times_out, shared_words], deadline=30)
    ranking = await Reranker(chain).arank(QUERY, TEXTS)
    assert "the database is slow" in ranking.attempts[0].error
