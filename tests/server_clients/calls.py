"""What a client is asked to do, and what came of it; spoken by both environments, so of nothing but Python."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["Call", "Client", "Pairs", "keep_to_this_machine"]

Pairs = list[tuple[int, float]]
"""Positions in the caller's list and scores, best first."""


@dataclass(frozen=True)
class Call:
    """One rerank call.

    Args:
        client: Which one makes it, by its name in ``CLIENTS``.
        address: Of the server, without a slash at the end.
        query: What to rank for.
        texts: What to rank.
        top_n: How many are wanted; ``None`` for as many as there are.
        model: The id that is sent.
        key: The server's, or a wrong one; empty for a server that has none.
    """

    client: str
    address: str
    query: str
    texts: tuple[str, ...]
    top_n: int | None = None
    model: str = "any"
    key: str = ""

    @property
    def wanted(self) -> int:
        """For clients that must be told a number."""
        return self.top_n or len(self.texts)

    @property
    def sent_key(self) -> str:
        """For clients that do not start without one."""
        return self.key or "unused"


Client = Callable[[Call], Pairs]


def keep_to_this_machine() -> None:
    """Refuse every connection and every look-up that leaves the loopback interface: several clients report home."""

    def refuse(event: str, args: tuple[object, ...]) -> None:
        if event == "socket.connect":
            address = args[1]
            host = address[0] if isinstance(address, tuple) else "127.0.0.1"
        elif event == "socket.getaddrinfo":
            host = args[0]
        else:
            return
        if host not in ("127.0.0.1", b"127.0.0.1", "localhost", b"localhost", "::1", None):
            raise PermissionError("no connection leaves this machine")

    sys.addaudithook(refuse)


def pairs_of(found: Iterable[tuple[object, object]]) -> Pairs:
    """Check what a client returned."""
    pairs: Pairs = []
    for index, score in found:
        if not isinstance(index, int) or not isinstance(score, float):
            raise TypeError(f"{index!r} and {score!r} are no position and score")
        pairs.append((index, score))
    return pairs
