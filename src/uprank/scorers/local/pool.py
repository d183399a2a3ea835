"""The rows that wait, of all calls on a model, and how batches are formed of them.

Callers are served by their virtual time, the tokens that were run for them: the one with the least
leads the next batch (start-time fair queueing; Goyal, Vin and Cheng, 1996). It begins with that
caller's longest row, and rows of like length, whoever gave them, fill it up. So what a small call
waits for does not grow with the size of the other calls, and there is next to no padding. Where the
model needs no padding, rows of any length fill it up, those of the nearest length first.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic, TypeAlias, TypeVar

from uprank.scorers.local.jobs import Row

__all__ = ["Batch", "Pool", "Share"]

Rows: TypeAlias = "list[Row[object]]"

_length = attrgetter("length")
_served = attrgetter("served")
_waiting = attrgetter("tokens")

_LIKE = 0.85  # rows at least this long, of the longest, are of like length
_OVERHEAD = 32  # a batch more costs about as much as a 32nd of a full one: that much padding may be spent to spare it
_SMALL = 2  # a call of which at most so many full batches wait is kept together where a larger one waits too


class Share:
    """What one caller has in the pool; to be subclassed.

    Attributes:
        served: The caller's virtual time.
        tokens: How many wait.
        rows: Those that wait, by group: short ones first, of equally long ones the oldest last.
    """

    def __init__(self) -> None:
        self.served = 0
        self.tokens = 0
        self.rows: dict[Hashable, Rows] = {}


AnyShare = TypeVar("AnyShare", bound=Share)


@dataclass(slots=True)
class Batch(Generic[AnyShare]):
    """Rows that are run together.

    Attributes:
        padded: Whether its rows are padded to the longest.
        rows: Of one group.
        shares: For each caller, where its rows are.
        longest: Tokens of the longest row.
        tokens: Of all rows, padding not counted; a row has at least one.
    """

    padded: bool = True
    rows: Rows = field(default_factory=list)
    shares: dict[AnyShare, list[int]] = field(default_factory=dict)
    longest: int = 1
    tokens: int = 0

    @property
    def size(self) -> int:
        """Tokens that are computed, padding counted."""
        return self.longest * len(self.rows) if self.padded else self.tokens

    def size_with(self, length: int) -> int:
        """The size that it would have with one more row."""
        if self.padded:
            return max(self.longest, length) * (len(self.rows) + 1)
        return self.tokens + max(1, length)

    def add(self, share: AnyShare, row: Row[object]) -> None:
        """Put one more row at the end."""
        positions = self.shares.get(share)
        if positions is None:
            positions = self.shares[share] = []
        positions.append(len(self.rows))
        self.rows.append(row)
        self.tokens += row.length or 1
        if row.length > self.longest:
            self.longest = row.length

    def only(self, share: AnyShare) -> Batch[AnyShare]:
        """The rows of one caller, as a batch."""
        batch: Batch[AnyShare] = Batch(self.padded)
        for position in self.shares[share]:
            batch.add(share, self.rows[position])
        return batch


class Pool(Generic[AnyShare]):
    """Rows that wait to be run. Not safe to share between threads.

    Attributes:
        padded: Whether batches are to be formed for padding.
        tokens: How many wait, padding not counted.
    """

    def __init__(self) -> None:
        self.padded = True
        self.tokens = 0
        self._shares: dict[AnyShare, None] = {}  # of those who have rows here; a dict keeps their order
        self._clock = 0  # the virtual time of who led last

    def __bool__(self) -> bool:
        return bool(self._shares)

    def __len__(self) -> int:
        return sum(len(rows) for share in self._shares for rows in share.rows.values())

    def add(self, share: AnyShare, rows: Sequence[Row[object]]) -> None:
        """Let rows wait. A caller that had none here saves up no virtual time while it is away."""
        if not rows:
            return
        if share not in self._shares:
            self._shares[share] = None
            share.served = max(share.served, self._clock)
        groups: dict[Hashable, Rows] = {}
        for row in rows:
            groups.setdefault(row.group, []).append(row)
        for group, new in groups.items():
            new.reverse()
            new.extend(share.rows.get(group, ()))
            new.sort(key=_length)  # stable: of equally long rows the oldest stay last
            share.rows[group] = new
        tokens = sum(map(_length, rows))
        share.tokens += tokens
        self.tokens += tokens

    def put_back(self, batch: Batch[AnyShare], share: AnyShare) -> None:
        """Let rows of a batch that came to nothing wait again."""
        rows = [batch.rows[position] for position in batch.shares[share]]
        share.served -= sum(map(_length, rows))
        self.add(share, rows)

    def drop(self, share: AnyShare) -> None:
        """Forget the rows of a caller."""
        self._shares.pop(share, None)
        self.tokens -= share.tokens
        share.tokens = 0
        share.rows.clear()

    def take(self, budget: int, target: int) -> Batch[AnyShare]:
        """Form a batch; there must be rows.

        Args:
            budget: The most tokens, padding counted where there is any; a longer row makes a batch of its own.
            target: About how many tokens it should have, padding not counted.
        """
        leader = min(self._shares, key=_served)
        self._clock = leader.served
        group, own = max(leader.rows.items(), key=_longest)
        filling = _Filling[AnyShare](budget, target, padded=self.padded)
        filling.batch.add(leader, own[-1])
        self._remove(leader, group, slice(-1, None))
        if filling.full:
            return filling.batch
        others = [share for share in self._shares if group in share.rows and share is not leader]
        # Among small calls alone that would only pad: they are all answered at about the same time anyway.
        if leader.tokens <= _SMALL * budget < max(map(_waiting, self._shares), default=0) or not others:
            self._fill(filling, [leader], group)
        if others:
            everyone = sorted([leader, *others], key=_served)
            self._fill(filling, everyone, group)
            self._fill(filling, everyone, group, up=True)
        return filling.batch

    def _fill(
        self, filling: _Filling[AnyShare], shares: Sequence[AnyShare], group: Hashable, *, up: bool = False
    ) -> None:
        """Add rows by how near their length is to the longest: down from there, or up."""
        if filling.full:
            return
        starts: dict[AnyShare, int] = {}
        for share in shares:
            rows = share.rows.get(group, ())
            start = bisect_right(rows, filling.batch.longest, key=_length)
            if start < len(rows) if up else start:
                starts[share] = start
        walks = [_outward(share, share.rows[group], start, up=up) for share, start in starts.items()]
        nearest = walks[0] if len(walks) == 1 else heapq.merge(*walks, key=_length_of_second, reverse=not up)
        for share, count in (filling.rise(nearest) if up else filling.descend(nearest)).items():
            start = starts[share]
            self._remove(share, group, slice(start, start + count) if up else slice(start - count, start))

    def _remove(self, share: AnyShare, group: Hashable, which: slice) -> None:
        rows = share.rows[group]
        tokens = sum(map(_length, rows[which]))
        del rows[which]
        share.tokens -= tokens
        share.served += tokens
        self.tokens -= tokens
        if not rows:
            del share.rows[group]
            if not share.rows:
                del self._shares[share]


class _Filling(Generic[AnyShare]):
    """A batch while it is filled.

    Args:
        budget: As for :meth:`Pool.take`.
        target: As there.
        padded: As for :class:`Pool`.
    """

    def __init__(self, budget: int, target: int, *, padded: bool) -> None:
        self.batch: Batch[AnyShare] = Batch(padded)
        self._budget = budget
        self._target = target
        self._spare = budget // _OVERHEAD  # tokens of padding that may be spent on rows of another length

    @property
    def full(self) -> bool:
        return self.batch.size_with(1) > self._budget or self.batch.tokens >= self._target

    def _has_room(self, length: int) -> bool:
        return self.batch.size_with(length) <= self._budget and self.batch.tokens + length / 2 <= self._target

    def descend(self, candidates: Iterable[tuple[AnyShare, Row[object]]]) -> dict[AnyShare, int]:
        """Add rows no longer than the longest, the long ones first; tells how many of whom."""
        longest = self.batch.longest
        like = int(_LIKE * longest) if self.batch.padded else 0
        counts: dict[AnyShare, int] = {}
        for share, row in candidates:
            length = row.length
            if not self._has_room(length):
                break
            if length < like:
                if longest - length > self._spare:
                    break
                self._spare -= longest - length
            self.batch.add(share, row)
            counts[share] = counts.get(share, 0) + 1
        return counts

    def rise(self, candidates: Iterable[tuple[AnyShare, Row[object]]]) -> dict[AnyShare, int]:
        """Add longer rows, the short ones first, while hardly more padding comes of it; tells how many of whom."""
        counts: dict[AnyShare, int] = {}
        for share, row in candidates:
            padding = (row.length - self.batch.longest) * len(self.batch.rows) if self.batch.padded else 0
            if padding > self._spare or not self._has_room(row.length):
                break
            self._spare -= padding
            self.batch.add(share, row)
            counts[share] = counts.get(share, 0) + 1
        return counts


def _outward(share: AnyShare, rows: Rows, start: int, *, up: bool) -> Iterator[tuple[AnyShare, Row[object]]]:
    return ((share, rows[place]) for place in (range(start, len(rows)) if up else range(start - 1, -1, -1)))


def _length_of_second(candidate: tuple[object, Row[object]]) -> int:
    return candidate[1].length


def _longest(group: tuple[Hashable, Rows]) -> int:
    return group[1][-1].length
