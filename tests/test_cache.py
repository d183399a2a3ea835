"""Scores that are kept: what is asked, what is not, and that nobody can tell from the answer."""

from __future__ import annotations

import asyncio
import pickle
import struct
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from uprank.cache import Cache, CacheEntry, CacheStats, DiskCache, MemoryCache, cache_of
from uprank.cache.keys import document_keys, identity_digest, list_key
from uprank.cache.records import Kept, pack, unpack
from uprank.errors import ConfigurationError, ScorerError
from uprank.scorers import CallableScorer, Scorer, ScoreRequest, Scores, Usage
from uprank.scorers.base import Outcome
from uprank.scorers.combined.cached import Cached, with_cache
from uprank.scorers.combined.fallback import Fallback
from uprank.scorers.evidence import Attempt, Evidence, Passage

TEXTS = ["a cat", "a dog and a cat", "", "nothing of the kind", "Ein Käfer 🐞"]


class Lengths(Scorer):
    """Scores by lengths, in numbers that no decimal writes exactly; notes what it was asked."""

    name = "lengths"
    score_kind = "logit"
    accepts_instruction = True

    def __init__(self, **answer: object) -> None:
        self.asked: list[ScoreRequest] = []
        self.answer = answer
        self.version = 1

    def identity(self) -> dict[str, object]:
        return {"scheme": "lengths", "version": self.version}

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return self._one(ScoreRequest(query, texts, instruction))

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        return [self._one(request) for request in requests]

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        return self.score_many(requests)

    def _one(self, request: ScoreRequest) -> Scores:
        self.asked.append(request)
        values = [(len(text) - len(request.query) + self.version) / 7 for text in request.texts]
        scores = Scores(values, "logit", native="probability", usage=Usage(tokens=sum(map(len, request.texts))))
        return replace(scores, **self.answer)  # type: ignore[arg-type]  # the fields that a test sets

    @property
    def texts(self) -> list[list[str]]:
        return [list(request.texts) for request in self.asked]


class Broken:
    """A cache that always fails."""

    blocking = False

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        raise OSError("no such disk")

    def put_many(self, entries: Sequence[CacheEntry]) -> None:
        raise OSError("no such disk, still")

    def stats(self) -> CacheStats:
        raise OSError("no such disk")

    def close(self) -> None:
        pass


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest):
    """Ask a scorer, in both ways; each request's scores or error."""

    def many(scorer: Scorer, *requests: ScoreRequest) -> list[Outcome]:
        if request.param == "sync":
            return scorer.score_many(list(requests))
        return asyncio.run(scorer.ascore_many(list(requests)))

    return many


@pytest.fixture(params=["memory", "disk"])
def cache(request: pytest.FixtureRequest, tmp_path):
    made = MemoryCache() if request.param == "memory" else DiskCache(tmp_path / "scores.db")
    yield made
    made.close()


def bits(scores: Outcome) -> bytes:
    assert isinstance(scores, Scores), scores
    return struct.pack(f"{len(scores.values)}d", *scores.values)


def test_only_what_is_new_is_asked_and_the_scores_are_the_same_bit_by_bit(ask, cache):
    plain, scorer = Lengths(), Lengths()
    cached = Cached(scorer, cache)
    (first,) = ask(cached, ScoreRequest("q", TEXTS[:3]))
    (mixed,) = ask(cached, ScoreRequest("q", [TEXTS[3], TEXTS[1], TEXTS[4], TEXTS[0]], retrieval_scores=[4, 3, 2, 1]))
    (found,) = ask(cached, ScoreRequest("q", TEXTS[::-1]))
    assert scorer.texts == [TEXTS[:3], [TEXTS[3], TEXTS[4]]]
    assert scorer.asked[1].retrieval_scores == [4, 2]
    assert bits(first) == bits(plain.score("q", TEXTS[:3]))
    assert bits(mixed) == bits(plain.score("q", [TEXTS[3], TEXTS[1], TEXTS[4], TEXTS[0]]))
    assert bits(found) == bits(plain.score("q", TEXTS[::-1]))
    assert {(one.kind, one.native) for one in (first, mixed, found)} == {("logit", "probability")}
    assert (first.usage.pairs, mixed.usage.pairs, found.usage.pairs) == (3, 2, 0)
    assert (mixed.usage.tokens, found.usage.tokens) == (len(TEXTS[3] + TEXTS[4]), 0)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.entries) == (7, 5, 5)
    assert stats.bytes > 0


