"""Rankings one by one for any number of queries, with only a few of them in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from uprank.documents import DocumentLike
from uprank.ranking import RankedDocument, Ranking
from uprank.rounds import Kept, in_background, result_of

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Query", "stream"]

Query: TypeAlias = "tuple[str, Iterable[DocumentLike | RankedDocument]]"
"""A query and its documents."""

_AHEAD = 2  # groups under way: while one is handed out, the next is scored


def stream(
    rank: Callable[[int, Sequence[Query]], Coroutine[object, object, list[Ranking]]],
    queries: Iterable[Query],
    *,
    group: int,
) -> Iterator[Ranking]:
    """Rank queries in groups, the next group being scored while one is handed out.

    Args:
        rank: Ranks the queries of a group; told how many came before them.
        queries: Read as they are needed.
        group: How many queries are scored together.

    Yields:
        One ranking a query, in their order.
    """
    waiting: deque[Future[Kept[list[Ranking]]]] = deque()
    source = iter(queries)
    read = 0
    try:
        while True:
            while len(waiting) < _AHEAD and (some := list(islice(source, group))):
                waiting.append(in_background(rank(read, some)))
                read += len(some)
            if not waiting:
                return
            rankings = result_of(waiting[0])
            waiting.popleft()
            yield from rankings
    finally:  # also where the caller stops early, or is interrupted
        for future in waiting:
            future.cancel()
