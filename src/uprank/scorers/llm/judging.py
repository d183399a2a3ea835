"""One question until it has an answer: repairs, another try, shorter documents, fewer of them.

The ladder, each rung tried once: an answer that leaves a few candidates out is completed by asking
for those alone, next to four that it placed; one that cannot be read is asked for again; a prompt
that is too long is shortened, then split; where the model refuses, the documents that it refuses are found by
halving. What still fails keeps the order in which it was shown, and is said.
"""

from __future__ import annotations

import math
import re
from collections import Counter
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
from uprank.scorers.llm.chat import Completion, Feature
from uprank.scorers.llm.placing import in_their_places, placed
from uprank.scorers.llm.questions import Answer, Compare, Order, Prefer, Question, Score, Select, ids_of
from uprank.scorers.llm.reading import Reading, read
from uprank.scorers.llm.rendering import NoRoom, Rendered, Renderer
from uprank.secrets import redact

__all__ = ["Judge", "Judged", "unanswered"]

_PATIENCE = 20  # requests without a single answer, after which more of them would be a waste
_PATIENCE_REFUSED = 2  # questions that were refused, likewise
_ANCHORS = 4
_MANY_MISSING = 0.2  # of a window: an answer that leaves out more has stopped early; its rest is the tail
_MOST_SHORTENED = 2
_LEAST_TO_SPLIT = 4  # documents
_SMALLER = "Lower window, shorten the query, or give the model's true context_window"
_PARTS = 4  # if it refuses all of so many parts, it is not about some of the documents
_REMINDER = "Your last answer could not be read. Answer in exactly the form asked for, and with nothing else."
_SHOWN = 200  # characters of an answer in an error
_STATED = re.compile(r"(\d[\d,]{2,})")


@dataclass(slots=True)
class Judged:
    """What came of one question.

    Args:
        answer: To the question, always whole; ``None`` to an :class:`Order` that has none.
        error: Why (a part of) it is not the model's; ``None`` if all of it is.
        partial: Whether a part of it is, in spite of the error.
        repairs: What was put right, and how often.
        cut: Candidates whose text was cut.
        refused: Candidates that the model would not look at.
    """

    answer: Answer
    error: ServiceError | BudgetReached | None = None
    partial: bool = False
    repairs: Counter[str] = field(default_factory=Counter)
    cut: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)

    def take(self, part: Judged) -> None:
        """Add what came of a part of the question."""
        self.error = self.error or part.error
        self.partial |= part.partial
        self.repairs += part.repairs
        self.cut |= part.cut
        self.refused |= part.refused


