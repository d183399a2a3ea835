"""From all ranked documents to those that are returned: thresholds, gaps, a budget of tokens, diversity."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from uprank.documents import scorable
from uprank.errors import ConfigurationError, QueryTooLongError, ScorerError, UprankError
from uprank.scorers.base import Outcome, ScoreKind, Scorer, ScoreRequest
from uprank.scorers.checking import check_scores
from uprank.scorers.combined.base import Ask, leaves
from uprank.selection import Selection

if TYPE_CHECKING:
    from uprank.scorers.local.embedded import EmbeddedScorer

__all__ = ["Candidate", "Choice", "Kept", "chosen", "keep", "similarity_scorer"]

_POOL = 4  # times as many as are wanted are looked at for diversity,
_LEAST_POOL = 50  # and no fewer than these
_SIMILARITY_TOKENS = 256  # the window that the model was made for; a text's beginning tells its subject


@dataclass(frozen=True, slots=True)
class Candidate:
    """A ranked document, as far as choosing looks at it.

    Args:
        index: Its position in the caller's list, for messages.
        score: As it is reported; ``None`` where it has none.
        text: What its tokens are counted of, and what is compared with other documents.
    """

    index: int
    score: float | None
    text: str


class Kept(NamedTuple):
    """What is returned.

    Attributes:
        positions: Of the candidates kept, ascending: their order is never changed.
        warnings: What the caller should know.
        degraded: Whether it is not the choice that was asked for, but the best that could be had.
    """

    positions: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    degraded: bool = False


Choice: TypeAlias = Generator[ScoreRequest, Outcome, Kept]
"""Asks how similar texts are to one that was chosen, and returns what is kept."""


def keep(
    ordered: Sequence[Candidate],
    selection: Selection,
    *,
    kind: ScoreKind | None,
    model: str,
    degraded: bool = False,
    count_tokens: Callable[[str], int] | None = None,
    strict: bool = True,
) -> Choice:
    """Choose which documents of a ranking are returned. What is returned keeps its order.

    ``threshold`` and ``min_gap`` are both looked at on the whole ranking, so that neither depends on the
    other; of several equal gaps the first counts. ``keep_at_least`` is how many they leave. Then documents are taken,
    best first, until ``top_n`` are there or ``max_tokens`` are used up; one that does not fit into what is left of the
    budget is passed over, and smaller ones after it may still come in.

    With ``diversity`` they are not taken best first, but by maximal marginal relevance: the next is the one with the
    greatest ``(1 - diversity) * relevance - diversity * similarity``, where relevance is its score scaled to [0, 1]
    among the candidates (its place, where scores are missing or mean an order alone), and similarity its greatest
    cosine to a document taken before; the first is always the best that fits. Candidates are the best four times as
    many as would be taken without it, at least 50; those below come in only where these do not fill the budget. It
    asks one request for each document taken. Where nothing is left out it changes nothing, and asks nothing.

    Args:
        ordered: All documents, in their final order.
        selection: Which of them are wanted.
        kind: What their scores mean.
        model: Named in errors.
        degraded: Whether the order is only the best that could be had. What has no score in it passes thresholds and
            gaps, since else it would be lost for a failure.
        count_tokens: How many tokens a text has; by default an estimate that is seldom too low.
        strict: Raise where similarities are not to be had; else choose without diversity, and say so.

    Yields:
        What is to be scored by similarity: the text last chosen, and the others that may still be.

    Raises:
        ScoreKindError: If scores are compared that mean an order alone.
        ConfigurationError: If ``count_tokens`` fails, or gives no number of tokens.
        ScorerError: If similarities are not to be had, and ``strict`` is set.
    """
    selection.check_kind(kind, model)
    passing = _passing(ordered, selection, degraded=degraded)
    if selection.top_n is None and selection.max_tokens is None:
        return Kept(tuple(passing))
    sizes = _Sizes(ordered, selection.max_tokens, count_tokens)
    plain = _Room(selection, sizes).filled(passing)
    if selection.diversity is None or len(plain) in (0, len(passing)):
        return Kept(tuple(plain), sizes.warnings())
    try:
        diverse = yield from _diverse(ordered, passing, selection, sizes, kind, len(plain))
    except ScorerError as error:
        if strict:
            raise
        note = f"Diversity was left out, since similarities were not to be had: {error}"
        return Kept(tuple(plain), (*sizes.warnings(), note), degraded=True)
    return Kept(tuple(sorted(diverse)), sizes.warnings())


def chosen(
    choices: Sequence[Choice], similar: Callable[[], Scorer]
) -> Generator[Ask, list[Outcome], list[Kept | Exception]]:
    """Run choices in step, so that the similarities that all of them ask for are scored as one call.

    Args:
        choices: As :func:`keep` makes them.
        similar: Gives the scorer of similarities. Called where one is asked for.

    Returns:
        For each choice what it keeps, or why it failed.
    """
    ended: list[Kept | Exception | None] = [None] * len(choices)
    asked: dict[int, ScoreRequest] = {}

    def advance(number: int, outcome: Outcome | None) -> None:
        try:
            asked[number] = next(choices[number]) if outcome is None else choices[number].send(outcome)
        except StopIteration as stop:
            ended[number] = stop.value
        except Exception as error:  # handed on as a value: each choice fails by itself
            ended[number] = error

    try:
        for number in range(len(choices)):
            advance(number, None)
        while asked:
            requests, asked = asked, {}
            outcomes: list[Outcome]
            try:
                outcomes = yield Ask(similar(), list(requests.values()))
            except Exception as error:  # likewise: a choice may do without
                outcomes = [error] * len(requests)
            for number, outcome in zip(requests, outcomes, strict=True):
                advance(number, outcome)
    finally:
        for choice in choices:
            choice.close()
    return ended  # type: ignore[return-value]  # all have ended


def similarity_scorer(used: Scorer | None = None) -> EmbeddedScorer:
    """The scorer that diversity asks: the embedded model. It is loaded when it is asked.

    Args:
        used: What ranks the documents. Where the embedded model is among what it is made of, and keeps vectors, that
            very one is asked: it has read the documents already. Else one is that the whole process shares.

    Raises:
        MissingDependencyError: If the model's package is not installed.
    """
    from uprank.scorers.local.embedded import EmbeddedScorer  # needs NumPy

    for leaf in () if used is None else leaves(used):
        if isinstance(leaf, EmbeddedScorer) and leaf._store.keeps:
            return leaf
    return _shared()


@lru_cache(maxsize=1)
def _shared() -> EmbeddedScorer:
    from uprank.scorers.local.embedded import EmbeddedScorer

    return EmbeddedScorer(long_query="truncate", max_length=_SIMILARITY_TOKENS)


def _passing(ordered: Sequence[Candidate], selection: Selection, *, degraded: bool) -> list[int]:
    """The positions that threshold and gap leave."""
    if not selection.limits_scores:
        return [*range(len(ordered))]
    end = len(ordered) if selection.min_gap is None else _largest_gap(ordered, selection.min_gap)

    def passes(position: int, score: float | None) -> bool:
        return selection.passes(score, degraded=degraded) and (position < end or (score is None and degraded))

    least = selection.keep_at_least
    return [position for position, one in enumerate(ordered) if position < least or passes(position, one.score)]


def _largest_gap(ordered: Sequence[Candidate], min_gap: float) -> int:
    """Where the documents below the largest drop begin; the end, where no drop is large enough."""
    known = [(position, one.score) for position, one in enumerate(ordered) if one.score is not None]
    end, largest = len(ordered), 0.0
    for (_, above), (position, below) in pairwise(known):
        drop = above - below
        if drop >= min_gap and drop > largest:
            end, largest = position, drop
    return end


class _Sizes:
    """The tokens of each candidate, counted once and only where a budget asks for them.

    Args:
        ordered: All candidates.
        max_tokens: The whole budget.
        count: How many tokens a text has; ``None`` for the estimate.
    """

    def __init__(
        self, ordered: Sequence[Candidate], max_tokens: int | None, count: Callable[[str], int] | None
    ) -> None:
        self._ordered = ordered
        self._max_tokens = max_tokens
        self._count = count
        self._known: dict[int, int] = {}

    def of(self, position: int) -> int:
        if self._max_tokens is None:
            return 0
        if position not in self._known:
            self._known[position] = self._counted(self._ordered[position])
        return self._known[position]

    def warnings(self) -> tuple[str, ...]:
        """Tells of documents that no room can be made for: without them, a context may be empty in silence."""
        too_large = [position for position, tokens in self._known.items() if tokens > (self._max_tokens or 0)]
        if not too_large:
            return ()
        first = min(too_large)
        what = "1 document has" if len(too_large) == 1 else f"{len(too_large)} documents have"
        return (
            f"{what} more than max_tokens={self._max_tokens} tokens and cannot be returned, the best of them "
            f"document {self._ordered[first].index} with {self._known[first]}. Split documents, or raise max_tokens.",
        )

    def _counted(self, candidate: Candidate) -> int:
        count = self._count
        if count is None:
            from uprank.tokens import estimate_tokens  # late: its package loads much else

            count = estimate_tokens
        try:
            tokens = operator.index(count(scorable(candidate.text)))
        except UprankError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"count_tokens failed on document {candidate.index} with {type(error).__name__}: {error}"
            ) from error
        if tokens < 0:
            raise ConfigurationError(f"count_tokens gave {tokens} for document {candidate.index}.")
        return tokens


class _Room:
    """What of ``top_n`` and ``max_tokens`` is left.

    Args:
        selection: Says how much there is at first.
        sizes: How much each candidate takes.
    """

    def __init__(self, selection: Selection, sizes: _Sizes) -> None:
        self._places = math.inf if selection.top_n is None else selection.top_n
        self._tokens = math.inf if selection.max_tokens is None else selection.max_tokens
        self._sizes = sizes

    @property
    def full(self) -> bool:
        return self._places < 1 or self._tokens < 1

    def fits(self, position: int) -> bool:
        return not self.full and self._sizes.of(position) <= self._tokens

    def take(self, position: int) -> None:
        self._places -= 1
        self._tokens -= self._sizes.of(position)

    def filled(self, positions: Iterable[int]) -> list[int]:
        """Take what fits, in order."""
        taken: list[int] = []
        for position in positions:
            if self.full:
                break
            if self.fits(position):
                self.take(position)
                taken.append(position)
        return taken


def _diverse(
    ordered: Sequence[Candidate],
    passing: Sequence[int],
    selection: Selection,
    sizes: _Sizes,
    kind: ScoreKind | None,
    wanted: int,
) -> Generator[ScoreRequest, Outcome, list[int]]:
    """Take by maximal marginal relevance; return the positions in the order in which they were taken."""
    share = selection.diversity or 0.0
    pool = passing[: max(_POOL * wanted, _LEAST_POOL)]
    relevance = dict(zip(pool, _relevance([ordered[position].score for position in pool], kind), strict=True))
    nearest = dict.fromkeys(pool, 0.0)  # the greatest similarity to one that was taken
    room = _Room(selection, sizes)
    taken: list[int] = []
    left = [position for position in pool if room.fits(position)]
    while left:
        # The first of those that are equal: the better ranked. Of none taken yet, all are equally far.
        weighed = (lambda at: (1.0 - share) * relevance[at] - share * nearest[at]) if taken else relevance.__getitem__
        best = max(left, key=weighed)
        room.take(best)
        taken.append(best)
        left = [position for position in left if position != best and room.fits(position)]
        if left:
            similar = yield from _similarities(ordered[best].text, [ordered[position].text for position in left])
            for position, similarity in zip(left, similar, strict=True):
                nearest[position] = similarity if len(taken) == 1 else max(nearest[position], similarity)
    return [*taken, *room.filled(passing[len(pool) :])]


def _relevance(scores: Sequence[float | None], kind: ScoreKind | None) -> list[float]:
    """Scores scaled to [0, 1]; by place, where some are missing or their distances mean nothing."""
    known = [score for score in scores if score is not None]
    if kind == "rank" or len(known) < len(scores):
        return [1.0 - place / len(scores) for place in range(len(scores))]
    low, high = min(known), max(known)
    if low == high:
        return [1.0] * len(known)
    if math.isinf(high - low):
        return [(score / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0) for score in known]
    return [(score - low) / (high - low) for score in known]


def _similarities(one: str, others: Sequence[str]) -> Generator[ScoreRequest, Outcome, list[float]]:
    """How similar texts are to one: the same text entirely, one without words to nothing."""
    one, others = scorable(one), [scorable(other) for other in others]
    known = {text: 0.0 for text in others if not text.strip()} | {one: 1.0}
    asked = [text for text in dict.fromkeys(others) if text not in known]
    query = one.strip()
    if not query:
        known |= dict.fromkeys(asked, 0.0)
    elif asked:
        outcome = yield ScoreRequest(query, asked)
        while isinstance(outcome, QueryTooLongError) and len(query) > 1:  # a document may be of any length
            query = query[: len(query) // 2]
            outcome = yield ScoreRequest(query, asked)
        if isinstance(outcome, UprankError):
            raise outcome
        if isinstance(outcome, Exception):
            raise ScorerError(f"The similarities failed with {type(outcome).__name__}: {outcome}") from outcome
        known |= zip(asked, check_scores(outcome, len(asked), "The model of similarities").values, strict=True)
    return [known[text] for text in others]
