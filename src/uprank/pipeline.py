"""The pipeline: score, check, report, sort, choose, map back by index."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from uprank.calibration import Calibration, ScoreMode, no_probabilities, report
from uprank.choosing import Candidate, Kept, chosen, keep, similarity_scorer
from uprank.errors import AllModelsFailedError, InvalidScoresError, ScoreKindError, ScorerError, UprankError
from uprank.ranking import RankedDocument, Ranking
from uprank.scorers.base import Outcome, ScoreKind, Scorer, Scores, Usage
from uprank.scorers.checking import check_scores
from uprank.scorers.combined.base import Ask, CombinedScorer, undeclared, without_probabilities
from uprank.scorers.evidence import Attempt, Evidence
from uprank.selection import Selection
from uprank.validation import Job

if TYPE_CHECKING:
    from uprank.calibrator import Calibrator

__all__ = ["ErrorPolicy", "Pipeline"]

logger = logging.getLogger("uprank")

ErrorPolicy: TypeAlias = Literal["raise", "passthrough"]

_NOTHING_KNOWN = Evidence()


@dataclass(frozen=True, slots=True)
class _Answered:
    """What became of one job, before anything is left out.

    Args:
        job: What was asked.
        model: Who answered.
        kind: What the reported scores mean.
        order: Indices of the documents, the most relevant first.
        reported: The score to show of each text of the request; empty where there are none.
        selection: What is to be left out of these scores.
        evidence: What each text's score rests on.
        usage: What scoring consumed.
        degraded: Whether the order is only the best that could be had.
        warnings: What the caller should know.
        attempts: Who was to answer and did not.
    """

    job: Job
    model: str
    kind: ScoreKind | None
    order: Sequence[int]
    reported: Sequence[float | None]
    selection: Selection
    evidence: Sequence[Evidence] = ()
    usage: Usage = field(default_factory=Usage)
    degraded: bool = False
    warnings: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    def score(self, index: int) -> float | None:
        return self.reported[self.job.positions[index]] if self.reported else None

    def candidates(self) -> list[Candidate]:
        documents = self.job.documents
        return [Candidate(index, self.score(index), documents[index].text) for index in self.order]

    def ranking(self, kept: Kept) -> Ranking:
        return Ranking(
            self.job.query,
            tuple(self._hits([self.order[position] for position in kept.positions])),
            self.model,
            self.kind,
            usage=self.usage,
            degraded=self.degraded or kept.degraded,
            warnings=(*self.warnings, *kept.warnings),
            attempts=self.attempts,
        )

    def _hits(self, indices: Sequence[int]) -> list[RankedDocument]:
        documents, positions, reported, evidence = self.job.documents, self.job.positions, self.reported, self.evidence
        if reported and not evidence:  # nearly always, and of all documents: with no call for each
            return [
                RankedDocument(documents[index], index, rank, reported[positions[index]])
                for rank, index in enumerate(indices)
            ]
        hits = []
        for rank, index in enumerate(indices):
            known = evidence[positions[index]] if evidence else _NOTHING_KNOWN
            more = (known.model, known.stage, known.passage, known.truncated)
            hits.append(RankedDocument(documents[index], index, rank, self.score(index), *more))
        return hits


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Makes rankings of checked jobs, whatever the scorer.

    Args:
        model: Named in rankings and errors.
        scorer: What scores.
        score_mode: How scores are reported.
        calibrator: Makes probabilities of raw scores.
        on_error: What becomes of a query whose scores are not to be had.
        count_tokens: How many tokens a document has, for ``max_tokens``; ``None`` estimates.
    """

    model: str
    scorer: Scorer
    score_mode: ScoreMode
    calibrator: Calibration | None
    on_error: ErrorPolicy
    count_tokens: Callable[[str], int] | None = None

    def rankings(self, jobs: Sequence[Job], selection: Selection) -> Generator[Ask, list[Outcome], list[Ranking]]:
        """Ask for outcomes once, then choose and make the rankings."""
        asked = [job for job in jobs if job.documents]
        outcomes: list[Outcome] = []
        if asked:
            try:
                outcomes = yield Ask(self.scorer, [job.request for job in asked])
            except Exception as error:  # judged per job below
                outcomes = [error] * len(asked)
            if not isinstance(outcomes, Sequence) or len(outcomes) != len(asked):
                answer = len(outcomes) if isinstance(outcomes, Sequence) else type(outcomes).__name__
                problem = f"{self.model} answered {answer} for {len(asked)} requests; its score_many() is wrong."
                outcomes = [InvalidScoresError(problem)] * len(asked)
        answered = [self._answered(job, outcome, selection) for job, outcome in zip(asked, outcomes, strict=True)]
        made = iter((yield from self._chosen(answered)))
        return [next(made) if job.documents else Ranking(job.query, (), self.model, self.kind()) for job in jobs]

    def _chosen(self, answered: Sequence[_Answered]) -> Generator[Ask, list[Outcome], list[Ranking]]:
        """Leave out what is not wanted. Similarities, where they are asked for, are scored for all queries at once."""
        if all(_best_alone(one.selection) for one in answered):
            return [one.ranking(Kept(tuple(range(len(one.order))[: one.selection.top_n]))) for one in answered]
        choices = [
            keep(
                one.candidates(),
                one.selection,
                kind=one.kind,
                model=one.model,
                degraded=one.degraded,
                count_tokens=self.count_tokens,
                strict=self.on_error == "raise",
            )
            for one in answered
        ]
        rankings = []
        for one, kept in zip(
            answered, (yield from chosen(choices, partial(similarity_scorer, self.scorer))), strict=True
        ):
            if isinstance(kept, Exception):
                raise kept
            for note in kept.warnings:
                logger.info("%s: %s", one.model, note, extra={"discreet": None})
            rankings.append(one.ranking(kept))
        return rankings

    def kind(self) -> ScoreKind | None:
        """What is reported, as far as it is known without an answer."""
        return "probability" if self.score_mode == "probability" else self.scorer.score_kind

    def _answered(self, job: Job, outcome: Outcome, selection: Selection) -> _Answered:
        try:
            if isinstance(outcome, Exception):
                raise outcome
            scores = check_scores(outcome, len(job.request.texts), self.model)
            reported, kind = self._reported(scores, job.request.instruction)
        except UprankError as error:
            if not isinstance(error, ScorerError) or self.on_error == "raise":
                raise
            return self._passthrough(job, error, selection)
        except Exception as cause:
            failure = ScorerError(f"{self.model} failed with {type(cause).__name__}: {cause}")
            if self.on_error == "raise":
                raise failure from cause
            return self._passthrough(job, failure, selection)
        model, warnings, degraded = scores.model or self.model, scores.warnings, scores.degraded
        if kind == "probability" and not any(score is not None for score in reported):
            warnings, degraded = (*warnings, f"{model} answered, which has no probabilities to show."), True
        if selection.limits_scores and not self._comparable(scores, reported, kind):
            note = f"No threshold or gap was applied: {model} answered, not on the scale of {self.model}."
            selection, warnings = selection.without_score_limits(), (*warnings, note)
        selection.check_kind(kind, model)
        for note in warnings:
            logger.info("%s: %s", model, note, extra={"discreet": None})
        raw = [scores.values[position] for position in job.positions]
        return _Answered(
            job,
            model,
            kind,
            sorted(range(len(raw)), key=raw.__getitem__, reverse=True),  # equal ones keep their order in reverse too
            reported,
            selection,
            scores.evidence or (),
            self._usage(job, scores),
            degraded,
            warnings,
            scores.attempts,
        )

    def _passthrough(self, job: Job, error: ScorerError, selection: Selection) -> _Answered:
        """The original order without scores; thresholds and gaps do not apply to what has none."""
        warning = f"Not reranked, original order kept: {error}"
        discreet = f"{self.model} did not rank, original order kept: {type(error).__name__}"
        logger.warning("%s", warning, extra={"discreet": discreet})
        return _Answered(
            job,
            self.model,
            self.kind(),
            range(len(job.documents)),
            (),
            # Nor does diversity: it would ask yet another model, in the midst of a failure.
            replace(selection.without_score_limits(), diversity=None),
            degraded=True,
            warnings=(warning,),
            attempts=error.attempts if isinstance(error, AllModelsFailedError) else (),
        )

    def _usage(self, job: Job, scores: Scores) -> Usage:
        """What scoring consumed; only a scorer made of others knows better than the number of texts how many pairs."""
        if isinstance(self.scorer, CombinedScorer):
            return scores.usage
        return replace(scores.usage, pairs=len(job.request.texts))

    def _reported(self, scores: Scores, instruction: str | None) -> tuple[list[float | None], ScoreKind]:
        """The scores to show. Where another model than the one configured answered, its own calibrator applies."""
        if not scores.attempts:
            calibration = self.calibrator
            fitted = _as_calibrator(calibration)
            if fitted is not None:
                calibration = fitted.for_scores(scores, scores.model or self.model, prompt=instruction)
            return report(scores, self.score_mode, calibration, model=self.model)
        try:
            return report(scores, self.score_mode, None, model=scores.model or self.model)
        except ScoreKindError:  # it has no probabilities to give, and to fail now would make the outage one
            return [None] * len(scores.values), "probability"

    def _comparable(self, scores: Scores, reported: Sequence[float | None], kind: ScoreKind) -> bool:
        """Whether these scores are on the scale that a threshold was meant for."""
        shared = kind == self.kind() == "probability" and any(score is not None for score in reported)
        return not scores.attempts or shared

    def check(self, selection: Selection) -> None:
        """Refuse before the call what the scorer's declaration already rules out."""
        kind = self.scorer.score_kind
        function = undeclared(self.scorer, calibrated=self.calibrator is not None)
        if self.score_mode == "probability" and function is not None:
            raise ScoreKindError(
                f'score="probability" needs to know what the numbers of {function.name} mean: pass '
                'score_kind="logit" (a sigmoid is applied) or score_kind="probability" (it is not), or calibrator=.'
            )
        lacking = without_probabilities(self.scorer, calibrated=self.calibrator is not None)
        if self.score_mode == "probability" and lacking is not None:
            name = self.model if lacking is self.scorer else lacking.name
            raise no_probabilities(name, lacking.score_kind or "rank")
        fitted = _as_calibrator(self.calibrator)
        if fitted is not None:
            fitted.check(self.model, revision=self.scorer.revision)
        if selection.diversity is not None:
            similarity_scorer(self.scorer)  # tells of a missing package; no model is loaded
        if self.score_mode == "native":
            selection.check_kind(kind, self.model)


def _best_alone(selection: Selection) -> bool:
    """Whether at most ``top_n`` leaves something out, so that nothing of the documents needs to be looked at."""
    return not selection.limits_scores and selection.max_tokens is None and selection.diversity is None


def _as_calibrator(calibration: Calibration | None) -> Calibrator | None:
    """The calibrator, which knows whose scores it was fitted on; ``None`` for a plain function."""
    if calibration is None:
        return None
    from uprank.calibrator import Calibrator  # late: few need it

    return calibration if isinstance(calibration, Calibrator) else None
