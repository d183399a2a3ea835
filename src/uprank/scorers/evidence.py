"""What is known of a score beyond its number: who gave it, on which part of the document."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Attempt", "Evidence", "Passage"]


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a text, as it was scored by itself.

    Args:
        start: Where it begins, in characters of the text that was scored.
        end: Where it ends; the character at ``end`` is no longer part of it.
        text: What stands there.
    """

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one text's score rests on.

    Args:
        model: Which model gave the score, where several share a ranking.
        stage: Which stage of a cascade gave it, the first being 0; ``None`` outside a cascade.
        passage: The part of the text that the score is of, where long documents are scored by parts.
        truncated: Whether the model read only the beginning of the text; ``None`` where that is not known.
    """

    model: str | None = None
    stage: int | None = None
    passage: Passage | None = None
    truncated: bool | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A model that was to answer and did not.

    Args:
        model: Its name.
        error: Why it did not, in words.
        kind: The error's class, e.g. ``"RateLimitError"``; ``"CircuitOpen"`` where it was not asked at all.
        seconds: How long it took to find out.
    """

    model: str
    error: str
    kind: str
    seconds: float
