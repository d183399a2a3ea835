"""One way through the server for every dialect: key, body, question, answer, reply; or a refusal in that dialect."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from uprank.server.answering import Answering, ClientGone
from uprank.server.bodies import parsed_body
from uprank.server.dialects.base import Body
from uprank.server.keys import Keys
from uprank.server.questions import Answer, Json
from uprank.server.refusals import Refusal
from uprank.server.settings import ServerSettings

__all__ = ["Endpoint", "Endpoints"]

logger = logging.getLogger("uprank.server")

Endpoint = Callable[[Request], Awaitable[Response]]


class Endpoints:
    """Makes the function that answers a route.

    Args:
        settings: The server's.
        keys: Who may ask.
        answering: What answers.
    """

    def __init__(self, settings: ServerSettings, keys: Keys, answering: Answering) -> None:
        self._settings = settings
        self._keys = keys
        self._answering = answering

    def rerank(self, bodies: Sequence[type[Body]]) -> Endpoint:
        """The function of a rerank route.

        Args:
            bodies: The dialects that it speaks; the first that fits a request is its.
        """

        async def rerank(request: Request) -> Response:
            started = time.perf_counter()
            request_id = uuid.uuid4().hex
            body = bodies[0]
            caller = answer = None
            status = 499  # what the log shows of a client that did not wait
            try:
                caller = self._keys.admit(request.headers)
                given = await parsed_body(request, self._settings.limits.body_bytes)
                given.update(request.path_params)
                body = next((one for one in bodies if one.fits(given)), bodies[-1])
                asked = body.read(given, strict=self._settings.unknown_fields == "refuse")
                answer = await self._answering.answer(asked.question(), request_id, _gone(request))
                response = _response(asked.reply(answer), request_id, answer=answer)
            except Refusal as refusal:
                response = _refused(refusal, body, request_id)
            except (ClientGone, ClientDisconnect):
                response = Response(status_code=status)
            status = response.status_code
            self._log(request, status, time.perf_counter() - started, request_id, caller, answer)
            return response

        return rerank

    def _log(
        self, request: Request, status: int, seconds: float, request_id: str, caller: str | None, answer: Answer | None
    ) -> None:
        """One line a request, with nothing of what was asked."""
        logger.info(
            "%s %s %s %d %.1f ms%s%s",
            request_id,
            request.method,
            request.scope["route"].path,
            status,
            seconds * 1_000,
            "" if caller is None else f" by {caller}",
            "" if answer is None else f" {answer.model}, {sum(map(len, answer.question.documents))} documents",
        )


def _gone(request: Request) -> Callable[[], Awaitable[None]]:
    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return gone


def _response(reply: Json, request_id: str, *, answer: Answer) -> Response:
    headers = {"x-request-id": request_id}
    if any(ranking.degraded for ranking in answer.rankings):
        headers["x-uprank-degraded"] = "true"
    return Response(to_json(reply), media_type="application/json", headers=headers)


def _refused(refusal: Refusal, body: type[Body], request_id: str) -> Response:
    headers = {"x-request-id": request_id}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    content = to_json(body.refused(refusal, request_id))
    return Response(content, refusal.status, headers=headers, media_type="application/json")
