"""Rankings one by one for any number of queries, with only a few of them in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from uprank.documents import DocumentLike
from uprank.ranking import RankedDocument, Ranking

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Query", "stream"]

Query: TypeAlias = "tuple[str, Iterable[DocumentLike | RankedDocument]]"
"""A query and its documents."""

Item = TypeVar("Item")

_AHEAD = 2  # groups under way: while one is handed out, the next is scored


def stream(
    rank: Callable[[Sequence[Query]], list[Ranking]], queries: Iterable[Query], *, group: int
) -> Iterator[Ranking]:
    """Rank queries in groups, the next group being scored while one is handed out.

    Args:
        rank: Ranks the queries of a group.
        queries: Read as they are needed.
        group: How many queries are scored together.

    Yields:
        One ranking a query, in their order.
    """
    from concurrent.futures import ThreadPoolExecutor

    waiting: deque[Future[list[Ranking]]] = deque()
    source = iter(queries)
    pool = ThreadPoolExecutor(max_workers=_AHEAD, thread_name_prefix="uprank stream")
    try:
        while True:
            while len(waiting) < _AHEAD and (some := list(islice(source, group))):
                waiting.append(pool.submit(rank, some))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:  # also where the caller stops early
        pool.shutdown(wait=False, cancel_futures=True)
