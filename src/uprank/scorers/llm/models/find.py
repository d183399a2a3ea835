"""What a caller gives as a language model, as a :class:`~uprank.scorers.llm.chat.ChatModel`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence

from uprank.errors import ConfigurationError
from uprank.scorers.llm.chat import ChatModel
from uprank.scorers.llm.models.function import FunctionModel
from uprank.scorers.registry import RERANKER_OPTIONS
from uprank.secrets import masked

__all__ = ["OF_A_NAMED_MODEL", "as_chat_model", "is_meant_as_model"]

_WANTED = (
    "It takes a model's name such as 'gpt-4.1-mini', a LangChain chat model, a LlamaIndex LLM, a function "
    "(messages) -> str, or an object with the methods of uprank's ChatModel"
)
_PREFIX = "llm:"  # of a model's name where a reranker is made; it names no model of any service

# What only a model given by its name takes: the options of OpenAIModel, whose file needs the SDK.
OF_A_NAMED_MODEL = frozenset(
    {
        *("api_key", "base_url", "organization", "project", "headers", "proxy", "verify", "transport"),
        *("max_connections", "context_window", "extra_body", "client", "async_client"),
    }
)

# Under the names by which others know them: what is meant.
_OTHER_NAMES = {
    **dict.fromkeys(("api_base", "url", "endpoint", "openai_api_base", "server_url"), "base_url"),
    **dict.fromkeys(("key", "token", "openai_api_key"), "api_key"),
    **dict.fromkeys(("top_k", "k"), "top_n"),
    **dict.fromkeys(("num_passes", "num_repeat"), "passes"),
    **dict.fromkeys(("stride", "step_size"), "step"),
    "window_size": "window",
    "choice_batch_size": "batch",
    "retries": "max_retries",
}
_OF_A_BUDGET = ("deadline", "max_calls", "max_tokens", "max_cost")
# A class by which a framework's object can be told to be a model, or what people take for one.
_MODELS = frozenset(
    {
        ("langchain_core", "BaseLanguageModel"),
        ("langchain_core", "RunnableBinding"),
        ("llama_index", "LLM"),
        ("openai", "OpenAI"),
        ("openai", "AsyncOpenAI"),
    }
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
        return _named(_bare(llm), options)
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
    _refuse({key: value for key, value in options.items() if key != "name"}, llm, ("name",))
    return FunctionModel(llm, name)


def is_meant_as_model(llm: object) -> bool:
    """Whether an object is a language model, or near enough for :func:`as_chat_model` to say what is amiss."""
    return not isinstance(llm, type) and (not _MODELS.isdisjoint(_kinds(llm)) or isinstance(llm, ChatModel))


def _bare(name: str) -> str:
    """A model's name, also where it is given as a reranker's: ``"llm:gpt-4.1-mini"``."""
    name = name.strip()
    while name.startswith(_PREFIX):
        name = name[len(_PREFIX) :].strip()
    return name


def _named(model: str, options: Mapping[str, object]) -> ChatModel:
    from uprank.scorers.llm.models.openai import OpenAIModel

    options = masked(options)
    known = _options_of(OpenAIModel)
    for name in options:
        if name not in known:
            raise _unknown(f"llm:{model}", name, known, " Request fields that are not listed go into extra_body={...}.")
    return OpenAIModel(model, **options)


def _unknown(model: str, name: str, own: Sequence[str], more: str = "") -> ConfigurationError:
    """The error over an option that neither the scorer nor the model has.

    Args:
        model: Its name.
        name: Of the option.
        own: The model's options.
        more: A last sentence.
    """
    from uprank.scorers.llm.scorer import LLMScorer  # which imports this file

    if name in RERANKER_OPTIONS:
        return ConfigurationError(
            f"{model} has no option {name!r}: it belongs to the Reranker around it, Reranker(LLMScorer(...), "
            f"{name}=...)."
        )
    if name in _OF_A_BUDGET:
        return ConfigurationError(
            f"{model} has no option {name!r}: it is a part of the budget, budget=Budget({name}=...), with "
            "uprank.scorers.llm.Budget."
        )
    scorers = [option for option in _options_of(LLMScorer) if option != "llm"]
    own = [option for option in own if option not in scorers]
    known = [*scorers, *own]
    meant = _OTHER_NAMES.get(name)
    every = [*known, *RERANKER_OPTIONS, *_OF_A_BUDGET]
    close = [meant] if meant in every else difflib.get_close_matches(name, every, n=1, cutoff=0.7)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    if close and close[0] not in known:
        hint = hint[:-1] + (" of the Reranker?" if close[0] in RERANKER_OPTIONS else " of budget=Budget(...)?")
    return ConfigurationError(
        f"{model} has no option {name!r}.{hint} It takes: {', '.join(scorers)}; as a model: {', '.join(own) or 'none'}."
        f"{more} A Reranker itself takes: {', '.join(RERANKER_OPTIONS)}."
    )


def _options_of(made: Callable[..., object]) -> list[str]:
    """The names of the options that a class takes."""
    parameters = inspect.signature(made).parameters.values()
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]


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


def _refuse(options: Mapping[str, object], llm: object, own: Sequence[str] = ()) -> None:
    """Refuse options that a ready model has of its own, and any that do not exist."""
    for name in options:
        if _OTHER_NAMES.get(name, name) not in OF_A_NAMED_MODEL:
            raise _unknown(f"LLMScorer({type(llm).__name__})", name, own)
    if options:
        raise ConfigurationError(
            f"{', '.join(sorted(options))} cannot be set here: the model given, a {type(llm).__name__}, has its own "
            "settings. Set them where it is made."
        )
