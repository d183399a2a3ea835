"""What a client asks and what it is answered, whatever its dialect."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from uprank.documents import DocumentLike
from uprank.ranking import Ranking
from uprank.scorers.evidence import Attempt
from uprank.server.discretion import story_of

__all__ = ["Answer", "Json", "Question"]

Json: TypeAlias = "Mapping[str, object] | Sequence[object]"
"""What a body is made of: what JSON has."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be ranked.

    Args:
        queries: Nearly always one.
        documents: One list a query.
        model: The id or alias that the client sent; ``None`` where it named none.
        top_n: How many of the documents are wanted; ``None`` for all.
        instruction: What to judge by.
        whole: Whether a document that the model reads only the beginning of is an error.
        notes: What the client should know of its own request, e.g. which of its fields has no effect here.
    """

    queries: Sequence[str]
    documents: Sequence[Sequence[DocumentLike]]
    model: str | None = None
    top_n: int | None = None
    instruction: str | None = None
    whole: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it.

    Args:
        question: What was asked.
        rankings: One a query.
        model: The id under which the model is served.
        request_id: Names the request in the reply, in its headers and in the log.
        created: When, in seconds since 1970.
    """

    question: Question
    rankings: Sequence[Ranking]
    model: str
    request_id: str
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def ranking(self) -> Ranking:
        """The ranking of the only query."""
        (ranking,) = self.rankings
        return ranking

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the client should know, each thing once."""
        found = [*self.question.notes, *(told for ranking in self.rankings for told in story_of(ranking))]
        return tuple(dict.fromkeys(found))

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The models that were to answer and did not, so that a fallback did."""
        return tuple(attempt for ranking in self.rankings for attempt in ranking.attempts)

    @property
    def tokens(self) -> int:
        """How many tokens were read; 0 where that is not known, since clients want a number."""
        return sum(ranking.usage.tokens or 0 for ranking in self.rankings)
