"""From a question to its answer: checked against the limits, queued, given a deadline, and given up with its client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from uprank.documents import DocumentLike
from uprank.ranking import Ranking
from uprank.reranker import Reranker
from uprank.selection import CallOptions
from uprank.server.questions import Answer, Question
from uprank.server.refusals import Refusal, refusal_of
from uprank.server.served import ServedModels
from uprank.server.settings import Limits, ServerSettings
from uprank.tokens import estimate_tokens

__all__ = ["Answering", "ClientGone"]

logger = logging.getLogger("uprank.server")


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
            refusal = refusal_of(error)
            logger.log(
                logging.ERROR if refusal.status >= 500 else logging.INFO,
                "%s: %s answered with %s (%s)",
                request_id,
                name,
                refusal.code,
                type(error).__name__,
                exc_info=error if refusal.code == "internal_error" else None,
            )
            raise refusal from error
        finally:
            self.under_way -= 1
        if question.whole and any(hit.truncated for ranking in rankings for hit in ranking):
            raise Refusal(422, "document_too_long", "A document is longer than the model reads, and may not be cut.")
        return Answer(question, rankings, name, request_id)

    async def _within_deadline(
        self, ranking: Awaitable[list[Ranking]], gone: Callable[[], Awaitable[None]]
    ) -> list[Ranking]:
        work = asyncio.ensure_future(ranking)
        watch = asyncio.ensure_future(gone())
        try:
            await asyncio.wait({work, watch}, timeout=self._settings.deadline, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if watch.done():
                raise ClientGone
            seconds = f"{self._settings.deadline:g} s"
            raise Refusal(504, "deadline_exceeded", f"There was no answer within {seconds}, this server's deadline.")
        finally:
            for task in (work, watch):
                task.cancel()


def check_limits(question: Question, limits: Limits) -> None:
    """Refuse what is more than the server takes.

    Raises:
        Refusal: 422, saying what is too much and how much is allowed.
    """
    documents = sum(map(len, question.documents))
    if documents > limits.documents:
        told = f"{documents} documents are more than the {limits.documents} that a request may have here."
        raise Refusal(422, "too_many_documents", told)
    for query in question.queries:
        if len(query) > limits.query_chars:
            told = f"The query has {len(query)} characters; {limits.query_chars} are allowed here."
            raise Refusal(422, "query_too_long", told)
    for number, document in enumerate(text for texts in question.documents for text in texts):
        if len(_text(document)) > limits.document_chars:
            told = f"documents[{number}] has more than the {limits.document_chars} characters that are allowed here."
            raise Refusal(422, "document_too_long", told)
    if limits.batch_tokens is not None:
        tokens = sum(_pair_tokens(*pairs) for pairs in zip(question.queries, question.documents, strict=True))
        if tokens > limits.batch_tokens:
            told = f"The request has about {tokens} tokens; {limits.batch_tokens} are allowed here."
            raise Refusal(422, "too_many_tokens", told)


def _pair_tokens(query: str, documents: Sequence[DocumentLike]) -> int:
    return estimate_tokens(query) * len(documents) + sum(estimate_tokens(_text(document)) for document in documents)


def _text(document: DocumentLike) -> str:
    return document if isinstance(document, str) else str(document["text"] if isinstance(document, dict) else "")


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
