"""What is kept of scores, as bytes: no pickle, nothing that could run when it is read.

A record is, little-endian: version (1 byte), kind (1), flags (1), number of texts ``n`` (4); ``n`` values
(8 each, so that a score comes back bit by bit as it was); if flagged, ``n`` reported scores (8 each, NaN where
there is none), and of each text whether it was cut (1 each: 0, 1, or 2 where that is not known); the warnings as JSON;
CRC-32 of all that (4).
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from uprank.scorers.base import ScoreKind, Scores
from uprank.scorers.evidence import Evidence

__all__ = ["Kept", "kept_of_documents", "kept_of_list", "pack", "unpack"]

_VERSION = 1
_KINDS: tuple[ScoreKind, ...] = ("probability", "logit", "cosine", "rank")
_NATIVE, _REPORTED, _TRUNCATED, _WARNINGS = 1, 2, 4, 8
_HEAD = struct.Struct("<BBBI")
_CHECK = struct.Struct("<I")
_CUT = (False, True, None)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one answer, or of one document of it.

    Args:
        values: As in :class:`~uprank.scorers.Scores`, which explains ``kind``, ``native`` and ``reported`` too.
        kind: What the values mean.
        native: How they are reported.
        reported: What is shown instead of them.
        truncated: Of each text, whether the model read only its beginning.
        warnings: Of the answer.
    """

    values: Sequence[float]
    kind: ScoreKind
    native: Literal["probability"] | None = None
    reported: Sequence[float | None] | None = None
    truncated: Sequence[bool | None] | None = None
    warnings: Sequence[str] = ()


def kept_of_list(scores: Scores) -> Kept | None:
    """What to keep of an answer as a whole; ``None`` where nothing may be kept of it.

    Args:
        scores: Checked.
    """
    # An answer by another model, or the best that could be had, is one for today: the next one may be better.
    if scores.degraded or scores.model is not None or scores.attempts:
        return None
    evidence = scores.evidence or ()
    if any(one != Evidence(truncated=one.truncated) for one in evidence):
        return None
    cut = [one.truncated for one in evidence] if any(one.truncated is not None for one in evidence) else None
    return Kept(scores.values, scores.kind, scores.native, scores.reported, cut, scores.warnings)


def kept_of_documents(scores: Scores) -> list[Kept] | None:
    """What to keep of each document of an answer; ``None`` where nothing may be kept of it.

    Where it is known which documents were cut, a warning can be written anew; else each document keeps those of
    the answer that it was part of.

    Args:
        scores: Checked.
    """
    whole = kept_of_list(scores)
    if whole is None or whole.reported is not None:  # which may depend on the other documents
        return None
    cut = whole.truncated or [None] * len(whole.values)
    warnings = whole.warnings if whole.truncated is None else ()
    return [
        Kept((value,), whole.kind, whole.native, None, None if one is None else (one,), warnings)
        for value, one in zip(whole.values, cut, strict=True)
    ]


def pack(kept: Kept) -> bytes:
    """Write a record."""
    count = len(kept.values)
    flags = _NATIVE if kept.native is not None else 0
    parts = [struct.pack(f"<{count}d", *kept.values)]
    if kept.reported is not None:
        flags |= _REPORTED
        parts.append(struct.pack(f"<{count}d", *(math.nan if one is None else one for one in kept.reported)))
    if kept.truncated is not None:
        flags |= _TRUNCATED
        parts.append(bytes(_CUT.index(one) for one in kept.truncated))
    if kept.warnings:
        flags |= _WARNINGS
        parts.append(json.dumps(list(kept.warnings)).encode())
    content = b"".join((_HEAD.pack(_VERSION, _KINDS.index(kept.kind), flags, count), *parts))
    return content + _CHECK.pack(zlib.crc32(content))


def unpack(record: bytes, count: int) -> Kept | None:
    """Read a record; ``None`` where it is damaged, of another version, or not of ``count`` texts."""
    try:
        content = record[: -_CHECK.size]
        if _CHECK.unpack(record[-_CHECK.size :])[0] != zlib.crc32(content):
            return None
        version, kind, flags, given = _HEAD.unpack_from(content)
        if version != _VERSION or given != count:
            return None
        start = _HEAD.size
        values = struct.unpack_from(f"<{count}d", content, start)
        start += 8 * count
        reported: list[float | None] | None = None
        if flags & _REPORTED:
            reported = [None if math.isnan(one) else one for one in struct.unpack_from(f"<{count}d", content, start)]
            start += 8 * count
        truncated: list[bool | None] | None = None
        if flags & _TRUNCATED:
            truncated = [_CUT[one] for one in content[start : start + count]]
            start += count
        warnings = tuple(json.loads(content[start:])) if flags & _WARNINGS else ()
        return Kept(values, _KINDS[kind], "probability" if flags & _NATIVE else None, reported, truncated, warnings)
    except (struct.error, ValueError, IndexError, TypeError):  # e.g. cut short, or of a cache that gives no bytes
        return None
