"""BM25 against the formula in plain Python, and the inputs that have no words."""

from __future__ import annotations

import math
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uprank import Reranker
from uprank.errors import ConfigurationError, MissingDependencyError, ScoreKindError
from uprank.scorers import BM25Scorer

TEXTS = [
    "red fox jumps fox",
    "blue whale swims deep blue sea",
    "csv file reader",
    "fox reads csv file while whale sleeps under blue sky",
]


def reference(query: list[str], texts: list[list[str]], k1: float, b: float) -> list[float]:
    """Lucene's BM25, term by term."""
    average = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        counts, score = Counter(text), 0.0
        for word in query:
            df = sum(word in other for other in texts)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            tf = counts[word]
            score += idf * tf / (tf + k1 * (1 - b + b * len(text) / average)) if tf else 0.0
        scores.append(score)
    return scores


words = st.lists(st.sampled_from(["fox", "whale", "csv", "file", "blue"]), max_size=6)


@settings(deadline=None)
@given(query=words, texts=st.lists(words, min_size=1, max_size=5), k1=st.floats(0, 3), b=st.floats(0, 1))
def test_scores_equal_the_formula(query: list[str], texts: list[list[str]], k1: float, b: float):
    scores = BM25Scorer(k1=k1, b=b).score(" ".join(query), [" ".join(text) for text in texts])
    expected = reference(query, texts, k1, b) if any(texts) else [0.0] * len(texts)
    assert list(scores.values) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert scores.kind == "rank"


def test_the_reranker_orders_by_it():
    ranking = Reranker("bm25").rank("Blue WHALE", TEXTS)
    assert [hit.index for hit in ranking] == [1, 3, 0, 2]
    assert [hit.score for hit in ranking[2:]] == [0.0, 0.0]
    with pytest.raises(ScoreKindError):
        Reranker("bm25", threshold=0.5)


@pytest.mark.parametrize(
    ("query", "texts"),
    [
        ("fox", [""]),
        ("fox", ["", " ", "\x00", "!?"]),
        ("fox", ["the of and", "to be or not"]),
        ("the of and", TEXTS),
        ("zebra", TEXTS),
        ("?!", TEXTS),
        ("\x00", TEXTS),
        ("", TEXTS),
        ("a b c", ["a", "b"]),
    ],
)
def test_what_shares_no_word_scores_zero(query: str, texts: list[str]):
    assert list(BM25Scorer().score(query, texts).values) == [0.0] * len(texts)


def test_texts_without_words_score_zero_beside_others():
    values = BM25Scorer().score("fox the unknown", ["", "fox", "the", "\x01"]).values
    assert values[1] > 0
    assert [values[index] for index in (0, 2, 3)] == [0.0, 0.0, 0.0]


def test_stop_words_are_left_out_by_default_only():
    texts = ["the whale", "whale"]
    assert list(BM25Scorer().score("the", texts).values) == [0.0, 0.0]
    assert BM25Scorer(stopwords=None).score("the", texts).values[0] > 0


def test_large_inputs():
    values = BM25Scorer().score("fox", [f"whale {n}" for n in range(9_998)] + ["fox " * 250_000, "fox\x00fox"]).values
    assert len(values) == 10_000
    assert sum(value > 0 for value in values) == 2


def test_nothing_reaches_the_terminal(capfd: pytest.CaptureFixture[str]):
    BM25Scorer().score("fox", TEXTS * 50)
    assert capfd.readouterr() == ("", "")


def test_threads_do_not_disturb_each_other():
    scorer = BM25Scorer()
    queries = ["fox", "whale", "csv file", "blue sea"]
    alone = {query: scorer.score(query, TEXTS).values for query in queries}
    with ThreadPoolExecutor(max_workers=8) as pool:
        for query, values in pool.map(lambda query: (query, scorer.score(query, TEXTS).values), queries * 50):
            assert values == alone[query]


async def test_async_gives_the_same():
    scorer = BM25Scorer()
    assert (await scorer.ascore("fox", TEXTS)).values == scorer.score("fox", TEXTS).values


@pytest.mark.parametrize(
    "options", [{"k1": -1}, {"k1": math.inf}, {"k1": "1"}, {"b": 1.1}, {"b": math.nan}, {"stopwords": "klingon"}]
)
def test_options_out_of_range_are_refused(options: dict[str, object]):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        BM25Scorer(**options)


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "uprank\[bm25\]"'):
        BM25Scorer()


def test_it_says_so_where_no_text_shares_a_word_with_the_query():
    ranking = Reranker("bm25").rank("zebra", ["a red fox", "the blue sea"])
    assert ranking.warnings == ("No text shares a word with the query: all scores are 0.",)
    assert Reranker("bm25").rank("fox", ["a red fox", "the blue sea"]).warnings == ()
