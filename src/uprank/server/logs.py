"""What the server logs: one line a request, with nothing of what was asked; as text or as JSON."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from uprank.server.questions import Answer
from uprank.server.refusals import Refusal

__all__ = ["Done", "JsonLines", "LogFormat", "log_request", "request_id_of", "set_up_logging"]

logger = logging.getLogger("uprank.server")

LogFormat = Literal["text", "json"]

# What is copied into a log and a header: short, and nothing that could end a line or look like a field of its own.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:;=/+@-]{1,128}")


def request_id_of(headers: Mapping[str, str]) -> str:
    """The id that a request goes by in the reply, in its headers and in the log.

    Args:
        headers: By their names in lower case. ``X-Request-Id`` is taken over where it has at most 128 letters, digits
            and ``._:;=/+@-``; so one id follows a request through several services.
    """
    given = headers.get("x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Done:
    """A request that is done, as the log and the metrics tell of it.

    Args:
        request_id: As :func:`request_id_of` gives it.
        route: The path as it is declared: one that was made up by a client may hold anything.
        status: Of the reply; 499 where the client did not wait for it.
        seconds: That it took.
        model: The id of the model that was meant; ``""`` where none was.
        caller: The name of its key.
        answer: What came of it, if it was a ranking.
        refusal: What came of it instead.
    """

    request_id: str
    route: str
    status: int
    seconds: float
    model: str
    caller: str | None = None
    answer: Answer | None = None
    refusal: Refusal | None = None


def log_request(done: Done) -> None:
    """Log a request that is done, with nothing of what was asked."""
    if not logger.isEnabledFor(logging.INFO):
        return
    milliseconds = round(done.seconds * 1_000, 1)
    fields: dict[str, object] = {
        "request_id": done.request_id,
        "method": "POST",
        "route": done.route,
        "status": done.status,
        "milliseconds": milliseconds,
    }
    told = f"{done.request_id} POST {done.route} {done.status} {milliseconds} ms"
    if done.caller is not None:
        fields["key"] = done.caller
        told += f" by {done.caller}"
    if done.model:
        fields["model"] = done.model
        told += f" {done.model}"
    if done.refusal is not None:
        fields["code"] = done.refusal.code
        told += f" {done.refusal.code}"
    if done.answer is not None:
        fields["documents"] = documents = sum(map(len, done.answer.question.documents))
        told += f", {documents} documents"
        failed = [f"{attempt.model} ({attempt.kind})" for attempt in done.answer.attempts]
        if failed:
            fields["failed"] = failed
            told += f", not by {', '.join(failed)}"
    logger.info("%s", told, extra={"fields": fields})


class JsonLines(logging.Formatter):
    """Formats each record as one line of JSON: time, level, logger, message, and what is known of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        fields = getattr(record, "fields", None)
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **(fields if isinstance(fields, dict) else {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)  # in ASCII, which takes lone surrogates too


def set_up_logging(level: str = "info", form: LogFormat = "text") -> None:
    """Send what this process logs to stderr; for a program that serves and does nothing else.

    Args:
        level: From which on: ``"debug"``, ``"info"``, ``"warning"``, ``"error"`` or ``"critical"``. It is that of
            uprank; other packages say what they have to from warnings on.
        form: ``"text"``, or ``"json"`` for one object a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("uprank", "uvicorn.error"):
        logging.getLogger(name).setLevel(level.upper())
