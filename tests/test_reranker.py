"""The pipeline, called synchronously: order, cuts, duplicates, instructions, defaults, and its life cycle."""

import copy
import pickle
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch

from uprank import InvalidInputError, Reranker, register_scorer, rerank
from uprank.scorers import Scorer, Scores, registry


class Recorder(Scorer):
    """Scores a text by its length; remembers its calls; holds a model from the first call until closed."""

    name = "recorder"
    score_kind = "logit"
    accepts_instruction = True

    def __init__(self):
        self.calls = []
        self.loads = 0
        self.loaded = False

    def score(self, query, texts, *, instruction=None):
        if not self.loaded:
            self.loads, self.loaded = self.loads + 1, True
        self.calls.append((query, list(texts), instruction))
        return Scores([float(len(text)) for text in texts], kind="logit")

    def close(self):
        self.loaded = False


def by_length(query, texts):
    """At module level, so that a reranker of it can be pickled."""
    return [float(len(text)) for text in texts]


def out_of_order(query, texts):
    raise RuntimeError("out of order")


def thirds(value):
    return value / 3


def indices(ranking):
    return [hit.index for hit in ranking]


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


# --- order and identity


def test_documents_are_sorted_by_score_and_ties_stay_in_order():
    ranking = Reranker(by_length).rank("q", ["bb", "a", "cc", "ddd", "e"])
    assert indices(ranking) == [3, 0, 2, 1, 4]
    assert [hit.rank for hit in ranking] == [0, 1, 2, 3, 4]
    assert [hit.score for hit in ranking] == [3.0, 2.0, 2.0, 1.0, 1.0]


def test_zero_and_minus_zero_tie():
    assert indices(Reranker(lambda query, texts: [-0.0, 0.0, -0.0]).rank("q", ["a", "b", "c"])) == [0, 1, 2]


def test_identical_texts_are_scored_once_and_every_copy_comes_back(recorder):
    documents = ["bb", {"text": "a", "from": "x"}, "bb", {"text": "a", "from": "y"}, "a"]
    ranking = Reranker(recorder).rank("q", documents)
    assert recorder.calls == [("q", ["bb", "a"], None)]
    assert indices(ranking) == [0, 2, 1, 3, 4]
    assert [hit.document.metadata.get("from") for hit in ranking] == [None, None, "x", "y", None]
    assert [hit.score for hit in ranking] == [2.0, 2.0, 1.0, 1.0, 1.0]
    assert ranking.usage.pairs == 2


def test_texts_that_differ_in_space_or_case_are_different(recorder):
    Reranker(recorder).rank("q", ["a", "a ", "A", "á", "a\u0301"])
    assert recorder.calls[0][1] == ["a", "a ", "A", "á", "a\u0301"]


# --- top_n


@pytest.mark.parametrize(
    ("top_n", "kept"),
    [(None, 4), (1, 1), (3, 3), (4, 4), (5, 4), (10**30, 4), (np.int64(2), 2), (np.uint8(2), 2), (torch.tensor(2), 2)],
)
def test_top_n_keeps_the_best(top_n, kept):
    documents = ["a", "dddd", "bb", "ccc"]
    best = [1, 3, 2, 0][:kept]
    assert indices(Reranker(by_length).rank("q", documents, top_n=top_n)) == best
    assert indices(Reranker(by_length, top_n=top_n).rank("q", documents)) == best
    assert indices(Reranker(by_length).rank_many(["q"], [documents], top_n=top_n)[0]) == best