def test_requests_of_one_call_are_told_apart(ask, cache):
    scorer = Lengths()
    cached = Cached(scorer, cache)
    ask(cached, ScoreRequest("q", TEXTS[:2]), ScoreRequest("longer", TEXTS[2:]))
    scorer.asked.clear()
    requests = [ScoreRequest("q", TEXTS[:3]), ScoreRequest("longer", TEXTS[2:]), ScoreRequest("longer", TEXTS[:1])]
    outcomes = ask(cached, *requests)
    assert [(one.query, list(one.texts)) for one in scorer.asked] == [("q", [TEXTS[2]]), ("longer", [TEXTS[0]])]
    assert list(map(bits, outcomes)) == [bits(Lengths()._one(request)) for request in requests]
    assert ask(cached) == []


def test_every_part_of_the_key_counts(ask, cache):
    scorer = Lengths()
    cached = Cached(scorer, cache)
    ask(cached, ScoreRequest("q", ["text"]))
    for other in (
        ScoreRequest("Q", ["text"]),
        ScoreRequest("q", ["text "]),
        ScoreRequest("q", ["text"], ""),
        ScoreRequest("q", ["text"], "by age"),
        ScoreRequest("q", ["te\u0301xt"]),
        ScoreRequest("q", ["t\u00e9xt"]),
    ):
        scorer.asked.clear()
        ask(cached, other)
        assert len(scorer.asked) == 1, other
    newer = Lengths()
    newer.version = 2
    ask(Cached(newer, cache), ScoreRequest("q", ["text"]))
    assert len(newer.asked) == 1
    ask(Cached(scorer, cache, identity="another"), ScoreRequest("q", ["text"]))
    assert len(scorer.asked) == 2


def test_d17_query_and_document_run_together_do_not_share_a_key(cache):
    """infinity's cache joins query and document without a mark between them: ("ab", "c") is found for ("a", "bc")."""
    cached = Cached(Lengths(), cache)
    one, other = cached.score("ab", ["c", "cd"]), cached.score("a", ["bc", "bcd"])
    assert other.usage.pairs == 2
    assert one.values != other.values
    identity = identity_digest({}, name="x")
    asked = [("ab", "c", None), ("a", "bc", None), ("", "abc", None), ("abc", "", None), ("c", "ab", None)]
    asked += [("b", "c", "a"), ("c", "", "ab"), ("", "c", "ab"), ("a", "b\0c", None), ("a\0b", "c", None)]
    asked += [("a", "b\1c", None), ("a\1b", "c", None), ("b", "c", "a\1")]
    keys = {document_keys(identity, ScoreRequest(query, [text], how))[0] for query, text, how in asked}
    lists = [["a", "bc"], ["ab", "c"], ["abc"], ["abc", ""], ["", "abc"], ["bc", "a"]]
    keys |= {list_key(identity, ScoreRequest("q", texts)) for texts in lists}
    keys |= {document_keys(identity, ScoreRequest("q", ["abc"]))[0]}
    assert len(keys) == len(asked) + len(lists) + 1


def test_d19_one_cache_serves_many_models_and_is_shared_between_objects(cache):
    """msgflux' cache keys leave out the model: two models that shared it would get each other's answers."""
    first, second = Lengths(), Lengths()
    second.version = 2
    values = Cached(first, cache).score("q", TEXTS).values
    assert Cached(second, cache).score("q", TEXTS).values != values
    again = Lengths()
    assert Cached(again, cache).score("q", TEXTS).values == values
    assert again.asked == []


def test_a_list_that_was_judged_as_a_whole_is_kept_as_a_whole(ask, cache):
    scorer = Lengths(kind="rank", native=None, reported=[0.5, None, 0.25], warnings=("put right: 1",))
    scorer.listwise = True
    cached = Cached(scorer, cache)
    (first,) = ask(cached, ScoreRequest("q", TEXTS[:3]))
    (again,) = ask(cached, ScoreRequest("q", TEXTS[:3]))
    assert isinstance(first, Scores)
    assert len(scorer.asked) == 1
    assert again == replace(first, usage=Usage(tokens=0))
    ask(cached, ScoreRequest("q", [TEXTS[1], TEXTS[0], TEXTS[2]]))
    assert len(scorer.asked) == 2  # in another order it is another list
    assert cache.stats().entries == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"degraded": True},
        {"model": "the fallback"},
        {"attempts": (Attempt("m", "down", "ServerError", 0.1),)},
        {"reported": [0.1, 0.2]},
        {"evidence": [Evidence(passage=Passage(0, 1, "a")), Evidence()]},
        {"evidence": [Evidence(stage=1), Evidence(stage=0)]},
    ],
    ids=str,
)
def test_an_answer_for_today_is_not_kept(ask, cache, answer: dict[str, object]):
    scorer = Lengths(**answer)
    cached = Cached(scorer, cache)
    (first,) = ask(cached, ScoreRequest("q", TEXTS[:2]))
    (again,) = ask(cached, ScoreRequest("q", TEXTS[:2]))
    assert len(scorer.asked) == 2
    assert first == again
    assert all(getattr(first, name) == value for name, value in answer.items())
    assert cache.stats().entries == 0


