"""What the framework classes share: their fields, and the reranker behind them.

This is the edge where pydantic lives; it comes with either framework. The classes themselves only
translate between the framework's documents and ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypedDict, cast

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from typing_extensions import Self

from uprank.calibration import ScoreMode
from uprank.errors import InvalidInputError
from uprank.reranker import ErrorPolicy, Reranker
from uprank.scorers.base import Scorer
from uprank.secrets import secrets_among
from uprank.sharing import shared_reranker

__all__ = ["CallOptions", "RerankFields"]


class CallOptions(TypedDict, total=False):
    """The options of one call; absent where the reranker's own apply."""

    top_n: int | None
    threshold: float | None
    instruction: str | None


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
        score: ``"native"`` or ``"probability"``.
        on_error: ``"raise"``, or ``"passthrough"`` for the original order without scores.
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
    score: ScoreMode = Field(default="native", frozen=True)
    on_error: ErrorPolicy = Field(default="raise", frozen=True)
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
        if not isinstance(self.model, Reranker):
            return shared_reranker(self.model, score=self.score, on_error=self.on_error, **options)
        if options or self.score != "native" or self.on_error != "raise":
            raise ValueError("a ready Reranker has its own score, on_error, api_key and options; set them there")
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

    def call_options(self, given: dict[str, Any] | None = None) -> CallOptions:
        """The options to call the reranker with.

        Args:
            given: Arguments of one call. Options among them are taken out and win; ``k`` is ``top_n``.

        Raises:
            InvalidInputError: If both ``k`` and ``top_n`` are given.
        """
        if given and {"k", "top_n"} <= given.keys():
            raise InvalidInputError("k and top_n are two names for the same option; give one of them.")
        own = {name: getattr(self, name) for name in ("top_n", "threshold", "instruction")}
        options = {name: value for name, value in own.items() if value is not None}
        for name in ("top_n", "k", "threshold", "instruction"):
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
