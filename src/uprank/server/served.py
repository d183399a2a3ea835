"""The models that are served: made of settings, found by what clients call them, loaded and closed."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from uprank.errors import ConfigurationError
from uprank.reranker import Reranker
from uprank.scorers.base import Scorer
from uprank.server.refusals import Refusal
from uprank.server.settings import ModelSettings, SecretSource, ServerSettings

__all__ = ["ServedModels"]

logger = logging.getLogger("uprank.server")


class ServedModels:
    """Rerankers by the ids and aliases that clients send.

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
            name: given[name] if name in given else _made(name, model) for name, model in settings.models.items()
        }
        self.default = settings.default_model or next(iter(settings.models))
        self.aliases = {alias: name for name, model in settings.models.items() for alias in model.aliases}
        self._warm = [
            name for name, model in settings.models.items() if (settings.warm if model.warm is None else model.warm)
        ]
        self.loaded = not self._warm

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

    def load(self) -> None:
        """Load the models that are to be warm; takes as long as that takes.

        Raises:
            ScorerError: If one cannot be loaded.
        """
        for name in self._warm:
            logger.info("Loading %s", name)
            self.rerankers[name].load()
        self.loaded = True

    async def aclose(self) -> None:
        """Free the models."""
        for reranker in self.rerankers.values():
            await reranker.aclose()


def _made(name: str, model: ModelSettings) -> Reranker:
    try:
        return Reranker(_scored_by(model), **_with_secrets(model.options))  # type: ignore[arg-type]  # checked there
    except TypeError as error:
        raise ConfigurationError(f"The model {name} cannot be set up: {error}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"The model {name} cannot be set up: {error}") from error


def _scored_by(model: ModelSettings) -> str | Scorer:
    if model.cascade is not None:
        from uprank.scorers.combined.cascade import Cascade

        return Cascade(**_with_secrets(model.cascade))  # type: ignore[arg-type]  # checked there
    if model.fusion is not None:
        from uprank.scorers.combined.fusion import Fusion

        return Fusion(**_with_secrets(model.fusion))  # type: ignore[arg-type]  # checked there
    if model.model is None:  # refused by the settings
        raise ConfigurationError("There is no model.")
    return model.model


def _with_secrets(options: Mapping[str, object]) -> dict[str, object]:
    """Options with each secret in the place of where it is."""
    return {name: _read(value) for name, value in options.items()}


def _read(value: object) -> object:
    if isinstance(value, Mapping) and len(value) == 1 and set(value) <= {"env", "file"}:
        return SecretSource.model_validate(value).read()
    return value
