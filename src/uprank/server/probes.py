"""What is asked of the server itself: whether it lives, whether it is ready, and which models it has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from uprank.server.dialects.base import Body
from uprank.server.endpoints import refusal_reply
from uprank.server.keys import Keys
from uprank.server.logs import request_id_of
from uprank.server.refusals import Refusal
from uprank.server.served import ServedModels

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Readiness", "add_probes"]

_MESSAGES = {
    "ready": "Service is ready",
    "loading": "Service is not ready: models are being loaded",
    "failed": "Service is not ready: a model could not be loaded",
    "draining": "Service is not ready: it is about to end",
}


class Readiness:
    """Whether clients should be sent here.

    Attributes:
        draining: Whether the server is about to end. It still answers what comes.

    Args:
        models: What is served.
    """

    def __init__(self, models: ServedModels) -> None:
        self._models = models
        self.draining = False

    @property
    def state(self) -> Literal["draining", "loading", "ready", "failed"]:
        """``"ready"``, or why it is not."""
        return "draining" if self.draining else self._models.state


def add_probes(app: FastAPI, models: ServedModels, keys: Keys) -> Readiness:
    """Answer probes, for which no key is needed, and lists of the models.

    Args:
        app: Gets the routes.
        models: What is served.
        keys: Who may see which models there are.
    """
    readiness = Readiness(models)
    started = int(time.time())

    async def live() -> Response:
        return _health(200, "live", "Service is live")

    async def ready() -> Response:
        state = readiness.state
        return _health(200 if state == "ready" else 503, state, _MESSAGES[state])

    async def list_models(request: Request) -> Response:
        data = [_model(models, name, started) for name in models.rerankers]
        # "data" is read by clients of OpenAI and NVIDIA, "models" by those of Cohere.
        return _guarded(
            request, keys, {"object": "list", "data": data, "models": [{"name": one["id"], **_RERANKS} for one in data]}
        )

    async def show_model(request: Request) -> Response:
        try:
            name, _ = models.find(request.path_params["model"])
        except Refusal as refusal:
            return _guarded(request, keys, refusal)
        return _guarded(request, keys, {**_model(models, name, started), "name": name, **_RERANKS})

    async def needs_key() -> Response:
        return _json({"auth": bool(keys)}, 200)

    for path, answer, summary in (
        ("/health", ready, "Whether the server lives and is ready"),
        ("/health/live", live, "Whether the server lives"),
        ("/health/ready", ready, "Whether the server is ready: 503 while it loads models, and before it ends"),
        ("/v1/health/live", live, "As /health/live"),
        ("/v1/health/ready", ready, "As /health/ready"),
        ("/v1/cluster/auth", needs_key, "Whether a key is needed: Xinference's clients send theirs only then"),
        ("/v1/models", list_models, "The models that are served"),
        ("/v1/models/{model:path}", show_model, "A model that is served"),
    ):
        app.add_api_route(path, answer, methods=["GET"], response_model=None, summary=summary, tags=["operation"])
        app.add_api_route(path, answer, methods=["HEAD"], response_model=None, include_in_schema=False)
    return readiness


_RERANKS = {"endpoints": ["rerank"], "model_type": "rerank"}  # Cohere's words, and Xinference's


def _health(status: int, state: str, message: str) -> Response:
    """In the form of NVIDIA's NIM; others look at the status alone."""
    return _json({"object": "health.response", "status": state, "message": message}, status)


def _model(models: ServedModels, name: str, started: int) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": started,
        "owned_by": "uprank",
        "aliases": [alias for alias, model in models.aliases.items() if model == name],
        "default": name == models.default,
        "score_kind": models.rerankers[name].score_kind,  # as far as it is known before the model is loaded
    }


def _guarded(request: Request, keys: Keys, content: dict[str, object] | Refusal) -> Response:
    """The content, or the refusal, for those who have a key; it costs nothing, and so it is not counted."""
    try:
        keys.check(request.headers)
    except Refusal as refusal:
        content = refusal
    if isinstance(content, Refusal):
        return refusal_reply(content, Body, request_id_of(request.headers))
    return _json(content, 200)


def _json(content: dict[str, object], status: int) -> Response:
    return Response(to_json(content), status, media_type="application/json")
