"""Models tried in order, until one answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from uprank.errors import (
    AllModelsFailedError,
    ConfigurationError,
    ContentRefusedError,
    DeadlineExceededError,
    QueryTooLongError,
    QueryTooLongForAllError,
    RateLimitError,
    RequestTooLargeError,
    ScorerError,
)
from uprank.scorers.base import Outcome, ScoreKind, Scorer, ScoreRequest, Scores
from uprank.scorers.combined.base import (
    Ask,
    CombinedPlan,
    CombinedScorer,
    attempts_of,
    request_to,
    undeclared,
    without_probabilities,
)
from uprank.scorers.combined.breaker import Admission, Breaker, Circuit, CircuitState
from uprank.scorers.evidence import Attempt
from uprank.scorers.registry import Model, as_scorer

__all__ = ["Fallback", "FallbackPolicy"]


FallbackPolicy: TypeAlias = "Mapping[type[ScorerError], Literal['next', 'raise']]"
"""What becomes of a request after which error: the next model is asked, or the error is raised."""

_OF_THE_REQUEST = (QueryTooLongError, RequestTooLargeError, ContentRefusedError)
"""Errors that say something of the request and nothing of the model: another request may well be answered."""

_DEFAULT = Breaker()


class Fallback(CombinedScorer):
    """Asks the first model, and those after it only for what the ones before them did not answer.

    Of several queries, those that failed go on to the next model; the others are done. A ranking by
    another model than the first says so: ``ranking.model`` is who answered, ``ranking.attempts`` and a warning tell why
    the earlier ones did not. Its scores are on that model's scale. An order that a model calls
    ``degraded``, e.g. because its budget was used up, is an answer.

    A model that keeps failing is left alone for a while; see :class:`Breaker`. The last model is always asked
    where no other answered, since nothing would be gained by leaving it alone. An error that says nothing of the model
    (:class:`~uprank.QueryTooLongError`, :class:`~uprank.RequestTooLargeError`,
    :class:`~uprank.ContentRefusedError`, or one that ``on`` has raised) counts neither for nor against it.
    Requests that are refused otherwise do count: five in a row point at the set-up, such as a model that is gone.

    Models that retry by themselves, as those behind HTTP do, fail only when they have given up: where
    speed matters, give the first one few retries (``max_retries=1``), or a ``deadline`` here.

    Args:
        models: At least one, each a name, a :class:`~uprank.scorers.Scorer` or a function; the preferred one first.
        on: ``{error class: "next" or "raise"}``; the most specific class counts. By default every
            :class:`~uprank.ScorerError` leads to the next model. Mistakes in the input and in the set-up are raised
            in any case.
        deadline: Seconds for a whole call, however many queries it has; ``None`` sets no limit. Each model may
            use an even share of what is left among it and those after it that may be asked: of two models, the first
            is given up after half of the time, and the second has all the rest. A call given up in
            synchronous code leaves a thread behind, which ends when the model answers; in asynchronous code it is
            cancelled.
        breaker: When a failing model is left alone, and for how long; ``None`` for never.
        clock: Gives the time in seconds, for tests.

    Raises:
        ConfigurationError: If an argument cannot work.
        MissingDependencyError: If any of the models needs a package that is not installed.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        on: FallbackPolicy | None = None,
        deadline: float | None = None,
        breaker: Breaker | None = _DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(models, (str, Scorer)) or not isinstance(models, Sequence) or not models:
            raise ConfigurationError("Fallback takes a list of at least one model, the preferred one first.")
        if breaker is not None and not isinstance(breaker, Breaker):
            raise ConfigurationError(f"breaker must be a Breaker or None, got {type(breaker).__name__}.")
        self.deadline = _valid_deadline(deadline)
        self._on = _valid_policy({} if on is None else on)
        self._breaker = breaker
        self._clock = clock
        super().__init__([as_scorer(model, {}) for model in models])

    def _join(self, members: Sequence[Scorer]) -> None:
        super()._join(members)
        self.name = self.members[0].name
        self.calibrated = self.members[0].calibrated
        self._circuits = tuple(Circuit(member.name, self._breaker, self._clock) for member in self.members)

    @property
    def score_kind(self) -> ScoreKind | None:  # type: ignore[override]  # what loading tells of the first
        return self.members[0].score_kind

    @property
    def document_window(self) -> int | None:  # type: ignore[override]  # likewise: the smallest, which fits all
        known = [window for member in self.members if (window := member.document_window) is not None]
        return min(known, default=None)

    @property
    def states(self) -> tuple[CircuitState, ...]:
        """How it stands with each model, in their order. A copy, pickled or not, begins with all circuits closed."""
        return tuple(circuit.state for circuit in self._circuits)

    def without_probabilities(self, *, calibrated: bool) -> Scorer | None:
        first, *others = self.members
        # What is said of the first says nothing of those that answer in its place.
        found = [without_probabilities(first, calibrated=calibrated), *map(without_probabilities, others)]
        return next((scorer for scorer in found if scorer is not None), None)

    def undeclared(self, *, calibrated: bool) -> Scorer | None:
        first, *others = self.members
        found = [undeclared(first, calibrated=calibrated), *map(undeclared, others)]
        return next((function for function in found if function is not None), None)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_circuits"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._join(self.members)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', then '.join(member.name for member in self.members)}>"

    def _plan(self, requests: Sequence[ScoreRequest]) -> CombinedPlan:
        ends = math.inf if self.deadline is None else self._clock() + self.deadline
        outcomes: dict[int, Outcome] = {}
        attempts: list[list[Attempt]] = [[] for _ in requests]
        errors: dict[int, ScorerError] = {}
        waiting = list(range(len(requests)))
        last = len(self.members) - 1
        for place, (member, circuit) in enumerate(zip(self.members, self._circuits, strict=True)):
            if not waiting:
                break
            started = self._clock()
            if started >= ends:  # a model overran its share, e.g. by blocking the event loop
                answers: list[Outcome] = [self._no_time(member)] * len(waiting)
            elif (admission := circuit.enter(always=place == last)) is None:
                left_alone = _not_asked(circuit.state)
                for number in waiting:
                    attempts[number].append(left_alone)
                continue
            else:
                asked = [request_to(member, requests[number]) for number in waiting]
                with admission:  # also where the call is interrupted or cancelled: another may try then
                    [answers] = yield [Ask(member, asked, self._share(place, ends - started))]
                    self._learn(admission, answers)
            seconds = self._clock() - started
            for number, answer in zip(waiting, answers, strict=True):
                if isinstance(answer, Scores):
                    outcomes[number] = _told(answer, member, requests[number], tuple(attempts[number]))
                elif not isinstance(answer, ScorerError) or not self._leads_on(answer):
                    outcomes[number] = answer
                else:
                    errors[number] = answer
                    attempts[number].extend(attempts_of(member, answer, seconds))
            waiting = [number for number in waiting if number not in outcomes]
        for number in waiting:
            outcomes[number] = self._failure(attempts[number], errors[number])
        return [outcomes[number] for number in range(len(requests))]

    def _share(self, place: int, left: float) -> float | None:
        """Seconds that the model at this place may use: an even share, since nobody knows what the others need."""
        if left == math.inf:
            return None
        later = self._circuits[place + 1 :]
        # The last one is asked in any case.
        return left / (1 + sum(circuit.state.state != "open" or circuit is later[-1] for circuit in later))

    def _no_time(self, member: Scorer) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"{member.name} was not asked: the deadline of {self.deadline:g} s had passed.", model=member.name
        )

    def _leads_on(self, error: ScorerError) -> bool:
        found = next((self._on[base] for base in type(error).__mro__ if base in self._on), "next")
        return found == "next"

    def _learn(self, admission: Admission, answers: Sequence[Outcome]) -> None:
        """Tell the circuit what came of a call. One answer proves that the model works."""
        if any(isinstance(answer, Scores) for answer in answers):
            admission.succeeded()
            return
        counted = [answer for answer in answers if isinstance(answer, ScorerError) and self._counts(answer)]
        if not counted:
            return
        # What ended the whole call is one failure, however many queries it had.
        count = len({id(error.__cause__ or error) for error in counted})
        hints = [error.retry_after or 0.0 for error in counted if isinstance(error, RateLimitError)]
        admission.failed(_in_words(counted[-1]), count=count, wait=max(hints, default=0.0))

    def _counts(self, error: ScorerError) -> bool:
        # Nor what is raised: an open circuit would pass over what the caller wants to see.
        return not isinstance(error, _OF_THE_REQUEST) and self._leads_on(error)

    def _failure(self, attempts: Sequence[Attempt], error: ScorerError) -> ScorerError:
        if len(self.members) == 1:
            return error
        tried = "; ".join(f"{attempt.model}: {attempt.kind}: {attempt.error}" for attempt in attempts)
        too_long = all(attempt.kind == "QueryTooLongError" for attempt in attempts)
        kind = QueryTooLongForAllError if too_long else AllModelsFailedError
        failure = kind(f"None of {len(attempts)} models answered. {tried}", tuple(attempts))
        failure.__cause__ = error
        return failure