@pytest.mark.parametrize(
    "top_n", [0, -1, -(10**30), 2.5, 2.0, True, False, "3", b"3", [3], np.float64(2), np.bool_(True)]
)
def test_a_top_n_that_is_no_positive_integer_is_refused(recorder, top_n):
    for call in (
        lambda: Reranker(recorder, top_n=top_n),
        lambda: Reranker(recorder).rank("q", ["a"], top_n=top_n),
        lambda: Reranker(recorder).rank("q", [], top_n=top_n),
        lambda: Reranker(recorder).rank_many([], [], top_n=top_n),
        lambda: rerank("q", ["a"], model=recorder, top_n=top_n),
    ):
        with pytest.raises(InvalidInputError, match="top_n must be") as caught:
            call()
        assert isinstance(caught.value, ValueError)
    assert recorder.calls == []


def test_the_whole_list_is_scored_whatever_top_n(recorder):
    Reranker(recorder, top_n=1).rank("q", ["a", "bb", "ccc"])
    assert recorder.calls[0][1] == ["a", "bb", "ccc"]


# --- what a call says goes before what the reranker says


def test_a_call_overrides_the_rerankers_own(recorder):
    reranker = Reranker(recorder, top_n=2, threshold=2.0, instruction="prefer code")
    documents = ["a", "bb", "ccc", "dddd"]
    assert (reranker.top_n, indices(reranker.rank("q", documents))) == (2, [3, 2])
    assert indices(reranker.rank("q", documents, top_n=3)) == [3, 2, 1]
    assert indices(reranker.rank("q", documents, top_n=None)) == [3, 2, 1]
    assert indices(reranker.rank("q", documents, top_n=None, threshold=None)) == [3, 2, 1, 0]
    assert indices(reranker.rank("q", documents, threshold=4.0)) == [3]
    assert indices(reranker.rank_many(["q"], [documents], top_n=None)[0]) == [3, 2, 1]
    assert {call[2] for call in recorder.calls} == {"prefer code"}
    reranker.rank("q", documents, instruction="prefer prose")
    reranker.rank("q", documents, instruction=None)
    assert [call[2] for call in recorder.calls[-2:]] == ["prefer prose", None]


# --- instructions


def test_an_instruction_reaches_a_scorer_that_takes_one(recorder):
    Reranker(recorder).rank("q", ["a"], instruction="prefer code")
    Reranker(recorder).rank_many(["p", "q"], [["a"], ["b"]], instruction="prefer prose")
    assert [call[2] for call in recorder.calls] == ["prefer code", "prefer prose", "prefer prose"]


@pytest.mark.parametrize("documents", [["a"], []], ids=["some", "none"])
def test_an_instruction_is_refused_by_a_scorer_that_takes_none(documents):
    with pytest.raises(InvalidInputError, match="by_length takes no instruction"):
        Reranker(by_length).rank("q", documents, instruction="prefer code")


def test_an_instruction_that_can_never_be_used_is_refused_with_the_reranker():
    with pytest.raises(ValueError, match="takes no instruction"):
        Reranker(by_length, instruction="prefer code")


@pytest.mark.parametrize("instruction", [5, b"prefer code", ["prefer code"], True])
def test_an_instruction_is_a_string(recorder, instruction):
    with pytest.raises(ValueError, match="instruction must be a string"):
        Reranker(recorder).rank("q", ["a"], instruction=instruction)
    with pytest.raises(ValueError, match="instruction must be a string"):
        Reranker(recorder, instruction=instruction)


def test_an_instruction_is_cleaned_as_all_text_is(recorder):
    Reranker(recorder).rank("q", ["a"], instruction="prefer \ud800")
    assert recorder.calls[0][2] == "prefer \ufffd"


# --- many queries


def test_rank_many_gives_one_ranking_a_query_in_order(recorder):
    rankings = Reranker(recorder, top_n=2).rank_many(["p", "q", "p"], [["a", "bb"], [], iter(["a", "ccc", "bb"])])
    assert [indices(ranking) for ranking in rankings] == [[1, 0], [], [1, 2]]
    assert [ranking.query for ranking in rankings] == ["p", "q", "p"]
    assert [call[:2] for call in recorder.calls] == [("p", ["a", "bb"]), ("p", ["a", "ccc", "bb"])]


