"""Scores that a test can compute for itself: pure functions of the texts, with no model behind them."""

from __future__ import annotations

import hashlib
import math
import re

_WORD = re.compile(r"\w+")
# Words that say nothing about what a text is about.
_COMMON = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "do",
        "does",
        "for",
        "from",
        "how",
        "in",
        "is",
        "it",
        "of",
        "on",
        "or",
        "that",
        "the",
        "this",
        "to",
        "was",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "with",
    ]
)
LOGIT_SERVICES = frozenset({"llama-cpp", "nvidia"})
RAW_IS_LOGIT = frozenset({"tei", "infinity", "vllm", "vllm-score"})


def words(text: str) -> set[str]:
    """The words of ``text`` that carry meaning; all of them where none does."""
    found = set(_WORD.findall(text.casefold()))
    return (found - _COMMON) or found


def relevance(query: str, document: str) -> float:
    """How relevant a document is, strictly between 0 and 1.

    A document that shares a word with the query lies in 0.2…0.98, the higher the larger the part of the query's words
    that it holds; any other lies in 0.02…0.18. A hash of both texts is added, so that no two different pairs tie.
    """
    digest = hashlib.blake2b(f"{len(query)}:{query}:{document}".encode("utf-8", "surrogatepass"), digest_size=8)
    noise = int.from_bytes(digest.digest(), "big") / 2**64
    asked = words(query)
    shared = len(asked & words(document)) / max(len(asked), 1)
    return 0.2 + 0.7 * shared + 0.08 * noise if shared else 0.02 + 0.16 * noise


def logit(p: float) -> float:
    """The number whose sigmoid is ``p``."""
    return math.log(p / (1.0 - p))


def is_listwise(model: str) -> bool:
    """True for the Jina models whose scores depend on the other documents of the request."""
    return model.startswith("jina-reranker-v3")


def native(service: str, p: float, *, model: str = "", raw_scores: bool = False, count: int = 1) -> float:
    """What a service reports for a document of relevance ``p``.

    Args:
        service: Its name in ``SERVICES``.
        p: What ``relevance`` says.
        model: The model asked for. Jina's v3 reports cosines; a Qwen3 reranker on llama.cpp reports probabilities.
        raw_scores: True where the request asked for raw scores (TEI, Infinity), or for no activation (vLLM).
        count: Documents in the request. Jina's v3 looks at them together, so here they all move its scores.
    """
    if service == "jina" and is_listwise(model):
        return (2.0 * p - 1.0) * count / (count + 1.0)
    if service == "llama-cpp" and "qwen3" in model.casefold():
        return p
    if service in LOGIT_SERVICES or (raw_scores and service in RAW_IS_LOGIT):
        return logit(p)
    return p


def tokens(text: str) -> int:
    """How the servers count tokens: words between spaces, or a quarter of the characters if that is more."""
    return max(len(text.split()), math.ceil(len(text) / 4))


def pair_tokens(query: str, documents: list[str]) -> int:
    """Tokens of a request: the query is counted with every document."""
    return tokens(query) * len(documents) + sum(map(tokens, documents))
