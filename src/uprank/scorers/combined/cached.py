"""A scorer that remembers what it was told."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from uprank.cache.base import Cache, CacheEntry
from uprank.cache.keys import document_keys, identity_digest, list_key
from uprank.cache.records import Kept, kept_of_documents, kept_of_list, pack, unpack
from uprank.errors import ConfigurationError
from uprank.rounds import adrive, drive, in_thread
from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores, Usage
from uprank.scorers.combined.base import Ask, CombinedPlan, CombinedScorer
from uprank.scorers.combined.wrapper import Wrapper
from uprank.scorers.evidence import Evidence
from uprank.scorers.registry import Model, as_scorer

__all__ = ["Cached", "with_cache"]

logger = logging.getLogger("uprank")

Identity: TypeAlias = "Mapping[str, object] | str"

_LONG = 500_000  # characters; to make digests of more takes longer than an event loop should wait
_MANY = 500  # texts; likewise


class Cached(Wrapper):
    """Asks a scorer only for what it has not scored before.

    Of a scorer that scores documents one by one, the score of each is kept, whatever it was listed with; of one that
    judges a list as a whole (``listwise``), the list in its order. A score comes back bit by bit as it was
    first given. Kept under a digest of the scorer's identity, instruction, query and text, it is found by every
    scorer of the same identity: another object, another process. Errors, degraded answers and those of a fallback are
    not kept. Of an answer's warnings, those that tell of documents that were cut are written anew; others come back
    as they were. ``usage`` counts what was asked of the scorer, and nothing of what was found.

    A cache that fails costs no ranking: the scorer is asked, and a warning says why.

    Args:
        scorer: What scores. Not one made of others: give it cached members instead, as :func:`with_cache` does.
        cache: Where scores are kept; may be shared by any scorers. Closing the scorer closes it, too: it opens again
            when it is next used.
        identity: What stands for the scorer in keys, instead of what it tells of itself. Needed of one that
            cannot tell, such as a function; to be changed whenever its scores change.

    Raises:
        ConfigurationError: If the scorer is made of others, cannot tell its identity, or ``cache`` is no cache.
    """

    def __init__(self, scorer: Model, cache: Cache, *, identity: Identity | None = None) -> None:
        if not isinstance(cache, Cache):
            raise ConfigurationError(f"cache must be a MemoryCache, a DiskCache or the like, got {cache!r}.")
        if identity is not None and not (isinstance(identity, (str, Mapping)) and identity):
            raise ConfigurationError(f"identity must be a string or a mapping, and not empty; got {identity!r}.")
        self.cache = cache
        self._given: Mapping[str, object] | None = {"given": identity} if isinstance(identity, str) else identity
        self._told: set[str] = set()  # what the log knows already
        super().__init__([as_scorer(scorer, {})])
        if self._given is not None or not _reads_files(self.member):
            self._identity()

    def _join(self, members: Sequence[Scorer]) -> None:
        super()._join(members)
        if isinstance(self.member, CombinedScorer):
            raise ConfigurationError(
                f"{self.member.name} is made of other scorers, and is not cached as a whole; cache its members."
            )
        self._digest: bytes | None = None  # of the identity
        self._sure = False  # whether it was told again by the model that answered, once it was loaded
        self._calibrator: Callable[[float], float] | None = None  # it cannot be kept: of the scorer, or its last answer

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_digest": None, "_sure": False, "_calibrator": None, "_told": set()}

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`Scorer.score_many`."""
        return drive(self._steps(requests), self._answered) if requests else []

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`score_many`; a cache on disk is read and written in a thread."""
        return await adrive(self._steps(requests), self._aanswered) if requests else []

    def exact(self) -> Scorer:  # type: ignore[override]  # nothing of it is kept: what was given stands for this one
        """The float32 form of the scorer inside, which keeps nothing."""
        return self.member.exact()

    def close(self) -> None:
        super().close()
        self.cache.close()
        self._forget()

    async def aclose(self) -> None:
        await super().aclose()
        await in_thread(self.cache.close)
        self._forget()

    def _forget(self) -> None:
        """A model is loaded anew, and may have changed meanwhile."""
        self._digest, self._sure = None, False

    def _plan(self, requests: Sequence[ScoreRequest]) -> CombinedPlan:
        (outcomes,) = yield [Ask(self.member, requests)]
        return outcomes

    def _steps(self, requests: Sequence[ScoreRequest]) -> Generator[_Step, list[Outcome], list[Outcome]]:
        """The one body of all ways to ask: what is to be done, and what is to be asked."""
        searches = [_Search(request) for request in requests]
        notes: list[str] = []
        sizes = [len(text) for request in requests for text in request.texts]
        long = len(sizes) > _MANY or sum(sizes) > _LONG
        yield _Work(lambda: self._look(searches, notes), long)
        asked = [search for search in searches if search.missing or self._lacks_calibrator(search)]
        if asked:
            self._take(asked, (yield [search.wanted() for search in asked]))
        unlike = [search for search in asked if search.unlike()]
        if unlike:  # what was kept and what was told now do not go together
            for search in unlike:
                search.begin_anew()
            self._take(unlike, (yield [search.wanted() for search in unlike]))
        if asked:
            yield _Work(lambda: self._keep(searches, notes), long)
        return [self._outcome(search, notes) for search in searches]

    def _answered(self, step: _Step) -> list[Outcome]:
        if isinstance(step, _Work):
            step.run()
            return []
        return super().score_many(step)

    async def _aanswered(self, step: _Step) -> list[Outcome]:
        if not isinstance(step, _Work):
            return await super().ascore_many(step)
        if self.cache.blocking or self._digest is None or step.long:
            await in_thread(step.run)
        else:
            step.run()
        return []

    def _identity(self) -> bytes:
        digest = self._digest  # closing may forget it at any time
        if digest is None:
            told = self.member.identity() if self._given is None else {**self._given, "name": self.name}
            if told is None:
                raise ConfigurationError(
                    f"{self.name} cannot be told from others, so that none of its scores may be kept. Say what stands "
                    'for it, and change it whenever its scores change: identity="v1", given to the scorer, or to '
                    "Cached(scorer, cache, identity=...)."
                )
            digest = identity_digest(told, name=self.name)
            self._calibrator = self.member.calibrator
            self._digest = digest
        return digest

    def _look(self, searches: Sequence[_Search], notes: list[str]) -> None:
        try:
            identity = self._identity()
        except ConfigurationError:
            raise
        except Exception as error:  # e.g. a model's file that cannot be read: for the scorer to tell
            self._tell("used", error, notes)
            return
        for search in searches:
            search.name(identity, whole=self.listwise)
        try:
            records = iter(self.cache.get_many([key for search in searches for key in search.keys]))
            for search in searches:
                search.find([next(records) for _ in search.keys])
        except Exception as error:  # a cache may raise anything: nothing was kept then
            self._tell("read", error, notes)

    def _keep(self, searches: Sequence[_Search], notes: list[str]) -> None:
        entries = [entry for search in searches for entry in search.entries()]
        if not entries:
            return
        try:
            if not self._sure and self._given is None:
                named, self._digest = self._digest, None
                if self._identity() != named:  # loading told more, e.g. that another engine computes
                    return
            self._sure = True
            self.cache.put_many(entries)
        except Exception as error:  # as above: nothing will be kept
            self._tell("written to", error, notes)

    def _tell(self, what: str, error: Exception, notes: list[str]) -> None:
        """A failing cache is told with every ranking, and once in the log."""
        note = f"The cache of {self.name} could not be {what}: {error}"
        notes.append(note)
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s", note)

    def _take(self, searches: Sequence[_Search], outcomes: Sequence[Outcome]) -> None:
        for search, outcome in zip(searches, outcomes, strict=True):
            search.answer = outcome
            if isinstance(outcome, Scores):
                search.usage = outcome.usage if search.usage is None else search.usage + outcome.usage
                self._calibrator = outcome.calibrator or self._calibrator

    def _lacks_calibrator(self, search: _Search) -> bool:
        """Whether the scorer must be asked only because nothing else tells how its scores become probabilities."""
        return not search.missing and self.calibrated and self._calibrator is None

    def _outcome(self, search: _Search, notes: Sequence[str]) -> Outcome:
        if isinstance(search.answer, Exception):
            return search.answer
        scores = search.scores(self._calibrator, self.name)
        return replace(scores, warnings=(*scores.warnings, *notes)) if notes else scores


def with_cache(scorer: Scorer, cache: Cache) -> Scorer:
    """The same scorer with each one that it is made of :class:`Cached`; those that are so already stay as they are.

    Raises:
        ConfigurationError: As for :class:`Cached`.
    """
    if isinstance(scorer, Cached):
        return scorer
    if isinstance(scorer, CombinedScorer):
        return scorer.with_members([with_cache(member, cache) for member in scorer.members])
    return Cached(scorer, cache)


@dataclass(frozen=True, slots=True)
class _Work:
    """Something to be done that may take a while, but is not for a scorer.

    Args:
        run: Does it.
        long: Whether it takes long even if nothing is waited for.
    """

    run: Callable[[], None]
    long: bool = False


_Step: TypeAlias = "_Work | list[ScoreRequest]"


@dataclass(slots=True, eq=False)
class _Search:
    """One request while it is answered from what was kept, and by the scorer.

    Args:
        request: What is asked.
        whole: Whether its list is kept as a whole.
        keys: One a text, or one; none where nothing can be looked for.
        kept: What was found, one a key.
        positions: Of the texts that the scorer was asked for.
        answer: Its answer for these.
        usage: What that took.
    """

    request: ScoreRequest
    whole: bool = False
    keys: list[bytes] = field(default_factory=list)
    kept: list[Kept | None] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    answer: Outcome | None = None
    usage: Usage | None = None

    def name(self, identity: bytes, *, whole: bool) -> None:
        """Set the keys."""
        self.whole = whole
        self.keys = [list_key(identity, self.request)] if whole else document_keys(identity, self.request)

    def find(self, records: Sequence[bytes | None]) -> None:
        """Take what the cache has under the keys."""
        count = len(self.request.texts) if self.whole else 1
        kept = [None if record is None else unpack(record, count) for record in records]
        if len({(one.kind, one.native) for one in kept if one is not None}) < 2:  # else they were never one answer
            self.kept = kept

    @property
    def missing(self) -> list[int]:
        """The positions of the texts that have no score."""
        if self.whole or not self.kept:
            return [] if any(self.kept) else list(range(len(self.request.texts)))
        return [position for position, one in enumerate(self.kept) if one is None]

    def wanted(self) -> ScoreRequest:
        """What to ask the scorer: for all that is missing; where nothing is, for the shortest text."""
        request = self.request
        shortest = min(range(len(request.texts)), key=lambda position: len(request.texts[position]))
        self.positions = self.missing or [shortest]
        if len(self.positions) == len(request.texts):
            return request
        texts = [request.texts[position] for position in self.positions]
        first_stage = request.retrieval_scores
        some = None if first_stage is None else [first_stage[position] for position in self.positions]
        return replace(request, texts=texts, retrieval_scores=some)

    def unlike(self) -> bool:
        """Whether the answer is of another kind than what was found, or that of another model: not to be mixed."""
        found = next((one for one in self.kept if one is not None), None)
        if found is None or not self.missing or not isinstance(self.answer, Scores):
            return False
        answer = self.answer
        special = answer.reported is not None or answer.model is not None or bool(answer.attempts)
        return special or (answer.kind, answer.native) != (found.kind, found.native)

    def begin_anew(self) -> None:
        """Forget what was found."""
        self.kept, self.answer = [], None

    def entries(self) -> Iterator[CacheEntry]:
        """What to keep of the answer."""
        if not self.keys or not isinstance(self.answer, Scores) or not self.missing:
            return
        query, texts = self.request.query, self.request.texts
        if self.whole:
            kept = kept_of_list(self.answer)
            if kept is not None:
                yield CacheEntry(self.keys[0], pack(kept), query, texts)
            return
        for position, one in zip(self.positions, kept_of_documents(self.answer) or (), strict=False):
            yield CacheEntry(self.keys[position], pack(one), query, (texts[position],))

    def scores(self, calibrator: Callable[[float], float] | None, name: str) -> Scores:
        """What was found and what was told, as one answer.

        Args:
            calibrator: Of the scorer.
            name: Likewise.
        """
        answer = self.answer if isinstance(self.answer, Scores) and self.missing else None
        if answer is not None and len(self.positions) == len(self.request.texts):
            return replace(answer, usage=self.usage or answer.usage)
        found = [one for one in self.kept if one is not None]
        usage = self.usage or Usage(tokens=0)
        if self.whole:
            return _scores_of_list(found[0], usage, calibrator)
        values = [one.values[0] if one is not None else 0.0 for one in self.kept]
        evidence = [Evidence(truncated=one.truncated[0] if one and one.truncated else None) for one in self.kept]
        if answer is not None:
            for position, value in zip(self.positions, answer.values, strict=True):
                values[position] = value
            for position, one in zip(self.positions, answer.evidence or (), strict=False):
                evidence[position] = one
        known = any(one != Evidence() for one in evidence)
        warnings = (*(answer.warnings if answer else ()), *_warnings_of(found, name))
        base = answer or Scores((), found[0].kind, found[0].native, calibrator=calibrator)
        return replace(base, values=values, usage=usage, warnings=warnings, evidence=evidence if known else None)


def _scores_of_list(kept: Kept, usage: Usage, calibrator: Callable[[float], float] | None) -> Scores:
    cut = kept.truncated
    return Scores(
        list(kept.values),
        kept.kind,
        kept.native,
        usage=usage,
        warnings=tuple(kept.warnings),
        reported=kept.reported,
        evidence=None if cut is None else [Evidence(truncated=one) for one in cut],
        calibrator=calibrator,
    )


def _warnings_of(found: Sequence[Kept], name: str) -> list[str]:
    cut = sum(one.truncated == (True,) or one.truncated == [True] for one in found)
    warnings = list(dict.fromkeys(f"From an earlier answer: {note}" for one in found for note in one.warnings))
    if cut:
        warnings.append(
            f"{cut} of {len(found)} documents whose scores were kept are longer than {name} reads; text beyond its "
            "window was not read."
        )
    return warnings


def _reads_files(scorer: Scorer) -> bool:
    """Whether its identity takes time to tell: a model that runs here is known by its files."""
    local = sys.modules.get("uprank.scorers.local.worker")  # where that is not loaded, it is no such scorer
    return local is not None and isinstance(scorer, local.LocalScorer)
