"""One way through the server for every dialect: key, body, question, answer, reply; or a refusal in that dialect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from uprank.scorers.base import ScoreKind
from uprank.scorers.http.replies import SCORE_KIND_HEADER
from uprank.server.answering import Answering, ClientGone
from uprank.server.bodies import MSGPACK, first_names, packed_body, parsed_body, wants_msgpack
from uprank.server.dialects.base import Body
from uprank.server.failures import logged_refusal
from uprank.server.keys import Keys
from uprank.server.limits import check_count
from uprank.server.logs import Done, log_request, request_id_of
from uprank.server.metrics import Metrics
from uprank.server.questions import Answer, Json
from uprank.server.refusals import Refusal
from uprank.server.settings import ServerSettings

__all__ = ["Endpoint", "Endpoints", "refusal_reply"]

Endpoint = Callable[[Request], Awaitable[Response]]


class Endpoints:
    """Makes the function that answers a route.

    Args:
        settings: The server's.
        keys: Who may ask.
        answering: What answers.
        metrics: Told of each request; ``None`` where nobody counts.
    """

    def __init__(
        self, settings: ServerSettings, keys: Keys, answering: Answering, metrics: Metrics | None = None
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._answering = answering
        self._metrics = metrics

    def rerank(self, bodies: Sequence[type[Body]]) -> Endpoint:
        """The function of a rerank route.

        Args:
            bodies: The dialects that it speaks; the first that fits a request is its, and the last takes what fits
                none.
        """

        async def rerank(request: Request) -> Response:
            started = time.perf_counter()
            request_id = request_id_of(request.headers)
            body = bodies[-1]
            caller = given = answer = refused = None
            model = ""  # until it is known which one is meant
            status = 499  # what the log shows of a client that did not wait
            try:
                caller = self._keys.admit(request.headers)
                with self._answering.place():
                    limits, deadline = self._settings.limits, self._settings.deadline
                    given = await parsed_body(request, limits.body_bytes, deadline, packable=body.msgpack)
                    given.update(request.path_params)
                    model = self._answering.name_of(given.get("model"))
                    body = _meant(bodies, given)
                    check_count(given, limits)
                    asked = body.read(given, strict=self._settings.unknown_fields == "refuse")
                    question = asked.question()
                    model = self._answering.name_of(question.model)
                    left = deadline - (time.perf_counter() - started)
                    answer = await self._answering.answer(question, request_id, _gone(request), seconds=left)
                    packed = body.msgpack and wants_msgpack(request.headers)
                    reply, kind = asked.reply(answer), asked.score_kind(answer)
                    response = _response(reply, request_id, answer=answer, kind=kind, packed=packed)
            except Refusal as refusal:
                refused, caller = refusal, caller or refusal.caller
                if given is None and len(bodies) > 1:  # refused before its dialect is known
                    body = _meant(bodies, await first_names(request))
                response = refusal_reply(refusal, body, request_id)
            except asyncio.CancelledError:  # the server ends, and has waited for this long enough
                refused = Refusal(503, "shutting_down", "This server is about to end; ask again.", retry_after=1)
                response = refusal_reply(refused, body, request_id)
            except (ClientGone, ClientDisconnect):
                response = Response(status_code=status)
            except Exception as error:  # also a fault of ours is told in the client's dialect, and without its words
                refused = logged_refusal(error, request_id, request.scope["route"].path)
                response = refusal_reply(refused, body, request_id)
            status = response.status_code
            seconds = time.perf_counter() - started
            path = request.scope["route"].path
            done = Done(request_id, path, status, seconds, model, caller, answer, refused)
            log_request(done)
            if self._metrics is not None:
                self._metrics.count(done)
            return response

        return rerank


def _meant(bodies: Sequence[type[Body]], given: Mapping[str, object]) -> type[Body]:
    return next((one for one in bodies if one.fits(given)), bodies[-1])


def _gone(request: Request) -> Callable[[], Awaitable[None]]:
    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return gone


def _response(reply: Json, request_id: str, *, answer: Answer, kind: ScoreKind | None, packed: bool) -> Response:
    headers = {"x-request-id": request_id}
    if kind is not None:
        headers[SCORE_KIND_HEADER] = kind
    if answer.rankings:
        milliseconds = 1_000 * max(ranking.elapsed for ranking in answer.rankings)
        headers["server-timing"] = f"rank;dur={milliseconds:.1f}"
    if any(ranking.degraded for ranking in answer.rankings):
        headers["x-uprank-degraded"] = "true"
    if answer.attempts:
        headers["x-uprank-fallback"] = "true"
    if packed:
        return Response(packed_body(reply), media_type=MSGPACK, headers=headers)
    # A number that JSON has no word for can only be in a document that comes back.
    return Response(to_json(reply, inf_nan_mode="null"), media_type="application/json", headers=headers)


def refusal_reply(refusal: Refusal, body: type[Body], request_id: str) -> Response:
    """The reply that tells of a refusal, in a dialect."""
    headers = {"x-request-id": request_id}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if refusal.status == 408:
        headers["connection"] = "close"  # the rest of the body may come yet, where the next request is expected
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    content = to_json(body.refused(refusal, request_id))
    return Response(content, refusal.status, headers=headers, media_type="application/json")
