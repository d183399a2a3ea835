"""Who wants to know of rankings is told: hooks, and one line of the log a ranking."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Final, Protocol

from uprank.documents import Document
from uprank.errors import ConfigurationError
from uprank.ranking import Ranking
from uprank.validation import Job

__all__ = ["Hooks", "RankEnd", "RankError", "RankStart", "Watch", "checked_hooks", "reported_by", "watched"]

logger = logging.getLogger("uprank")

_reporter: ContextVar[str | None] = ContextVar("uprank_reporter", default=None)


@dataclass(frozen=True, slots=True, eq=False)
class RankStart:
    """A ranking that begins. Shown by ``repr`` without a word of the query or the documents.

    Args:
        query: What is asked.
        documents: What is to be ranked: the caller's own documents, or those made of what was given.
        model: The name of the reranker's model.
        top_n: How many documents are returned at most; ``None`` for all.
        threshold: The least score that is returned; ``None`` for all.
        instruction: What to judge by; ``None`` for the model's own.
        queries: How many queries the call ranks together; above 1 they share its time, and its exception.
        reported_by: The framework that tells its own instrumentation of this ranking already; ``None`` outside one.
    """

    query: str = field(repr=False)
    documents: Sequence[Document] = field(repr=False)
    model: str
    top_n: int | None
    threshold: float | None
    instruction: str | None = field(repr=False)
    queries: int = 1
    reported_by: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RankEnd:
    """A ranking that was made, degraded ones included.

    Args:
        start: What this is the end of.
        ranking: What the caller gets.
        elapsed: Wall-clock seconds of the call, as ``ranking.elapsed``.
        token: What this hook's ``on_start`` returned.
    """

    start: RankStart
    ranking: Ranking = field(repr=False)
    elapsed: float
    token: object = None


@dataclass(frozen=True, slots=True, eq=False)
class RankError:
    """A ranking that was not made.

    Args:
        start: What this is the end of.
        error: What the caller gets instead; also what cancels a task or ends the program, as ``KeyboardInterrupt``.
            Of queries ranked together, all have the error of the call.
        elapsed: Wall-clock seconds until then.
        token: What this hook's ``on_start`` returned.
    """

    start: RankStart
    error: BaseException = field(repr=False)
    elapsed: float
    token: object = None


class Hooks:
    """Is told of each ranking: of its start, then of its end or its error, whatever way it is asked for.

    Derive from it and define what you need: ``Reranker("embedded", hooks=[MyHooks()])``. Calls come from the
    threads and event loops that ask for rankings, several at once, and delay them, so return soon. What a
    hook raises is logged and changes no ranking; where ``on_start`` raised, that hook is not told of the end.
    Input that is refused starts no ranking.
    """

    def on_start(self, start: RankStart) -> object:
        """Return anything, e.g. a span: it comes back as the ``token`` of the end or the error."""
        return None

    def on_end(self, end: RankEnd) -> None:
        """A ranking was made."""

    def on_error(self, error: RankError) -> None:
        """A ranking was not made."""


class Watch(Protocol):
    """What :func:`watched` gives."""

    def __enter__(self) -> Watch: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

    def made(self, rankings: Sequence[Ranking]) -> None:
        """Say what was made, one ranking a job. They are told of at the end of the block."""


def watched(
    hooks: Sequence[Hooks], jobs: Sequence[Job], *, model: str, top_n: int | None, threshold: float | None
) -> Watch:
    """A context manager around the making of rankings, which tells the hooks and the log of them.

    Args:
        hooks: Told in this order of a start, in the opposite one of an end.
        jobs: What is to be ranked.
        model: The reranker's name for its model.
        top_n: As resolved for this call.
        threshold: Likewise.
    """
    if not hooks and not logger.isEnabledFor(logging.DEBUG):
        return _UNWATCHED
    by = _reporter.get()
    return _Watched(
        hooks,
        [
            RankStart(job.query, tuple(job.documents), model, top_n, threshold, job.request.instruction, len(jobs), by)
            for job in jobs
        ],
    )


def checked_hooks(hooks: Iterable[Hooks]) -> tuple[Hooks, ...]:
    """Return hooks as a tuple.

    Raises:
        ConfigurationError: If one of them is none.
    """
    if isinstance(hooks, Hooks) or not isinstance(hooks, Iterable):
        raise ConfigurationError(f"hooks must be a list of uprank.Hooks, got {type(hooks).__name__}.")
    found = tuple(hooks)
    for hook in found:
        if not isinstance(hook, Hooks):
            raise ConfigurationError(f"A hook must be an object of a class derived from uprank.Hooks, got {hook!r}.")
        for name in ("on_start", "on_end", "on_error"):
            if iscoroutinefunction(getattr(hook, name)):
                raise ConfigurationError(f"{type(hook).__name__}.{name} must be a plain function: nobody awaits it.")
    return found


@contextmanager
def reported_by(framework: str) -> Iterator[None]:
    """Mark rankings made within as those that a framework tells its own instrumentation of."""
    token = _reporter.set(framework)
    try:
        yield
    finally:
        _reporter.reset(token)


class _Unwatched:
    """Nobody wants to know."""

    __slots__ = ()

    def __enter__(self) -> _Unwatched:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def made(self, rankings: Sequence[Ranking]) -> None:
        pass


_UNWATCHED: Final = _Unwatched()


class _Watched:
    """Tells hooks of the rankings of one call, each of its start and of one end."""

    __slots__ = ("_hooks", "_rankings", "_started", "_starts", "_told")

    def __init__(self, hooks: Sequence[Hooks], starts: Sequence[RankStart]) -> None:
        self._hooks = hooks
        self._starts = starts
        self._rankings: Sequence[Ranking] = ()
        self._told: list[tuple[Hooks, int, object]] = []  # who knows of the start of which job, and their token
        self._started = 0.0

    def __enter__(self) -> _Watched:
        self._started = time.perf_counter()
        try:
            for number, start in enumerate(self._starts):
                for hook in self._hooks:
                    self._tell_start(hook, number, start)
        except BaseException as leaving:  # e.g. KeyboardInterrupt: what has started must end
            self._tell_errors(leaving)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self._tell_ends()
        else:
            self._tell_errors(error)

    def made(self, rankings: Sequence[Ranking]) -> None:
        self._rankings = rankings

    def _tell_start(self, hook: Hooks, number: int, start: RankStart) -> None:
        try:
            token = hook.on_start(start)
        except Exception:  # as said in Hooks
            _log_failure(hook, "on_start")
        else:
            self._told.append((hook, number, token))

    def _tell_ends(self) -> None:
        for start, ranking in zip(self._starts, self._rankings, strict=True):
            state = ", degraded" if ranking.degraded else ""
            logger.debug(
                "%s ranked %d documents in %.1f ms, returned %d%s",
                *(ranking.model, len(start.documents), 1000 * ranking.elapsed, len(ranking), state),
            )
        _call_all(
            partial(_tell, hook, RankEnd(self._starts[number], ranking, ranking.elapsed, token))
            for hook, number, token in reversed(self._told)
            for ranking in (self._rankings[number],)
        )

    def _tell_errors(self, error: BaseException) -> None:
        if isinstance(error, GeneratorExit) and error.__context__ is not None:
            error = error.__context__  # an interrupt or a cancellation, by which the generator was closed
        elapsed = time.perf_counter() - self._started
        for start in self._starts:
            logger.debug(
                "%s failed on %d documents after %.1f ms: %s",
                *(start.model, len(start.documents), 1000 * elapsed, type(error).__name__),
            )
        _call_all(
            partial(_tell, hook, RankError(self._starts[number], error, elapsed, token))
            for hook, number, token in reversed(self._told)
        )


def _tell(hook: Hooks, event: RankEnd | RankError) -> None:
    try:
        if isinstance(event, RankEnd):
            hook.on_end(event)
        else:
            hook.on_error(event)
    except Exception:  # as said in Hooks
        _log_failure(hook, "on_end" if isinstance(event, RankEnd) else "on_error")


def _call_all(calls: Iterable[Callable[[], None]]) -> None:
    """Make all calls, also where one of them ends the program."""
    leaving: BaseException | None = None
    for call in calls:
        try:
            call()
        except BaseException as error:
            leaving = error if leaving is None else leaving
    if leaving is not None:
        raise leaving


def _log_failure(hook: Hooks, method: str) -> None:
    told = f"{type(hook).__name__}.{method} failed; the ranking goes on without it"
    logger.warning("%s", told, exc_info=True, extra={"discreet": told})
