"""From a question to its answer: checked against the limits, queued, given a deadline, and given up with its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from uprank.ranking import Ranking
from uprank.reranker import Reranker
from uprank.selection import CallOptions
from uprank.server.failures import logged_refusal
from uprank.server.limits import check_limits
from uprank.server.questions import Answer, Question
from uprank.server.refusals import Refusal
from uprank.server.served import ServedModels
from uprank.server.settings import ServerSettings

__all__ = ["Answering", "ClientGone"]

# Seconds until somebody looks whether the client is still there: to look costs as much as a small ranking, and what
# is answered sooner is not worth it.
_UNWATCHED: Final = 0.01


class ClientGone(Exception):  # noqa: N818 - nobody is left to tell
    """The client closed its connection before the answer; its call was cancelled."""


class Answering:
    """Answers questions with the models that are served.

    Args:
        settings: The server's.
        models: What answers.
    """

    def __init__(self, settings: ServerSettings, models: ServedModels) -> None:
        self._settings = settings
        self._models = models
        self.under_way = 0

    def name_of(self, asked: object) -> str:
        """The id of the model that a client means; ``""`` for none: what a client made up is told to nobody."""
        try:
            return self._models.find(asked if isinstance(asked, str) else None)[0]
        except Refusal:
            return ""

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for requests; from before the body is read, which takes memory too.

        Raises:
            Refusal: 429, if none is free.
        """
        if self.under_way >= self._settings.max_queue:
            raise Refusal(429, "overloaded", "Too many requests are under way here.", retry_after=1)
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    async def answer(
        self, question: Question, request_id: str, gone: Callable[[], Awaitable[None]], *, seconds: float | None = None
    ) -> Answer:
        """Rank what is asked.

        Args:
            question: Any; it is checked here.
            request_id: Of the request.
            gone: Returns when the client is gone.
            seconds: What is left of the deadline; ``None`` for all of it.

        Raises:
            Refusal: If there is no ranking to give.
            ClientGone: If nobody waits for it any more.
        """
        name, reranker = self._models.find(question.model)
        check_limits(question, self._settings.limits, reranker.rendering)
        try:
            left = self._settings.deadline if seconds is None else seconds
            rankings = await self._within(left, _rank(reranker, question), gone)
        except (Refusal, ClientGone):
            raise
        except Exception as error:
            raise logged_refusal(error, request_id, name) from error
        if question.whole:
            if any(hit.truncated for ranking in rankings for hit in ranking):
                told = "A document is longer than the model reads, and may not be cut."
                raise Refusal(422, "document_too_long", told)
            rankings = [ranking[: question.top_n] for ranking in rankings]
        return Answer(question, rankings, name, request_id)

    async def _within(
        self, seconds: float, ranking: Awaitable[list[Ranking]], gone: Callable[[], Awaitable[None]]
    ) -> list[Ranking]:
        work = asyncio.ensure_future(ranking)
        watch: asyncio.Future[None] | None = None
        try:
            await asyncio.wait({work}, timeout=min(seconds, _UNWATCHED))
            if work.done():
                return _result(work)
            watch = asyncio.ensure_future(gone())
            left = max(0.0, seconds - _UNWATCHED)
            await asyncio.wait({work, watch}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return _result(work)
            if watch.done():
                raise ClientGone
            told = f"There was no answer within {self._settings.deadline:g} s, this server's deadline."
            raise Refusal(504, "deadline_exceeded", told)
        finally:
            _give_up(work)
            if watch is not None:
                _give_up(watch)


def _result(work: asyncio.Future[list[Ranking]]) -> list[Ranking]:
    if work.cancelled():  # by the scorer itself: taken as it is, it would look as if the server ended
        raise RuntimeError("the scorer was cancelled")
    return work.result()


def _give_up(task: asyncio.Future[Any]) -> None:  # Any: nobody looks at what it gives
    """Cancel a task that is not over. It is not waited for: a scorer may take as long as it likes to end."""
    if not task.done():
        task.cancel()
        task.add_done_callback(_seen)


def _seen(task: asyncio.Future[Any]) -> None:
    """Take note of the error of a task that nobody waits for; else asyncio logs it, and what it says, as forgotten."""
    if not task.cancelled():
        task.exception()


async def _rank(reranker: Reranker, question: Question) -> list[Ranking]:
    if not question.queries:
        return []
    more: CallOptions = {}  # what the client leaves open is as the model was set up
    if question.top_n is not None and not question.whole:  # then none may be cut, those that are left out either
        more["top_n"] = question.top_n
    if question.instruction is not None:
        more["instruction"] = question.instruction
    if len(question.queries) == 1:  # whose errors name no number
        return [await reranker.arank(question.queries[0], question.documents[0], **more)]
    return await reranker.arank_many(question.queries, question.documents, **more)
