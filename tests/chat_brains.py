"""Models that answer as a test says, and answers for a chat server that come from reading the prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chat_server import Said
from uprank import Ranking, Reranker
from uprank.scorers import LLMScorer
from uprank.scorers.llm import ChatRequest, Completion, Message
from uprank.scorers.llm.chat import Schema
from uprank.testing import AskedQuestion, MockChatModel

__all__ = ["TEXT_ONLY", "Saying", "by_number", "chain", "indices", "numbered", "ranked", "reading"]

TEXT_ONLY = ("system",)
"""The features of a model that answers in words alone."""


def numbered(count: int) -> list[str]:
    """Documents in the worst order: the last is the best."""
    return [f"passage {number}" for number in range(count)]


def by_number(query: str, text: str) -> float:
    return int(text.rpartition(" ")[2]) / 1000


class Saying(MockChatModel):
    """Says what a function of the question says."""

    def __init__(self, say: Callable[[AskedQuestion], str | Completion], **options: Any) -> None:
        super().__init__(by_number, **options)
        self._say = say

    def answer(self, question: AskedQuestion) -> Completion:
        said = self._say(question)
        return said if isinstance(said, Completion) else Completion(said)


def chain(labels: Sequence[str]) -> str:
    return " > ".join(f"[{label}]" for label in labels)


def ranked(say: Callable[[AskedQuestion], str | Completion], texts: Sequence[str], **options: Any) -> Ranking:
    """What becomes of texts where the model says this; ``features`` are its own, the other options the scorer's."""
    model = Saying(say, features=options.pop("features", TEXT_ONLY))
    return Reranker(LLMScorer(model, **options)).rank("which?", list(texts))


def indices(ranking: Ranking) -> list[int]:
    return [hit.index for hit in ranking]


def reading(
    relevance: Callable[[str, str], float] | MockChatModel,
) -> Callable[[list[dict[str, str]], Mapping[str, Any]], Said]:
    """A brain for ``chat_server.serve_chat`` that answers by hidden relevances.

    Args:
        relevance: Of a text for a query, in [0, 1]; or the model that reads and answers.
    """
    model = relevance if isinstance(relevance, MockChatModel) else MockChatModel(relevance)

    def brain(messages: list[dict[str, str]], body: Mapping[str, Any]) -> Said:
        said = model.reply(_request(messages, body))
        return Said(said.text, said.logprobs)

    return brain


def _request(messages: list[dict[str, str]], body: Mapping[str, Any]) -> ChatRequest:
    """What a decoded body asks for, as it was before it was encoded."""
    shape, tools = body.get("response_format"), body.get("tools")
    return ChatRequest(
        tuple(Message(each["role"], each["content"]) for each in messages),  # type: ignore[arg-type]  # the server checks
        max_tokens=body.get("max_tokens") or body.get("max_completion_tokens") or 16,
        schema=_schema(shape["json_schema"], "schema") if shape else None,
        tool=_schema(tools[0]["function"], "parameters") if tools else None,
        top_logprobs=body.get("top_logprobs") or 0,
    )


def _schema(held: Mapping[str, Any], key: str) -> Schema:
    return Schema(held["name"], held.get("description", ""), held[key])
