"""The server as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI

import uprank
from uprank.reranker import Reranker
from uprank.server.answering import Answering
from uprank.server.endpoints import Endpoints
from uprank.server.keys import Keys
from uprank.server.routes import ROUTES
from uprank.server.served import ServedModels
from uprank.server.settings import ServerSettings

__all__ = ["create_app"]


def create_app(settings: ServerSettings, rerankers: Mapping[str, Reranker] | None = None) -> FastAPI:
    """Make the application, to be run by any ASGI server.

    Args:
        settings: What is served, and to whom.
        rerankers: Ready rerankers, by the ids of ``settings.models``, instead of those described there.

    Raises:
        ConfigurationError: If a model or a key cannot be set up.
        MissingDependencyError: If a model needs a package that is not installed.
    """
    models = ServedModels(settings, rerankers)
    answering = Answering(settings, models)
    endpoints = Endpoints(settings, Keys(settings.keys), answering)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(models.load)
        yield
        await models.aclose()

    app = FastAPI(title="uprank", version=uprank.__version__, lifespan=lifespan)
    app.state.answering = answering
    app.state.models = models
    for route in ROUTES:
        answer = endpoints.rerank(route.bodies)
        for path in route.paths:
            app.add_api_route(path, answer, methods=["POST"], response_model=None, summary=route.summary)
    return app
