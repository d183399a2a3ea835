"""Cut a list of documents into requests that a service takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

__all__ = ["Limits", "estimated_tokens", "parts", "split"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold; ``None`` is no limit.

    Args:
        documents: Most documents.
        tokens: Most tokens, the query counted once for each document.
        bytes: Most bytes of text.
    """

    documents: int | None = None
    tokens: int | None = None
    bytes: int | None = None

    def at_most(self, documents: int | None) -> Limits:
        """These limits, with no more than so many documents."""
        if documents is None or (self.documents is not None and self.documents <= documents):
            return self
        return replace(self, documents=documents)

    def __str__(self) -> str:
        named = ((self.documents, "documents"), (self.tokens, "tokens"), (self.bytes, "bytes"))
        return ", ".join(f"{limit} {name}" for limit, name in named if limit is not None) or "not known"


def split(query: str, texts: Sequence[str], limits: Limits) -> list[range]:
    """Return consecutive ranges of ``texts``, each as long as the limits allow.

    Full requests come first, since services bill by the request's size. A text that exceeds a limit
    by itself is sent alone: only the service knows its own tokens.

    Args:
        query: Counted once for each text.
        texts: At least one.
        limits: Of one request.
    """
    if limits.tokens is None and limits.bytes is None:  # nothing to measure
        return _cut(range(len(texts)), limits.documents or len(texts))
    return list(_ranges(query, texts, limits))


def parts(chunk: range, most: int | None) -> list[range]:
    """Shorter ranges for one that a service found too large: two halves, or as long as it says it takes."""
    length = most if most is not None and most < len(chunk) else (len(chunk) + 1) // 2
    return _cut(chunk, length)


def _cut(chunk: range, length: int) -> list[range]:
    return [chunk[start : start + length] for start in range(0, len(chunk), length)]


def estimated_tokens(text: str) -> int:
    """A count of tokens that is rather too high: English has 4 to 5 bytes a token, Chinese 3."""
    return len(text.encode()) // 3 + 1


def _ranges(query: str, texts: Sequence[str], limits: Limits) -> Iterator[range]:
    start, tokens, size = 0, 0, 0
    query_tokens = 0 if limits.tokens is None else estimated_tokens(query)
    query_size = len(query.encode())
    for position, text in enumerate(texts):
        more_tokens = 0 if limits.tokens is None else query_tokens + estimated_tokens(text)
        more_size = 0 if limits.bytes is None else _encoded(text)
        full = (
            _exceeds(position - start + 1, limits.documents)
            or _exceeds(tokens + more_tokens, limits.tokens)
            or _exceeds(query_size + size + more_size, limits.bytes)
        )
        if full and position > start:
            yield range(start, position)
            start, tokens, size = position, 0, 0
        tokens += more_tokens
        size += more_size
    yield range(start, len(texts))


def _encoded(text: str) -> int:
    """Bytes of a text in a JSON body, at most: quotes, a comma, and a backslash for some characters."""
    escaped = sum(text.count(character) for character in '"\\\n\r\t')
    return len(text.encode()) + escaped + 16


def _exceeds(amount: int, limit: int | None) -> bool:
    return limit is not None and amount > limit