def test_rank_many_asks_once_for_all():
    asked = []

    class Batching(Recorder):
        def score_many(self, requests):
            asked.append([(request.query, tuple(request.texts), request.instruction) for request in requests])
            return super().score_many(requests)

    Reranker(Batching()).rank_many(["p", "q"], [["a", "a"], ["b"]], instruction="i")
    assert asked == [[("p", ("a",), "i"), ("q", ("b",), "i")]]


def test_rank_many_of_nothing_is_nothing(recorder):
    assert Reranker(recorder).rank_many([], []) == []
    assert [len(ranking) for ranking in Reranker(recorder).rank_many(["p", "q"], [[], []])] == [0, 0]
    assert recorder.calls == []


@pytest.mark.parametrize(
    ("queries", "documents", "said"),
    [
        ("pq", [["a"], ["b"]], "queries must be a list"),
        (["p"], [["a"], ["b"]], "1 queries but 2 lists"),
        (["p", "q"], [["a"]], "2 queries but 1 lists"),
        (["p", "q"], ["a", "b"], "documents of query 0 must be a list, got one str"),
        (["p"], [{"text": "a"}], "documents of query 0 must be a list, got one dict"),
        (None, [["a"]], "queries must be a list"),
        (["p"], None, "documents_per_query must be a list"),
        (iter(["p"]), [["a"]], "queries must be a list"),
        (["p"], iter([["a"]]), "documents_per_query must be a list"),
    ],
)
def test_rank_many_refuses_lists_that_do_not_match(recorder, queries, documents, said):
    with pytest.raises(InvalidInputError, match=said):
        Reranker(recorder).rank_many(queries, documents)
    assert recorder.calls == []


# --- life cycle


def test_a_closed_reranker_can_be_used_again(recorder):
    with Reranker(recorder) as reranker:
        reranker.rank("q", ["a"])
        reranker.rank("q", ["b"])
        assert (recorder.loads, recorder.loaded) == (1, True)
    assert recorder.loaded is False
    assert indices(reranker.rank("q", ["a", "bb"])) == [1, 0]
    assert recorder.loads == 2
    reranker.close()
    reranker.close()
    assert recorder.loaded is False


def test_the_model_is_closed_when_the_block_fails(recorder):
    def fails():
        with Reranker(recorder) as reranker:
            reranker.rank("q", ["a"])
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert (recorder.loads, recorder.loaded) == (1, False)


def test_a_reranker_is_pickled_by_its_recipe():
    reranker = Reranker(by_length, top_n=3, threshold=0.8, score="probability", score_kind="logit", name="n")
    again = pickle.loads(pickle.dumps(reranker))  # noqa: S301 - our own bytes
    assert again is not reranker
    assert repr(again) == "Reranker('n', top_n=3)"
    ranking = again.rank("q", ["a", "bb", "", "ccc", "dddd"])
    assert (indices(ranking), ranking.score_kind) == ([4, 3, 1], "probability")
    assert indices(again.rank("q", ["a", "bb"])) == [1]


def test_a_reranker_is_pickled_with_its_policy_its_instruction_and_its_calibrator():
    again = pickle.loads(pickle.dumps(Reranker(out_of_order, on_error="passthrough")))  # noqa: S301 - our own bytes
    assert again.rank("q", ["a"]).degraded
    scorer = Recorder()
    made = Reranker(scorer, instruction="prefer code", score="probability", calibrator=thirds)
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own bytes
    assert again.rank("q", ["aa"])[0].score == 2 / 3
    assert again.scorer.calls == [("q", ["aa"], "prefer code")]
    assert scorer.calls == []


def test_a_reranker_of_a_named_model_is_pickled_with_its_options():
    reranker = Reranker("cross-encoder:acme/none-such", max_length=77, instruction=None)
    data = pickle.dumps(reranker)
    again = pickle.loads(data)  # noqa: S301 - our own bytes
    assert again.model == "cross-encoder:acme/none-such"
    assert len(data) < 2_000  # no model in it


