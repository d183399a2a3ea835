"""A calibrator: turns one model's raw scores into probabilities that a document is relevant.

Fitted once on judged scores, kept as JSON, applied with nothing but the standard library. It knows whose scores it
was fitted on, and refuses those of another model: the same number means something else there.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

from uprank.calibrations.curves import Curve, Interpolated, Logistic, as_floats, log_odds
from uprank.calibrations.fitting import Method, fit_curve, valid_method
from uprank.calibrations.judged import JudgedScores, Labels, ScoresLike, judged_scores
from uprank.calibrations.reliability import CalibrationReport, Threshold, find_threshold, reliability
from uprank.errors import ConfigurationError, InvalidInputError, ScoreKindError
from uprank.scorers.base import ScoreKind, Scores
from uprank.scorers.presets import PRESETS

__all__ = ["Calibrator", "FittedOn", "shipped_calibrator", "shipped_file"]

_FORMAT = "uprank-calibrator"
_VERSION = 1
_ODDS = ("logit", "probability")  # two ways to write the same thing


@dataclass(frozen=True, slots=True)
class FittedOn:
    """What a calibrator was fitted on, without a text of it.

    Args:
        digest: SHA-256 of the scores and labels, whatever their order.
        count: Judged scores.
        positives: Those of relevant documents. Their share is what the calibrator takes for granted.
        ece: As in :class:`~uprank.calibrations.reliability.CalibrationReport`, on the very scores fitted on; those
            of other queries are what tells. Likewise the next two.
        brier: Likewise.
        log_loss: Likewise.
    """

    digest: str
    count: int
    positives: int
    ece: float
    brier: float
    log_loss: float


@dataclass(frozen=True, slots=True, repr=False)
class Calibrator:
    """A non-decreasing function from a model's raw scores to probabilities; made by :meth:`fit` or :meth:`load`.

    Give it to ``Reranker(..., score="probability", calibrator=...)``, or tie it to a model of a composition with
    :class:`~uprank.scorers.combined.calibrated.Calibrated`. It never changes, and may be shared and pickled.

    Args:
        method: How it was fitted.
        curve: The function itself; for logits and probabilities, of the log odds.
        model: Whose scores it takes; a preset's name stands for the model behind it.
        kind: What they mean; ``None`` where that is not known: then it is not checked.
        revision: Which version of the model; ``None`` where that is not known: then it is not checked.
        prompt: The instruction or prompt that the model was given; ``None`` for none.
        fitted_on: What it was fitted on; ``None`` where it was made by hand.

    Raises:
        ConfigurationError: If an argument is not what it should be.
    """

    method: Method
    curve: Curve
    model: str
    kind: ScoreKind | None = None
    revision: str | None = None
    prompt: str | None = None
    fitted_on: FittedOn | None = None

    def __post_init__(self) -> None:
        valid_method(self.method)
        if isinstance(self.curve, Interpolated) != (self.method == "isotonic"):
            raise ConfigurationError(f"A calibrator by {self.method} has no curve of {type(self.curve).__name__}.")
        if not isinstance(self.model, str) or not self.model:
            raise ConfigurationError(f"A calibrator is of one model: give its name, not {self.model!r}.")
        if self.kind is not None and self.kind not in get_args(ScoreKind):
            raise ConfigurationError(f"kind must be one of {', '.join(get_args(ScoreKind))}; got {self.kind!r}.")
        for what, value in (("revision", self.revision), ("prompt", self.prompt)):
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(f"{what} must be a string or None, got {type(value).__name__}.")
        if self.method == "temperature" and self.kind not in (None, *_ODDS):
            raise ConfigurationError(
                f"A temperature is for logits and probabilities; at a {self.kind} of 0 the odds are not even. Use "
                'method="platt" or "isotonic".'
            )
        object.__setattr__(self, "model", _full_name(self.model))

    @classmethod
    def fit(
        cls,
        scores: ScoresLike,
        labels: Labels,
        *,
        method: Method = "platt",
        model: str | None = None,
        kind: ScoreKind | None = None,
        revision: str | None = None,
        prompt: str | None = None,
        relevant_from: float = 1.0,
    ) -> Calibrator:
        """Learn from judged scores. Needs scikit-learn: ``pip install "uprank[calibration]"``.

        A calibrator learns how often a score means relevance among the candidates that it is shown. Fit it on
        candidates like those that it will be used on: as many a query, from the same retriever. Keep some queries
        back for :meth:`evaluate`.

        Args:
            scores: Rankings of all candidates, made with ``score="native"`` and without ``top_n`` and ``threshold``;
                or raw scores in one list.
            labels: Of rankings, a list a query with a label for each document in the order they were given; of
                numbers, one each. ``None`` where nobody judged.
            method: ``"platt"`` where judgements are few, ``"isotonic"`` where they are a thousand or more,
                ``"temperature"`` for logits that only lack the right certainty. See
                :data:`~uprank.calibrations.fitting.Method`.
            model: Whose scores they are; rankings tell it themselves.
            kind: What they mean; rankings tell it themselves. Probabilities are taken as their log odds.
            revision: Which version of the model.
            prompt: The instruction or prompt that the model was given.
            relevant_from: The least label that counts as relevant: 1 unless grades say otherwise.

        Raises:
            InvalidInputError: If scores and labels do not fit, are no finite numbers, or all or none are relevant.
            ScoreKindError: If a higher score does not go with relevance.
            ConfigurationError: If ``method`` is none, or no model is named.
            MissingDependencyError: If scikit-learn is not installed.
        """
        valid_method(method)
        judged = judged_scores(scores, labels, relevant_from=relevant_from)
        if None not in (model, judged.model) and _full_name(str(model)) != _full_name(str(judged.model)):
            raise ConfigurationError(f"These are rankings of {judged.model}, not of {model}.")
        if None not in (kind, judged.kind) and kind != judged.kind:
            raise ConfigurationError(f"These rankings have {judged.kind!r} scores, not {kind!r} ones.")
        named = model or judged.model
        if named is None:
            raise ConfigurationError('A calibrator is of one model: name it, e.g. model="embedded".')
        kind = kind or judged.kind
        # Checked before the data are, so that the message is about what was asked for.
        blank = cls(method, _BLANK[method], named, kind, revision, prompt)
        fitted = replace(blank, curve=fit_curve(method, [blank._input(one) for one in judged.scores], judged.relevant))
        report = fitted._report(judged)
        figures = (report.ece, report.brier, report.log_loss)
        return replace(fitted, fitted_on=FittedOn(judged.digest(), report.count, report.positives, *figures))

    def __call__(self, score: float) -> float:
        """The probability that a document with this raw score is relevant.

        Raises:
            InvalidInputError: If the score is NaN.
        """
        if math.isnan(score):
            raise InvalidInputError("A score of NaN has no probability.")
        return self.curve(self._input(score))

    def evaluate(self, scores: ScoresLike, labels: Labels, *, relevant_from: float = 1.0) -> CalibrationReport:
        """Measure on judged scores; those of queries that it was not fitted on tell the truth.

        Args:
            scores: As for :meth:`fit`: raw scores, not the probabilities that this calibrator gives.
            labels: Likewise.
            relevant_from: Likewise.

        Raises:
            InvalidInputError: As :meth:`fit` does.
            ScoreKindError: If rankings are of another model, or of another kind of score.
        """
        calibrator, judged = self._for_judged(scores, labels, relevant_from)
        return calibrator._report(judged)

    def threshold_for(
        self,
        scores: ScoresLike,
        labels: Labels,
        *,
        precision: float | None = None,
        recall: float | None = None,
        relevant_from: float = 1.0,
    ) -> Threshold:
        """Find the threshold for a wanted precision or recall.

        Args:
            scores: As for :meth:`evaluate`; best of queries that it was not fitted on.
            labels: Likewise.
            precision: The share of what is kept that shall be relevant; what is found keeps the most that allows it.
            recall: The share of the relevant that shall be kept; what is found keeps the least that allows it.
            relevant_from: As for :meth:`fit`.

        Raises:
            InvalidInputError: If not exactly one of the two is given, or it cannot be reached on these data.
            ScoreKindError: As :meth:`evaluate` does.
        """
        calibrator, judged = self._for_judged(scores, labels, relevant_from)
        probabilities = [calibrator(score) for score in judged.scores]
        return find_threshold(probabilities, judged.scores, judged.relevant, precision=precision, recall=recall)

    def check(
        self,
        model: str,
        *,
        kind: ScoreKind | None = None,
        revision: str | None = None,
        prompt: str | Literal[False] | None = False,
    ) -> None:
        """Refuse scores that it was not fitted on.

        Args:
            model: Whose scores they are.
            kind: What they mean; logits and probabilities may stand for each other. ``None`` is not checked.
            revision: Which version of the model gave them; ``None`` is not checked.
            prompt: The instruction or prompt that the model was given, ``None`` for none; ``False`` is not checked.

        Raises:
            ScoreKindError: If one of these is another than it was fitted with; it names both.
        """
        differences: list[tuple[str, object, object]] = []
        if _full_name(model) != self.model:
            differences.append(("scores of", self.model, model))
        elif None not in (revision, self.revision) and revision != self.revision:
            differences.append((f"{self.model} of revision", self.revision, revision))
        elif prompt is not False and prompt != self.prompt:
            differences.append((f"{self.model} with the prompt", repr(self.prompt), repr(prompt)))
        elif None not in (kind, self.kind) and kind != self.kind and not {kind, self.kind} <= {*_ODDS}:
            differences.append((f"scores of {self.model} that are", f"{self.kind!r}", f"{kind!r}"))
        for what, own, other in differences:
            raise ScoreKindError(
                f"This calibrator was fitted on {what} {own}, not {other}: there the same number means something else. "
                "Fit one on its scores with Calibrator.fit."
            )

    def for_scores(self, scores: Scores, model: str, *, prompt: str | Literal[False] | None = False) -> Calibrator:
        """The calibrator as it takes the raw values of an answer, checked against it.

        One that was fitted on the probabilities that a cross-encoder reports takes its logits too.

        Args:
            scores: The answer.
            model: Who gave it.
            prompt: As for :meth:`check`.

        Raises:
            ScoreKindError: As :meth:`check` does.
        """
        kind: ScoreKind = scores.kind if scores.reported is None else "probability"
        self.check(model, kind=kind, prompt=prompt)
        return self._for_kind(kind)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a JSON file, which holds numbers and names but no text of what it was fitted on.

        Raises:
            OSError: If the file cannot be written.
        """
        Path(path).write_text(json.dumps(self._to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibrator:
        """Read one that :meth:`save` wrote. Needs nothing but the standard library.

        Raises:
            ConfigurationError: If the file is none, of a later version, or damaged.
            OSError: If it cannot be read.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls._from_dict(content)
        except ConfigurationError as error:
            raise ConfigurationError(f"{os.fspath(path)}: {error}") from None
        except (ValueError, TypeError, KeyError, OverflowError) as error:  # no JSON, or something is missing in it
            raise ConfigurationError(
                f"{os.fspath(path)} is no calibrator that can be read ({type(error).__name__}: {error})."
            ) from None

    def __repr__(self) -> str:
        return f"<Calibrator of {self.model} by {self.method}>"

    def _input(self, score: float) -> float:
        return log_odds(score) if self.kind == "probability" else score

    def _for_kind(self, kind: ScoreKind | None) -> Calibrator:
        return self if None in (kind, self.kind) or kind == self.kind else replace(self, kind=kind)

    def _for_judged(self, scores: ScoresLike, labels: Labels, relevant_from: float) -> tuple[Calibrator, JudgedScores]:
        judged = judged_scores(scores, labels, relevant_from=relevant_from)
        if judged.model is not None:
            self.check(judged.model, kind=judged.kind)
        return self._for_kind(judged.kind), judged

    def _report(self, judged: JudgedScores) -> CalibrationReport:
        return reliability([self(score) for score in judged.scores], judged.relevant)

    def _to_dict(self) -> dict[str, object]:
        on = self.fitted_on
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "method": self.method,
            "parameters": _parameters(self.method, self.curve),
            "model": self.model,
            "kind": self.kind,
            "revision": self.revision,
            "prompt": self.prompt,
            "fitted_on": None if on is None else {name: getattr(on, name) for name in FittedOn.__slots__},
        }

    @classmethod
    def _from_dict(cls, content: object) -> Calibrator:
        if not isinstance(content, Mapping) or content.get("format") != _FORMAT:
            raise ConfigurationError("this is no file of a calibrator.")
        if content.get("version") != _VERSION:
            raise ConfigurationError(
                f"its version is {content.get('version')!r}, and this uprank reads version {_VERSION}; use the uprank "
                "that wrote it, or a later one."
            )
        method = valid_method(content["method"])
        on = content["fitted_on"]
        return cls(
            method,
            _curve(method, content["parameters"]),
            content["model"],
            content["kind"],
            content["revision"],
            content["prompt"],
            None if on is None else FittedOn(**on),
        )


_BLANK: Mapping[Method, Curve] = {
    "platt": Logistic(1.0),
    "temperature": Logistic(1.0),
    "isotonic": Interpolated((0.0,), (0.0,)),
}


def shipped_file(model: str) -> Path:
    """Where the calibrator of a model is that comes with this package."""
    return Path(__file__).parent / "calibrations" / f"{model}.json"


@cache
def shipped_calibrator(model: Literal["embedded"]) -> Calibrator:
    """The calibrator that comes with this package; read once.

    That of the embedded model was fitted on passages found by a first stage, of which about one in six was relevant.
    """
    return Calibrator.load(shipped_file(model))


def _full_name(model: str) -> str:
    return PRESETS[model].model if model in PRESETS else model


def _parameters(method: Method, curve: Curve) -> dict[str, object]:
    if isinstance(curve, Interpolated):
        return {"scores": curve.scores, "probabilities": curve.probabilities}
    if method == "temperature":
        return {"inverse_temperature": curve.slope}  # not its inverse, which would not come back bit by bit
    return {"slope": curve.slope, "intercept": curve.intercept}


def _curve(method: Method, parameters: Mapping[str, object]) -> Curve:
    if method == "isotonic":
        scores, heights = (cast("Sequence[object]", parameters[name]) for name in ("scores", "probabilities"))
        return Interpolated(as_floats(scores), as_floats(heights))
    if method == "temperature":
        return Logistic(*as_floats([parameters["inverse_temperature"]]))
    return Logistic(*as_floats([parameters["slope"], parameters["intercept"]]))
