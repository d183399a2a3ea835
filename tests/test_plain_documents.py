"""Lists of plain strings take a shorter way through the core than all others; what comes of them is the same."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from uprank import Document, Hooks, InvalidDocumentError, InvalidScoresError, Reranker
from uprank.documents import PlainDocuments
from uprank.observe import RankStart

TEXTS = ["", " ", "a", "b", "word", "Wort mit ß", "日本語", "lone \ud800 surrogate", "lone \udfff other", "a\x00b"]


class Marked(str):
    """A string of a class of its own."""


class Recording:
    """Scores by length, with ties, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def __call__(self, query: str, texts: list[str]) -> list[float]:
        self.asked.append((query, texts))
        return [float(len(text) % 4) for text in texts]


def ranked(documents: object, **options: int) -> tuple[object, ...]:
    scorer = Recording()
    ranking = Reranker(scorer).rank("query \ud800", documents, **options)  # type: ignore[arg-type]  # any kind of list
    hits = [(hit.index, hit.rank, hit.score, hit.document) for hit in ranking]
    return hits, scorer.asked, ranking.usage, ranking.warnings


@pytest.mark.parametrize("seed", range(30))
def test_strings_are_ranked_as_documents_with_their_texts_are(seed):
    rng = random.Random(seed)
    texts = rng.choices(TEXTS, k=rng.randint(1, 25))
    options = rng.choice([{}, {"top_n": 1}, {"top_n": 7}, {"top_n": 99}, {"top_n": 3, "max_tokens": 10**9}])
    expected = ranked([Document(text) for text in texts], **options)
    for same in (
        texts,
        tuple(texts),
        iter(texts),
        [Marked(text) for text in texts],
        [{"text": text} for text in texts],
    ):
        assert ranked(same, **options) == expected


def test_one_that_is_no_string_among_strings_is_named():
    with pytest.raises(InvalidDocumentError, match=r"^Document 2 is of type int"):
        Reranker(Recording()).rank("q", ["a", "b", 3, "d"])  # type: ignore[list-item]  # as said


def test_hooks_and_callers_get_the_same_documents():
    seen: list[Sequence[Document]] = []

    class Seeing(Hooks):
        def on_start(self, start: RankStart) -> None:
            seen.append(start.documents)

    ranking = Reranker(Recording(), hooks=[Seeing()]).rank("q", ["a", "bb", "a"], top_n=2)
    assert isinstance(seen[0], tuple)
    assert [document.text for document in seen[0]] == ["a", "bb", "a"]
    assert all(hit.document is seen[0][hit.index] for hit in ranking)


def test_a_document_is_made_once():
    documents = PlainDocuments(("a", "b", "c"))
    assert documents[1] is documents[1] is documents[-2] is documents[0:2][1]
    assert [document.text for document in documents] == ["a", "b", "c"]
    with pytest.raises(IndexError):
        documents[3]
    with pytest.raises(IndexError):
        documents[-4]


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, lambda values: np.array(values, np.float64)[::-1][::-1]])
def test_scores_may_come_as_any_list_of_numbers(kind):
    values = [0.5, -1.25, 3.0, 0.5]
    ranking = Reranker(lambda query, texts: kind(values)).rank("q", ["a", "b", "c", "d"])
    assert [(hit.index, hit.score) for hit in ranking] == [(2, 3.0), (0, 0.5), (3, 0.5), (1, -1.25)]
    assert all(type(hit.score) is float for hit in ranking)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_float_that_is_no_score_is_named(bad):
    with pytest.raises(InvalidScoresError, match=r"for text 1; scores must be finite"):
        Reranker(lambda query, texts: [0.5, bad, 0.5]).rank("q", ["a", "b", "c"])


def test_zeros_of_both_signs_keep_their_order():
    ranking = Reranker(lambda query, texts: [-0.0, 0.0, -0.0, 0.0]).rank("q", ["a", "b", "c", "d"])
    assert [hit.index for hit in ranking] == [0, 1, 2, 3]