def test_errors_are_not_kept_and_do_not_spoil_the_others(ask, cache):
    class Moody(Lengths):
        def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
            return [ScorerError("no") if one.query == "bad" else self._one(one) for one in requests]

    scorer = Moody()
    cached = Cached(scorer, cache)
    good, bad = ask(cached, ScoreRequest("good", TEXTS), ScoreRequest("bad", TEXTS))
    assert isinstance(good, Scores)
    assert isinstance(bad, ScorerError)
    assert cache.stats().entries == len(TEXTS)
    _, bad = ask(cached, ScoreRequest("good", TEXTS), ScoreRequest("bad", TEXTS))
    assert isinstance(bad, ScorerError)
    assert len(scorer.asked) == 1


def test_an_invalid_answer_is_not_kept(ask, cache):
    cached = Cached(Lengths(values=[float("nan")]), cache)
    (outcome,) = ask(cached, ScoreRequest("q", ["text"]))
    assert isinstance(outcome, ScorerError)
    assert cache.stats().entries == 0


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "probability", "native": None, "values": [0.1, 0.2]},
        {"native": None},
        {"reported": [0.2, 0.1], "values": [2.0, 1.0]},
        {"model": "another"},
    ],
    ids=str,
)
def test_scores_of_two_kinds_are_never_mixed(ask, cache, change: dict[str, object]):
    scorer = Lengths()
    cached = Cached(scorer, cache)
    ask(cached, ScoreRequest("q", TEXTS[:1]))
    whole = dict(change)

    class Changed(Lengths):
        def _one(self, request: ScoreRequest) -> Scores:
            count = len(request.texts)
            self.answer = {n: v[:count] if isinstance(v, list) else v for n, v in whole.items()}
            return super()._one(request)

    changed = Changed()
    (scores,) = ask(Cached(changed, cache), ScoreRequest("q", TEXTS[:2]))
    assert changed.texts == [[TEXTS[1]], TEXTS[:2]]
    assert bits(scores) == bits(changed._one(ScoreRequest("q", TEXTS[:2])))
    assert scores.usage.pairs == 3


def test_documents_that_were_cut_are_told_of_again(ask, cache):
    def evidence(*cut: bool | None) -> list[Evidence]:
        return [Evidence(truncated=one) for one in cut]

    scorer = Lengths(evidence=evidence(True, False, None), warnings=("1 of 3 documents reach the window",))
    cached = Cached(scorer, cache)
    ask(cached, ScoreRequest("q", TEXTS[:3]))
    scorer.answer = {"evidence": evidence(True), "warnings": ("new",)}
    (mixed,) = ask(cached, ScoreRequest("q", TEXTS[:4]))
    assert mixed.evidence == evidence(True, False, None, True)
    assert mixed.warnings[0] == "new"
    assert "1 of 3 documents whose scores were kept" in mixed.warnings[1]
    (found,) = ask(cached, ScoreRequest("q", TEXTS[1:3]))
    assert (found.evidence, found.warnings) == (evidence(False, None), ())


def test_other_warnings_come_back_with_the_scores_they_came_with(ask, cache):
    scorer = Lengths(warnings=("the service says: old model",))
    cached = Cached(scorer, cache)
    ask(cached, ScoreRequest("q", TEXTS[:3]))
    scorer.answer = {}
    (mixed,) = ask(cached, ScoreRequest("q", TEXTS[:4]))
    assert mixed.warnings == ("From an earlier answer: the service says: old model",)
    (new,) = ask(cached, ScoreRequest("q", TEXTS[3:]))
    assert new.warnings == ()


def test_a_failing_cache_costs_no_ranking(ask, caplog: pytest.LogCaptureFixture):
    scorer = Lengths()
    cached = Cached(scorer, Broken())
    for _ in range(2):
        (scores,) = ask(cached, ScoreRequest("q", TEXTS))
        assert bits(scores) == bits(Lengths().score("q", TEXTS))
        assert [("no such disk" in note) for note in scores.warnings] == [True, True]
    assert sorted(record.levelname for record in caplog.records) == ["WARNING", "WARNING"]  # once each, not twice
    assert "lengths could not be read" in caplog.text