def _told(scores: Scores, member: Scorer, request: ScoreRequest, attempts: tuple[Attempt, ...]) -> Scores:
    """The scores, with a word on who answered instead of whom."""
    notes = []
    name = scores.model or member.name
    if attempts:
        tried = "; ".join(f"{attempt.model} did not ({attempt.kind}: {attempt.error})" for attempt in attempts)
        notes.append(f"{name} answered; {tried}")
    if request.instruction is not None and not member.accepts_instruction:
        notes.append(f"The instruction was not used: {name} takes none.")
    if not notes:
        return scores
    model = name if attempts else scores.model
    return replace(scores, model=model, attempts=(*attempts, *scores.attempts), warnings=(*notes, *scores.warnings))


def _in_words(error: ScorerError) -> str:
    kind = type(error).__name__
    return f"{kind}: {error}" if str(error) else kind


def _not_asked(state: CircuitState) -> Attempt:
    why = f"not asked after {state.failures} failures in a row, the last {state.error}"
    again = "a call is trying it again" if state.state == "half-open" else f"asked again in {state.retry_in:.3g} s"
    return Attempt(state.model, f"{why} ({again})", "CircuitOpen", 0.0)


def _valid_deadline(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    if isinstance(deadline, bool) or not isinstance(deadline, (int, float)) or not 0 < deadline < math.inf:
        raise ConfigurationError(f"deadline must be a positive number of seconds or None, got {deadline!r}.")
    return float(deadline)


def _valid_policy(on: FallbackPolicy) -> FallbackPolicy:
    if not isinstance(on, Mapping):
        raise ConfigurationError(f"on must map error classes to 'next' or 'raise', got {type(on).__name__}.")
    for error, policy in on.items():
        if not isinstance(error, type) or not issubclass(error, ScorerError):
            raise ConfigurationError(
                f"on takes ScorerError and the classes below it, not {error!r}; whatever else a model raises comes as "
                "a ScorerError, and mistakes in the input or the set-up are always raised."
            )
        if policy not in ("next", "raise"):
            raise ConfigurationError(f'on[{error.__name__}] must be "next" or "raise", got {policy!r}.')
    return dict(on)
