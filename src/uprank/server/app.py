"""The server as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI

import uprank
from uprank.errors import ConfigurationError
from uprank.reranker import Reranker
from uprank.server.answering import Answering
from uprank.server.direct import DirectRoute
from uprank.server.discretion import discreet_log
from uprank.server.endpoints import Endpoints
from uprank.server.info import add_info
from uprank.server.keys import Keys, warn_if_open
from uprank.server.metrics import Metrics
from uprank.server.openapi import describe
from uprank.server.page import add_page
from uprank.server.probes import add_probes
from uprank.server.routes import ROUTES
from uprank.server.served import ServedModels
from uprank.server.settings import ServerSettings
from uprank.server.shield import shield

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
    if not isinstance(settings, ServerSettings):
        raise ConfigurationError(
            "create_app() takes ServerSettings: ServerSettings.of({...}), or ServerSettings.from_file(path); "
            f"got {type(settings).__name__}."
        )
    for name, reranker in (rerankers or {}).items():
        if not isinstance(reranker, Reranker):
            raise ConfigurationError(f"rerankers[{name!r}] must be a Reranker, got {type(reranker).__name__}.")
    models = ServedModels(settings, rerankers)
    answering = Answering(settings, models)
    metrics = Metrics(models, lambda: answering.under_way, settings.max_queue) if settings.metrics else None
    keys = Keys(settings.keys)
    endpoints = Endpoints(settings, keys, answering, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with discreet_log():
            models.start_loading()
            yield
            await models.aclose()

    app = FastAPI(
        title="uprank", version=uprank.__version__, lifespan=lifespan, openapi_url=None, redirect_slashes=False
    )
    app.state.answering = answering
    app.state.models = models
    for route in ROUTES:  # first, since routes are asked in their order
        answer = endpoints.rerank(route.bodies)
        for path in route.paths:
            app.router.routes.append(DirectRoute(path, answer, methods=["POST"], include_in_schema=False))
    app.state.readiness = add_probes(app, models, keys)
    add_info(app, settings, keys, models)
    if metrics is not None:
        metrics.add_to(app)
    describe(app, settings)
    shield(app, settings.cors_origins, settings.host)
    warn_if_open(settings)
    add_page(app, settings)
    return app
