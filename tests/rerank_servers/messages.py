"""A request as received, and the reply to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal
from urllib.parse import urlsplit

# Where the services look for the texts, and the keys under which one text can lie.
TEXTS_KEYS = ("documents", "texts", "input", "passages", "items", "data_2", "text_2")
QUERY_KEYS = ("query", "data_1", "text_1", "queries")
TEXT_KEYS = ("text", "content")


def text_of(value: object) -> str:
    """The text of a document or query in any service's form; empty where it has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return next((str(value[key]) for key in TEXT_KEYS if key in value), "")
    return ""


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def decode_json(body: bytes) -> object:
    """Decode strict JSON: no NaN, no Infinity, no half of a surrogate pair.

    Raises:
        ValueError: This is not JSON.
    """
    text = body.decode("utf-8")
    value = json.loads(text, parse_constant=_refuse_constant)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


@dataclass(frozen=True)
class Request:
    """A request as it came in.

    Attributes:
        number: Which POST of this server it is, from 0; None for other methods.
        method: The method.
        path: The path with its query string.
        headers: The headers, names in lower case.
        body: The body, byte for byte.
        received: When it was complete, in seconds of ``time.monotonic``.
        connection: Which TCP connection it came on, from 0.
        target: The request target as sent: an absolute URL when the server is used as a proxy.
    """

    number: int | None
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    received: float
    connection: int
    target: str

    @property
    def route(self) -> str:
        """The path without its query string."""
        return urlsplit(self.path).path

    @property
    def id(self) -> str:
        """The request id that the reply carries, where the service has one: in its body or in ``x-request-id``."""
        return f"00000000-0000-4000-8000-{0 if self.number is None else self.number:012d}"

    @cached_property
    def json(self) -> object:
        """The decoded body; None where it is not JSON."""
        try:
            return decode_json(self.body)
        except ValueError:
            return None

    def _first(self, keys: tuple[str, ...]) -> object:
        body = self.json if isinstance(self.json, dict) else {}
        return next((body[key] for key in keys if key in body), None)

    @property
    def query(self) -> str:
        """The query, in any dialect."""
        return text_of(self._first(QUERY_KEYS))

    @property
    def texts(self) -> list[str]:
        """The documents as texts, in any dialect."""
        found = self._first(TEXTS_KEYS)
        return [text_of(each) for each in found] if isinstance(found, list) else []


@dataclass(frozen=True)
class Reply:
    """An answer, and how it goes out.

    Attributes:
        status: The status code.
        body: The bytes sent.
        headers: Headers besides the length and the type.
        content_type: The type of the body; none is sent where it is empty.
        value: What the body encodes, for the faults that change it.
        delivery: All at once, one byte at a time, half of it and a reset, or not at all.
        wait: Seconds before anything is sent.
        release: Called once the work is done, just before the answer goes out.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    value: object = None
    delivery: Literal["whole", "slow", "reset", "closed"] = "whole"
    wait: float = 0.0
    release: Callable[[], None] | None = None

    def carrying(self, value: object) -> Reply:
        """The same reply with another value; NaN is written as a bare ``NaN``, as some servers do."""
        return replace(self, body=json.dumps(value, ensure_ascii=False).encode(), value=value)


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply with ``value`` as JSON."""
    return Reply(status=status, headers=headers or {}).carrying(value)
