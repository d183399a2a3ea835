"""What is run on a local model: calls give rows, rows of several calls make a batch, batches run on lanes.

A :class:`Job` is one call. It gives its rows (texts or pairs, tokenised) as they are wanted, takes
what the model made of them, and tells its outcomes in the end. A :class:`Runner` is a loaded model.
The scheduler (``scheduler.py``) stands between the two and knows neither what rows mean nor how a
model works.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from uprank.scorers.base import Outcome

__all__ = ["Job", "Row", "Runner"]

Payload = TypeVar("Payload")
Output = TypeVar("Output")


@dataclass(frozen=True, slots=True, eq=False)
class Row(Generic[Payload]):
    """One text or pair, ready for the model.

    Args:
        length: Its tokens, padding not counted.
        payload: What the model is given.
        place: Where the job keeps what becomes of it.
        group: Rows of different groups never share a batch, e.g. pairs with different instructions.
    """

    length: int
    payload: Payload
    place: int
    group: Hashable = None


class Job(ABC, Generic[Payload, Output]):
    """One call on a local model.

    :meth:`rows` and :meth:`outcomes` run on the scheduler's thread, one at a time. :meth:`take` runs
    on the lanes' threads: for different rows it may run several times at once.
    """

    @abstractmethod
    def rows(self) -> Sequence[Row[Payload]] | None:
        """Tokenise some more: a bounded number of rows, so that other calls get their turn.

        Returns:
            The next rows; none at all where the results of earlier ones are needed first (asked
            again once they are taken); ``None`` where all have been given.

        Raises:
            Exception: If the call as a whole cannot be scored; it then fails with this error. What
                is wrong with one request alone is an outcome, and not raised.
        """

    @abstractmethod
    def take(self, rows: Sequence[Row[Payload]], output: Output) -> None:
        """Take what the model made of some of this job's rows.

        Args:
            rows: Rows that this job gave, in any order.
            output: For just these rows, in this order.
        """

    @abstractmethod
    def outcomes(self) -> list[Outcome]:
        """What became of the requests, in their order, once all rows are taken."""

    def close(self) -> None:
        """The call has its answer, or was cancelled."""


class Runner(ABC, Generic[Payload, Output]):
    """A loaded model as the scheduler sees it.

    Attributes:
        lanes: How many batches may run at once, each on a thread of its own.
        token_budget: The most tokens in one batch, padding counted where there is any.
        padded: Whether rows are padded to the longest of their batch, so that those of like length
            should share one.
        ahead: Whether :meth:`run` returns before the device is done, so that a lane should launch
            its next batch before it looks at what the last one gave.
    """

    lanes: int = 1
    token_budget: int
    padded: bool = True
    ahead: bool = False

    @abstractmethod
    def run(self, rows: Sequence[Row[Payload]], lane: int) -> Output:
        """Run one batch.

        Args:
            rows: At least one, of one group, and of like length where they are padded.
            lane: From 0 to ``lanes - 1``; always on the same thread.

        Raises:
            Exception: Lack of memory is told by ``batching.is_out_of_memory``.
        """

    @abstractmethod
    def part(self, output: Output, positions: Sequence[int]) -> Output:
        """The output of some rows of a batch alone."""

    def release_memory(self) -> None:
        """Give back what is held for nothing, after memory ran out."""
