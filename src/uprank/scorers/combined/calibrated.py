"""A scorer with a calibrator of its own, so that a composition can use its probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from uprank.calibration import Calibration
from uprank.calibrator import Calibrator
from uprank.errors import ConfigurationError
from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores
from uprank.scorers.combined.base import Ask, CombinedPlan, undeclared, without_probabilities
from uprank.scorers.combined.wrapper import Wrapper
from uprank.scorers.registry import Model, as_scorer

__all__ = ["Calibrated"]


class Calibrated(Wrapper):
    """Ties a calibrator to a scorer: ``Calibrated("bm25", Calibrator.load("bm25.json"))``.

    Fusion, cascades and fallbacks then have probabilities of a model that gives none itself. The order of its
    documents, and what is reported unless probabilities are asked for, stay as they are. Where a fallback inside had
    another model answer, the calibrator is not applied to its scores.

    Args:
        model: A name, a scorer or a function.
        calibrator: A :class:`~uprank.calibrator.Calibrator`, which refuses another model's scores, or any
            non-decreasing function from raw scores to probabilities.

    Raises:
        ConfigurationError: If ``calibrator`` cannot be called.
        ScoreKindError: If it was fitted on another model's scores. Where only an answer tells what the scores mean,
            or an instruction was given to the one and not to the other, it is raised when they are asked for.
    """

    def __init__(self, model: Model, calibrator: Calibration) -> None:
        if isinstance(calibrator, type) or not callable(calibrator):
            raise ConfigurationError(
                f"calibrator must be a Calibrator or a function from a score to a probability, got {calibrator!r}."
            )
        self.calibrator = calibrator
        super().__init__([as_scorer(model, {})])

    def _join(self, members: Sequence[Scorer]) -> None:
        super()._join(members)
        self.calibrated = True
        if isinstance(self.calibrator, Calibrator):
            self.calibrator.check(self.name, revision=self.revision)

    def without_probabilities(self, *, calibrated: bool) -> Scorer | None:
        return without_probabilities(self.member, calibrated=True)

    def undeclared(self, *, calibrated: bool) -> Scorer | None:
        return undeclared(self.member, calibrated=True)

    def identity(self) -> Mapping[str, object] | None:
        return self.member.identity()  # the scores are the same

    def _plan(self, requests: Sequence[ScoreRequest]) -> CombinedPlan:
        (outcomes,) = yield [Ask(self.member, requests)]
        return [self._calibrated(request, outcome) for request, outcome in zip(requests, outcomes, strict=True)]

    def _calibrated(self, request: ScoreRequest, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Scores) or outcome.attempts:
            return outcome
        if not isinstance(self.calibrator, Calibrator):
            return replace(outcome, calibrator=self.calibrator)
        prompt: str | Literal[False] | None = request.instruction if self.accepts_instruction else False
        return replace(outcome, calibrator=self.calibrator.for_scores(outcome, self.name, prompt=prompt))
