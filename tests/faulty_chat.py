"""A chat model that goes wrong where it is told to, and otherwise answers uprank's own prompts rightly."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from uprank import Ranking, Reranker
from uprank.scorers import LLMScorer
from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.llm import ChatCall, ChatRequest, Completion
from uprank.scorers.llm.chat import Feature
from uprank.testing import AskedQuestion, MockChatModel
from uprank.testing.chat import read_question

QUERY = "how do whales sleep?"
PLAIN: tuple[Feature, ...] = ("max_tokens", "system")
"""Of a model that answers in text alone: nothing that it could turn out not to take."""
LOGPROBS: tuple[Feature, ...] = (*PLAIN, "logprobs")
_NUMBER = re.compile(r"\d{3}")
_MORE = "is the number of this passage, which says no more than others of a whale that sleeps in the deep blue sea"


def texts_of(count: int) -> list[str]:
    """Passages that begin with their position, so that one of which little is left is still known."""
    return [f"{number:03d} {_MORE}" for number in range(count)]


def shuffled(count: int, seed: int = 7) -> list[int]:
    """The true order of so many passages, the best first; the order in which they come is no help."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def number_of(text: str) -> int:
    found = _NUMBER.match(text)
    assert found is not None, text
    return int(found[0])


def shown_in(call: ChatCall) -> tuple[int, ...]:
    """Positions of the passages that a request shows."""
    assert call.request is not None
    return tuple(number_of(text) for text in read_question(call.request).texts)


@dataclass(frozen=True)
class Sent:
    """One request that reached the model.

    Attributes:
        place: Which of the questions it asks, in the order in which they came; the same when it is asked again.
        asked: As a model reads it.
        shown: Positions of the passages, as they were shown.
        began: Seconds.
        timeout: Seconds it was given.
    """

    place: int
    asked: AskedQuestion
    shown: tuple[int, ...]
    began: float
    timeout: float

    @property
    def request(self) -> ChatRequest:
        return self.asked.request

    @property
    def prompt(self) -> str:
        return self.request.messages[-1].content

    @property
    def form(self) -> str:
        if self.request.schema is not None:
            return "json"
        if self.request.tool is not None:
            return "tool"
        return "logprobs" if self.request.top_logprobs else "text"


Fault = Callable[[Sent], "Reply | Lost | Completion"]
"""What comes instead of an answer; it may raise."""


class FaultyChat(MockChatModel):
    """Knows the true order of the passages of :func:`texts_of`; goes wrong where ``at`` says so.

    Args:
        order: The true order.
        fault: What happens.
        at: To which requests; to none by default.
        times: So often at most; ``None`` for ever.
        seconds: How long each answer takes.
        features: What it takes.
        context_window: As it tells.
    """

    def __init__(
        self,
        order: Sequence[int],
        fault: Fault | None = None,
        at: Callable[[Sent], bool] = lambda sent: True,
        *,
        times: int | None = None,
        seconds: float = 0.0,
        features: Sequence[Feature] = PLAIN,
        context_window: int | None = None,
        name: str = "llm:faulty",
    ) -> None:
        worth = {number: 0.95 - 0.9 * rank / len(order) for rank, number in enumerate(order)}
        super().__init__(
            lambda query, text: worth[number_of(text)], features=features, context_window=context_window, name=name
        )
        self.fault, self.at, self.left, self.seconds = fault, at, times, seconds
        self.sent: list[Sent] = []
        self.struck: list[Sent] = []
        self.running = self.cancelled = self.closed = 0
        self._places: dict[tuple[str, str, frozenset[int]], int] = {}
        self._guard = threading.Lock()

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        fault, sent = self._begun(call, timeout)
        if self.seconds:
            time.sleep(min(self.seconds, timeout))
            if self.seconds > timeout:
                return Lost("timeout", f"no whole reply within {timeout:g} s")
        return self._came(fault, sent)

    async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
        fault, sent = self._begun(call, timeout)
        self.running += 1
        try:
            await asyncio.sleep(min(self.seconds, timeout))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if self.seconds > timeout:
            return Lost("timeout", f"no whole reply within {timeout:g} s")
        return self._came(fault, sent)

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1

    @property
    def places(self) -> int:
        """How many different questions came."""
        return len(self._places)

    def _begun(self, call: ChatCall, timeout: float) -> tuple[Fault | None, Sent]:
        assert call.request is not None
        asked = read_question(call.request)
        shown = shown_in(call)
        with self._guard:
            place = self._places.setdefault((asked.query, asked.kind, frozenset(shown)), len(self._places))
            sent = Sent(place, asked, shown, time.monotonic(), timeout)
            self.sent.append(sent)
            if self.fault is None or self.left == 0 or not self.at(sent):
                return None, sent
            self.left = None if self.left is None else self.left - 1
            self.struck.append(sent)
            return self.fault, sent

    def _came(self, fault: Fault | None, sent: Sent) -> Reply | Lost:
        came = self.reply(sent.request) if fault is None else fault(sent)
        return Reply(200, {}, came) if isinstance(came, Completion) else came


def says(text: str, **more: object) -> Fault:
    """The model says this."""
    completion = Completion(text, **more)
    return lambda sent: completion


def leaving_out(order: Sequence[int], *numbers: int, finish: Literal["stop", "length"] = "stop") -> Fault:
    """The model puts the passages in the true order, but forgets some."""

    def fault(sent: Sent) -> Completion:
        known = [(order.index(number), label) for number, label in zip(sent.shown, sent.asked.labels, strict=True)]
        left = [label for rank, label in sorted(known) if order[rank] not in numbers]
        return Completion(" > ".join(f"[{label}]" for label in left), finish)

    return fault


def status(code: int, message: str = "no", **headers: str) -> Fault:
    """An HTTP error; ``retry_after="1"`` becomes the header ``retry-after``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = Reply(code, named, {"error": {"message": message}})
    return lambda sent: reply


def replies(outcome: Reply | Lost) -> Fault:
    return lambda sent: outcome


def raises(error: Exception) -> Fault:
    """The model's own code breaks."""

    def fault(sent: Sent) -> Reply:
        raise error

    return fault


def at_place(*places: int) -> Callable[[Sent], bool]:
    return lambda sent: sent.place in places


def holding(*numbers: int) -> Callable[[Sent], bool]:
    """Requests that show one of these passages."""
    return lambda sent: not set(numbers).isdisjoint(sent.shown)


async def rank_by(driver: str, model: MockChatModel, count: int, **options: object) -> Ranking:
    """Rank ``count`` passages, by threads or by asyncio."""
    policy = options.pop("on_error", "raise")
    reranker = Reranker(LLMScorer(model, **options), on_error=policy)
    if driver == "arank":
        return await reranker.arank(QUERY, texts_of(count))
    return await asyncio.to_thread(reranker.rank, QUERY, texts_of(count))


def ranked(model: MockChatModel, count: int, **options: object) -> Ranking:
    """Rank ``count`` passages."""
    return Reranker(LLMScorer(model, **options)).rank(QUERY, texts_of(count))


def told(ranking: Ranking) -> str:
    """All warnings."""
    return "\n".join(ranking.warnings)


def check_right(ranking: Ranking, truth: Sequence[int]) -> None:
    assert order_of(ranking) == list(truth)
    assert not ranking.degraded


def order_of(ranking: Ranking) -> list[int]:
    return [hit.index for hit in ranking]
