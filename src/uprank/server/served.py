"""The models that are served: found by what clients call them, loaded and closed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from uprank.errors import ConfigurationError, ModelLoadError
from uprank.reranker import Reranker
from uprank.scorers.combined.base import leaves
from uprank.scorers.http.remote import RemoteScorer
from uprank.server.keys import is_loopback
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
        unknown = sorted(set(given) - set(settings.models))
        if unknown:
            raise ConfigurationError(f"The settings have no model {', '.join(map(repr, unknown))} to be served by it.")
        self.rerankers = {
            name: given[name] if name in given else made_reranker(name, model)
            for name, model in settings.models.items()
        }
        self.default = settings.default_model or next(iter(settings.models))
        self.aliases = {alias: name for name, model in settings.models.items() for alias in model.aliases}
        if len(self.rerankers) == 1:
            self.aliases.setdefault("*", self.default)  # clients name a model because they must
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

    def check_address(self, host: str, port: int) -> None:
        """Refuse a model that is this very server: one request would become as many as there are places.

        Args:
            host: Where the server listens.
            port: Likewise.

        Raises:
            ConfigurationError: If a model asks there.
        """
        for name, reranker in self.rerankers.items():
            for leaf in leaves(reranker.scorer):
                url = urlsplit(leaf.url) if isinstance(leaf, RemoteScorer) else None
                if url is not None and url.port == port and _same_machine(url.hostname or "", host):
                    raise ConfigurationError(
                        f"The model {name} asks {leaf.name} at this server's own address: give base_url, or listen on "
                        "another port."
                    )

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


def _same_machine(asked: str, host: str) -> bool:
    return asked == host or (is_loopback(asked) and (is_loopback(host) or host in ("0.0.0.0", "::")))  # noqa: S104
