"""Secrets planted in the tests, and how to look for them."""

from __future__ import annotations

import base64
import pickle
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from uprank.errors import ServiceError

KEY = "sk-planted-0123456789abcdef"
HEADER = "header-planted-fedcba9876"
PASSWORD = "password-planted-55aa"
SECRETS = (KEY, HEADER, PASSWORD, base64.b64encode(f"user:{PASSWORD}".encode()).decode())
TEXTS = ["Paris is the capital of France.", "Whales swim.", "Bread rises."]


@dataclass(frozen=True)
class Case:
    model: str
    variable: str
    header: str = "authorization"

    @property
    def scheme(self) -> str:
        return self.model.partition(":")[0]


CASES = {
    case.scheme: case
    for case in (
        Case("jina:jina-reranker-v2-base-multilingual", "JINA_API_KEY"),
        Case("pinecone:bge-reranker-v2-m3", "PINECONE_API_KEY", "api-key"),
        Case("cohere:rerank-v4.0-fast", "CO_API_KEY"),
        Case("tei:bge", "TEI_API_KEY"),
    )
}


def hidden(*shown: object) -> None:
    """No secret is in any of these, nor the beginning of one that was cut."""
    for item in shown:
        text = item.decode("latin-1") if isinstance(item, bytes) else str(item)
        found = [secret[:9] for secret in SECRETS if secret[:9] in text]
        assert not found, f"{found} in a text of {len(text)} characters"


def chain(error: BaseException) -> Iterator[BaseException]:
    todo, seen = [error], set()
    while todo:
        current = todo.pop()
        if id(current) not in seen:
            seen.add(id(current))
            todo += [other for other in (current.__cause__, current.__context__) if other is not None]
            yield current


def unshown(error: BaseException) -> None:
    """No secret in an error, nor in what it is chained to, however it is printed. The tests' own variables count."""
    for one in chain(error):
        hidden(one, repr(one), repr(one.args), vars(one), pickle.dumps(one.args))
        hidden("".join(traceback.format_exception(one)))
        hidden("".join(traceback.TracebackException.from_exception(one, capture_locals=True).format()))
    if isinstance(error, ServiceError):
        hidden(pickle.dumps(error))