@pytest.mark.parametrize("make", [Recorder, lambda: "cross-encoder:acme/none-such"], ids=["scorer", "name"])
def test_copies_share_the_one_model(make):
    reranker = Reranker(make(), top_n=2)
    for again in (copy.copy(reranker), copy.deepcopy(reranker), copy.deepcopy({"r": [reranker]})["r"][0]):
        assert again.scorer is reranker.scorer
        assert again.top_n == 2


def test_repr_shows_the_model_and_no_options(own_registry):
    def factory(model, *, api_key, base_url):
        return Recorder()

    register_scorer("hosted", factory)
    reranker = Reranker("hosted:m", api_key="sk-secret", base_url="http://user:pw@host", top_n=3)
    assert repr(reranker) == "Reranker('hosted:m', top_n=3)"
    assert "sk-secret" not in repr(reranker.scorer)


def test_one_reranker_may_be_used_by_many_threads():
    reranker = Reranker(by_length, top_n=2)
    lists = [["x" * ((number * 7 + position * 13) % 29) for position in range(20)] for number in range(80)]
    expected = [indices(reranker.rank("q", documents)) for documents in lists]
    found = [None] * len(lists)

    def work(first):
        for number in range(first, len(lists), 8):
            found[number] = indices(reranker.rank("q", lists[number]))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


# --- rerank(), the one-liner


@pytest.fixture
def made(own_registry, request):
    """A scheme of this test's own, and the scorers made for it."""
    scorers = []

    def factory(model, *, weights=None, factor=1):
        scorers.append(Recorder())
        return scorers[-1]

    register_scorer("counted", factory)
    # Rerankers are kept by name, so each test uses model names of its own.
    return scorers, partial("counted:{}/{}".format, request.node.name)


def test_rerank_takes_what_a_reranker_takes():
    ranking = rerank("q", ["a", "bb", "ccc"], model=by_length, top_n=2, score_kind="logit", score="probability")
    assert (indices(ranking), ranking.score_kind, ranking.model) == ([2, 1], "probability", "by_length")
    assert indices(rerank("q", ["a", "bb", "ccc"], by_length, threshold=2.0)) == [2, 1]
    recorder = Recorder()
    rerank("q", ["a"], recorder, instruction="i")
    assert recorder.calls == [("q", ["a"], "i")]


def test_rerank_keeps_the_reranker_of_a_model(made):
    scorers, name = made
    for documents in (["a"], ["b"], ["c"]):
        rerank("q", documents, model=name("m"), top_n=1 + len(scorers), factor=2)
    assert len(scorers) == 1
    assert len(scorers[0].calls) == 3
    rerank("q", ["a"], model=name("m"), factor=3)  # other options, another reranker
    rerank("q", ["a"], model=name("other"), factor=2)
    assert len(scorers) == 3


def test_rerank_takes_options_that_cannot_be_hashed(made):
    scorers, name = made
    for _ in range(2):
        assert indices(rerank("q", ["a", "bb"], model=name("m"), weights={"a": [1]})) == [1, 0]
    assert scorers


def test_rerank_uses_a_scheme_registered_anew(made):
    scorers, name = made
    rerank("q", ["a"], model=name("m"))
    register_scorer("counted", lambda model: Reranker(lambda query, texts: [9.0] * len(texts)).scorer, replace=True)
    assert rerank("q", ["a"], model=name("m"))[0].score == 9.0
    assert len(scorers[0].calls) == 1


def test_rerank_makes_one_reranker_for_many_threads(own_registry):
    made = []

    def slow(model):
        time.sleep(0.1)  # lets the other threads come in
        made.append(Recorder())
        return made[-1]

    register_scorer("slow-to-make", slow)
    threads = [threading.Thread(target=rerank, args=("q", ["a"], "slow-to-make:m")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
