"""Defects seen in other rerankers, each shown to be absent from the core. D1, D2, ... number them."""

import copy
import json
import math
import pickle
from itertools import permutations

import numpy as np
import pytest

import uprank.scorers
from uprank import (
    Document,
    InvalidInputError,
    InvalidScoresError,
    MissingDependencyError,
    Reranker,
    ScorerError,
    UnknownModelError,
)
from uprank.scorers import Scores
from uprank.scorers.presets import PRESETS
from uprank.scorers.registry import SCHEMES, import_target

RELEVANCE = {"needle": 0.9, "thread": 0.4, "button": 0.1, "cloth": -0.7}


def by_relevance(query, texts):
    return [RELEVANCE[text] for text in texts]


def test_d1_by_default_the_scorer_sees_every_document():
    """D1: a default range selected no passages, so a paid call was told there were none, and the order came back."""
    seen = []

    def spy(query, texts):
        seen.append(texts)
        return by_relevance(query, texts)

    ranking = Reranker(spy).rank("sewing", list(reversed(RELEVANCE)))
    assert seen == [["cloth", "button", "thread", "needle"]]
    assert [hit.document.text for hit in ranking] == ["needle", "thread", "button", "cloth"]


def test_d2_every_score_stays_with_its_document():
    """D2: documents in input order were paired with scores in sorted order, and ids were required."""
    for texts in permutations(RELEVANCE):
        ranking = Reranker(by_relevance).rank("sewing", texts)
        assert [hit.document.text for hit in ranking] == list(RELEVANCE)
        for hit in ranking:
            assert hit.score == RELEVANCE[hit.document.text]
            assert texts[hit.index] == hit.document.text
            assert hit.document.id is None


@pytest.mark.parametrize(
    "body",
    ['{"message": "rate limit exceeded"}', '{"results": null}', '{"results": [{"index": 0}]}', "<html>502</html>", ""],
)
def test_d4_a_failing_service_is_a_typed_error(body):
    """D4: the body of an HTTP 429 surfaced as KeyError: 'results'."""

    def client(query, texts):
        return [result["relevance_score"] for result in json.loads(body)["results"]]

    with pytest.raises(ScorerError, match="client failed with") as caught:
        Reranker(client, name="client").rank("sewing", RELEVANCE.keys())
    assert not isinstance(caught.value, (LookupError, TypeError, ValueError))
    assert isinstance(caught.value.__cause__, (KeyError, TypeError, ValueError))
    degraded = Reranker(client, name="client", on_error="passthrough").rank("sewing", RELEVANCE.keys())
    assert [hit.document.text for hit in degraded] == list(RELEVANCE)


def test_d5_what_is_missing_is_raised_and_not_printed(monkeypatch, capsys):
    """D5: a missing dependency printed advice and gave None in place of a reranker."""
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "uprank\[local\]"'):
        Reranker("cross-encoder:acme/model", engine="torch")
    with pytest.raises(UnknownModelError):
        Reranker("lit5")
    assert capsys.readouterr() == ("", "")


def test_d5_everything_on_offer_exists():
    """D5: a name was offered for which there was no class."""
    for row in SCHEMES.values():
        assert callable(import_target(row))
    for preset in PRESETS.values():
        assert preset.model.partition(":")[0] in SCHEMES
    for name in uprank.scorers.__all__:
        assert getattr(uprank.scorers, name) is not None


def test_d6_documents_may_have_metadata_and_may_be_none_at_all():
    """D6: metadata together with document objects always failed, and an empty list was an IndexError."""
    documents = [Document("thread", metadata={"page": 1}), Document("needle", id="n", metadata={"page": 2})]
    ranking = Reranker(by_relevance).rank("sewing", documents)
    assert [(hit.document.id, hit.document.metadata) for hit in ranking] == [("n", {"page": 2}), (None, {"page": 1})]
    assert ranking[0].document is documents[1]
    for nothing in ([], (), iter(())):
        assert list(Reranker(by_relevance).rank("sewing", nothing)) == []


