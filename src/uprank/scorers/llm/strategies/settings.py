"""What a caller may set about a strategy, checked."""

from __future__ import annotations

from dataclasses import dataclass

from uprank.errors import ConfigurationError

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a strategy goes about its work. Each reads what concerns it and ignores the rest.

    Args:
        window: Most candidates in one question, at least 2. 20 is what the listwise literature uses; larger
            windows made answers worse in RankGPT's own tables (arXiv:2304.09542).
        step: Candidates by which the sliding window moves, from 1 to ``window - 1``. ``None`` is half the
            window. One pass finds the best ``window - step`` for certain, if the answers are right.
        top: How many candidates at the head must be right, at least 1; what lies behind is ordered roughly.
        passes: How often the sliding window goes over the whole list.
        tournaments: How many tournaments are added up. They run side by side: more cost calls, not rounds.
        blocks: In how many blocks each candidate is shown.
        seed: Of every shuffle. The same seed and answers give the same questions and the same order.

    Raises:
        ConfigurationError: A number is out of its range, or not a whole number.
    """

    window: int = 20
    step: int | None = None
    top: int = 10
    passes: int = 1
    tournaments: int = 2
    blocks: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("window", 2), ("top", 1), ("passes", 1), ("tournaments", 1), ("blocks", 1)):
            value = getattr(self, name)
            if not _is_whole(value) or value < least:
                raise ConfigurationError(f"{name} must be a whole number of at least {least}, not {value!r}.")
        if self.step is not None and not (_is_whole(self.step) and 1 <= self.step < self.window):
            raise ConfigurationError(
                f"step must be a whole number from 1 to window - 1 = {self.window - 1}, not {self.step!r}: "
                "windows that do not overlap cannot carry a candidate from one to the next."
            )
        if not _is_whole(self.seed):
            raise ConfigurationError(f"seed must be a whole number, not {self.seed!r}.")

    @property
    def stride(self) -> int:
        """Candidates by which the sliding window moves: ``step``, or half the window."""
        return self.window // 2 if self.step is None else self.step

    @property
    def head(self) -> int:
        """``top``, but no more than half a window: what partitioning can find for certain at a good price."""
        return min(self.top, self.window // 2)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
