"""Long documents by parts: every part is scored by itself, and a document's score is made of those of its parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

from uprank.errors import ConfigurationError
from uprank.scorers.base import Outcome, Scorer, ScoreRequest
from uprank.scorers.combined.base import Ask, CombinedPlan, leaves
from uprank.scorers.combined.windows import windows
from uprank.scorers.combined.wrapper import Wrapper
from uprank.scorers.evidence import Evidence, Passage
from uprank.scorers.registry import Model, as_scorer

__all__ = ["Aggregation", "Passages"]

Aggregation: TypeAlias = Literal["max_passage", "mean_top"]

_WINDOW = 512  # what most cross-encoders read, and as much as one passage is good for
_QUERY_ROOM = 64  # for a query; a longer one gets this much again, so that windows change with few queries
_LEAST = 8
_SPECIAL = 2  # tokens that a model adds to a text
_SPLIT_ASIDE = 20_000  # characters of all texts: some milliseconds


class Passages(Wrapper):
    """Scores long documents by passages: ``Passages("cross-encoder:…")``.

    Each text is split into windows that overlap and end with a sentence; see
    :func:`~uprank.scorers.combined.windows.windows`. A text that fits into one goes through whole. All windows of a
    request are one request to the scorer, and a passage that several texts share is scored once. The best window is
    told as :attr:`~uprank.scorers.evidence.Evidence.passage`, of a short text all of it.

    * ``"max_passage"``: a document's score is that of its best window (Dai and Callan, "Deeper Text Understanding
      for IR with Contextual Neural Language Modeling", SIGIR 2019, MaxP).
    * ``"mean_top"``: the mean of its ``top`` best, which one chance hit moves less. The mean is taken of the values
      that decide the order, so of logits, not of probabilities. Where the scorer tells what is shown apart from
      those, what is shown is the mean for the same windows, lowered where a document placed higher shows less.

    A scorer that compares documents with each other (``listwise``) gets all windows as its list. It then ranks many
    more texts than there are documents, which costs a language model accordingly.

    Args:
        scorer: A name, a scorer or a function.
        how: ``"max_passage"`` or ``"mean_top"``.
        tokens: The most in a window, at least 8. By default what the scorer reads of a document, at most 512. Of that
            a multiple of 64 is left for query and instruction, unless the scorer keeps the vectors of documents:
            then it reads them apart from the query. Before a model is loaded it may not be known what it reads;
            512 is assumed.
        overlap: The most that neighbouring windows share, at most half of ``tokens``; by default a sixth.
        top: How many windows ``"mean_top"`` takes; all, where a text has fewer.
        count_tokens: Counts the tokens of a text. The default, :func:`~uprank.tokens.estimate_tokens`,
            rather counts too many, so that a window fits the model.

    Raises:
        ConfigurationError: If an option is out of range.
    """

    def __init__(
        self,
        scorer: Model,
        how: Aggregation = "max_passage",
        *,
        tokens: int | None = None,
        overlap: int | None = None,
        top: int = 3,
        count_tokens: Callable[[str], int] | None = None,
    ) -> None:
        if how not in get_args(Aggregation):
            raise ConfigurationError(f'how must be "max_passage" or "mean_top", got {how!r}.')
        if count_tokens is not None and not callable(count_tokens):
            raise ConfigurationError(
                f"count_tokens must be a function from a text to its tokens, got {type(count_tokens).__name__}."
            )
        self._how: Aggregation = how
        self._tokens = None if tokens is None else _at_least(_LEAST, tokens, "tokens")
        self._overlap = None if overlap is None else _at_least(0, overlap, "overlap")
        if self._overlap is not None and 2 * self._overlap > (self._tokens or _WINDOW):
            raise ConfigurationError(
                f"overlap must be at most half of the {self._tokens or _WINDOW} tokens of a window, got {overlap}."
            )
        self._top = 1 if how == "max_passage" else _at_least(1, top, "top")
        self._count = count_tokens
        super().__init__([as_scorer(scorer, {})])

    @property
    def document_window(self) -> None:  # type: ignore[override]  # the scorer's own holds for a window, not for a text
        return None

    def identity(self) -> Mapping[str, object] | None:
        member = self.member.identity()
        if member is None or self._count is not None:
            return None
        own = {"how": self._how, "tokens": self._tokens, "overlap": self._overlap, "top": self._top}
        return {"passages": own, "of": dict(member)}

    def precompute(self, texts: Iterable[str], *, progress: bool = False) -> int:
        """Have the scorer compute and keep the vectors of all windows; see :meth:`Scorer.precompute`."""
        tokens = self._window("", None)
        return super().precompute(
            (text[start:end] for text in texts for start, end in self._windows(text, tokens)), progress=progress
        )

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`CombinedScorer.ascore_many`; long texts are split in a thread, so that the loop stays free."""
        import asyncio  # imported late: a third of the time of `import uprank`

        if sum(len(text) for request in requests for text in request.texts) >= _SPLIT_ASIDE:
            requests = await asyncio.to_thread(lambda: [self._split(request) for request in requests])
        return await super().ascore_many(requests)

    def _plan(self, requests: Sequence[ScoreRequest]) -> CombinedPlan:
        split = [request if isinstance(request, _Split) else self._split(request) for request in requests]
        (outcomes,) = yield [Ask(self.member, [one.passages for one in split])]
        return [self._joined(one, outcome) for one, outcome in zip(split, outcomes, strict=True)]

    def _split(self, request: ScoreRequest) -> _Split:
        tokens = self._window(request.query, request.instruction)
        position_of: dict[str, int] = {}
        retrieved: list[float] = []
        windows: list[list[_Window]] = []
        for number, text in enumerate(request.texts):
            found = []
            for start, end in self._windows(text, tokens):
                passage = Passage(start, end, text[start:end])
                position = position_of.setdefault(passage.text, len(position_of))
                found.append(_Window(passage, position))
                if request.retrieval_scores is None:
                    continue
                score = request.retrieval_scores[number]
                if position == len(retrieved):
                    retrieved.append(score)
                else:
                    retrieved[position] = max(retrieved[position], score)
            windows.append(found)
        scores = None if request.retrieval_scores is None else tuple(retrieved)
        return _Split(
            request.query,
            request.texts,
            request.instruction,
            request.retrieval_scores,
            windows=windows,
            passages=replace(request, texts=tuple(position_of), retrieval_scores=scores),
        )

    def _windows(self, text: str, tokens: int) -> Iterator[tuple[int, int]]:
        from uprank.tokens import estimate_tokens

        count = self._count or estimate_tokens
        overlap = tokens // 6 if self._overlap is None else min(self._overlap, tokens // 2)
        yield from windows(text, tokens, overlap, count)

    def _window(self, query: str, instruction: str | None) -> int:
        """The most tokens in a window of a request."""
        readers = leaves(self.member)
        known = [reader.document_window for reader in readers if reader.document_window is not None]
        if self._tokens is not None:  # but no more than is read
            return max(_LEAST, min([self._tokens, *(window - _SPECIAL for window in known)]))
        window = min([_WINDOW, *known]) - _SPECIAL
        if all(type(reader).precompute is not Scorer.precompute for reader in readers):
            return max(_LEAST, window)
        from uprank.tokens import estimate_tokens

        asked = estimate_tokens(query) + (0 if instruction is None else estimate_tokens(instruction))
        room = _QUERY_ROOM * max(1, -(-asked // _QUERY_ROOM))
        return max(_LEAST, window - min(room, window // 2))

    def _joined(self, split: _Split, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Exception):
            return outcome
        chosen = [self._best(found, outcome.values) for found in split.windows]
        values = [_mean([outcome.values[one.position] for one in best]) for best in chosen]
        reported: list[float | None] | None = None
        if outcome.reported is not None:
            reported = [_mean_known([outcome.reported[one.position] for one in best]) for best in chosen]
            if self._top > 1:
                _lower(reported, values)
        evidence = [
            _evidence(outcome.evidence, best[0], found) for best, found in zip(chosen, split.windows, strict=True)
        ]
        return replace(
            outcome,
            values=values,
            reported=reported,
            evidence=evidence,
            warnings=tuple(dict.fromkeys(outcome.warnings)),
        )

    def _best(self, found: Sequence[_Window], values: Sequence[float]) -> Sequence[_Window]:
        """The best windows of a text, best first; of like ones, the earlier."""
        return sorted(found, key=lambda one: -values[one.position])[: self._top]


@dataclass(frozen=True, slots=True)
class _Window:
    """A part of a text.

    Args:
        passage: The part.
        position: Its place among those that are scored.
    """

    passage: Passage
    position: int


@dataclass(frozen=True, slots=True)
class _Split(ScoreRequest):
    """A request, its texts split.

    Args:
        windows: Those of each text.
        passages: A request for all of them, each once.
    """

    windows: Sequence[Sequence[_Window]] = field(kw_only=True)
    passages: ScoreRequest = field(kw_only=True)


def _evidence(known: Sequence[Evidence] | None, best: _Window, found: Sequence[_Window]) -> Evidence:
    """What a text's score rests on: what is known of its best window, and which that is."""
    if known is None:
        return Evidence(passage=best.passage)
    cut = [known[one.position].truncated for one in found]
    truncated = True if True in cut else None if None in cut else False
    return replace(known[best.position], passage=best.passage, truncated=truncated)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)  # exact, so that the mean of like numbers is that number


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def _lower(reported: list[float | None], values: Sequence[float]) -> None:
    """Lower what is shown of a document to the least that is shown of those above it."""
    least = 1.0
    for place in sorted(range(len(values)), key=lambda place: -values[place]):
        shown = reported[place]
        if shown is not None:
            reported[place] = least = min(least, shown)


def _at_least(least: int, number: int, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ConfigurationError(f"{name} must be an integer of at least {least}, got {number!r}.")
    return number
