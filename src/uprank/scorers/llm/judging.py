"""One question until it has an answer: repairs, another try, shorter documents, fewer of them.

The ladder, each rung tried once: an answer that leaves a few candidates out is completed by asking
for those alone, next to four that it placed; one that cannot be read is asked for again; a prompt
that is too long is shortened, then split; where the model refuses, the documents that it refuses are found by
halving. What still fails keeps the order in which it was shown, and is said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from uprank.errors import (
    AuthenticationError,
    BadReplyError,
    BillingError,
    ContentRefusedError,
    DeadlineExceededError,
    RequestRefusedError,
    RequestTooLargeError,
    ServiceError,
)
from uprank.scorers.llm.asking import Asker, BudgetReached, FormDropped, Steps, ask
from uprank.scorers.llm.budget import Spending
from uprank.scorers.llm.chat import Completion
from uprank.scorers.llm.questions import Answer, Compare, Order, Question, Score, Select, ids_of
from uprank.scorers.llm.reading import Reading, read
from uprank.scorers.llm.rendering import Rendered, Renderer

__all__ = ["Judge", "Judged"]

FATAL = (AuthenticationError, BillingError, RequestRefusedError)
"""What no other call would escape: raised at once."""

_ANCHORS = 4
_MANY_MISSING = 0.2  # of a window: an answer that leaves out more has stopped early; its rest is the tail
_SHRINKS = 3
_REMINDER = "Your last answer could not be read. Answer in exactly the form asked for, and with nothing else."
_STATED = re.compile(r"(\d[\d,]{2,})")


@dataclass(slots=True)
class Judged:
    """What came of one question.

    Args:
        answer: To the question, always whole.
        error: Why (a part of) it is not the model's; ``None`` if all of it is.
        repairs: What was put right, and how often.
        cut: Candidates whose text was cut.
        refused: Candidates that the model would not look at.
    """

    answer: Answer
    error: ServiceError | BudgetReached | None = None
    repairs: Counter[str] = field(default_factory=Counter)
    cut: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)


class Judge:
    """Asks a model the questions of one query.

    Args:
        asker: Who is asked.
        renderer: How.
        spending: What it may use.
    """

    def __init__(self, asker: Asker, renderer: Renderer, spending: Spending) -> None:
        self._asker, self._renderer, self._spending = asker, renderer, spending

    def expected(self, question: Question) -> tuple[int, int]:
        """Tokens that a question is likely to make the model read and write."""
        return self._renderer.expected(question)

    def answer(self, question: Question) -> Steps[Judged]:
        """Answer a question.

        Raises:
            ServiceError: If no other question would fare better, e.g. for a wrong key.
        """
        judged = Judged(_unanswered(question))
        try:
            yield from self._asked(question, judged)
        except BudgetReached as reached:
            judged.error = judged.error or reached
        except ServiceError as error:
            if isinstance(error, FATAL):
                raise
            late = isinstance(error, DeadlineExceededError) and self._spending.late()
            judged.error = judged.error or (BudgetReached() if late else error)
        finally:
            self._spending.clock.pause()
        return judged

    def _asked(self, question: Question, judged: Judged) -> Steps[None]:
        try:
            reading = yield from self._read(question, judged)
        except ContentRefusedError:
            if len(ids_of(question)) == 1 or isinstance(question, Compare):
                judged.refused.update(ids_of(question))
                raise
            yield from self._without_refused(question, judged)
            return
        except RequestTooLargeError:
            if len(ids_of(question)) < 4 or not isinstance(question, (Order, Score)):
                raise
            yield from self._split(question, judged)
            return
        judged.repairs.update(reading.repairs)
        judged.answer = reading.answer
        if not reading.missing:
            return
        if isinstance(question, Score):
            yield from self._score_missing(question, reading, judged)
        elif isinstance(question, Order):
            yield from self._order_missing(reading, judged)

    def _read(self, question: Question, judged: Judged) -> Steps[Reading]:
        """Ask, and once more if the answer cannot be read."""
        reminder, shrink = "", 1.0
        for last in (False, True):
            rendered, completion, shrink = yield from self._completed(question, judged, reminder, shrink)
            judged.cut |= rendered.cut
            if completion.finish in ("filter", "refusal"):
                raise self._problem(ContentRefusedError, f"the model refused to answer ({completion.finish})")
            reading = read(question, rendered, completion)
            if reading.problem == "refusal" and last:
                raise self._problem(ContentRefusedError, "the model refused to answer")
            if reading.problem is None:
                if completion.finish == "length" and reading.missing and isinstance(question, Order):
                    judged.repairs["cut off, the rest appended"] += 1
                    return replace(reading, answer=_appended(reading), missing=())
                return reading
            judged.repairs["asked again"] += not last
            reminder = _REMINDER
        raise self._problem(BadReplyError, f"the answer holds no usable reply ({reading.problem})")

    def _completed(
        self, question: Question, judged: Judged, reminder: str, shrink: float
    ) -> Steps[tuple[Rendered, Completion, float]]:
        """Ask in whatever form the model takes, with documents as short as they must be."""
        shrinks = 0
        while True:
            rendered = self._renderer.render(question, reminder=reminder, shrink=shrink)
            size = len(ids_of(question))
            try:
                completion = yield from ask(self._asker, rendered.request, self._spending, rendered.expected, size)
            except FormDropped:
                continue
            except RequestTooLargeError as error:
                shrinks += 1
                if shrinks > _SHRINKS:
                    raise
                shrink *= _shrinkage(error, rendered.expected[0])
                judged.repairs["documents shortened, the prompt was too long"] += 1
                continue
            return rendered, completion, shrink

    def _order_missing(self, reading: Reading, judged: Judged) -> Steps[None]:
        """Place those that an answer left out: ask for them next to four that it placed, or append them."""
        given, missing = cast("tuple[int, ...]", reading.answer), reading.missing
        judged.answer = _appended(reading)
        if len(missing) > _MANY_MISSING * (len(given) + len(missing)) or len(given) < 2:
            judged.repairs["missing ids appended"] += len(missing)
            return
        count = min(_ANCHORS, len(given))
        anchors = [given[(2 * number + 1) * len(given) // (2 * count)] for number in range(count)]
        shown = tuple(sorted((*anchors, *missing)))
        try:
            again = yield from self._read(Order(shown), judged)
        except (BudgetReached, ServiceError) as error:
            if isinstance(error, FATAL):
                raise
            judged.repairs["missing ids appended"] += len(missing)
            return
        judged.answer = _placed(given, missing, cast("tuple[int, ...]", again.answer))
        judged.repairs["missing ids asked for again"] += len(missing)

    def _score_missing(self, question: Score, reading: Reading, judged: Judged) -> Steps[None]:
        """Ask once more for the grades that an answer lacks. Those that it still lacks have none."""
        found = dict(zip(question.ids, cast("tuple[float | None, ...]", reading.answer), strict=True))
        error: ServiceError | BudgetReached
        try:
            again = yield from self._read(Score(reading.missing), judged)
        except (BudgetReached, ServiceError) as problem:
            if isinstance(problem, FATAL):
                raise
            error = problem
        else:
            found.update(zip(reading.missing, cast("tuple[float | None, ...]", again.answer), strict=True))
            judged.repairs["missing grades asked for again"] += len(reading.missing)
            error = self._problem(BadReplyError, "the answer leaves documents without a grade")
        judged.answer = tuple(found[one] for one in question.ids)
        if None in found.values():
            judged.error = error

    def _without_refused(self, question: Question, judged: Judged) -> Steps[None]:
        """Find the documents that the model refuses to look at, by halving; answer without them."""
        ids = ids_of(question)
        suspects = [ids]
        while suspects:
            group = suspects.pop()
            if len(group) == 1:
                judged.refused.update(group)
                continue
            half = len(group) // 2
            for part in (group[:half], group[half:]):
                try:
                    yield from self._read(Score(part) if isinstance(question, Score) else Order(part), judged)
                except ContentRefusedError:
                    suspects.append(part)
        # What only the halves together made it refuse is nobody's fault alone.
        rest = tuple(one for one in ids if one not in judged.refused)
        judged.error = self._problem(ContentRefusedError, "the model refused to look at some of the documents")
        if not judged.refused or len(rest) < 2:
            return
        if isinstance(question, Select):
            if len(rest) <= question.count:
                judged.answer = (*rest, *sorted(judged.refused))[: question.count]
                return
            reading = yield from self._read(Select(rest, question.count), judged)
            judged.answer = reading.answer
        elif isinstance(question, Score):
            reading = yield from self._read(Score(rest), judged)
            found = dict(zip(rest, cast("tuple[float | None, ...]", reading.answer), strict=True))
            judged.answer = tuple(found.get(one) for one in ids)
        else:
            reading = yield from self._read(Order(rest), judged)
            judged.answer = _in_their_places(ids, _appended(reading), judged.refused)

    def _split(self, question: Order | Score, judged: Judged) -> Steps[None]:
        """Ask in parts what is too long for one prompt: three windows from the back, so that the best come through."""
        ids = question.ids
        half = (len(ids) + 1) // 2
        judged.repairs["split, the prompt was too long"] += 1
        if isinstance(question, Score):
            scores: list[float | None] = []
            for part in (ids[:half], ids[half:]):
                reading = yield from self._read(Score(part), judged)
                scores += cast("tuple[float | None, ...]", reading.answer)
            judged.answer = tuple(scores)
            return
        order = list(ids)
        for start in (len(ids) - half, (len(ids) - half) // 2, 0):
            part = tuple(order[start : start + half])
            reading = yield from self._read(Order(part), judged)
            order[start : start + half] = _appended(reading)
            judged.answer = tuple(order)

    def _problem(self, kind: type[ServiceError], what: str) -> ServiceError:
        model = self._asker.model
        return kind(f"{model.name} ({model.address}): {what}.", provider=model.provider, model=model.name)


def _unanswered(question: Question) -> Answer:
    """What stands where there is no answer: the order as shown, no preference, no score."""
    if isinstance(question, Score):
        return (None,) * len(question.ids)
    if isinstance(question, Select):
        return question.ids[: question.count]
    return question.ids if isinstance(question, Order) else 0.5


def _appended(reading: Reading) -> tuple[int, ...]:
    return (*cast("tuple[int, ...]", reading.answer), *reading.missing)


def _placed(given: Sequence[int], missing: Sequence[int], around: Sequence[int]) -> tuple[int, ...]:
    """Put each missing one midway between its neighbours among those that were placed."""
    place = {one: float(number) for number, one in enumerate(given)}
    placed: dict[int, float] = {}
    for number, one in enumerate(around):
        if one not in missing:
            continue
        before = next((place[other] for other in reversed(around[:number]) if other in place), -1.0)
        after = next((place[other] for other in around[number:] if other in place), float(len(given)))
        placed[one] = (before + after) / 2
    rank = {one: number for number, one in enumerate(around)}
    everything = {**place, **{one: placed.get(one, float(len(given))) for one in missing}}
    return tuple(sorted(everything, key=lambda one: (everything[one], one in place, rank.get(one, len(rank)))))


def _in_their_places(ids: Sequence[int], order: Sequence[int], refused: set[int]) -> tuple[int, ...]:
    """An order of some of the candidates, with the others where they were shown."""
    ordered = iter(order)
    return tuple(one if one in refused else next(ordered) for one in ids)


def _shrinkage(error: RequestTooLargeError, sent: int) -> float:
    """By which share to shorten: as the error's numbers say, else by half."""
    numbers = sorted(int(found.replace(",", "")) for found in _STATED.findall(error.allowed or ""))
    if len(numbers) >= 2 and 0 < numbers[0] < numbers[-1]:
        return max(0.25, 0.9 * numbers[0] / numbers[-1])
    if len(numbers) == 1 and numbers[0] < sent:
        return max(0.25, 0.9 * numbers[0] / sent)
    return 0.5
