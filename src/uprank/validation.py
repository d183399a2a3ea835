"""What callers give and what scorers answer, checked once, at the edge of the pipeline."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, Sized
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import SupportsFloat, get_args

from uprank.documents import Document, DocumentLike, as_document, scorable
from uprank.errors import InvalidInputError, InvalidScoresError
from uprank.ranking import RankedDocument
from uprank.scorers.base import ScoreKind, ScoreRequest, Scores

__all__ = ["Job", "check_scores", "make_jobs", "texts_of", "valid_threshold", "valid_top_n"]


_ROUNDING = 1e-6  # half and single precision may step out of [0, 1] by this much


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


def check_scores(scores: Scores, expected: int, model: str) -> Scores:
    """Return the scores as plain floats, one finite number a text, or say what is wrong with them."""
    if not isinstance(scores, Scores):
        raise InvalidScoresError(f"{model} must answer with Scores, got {type(scores).__name__}.")
    if scores.kind not in get_args(ScoreKind) or scores.native not in (None, "probability"):
        raise InvalidScoresError(f"{model} gave scores of kind {scores.kind!r}, native {scores.native!r}.")
    if scores.native is not None and scores.kind not in ("logit", "probability"):
        raise InvalidScoresError(f"{model} gave {scores.kind!r} scores, which no sigmoid makes probabilities.")
    if (
        isinstance(scores.values, (str, bytes, Mapping, Set))
        or not isinstance(scores.values, Iterable)
        or getattr(scores.values, "ndim", 1) == 0
    ):
        raise InvalidScoresError(f"{model} must give a list of numbers, got {type(scores.values).__name__}.")
    values = [_number(value, position, model) for position, value in enumerate(scores.values)]
    if len(values) != expected:
        raise InvalidScoresError(f"{model} gave {len(values)} scores for {expected} texts.")
    if scores.kind == "probability":
        for position, value in enumerate(values):
            if not -_ROUNDING <= value <= 1.0 + _ROUNDING:
                raise InvalidScoresError(f"{model} gave {value} for text {position}; a probability lies in [0, 1].")
    return replace(scores, values=values, reported=_check_reported(scores.reported, values, model))


def _check_reported(
    reported: Sequence[float | None] | None, values: Sequence[float], model: str
) -> Sequence[float | None] | None:
    if reported is None:
        return None
    if len(reported) != len(values):
        raise InvalidScoresError(f"{model} reported {len(reported)} scores for {len(values)} texts.")
    known = [(value, score) for value, score in zip(values, reported, strict=True) if score is not None]
    for _, score in known:
        if not 0.0 <= score <= 1.0:  # also refuses NaN
            raise InvalidScoresError(f"{model} reported {score}; a probability lies in [0, 1].")
    for (low, before), (high, after) in pairwise(sorted(known)):
        if after < before and high > low:
            raise InvalidScoresError(f"{model} reported {before} for a text that it placed below one with {after}.")
    return reported


def _number(value: SupportsFloat, position: int, model: str) -> float:
    try:
        if isinstance(value, (str, bytes)) or getattr(value, "ndim", 0) > 0:
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidScoresError(f"{model} gave {value!r} for text {position}; a score must be a number.") from None
    if not math.isfinite(number):
        raise InvalidScoresError(f"{model} gave the score {number} for text {position}; scores must be finite.")
    return number


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