class Judge:
    """Asks a model the questions of one query.

    Args:
        asker: Who is asked.
        renderer: How.
        spending: What it may use.
        strict: Whether a question that fails is raised rather than told.
    """

    def __init__(self, asker: Asker, renderer: Renderer, spending: Spending, *, strict: bool = False) -> None:
        self._asker, self._renderer, self._spending, self._strict = asker, renderer, spending, strict
        self._refused: set[int] = set()  # documents that no further question needs to show

    def expected(self, question: Question) -> tuple[int, int]:
        """Tokens that a question is likely to make the model read and write."""
        return self._renderer.expected(question)

    def check(self, question: Question) -> None:
        """See before the first call whether a question can be asked at all.

        Raises:
            RequestTooLargeError: If the query and the rules leave no room for its documents.
        """
        self._rendered(question, math.inf, "")

    def answer(self, question: Question) -> Steps[Judged]:
        """Answer a question.

        Raises:
            ServiceError: If no other question would fare better, e.g. for a wrong key, or where nothing that was
                asked so far has been answered; and where none may fail.
        """
        try:
            return (yield from self._judged(question))
        finally:
            self._spending.clock.pause()

    def _judged(self, question: Question) -> Steps[Judged]:
        judged = Judged(unanswered(question))
        try:
            yield from self._ask(question, judged)
        except BudgetReached as reached:
            judged.error = judged.error or reached
        except ServiceError as error:
            late = isinstance(error, DeadlineExceededError) and self._spending.late()
            judged.error = judged.error or (BudgetReached() if late else error)
        self._spending.note(answered=judged.partial or judged.error is None)
        if isinstance(judged.error, ServiceError) and (self._strict or self._is_fatal(judged.error, question)):
            raise judged.error
        return judged

    def _is_fatal(self, error: ServiceError, question: Question) -> bool:
        """Whether no other question would fare better."""
        if isinstance(error, (AuthenticationError, BillingError)) or error.status == 404:
            return True
        if self._spending.answered:
            return False
        about_one = len(ids_of(question)) == 1  # another document may do
        refused = isinstance(error, (RequestRefusedError, ContentRefusedError)) and not about_one
        patience = self._spending.unanswered >= _PATIENCE_REFUSED if refused else False
        return patience or self._spending.requests >= _PATIENCE

    def _ask(self, question: Question, judged: Judged) -> Steps[None]:
        ids = ids_of(question)
        refused = self._refused.intersection(ids)
        if len(ids) - len(refused) > 1 and refused and not isinstance(question, (Compare, Prefer)):
            yield from self._without(refused, question, judged)
            return
        problem: ServiceError | None = None
        try:
            reading = yield from self._read(question, judged)
        except ContentRefusedError as error:
            problem = error
            if len(ids) == 1 or isinstance(question, (Compare, Prefer)):
                judged.refused.update(ids)
                raise
        except RequestTooLargeError as error:
            problem = error
            if len(ids) < _LEAST_TO_SPLIT or not isinstance(question, (Order, Score)):
                raise
        if isinstance(problem, ContentRefusedError) and not isinstance(question, (Compare, Prefer)):
            yield from self._refused_whole(question, judged)
            return
        if problem is not None and isinstance(question, (Order, Score)):
            judged.repairs["split, the prompt was too long"] += 1
            yield from self._split(question, judged)
            return
        judged.repairs.update(reading.repairs)
        judged.answer, judged.partial = reading.answer, True
        if reading.missing and isinstance(question, Score):
            yield from self._score_missing(question, reading, judged)
        elif reading.missing and isinstance(question, Order):
            yield from self._order_missing(reading, judged)

    def _read(self, question: Question, judged: Judged) -> Steps[Reading]:
        """Ask, and once more if the answer cannot be read."""
        reminder, room = "", math.inf
        for last in (False, True):
            rendered, completion, room = yield from self._completed(question, judged, reminder, room)
            judged.cut |= rendered.cut
            if completion.finish in ("filter", "refusal"):
                raise self._problem(ContentRefusedError, f"the model refused to answer ({completion.finish})")
            reading = read(question, rendered, completion)
            if reading.problem == "refusal" and last:
                raise self._problem(ContentRefusedError, "the model refused to answer")
            if reading.problem is not None and completion.finish == "length":
                self._renderer.let_think()
            if reading.problem is None:
                cut_off = completion.finish == "length" or "truncated" in reading.repairs
                if cut_off and reading.missing and isinstance(question, Order):
                    judged.repairs["cut off, the rest appended"] += 1
                    if len(reading.missing) > len(question.ids) / 2:
                        judged.error = self._problem(BadReplyError, "the answer was cut off before its half")
                    return replace(reading, answer=_appended(reading), missing=())
                return reading
            judged.repairs["asked again"] += not last
            reminder = _REMINDER
        said = f"it begins: {_excerpt(completion.text)}" if completion.text.strip() else "it is empty"
        advice = ". It thinks too long: raise thinking=, the tokens for that" if completion.finish == "length" else ""
        raise self._problem(BadReplyError, f"the answer holds no usable reply ({reading.problem}); {said}{advice}")

    def _completed(
        self, question: Question, judged: Judged, reminder: str, room: float
    ) -> Steps[tuple[Rendered, Completion, float]]:
        """Ask in whatever form the model takes, with documents as short as they must be."""
        size, shortened = len(ids_of(question)), 0
        guessed: set[Feature] = set()
        while True:
            rendered = self._rendered(question, room, reminder)
            try:
                completion = yield from ask(self._asker, rendered.request, self._spending, rendered.expected, size)
            except FormDropped as dropped:
                guessed |= dropped.guessed
                continue
            except RequestRefusedError:
                self._asker.model.features.restore(*guessed)  # without them it was refused as well
                raise
            except RequestTooLargeError as error:
                shortened += 1
                if shortened > _MOST_SHORTENED:
                    raise
                allowed = _allowed(error)
                if allowed < 1.0:
                    room = rendered.documents - (1.0 - 0.95 * allowed) * rendered.expected[0]
                    self._renderer.keep_within(room)
                else:
                    room = rendered.documents / 2
                judged.repairs["documents shortened, the prompt was too long"] += 1
                continue
            return rendered, completion, room

    def _rendered(self, question: Question, room: float, reminder: str) -> Rendered:
        try:
            return self._renderer.render(question, room=room, reminder=reminder)
        except NoRoom as none:
            raise self._problem(RequestTooLargeError, f"{none}. {_SMALLER}") from None

    def _order_missing(self, reading: Reading, judged: Judged) -> Steps[None]:
        """Place those that an answer left out: ask for them next to four that it placed, or append them."""
        given, missing = cast("tuple[int, ...]", reading.answer), reading.missing
        judged.answer = _appended(reading)
        if len(missing) > _MANY_MISSING * (len(given) + len(missing)) or len(given) < 2:
            judged.repairs["missing ids appended"] += len(missing)
            return
        count = min(_ANCHORS, len(given))
        anchors = [given[(2 * number + 1) * len(given) // (2 * count)] for number in range(count)]
        again = yield from self._once_more(Order(tuple(sorted((*anchors, *missing)))), judged)
        if again is None:
            judged.repairs["missing ids appended"] += len(missing)
            return
        judged.repairs.update(again.repairs)
        judged.answer = placed(given, missing, cast("tuple[int, ...]", again.answer))
        judged.repairs["missing ids asked for again"] += len(missing)

    def _score_missing(self, question: Score, reading: Reading, judged: Judged) -> Steps[None]:
        """Ask once more for the grades that an answer lacks. Those that it still lacks have none."""
        found = dict(zip(question.ids, cast("tuple[float | None, ...]", reading.answer), strict=True))
        again = yield from self._once_more(Score(reading.missing), judged)
        if again is not None:
            found.update(zip(reading.missing, cast("tuple[float | None, ...]", again.answer), strict=True))
            judged.repairs["missing grades asked for again"] += len(reading.missing)
        judged.answer = tuple(found[one] for one in question.ids)
        if None in found.values() and judged.error is None:
            judged.error = self._problem(BadReplyError, "the answer leaves documents without a grade")

    def _once_more(self, question: Question, judged: Judged) -> Steps[Reading | None]:
        """A question that only completes an answer: without it, that answer stands."""
        try:
            return (yield from self._read(question, judged))
        except BudgetReached as reached:
            if isinstance(question, Score):  # an order is whole without it
                judged.error = reached
        except (BadReplyError, ContentRefusedError, RequestTooLargeError):
            return None  # the model has had its say
        except ServiceError as error:
            judged.error = error
        return None

    def _without(self, refused: set[int], question: Order | Select | Score, judged: Judged) -> Steps[None]:
        """Answer a question without some of its documents, which then stand where they were shown."""
        ids = ids_of(question)
        rest = tuple(one for one in ids if one not in refused)
        judged.refused |= refused
        if isinstance(question, Select) and len(rest) <= question.count:
            judged.answer, judged.partial = (*rest, *sorted(refused))[: question.count], True
            return
        smaller = Select(rest, question.count) if isinstance(question, Select) else type(question)(rest)
        part = yield from self._judged(smaller)
        judged.take(part)
        if isinstance(question, Select):
            judged.answer = part.answer
        elif isinstance(question, Score):
            found = dict(zip(rest, cast("tuple[float | None, ...]", part.answer), strict=True))
            judged.answer = tuple(found.get(one) for one in ids)
        elif part.answer is not None:
            judged.answer = in_their_places(ids, cast("tuple[int, ...]", part.answer), refused)

    def _refused_whole(self, question: Order | Select | Score, judged: Judged) -> Steps[None]:
        """Go on after the model refused to answer: without the documents that it objects to, or in parts."""
        refused = yield from self._look_for_refused(question, judged)
        if refused:
            self._refused |= refused
            judged.error = self._problem(ContentRefusedError, "the model refused to look at some of the documents")
            yield from self._without(refused, question, judged)
        elif isinstance(question, Select):
            judged.answer, judged.partial = (yield from self._read(question, judged)).answer, True
        else:
            judged.error = self._problem(ContentRefusedError, "the model refused to answer, but for parts of it")
            yield from self._split(question, judged)

    def _look_for_refused(self, question: Order | Select | Score, judged: Judged) -> Steps[set[int]]:
        """The documents of a question that the model refuses to look at; none if it takes every part of it.

        Raises:
            ContentRefusedError: If it refuses all parts, so that it is not about some of them.
        """
        refused: set[int] = set()
        suspects = [ids_of(question)]
        while suspects:
            parts = [part for ids in suspects for part in (ids[: len(ids) // 2], ids[len(ids) // 2 :])]
            suspects = []
            for part in parts:
                try:
                    yield from self._read(Score(part) if isinstance(question, Score) else Order(part), judged)
                except ContentRefusedError:
                    if len(part) == 1:
                        refused.update(part)
                    else:
                        suspects.append(part)
            if len(suspects) == len(parts) >= _PARTS:
                break
        least = 1 if isinstance(question, Score) else 2  # to be asked about without those
        if suspects or len(ids_of(question)) - len(refused) < least:
            raise self._problem(ContentRefusedError, "the model refused to answer, whichever documents it was shown")
        return refused

    def _split(self, question: Order | Score, judged: Judged) -> Steps[None]:
        """Ask in parts what is too long for one prompt: three windows from the back, so that the best come through."""
        ids = question.ids
        half = (len(ids) + 1) // 2
        if isinstance(question, Score):
            scores: list[float | None] = []
            for each in (ids[:half], ids[half:]):
                part = yield from self._judged(Score(each))
                judged.take(part)
                scores += cast("tuple[float | None, ...]", part.answer)
            judged.answer = tuple(scores)
            return
        order = list(ids)
        for start in (len(ids) - half, (len(ids) - half) // 2, 0):
            part = yield from self._judged(Order(tuple(order[start : start + half])))
            judged.take(part)
            if part.answer is not None:
                order[start : start + half] = cast("tuple[int, ...]", part.answer)
        judged.answer = tuple(order) if judged.partial else None

    def _problem(self, kind: type[ServiceError], what: str) -> ServiceError:
        model = self._asker.model
        what = redact(what, model.secrets())
        return kind(f"{model.name} ({model.address}): {what}.", provider=model.provider, model=model.name)


def unanswered(question: Question) -> Answer:
    """What stands where there is no answer: no order, the first as shown, no preference, no score."""
    if isinstance(question, Score):
        return (None,) * len(question.ids)
    if isinstance(question, Select):
        return question.ids[: question.count]
    return None if isinstance(question, Order) else 0.5


def _appended(reading: Reading) -> tuple[int, ...]:
    return (*cast("tuple[int, ...]", reading.answer), *reading.missing)


def _allowed(error: RequestTooLargeError) -> float:
    """Which share of what was sent would have been taken, by the server's own count; 1 where it does not say."""
    numbers = sorted(int(found.replace(",", "")) for found in _STATED.findall(error.allowed or ""))
    return numbers[0] / numbers[-1] if len(numbers) > 1 and numbers[0] > 0 else 1.0


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…")
