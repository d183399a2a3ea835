"""A scorer around one other, for which it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from uprank.errors import ConfigurationError
from uprank.scorers.base import ScoreKind, Scorer
from uprank.scorers.combined.base import CombinedScorer, undeclared, without_probabilities

__all__ = ["Wrapper", "rebuilt"]


class Wrapper(CombinedScorer):
    """Base of the scorers around one other: what is told of a scorer is told of that one.

    Args:
        members: The one.
    """

    def _join(self, members: Sequence[Scorer]) -> None:
        if len(members) != 1:
            raise ConfigurationError(f"{type(self).__name__} is made around one scorer, got {len(members)}.")
        super()._join(members)
        self.name = self.member.name
        self.calibrated = self.member.calibrated
        self.revision = self.member.revision

    @property
    def member(self) -> Scorer:
        """The scorer inside."""
        return self.members[0]

    def without_probabilities(self, *, calibrated: bool) -> Scorer | None:
        return without_probabilities(self.member, calibrated=calibrated)

    def undeclared(self, *, calibrated: bool) -> Scorer | None:
        return undeclared(self.member, calibrated=calibrated)

    @property
    def score_kind(self) -> ScoreKind | None:  # type: ignore[override]  # what loading tells of the one inside
        return self.member.score_kind

    @property
    def document_window(self) -> int | None:  # type: ignore[override]  # likewise
        return self.member.document_window


def rebuilt(scorer: Scorer, around: Callable[[Scorer], Scorer]) -> Scorer:
    """The same scorer with something around each single model in it.

    Args:
        scorer: One model, or several combined.
        around: Makes of one model what takes its place. A wrapper that stands around one already counts as it.
    """
    if isinstance(scorer, CombinedScorer) and not isinstance(scorer, Wrapper):
        return scorer.with_members([rebuilt(member, around) for member in scorer.members])
    return around(scorer)
