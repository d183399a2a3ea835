"""Query-document pairs as token ids: the query is kept whole, only the document is cut."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from uprank.errors import ConfigurationError, InvalidInputError, QueryTooLongError
from uprank.scorers.local.engines.base import TokenIds, Tokens
from uprank.scorers.local.loading import LongQuery

__all__ = ["ModelInputs", "Pair", "PairEncoder", "ReadyQuery", "Surplus", "known_window"]

ModelInputs = tuple[tuple[str, Hashable], ...]
"""What the model's forward needs beside token ids, by name."""


@dataclass(frozen=True, slots=True)
class ReadyQuery:
    """A query that fits, ready to be joined with documents.

    Args:
        text: The query, cut where it was too long and that was asked for.
        prompt: The instruction, or the model's own; ``None`` for none.
        room: Tokens that are left for a document, where that is the same for all.
        model_inputs: Alike for all pairs of this query; pairs of different ones never share a batch.
        warnings: What the caller should know.
    """

    text: str
    prompt: str | None
    room: int
    model_inputs: ModelInputs = ()
    warnings: tuple[str, ...] = ()


class Pair(NamedTuple):
    """A pair as token ids.

    Attributes:
        ids: As in :class:`~uprank.scorers.local.engines.base.Tokens`.
        types: As there.
        truncated: Whether the document was cut.
    """

    ids: TokenIds
    types: TokenIds | None
    truncated: bool


class Surplus:
    """Finds out whether a document was cut, without counting its tokens: pairs are given one token more than is read.

    Args:
        window: The tokens that are read.
        probes: A pair without a document, and the same query with a document of another word: what both end with
            follows every document.
        side: Which side of a document is cut off.
    """

    def __init__(self, window: int, probes: Sequence[Tokens], side: str) -> None:
        self._window = window
        self._right = side == "right"
        short, long = (probe.ids.tolist() for probe in probes)
        pairs = enumerate(zip(reversed(short), reversed(long), strict=False))
        self._after = next((count for count, (one, other) in pairs if one != other), len(short))

    def taken(self, pair: Tokens, room: int) -> Pair:
        """Take the token that is too much off a pair.

        Args:
            pair: Cut to one token more than the window.
            room: Tokens that are left for a document.
        """
        if len(pair.ids) <= self._window:
            return Pair(pair.ids, pair.types, truncated=False)
        last = self._window - self._after
        place = last if self._right else last - room
        types = None if pair.types is None else np.delete(pair.types, place)
        return Pair(np.delete(pair.ids, place), types, truncated=True)


class PairEncoder(ABC):
    """Turns a query and its documents into token ids for one model.

    Args:
        name: Names the model in errors.
        window: The most tokens that the model reads of a pair, special tokens included.
        long_query: What to do with a query of more than half the window: ``"error"`` or
            ``"truncate"`` it to that, with a warning.
    """

    def __init__(self, *, name: str, window: int, long_query: LongQuery) -> None:
        self.window = window
        self._name = name
        self._long_query = long_query

    def query(self, query: str, instruction: str | None) -> ReadyQuery:
        """Make the query ready.

        Raises:
            QueryTooLongError: If the query fills more than half of the window, or with the
                instruction leaves no room for documents.
            InvalidInputError: If an instruction is given to a model that has no place for it.
        """
        prompt = self._prompt(instruction)
        warnings: tuple[str, ...] = ()
        limit = self.window // 2
        length = self._count(query)
        if length > limit:
            problem = f"The query has {length} tokens, more than half of the {self.window} that {self._name} reads"
            if self._long_query == "error":
                raise QueryTooLongError(
                    f"{problem}: too little room would be left for the documents. Shorten the query, raise max_length "
                    'if the model allows it, or pass long_query="truncate".'
                )
            query, warnings = self._cut(query, limit), (f"{problem}; it was cut to {limit}.",)
        taken, model_inputs = self._around(query, prompt)
        if taken >= self.window:
            raise QueryTooLongError(
                f"The query and the instruction take {taken} of the {self.window} tokens that {self._name} "
                "reads and leave no room for documents. Shorten them or raise max_length."
            )
        return ReadyQuery(query, prompt, self.window - taken, model_inputs, warnings)

    @abstractmethod
    def rows(self, query: ReadyQuery, texts: Sequence[str]) -> list[Pair]:
        """Join the query with each text; texts are cut to fit the window."""

    @abstractmethod
    def _prompt(self, instruction: str | None) -> str | None:
        """What stands for the instruction before the model; raise where it has no place for one."""

    @abstractmethod
    def _around(self, query: str, prompt: str | None) -> tuple[int, ModelInputs]:
        """The tokens of everything but the document, and what else the forward needs."""

    @abstractmethod
    def _count(self, text: str) -> int:
        """Tokens of a text alone."""

    @abstractmethod
    def _cut(self, text: str, limit: int) -> str:
        """The longest beginning of a text that has at most ``limit`` tokens."""

    def _no_place_for_an_instruction(self) -> InvalidInputError:
        return InvalidInputError(
            f"{self._name} has no place for an instruction, neither in a chat template nor in prompts. "
            "Leave instruction=None, or choose a model that takes one."
        )


def known_window(window: int | None, name: str) -> int:
    """Return the window; raise ``ConfigurationError`` where nothing tells it."""
    if window is None:
        raise ConfigurationError(f"{name} does not say how many tokens it reads; pass max_length=.")
    return window
