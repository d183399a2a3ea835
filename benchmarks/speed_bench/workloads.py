"""Texts to rerank: running words of real documentation, cut to given numbers of tokens, always the same for a seed."""

from __future__ import annotations

import bisect
import json
import math
import random
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

__all__ = ["WORKLOADS", "Kind", "TokenCounts", "Workload", "corpus_words", "make", "token_counter"]

_QUERY_TOKENS = 10
_SPECIAL_TOKENS = 3  # of a BERT pair


@dataclass(frozen=True, slots=True)
class Kind:
    """How long pairs are: log-normal, cut to what a model reads.

    Args:
        name: As on the command line.
        median: Tokens of a pair, special tokens counted.
        sigma: Of the logarithm; 0 makes all pairs alike.
        most: The longest pair.
    """

    name: str
    median: float
    sigma: float
    most: int = 512


WORKLOADS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("short", 73, 0.25),
        Kind("mixed", 165, 0.65),  # a mean of about 200
        Kind("long", 512, 0.0),
        Kind("pairs150", 142, 0.35),  # a mean of 150, as of natural questions with their passages
    )
}


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of the pairs of a workload."""

    mean: float
    median: float
    p95: float
    most: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Queries, each with its own documents; no two documents are alike.

    Args:
        name: Of its kind.
        queries: One text each.
        documents: As many lists as queries.
        tokens: Of the pairs.
    """

    name: str
    queries: tuple[str, ...]
    documents: tuple[tuple[str, ...], ...]
    tokens: TokenCounts

    def save(self, path: Path) -> Path:
        """Write it as JSON, which is how contestants read it."""
        path.write_text(json.dumps(asdict(self)), "utf-8")
        return path


def corpus_words() -> list[str]:
    """The words of the documentation of Python's standard library, in their order.

    Raises:
        uprank.errors.UprankError: If this Python comes without the sources of its library.
    """
    from uprank.demo.stdlib_docs import load_stdlib_docs

    # Prose: a word of code or of signs would be many tokens. In small letters, which all tokenizers here know.
    words = (word for document in load_stdlib_docs() for word in document.text.split())
    return [word.lower() for word in words if _PROSE.fullmatch(word)]


_PROSE = re.compile(r"[(\"']?[A-Za-z]{1,14}[)\"']?[.,:;!?]?")


def token_counter(model: Path) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text, special tokens left out, by a model's tokenizer.json."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def make(
    kind: Kind, words: Sequence[str], count: Callable[[str], int], *, queries: int, documents: int, seed: int = 0
) -> Workload:
    """Make a workload.

    Args:
        kind: How long its pairs are.
        words: Real text, word by word.
        count: Tells how many tokens a word has.
        queries: How many.
        documents: How many a query.
        seed: Another one gives other texts.

    Returns:
        The same workload for the same arguments, on every machine with the same words.

    Raises:
        ValueError: If there are too few words.
    """
    generator = random.Random(f"{kind.name} {seed}")  # noqa: S311 - texts to measure with, no secrets
    cut = _Cutter(words, count)
    asked = [cut.text(_QUERY_TOKENS, generator) for _ in range(queries)]
    seen: set[str] = set()
    lists: list[tuple[str, ...]] = []
    lengths: list[int] = []
    for query in asked:
        around = count(query) + _SPECIAL_TOKENS
        texts = []
        for target in _lengths(kind, documents, generator):
            text = cut.other_text(max(4, target - around), generator, seen)
            texts.append(text)
            lengths.append(count(text) + around)
        lists.append(tuple(texts))
    return Workload(kind.name, tuple(asked), tuple(lists), _counts(lengths))


def _lengths(kind: Kind, number: int, generator: random.Random) -> Iterator[int]:
    for _ in range(number):
        length = math.exp(generator.gauss(math.log(kind.median), kind.sigma))
        yield max(24, min(kind.most, round(length)))


def _counts(lengths: Sequence[int]) -> TokenCounts:
    ordered = sorted(lengths)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return TokenCounts(round(statistics.fmean(ordered), 1), statistics.median(ordered), p95, ordered[-1])


class _Cutter:
    """Cuts passages of a number of tokens out of running text."""

    def __init__(self, words: Sequence[str], count: Callable[[str], int]) -> None:
        known: dict[str, int] = {}
        for word in words:
            if word not in known:
                known[word] = count(word)
        self._words = words
        self._ends = list(accumulate(known[word] for word in words))
        if not self._ends or self._ends[-1] < 10_000:
            raise ValueError("there are too few words to cut passages from")

    def text(self, tokens: int, generator: random.Random) -> str:
        """A passage of at most so many tokens, and of no less than them but one word's."""
        start = generator.randrange(len(self._words))
        before = self._ends[start - 1] if start else 0
        end = bisect.bisect_right(self._ends, before + tokens)
        if end >= len(self._words):  # at the end of the corpus: from its beginning
            start, end = 0, bisect.bisect_right(self._ends, tokens)
        return " ".join(self._words[start : max(end, start + 1)])

    def other_text(self, tokens: int, generator: random.Random, seen: set[str]) -> str:
        """One that was not cut before."""
        for _ in range(100):
            text = self.text(tokens, generator)
            if text not in seen:
                seen.add(text)
                return text
        raise ValueError("there are too few words for so many different passages")
