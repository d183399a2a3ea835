"""BM25 over just the texts at hand, through bm25s: a baseline and a first stage that needs no model."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from uprank.errors import ConfigurationError
from uprank.extras import require
from uprank.scorers.base import Scorer, Scores

__all__ = ["BM25Scorer"]


class BM25Scorer(Scorer):
    """Scores by shared words, rare ones counting more, long texts held back.

    Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with
    Lucene's inverse document frequency (Kamphuis et al., 2020).

    How rare a word is, is counted in the given texts alone. So scores of two queries cannot be
    compared, their kind is ``"rank"``; and texts that a word search has found already are told apart
    poorly, for the words they were found by are common among them. Words are runs of two or more
    letters or digits in lower case, so languages written without spaces are matched poorly too. A
    text that shares no word with the query scores 0.

    Args:
        k1: How soon more of the same word stops to count; at least 0.
        b: How much long texts are held back, from 0 (not at all) to 1.
        stopwords: ``"en"`` leaves out frequent English words, ``None`` leaves out nothing.

    Raises:
        ConfigurationError: If an option is out of range.
        MissingDependencyError: If bm25s is not installed.
    """

    name = "bm25"
    score_kind = "rank"
    listwise = True

    def __init__(self, *, k1: float = 1.5, b: float = 0.75, stopwords: Literal["en"] | None = "en") -> None:
        require('model "bm25"', "bm25", "bm25s")
        if not (isinstance(k1, (int, float)) and 0 <= k1 < math.inf):
            raise ConfigurationError(f"k1 must be a number of at least 0, got {k1!r}.")
        if not (isinstance(b, (int, float)) and 0 <= b <= 1):
            raise ConfigurationError(f"b must be a number from 0 to 1, got {b!r}.")
        if stopwords not in ("en", None):
            raise ConfigurationError(f'stopwords must be "en" or None, got {stopwords!r}.')
        self._k1 = k1
        self._b = b
        self._stopwords = stopwords

    def load(self) -> None:
        self.score("a", ["a"])  # imports bm25s, which takes most of the first call

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        import bm25s

        words = self._tokenise([query, *texts])
        asked, given = words[0], words[1:]
        if not asked or not any(given):  # bm25s can neither index nor be asked nothing
            return self._scores([0.0] * len(texts))
        index = bm25s.BM25(k1=self._k1, b=self._b)
        index.index(given, show_progress=False)
        return self._scores(index.get_scores(asked).tolist())

    def identity(self) -> Mapping[str, object]:
        return {"scheme": "bm25", "k1": float(self._k1), "b": float(self._b), "stopwords": self._stopwords}

    def _scores(self, values: list[float]) -> Scores:
        unmatched = () if any(values) else ("No text shares a word with the query: all scores are 0.",)
        return Scores(values, self.score_kind, warnings=unmatched)

    def _tokenise(self, texts: list[str]) -> list[list[str]]:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # on import it turns its own debug messages on
        tokens: list[list[str]] = bm25s.tokenize(
            texts, stopwords=self._stopwords, return_ids=False, show_progress=False
        )
        return tokens