@pytest.mark.parametrize("roundtrip", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])  # noqa: S301 - our own bytes
def test_d7_results_can_be_copied_and_pickled(roundtrip):
    """D7: copying a result recursed without end through its __getattr__."""
    ranking = Reranker(by_relevance).rank("sewing", [Document("needle", "n", {"page": 1}), "thread"])
    for value in (ranking, ranking[0], ranking[0].document, ranking[:1]):
        assert roundtrip(value) == value
    with pytest.raises(AttributeError):
        ranking[0].no_such_field  # noqa: B018 - the access is the test


def test_d8_duplicate_passages_each_come_back_as_themselves():
    """D8: results were mapped back by text, so two equal passages came back as one of them twice."""
    documents = [{"text": "needle", "id": "a"}, {"text": "needle", "id": "b"}, {"text": "thread", "id": "c"}]
    ranking = Reranker(by_relevance).rank("sewing", documents)
    assert [(hit.index, hit.document.id) for hit in ranking] == [(0, "a"), (1, "b"), (2, "c")]


def test_d15_the_callers_dicts_are_not_written_to_and_scores_are_plain_floats():
    """D15: scores were written into the caller's dicts, as NumPy floats that JSON refuses."""
    documents = [{"text": "thread", "page": 1}, {"text": "needle", "score": "mine"}]
    before = copy.deepcopy(documents)

    def float32(query, texts):
        return np.array(by_relevance(query, texts), dtype=np.float32)

    ranking = Reranker(float32).rank("sewing", documents)
    assert documents == before
    assert {type(hit.score) for hit in ranking} == {float}
    assert json.loads(json.dumps(ranking.to_dicts()))[0]["metadata"] == {"score": "mine"}


@pytest.mark.parametrize("answered", [0, 1, 3, 5])
def test_d15_d24_no_document_is_lost_where_the_answer_is_short_or_long(answered):
    """D15, D24: documents that the model left out of its answer were dropped without a word."""
    with pytest.raises(InvalidScoresError, match=f"gave {answered} scores for 4 texts"):
        Reranker(lambda query, texts: [1.0] * answered).rank("sewing", RELEVANCE.keys())


def test_d22_what_a_model_has_squashed_is_not_squashed_again():
    """D22: a sigmoid was applied to scores that had been through the model's own."""
    probabilities = {"needle": 0.9, "thread": 0.4, "button": 0.1, "cloth": 0.02}

    def squashed(query, texts):
        return [probabilities[text] for text in texts]

    for mode in ("native", "probability"):
        ranking = Reranker(squashed, score_kind="probability", score=mode).rank("sewing", list(probabilities))
        assert [hit.score for hit in ranking] == list(probabilities.values())


@pytest.mark.parametrize("mode", ["native", "probability"])
def test_d22_a_model_that_ends_in_a_sigmoid_gets_exactly_one(mode):
    """D22, the other way about: logits with a declared sigmoid come out squashed once, whatever is asked."""

    def declares_sigmoid(query, texts):
        return Scores(by_relevance(query, texts), kind="logit", native="probability")

    ranking = Reranker(declares_sigmoid, score_kind="logit", score=mode).rank("sewing", RELEVANCE.keys())
    assert [hit.score for hit in ranking] == pytest.approx([1 / (1 + math.exp(-value)) for value in RELEVANCE.values()])
    assert ranking.score_kind == "probability"


def test_d24_every_document_comes_back_with_its_score():
    """D24: the documents came back without any score."""
    ranking = Reranker(by_relevance).rank("sewing", RELEVANCE.keys())
    assert {hit.document.text: hit.score for hit in ranking} == RELEVANCE


@pytest.mark.parametrize("position", range(4))
def test_d24_a_score_that_is_no_number_is_an_error(position):
    """D24: one NaN left the list in an arbitrary order."""
    scores = [0.1, 0.9, 0.5, 0.3]
    scores[position] = float("nan")
    with pytest.raises(InvalidScoresError, match=f"nan for text {position}"):
        Reranker(lambda query, texts: scores).rank("sewing", RELEVANCE.keys())


@pytest.mark.parametrize("top_n", [-1, -4, 0])
def test_d24_a_negative_top_n_is_refused(top_n):
    """D24: top_n=-1 dropped the worst document without a word."""
    with pytest.raises(InvalidInputError, match=f"top_n must be at least 1.*got {top_n}"):
        Reranker(by_relevance).rank("sewing", RELEVANCE.keys(), top_n=top_n)
