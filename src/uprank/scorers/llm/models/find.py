"""What a caller gives as a language model, as a :class:`~uprank.scorers.llm.chat.ChatModel`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping

from uprank.errors import ConfigurationError
from uprank.scorers.llm.chat import ChatModel
from uprank.scorers.llm.models.function import FunctionModel
from uprank.secrets import masked

__all__ = ["as_chat_model"]

_WANTED = (
    "It takes a model's name such as 'gpt-4.1-mini', a LangChain chat model, a LlamaIndex LLM, a function "
    "(messages) -> str, or an object with the methods of uprank's ChatModel"
)


def as_chat_model(llm: object, options: Mapping[str, object]) -> ChatModel:
    """Return the model that is meant.

    Args:
        llm: The name of a model behind an OpenAI-compatible address, a LangChain chat model, a LlamaIndex
            LLM, a function from messages to text, or a model of this kind already.
        options: For a name, those of :class:`~uprank.scorers.llm.models.openai.OpenAIModel`; for a
            function, ``name``; for anything else, none.

    Raises:
        ConfigurationError: If it is no model, or takes no such options.
        MissingDependencyError: If a name is given and the SDK is not installed.
    """
    if isinstance(llm, str):
        return _named(llm, options)
    if isinstance(llm, type):
        raise ConfigurationError(f"llm is the class {llm.__name__}; make a model of it first. {_WANTED}.")
    kinds = set(_kinds(llm))
    if ("langchain_core", "BaseChatModel") in kinds:
        _refuse(options, llm)
        from uprank.scorers.llm.models.langchain import LangChainModel

        return LangChainModel(llm)  # type: ignore[arg-type]  # a BaseChatModel, as just seen
    if ("llama_index", "LLM") in kinds:
        _refuse(options, llm)
        from uprank.scorers.llm.models.llama_index import LlamaIndexModel

        return LlamaIndexModel(llm)  # type: ignore[arg-type]  # an LLM, as just seen
    _refuse_near_misses(llm, kinds)
    if isinstance(llm, ChatModel):
        _refuse(options, llm)
        return llm
    if not callable(llm):
        raise ConfigurationError(f"llm cannot be a {type(llm).__name__}. {_WANTED}.")
    name = options.get("name")
    if name is not None and not isinstance(name, str):
        raise ConfigurationError(f"name must be a string, got {type(name).__name__}.")
    _refuse({key: value for key, value in options.items() if key != "name"}, llm)
    return FunctionModel(llm, name)


def _named(model: str, options: Mapping[str, object]) -> ChatModel:
    from uprank.scorers.llm.models.openai import OpenAIModel

    options = masked(options)
    known = [name for name in inspect.signature(OpenAIModel).parameters if name != "model"]
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ConfigurationError(
                f"llm:{model} has no option {name!r}. {hint}Those of the model are: {', '.join(known)}. Request "
                "fields that are not listed go into extra_body={...}."
            )
    return OpenAIModel(model, **options)


def _kinds(llm: object) -> Iterator[tuple[str, str]]:
    """The package and the name of each class that an object is of, without importing any."""
    for base in type(llm).__mro__:
        yield base.__module__.partition(".")[0], base.__name__


def _refuse_near_misses(llm: object, kinds: set[tuple[str, str]]) -> None:
    kind = type(llm).__name__
    if ("langchain_core", "BaseLLM") in kinds:
        raise ConfigurationError(f"llm is a {kind}, which completes texts; give a LangChain chat model instead.")
    if ("langchain_core", "Runnable") in kinds:
        raise ConfigurationError(
            f"llm is a {kind}, a chain of LangChain; give the chat model itself, without bind() or anything around it."
        )
    if any(package == "openai" for package, _ in kinds):
        raise ConfigurationError(f"llm is a client, {kind}: give the model's name, and the client by client=.")


def _refuse(options: Mapping[str, object], llm: object) -> None:
    if options:
        raise ConfigurationError(
            f"{', '.join(sorted(options))} cannot be set here: the model given, a {type(llm).__name__}, has its own "
            "settings. Set them where it is made."
        )
