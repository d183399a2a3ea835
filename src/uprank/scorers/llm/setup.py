"""What a caller may set about asking a language model, checked when the scorer is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from uprank.errors import ConfigurationError
from uprank.scorers.llm.budget import Budget, Price
from uprank.scorers.llm.conversions import JudgeKind
from uprank.scorers.llm.prompts import Example, Passage, Prompt, PromptKind
from uprank.scorers.llm.rendering import MOST_LETTERS, Answers, Style
from uprank.scorers.llm.strategies import STRATEGIES, Settings
from uprank.tokens import estimate_tokens

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
_TOP = 10
_MOST_GRADES = 9
_HOTTEST = 2
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
    top: int | None
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
        for what in ("scores", "isolate", "strict"):
            if not isinstance(given[what], bool):
                raise ConfigurationError(f"{name}: {what} must be True or False, got {given[what]!r}.")
        _check_values(name, given)
        _check_combination(name, given)
        budget, price = given["budget"] or Budget(), Price.of(given["price"])
        if isinstance(budget, Mapping):
            budget = Budget.of(budget)
        if not isinstance(budget, Budget):
            raise ConfigurationError(f"{name}: budget must be a Budget, got {type(budget).__name__}.")
        if budget.max_cost is not None and price is None:
            raise ConfigurationError(f"{name}: Budget(max_cost=...) needs price=, to know what a call costs.")
        made = cls(**{**given, "budget": budget, "price": price, "examples": tuple(given["examples"])})
        _ = made.settings  # checks the others
        _check_prompt(name, made)
        return made

    @property
    def kind(self) -> JudgeKind:
        """What the judge can be asked."""
        return _KINDS[self.method]

    @property
    def settings(self) -> Settings:
        """Of the strategy."""
        given = {field.name: getattr(self, field.name) for field in fields(Settings)}
        return Settings(**{**given, "top": _TOP if self.top is None else self.top})

    @property
    def takes_instruction(self) -> bool:
        """Whether the prompts have a place for one."""
        return all(prompt.takes_instruction for prompt in self.prompts().values())

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
            prompts=self.prompts(),
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

    def prompts(self) -> dict[PromptKind, Prompt]:
        """The prompt of each kind of question."""
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


def _check_values(name: str, given: Mapping[str, Any]) -> None:  # Any: as above
    temperature, count, examples = given["temperature"], given["count_tokens"], given["examples"]
    if given["grades"] is not None and given["grades"] > _MOST_GRADES:
        raise ConfigurationError(f"{name}: grades must be at most {_MOST_GRADES}, so that a grade is one digit.")
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 <= temperature <= _HOTTEST:
        raise ConfigurationError(f"{name}: temperature must be a number from 0 to {_HOTTEST}, got {temperature!r}.")
    if count is not None and not callable(count):
        raise ConfigurationError(f"{name}: count_tokens must be a function (text) -> int, got {count!r}.")
    if isinstance(examples, Example) or not all(isinstance(one, Example) for one in examples):
        raise ConfigurationError(f"{name}: examples must be a list of uprank.scorers.llm.Example.")


def _check_combination(name: str, given: Mapping[str, Any]) -> None:  # Any: as above
    method, window = given["method"], given["window"]
    if given["isolate"] and method != "pointwise":
        raise ConfigurationError(
            f'{name}: isolate=True needs method="pointwise": every other method shows documents together.'
        )
    if given["scores"] and method == "pointwise":
        raise ConfigurationError(f'{name}: method="pointwise" gives scores anyway; leave scores=False.')
    if (given["quality"] == "high" or given["shuffles"]) and method in ("pointwise", "pairwise"):
        raise ConfigurationError(
            f'{name}: method="{method}" does not depend on the order shown, so that there is nothing to repeat: '
            'leave quality="high" and shuffles= out.'
        )
    strategy, step, top = given["strategy"], given["step"], given["top"]
    numbers = all(isinstance(number, int) for number in (window, step or 1, top or 1))  # or Settings says what is wrong
    if numbers and top is not None and method == "listwise" and strategy in ("auto", "sliding", "top-down"):
        sure = window // 2 if strategy == "top-down" else window - (step or window // 2)
        if top > sure:
            raise ConfigurationError(
                f"{name}: windows of {window} find the best {sure} for certain, not top={top}: raise window, or take "
                'strategy="tree" or "heap".'
            )
    if given["answers"] == "logprobs" and method in ("listwise", "setwise") and window > MOST_LETTERS:
        raise ConfigurationError(f'{name}: answers="logprobs" tells {MOST_LETTERS} documents apart: lower window.')


def _check_prompt(name: str, setup: Setup) -> None:
    """See that the prompt can ask what is to be asked."""
    prompt = setup.prompts()[_PROMPT_OF[setup.kind]]
    if setup.answers != "auto" and setup.answers not in prompt.forms:
        raise ConfigurationError(
            f"{name}: the prompt {prompt.name!r} asks for {' or '.join(prompt.forms)}, not answers={setup.answers!r}."
        )
    whole = prompt.text(query="-", passages=[Passage("1", "-")], form=prompt.forms[0])
    if setup.examples and whole is not None:  # with the model's own template in it
        raise ConfigurationError(f"{name}: the prompt {prompt.name!r} takes no examples: its model was tuned without.")
    if setup.kind == "score" and any(example.grades is None for example in setup.examples):
        raise ConfigurationError(f'{name}: method="pointwise" needs examples with grades=.')


def _prompt(given: str | Path | Prompt) -> Prompt:
    """A prompt by name, by file, or as it is."""
    if isinstance(given, Prompt):
        return given
    if not isinstance(given, (str, Path)):
        raise ConfigurationError(f"prompt must be a name, a file or a Prompt, got {type(given).__name__}.")
    if isinstance(given, Path) or "/" in given or given.endswith(".txt"):
        return Prompt.read(given)
    return Prompt.load(given)


SETUP = tuple(field.name for field in fields(Setup))
