"""A cascade: every model passes the best documents on to the next, which is better and dearer."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

from uprank.errors import ConfigurationError, ScorerError
from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores, Usage
from uprank.scorers.combined.base import Ask, CombinedPlan, CombinedScorer, attempts_of, request_to
from uprank.scorers.combined.several import (
    evidence,
    failed,
    members_of,
    notes,
    probabilities,
    require_probabilities,
)
from uprank.scorers.combined.spending import Budget, Measured
from uprank.scorers.evidence import Attempt, Evidence
from uprank.scorers.registry import Model

__all__ = ["Cascade", "CascadeScores", "StagePolicy"]

CascadeScores: TypeAlias = Literal["rank", "probability"]
StagePolicy: TypeAlias = Literal["raise", "keep"]

_OPTION = 'Cascade(scores="probability")'
_INSTEAD = 'scores="rank"'


class Cascade(CombinedScorer):
    """Scores with several models in turn, the cheapest first.

    ``Cascade(["bm25", "embedded", "llm:gpt-5-mini"], keep=[50, 15])``

    The first model scores all documents. The best ``keep[0]`` of them go on to the second, in the first one's order,
    the best ``keep[1]`` of those to the third, and so on. What a stage does not pass on keeps its place below all that
    went on; where a stage scores documents alike, they keep the order of the stage before. Each document's
    ``stage`` and ``model`` say who scored it last.

    Scores of different models are never mixed on one scale:

    * ``scores="rank"``: only the order means something; a document's score is the number of documents from it to the
      end of the list.
    * ``scores="probability"``: each document shows the probability that its last stage gave it. A stage may find the
      documents that went on less likely than an earlier stage found those that did not. As the order would then
      contradict the scores, no document shows more than any above it: its score is lowered to the least of theirs. So
      a threshold keeps the beginning of the list.

    In a batch all queries are in the same stage at the same time, so that models that run here form batches of them.

    A budget decides how many documents go on. Each stage's time and cost a document are measured while it is used; when
    the stages to come would take more than is left of ``max_ms`` or ``max_cost``, all of them get fewer documents, in
    proportion, but never less than one. Where nothing is left the rest of the stages is skipped, with a warning, and
    the ranking is flagged as degraded. A stage that was never used gets what ``keep`` says, so the first call may
    exceed a budget, and later ones by what estimates miss; a warning tells of cost. What must never be exceeded is
    for the model's own limits, such as :class:`~uprank.scorers.llm.budget.Budget`. The budget is a query's; a
    batch has as much for each of its queries. The first stage always scores everything, and a stage that has begun is
    not stopped.

    Args:
        models: At least two: names, scorers or functions.
        keep: How many documents each stage passes on, so one number less than there are models; none may exceed the
            one before.
        scores: What is reported, as above.
        max_ms: What a query may take, in milliseconds; ``None`` sets no limit.
        max_cost: What a query may cost, in the currency of the prices that the models were given; ``None`` sets no
            limit. It counts what models report as :attr:`~uprank.scorers.base.Usage.cost`.
        on_stage_error: ``"raise"``, or ``"keep"`` the order of the stages before the one that failed, which is the
            given order where the first one fails; the ranking is then flagged as degraded, with a warning. Documents
            that no stage has scored have no probability. Where all stages fail an error is raised all the same.
        clock: Tells seconds; to be replaced in tests.

    Raises:
        ConfigurationError: If an option is out of range.
        ScoreKindError: If probabilities are asked of a model that has none; of a model that must be loaded to tell,
            by the first call.
    """

    def __init__(
        self,
        models: Sequence[Model],
        keep: Sequence[int],
        *,
        scores: CascadeScores = "rank",
        max_ms: float | None = None,
        max_cost: float | None = None,
        on_stage_error: StagePolicy = "raise",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value, known in (
            ("scores", scores, get_args(CascadeScores)),
            ("on_stage_error", on_stage_error, get_args(StagePolicy)),
        ):
            if value not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}.")
        members = members_of(models, "Cascade")
        if len(members) < 2:
            raise ConfigurationError(f"A cascade has at least two models, got {len(members)}.")
        self.keep = _valid_keep(keep, len(members))
        if scores == "probability":
            require_probabilities(members, _OPTION, _INSTEAD)
        self.score_kind = scores
        self._budget = Budget(max_ms, max_cost)
        self._on_stage_error: StagePolicy = on_stage_error
        self._clock = clock
        super().__init__(members)

    def _join(self, members: Sequence[Scorer]) -> None:
        super()._join(members)
        self.name = f"cascade({', '.join(member.name for member in self.members)})"
        self.listwise = True  # whether a document goes on depends on the others
        self._measured = Measured(len(self.members))

    def identity(self) -> Mapping[str, object] | None:
        if self.score_kind == "probability" or self._budget.limited:  # calibrators and what was afforded have none
            return None
        members = [member.identity() for member in self.members]
        return None if None in members else {"cascade": members, "keep": list(self.keep)}

    def _plan(self, requests: Sequence[ScoreRequest]) -> CombinedPlan:
        began = self._clock()
        runs = [_Run(request) for request in requests]
        for stage, member in enumerate(self.members):
            going = [run for run in runs if run.failure is None]
            if not going:
                break
            if stage and not self._narrow(stage, runs, going, self._clock() - began):
                self._skip(stage, going)
                break
            started = self._clock()
            (outcomes,) = yield [Ask(member, [request_to(member, run.asked()) for run in going])]
            seconds = self._clock() - started
            self._measure(stage, going, outcomes, seconds)
            for run, outcome in zip(going, outcomes, strict=True):
                self._take(run, stage, outcome, seconds)
        return [self._outcome(run) for run in runs]

    def _narrow(self, stage: int, runs: Sequence[_Run], going: Sequence[_Run], seconds: float) -> bool:
        """Choose how many documents go on to a stage; false where there is nothing left for it."""
        wanted = [[run.reach(keep) for run in going] for keep in self.keep[stage - 1 :]]
        spent = sum(run.usage.cost or 0.0 for run in runs)
        share = self._budget.share(self._measured, stage, [sum(row) for row in wanted], seconds, spent, len(runs))
        if share > 0:
            for run, count in zip(going, wanted[0], strict=True):
                run.limit(count, share, self.members[stage])
        return share > 0

    def _skip(self, stage: int, going: Sequence[_Run]) -> None:
        names = ", ".join(member.name for member in self.members[stage:])
        for run in going:
            run.degraded = True
            run.warnings.append(
                f"Nothing was left of {self._budget} for {names}: the order is that of the stages before."
            )

    def _measure(self, stage: int, going: Sequence[_Run], outcomes: Sequence[Outcome], seconds: float) -> None:
        """Learn from an answer, but not from a failure: how long that took says nothing of the model."""
        answered = [(run, outcome) for run, outcome in zip(going, outcomes, strict=True) if isinstance(outcome, Scores)]
        costs = [outcome.usage.cost for _, outcome in answered if outcome.usage.cost is not None]
        documents = sum(run.head for run, _ in answered)
        whole = len(answered) == len(going)
        self._measured.note(stage, documents, seconds if whole else None, sum(costs) if costs else None)

    def _take(self, run: _Run, stage: int, outcome: Outcome, seconds: float) -> None:
        member = self.members[stage]
        if isinstance(outcome, Scores):
            try:
                found: Sequence[float | None] = [None] * run.head
                if self.score_kind == "probability":
                    found = probabilities(outcome, member, _OPTION, _INSTEAD)
                    if outcome.attempts and all(one is None for one in found):
                        run.degraded = True  # so that no threshold takes them for unlikely
                        run.warnings.append(f"{outcome.model or member.name} answered, which has no probabilities.")
                run.accept(member, stage, outcome, found)
                return
            except ScorerError as error:  # of its calibrator
                outcome = error
        if self._on_stage_error == "raise":
            run.failure = outcome
        else:
            run.errors.append(outcome)
            run.degraded = True
            run.attempts.extend(attempts_of(member, outcome, seconds))
            before = "of the stages before it" if run.answered else "in which the documents were given"
            run.warnings.append(f"{member.name} failed, so the order is that {before}: {outcome}")

    def _outcome(self, run: _Run) -> Outcome:
        if run.failure is None and not run.answered:
            run.failure = failed(self.name, run.errors, run.attempts)
        if run.failure is not None:
            return run.failure
        if (run.usage.cost or 0.0) > (self._budget.max_cost or math.inf):
            run.warnings.append(
                f"It cost {run.usage.cost:.3g}, more than {self._budget}: a stage's first calls tell what it costs."
            )
        if self._budget.max_cost is not None and run.usage.cost is None:
            run.warnings.append("max_cost had no effect: no model of the cascade says what it costs.")
        count = len(run.order)
        values, shown = [0.0] * count, list(run.found)
        least = 1.0
        for place, number in enumerate(run.order):
            values[number] = float(count - place)
            score = shown[number]
            if score is not None:
                shown[number] = least = min(least, score)
        return Scores(
            values,
            "rank",
            usage=run.usage,
            warnings=tuple(dict.fromkeys(run.warnings)),
            reported=shown if self.score_kind == "probability" else None,
            degraded=run.degraded,
            attempts=tuple(run.attempts),
            evidence=run.evidence,
        )


class _Run:
    """One request on its way through the stages.

    Args:
        request: As it was given.

    Attributes:
        order: The numbers of all its texts, best first as far as is known.
        head: How many of them, from the first, the stage under way is asked about.
        found: The probability that each text's last stage gave it, where there is one.
        answered: Whether any stage has given scores.
        errors: Of the stages that gave none.
        failure: Why there will be no scores.
    """

    def __init__(self, request: ScoreRequest) -> None:
        self.request = request
        self.order = list(range(len(request.texts)))
        self.head = len(self.order)
        self.found: list[float | None] = [None] * len(self.order)
        self.evidence = [Evidence()] * len(self.order)
        self.answered = False
        self.usage = Usage()
        self.warnings: list[str] = []
        self.attempts: list[Attempt] = []
        self.degraded = False
        self.errors: list[Exception] = []
        self.failure: Exception | None = None

    def reach(self, keep: int) -> int:
        """How many texts a stage gets by ``keep``: no more than the stage before it."""
        return min(keep, self.head)

    def limit(self, wanted: int, share: float, member: Scorer) -> None:
        """Pass on as many as wanted, or the share of them that can be afforded."""
        self.head = max(1, min(wanted, int(wanted * share + 1e-9)))  # 0.29 * 100 is just below 29
        if self.head < wanted:
            self.warnings.append(f"The budget sufficed for {self.head} of {wanted} documents with {member.name}.")

    def asked(self) -> ScoreRequest:
        """The request about those in the head of the order, in that order."""
        numbers, given = self.order[: self.head], self.request.retrieval_scores
        texts = [self.request.texts[number] for number in numbers]
        return replace(
            self.request, texts=texts, retrieval_scores=None if given is None else [given[number] for number in numbers]
        )

    def accept(self, member: Scorer, stage: int, scores: Scores, found: Sequence[float | None]) -> None:
        """Bring the head of the order into the order of these scores; the rest stays where it is."""
        numbers = self.order[: self.head]
        for number, one, probability in zip(numbers, evidence(member, scores), found, strict=True):
            self.evidence[number] = replace(one, stage=stage)
            self.found[number] = probability
        best_first = sorted(range(self.head), key=lambda place: -scores.values[place])  # stable: ties stay
        self.order[: self.head] = [numbers[place] for place in best_first]
        self.answered = True
        self.usage += scores.usage
        self.warnings.extend(notes(member, scores))
        self.attempts.extend(scores.attempts)
        self.degraded = self.degraded or scores.degraded


def _valid_keep(keep: Sequence[int], models: int) -> tuple[int, ...]:
    try:
        if isinstance(keep, (str, bytes)) or any(isinstance(number, bool) for number in keep):
            raise TypeError
        numbers = tuple(operator.index(number) for number in keep)
    except TypeError:
        raise ConfigurationError(f"keep must be a list of whole numbers, e.g. [50, 15]; got {keep!r}.") from None
    if len(numbers) != models - 1:
        raise ConfigurationError(
            f"keep says how many documents each model but the last passes on: {models} models need {models - 1} "
            f"numbers, got {len(numbers)}."
        )
    if any(number < 1 for number in numbers):
        raise ConfigurationError(f"Each number in keep must be at least 1; got {list(numbers)}.")
    if any(after > before for before, after in pairwise(numbers)):
        raise ConfigurationError(
            f"The numbers in keep must not rise, as no stage gets documents that the one before did not pass on; got "
            f"{list(numbers)}."
        )
    return numbers
