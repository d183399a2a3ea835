"""MaxSim in NumPy: one product for all documents that lie side by side, then the best of each.

Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late
Interaction over BERT", 2020 (arXiv 2004.12832), as the mean over the query's tokens instead of their
sum: the same order for one query, and a cosine. With one vector a text, it is the cosine of two
embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.local.vectors.blocks import Block, Known

__all__ = ["maxsim"]

_LOWEST = -1.0
_PRODUCTS = 4_000_000  # cosines held at once


def maxsim(query: NDArray[np.float32], documents: Sequence[Known]) -> NDArray[np.float32]:
    """The mean over a query's tokens of their greatest cosine with any token of a document.

    Documents whose vectors lie side by side are multiplied together, others one by one: none is
    copied, and there is no padding that could win.

    Args:
        query: Unit vectors of shape (tokens, dimensions).
        documents: In any order.

    Returns:
        One number in [-1, 1] a document; -1, the least there is, for one without any token, and for
        all where the query has none.
    """
    scores = np.full(len(documents), _LOWEST, dtype=np.float32)
    places = [place for place, known in enumerate(documents) if known.size]
    if not len(query) or not places:
        return scores
    places.sort(key=lambda place: (id(documents[place].block), documents[place].start))
    transposed = np.ascontiguousarray(query.T)
    group: list[int] = []
    held = 0
    for place in places:
        if group and (held + documents[place].size) * len(query) > _PRODUCTS:
            scores[group] = _scores(transposed, [documents[one] for one in group])
            group, held = [], 0
        group.append(place)
        held += documents[place].size
    scores[group] = _scores(transposed, [documents[one] for one in group])
    return scores


def _scores(queries: NDArray[np.float32], documents: Sequence[Known]) -> NDArray[np.float32]:
    """As :func:`maxsim`, of documents sorted by where they lie, none of them without a token."""
    counts = np.array([known.size for known in documents])
    firsts = np.cumsum(counts) - counts
    cosines = np.empty((int(counts.sum()), queries.shape[1]), dtype=np.float32)
    done = 0
    block, start, stop = documents[0].block, documents[0].start, documents[0].start
    for known in documents:
        if known.block is not block or known.start != stop:
            done = _multiply(block, start, stop, queries, cosines, done)
            block, start, stop = known.block, known.start, known.start
        stop += known.size
    _multiply(block, start, stop, queries, cosines, done)
    best: NDArray[np.float32] = np.maximum.reduceat(cosines, firsts, axis=0).mean(axis=1)
    return best.clip(-1.0, 1.0)  # only rounding leaves that range


def _multiply(
    block: Block, start: int, stop: int, queries: NDArray[np.float32], cosines: NDArray[np.float32], done: int
) -> int:
    end = done + stop - start
    block.slice(start, stop).times(queries, cosines[done:end])
    return end
