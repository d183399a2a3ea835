"""Any function ``(query, texts) -> scores``, sync or async, as a scorer."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import SupportsFloat, TypeAlias, get_args

from uprank.errors import ConfigurationError
from uprank.rounds import run_coroutine
from uprank.scorers.base import Outcome, ScoreKind, Scorer, ScoreRequest, Scores

__all__ = ["CallableScorer", "ScoreFunction"]

Numbers: TypeAlias = "Iterable[SupportsFloat] | Scores"
ScoreFunction: TypeAlias = "Callable[[str, list[str]], Numbers] | Callable[[str, list[str]], Awaitable[Numbers]]"


class CallableScorer(Scorer):
    """Scores with a function of yours.

    Args:
        function: Takes the query and a list of texts, returns one number per text in their order
            (a list, a NumPy array, a tensor, any iterable), or a coroutine of that. Higher means
            more relevant. A sync function is called in the caller's thread by ``rank`` and in a
            thread of asyncio's pool by ``arank``; an async one is awaited on the caller's loop by
            ``arank``, and runs on a background loop for ``rank``.
        name: Shown in rankings and errors; by default the function's own name.
        score_kind: What its numbers mean. Without it they count as raw scores (``"logit"``) that
            may be compared with a threshold, but are never turned into probabilities: a sigmoid
            over what may already be a probability would be a guess.
        listwise: Whether a document's score depends on the other documents that are scored with it, as where scores
            are scaled by the highest.
        identity: Stands for the function where its scores are kept, e.g. ``"my scores v1"``; to be changed
            whenever they change. Without it, they cannot be kept.
    """

    def __init__(
        self,
        function: ScoreFunction,
        *,
        name: str | None = None,
        score_kind: ScoreKind | None = None,
        listwise: bool = False,
        identity: str | None = None,
    ):
        if score_kind is not None and score_kind not in get_args(ScoreKind):
            raise ConfigurationError(f"score_kind must be one of {', '.join(get_args(ScoreKind))}; got {score_kind!r}.")
        self._function = function
        self._is_async = _is_async(function)
        self.name = name or str(getattr(function, "__qualname__", type(function).__qualname__))
        self.score_kind = score_kind or "logit"
        self.declared = score_kind is not None
        if identity is not None and not (isinstance(identity, str) and identity):
            raise ConfigurationError(f"identity must be a string that is not empty, got {identity!r}.")
        self.listwise = listwise
        self._identity = identity

    def identity(self) -> Mapping[str, object] | None:
        if self._identity is None:
            return None
        return {"scheme": "function", "name": self.name, "identity": self._identity, "kind": self.score_kind}

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        result = self._function(query, list(texts))
        if inspect.isawaitable(result):
            result = run_coroutine(result if inspect.iscoroutine(result) else _wait(result))
        return self._scores(result)

    async def ascore(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        import asyncio

        if self._is_async:
            result = self._function(query, list(texts))
        else:
            result = await asyncio.to_thread(self._call, query, list(texts))
        if inspect.isawaitable(result):
            result = await result
        return self._scores(result)

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`Scorer.score_many`; an async function has all requests in flight at once here too."""
        if self._is_async:
            return run_coroutine(self.ascore_many(requests))
        return super().score_many(requests)

    def _call(self, query: str, texts: list[str]) -> Numbers | Awaitable[Numbers]:
        """Call the function to its end, in this thread: a generator runs only as it is read."""
        try:
            result = self._function(query, texts)
            return list(result) if isinstance(result, Iterator) else result
        except StopIteration as error:  # asyncio cannot carry one out of a thread
            raise RuntimeError("the function raised StopIteration") from error

    def _scores(self, result: Numbers) -> Scores:
        if isinstance(result, Scores):
            return result
        # Checked number by number in the pipeline, as every scorer's answer is.
        return Scores(values=result, kind=self.score_kind or "logit")  # type: ignore[arg-type]  # unchecked as yet


async def _wait(result: Awaitable[Numbers]) -> Numbers:
    return await result


def _is_async(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
