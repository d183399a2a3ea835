"""What callers give and what scorers answer, checked once, at the edge of the pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import SupportsFloat, TypeAlias, TypeGuard

from uprank.documents import Document, DocumentLike, PlainDocuments, as_document, scorable
from uprank.errors import InvalidDocumentError, InvalidInputError
from uprank.ranking import RankedDocument
from uprank.scorers.base import ScoreRequest

__all__ = ["RETRIEVAL_SCORE", "Job", "TextOf", "as_number", "make_jobs", "texts_of"]

TextOf: TypeAlias = Callable[[Document], str]

RETRIEVAL_SCORE = "retrieval_score"
"""The metadata key under which a document carries the score that its retriever gave it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One query's documents, and for each the position of its text among the request's texts."""

    query: str
    documents: Sequence[Document]
    request: ScoreRequest
    positions: tuple[int, ...]


def make_jobs(
    queries: Sequence[str],
    documents_per_query: Sequence[Iterable[DocumentLike | RankedDocument]],
    instruction: str | None,
    *,
    first: int | None,
    text_of: TextOf | None = None,
) -> list[Job]:
    """Check queries and documents.

    Args:
        queries: One query a job.
        documents_per_query: As many lists of documents.
        instruction: For all of them.
        first: The number of the first query, for errors; ``None`` where there is but one.
        text_of: What is scored of a document; by default its text.

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
        _job(query, documents, instruction, "" if first is None else f" of query {first + number}", text_of)
        for number, (query, documents) in enumerate(zip(queries, documents_per_query, strict=True))
    ]


def _job(
    query: str,
    documents: Iterable[DocumentLike | RankedDocument],
    instruction: str | None,
    of_query: str,
    text_of: TextOf | None,
) -> Job:
    if not isinstance(query, str):
        raise InvalidInputError(f"The text{of_query or ' of the query'} must be a string, got {type(query).__name__}.")
    if not query.strip():
        raise InvalidInputError(f"The text{of_query or ' of the query'} is empty; a query needs words to rank by.")
    if text_of is None and isinstance(documents, (list, tuple)):
        given = tuple(documents)  # what is checked is what is used, though another thread changes the list
        if _are_strings(given):
            return _job_of_strings(query, given, instruction)
    accepted: list[Document] = []
    positions: list[int] = []
    position_of: dict[str, int] = {}
    found: list[float | None] = []  # of each text, the best of those that the first stage gave its documents
    for document, text, score in _documents(documents, of_query, text_of):
        accepted.append(document)
        positions.append(position_of.setdefault(text, len(position_of)))
        if positions[-1] == len(found):
            found.append(score)
        elif score is not None:
            best = found[positions[-1]]
            found[positions[-1]] = score if best is None else max(best, score)
    known = [score for score in found if score is not None]
    retrieval_scores = tuple(known) if found and len(known) == len(found) else None
    request = ScoreRequest(scorable(query), tuple(position_of), instruction, retrieval_scores)
    return Job(query, tuple(accepted), request, tuple(positions))


def _are_strings(documents: tuple[DocumentLike | RankedDocument, ...]) -> TypeGuard[tuple[str, ...]]:
    """Whether all are plain strings, and there are some."""
    return set(map(type, documents)) == {str}


def _job_of_strings(query: str, texts: tuple[str, ...], instruction: str | None) -> Job:
    """The same of strings alone, which need no look at each by itself: most lists are such."""
    scored = texts if all(map(str.isascii, texts)) else tuple(map(scorable, texts))
    unique = tuple(dict.fromkeys(scored))
    positions = tuple(range(len(texts)))
    if len(unique) < len(texts):
        position_of = {text: position for position, text in enumerate(unique)}
        positions = tuple([position_of[text] for text in scored])
    return Job(query, PlainDocuments(texts), ScoreRequest(scorable(query), unique, instruction), positions)


def texts_of(documents: Iterable[DocumentLike | RankedDocument], text_of: TextOf | None = None) -> Iterator[str]:
    """The texts of documents, one by one, as scorers read them.

    Args:
        documents: As for ranking.
        text_of: As for :func:`make_jobs`.

    Raises:
        InvalidInputError: If ``documents`` is one document, or something else that is no list.
        InvalidDocumentError: When a document is reached that is none.
    """
    return (text for _, text, _ in _documents(documents, "", text_of))


def _documents(
    documents: Iterable[DocumentLike | RankedDocument], of_query: str, text_of: TextOf | None
) -> Iterator[tuple[Document, str, float | None]]:
    """Documents, what is scored of them, and the scores that the first stage gave them."""
    # Not a set either: an index into one means nothing. A data frame iterates over its columns' names.
    one = isinstance(documents, (str, bytes, Mapping, set, frozenset, Document)) or hasattr(documents, "columns")
    if one or not isinstance(documents, Iterable):
        raise InvalidInputError(f"The documents{of_query} must be a list, got one {type(documents).__name__}.")
    return (_document(value, f"Document {index}{of_query}", text_of) for index, value in enumerate(documents))


def _document(
    value: DocumentLike | RankedDocument, where: str, text_of: TextOf | None
) -> tuple[Document, str, float | None]:
    if isinstance(value, RankedDocument):
        document, score = value.document, value.score
    else:
        document = as_document(value, where, text_of=text_of)
        score = _retrieval_score(document)
    if text_of is None or (isinstance(value, Mapping) and "text" not in value):  # whose text has been rendered already
        return document, scorable(document.text), score
    try:
        return document, scorable(text_of(document)), score
    except InvalidDocumentError as error:
        raise InvalidDocumentError(f"{where}: {error}") from None


def _retrieval_score(document: Document) -> float | None:
    return as_number(document.metadata.get(RETRIEVAL_SCORE))


def as_number(value: object) -> float | None:
    """A finite number as a float, NumPy's too; ``None`` for all else."""
    if value is None or isinstance(value, (bool, str, bytes)) or not isinstance(value, SupportsFloat):
        return None  # most documents have none, and to ask whether it is a protocol's takes as long as all else
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # e.g. an array, or an integer that no float holds
        return None
    return number if math.isfinite(number) else None
