"""The shape and the length of the answers that prompts ask for."""

from __future__ import annotations

from collections.abc import Mapping

from uprank.scorers.llm.chat import Schema
from uprank.scorers.llm.templates import AnswerFormat, PromptKind

__all__ = ["max_tokens_for", "schema_for"]


def schema_for(kind: PromptKind, form: AnswerFormat, count: int = 1, top: int = 1) -> Schema:
    """The shape of an answer in JSON: of a reply, or of the arguments of a call.

    Only what all providers take: nothing says how long a list must be or that its items differ. Nor does it name the
    labels, which are new in every call: a service that compiles each schema it has not seen would do so for each call,
    in up to ten seconds (https://platform.openai.com/docs/guides/structured-outputs). Labels are checked when read.

    Args:
        kind: What is asked.
        form: ``"json"`` or ``"tool"``.
        count: How many to choose.
        top: The highest grade.

    Raises:
        ValueError: For other forms, which have no schema.
    """
    if form not in ("json", "tool"):
        raise ValueError(f"an answer in the form {form!r} has no schema")
    label = {"type": "string"}
    if kind == "score":
        entry = _object({"passage": label, "grade": {"type": "integer", "enum": list(range(top + 1))}})
        shape = _object({"grades": {"type": "array", "items": entry}})
        return Schema("grade_passages", f"Grades of all passages, from 0 to {top}, each passage once.", shape)
    if kind == "order":
        shape = _object({"ranking": {"type": "array", "items": label}})
        return Schema("rank_passages", "Labels of all passages, the most relevant first, each once.", shape)
    number = "one label" if count == 1 else f"{count} labels"
    shape = _object({"best": {"type": "array", "items": label}})
    return Schema("choose_passages", f"The most relevant passages: {number}, the most relevant first.", shape)


def _object(properties: Mapping[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


_LEAST = 16  # some services refuse a lower limit


def max_tokens_for(kind: PromptKind, form: AnswerFormat, passages: int) -> int:
    """Tokens that an answer can need, with room for spaces and line breaks; thoughts are not counted.

    Args:
        kind: What is asked.
        form: Of the answer.
        passages: How many are shown.
    """
    if form == "logprobs":
        return _LEAST
    if kind == "score":
        if form == "text":
            return _LEAST if passages == 1 else 8 * passages + 32
        return 28 * passages + 64
    return 6 * passages + 32 if form == "text" else 12 * passages + 64
