"""The models that are served: found by what clients call them, loaded and closed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from typing import Literal

from uprank.errors import ModelLoadError
from uprank.reranker import Reranker
from uprank.server.models import made_reranker
from uprank.server.refusals import Refusal
from uprank.server.settings import ServerSettings

__all__ = ["ServedModels"]

logger = logging.getLogger("uprank.server")


class ServedModels:
    """Rerankers by the ids and aliases that clients send.

    Attributes:
        state: ``"loading"`` while models are that are to be warm; then ``"ready"``, or ``"failed"`` where one could
            not be loaded. Others are loaded at their first request, and a request for one that is being loaded waits
            for it, as long as its deadline lets it.
        failure: Why the state is ``"failed"``.

    Args:
        settings: The server's.
        rerankers: Ready ones, by id, instead of those that the settings describe.

    Raises:
        ConfigurationError: If a model cannot work as it is set up; the message names it.
        MissingDependencyError: If one needs a package that is not installed.
    """

    def __init__(self, settings: ServerSettings, rerankers: Mapping[str, Reranker] | None = None) -> None:
        given = rerankers or {}
        self.rerankers = {
            name: given[name] if name in given else made_reranker(name, model)
            for name, model in settings.models.items()
        }
        self.default = settings.default_model or next(iter(settings.models))
        self.aliases = {alias: name for name, model in settings.models.items() for alias in model.aliases}
        self._warm = [
            name for name, model in settings.models.items() if (settings.warm if model.warm is None else model.warm)
        ]
        self.state: Literal["loading", "ready", "failed"] = "loading" if self._warm else "ready"
        self.failure: Exception | None = None

    @property
    def loaded(self) -> bool:
        """Whether the models that are to be warm are."""
        return self.state == "ready"

    def find(self, asked: str | None) -> tuple[str, Reranker]:
        """The id and the reranker that a client means.

        Args:
            asked: What it sent; ``None`` or ``""`` for the default.

        Raises:
            Refusal: 404, if there is none of that name.
        """
        name = asked or self.default
        if name not in self.rerankers:
            name = self.aliases.get(name) or self.aliases.get("*", "")
        if name not in self.rerankers:
            raise Refusal(
                404, "model_not_found", f"There is no such model here. There are {', '.join(self.rerankers)}."
            )
        return name, self.rerankers[name]

    def start_loading(self) -> None:
        """Begin to load the models that are to be warm, in a thread: nobody waits for it, not even the end."""
        if self._warm:
            threading.Thread(target=self._load, name="uprank-load", daemon=True).start()

    def _load(self) -> None:
        """One after the other: each wants all of the machine while it loads."""
        for name in self._warm:
            logger.info("Loading %s", name)
            try:
                self.rerankers[name].load()
            except Exception as error:
                self.failure = ModelLoadError(f"The model {name} cannot be loaded: {error}")
                self.failure.__cause__ = error
                self.state = "failed"
                logger.error("%s", self.failure)
                return
        self.state = "ready"
        logger.info("Ready")

    async def aclose(self) -> None:
        """Free the models, except where one is being loaded still: that cannot be stopped, only outlived."""
        if self.state == "loading":
            return
        closed = await asyncio.gather(*(one.aclose() for one in self.rerankers.values()), return_exceptions=True)
        for name, error in zip(self.rerankers, closed, strict=True):
            if error is not None:
                logger.error("The model %s cannot be closed: %s", name, error)
