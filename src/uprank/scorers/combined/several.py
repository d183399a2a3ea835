"""What the scorers share that ask several models of each request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from uprank.calibration import report
from uprank.errors import AllModelsFailedError, ConfigurationError, ScoreKindError
from uprank.scorers.base import Scorer, Scores
from uprank.scorers.combined.base import undeclared, without_probabilities
from uprank.scorers.evidence import Attempt, Evidence
from uprank.scorers.registry import Model, as_scorer

__all__ = [
    "evidence",
    "failed",
    "members_of",
    "notes",
    "probabilities",
    "require_probabilities",
]


def members_of(models: Sequence[Model], who: str) -> list[Scorer]:
    """The scorers that a caller's list of models stands for.

    Args:
        models: Names, scorers or functions.
        who: Is made of them, for errors.

    Raises:
        ConfigurationError: If it is no list, or one of them is no model.
    """
    if isinstance(models, (str, Scorer)) or not isinstance(models, Iterable):
        raise ConfigurationError(f'{who} takes a list of models, e.g. ["bm25", "embedded"]; got {models!r}.')
    return [as_scorer(model, {}) for model in models]


def require_probabilities(members: Iterable[Scorer], option: str, instead: str) -> None:
    """Refuse members that are known to have no probabilities to give.

    Args:
        members: Who must have them.
        option: Why they must, for the error.
        instead: What does without, for the error.

    Raises:
        ScoreKindError: If one has none. What a model tells when it is loaded shows in :func:`probabilities`.
    """
    for member in members:
        function = undeclared(member)
        if function is not None:
            raise ScoreKindError(
                f"{option} needs to know what the numbers of {function.name} mean: give "
                'CallableScorer(function, score_kind="logit") (a sigmoid is applied) or score_kind="probability" '
                f"(it is not). Or use {instead}."
            )
        lacking = without_probabilities(member)
        if lacking is not None:
            raise _no_probabilities(lacking, str(lacking.score_kind), option, instead)


def probabilities(scores: Scores, member: Scorer, option: str, instead: str) -> list[float | None]:
    """The probabilities of a member's checked scores; ``None`` where it has none for a text.

    Where another model answered in the member's place and has none, nobody has: that its stand-in is another kind
    of model must not make an outage of it.

    Raises:
        ScoreKindError: If no sigmoid and no calibrator turns them into probabilities.
        ScorerError: If their calibrator fails.
    """
    try:
        reported, _ = report(scores, "probability", None, model=scores.model or member.name)
    except ScoreKindError:
        if scores.attempts:
            return [None] * len(scores.values)
        if scores.calibrator is not None:  # it decreases, which is for its own error to say
            raise
        raise _no_probabilities(member, scores.kind, option, instead) from None
    return [None if one is None else min(1.0, max(0.0, one)) for one in reported]  # it may be off by a rounding error


def notes(member: Scorer, scores: Scores) -> list[str]:
    """A member's warnings, with its name."""
    return [f"{member.name}: {warning}" for warning in scores.warnings]


def evidence(member: Scorer, scores: Scores) -> list[Evidence]:
    """What is known of each score of a member, its model included."""
    by = scores.model or member.name
    known = scores.evidence or [Evidence()] * len(scores.values)
    return [replace(one, model=one.model or by) for one in known]


def failed(who: str, errors: Sequence[Exception], attempts: Sequence[Attempt]) -> Exception:
    """The error where every member has failed: the only one's own, or one that names all of them.

    Args:
        who: Is made of them.
        errors: At least one; each names its model.
        attempts: What is told of them.
    """
    if len(errors) == 1:
        return errors[0]
    told = " ".join(f"({number}) {error}" for number, error in enumerate(errors, start=1))
    failure = AllModelsFailedError(f"All models of {who} failed: {told}", tuple(attempts))
    failure.__cause__ = errors[-1]
    return failure


def _no_probabilities(member: Scorer, kind: str, option: str, instead: str) -> ScoreKindError:
    return ScoreKindError(
        f"{option} needs probabilities, and {member.name} gives {kind!r} scores, which no sigmoid turns into them. "
        f"Use {instead}, or give Calibrated(model, calibrator) in its place."
    )
