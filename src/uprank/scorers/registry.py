"""From a model name to a scorer: ``scheme:model``, a preset, or a scheme that needs no model.

A scheme is found, in this order, among those given to :func:`register_scorer`, the rows below, and
the entry points of installed packages in the group ``uprank.scorers``. A name is never guessed from
a substring.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, cast

from uprank.errors import ConfigurationError, UnknownModelError
from uprank.scorers.base import Scorer
from uprank.scorers.callable import CallableScorer, ScoreFunction
from uprank.scorers.presets import PRESETS

__all__ = [
    "ENTRY_POINT_GROUP",
    "RERANKER_OPTIONS",
    "SCHEMES",
    "Model",
    "Scheme",
    "ScorerFactory",
    "as_scorer",
    "create_scorer",
    "import_target",
    "register_scorer",
]

ENTRY_POINT_GROUP = "uprank.scorers"

Model: TypeAlias = "str | Scorer | ScoreFunction"
"""What may be given as a model: a name, a scorer, or a function."""

ScorerFactory: TypeAlias = Callable[..., Scorer]
"""Called with the model's name (where the scheme takes one) and the options; returns a scorer."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way of scoring.

    Args:
        target: ``"module:class"``, imported when the scheme is first used.
        takes_model: Whether a model name follows the colon.
        needs_model: Whether it must.
        options: Given to the class besides the caller's, e.g. which of its services is meant.
    """

    target: str
    takes_model: bool = True
    needs_model: bool = True
    options: Mapping[str, object] = field(default_factory=dict)


def _service(scheme: str, *, needs_model: bool = True) -> Scheme:
    """A row of ``uprank.scorers.http.providers``."""
    return Scheme("uprank.scorers.http.scorer:HTTPScorer", needs_model=needs_model, options={"provider": scheme})


SCHEMES: dict[str, Scheme] = {
    "cross-encoder": Scheme("uprank.scorers.local.cross_encoder:CrossEncoderScorer"),
    "late-interaction": Scheme("uprank.scorers.local.late_interaction:LateInteractionScorer"),
    "embedding": Scheme("uprank.scorers.local.embedding:EmbeddingScorer"),
    "embedded": Scheme("uprank.scorers.local.embedded:EmbeddedScorer", takes_model=False),
    "bm25": Scheme("uprank.scorers.local.bm25:BM25Scorer", takes_model=False),
    "cohere": Scheme("uprank.scorers.http.cohere:CohereScorer"),
    "jina": _service("jina"),
    "voyage": _service("voyage"),
    "mixedbread": _service("mixedbread"),
    "nvidia": _service("nvidia"),
    "pinecone": _service("pinecone"),
    "together": _service("together"),
    "fireworks": _service("fireworks"),
    "openrouter": _service("openrouter"),
    "vllm": _service("vllm"),
    "vllm-score": _service("vllm-score"),
    "tei": _service("tei", needs_model=False),
    "llama-cpp": _service("llama-cpp", needs_model=False),
    "infinity": _service("infinity"),
    "xinference": _service("xinference"),
    "localai": _service("localai"),
    "sie": _service("sie"),
    "http": _service("http", needs_model=False),
    "llm": Scheme("uprank.scorers.llm.scorer:LLMScorer"),
}

# How other libraries and services name a language model: the maker before it, or what its name begins with.
_MAKERS = ("openai", "anthropic", "azure", "deepseek", "gemini", "google", "groq", "mistral", "ollama")
_LANGUAGE_MODEL = re.compile(r"(ft:)?(gpt|chatgpt|claude|gemini)-|o[1-9](-|$)")

RERANKER_OPTIONS = (
    "top_n",
    "threshold",
    "min_gap",
    "max_tokens",
    "count_tokens",
    "diversity",
    "keep_at_least",
    "instruction",
    "score",
    "calibrator",
    "on_error",
    "fallback",
    "cache",
    "long_documents",
    "passage_tokens",
    "passage_overlap",
    "fields",
    "template",
    "hooks",
)
"""What a Reranker takes for itself; a test holds it to that."""

_registered: dict[str, ScorerFactory] = {}
_generation = 0


def generation() -> int:
    """A number that changes whenever a scheme is registered: what was made before may be out of date."""
    return _generation


def register_scorer(scheme: str, factory: ScorerFactory, *, replace: bool = False) -> None:
    """Make ``Reranker("scheme:model", **options)`` use a scorer of yours.

    Args:
        scheme: Lower-case letters, digits and hyphens.
        factory: Called as ``factory(model, **options)``, or ``factory(**options)`` where the name
            was just ``"scheme"``. A :class:`~uprank.scorers.Scorer` subclass is a factory.
        replace: Take the place of a scheme of that name.

    Raises:
        ConfigurationError: If the scheme is malformed, or taken and ``replace`` is false.
    """
    if not isinstance(scheme, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", scheme):
        raise ConfigurationError(f"{scheme!r} cannot name a scheme: use lower-case letters, digits and hyphens.")
    if not replace and (scheme in SCHEMES or scheme in PRESETS or scheme in _registered):
        raise ConfigurationError(f"The name {scheme!r} is taken; pass replace=True to take its place.")
    if not callable(factory):
        raise ConfigurationError(f"The factory of {scheme!r} cannot be called; it is a {type(factory).__name__}.")
    global _generation
    _registered[scheme] = factory
    _generation += 1


def as_scorer(model: Model, options: dict[str, object]) -> Scorer:
    """Return the scorer that a caller's ``model`` stands for.

    Args:
        model: A name for :func:`create_scorer`, a ready scorer, a function, or a language model (LangChain's,
            LlamaIndex's, or a ``ChatModel``).
        options: For the scorer named; a function takes those of ``CallableScorer``, a language model what
            :class:`~uprank.scorers.LLMScorer` takes.

    Raises:
        ConfigurationError: If it is none of these, or an option does not fit. See also
            :func:`create_scorer`.
    """
    if isinstance(model, str):
        return create_scorer(model, **options)
    if isinstance(model, Scorer):
        if options:
            raise ConfigurationError(
                f"A ready scorer takes no options here; give {', '.join(options)} to {type(model).__name__} itself."
            )
        return model
    if isinstance(model, type):
        raise ConfigurationError(f"model is the class {model.__name__}; give an object made by it, or a name.")
    if not inspect.isroutine(model):
        from uprank.scorers.llm.models.find import is_meant_as_model  # seldom needed, and the floor above

        if is_meant_as_model(model):
            return import_target(SCHEMES["llm"])(model, **options)
    owner = getattr(model, "__self__", model)
    if type(owner).__module__.partition(".")[0] == "sentence_transformers":
        raise ConfigurationError(
            f'A loaded {type(owner).__name__} is no model here. Give its name or folder, "cross-encoder:<name>", '
            "or a function: lambda query, texts: model.predict([(query, text) for text in texts])."
        )
    if callable(model):
        _check_signature(model)
        unknown = options.keys() - {"name", "score_kind", "listwise", "identity"}
        if unknown:
            raise ConfigurationError(
                f"A function takes name, score_kind, listwise and identity, not {', '.join(sorted(unknown))}."
            )
        return CallableScorer(model, **options)  # type: ignore[arg-type]  # keys checked above
    raise ConfigurationError(
        f"model must be a name, a Scorer, or a function (query, texts) -> scores; got {type(model).__name__}. (Of a "
        "Reranker, give its .scorer.)"
    )


def create_scorer(name: str, /, **options: object) -> Scorer:
    """Make the scorer that ``name`` stands for. No model is loaded yet.

    Args:
        name: ``"scheme:model"``, a preset, or a scheme that needs no model.
        options: Passed to the scorer's class.

    Raises:
        UnknownModelError: If there is no such scheme or preset.
        ConfigurationError: If an option is unknown, or a model is missing or too much.
        MissingDependencyError: If the scheme's packages are not installed.
    """
    if name in PRESETS and name not in _registered:
        name = PRESETS[name].model
    scheme, colon, model = name.partition(":")
    factory = _find_factory(scheme, name)
    row = SCHEMES.get(scheme) if scheme not in _registered else None
    if row is not None and row.takes_model and row.needs_model and not model:
        raise ConfigurationError(f'{name!r} names no model; write "{scheme}:<model>".')
    if row is not None and not row.takes_model and colon:
        raise ConfigurationError(f'{name!r}: this scheme takes no model; write "{scheme}".')
    arguments = (model,) if model else ()
    _check_options(factory, name, arguments, options)
    scorer = factory(*arguments, **options)
    if not isinstance(scorer, Scorer):
        raise ConfigurationError(f"{name!r}: its factory made no Scorer, but a {type(scorer).__name__}.")
    return scorer


def import_target(row: Scheme) -> ScorerFactory:
    """Import the class that a row names."""
    module, _, attribute = row.target.partition(":")
    return cast(ScorerFactory, getattr(importlib.import_module(module), attribute))


def _find_factory(scheme: str, name: str) -> ScorerFactory:
    if scheme in _registered:
        return _registered[scheme]
    if scheme in SCHEMES:
        row = SCHEMES[scheme]
        return partial(import_target(row), **row.options) if row.options else import_target(row)
    from importlib.metadata import entry_points  # slow to import, seldom needed

    for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=scheme):
        try:
            factory = entry_point.load()
        except Exception as error:
            raise ConfigurationError(
                f"The scheme {scheme!r} ({entry_point.value}) cannot be loaded: {error}"
            ) from error
        if not callable(factory):
            raise ConfigurationError(f"The scheme {scheme!r} ({entry_point.value}) is no factory.")
        return cast(ScorerFactory, factory)
    known = sorted({*SCHEMES, *PRESETS, *_registered, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})
    close = difflib.get_close_matches(scheme, known, n=1)
    language_model = _language_model(name)
    if scheme in PRESETS:
        advice = f"A preset takes no model: write {scheme!r}."
    elif language_model:
        advice = language_model
    elif close:
        advice = f"Did you mean {close[0]!r}?"
    elif "/" in name and ":" not in name:
        advice = f'A model is named with its scheme, e.g. "cross-encoder:{name}".'
    else:
        advice = 'A model is named "scheme:model".'
    raise UnknownModelError(f"No scheme or preset {scheme!r} (in {name!r}). {advice} Known: {', '.join(known)}.")


def _language_model(name: str) -> str | None:
    """Advice over a name that looks like a language model's; ``None`` for any other."""
    maker, _, model = name.partition(":")
    if maker not in _MAKERS or not model:
        folder, slash, last = name.rpartition("/")
        if not _LANGUAGE_MODEL.match(last) or (slash and folder not in _MAKERS):
            return None
        maker, model = "", name
    advice = f"Did you mean {'llm:' + model!r}?"
    if maker == "openai" or (not maker and not re.match(r"claude|gemini|\w+/", model)):
        return advice
    return f"{advice} It needs base_url=, an OpenAI-compatible address; or give a chat model of a framework itself."


def _check_options(factory: ScorerFactory, name: str, arguments: tuple[str, ...], options: dict[str, object]) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:  # a compiled factory that does not tell
        return
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        takes = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        raise ConfigurationError(
            f"{name!r}: {error}. It takes: {', '.join(takes) or 'no options'}. "
            f"A Reranker itself takes: {', '.join(RERANKER_OPTIONS)}."
        ) from None


def _check_signature(function: ScoreFunction) -> None:
    try:
        signature = inspect.signature(function)
        signature.bind("query", ["text"])
        error = "its first parameter is called messages" if next(iter(signature.parameters)) == "messages" else ""
    except TypeError as refused:
        error = str(refused)
    except ValueError:  # a compiled function that does not tell
        return
    if error:
        advice = ""
        with contextlib.suppress(TypeError):
            inspect.signature(function).bind([])
            advice = " If it takes messages and returns an answer, it is a language model: give LLMScorer(function)."
        name = getattr(function, "__qualname__", function)
        raise ConfigurationError(f"The function {name!s} cannot be called as (query, texts): {error}.{advice}")
