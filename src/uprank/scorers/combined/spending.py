"""How many documents a budget of time and money suffices for, by what stages have been seen to take."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from uprank.errors import ConfigurationError

__all__ = ["Budget", "Measured"]

_WEIGHT = 0.25  # of the newest measurement in the mean


class Measured:
    """What a document takes in each stage: running means of seconds and of cost. Safe to share between threads.

    A copy of it has measured nothing yet.

    Args:
        stages: How many there are.
    """

    def __init__(self, stages: int) -> None:
        self._stages = stages
        self._lock = threading.Lock()
        self._used = [False] * stages
        self._seconds = [_Mean() for _ in range(stages)]
        self._cost = [_Mean() for _ in range(stages)]

    def __reduce__(self) -> tuple[type[Measured], tuple[int]]:
        return type(self), (self._stages,)

    def note(self, stage: int, documents: int, seconds: float | None, cost: float | None) -> None:
        """Remember an answer.

        Args:
            stage: Whose.
            documents: How many it scored; of 0 nothing is learned but that it was used.
            seconds: What it took; ``None`` where that is not to be learned from.
            cost: What it cost; ``None`` where it does not say.
        """
        with self._lock:
            self._used[stage] = True
            if documents and seconds is not None:
                self._seconds[stage].add(seconds / documents)
            if documents and cost is not None:
                self._cost[stage].add(cost / documents)

    def used(self, stage: int) -> bool:
        """Whether the stage was ever asked."""
        with self._lock:
            return self._used[stage]

    def seconds(self, stage: int) -> float | None:
        """Seconds a document; ``None`` where not known."""
        with self._lock:
            return self._seconds[stage].value

    def cost(self, stage: int) -> float | None:
        """Cost a document; ``None`` where not known."""
        with self._lock:
            return self._cost[stage].value


@dataclass(frozen=True, slots=True)
class Budget:
    """What a query may take.

    Args:
        max_ms: In milliseconds; ``None`` for no limit.
        max_cost: In money; ``None`` for no limit.

    Raises:
        ConfigurationError: If one is not a finite number above 0.
    """

    max_ms: float | None
    max_cost: float | None

    def __post_init__(self) -> None:
        for name, limit in (("max_ms", self.max_ms), ("max_cost", self.max_cost)):
            number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
            if limit is not None and not (number and 0 < limit < math.inf):
                raise ConfigurationError(f"{name} must be a finite number above 0, or None (no limit); got {limit!r}.")

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.max_ms is not None or self.max_cost is not None

    def __str__(self) -> str:
        limits = (("max_ms", self.max_ms), ("max_cost", self.max_cost))
        return " and ".join(f"{name}={limit:g}" for name, limit in limits if limit is not None)

    def share(
        self, measured: Measured, stage: int, wanted: Sequence[int], seconds: float, cost: float, queries: int
    ) -> float:
        """Which part of the documents wanted can be afforded, from this stage on.

        Args:
            measured: What a document takes in each stage.
            stage: The stage about to begin.
            wanted: How many documents each stage from this one on is to score.
            seconds: Used up so far by all queries.
            cost: Likewise.
            queries: Each has a whole budget.

        Returns:
            From 0, which means that nothing is left, to 1.
        """
        if not measured.used(stage):
            return 1.0
        stages = range(stage, stage + len(wanted))
        shares = [1.0]
        if self.max_ms is not None:
            left = self.max_ms / 1000 * queries - seconds
            shares.append(_part(left, [measured.seconds(one) for one in stages], wanted))
        if self.max_cost is not None and measured.cost(stage):  # what runs here costs nothing, and is not held back
            costs = [measured.cost(one) for one in stages]
            shares.append(_part(self.max_cost * queries - cost, costs, wanted))
        return min(shares)


class _Mean:
    """A mean that follows what changes."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._count = 0

    def add(self, number: float) -> None:
        if self.value is None or self._count == 1:  # the first call loads the model, and tells nothing of the next
            self.value = number
        else:
            self.value += _WEIGHT * (number - self.value)
        self._count += 1


def _part(left: float, each: Sequence[float | None], wanted: Sequence[int]) -> float:
    needed = sum(one * count for one, count in zip(each, wanted, strict=True) if one is not None)
    if left <= 0:
        return 0.0
    return 1.0 if needed <= left else left / needed
