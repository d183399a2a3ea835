"""What a ranking is: a sequence of the caller's documents, ready for JSON, pandas, notebooks and pickle."""

import copy
import json
import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from html.parser import HTMLParser

import numpy as np
import pytest

from uprank import Document, MissingDependencyError, RankedDocument, Ranking, Reranker, Usage
from uprank.scorers import Scores

DOCUMENTS = [Document("low", id="l", metadata={"page": 1}), "high", {"text": "middle", "page": 3}]


def by_table(query, texts):
    return np.array([{"low": -1.5, "middle": 0.25, "high": 3.0}.get(text, 0.0) for text in texts], dtype=np.float32)


@pytest.fixture
def ranking():
    return Reranker(by_table, name="table").rank("q", DOCUMENTS)


@pytest.fixture
def degraded():
    def broken(query, texts):
        raise OSError("no <b>route</b>")

    return Reranker(broken, on_error="passthrough").rank("q", DOCUMENTS)


# --- a sequence


def test_a_ranking_is_a_sequence_best_first(ranking):
    assert isinstance(ranking, Sequence)
    assert len(ranking) == 3
    assert [hit.document.text for hit in ranking] == ["high", "middle", "low"]
    assert [hit.rank for hit in ranking] == [0, 1, 2]
    assert [hit.index for hit in ranking] == [1, 2, 0]
    assert ranking[-1] is list(ranking)[2]
    assert [hit.rank for hit in reversed(ranking)] == [2, 1, 0]
    assert ranking[1] in ranking
    assert ranking.index(ranking[1]) == 1
    with pytest.raises(IndexError):
        ranking[3]


def test_an_empty_ranking_is_false():
    assert not Reranker(by_table).rank("q", [])


def test_a_slice_is_a_ranking_that_keeps_the_ranks(ranking):
    tail = ranking[1:]
    assert isinstance(tail, Ranking)
    assert [hit.rank for hit in tail] == [1, 2]
    assert (tail.query, tail.model, tail.score_kind, tail.usage) == ("q", "table", "logit", ranking.usage)
    assert len(ranking) == 3
    assert len(ranking[5:]) == 0


def test_a_ranking_and_its_hits_cannot_be_changed(ranking):
    with pytest.raises(FrozenInstanceError):
        ranking.model = "other"
    with pytest.raises(FrozenInstanceError):
        ranking[0].score = 9.0
    with pytest.raises(TypeError):
        ranking[0] = ranking[1]


# --- what it tells


def test_a_ranking_tells_model_kind_usage_and_time():
    def slow(query, texts):
        time.sleep(0.02)
        return Scores([1.0] * len(texts), kind="cosine", usage=Usage(tokens=42), warnings=("document 1 was cut",))

    ranking = Reranker(slow, name="slow").rank("q", ["a", "b", "a"])
    assert (ranking.query, ranking.model, ranking.score_kind) == ("q", "slow", "cosine")
    assert ranking.usage == Usage(pairs=2, tokens=42)  # "a" was scored once
    assert ranking.warnings == ("document 1 was cut",)
    assert ranking.elapsed >= 0.02
    assert ranking.degraded is False


def test_the_model_is_named_as_the_caller_named_it():
    assert Reranker(by_table).rank("q", ["a"]).model == "by_table"


# --- dicts and JSON


def test_scores_are_python_floats(ranking):
    assert [type(hit.score) for hit in ranking] == [float] * 3
    assert [type(hit.index) for hit in ranking] == [int] * 3


def test_to_dicts_is_ready_for_json(ranking):
    dicts = ranking.to_dicts()
    assert json.loads(json.dumps(dicts, allow_nan=False)) == dicts
    assert dicts[2] == {"rank": 2, "index": 0, "score": -1.5, "id": "l", "text": "low", "metadata": {"page": 1}}
    assert dicts[1]["metadata"] == {"page": 3}


def test_changing_the_dicts_does_not_change_the_document(ranking):
    ranking.to_dicts()[2]["metadata"]["page"] = 99
    assert DOCUMENTS[0].metadata == {"page": 1}


def test_a_degraded_ranking_has_null_for_scores(degraded):
    assert json.loads(json.dumps(degraded.to_dicts()))[0]["score"] is None


