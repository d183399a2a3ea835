"""What the framework classes share: their fields, and the reranker behind them.

This is the edge where pydantic lives; it comes with either framework. The classes themselves only
translate between the framework's documents and ours.
"""

from __future__ import annotations

from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from typing_extensions import Self

from uprank.calibration import ScoreMode
from uprank.reranker import ErrorPolicy, Reranker
from uprank.sharing import shared_reranker

__all__ = ["CallOptions", "RerankFields"]


class CallOptions(TypedDict, total=False):
    """The options of one call; absent where the reranker's own apply."""

    top_n: int
    threshold: float
    instruction: str


class RerankFields(BaseModel):
    """The fields of every framework class of uprank.

    The reranker is made with the object, so a wrong name or a missing package shows at once; its
    model is loaded on first use. Objects with the same model and options share one reranker:
    frameworks copy them at will.

    Attributes:
        model: A model name or preset, or a ready :class:`~uprank.Reranker`.
        top_n: How many documents to return at most; ``None`` leaves it to the reranker (all).
        threshold: Return only documents whose score is at least this.
        instruction: What to judge by, for models that take an instruction.
        score: ``"native"`` or ``"probability"``.
        on_error: ``"raise"``, or ``"passthrough"`` for the original order without scores.
        api_key: The key of a hosted model. Never shown, never dumped.
        options: Further options of the model, e.g. ``{"device": "cuda"}``.
    """

    # An error must not show what was given: it may hold the key.
    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, populate_by_name=True, hide_input_in_errors=True
    )

    # What the reranker was made of cannot be changed afterwards: the object would claim what it does not do.
    model: str | Reranker = Field(default="embedded", frozen=True)
    top_n: int | None = Field(default=None, ge=1, strict=True)
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    instruction: str | None = None
    score: ScoreMode = Field(default="native", frozen=True)
    on_error: ErrorPolicy = Field(default="raise", frozen=True)
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False, frozen=True)
    # Any: each scorer has options of its own, checked by its constructor.
    options: dict[str, Any] = Field(default_factory=dict, frozen=True)

    _reranker: Reranker = PrivateAttr()

    @model_validator(mode="after")
    def _make_reranker(self) -> Self:
        if "api_key" in self.options:
            raise ValueError("give api_key= itself, not inside options=, so that it is never shown or dumped")
        options: dict[str, Any] = dict(self.options)
        if self.api_key is not None:
            options["api_key"] = self.api_key
        if isinstance(self.model, str):
            self._reranker = shared_reranker(self.model, score=self.score, on_error=self.on_error, **options)
        elif options or self.score != "native" or self.on_error != "raise":
            raise ValueError("a ready Reranker has its own score, on_error, api_key and options; set them there")
        else:
            self._reranker = self.model
        return self

    @property
    def reranker(self) -> Reranker:
        """The reranker behind this object."""
        return self._reranker

    def call_options(self) -> CallOptions:
        """The options to call the reranker with."""
        given = CallOptions()
        if self.top_n is not None:
            given["top_n"] = self.top_n
        if self.threshold is not None:
            given["threshold"] = self.threshold
        if self.instruction is not None:
            given["instruction"] = self.instruction
        return given
