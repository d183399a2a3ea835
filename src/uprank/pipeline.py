"""The pipeline: score, check, report, threshold, sort, cut, map back by index."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from uprank.calibration import Calibrator, ScoreMode, no_probabilities, report
from uprank.errors import InvalidScoresError, ScoreKindError, ScorerError, UprankError
from uprank.ranking import RankedDocument, Ranking
from uprank.scorers.base import Outcome, ScoreKind, Scorer, Scores, Usage
from uprank.scorers.callable import CallableScorer
from uprank.scorers.checking import check_scores
from uprank.scorers.combined.base import Ask, CombinedScorer
from uprank.scorers.evidence import Evidence
from uprank.selection import Selection, threshold_on_ranks
from uprank.validation import Job

__all__ = ["ErrorPolicy", "Pipeline"]

logger = logging.getLogger("uprank")

ErrorPolicy: TypeAlias = Literal["raise", "passthrough"]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Makes rankings of checked jobs, whatever the scorer.

    Args:
        model: Named in rankings and errors.
        scorer: What scores.
        score_mode: How scores are reported.
        calibrator: Makes probabilities of raw scores.
        on_error: What becomes of a query whose scores are not to be had.
    """

    model: str
    scorer: Scorer
    score_mode: ScoreMode
    calibrator: Calibrator | None
    on_error: ErrorPolicy

    def rankings(self, jobs: Sequence[Job], selection: Selection) -> Generator[Ask, list[Outcome], list[Ranking]]:
        """Ask for outcomes once, then make the rankings."""
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
        answered = iter(outcomes)
        return [
            self._ranking(job, next(answered), selection)
            if job.documents
            else Ranking(job.query, (), self.model, self.kind())
            for job in jobs
        ]

    def kind(self) -> ScoreKind | None:
        """What is reported, as far as it is known without an answer."""
        return "probability" if self.score_mode == "probability" else self.scorer.score_kind

    def _ranking(self, job: Job, outcome: Outcome, selection: Selection) -> Ranking:
        try:
            if isinstance(outcome, Exception):
                raise outcome
            scores = check_scores(outcome, len(job.request.texts), self.model)
            reported, kind = self._reported(scores)
        except UprankError as error:
            if not isinstance(error, ScorerError) or self.on_error == "raise":
                raise
            return self._passthrough(job, error, selection)
        except Exception as cause:
            failure = ScorerError(f"{self.model} failed with {type(cause).__name__}: {cause}")
            if self.on_error == "raise":
                raise failure from cause
            return self._passthrough(job, failure, selection)
        model = scores.model or self.model
        warnings = scores.warnings
        if selection.threshold is not None and not self._comparable(scores, kind):
            note = (
                f"The threshold was not applied: {model} answered, whose scores are not on the scale of {self.model}."
            )
            selection, warnings = replace(selection, threshold=None), (*warnings, note)
        if selection.threshold is not None and kind == "rank":
            raise threshold_on_ranks(model)
        for note in warnings:
            logger.info("%s: %s", model, note)
        raw = [scores.values[position] for position in job.positions]
        order = sorted(range(len(raw)), key=lambda index: (-raw[index], index))
        shown = ((index, reported[job.positions[index]]) for index in order)
        kept = [pair for pair in shown if selection.passes(pair[1], degraded=scores.degraded)]
        known = scores.evidence or [_NOTHING_KNOWN] * len(scores.values)
        hits = [_hit(job, index, rank, score, known[job.positions[index]]) for rank, (index, score) in enumerate(kept)]
        return Ranking(
            job.query,
            tuple(hits[: selection.top_n]),
            model,
            kind,
            usage=self._usage(job, scores),
            degraded=scores.degraded,
            warnings=warnings,
            attempts=scores.attempts,
        )

    def _usage(self, job: Job, scores: Scores) -> Usage:
        """What scoring consumed; only a scorer made of others knows better than the number of texts how many pairs."""
        if isinstance(self.scorer, CombinedScorer):
            return scores.usage
        return replace(scores.usage, pairs=len(job.request.texts))

    def _reported(self, scores: Scores) -> tuple[list[float | None], ScoreKind]:
        """The scores to show. Where another model than the one configured answered, its own calibrator applies."""
        if not scores.attempts:
            return report(scores, self.score_mode, self.calibrator, model=self.model)
        try:
            return report(scores, self.score_mode, None, model=scores.model or self.model)
        except ScoreKindError:  # it has no probabilities to give, and to fail now would make the outage one
            return [None] * len(scores.values), "probability"

    def _comparable(self, scores: Scores, kind: ScoreKind) -> bool:
        """Whether these scores are on the scale that a threshold was meant for."""
        return not scores.attempts or kind == self.kind() == "probability"

    def _passthrough(self, job: Job, error: ScorerError, selection: Selection) -> Ranking:
        """The original order without scores; the threshold does not apply to what has none."""
        warning = f"Not reranked, original order kept: {error}"
        logger.warning("%s", warning)
        hits = (RankedDocument(document, index, index, None) for index, document in enumerate(job.documents))
        return Ranking(
            job.query,
            tuple(hits)[: selection.top_n],
            self.model,
            self.kind(),
            degraded=True,
            warnings=(warning,),
        )

    def check_kind(self, threshold: float | None) -> None:
        """Refuse before the call what the scorer's declaration already rules out."""
        kind = self.scorer.score_kind
        undeclared = isinstance(self.scorer, CallableScorer) and not self.scorer.declared
        if self.score_mode == "probability" and self.calibrator is None and undeclared:
            raise ScoreKindError(
                f'score="probability" needs to know what the numbers of {self.model} mean: pass '
                'score_kind="logit" (a sigmoid is applied) or score_kind="probability" (it is not), or calibrator=.'
            )
        without = self.calibrator is None and not self.scorer.calibrated
        if self.score_mode == "probability" and without and kind in ("cosine", "rank"):
            raise no_probabilities(self.model, kind)
        if threshold is not None and kind == "rank" and self.score_mode == "native":
            raise threshold_on_ranks(self.model)


_NOTHING_KNOWN = Evidence()


def _hit(job: Job, index: int, rank: int, score: float | None, known: Evidence) -> RankedDocument:
    return RankedDocument(
        job.documents[index], index, rank, score, known.model, known.stage, known.passage, known.truncated
    )
