"""What callers give and what scorers answer, checked once, at the edge of the pipeline."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass

from uprank.documents import Document, DocumentLike, as_document, scorable
from uprank.errors import InvalidInputError
from uprank.ranking import RankedDocument
from uprank.scorers.base import ScoreRequest

__all__ = ["Job", "make_jobs", "texts_of", "valid_threshold", "valid_top_n"]


@dataclass(frozen=True, slots=True)
class Job:
    """One query's documents, and for each the position of its text among the request's texts."""

    query: str
    documents: tuple[Document, ...]
    request: ScoreRequest
    positions: tuple[int, ...]


def make_jobs(
    queries: Sequence[str],
    documents_per_query: Sequence[Iterable[DocumentLike | RankedDocument]],
    instruction: str | None,
    *,
    first: int | None,
) -> list[Job]:
    """Check queries and documents.

    Args:
        queries: One query a job.
        documents_per_query: As many lists of documents.
        instruction: For all of them.
        first: The number of the first query, for errors; ``None`` where there is but one.

    Raises:
        InvalidInputError: If anything is not what it should be.
    """
    if isinstance(queries, str) or not isinstance(queries, Sized):
        raise InvalidInputError(
            "queries must be a list of strings; for one query call rank(), for a generator rank_stream()."
        )
    if not isinstance(documents_per_query, Sized):
        raise InvalidInputError("documents_per_query must be a list of lists of documents.")
    if instruction is not None and not isinstance(instruction, str):
        raise InvalidInputError(f"instruction must be a string or None, got {type(instruction).__name__}.")
    instruction = None if instruction is None else scorable(instruction)
    if len(queries) != len(documents_per_query):
        raise InvalidInputError(f"Got {len(queries)} queries but {len(documents_per_query)} lists of documents.")
    return [
        _job(query, documents, instruction, "" if first is None else f" of query {first + number}")
        for number, (query, documents) in enumerate(zip(queries, documents_per_query, strict=True))
    ]


def _job(query: str, documents: Iterable[DocumentLike | RankedDocument], instruction: str | None, of_query: str) -> Job:
    if not isinstance(query, str):
        raise InvalidInputError(f"The text{of_query or ' of the query'} must be a string, got {type(query).__name__}.")
    if not query.strip():
        raise InvalidInputError(f"The text{of_query or ' of the query'} is empty; a query needs words to rank by.")
    accepted = tuple(_documents(documents, of_query))
    position_of: dict[str, int] = {}
    positions = tuple(position_of.setdefault(scorable(document.text), len(position_of)) for document in accepted)
    return Job(query, accepted, ScoreRequest(scorable(query), tuple(position_of), instruction), positions)


def texts_of(documents: Iterable[DocumentLike | RankedDocument]) -> Iterator[str]:
    """The texts of documents, one by one, as scorers read them.

    Raises:
        InvalidInputError: If ``documents`` is one document, or something else that is no list.
        InvalidDocumentError: When a document is reached that is none.
    """
    return (scorable(document.text) for document in _documents(documents, ""))


def _documents(documents: Iterable[DocumentLike | RankedDocument], of_query: str) -> Iterator[Document]:
    # Not a set either: an index into one means nothing. A data frame iterates over its columns' names.
    one = isinstance(documents, (str, bytes, Mapping, set, frozenset, Document)) or hasattr(documents, "columns")
    if one or not isinstance(documents, Iterable):
        raise InvalidInputError(f"The documents{of_query} must be a list, got one {type(documents).__name__}.")
    return (
        value.document if isinstance(value, RankedDocument) else as_document(value, f"Document {index}{of_query}")
        for index, value in enumerate(documents)
    )


def valid_top_n(top_n: int | None) -> int | None:
    if top_n is None:
        return None
    try:
        if isinstance(top_n, bool):
            raise TypeError
        number = operator.index(top_n)
    except TypeError:
        raise InvalidInputError(f"top_n must be a positive integer or None (all), got {top_n!r}.") from None
    if number < 1:
        raise InvalidInputError(f"top_n must be at least 1, or None for all documents; got {number}.")
    return number


def valid_threshold(threshold: float | None) -> float | None:
    if threshold is None:
        return None
    try:
        if isinstance(threshold, (bool, str, bytes)):
            raise TypeError
        number = float(threshold)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInputError(f"threshold must be a number or None, got {threshold!r}.") from None
    if not math.isfinite(number):
        raise InvalidInputError(f"threshold must be finite, got {number}.")
    return number
