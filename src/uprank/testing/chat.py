"""A language model without a language model: it reads uprank's real prompts and answers as you say."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.llm.chat import ChatCall, ChatRequest, Completion, Feature, Features

__all__ = ["AskedQuestion", "MockChatModel"]

_BLOCK = re.compile(r"<passages-(?P<nonce>\w+)>\n(?P<passages>.*?)\n</passages-(?P=nonce)>", re.DOTALL)
_PASSAGE = re.compile(r"(?:\A|(?<=\n\n))\[([A-Z0-9]{1,4})\] ?")  # other ids of this form have been made harmless
_CHOOSE = re.compile(r"\bchoose (\d+):")
_TOP = re.compile(r"from 0 \(not relevant\) to (\d)")
_ALL: tuple[Feature, ...] = ("json_schema", "tools", "logprobs", "seed", "temperature", "max_tokens", "system")


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """What a prompt asks, as it was read from its text.

    Args:
        kind: Whether to order passages, to choose the best, or to grade each.
        query: The query.
        labels: Of the passages, as they are shown.
        texts: Of the passages.
        count: How many to choose.
        top: The highest grade; 1 for yes or no.
        request: The request.
    """

    kind: Literal["order", "choose", "grade"]
    query: str
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    count: int
    top: int
    request: ChatRequest


class MockChatModel:
    """Answers uprank's own prompts from relevances that you give, in the form that is asked for.

    It is told nothing but the prompt: what it answers depends on what a real model would see. ::

        model = MockChatModel(lambda query, text: 1.0 if "Paris" in text else 0.1)
        ranking = Reranker(LLMScorer(model)).rank("capital of France?", texts)
        assert len(model.questions) == 1

    Args:
        relevance: Of a text for a query, in [0, 1].
        features: What it takes, as of a real model; by default everything.
        context_window: Tokens of prompt and answer; ``None`` where it does not tell.
        name: Shown in rankings and errors.
    """

    def __init__(
        self,
        relevance: Callable[[str, str], float],
        *,
        features: Sequence[Feature] = _ALL,
        context_window: int | None = None,
        name: str = "llm:mock",
    ) -> None:
        self.name, self.provider, self.address = name, "mock", "a mock model"
        self.features = Features(*features)
        self.context_window = context_window
        self.questions: list[AskedQuestion] = []
        self._relevance = relevance
        self._lock = threading.Lock()

    def reply(self, request: ChatRequest) -> Completion:
        """Answer a request; override it to answer otherwise."""
        question = read_question(request)
        with self._lock:
            self.questions.append(question)
        return self.answer(question)

    def answer(self, question: AskedQuestion) -> Completion:
        """Answer a question as asked; override it to answer otherwise."""
        values = [self._relevance(question.query, text) for text in question.texts]
        if question.request.top_logprobs:
            return _by_logprobs(question, values)
        by_value = sorted(zip(values, question.labels, strict=True), key=lambda pair: -pair[0])
        best = [label for _, label in by_value]
        structured = question.request.schema is not None or question.request.tool is not None
        if question.kind == "grade":
            grades = [round(value * question.top) for value in values]
            return _completion(_graded(question, grades, structured=structured), question.request)
        if question.kind == "choose":
            best = best[: question.count]
        if structured:
            text = json.dumps({"ranking" if question.kind == "order" else "best": best})
        else:
            text = " > ".join(f"[{label}]" for label in best)
        return _completion(text, question.request)

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        assert call.request is not None  # noqa: S101 - a ChatCall of ours has one
        return Reply(200, {}, self.reply(call.request))

    async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
        return self.send(call, timeout)

    def secrets(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        """Nothing is open."""

    async def aclose(self) -> None:
        """Likewise."""


def read_question(request: ChatRequest) -> AskedQuestion:
    """Read what one of uprank's own prompts asks.

    Raises:
        ValueError: If it is not one of them.
    """
    text = request.messages[-1].content
    blocks = list(_BLOCK.finditer(text))
    if not blocks:
        raise ValueError("this prompt has no fenced passages: it is not one of uprank's own")
    parts = _PASSAGE.split(blocks[-1]["passages"])
    nonce = blocks[-1]["nonce"]
    query = re.search(rf"<query-{nonce}>\n(.*?)\n</query-{nonce}>", text, re.DOTALL)
    # Not in the passages, which may say anything.
    chosen, top = _CHOOSE.search(text[: blocks[-1].start()]), _TOP.search(text[blocks[-1].end() :])
    kind: Literal["order", "choose", "grade"] = "order"
    rules = text.partition("<query-")[0]
    if "Judge how relevant" in rules:
        kind = "grade"
    elif _CHOOSE.search(rules) or "choose the one" in rules:
        kind = "choose"
    return AskedQuestion(
        kind,
        query[1] if query else "",
        tuple(parts[1::2]),
        tuple(part.strip("\n") for part in parts[2::2]),
        int(chosen[1]) if chosen else 1,
        int(top[1]) if top else 1,
        request,
    )


def _by_logprobs(question: AskedQuestion, values: Sequence[float]) -> Completion:
    """The first token's alternatives, likely in the proportion of the relevances."""
    if question.kind == "grade" and question.top == 1:
        weights = {"Yes": values[0], "No": 1.0 - values[0]}
    elif question.kind == "grade":
        low, share = divmod(values[0] * question.top, 1.0)
        weights = {str(int(low)): 1.0 - share, str(int(low) + 1): share}
    else:
        weights = {label: math.exp(20.0 * value) for label, value in zip(question.labels, values, strict=True)}
    weights = {token: weight for token, weight in weights.items() if weight > 0}
    total = sum(weights.values())
    found = {token: math.log(weight / total) for token, weight in weights.items()}
    most = dict(sorted(found.items(), key=lambda pair: -pair[1])[: question.request.top_logprobs])
    return Completion(next(iter(most)), logprobs=(most,), input_tokens=_tokens(question.request), output_tokens=1)


def _graded(question: AskedQuestion, grades: Sequence[int], *, structured: bool) -> str:
    pairs = list(zip(question.labels, grades, strict=True))
    if structured:
        return json.dumps({"grades": [{"passage": label, "grade": grade} for label, grade in pairs]})
    if len(pairs) > 1:
        return "\n".join(f"{label}: {grade}" for label, grade in pairs)
    return ("No", "Yes")[grades[0]] if question.top == 1 else str(grades[0])


def _completion(text: str, request: ChatRequest) -> Completion:
    return Completion(text, input_tokens=_tokens(request), output_tokens=len(text) // 3)


def _tokens(request: ChatRequest) -> int:
    return sum(len(message.content) for message in request.messages) // 4