@pytest.mark.parametrize("answer", [[None], [b"short"] * 9, 7, ["text"] * 5, [b""] * 5, [b"\1\2\3\4\5" * 9] * 5])
def test_a_cache_that_answers_nonsense_has_nothing(ask, answer: object):
    class Nonsense(Broken):
        def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            return answer  # type: ignore[return-value]  # as a cache of somebody's might

    scorer = Lengths()
    (scores,) = ask(Cached(scorer, Nonsense()), ScoreRequest("q", TEXTS))
    assert bits(scores) == bits(Lengths().score("q", TEXTS))
    assert scorer.texts == [TEXTS]


def test_the_calibrator_is_there_although_it_cannot_be_kept(ask, cache):
    def half(value: float) -> float:
        return 0.5

    def calibrated() -> Lengths:
        scorer = Lengths(calibrator=half)
        scorer.calibrated = True
        return scorer

    ask(Cached(calibrated(), cache), ScoreRequest("q", TEXTS))
    scorer = calibrated()
    cached = Cached(scorer, cache)
    (first,) = ask(cached, ScoreRequest("q", TEXTS))
    (second,) = ask(cached, ScoreRequest("q", TEXTS))
    assert first.calibrator is second.calibrator is half
    assert scorer.texts == [[""]]  # the shortest: only to learn it
    assert (first.usage.pairs, second.usage.pairs) == (1, 0)
    assert bits(first) == bits(second) == bits(Lengths().score("q", TEXTS))
    assert cache.stats().entries == len(TEXTS)


def test_a_scorer_that_cannot_be_told_from_others_is_refused():
    function = CallableScorer(lambda query, texts: [0.0] * len(texts), name="mine")
    with pytest.raises(ConfigurationError, match=r"mine cannot be told from others.*identity="):
        Cached(function, MemoryCache())
    assert Cached(function, MemoryCache(), identity={"v": 1}).score("q", ["t"]).values == [0.0]
    named = CallableScorer(lambda query, texts: [0.0] * len(texts), identity="v1")
    assert Cached(named, MemoryCache()).score("q", ["t"]).values == [0.0]
    for identity in ("", {}, 7, {"x": object()}, {"x": float("nan")}):
        with pytest.raises(ConfigurationError, match="identity"):
            Cached(function, MemoryCache(), identity=identity)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ConfigurationError, match="identity"):
        CallableScorer(lambda query, texts: [], identity="")


def test_a_function_that_scales_by_the_list_is_kept_by_the_list():
    def scaled(query: str, texts: list[str]) -> list[float]:
        return [len(text) / max(map(len, texts)) for text in texts]

    cached = Cached(CallableScorer(scaled, identity="v1", listwise=True), MemoryCache())
    assert cached.score("q", ["aa", "aaaa"]).values == [0.5, 1.0]
    assert cached.score("q", ["aa", "a"]).values == [1.0, 0.5]


def test_a_scorer_made_of_others_is_cached_within():
    chain = Fallback([Lengths(), Lengths()])
    cache = MemoryCache()
    with pytest.raises(ConfigurationError, match="cache its members"):
        Cached(chain, cache)
    within = with_cache(chain, cache)
    assert isinstance(within, Fallback)
    assert [type(member) for member in within.members] == [Cached, Cached]
    assert with_cache(within, MemoryCache()).members[0].cache is cache
    within.score("q", TEXTS)
    assert with_cache(chain, cache).score("q", TEXTS).usage.pairs == 0


def test_with_another_member_it_has_another_identity(cache):
    other = Lengths()
    other.version = 2
    cached = Cached(Lengths(), cache)
    values = cached.score("q", TEXTS).values
    assert cached.with_members([other]).score("q", TEXTS).values != values
    assert cached.score("q", TEXTS).values == values


def test_it_stands_for_its_scorer():
    scorer = Lengths()
    scorer.listwise, scorer.document_window, scorer.calibrated = True, 512, True
    cached = Cached(scorer, MemoryCache())
    told = ("name", "score_kind", "accepts_instruction", "listwise", "document_window", "calibrated")
    assert [getattr(cached, name) for name in told] == [getattr(scorer, name) for name in told]


