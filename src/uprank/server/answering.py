"""From a question to its answer: checked against the limits, queued, given a deadline, and given up with its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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

    async def answer(self, question: Question, request_id: str, gone: Callable[[], Awaitable[None]]) -> Answer:
        """Rank what is asked.

        Args:
            question: Any; it is checked here.
            request_id: Of the request.
            gone: Returns when the client is gone.

        Raises:
            Refusal: If there is no ranking to give.
            ClientGone: If nobody waits for it any more.
        """
        name, reranker = self._models.find(question.model)
        check_limits(question, self._settings.limits)
        if self.under_way >= self._settings.max_queue:
            raise Refusal(429, "overloaded", "Too many requests are under way here.", retry_after=1)
        self.under_way += 1
        try:
            rankings = await self._within_deadline(_rank(reranker, question), gone)
        except (Refusal, ClientGone):
            raise
        except Exception as error:
            raise logged_refusal(error, request_id, name) from error
        finally:
            self.under_way -= 1
        if question.whole and any(hit.truncated for ranking in rankings for hit in ranking):
            raise Refusal(422, "document_too_long", "A document is longer than the model reads, and may not be cut.")
        return Answer(question, rankings, name, request_id)

    async def _within_deadline(
        self, ranking: Awaitable[list[Ranking]], gone: Callable[[], Awaitable[None]]
    ) -> list[Ranking]:
        deadline = self._settings.deadline
        work = asyncio.ensure_future(ranking)
        watch: asyncio.Future[None] | None = None
        try:
            await asyncio.wait({work}, timeout=min(deadline, _UNWATCHED))
            if work.done():
                return work.result()
            watch = asyncio.ensure_future(gone())
            left = max(0.0, deadline - _UNWATCHED)
            await asyncio.wait({work, watch}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if watch.done():
                raise ClientGone
            told = f"There was no answer within {deadline:g} s, this server's deadline."
            raise Refusal(504, "deadline_exceeded", told)
        finally:
            _give_up(work)
            if watch is not None:
                _give_up(watch)


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
    if question.top_n is not None:
        more["top_n"] = question.top_n
    if question.instruction is not None:
        more["instruction"] = question.instruction
    if len(question.queries) == 1:  # whose errors name no number
        return [await reranker.arank(question.queries[0], question.documents[0], **more)]
    return await reranker.arank_many(question.queries, question.documents, **more)
