"""The one-line way in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from uprank.documents import DocumentLike
from uprank.ranking import RankedDocument, Ranking
from uprank.reranker import Reranker
from uprank.scorers.registry import Model
from uprank.secrets import masked
from uprank.sharing import shared_reranker

__all__ = ["rerank"]


def rerank(
    query: str,
    documents: Iterable[DocumentLike | RankedDocument],
    model: Model = "embedded",
    *,
    top_n: int | None = None,
    threshold: float | None = None,
    instruction: str | None = None,
    **options: object,
) -> Ranking:
    """Rank documents for a query, in one line.

    The rerankers of the last few models named here are kept, so a loop does not load a model twice;
    to decide yourself how long a model lives, keep a :class:`Reranker`.

    Args:
        query: Not empty.
        documents: As for :meth:`Reranker.rank`.
        model: As for :class:`Reranker`.
        top_n: How many to return at most; ``None`` returns all.
        threshold: Return only documents scored at least this.
        instruction: What to judge by, for models that take one.
        options: Further options of :class:`Reranker`.

    Returns:
        The documents, best first.

    Raises:
        UprankError: As :class:`Reranker` and :meth:`Reranker.rank` do.
    """
    options = masked(options)  # so that a traceback that prints variables shows no secret
    reranker = shared_reranker(model, **options)
    if isinstance(model, str):
        if reranker in _recent:
            _recent.remove(reranker)
        _recent.append(reranker)
    return reranker.rank(query, documents, top_n=top_n, threshold=threshold, instruction=instruction)


_recent: deque[Reranker] = deque(maxlen=4)
"""The last few that were named, kept alive between calls."""