def test_a_pickle_holds_the_scorer_and_no_scores():
    cached = Cached(Lengths(), MemoryCache(max_entries=7))
    cached.score("q", TEXTS)
    copy = pickle.loads(pickle.dumps(cached))  # noqa: S301 - our own
    assert copy.cache.stats() == CacheStats(0, 0, 0, 0)
    assert copy.score("q", TEXTS).values == cached.score("q", TEXTS).values
    copy.score("q", [str(number) for number in range(20)])
    assert copy.cache.stats().entries == 7


def test_closing_keeps_what_is_kept(cache):
    cached = Cached(Lengths(), cache)
    cached.score("q", TEXTS)
    cached.close()
    asyncio.run(cached.aclose())
    assert cached.score("q", TEXTS).usage.pairs == 0


def test_memory_forgets_what_was_not_used_for_longest():
    cache = MemoryCache(max_entries=3)
    scorer = Lengths()
    cached = Cached(scorer, cache)
    cached.score("q", ["a", "b", "c"])
    cached.score("q", ["a"])
    cached.score("q", ["d"])
    assert cache.stats().entries == 3
    scorer.asked.clear()
    cached.score("q", ["a", "c", "d", "b"])
    assert scorer.texts == [["b"]]
    size = cache.stats().bytes
    cached.score("q", ["x", "y", "z", "x1"])
    assert cache.stats().bytes == size
    cache.clear()
    assert (cache.stats().entries, cache.stats().bytes) == (0, 0)
    for number in (0, -1, True, 2.5):
        with pytest.raises(ConfigurationError, match="max_entries"):
            MemoryCache(max_entries=number)  # type: ignore[arg-type]  # what is refused


def test_threads_share_a_memory_cache():
    cache = MemoryCache(max_entries=50)
    wrong: list[object] = []

    def work(first: int) -> None:
        cached = Cached(Lengths(), cache)
        for number in range(100):
            texts = ["x" * ((first + number + more) % 60) for more in range(5)]
            if cached.score("q", texts).values != Lengths().score("q", texts).values:
                wrong.append(texts)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    stats = cache.stats()
    assert stats.entries == 50
    assert stats.hits + stats.misses == 4 * 100 * 5
    assert stats.bytes == sum(len(key) + len(record) for key, record in cache._records.items())


async def test_the_event_loop_does_not_wait_for_a_slow_cache():
    class Slow(Broken):
        blocking = True

        def __init__(self) -> None:
            self.reading, self.go_on = threading.Event(), threading.Event()

        def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            self.reading.set()
            assert self.go_on.wait(10)
            return [None] * len(keys)

    slow = Slow()
    task = asyncio.ensure_future(Cached(Lengths(), slow).ascore("q", TEXTS))
    for _ in range(1000):
        await asyncio.sleep(0.005)
        if slow.reading.is_set():
            break
    assert slow.reading.is_set()
    assert not task.done()
    slow.go_on.set()
    assert bits(await task) == bits(Lengths().score("q", TEXTS))


def test_the_one_argument_that_switches_it_on(tmp_path):
    assert isinstance(cache_of(True), MemoryCache)
    with_path = cache_of(tmp_path / "a" / "scores.db")
    assert isinstance(with_path, DiskCache)
    with_path.close()
    own = Broken()
    assert isinstance(own, Cache)
    assert cache_of(own) is own
    for wrong in (False, None, 7, "", {}, MemoryCache, object()):
        with pytest.raises(ConfigurationError, match="cache must be"):
            cache_of(wrong)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ConfigurationError, match="cache must be"):
        Cached(Lengths(), {})  # type: ignore[arg-type]  # likewise


@pytest.mark.parametrize(
    "kept",
    [
        Kept((0.1 + 0.2,), "logit", "probability"),
        Kept((-0.0, 5e-324, 1.7976931348623157e308), "cosine"),
        Kept((1.0, 2.0), "rank", reported=[None, 0.125], truncated=[None, True], warnings=("a", "ü \ud800")),
        Kept((1.0,), "probability", truncated=[False]),
    ],
    ids=str,
)
def test_records_come_back_as_they_were_or_not_at_all(kept: Kept):
    record, count = pack(kept), len(kept.values)
    found = unpack(record, count)
    assert found is not None
    assert struct.pack(f"{count}d", *found.values) == struct.pack(f"{count}d", *kept.values)
    assert replace(found, values=kept.values, warnings=tuple(kept.warnings)) == kept
    assert unpack(record, count + 1) is None
    for position in range(len(record)):
        damaged = bytearray(record)
        damaged[position] ^= 0x10
        assert unpack(bytes(damaged), count) is None, position
        assert unpack(record[:position], count) is None, position
