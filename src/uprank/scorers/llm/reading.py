"""From a model's answer to the answer to a question; what could not be read is said, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from uprank.scorers.llm.answer_text import answer_part, refuses
from uprank.scorers.llm.answers import parse_ranking
from uprank.scorers.llm.chat import Completion
from uprank.scorers.llm.choices import parse_choice
from uprank.scorers.llm.grades import parse_grades, parse_yes_no
from uprank.scorers.llm.logprobs import expected_grade, label_probabilities, yes_probability
from uprank.scorers.llm.questions import Answer, Compare, Question, Score, Select, ids_of
from uprank.scorers.llm.rendering import Rendered

__all__ = ["Reading", "read"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says.

    Args:
        answer: To the question; candidates that it leaves out are left out here.
        missing: The candidates left out, in the order in which they were shown.
        repairs: What was put right, in words.
        problem: Why there is no answer, in words; ``None`` if there is one.
    """

    answer: Answer
    missing: tuple[int, ...] = ()
    repairs: tuple[str, ...] = ()
    problem: str | None = None


def read(question: Question, rendered: Rendered, completion: Completion) -> Reading:
    """Read an answer.

    Args:
        question: What was asked.
        rendered: How.
        completion: What was answered.
    """
    if isinstance(question, Score):
        return _scores(question, rendered, completion)
    ids = ids_of(question)
    given = _by_first_token(ids, rendered, completion)
    if isinstance(question, (Compare, Select)):
        return _choice(question, rendered, completion, given)
    if given is not None:
        missing = tuple(one for one in ids if one not in given)
        return Reading(given, missing)
    parsed = parse_ranking(completion.text, len(ids), None if rendered.numeric else rendered.labels)
    order = tuple(ids[position] for position in parsed.order)
    return Reading(order, tuple(ids[position] for position in parsed.missing), parsed.repaired, parsed.failure)


def _by_first_token(ids: Sequence[int], rendered: Rendered, completion: Completion) -> tuple[int, ...] | None:
    """The candidates by the probability of their labels, those whose label is likely at all."""
    if rendered.form != "logprobs":
        return None
    found = label_probabilities(completion.logprobs, rendered.labels)
    if found is None:
        return None
    known = [(probability, one) for probability, one in zip(found, ids, strict=True) if probability is not None]
    return tuple(one for _, one in sorted(known, key=lambda pair: -pair[0]))


def _choice(
    question: Compare | Select, rendered: Rendered, completion: Completion, given: tuple[int, ...] | None
) -> Reading:
    count = question.count if isinstance(question, Select) else 1
    ids = ids_of(question)
    repairs: tuple[str, ...] = ()
    if given is None:
        chosen = parse_choice(completion.text, rendered.labels, count)
        if chosen is None:
            return Reading(0.5 if isinstance(question, Compare) else (), problem=_problem(completion, "no choice"))
        given = tuple(ids[position] for position in chosen)
    if isinstance(question, Compare):
        return Reading(float(given[0] == question.first))
    chosen_ids = given[:count]
    if len(chosen_ids) < count:
        rest = [one for one in ids if one not in chosen_ids]
        chosen_ids = (*chosen_ids, *rest[: count - len(chosen_ids)])
        repairs = ("too few were chosen",)
    return Reading(chosen_ids, repairs=repairs)


def _probability(rendered: Rendered, completion: Completion) -> float | None:
    """How relevant one document is, by the first token's alternatives."""
    if rendered.words is not None and rendered.words != ("yes", "no"):
        said = label_probabilities(completion.logprobs, rendered.words)
        return None if said is None else said[0] or 0.0
    if rendered.words is None and rendered.top > 1:
        return expected_grade(completion.logprobs, rendered.top)
    return yes_probability(completion.logprobs)


def _scores(question: Score, rendered: Rendered, completion: Completion) -> Reading:
    ids, top = question.ids, rendered.top
    scores: tuple[float | None, ...]
    one = None
    if len(ids) == 1 and rendered.form == "logprobs":
        one = _probability(rendered, completion)
    if one is not None:
        scores = (one,)
    else:
        scores = parse_grades(completion.text, rendered.labels, top)
        if scores == (None,) and top == 1:
            said = parse_yes_no(completion.text)
            scores = (None if said is None else float(said),)
    missing = tuple(one for one, score in zip(ids, scores, strict=True) if score is None)
    return Reading(scores, missing, problem=_problem(completion, "no grade") if len(missing) == len(ids) else None)


def _problem(completion: Completion, otherwise: str) -> str:
    """Why an answer without anything usable has none."""
    answer, _ = answer_part(completion.text)
    return "refusal" if refuses(answer) else otherwise
