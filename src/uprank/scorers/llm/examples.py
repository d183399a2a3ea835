"""Questions with their answers, shown to a model before the real question."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from uprank.errors import ConfigurationError
from uprank.scorers.llm.templates import AnswerFormat, PromptKind

__all__ = ["Asked", "Example", "answer_of", "groups_of"]


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its answer, shown before the real one, in the same words.

    Args:
        query: The query.
        documents: Their texts.
        answer: Positions in ``documents``, from 0, the most relevant first: for prompts that order or choose.
        grades: The grade of each document, a whole number from 0, for prompts that grade; without ``answer``, its
            order is theirs. In answers, a grade above the scale is the highest.

    Raises:
        ConfigurationError: If neither is given, one does not fit the documents, or a grade is no whole number from 0.
    """

    query: str
    documents: tuple[str, ...]
    answer: tuple[int, ...] = ()
    grades: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.documents)
        if self.grades is not None and len(self.grades) != count:
            raise ConfigurationError(f"An example has {count} documents but {len(self.grades)} grades.")
        for grade in self.grades or ():
            if isinstance(grade, bool) or not isinstance(grade, int) or grade < 0:
                raise ConfigurationError(
                    f"A grade of an example is {grade!r}; it must be a whole number, 0 or above (0: not relevant)."
                )
        if self.answer and sorted(self.answer) != list(range(count)):
            raise ConfigurationError(
                f"answer={self.answer} of an example must hold each position from 0 to {count - 1} once."
            )
        if not self.order:
            raise ConfigurationError("An example needs documents, and an answer or grades.")

    @property
    def order(self) -> tuple[int, ...]:
        """Positions of the documents, the most relevant first."""
        if self.answer or self.grades is None:
            return self.answer
        grades = self.grades
        return tuple(sorted(range(len(grades)), key=lambda position: -grades[position]))


@dataclass(frozen=True, slots=True)
class Asked:
    """How a question is asked.

    Args:
        form: Of the answer.
        instruction: What the caller adds, as it is written; empty for nothing.
        count: How many to choose.
        top: The highest grade.
    """

    form: AnswerFormat
    instruction: str
    count: int
    top: int


def groups_of(example: Example, kind: PromptKind, shown: int) -> list[list[int]]:
    """The documents of an example that are shown together, as positions; none if it does not say what is asked.

    Args:
        example: With its answer or grades.
        kind: What is asked.
        shown: How many passages the real question shows.
    """
    if example.grades is None if kind == "score" else len(example.documents) < 2:
        return []
    everything = list(range(len(example.order)))
    if kind == "compare":
        return [sorted({example.order[0], example.order[-1]})]
    if kind == "score" and shown == 1:
        return [[position] for position in everything]
    return [everything]


def answer_of(example: Example, labels: Mapping[int, str], kind: PromptKind, asked: Asked, *, thinks: bool) -> str:
    """What the model should have said to an example.

    Args:
        example: With its answer or grades.
        labels: Of the documents shown, by position.
        kind: What is asked.
        asked: The form of the answer, how many to choose, and the highest grade.
        thinks: Whether the answer stands in tags, after thoughts.
    """
    if kind == "score":
        grades = example.grades or ()
        return _graded({labels[position]: min(grades[position], asked.top) for position in labels}, asked)
    best = [labels[position] for position in example.order if position in labels]
    if kind != "order":
        best = best[: asked.count]
    if asked.form in ("json", "tool"):
        return json.dumps({"ranking" if kind == "order" else "best": best})
    if asked.form == "logprobs":
        return best[0]
    chain = " > ".join(f"[{label}]" for label in best)
    return f"<answer>{chain}</answer>" if thinks else chain


def _graded(grades: Mapping[str, int], asked: Asked) -> str:
    if asked.form in ("json", "tool"):
        return json.dumps({"grades": [{"passage": label, "grade": grade} for label, grade in grades.items()]})
    if len(grades) > 1:
        return "\n".join(f"{label}: {grade}" for label, grade in grades.items())
    grade = next(iter(grades.values()))
    return str(grade) if asked.top > 1 else ("No", "Yes")[grade]