# --- pandas


def test_to_pandas_has_one_row_a_hit(ranking):
    frame = ranking.to_pandas()
    assert list(frame.columns) == ["rank", "index", "score", "id", "text", "metadata"]
    assert frame["score"].tolist() == [3.0, 0.25, -1.5]
    assert frame["score"].dtype == np.float64
    assert frame["text"].tolist() == ["high", "middle", "low"]
    assert frame["metadata"].tolist() == [{}, {"page": 3}, {"page": 1}]


def test_to_pandas_of_nothing_has_the_columns(ranking):
    assert list(ranking[3:].to_pandas().columns) == list(ranking.to_pandas().columns)


def test_to_pandas_without_pandas_says_what_to_install(ranking, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r'Run: pip install "uprank\[pandas\]"'):
        ranking.to_pandas()


# --- shown


def test_repr_is_short_and_shows_no_document(ranking, degraded):
    assert repr(ranking) == "<Ranking of 3 documents by table>"
    assert repr(degraded).endswith("broken, degraded>")


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        assert all(name == "style" for name, _ in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _parse(markup):
    parser = _Tags()
    parser.feed(markup)
    parser.close()
    assert parser.open == []
    return parser


def test_html_shows_each_hit_in_order(ranking):
    page = _parse(ranking._repr_html_())
    assert page.tags.count("tr") == 1 + len(ranking)
    assert [text for text in page.text if text in {"high", "middle", "low"}] == ["high", "middle", "low"]
    assert {"3.0000", "0.2500", "-1.5000"} <= set(page.text)


def test_html_escapes_whatever_it_shows():
    hostile = "<script>alert('x')</script><img src=x onerror=\"a()\">&amp;</td>"

    def score(query, texts):
        return Scores([0.0] * len(texts), kind="logit", warnings=(hostile,))

    ranking = Reranker(score, name=hostile).rank(hostile, [hostile])
    page = _parse(ranking._repr_html_())
    assert {"script", "img"}.isdisjoint(page.tags)
    assert page.text.count(hostile) == 3  # the query, the warning, the document
    assert any(hostile in text and text != hostile for text in page.text)  # the model


def test_html_of_a_degraded_ranking_says_why_and_shows_no_score(degraded):
    page = _parse(degraded._repr_html_())
    assert any("no <b>route</b>" in text for text in page.text)
    assert page.text.count("–") == 3


@pytest.mark.parametrize("letter", ["x", "<", "&"])
def test_html_cuts_long_texts_between_characters(letter):
    page = _parse(Reranker(by_table).rank("q", [letter * 5_000])._repr_html_())
    assert page.text[-1] == letter * 199 + "…"


def test_html_can_be_sent_to_a_browser_whatever_the_text():
    """A notebook encodes what it shows as UTF-8; a lone surrogate must not make that fail."""
    ranking = Reranker(by_table, name="m\udfff").rank("q\ud800", ["\ud800"])
    assert b"<table>" in ranking._repr_html_().encode()


# --- copied and sent


@pytest.mark.parametrize("roundtrip", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])  # noqa: S301 - our own bytes
def test_rankings_and_hits_are_copied_and_pickled_whole(ranking, degraded, roundtrip):
    for value in (ranking, degraded, ranking[0], ranking[:0]):
        again = roundtrip(value)
        assert type(again) is type(value)
        assert again == value
    assert roundtrip(ranking).to_dicts() == ranking.to_dicts()


def test_a_deep_copy_shares_nothing_that_can_change(ranking):
    again = copy.deepcopy(ranking)
    again[2].document.metadata["page"] = 99
    assert DOCUMENTS[0].metadata == {"page": 1}


def test_a_hit_can_be_made_by_hand():
    hit = RankedDocument(Document("a"), index=3, rank=0, score=0.5)
    assert Ranking("q", (hit,), model="mine", score_kind="probability").to_dicts()[0]["index"] == 3


def test_printed_it_shows_rank_score_and_text():
    ranking = Reranker(lambda query, texts: [0.25, 0.5], name="fn").rank("q", ["first", "second"])
    assert str(ranking).splitlines() == [
        "<Ranking of 2 documents by fn>",
        "   0    0.5000  second",
        "   1    0.2500  first",
    ]
