"""What the framework classes share: their fields, and the reranker behind them.

This is the edge where pydantic lives; it comes with either framework. The classes themselves only
translate between the framework's documents and ours.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from typing import Any, Literal, cast

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from uprank.calibration import ScoreMode
from uprank.errors import ConfigurationError, InvalidInputError
from uprank.reranker import ErrorPolicy, Reranker
from uprank.scorers.base import Scorer
from uprank.secrets import secrets_among
from uprank.selection import CallOptions, Selection
from uprank.sharing import shared_reranker

__all__ = ["CallOptions", "RerankFields"]


# Frozen, as all that a reranker is made of, but handed to it apart from the others.
_BY_HAND = {"model", "api_key", "options"}


class RerankFields(BaseModel):
    """The fields of every framework class of uprank.

    The reranker is made with the object, so a wrong name or a missing package shows at once; its
    model is loaded on first use. Objects with the same model and options share one reranker:
    frameworks copy them at will.

    Attributes:
        model: A model name or preset, a scorer, a function, or a ready :class:`~uprank.Reranker`.
        top_n: How many documents to return at most; ``None`` leaves it to the reranker (all).
        threshold: Return only documents whose score is at least this.
        instruction: What to judge by, for models that take an instruction.
        min_gap: Cut at the largest drop between neighbouring scores, where it is at least this.
        max_tokens: Return as many documents as have together at most so many tokens.
        diversity: From 0 to 1, how much it counts that a document differs from those already chosen.
        keep_at_least: How many ``threshold`` and ``min_gap`` leave.
        score: ``"native"`` or ``"probability"``.
        on_error: ``"raise"``, or ``"passthrough"`` for the original order without scores.
        fallback: Models to ask in this order where ``model`` fails.
        cache: Keep scores: ``True`` in memory, a path on disk, or a cache of your own.
        long_documents: ``"truncate"``, or ``"max_passage"`` or ``"mean_top"`` to score documents by their passages.
        passage_tokens: How long a passage is; ``None`` for what the model reads.
        passage_overlap: How many tokens neighbouring passages share.
        fields: What of a document is scored: metadata keys, ``"text"`` being the document's own text.
        template: Likewise, as a text with names in braces.
        api_key: The key of a hosted model. Never shown, dumped or pickled: where the object is
            unpickled, the key comes from the environment.
        options: Further options of the model, e.g. ``{"device": "cuda"}``.
    """

    # An error must not show what was given: it may hold the key.
    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, populate_by_name=True, hide_input_in_errors=True
    )

    # What the reranker was made of cannot be changed afterwards: the object would claim what it does not do.
    model: str | Reranker | Scorer | Callable[..., Any] = Field(default="embedded", frozen=True)
    top_n: int | None = Field(default=None, ge=1, strict=True)
    threshold: float | None = Field(default=None, allow_inf_nan=False, strict=True)
    instruction: str | None = None
    min_gap: float | None = Field(default=None, strict=True)
    max_tokens: int | None = Field(default=None, strict=True)
    diversity: float | None = Field(default=None, strict=True)
    keep_at_least: int | None = Field(default=None, strict=True)
    score: ScoreMode = Field(default="native", frozen=True)
    on_error: ErrorPolicy = Field(default="raise", frozen=True)
    fallback: list[str | Scorer | Callable[..., Any]] = Field(default_factory=list, frozen=True)
    # Any: the reranker says what may be a cache.
    cache: Any = Field(default=False, frozen=True)
    long_documents: Literal["truncate", "max_passage", "mean_top"] = Field(default="truncate", frozen=True)
    passage_tokens: int | None = Field(default=None, strict=True, frozen=True)
    passage_overlap: int | None = Field(default=None, strict=True, frozen=True)
    fields: list[str] | None = Field(default=None, frozen=True)
    template: str | None = Field(default=None, frozen=True)
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False, frozen=True)
    # Any: each scorer has options of its own, checked by its constructor.
    options: dict[str, Any] = Field(default_factory=dict, frozen=True)

    _reranker: Reranker = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _explain_unknown_fields(cls, given: object) -> object:
        if isinstance(given, dict):
            known = _names(cls)
            for name in sorted(map(str, given.keys() - known)):
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(sorted(known))}."
                raise ValueError(f"{cls.__name__} has no field {name!r}: {hint} Options of the model go into options=.")
        return given

    @field_validator("cache", mode="before")
    @classmethod
    def _cache_by_name(cls, given: object) -> object:
        return os.fspath(given) if isinstance(given, os.PathLike) else given  # as JSON has it

    @model_validator(mode="after")
    def _make_reranker(self) -> Self:
        secret = next(secrets_among(self.options), None)
        if secret is not None:
            raise ValueError(
                f"options would show {secret!r}, which is a secret: pass api_key=, set the environment variable "
                "(HF_TOKEN for Hugging Face), or give a ready Reranker as model="
            )
        self._reranker = self._made_reranker()
        self._reranker.check(**self.call_options())
        return self

    def _made_reranker(self) -> Reranker:
        options: dict[str, Any] = dict(self.options)
        if self.api_key is not None:
            options["api_key"] = self.api_key  # a SecretStr, so that no scorer shows it by accident
        for name, field in RerankFields.model_fields.items():
            value = getattr(self, name)
            if field.frozen and name not in _BY_HAND and value != field.get_default(call_default_factory=True):
                options[name] = value
        if not isinstance(self.model, Reranker):
            return shared_reranker(self.model, **options)
        if options:
            raise ValueError(f"a ready Reranker has its own {', '.join(sorted(options))}; set them there")
        return self.model

    def __getstate__(self) -> dict[Any, Any]:
        """For a pickle: without the key, and without the reranker that was made with it."""
        state = super().__getstate__()
        private = {name: value for name, value in state["__pydantic_private__"].items() if name != "_reranker"}
        return {**state, "__dict__": {**state["__dict__"], "api_key": None}, "__pydantic_private__": private}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._reranker = self._made_reranker()

    @property
    def reranker(self) -> Reranker:
        """The reranker behind this object."""
        return self._reranker

    @property
    def selection(self) -> Selection:
        """What is returned: the reranker's own options, and those of this object that change them."""
        return self._reranker.selection.with_options(self.call_options())

    def check_writable(self) -> None:
        """Refuse to write to JSON what is an object and no name or path.

        Raises:
            ConfigurationError: If there is such a thing among the fields.
        """
        for one in (self.model, *self.fallback, self.cache):
            if not isinstance(one, (str, bool)):
                raise ConfigurationError(
                    f"{one!r} cannot be written to JSON; give a model by its name, a cache by its path."
                )

    @property
    def reads_fields(self) -> bool:
        """Whether ``fields`` or ``template``, here or of a ready reranker, say what of a document is scored."""
        return self._reranker.rendering is not None

    def call_options(self, given: dict[str, Any] | None = None) -> CallOptions:
        """The options to call the reranker with.

        Args:
            given: Arguments of one call. Options among them are taken out and win; ``k`` is ``top_n``.

        Raises:
            InvalidInputError: If both ``k`` and ``top_n`` are given.
        """
        if given and {"k", "top_n"} <= given.keys():
            raise InvalidInputError("k and top_n are two names for the same option; give one of them.")
        names = CallOptions.__annotations__
        options = {name: value for name in names if (value := getattr(self, name)) is not None}
        for name in (*names, "k"):
            if given and name in given:
                options["top_n" if name == "k" else name] = given.pop(name)
        return cast(CallOptions, options)


def _names(cls: type[BaseModel]) -> set[str]:
    """What may be given to ``cls``: its fields under all their names."""
    names = set(cls.model_fields)
    for field in cls.model_fields.values():
        aliases = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else [field.alias]
        names.update(alias for alias in aliases if isinstance(alias, str))
    return names
