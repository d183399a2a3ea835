"""One tolerant reader for every service's results.

The list of results may be the whole body or lie under any of four keys, a score under any of four,
and a document is never taken from the reply. What is not tolerated: a missing, repeated, foreign or
non-numeric index, and a score that is no finite number.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard, get_args

from uprank.scorers.base import ScoreKind
from uprank.scorers.http.messages import Unreadable

__all__ = ["SCORE_KIND_HEADER", "Results", "read_results", "stated_kind"]

SCORE_KIND_HEADER = "x-uprank-score-kind"
"""The header by which a server of this package tells what the scores of a reply mean."""

_LISTS = ("results", "data", "rankings", "scores")
_SCORES = ("relevance_score", "score", "logit", "relevanceScore")
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Results:
    """What one reply says.

    Args:
        values: One score per document, in the order in which they were sent.
        tokens: As the service counts them; ``None`` where it does not say.
        search_units: Likewise.
        warnings: The service's own.
        kind: What the scores mean.
    """

    values: tuple[float, ...]
    tokens: int | None = None
    search_units: float | None = None
    warnings: tuple[str, ...] = ()
    kind: ScoreKind | None = None


def stated_kind(headers: Mapping[str, str]) -> ScoreKind | None:
    """What a reply says its scores mean; ``None`` where it does not, or has another word for it.

    Args:
        headers: With names in lower case.
    """
    stated = headers.get(SCORE_KIND_HEADER, "").strip()
    return next((kind for kind in get_args(ScoreKind) if kind == stated), None)


def read_results(data: object, count: int, kind: ScoreKind) -> Results:
    """Read the body of a successful reply.

    Args:
        data: The decoded body.
        count: How many documents were sent.
        kind: What the scores mean.

    Raises:
        ValueError: With what is wrong, if it is not one finite score for each document.
    """
    values: list[float | None] = [None] * count
    for item in _items(data):
        index = _index(item, count)
        if values[index] is not None:
            raise ValueError(f"document {index} is scored twice")
        values[index] = _score(item, index, kind)
    scored = [value for value in values if value is not None]
    if len(scored) < count:
        raise ValueError(f"{count - len(scored)} of {count} documents have no score, the first is {values.index(None)}")
    tokens, search_units = _usage(data)
    return Results(tuple(scored), tokens, search_units, _warnings(data), kind)


def _items(data: object) -> Sequence[object]:
    if isinstance(data, Unreadable):
        raise ValueError(f"the body is no JSON: {data.text[:200]!r}" if data.text else "the body is empty")
    if isinstance(data, Mapping):
        found = next((data[key] for key in _LISTS if key in data), None)
        if found is None:
            raise ValueError(f"there is no list of results; the keys are {', '.join(map(_shown, list(data)[:8]))}")
        data = found
    if not isinstance(data, list):
        raise ValueError(f"the results are no list but {type(data).__name__}")
    return data


def _index(item: object, count: int) -> int:
    if not isinstance(item, dict):  # not Mapping, which takes ten times as long to check
        raise ValueError(f"a result is no object but {type(item).__name__}")
    index = item.get("index")
    if "index" not in item and isinstance(item.get("item_id"), str) and item["item_id"].isdecimal():
        index = int(item["item_id"])  # the id that was sent with the document
    if not isinstance(index, int) or isinstance(index, bool):
        raise ValueError(f"a result has the index {_shown(index)}, which is no integer")
    if not 0 <= index < count:
        raise ValueError(f"a result has the index {_shown(index)}, but {count} documents were sent")
    return index


def _score(item: object, index: int, kind: ScoreKind) -> float:
    fields = item if isinstance(item, dict) else {}
    score = fields.get(next(filter(fields.__contains__, _SCORES), ""))
    if not _finite(score):
        raise ValueError(f"document {index} has the score {_shown(score)}, which is no finite number")
    if kind == "probability" and not -_ROUNDING <= score <= 1 + _ROUNDING:
        raise ValueError(
            f"document {index} has the score {score}, which is no probability; if this model gives other scores, "
            'say what they mean by score_kind= ("logit", "cosine" or "rank")'
        )
    return float(score)


def _usage(data: object) -> tuple[int | None, float | None]:
    usage = _mapping(data, "usage")
    meta = _mapping(data, "meta")
    billed, counted = _mapping(meta, "billed_units"), _mapping(meta, "tokens")
    tokens = _number(usage, "total_tokens", "prompt_tokens")
    if tokens is None:
        tokens = _number(counted, "input_tokens")
    if tokens is None:
        tokens = _number(billed, "total_tokens", "input_tokens")
    units = _number(usage, "search_units", "rerank_units")
    if units is None:
        units = _number(billed, "search_units")
    return None if tokens is None else int(tokens), units


def _warnings(data: object) -> tuple[str, ...]:
    """Warnings may say, e.g., that a document was cut."""
    found = _mapping(data, "meta").get("warnings") or (data.get("warnings") if isinstance(data, Mapping) else None)
    return tuple(item for item in found if isinstance(item, str)) if isinstance(found, list) else ()


def _mapping(data: object, key: str) -> Mapping[str, object]:
    found = data.get(key) if isinstance(data, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _number(data: Mapping[str, object], *keys: str) -> float | None:
    for key in keys:
        value = data.get(key)
        if _finite(value) and value >= 0:
            return value
    return None


def _finite(value: object) -> TypeGuard[int | float]:
    """Whether it is a number that a float can hold; JSON's integers may have hundreds of digits."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # false for NaN too


def _shown(value: object) -> str:
    """A value for a message: cut, and of what is nested only its type."""
    return type(value).__name__ if isinstance(value, (list, dict)) else repr(value)[:60]
