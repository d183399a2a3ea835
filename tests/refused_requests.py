"""Requests in every dialect that the server speaks, with planted texts; and what must never come out again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores
from uprank.server.dialects.base import Body
from uprank.server.routes import ROUTES

KEY = "planted-key-of-a-client"
OTHER_KEY = "planted-key-which-is-wrong"
QUERY = "planted query"
DOCUMENT = "planted document"

RAISES, SLEEPS, RAISES_WHEN_CANCELLED = "raise", "sleep", "sleep and raise"


class TroubledScorer(Scorer):
    """Scores by length, unless the query's first words say otherwise; its errors quote what it was given."""

    name = "troubled"
    score_kind = "logit"

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return Scores([float(len(text)) for text in texts], "logit")

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        query, quoted = requests[0].query, f"{requests[0].query} {requests[0].texts}"
        if query.startswith(SLEEPS):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                if query.startswith(RAISES_WHEN_CANCELLED):
                    raise RuntimeError(quoted) from None
                raise
        if query.startswith(RAISES):
            try:
                raise KeyError(quoted)
            except KeyError as error:
                raise RuntimeError(f"{quoted} cannot be scored") from error
        return self.score_many(requests)


@dataclass(frozen=True)
class Way:
    """A path and a dialect that is spoken there.

    Args:
        path: With its parameters filled in.
        dialect: Its class.
    """

    path: str
    dialect: type[Body]

    def __str__(self) -> str:
        return f"{self.path} {self.dialect.__name__}"

    def body(self, query: object = QUERY, documents: object = None, *, model: str = "table") -> dict[str, object]:
        """A request of this dialect: its own first example, with this query and these documents in the places."""
        given = [DOCUMENT, f"{DOCUMENT} too"] if documents is None else documents
        body = dict(self.dialect.examples[0])
        for name, value in body.items():
            if isinstance(value, list):
                body[name] = [_like(value[0], one) for one in given] if isinstance(given, list) else given
            elif name in ("query", "data_1", "text_1"):
                body[name] = _like(value, query)
            elif name == "model":
                body[name] = model
        assert QUERY in str(body) or query != QUERY, "the example has no query that is known here"
        return body

    def told(self, reply: httpx.Response) -> str:
        """The message of a refusal, which has this dialect's form."""
        found = reply.json()
        if "/score/" in self.path:
            assert set(found) == {"detail"}
            assert set(found["detail"]) == {"code", "message"}
            return str(found["detail"]["message"])
        if "texts" in self.dialect.examples[0]:
            assert set(found) == {"error", "error_type"}
            assert found["error_type"] in ("Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty")
            return str(found["error"])
        if self.dialect.__name__ == "VoyageBody":
            assert set(found) == {"detail"}
            return str(found["detail"])
        assert found["message"] == found["detail"] == found["error"]["message"]
        assert found["error"]["code"] == reply.status_code
        assert found["id"] == reply.headers["x-request-id"]
        return str(found["message"])


def _like(template: object, text: object) -> object:
    return {**template, "text": text} if isinstance(template, Mapping) else text


def _filled(path: str) -> str:
    return path.replace("{model:path}", "table").replace("{slug:path}", "table")


WAYS = [Way(_filled(path), body) for route in ROUTES for path in route.paths for body in route.bodies]
# What is found before the body is read is told in the dialect that takes what fits no other.
FIRST = [Way(_filled(path), route.bodies[-1]) for route in ROUTES for path in route.paths]


def post(client: httpx.Client, way: Way, body: object, **more: object) -> httpx.Response:
    """Send a body as JSON, and take no other form for the reply."""
    return client.post(way.path, json=body, headers={"accept": "application/json"}, **more)  # type: ignore[arg-type]


def unseen(*shown: object) -> None:
    """Nothing that was planted is in any of these; replies count with their headers."""
    for item in shown:
        text = f"{item.text}\n{item.headers}" if isinstance(item, httpx.Response) else str(item)
        place = text.lower().find("planted")
        assert place < 0, text[max(0, place - 500) : place + 500]


class Log(logging.Handler):
    """Everything that is logged, as it would be printed, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(level=1)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(
            f"{record.levelname} {record.name}: {self.format(record)} {record.__dict__.get('fields', '')}"
        )

    def __str__(self) -> str:
        return "\n".join(self.lines)


@contextmanager
def everything_logged() -> Iterator[Log]:
    """Log at the lowest level, whoever logs but the tests' own client.

    To be entered when the server runs already, since uvicorn sets levels.
    """
    log = Log()
    names = (None, "uprank", "uprank.server", "uvicorn", "uvicorn.error", "httpx", "httpcore")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    carriers = [logger for logger in loggers if logger.name == "root" or not logger.propagate]
    for logger in loggers:
        logger.setLevel(logging.WARNING if logger.name in ("httpx", "httpcore") else 1)
    for logger in carriers:
        logger.addHandler(log)
    try:
        yield log
    finally:
        for logger in carriers:
            logger.removeHandler(log)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
