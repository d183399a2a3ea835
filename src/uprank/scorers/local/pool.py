"""The rows that wait, of all calls on a model, and how batches are formed of them.

The call with the least left to run leads the next batch, and of like calls the one that came first
(shortest remaining processing time; Schrage, 1968): when there is more to do than time, as many calls
as can be are answered, rather than all of them late. Of eight batches one at least is the oldest
call's, however many small ones keep coming. A batch begins with its leader's longest row, and rows of
like length fill it up: the leader's and those of the calls that come next. Only these are looked at,
so that what is next is done soon; they are enough that there is little padding. Where the model needs
no padding, rows of any length fill it up, the leader's before others'.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count as counting
from operator import attrgetter
from typing import Generic, TypeAlias, TypeVar

from uprank.scorers.local.jobs import Row

__all__ = ["Batch", "Pool", "Share"]

Rows: TypeAlias = "list[Row[object]]"

_length = attrgetter("length")
_number = attrgetter("number")
_numbers = counting()

_LIKE = 0.85  # rows at least this long, of the longest, are of like length
_OVERHEAD = 32  # a batch more costs about as much as a 32nd of a full one: that much padding may be spent to spare it
_SMALL = 2  # a call of which at most so many full batches wait is kept together where a larger one waits too
_NEXT = 6  # batches are filled from the calls that come next, of which so many full ones wait, or
_PART = 8  # this part of all that waits, if that is more
_AGEING = 8  # of so many batches one is the oldest call's


class Share:
    """What one call has in the pool; to be subclassed.

    Attributes:
        number: Calls are numbered as they come.
        begun: Whether a row of it was taken.
        tokens: How many wait.
        coming: About how many are to come that are not in the pool yet.
        rows: Those that wait, by group: short ones first, of equally long ones the oldest last.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.begun = False
        self.tokens = 0
        self.coming = 0
        self.rows: dict[Hashable, Rows] = {}


AnyShare = TypeVar("AnyShare", bound=Share)


@dataclass(slots=True)
class Batch(Generic[AnyShare]):
    """Rows that are run together.

    Attributes:
        padded: Whether its rows are padded to the longest.
        rows: Of one group.
        shares: For each call, where its rows are.
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
        """The rows of one call, as a batch."""
        batch: Batch[AnyShare] = Batch(self.padded)
        for position in self.shares[share]:
            batch.add(share, self.rows[position])
        return batch


class Pool(Generic[AnyShare]):
    """Rows that wait to be run. Not safe to share between threads.

    Attributes:
        padded: Whether batches are to be formed for padding.
        latest_first: Whether of like calls the last comes first, which is right where callers do not wait
            long enough for their turn: who came first is about to leave.
        tokens: How many wait, padding not counted.
    """

    def __init__(self) -> None:
        self.padded = True
        self.latest_first = False
        self.tokens = 0
        self._shares: dict[AnyShare, None] = {}  # of those who have rows here; a dict keeps their order
        self._passed_over = 0  # batches since the oldest call led one

    def __bool__(self) -> bool:
        return bool(self._shares)

    def __len__(self) -> int:
        return sum(len(rows) for share in self._shares for rows in share.rows.values())

    def add(self, share: AnyShare, rows: Sequence[Row[object]]) -> None:
        """Let rows wait."""
        if not rows:
            return
        self._shares[share] = None
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
        self.add(share, [batch.rows[position] for position in batch.shares[share]])

    def drop(self, share: AnyShare) -> None:
        """Forget the rows of a call."""
        self._shares.pop(share, None)
        self.tokens -= share.tokens
        share.tokens = 0
        share.rows.clear()

    def rank(self, share: AnyShare, budget: int) -> tuple[int, bool, int]:
        """Tells by comparison whose turn it is; the least is next.

        Calls are alike while neither has twice as many full batches left to run as the other, or both have less
        than one: small differences should not decide who waits. Of like calls one that was begun is finished
        first.

        Args:
            share: Any call's.
            budget: Tokens of a full batch.
        """
        left = (share.tokens + share.coming) // budget
        return left.bit_length(), not share.begun, -share.number if self.latest_first else share.number

    def would_lead(self, share: AnyShare, budget: int) -> bool:
        """Whether a call that has no rows here would come before all that have."""
        return all(self.rank(share, budget) < self.rank(other, budget) for other in self._shares)

    def take(self, budget: int, target: int) -> Batch[AnyShare]:
        """Form a batch; there must be rows.

        Args:
            budget: The most tokens, padding counted where there is any; a longer row makes a batch of its own.
            target: About how many tokens it should have, padding not counted.
        """
        ranked = sorted(self._shares, key=lambda share: self.rank(share, budget))
        leader, aged = self._leader(ranked)
        group, own = max(leader.rows.items(), key=_longest)
        filling = _Filling[AnyShare](budget, target, padded=self.padded)
        filling.batch.add(leader, own[-1])
        others = [leader, *(share for share in ranked if group in share.rows and share is not leader)]
        following = _beginning(others, max(_NEXT * budget, self.tokens // _PART) if self.padded else target)
        small = leader.tokens <= _SMALL * budget < max(share.tokens for share in following)
        self._remove(leader, group, slice(-1, None))
        # Among small calls alone that would only pad: they are all answered at about the same time anyway.
        if aged or small or not self.padded or len(following) == 1:
            self._fill(filling, [leader], group)
        self._fill(filling, following, group)
        self._fill(filling, following, group, up=True)
        return filling.batch

    def _leader(self, ranked: Sequence[AnyShare]) -> tuple[AnyShare, bool]:
        """Who leads the next batch, and whether only because it is the oldest."""
        leader, oldest = ranked[0], min(ranked, key=_number)
        self._passed_over = 0 if leader is oldest else self._passed_over + 1
        if self._passed_over < _AGEING:
            return leader, False
        self._passed_over = 0
        return oldest, True

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
        share.begun = True
        share.tokens -= tokens
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


def _beginning(shares: Sequence[AnyShare], tokens: int) -> list[AnyShare]:
    """The first calls, until as many tokens as that wait of them."""
    waiting = 0
    for number, share in enumerate(shares, 1):
        waiting += share.tokens
        if waiting >= tokens:
            return [*shares[:number]]
    return [*shares]


def _outward(share: AnyShare, rows: Rows, start: int, *, up: bool) -> Iterator[tuple[AnyShare, Row[object]]]:
    return ((share, rows[place]) for place in (range(start, len(rows)) if up else range(start - 1, -1, -1)))


def _length_of_second(candidate: tuple[object, Row[object]]) -> int:
    return candidate[1].length


def _longest(group: tuple[Hashable, Rows]) -> int:
    return group[1][-1].length
