"""What the models of frameworks share: names, keys, and the reading of what their classes raise."""

from __future__ import annotations

from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.llm.chat import ChatRequest, Feature, Features
from uprank.scorers.llm.models.naming import label, urls_of
from uprank.scorers.llm.models.outcomes import came_of, secrets_of, stumbled_in

__all__ = ["FrameworkModel"]


class FrameworkModel:
    """A model that is a framework's object, which is left as it is, and for its owner to close.

    Args:
        llm: The object.
        model: What it calls its model; empty where it does not say.
        features: What its class has.
        context_window: As for a :class:`~uprank.scorers.llm.chat.ChatModel`.
        packages: Import names of the code that reads replies for it.
    """

    def __init__(
        self, llm: object, model: str, features: set[Feature], context_window: int | None, packages: tuple[str, ...]
    ) -> None:
        kind = type(llm).__name__
        self.name = f"llm:{model or kind}"
        # Those of the same model at the same place share their limit; of two that tell neither, nothing is known.
        urls = urls_of(llm)
        self.address = " ".join(filter(None, (kind, model, *urls))) if model or urls else label(kind, llm)
        self.features = Features(*features)
        self.context_window = context_window
        self._object = llm
        self._packages = packages

    def secrets(self) -> tuple[str, ...]:
        """The keys that the object holds."""
        return secrets_of(self._object)

    def close(self) -> None:
        """It is its owner's."""

    async def aclose(self) -> None:
        """Likewise."""

    def _came_of(self, error: Exception, request: ChatRequest, timeout: float) -> Reply | Lost:
        """What an exception stands for; it is raised again if it is no outcome of a request."""
        found = came_of(error, request, self.features, timeout) or stumbled_in(error, *self._packages)
        if found is None:
            raise error
        return found
