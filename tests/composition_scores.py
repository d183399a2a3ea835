"""What a composition may show for a document, known from what it is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from composition_parts import Leaf, Node, Spec, curve, leaves_of, native, parts_of, probability, raw


@dataclass(frozen=True)
class Span:
    """From the least to the greatest that a score may be; mostly one number."""

    low: float
    high: float

    def holds(self, score: float) -> bool:
        return self.low - 1e-9 <= score <= self.high + 1e-9


@dataclass(frozen=True)
class Asked:
    """One document of one query, as its score is judged.

    Args:
        query: What was asked.
        text: What was scored.
        count: How many texts there were.
        passage: The part that the score is said to be of.
    """

    query: str
    text: str
    count: int
    passage: str | None = None


def spans(spec: Spec, asked: Asked, *, likely: bool) -> list[Span]:
    """What may be shown for a text: as the model declares it, or as a probability."""
    if isinstance(spec, Leaf):
        shown = (probability if likely else native)(spec, asked.query, asked.text)
        return [] if shown is None else [Span(shown, shown)]
    inside = [span for member in spec.members for span in spans(member, asked, likely=likely)]
    if spec.part == "Passages":
        return _of_passages(spec, asked, likely=likely)
    if spec.part == "Calibrated":
        return _calibrated(spec, asked) if likely else inside
    if spec.part == "Cascade":
        return _of_cascade(spec, asked, likely=likely)
    if spec.part == "Fusion":
        return _of_fusion(spec, asked, likely=likely)
    return inside


def _of_passages(spec: Node, asked: Asked, *, likely: bool) -> list[Span]:
    (inner,) = spec.members
    if asked.passage is None:  # inside of something that does not tell: any window may have won
        return [Span(0.0, 1.0) if likely else Span(-10.0, 10.0)]
    found = spans(inner, replace(asked, text=asked.passage), likely=likely)
    (leaf,) = leaves_of(inner)
    lowered = spec.options["how"] == "mean_top" or leaf.kind == "graded"  # the mean of this and worse ones
    return [Span(-10.0, span.high) for span in found] if lowered else found


def _calibrated(spec: Node, asked: Asked) -> list[Span]:
    (leaf,) = leaves_of(spec)
    text = asked.passage if "Passages" in parts_of(spec) else asked.text
    if text is None:
        return [Span(0.0, 1.0)]
    value, grade = raw(leaf, asked.query, text)
    if leaf.kind == "graded":
        if grade is None:
            return []
        value = grade
    low = 0.0 if "Passages" in parts_of(spec) else curve(value)
    return [Span(low, curve(value))]


def _of_cascade(spec: Node, asked: Asked, *, likely: bool) -> list[Span]:
    if spec.options["scores"] == "rank":
        return [] if likely else [Span(float(place), float(place)) for place in range(1, asked.count + 1)]
    # Never more than a stage said; less, where one placed higher has less.
    return [Span(0.0, span.high) for member in spec.members for span in spans(member, asked, likely=True)]


def _of_fusion(spec: Node, asked: Asked, *, likely: bool) -> list[Span]:
    weights = [*spec.options.get("weights", [1.0] * len(spec.members)), spec.options["retrieval_weight"]]
    ranks = [] if likely else [Span(0.0, math.fsum(weights) / 61)]
    if spec.options["method"] == "rrf":
        return ranks
    found = [span for member in spec.members for span in spans(member, replace(asked, passage=None), likely=True)]
    if spec.options["retrieval_weight"]:
        return [] if likely else [Span(0.0, 1.0), *ranks]
    if any("Passages" in parts_of(member) for member in spec.members):
        return [Span(0.0, 1.0), *ranks]
    if not found:
        return ranks
    # A mean lies among what it is made of. A text without a score counts as the worst, and shows none.
    return [Span(min(span.low for span in found), max(span.high for span in found)), *ranks]
