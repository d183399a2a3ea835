"""What a caller may set about asking a language model, checked when the scorer is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from uprank.errors import ConfigurationError
from uprank.scorers.llm.budget import Budget, Price
from uprank.scorers.llm.conversions import JudgeKind
from uprank.scorers.llm.prompts import Example, Prompt, PromptKind
from uprank.scorers.llm.rendering import Answers, Style
from uprank.scorers.llm.strategies import STRATEGIES, Settings
from uprank.scorers.llm.tokens import estimate_tokens

__all__ = ["SETUP", "Method", "Quality", "Setup"]

Method: TypeAlias = Literal["listwise", "pointwise", "setwise", "pairwise"]
"""What the model is asked."""

Quality: TypeAlias = Literal["fast", "balanced", "high"]
"""How much is spent on it."""

_KINDS: dict[str, JudgeKind] = {"listwise": "order", "setwise": "select", "pairwise": "prefer", "pointwise": "score"}
_PROMPTS: dict[PromptKind, str] = {
    "order": "listwise",
    "select": "setwise",
    "compare": "pairwise",
    "score": "pointwise",
}
_CONTEXT = 16_384  # tokens, where the model does not tell: what even small local servers are started with
_SHUFFLES = 5  # these give two thirds of what the 20 of the paper do (arXiv:2310.07712)
_CHOICES = {
    "method": get_args(Method),
    "quality": get_args(Quality),
    "answers": get_args(Answers),
    "strategy": ("auto", *STRATEGIES),
}
_NUMBERS = {  # the least, and whether there may be none
    "shuffles": (0, True),
    "grades": (1, True),
    "batch": (1, False),
    "context_window": (1, True),
    "max_document_tokens": (1, True),
    "thinking": (0, False),
}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The options of :class:`~uprank.scorers.LLMScorer` that are not about the model; explained there."""

    method: Method
    strategy: str
    quality: Quality
    answers: Answers
    window: int
    step: int | None
    top: int
    passes: int
    tournaments: int
    blocks: int
    shuffles: int | None
    scores: bool
    grades: int | None
    batch: int
    isolate: bool
    prompt: str | Path | Prompt | None
    examples: Sequence[Example]
    budget: Budget
    price: Price | None
    context_window: int | None
    max_document_tokens: int | None
    thinking: int
    count_tokens: Callable[[str], int] | None
    temperature: float
    seed: int
    strict: bool

    @classmethod
    def checked(cls, name: str, **given: Any) -> Setup:  # Any: each option has a type of its own
        """Check what was given.

        Args:
            name: The model's, for errors.
            given: All fields; a budget or a price may be missing or a mapping.

        Raises:
            ConfigurationError: If an option, or the combination, cannot work.
        """
        for what, known in _CHOICES.items():
            if given[what] not in known:
                raise ConfigurationError(f"{name}: {what} must be one of {', '.join(known)}; got {given[what]!r}.")
        for what, (least, optional) in _NUMBERS.items():
            number = given[what]
            if number is None and optional:
                continue
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ConfigurationError(f"{name}: {what} must be an integer of at least {least}, got {number!r}.")
        if given["grades"] is not None and given["grades"] > 9:
            raise ConfigurationError(f"{name}: grades must be at most 9, so that a grade is one digit.")
        if given["isolate"] and given["method"] != "pointwise":
            raise ConfigurationError(
                f'{name}: isolate=True needs method="pointwise": every other method shows documents together.'
            )
        if given["scores"] and given["method"] == "pointwise":
            raise ConfigurationError(f'{name}: method="pointwise" gives scores anyway; leave scores=False.')
        budget, price = given["budget"] or Budget(), Price.of(given["price"])
        if not isinstance(budget, Budget):
            raise ConfigurationError(f"{name}: budget must be a Budget, got {type(budget).__name__}.")
        if budget.max_cost is not None and price is None:
            raise ConfigurationError(f"{name}: Budget(max_cost=...) needs price=, to know what a call costs.")
        made = cls(**{**given, "budget": budget, "price": price, "examples": tuple(given["examples"])})
        _ = made.settings  # checks the others
        return made

    @property
    def kind(self) -> JudgeKind:
        """What the judge can be asked."""
        return _KINDS[self.method]

    @property
    def settings(self) -> Settings:
        """Of the strategy."""
        return Settings(**{field.name: getattr(self, field.name) for field in fields(Settings)})

    @property
    def takes_instruction(self) -> bool:
        """Whether the prompts have a place for one."""
        return all(prompt.takes_instruction for prompt in self._prompts().values())

    @property
    def repetitions(self) -> int:
        """How often the final window is put in order anew."""
        if self.shuffles is not None:
            return self.shuffles
        return _SHUFFLES if self.quality == "high" else 0

    def style(self, context_window: int | None) -> Style:
        """How questions are put.

        Args:
            context_window: What the model tells of itself.
        """
        return Style(
            prompts=self._prompts(),
            answers=self.answers,
            grades=self.grades,
            examples=self.examples,
            seed=self.seed,
            temperature=self.temperature,
            count=self.count_tokens or estimate_tokens,
            context_window=self.context_window or context_window or _CONTEXT,
            max_document_tokens=self.max_document_tokens,
            thinking=self.thinking,
        )

    def _prompts(self) -> dict[PromptKind, Prompt]:
        prompts = {kind: Prompt.load(shipped) for kind, shipped in _PROMPTS.items()}
        if self.prompt is None:
            return prompts
        own = _prompt(self.prompt)
        wanted = _PROMPT_OF[self.kind]
        if own.kind != wanted:
            raise ConfigurationError(
                f'The prompt {own.name!r} is for questions of kind {own.kind!r}, but method="{self.method}" asks '
                f"{wanted!r}."
            )
        if self.kind in ("order", "select") and own.most is not None and own.most < self.window:
            raise ConfigurationError(f"The prompt {own.name!r} takes {own.most} passages: set window={own.most}.")
        return {**prompts, own.kind: own}


_PROMPT_OF: dict[JudgeKind, PromptKind] = {"order": "order", "select": "select", "prefer": "compare", "score": "score"}


def _prompt(given: str | Path | Prompt) -> Prompt:
    """A prompt by name, by file, or as it is."""
    if isinstance(given, Prompt):
        return given
    if isinstance(given, Path) or "/" in given or given.endswith(".txt"):
        return Prompt.read(given)
    return Prompt.load(given)


SETUP = tuple(field.name for field in fields(Setup))
