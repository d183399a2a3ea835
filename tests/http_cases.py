"""The table of services that the tests of HTTP scorers go through: how each is asked, and what it answers.

Everything in it is written down from the services' documentation, not read from the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from rerank_servers import RerankServer, pair_tokens, serve
from uprank import Ranking, Reranker
from uprank.scorers.base import ScoreKind

KEY = "table-test-key"
QUERY = "what is the capital of France?"
TEXTS = [
    "Whales swim in the deep sea.",
    "Paris is the capital of France.",
    "",
    "Berlin is the capital of Germany.",
    'Quotes " and \\ backslashes,\nand a second line.',
    "France has many rivers.",
    "The lazy dog sleeps.",
    "Füchse, 狐狸, 🦊: words of other scripts.",
    " \t",
    "What a capital idea!",
    "The quick brown fox jumps over the lazy dog.",
]
"""Eleven different texts, two of them blank."""

BodyOf = Callable[[str, str, list[str]], dict[str, object]]


def _with(**more: object) -> BodyOf:
    return lambda model, query, texts: {"model": model, "query": query, "documents": texts, **more}


def _objects(texts: Sequence[str]) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def _mixedbread(model: str, query: str, texts: list[str]) -> dict[str, object]:
    return {"model": model, "query": query, "input": texts, "return_input": False}


def _nim(model: str, query: str, texts: list[str]) -> dict[str, object]:
    return {"model": model, "query": {"text": query}, "passages": _objects(texts), "truncate": "END"}


def _pinecone(model: str, query: str, texts: list[str]) -> dict[str, object]:
    return {"model": model, "query": query, "documents": _objects(texts), "return_documents": False}


def _pinecone_cut(model: str, query: str, texts: list[str]) -> dict[str, object]:
    return {**_pinecone(model, query, texts), "parameters": {"truncate": "END"}}


def _score(model: str, query: str, texts: list[str]) -> dict[str, object]:
    return {"model": model, "data_1": query, "data_2": texts}


def _tei(model: str, query: str, texts: list[str]) -> dict[str, object]:
    return {"query": query, "texts": texts, "truncate": True, "raw_scores": True, "return_text": False}


def _sie(model: str, query: str, texts: list[str]) -> dict[str, object]:
    items = [{"id": str(position), "text": text} for position, text in enumerate(texts)]
    return {"query": {"text": query}, "items": items}


_PLAIN = _with()
_NOT_BACK = _with(return_documents=False)
_VOYAGE = _with(return_documents=False, truncation=True)
_INFINITY = _with(return_documents=False, raw_scores=True)
BGE = "BAAI/bge-reranker-v2-m3"


@dataclass(frozen=True)
class Case:
    """One way of asking one service.

    Attributes:
        scheme: What the model's name begins with.
        model: The rest of it; empty for a server that runs one model.
        service: Which server plays it.
        body: What must be sent, whole.
        kind: What the reported scores mean.
        reports_raw: Whether the reported scores are those that the server gives for raw scores; elsewhere they
            are those that it gives by itself.
        listwise: Whether it must never be split.
        cap: Most documents of one request.
        units: Documents that one search unit pays for; none where the service counts no units.
        tokens: Whether the service counts tokens.
        error_ids: Whether its errors carry a request id.
        reply_ids: Whether its answers do.
        dialect: For ``http:`` only.
        path: Where the server takes requests, where that is not its usual place.
        headers: Sent besides.
        label: Told apart from other cases of the scheme by this.
    """

    scheme: str
    model: str
    service: str
    body: BodyOf = field(repr=False)
    kind: ScoreKind = "probability"
    reports_raw: bool = False
    listwise: bool = False
    cap: int | None = None
    units: int | None = None
    tokens: bool = True
    error_ids: bool = False
    reply_ids: bool = False
    dialect: str | None = None
    path: str | None = None
    headers: Mapping[str, str] | None = None
    label: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}-{self.label}" if self.label else self.scheme

    @property
    def name(self) -> str:
        """The model's full name."""
        return f"{self.scheme}:{self.model}" if self.model else self.scheme

    @property
    def asks_first(self) -> int:
        """Requests before the first one that scores: TEI is asked for its limits."""
        return 1 if self.scheme == "tei" else 0

    def address(self, server: RerankServer) -> str:
        """The ``base_url`` for a running server; for ``http:`` the full address."""
        if self.scheme != "http":
            return server.base_url
        return server.url + (self.path or server.path).replace("{model}", self.model)

    def reranker(self, server: RerankServer, **options: object) -> Reranker:
        """A reranker that asks a running server; ``options`` win over the case's own."""
        own: dict[str, object] = {"base_url": self.address(server), "api_key": KEY}
        own |= {} if self.dialect is None else {"dialect": self.dialect}
        own |= {} if self.headers is None else {"headers": self.headers}
        return Reranker(self.name, **{**own, **options})  # type: ignore[arg-type]  # a scorer's options are its own

    def serve(self, stack: ExitStack, **options: object) -> RerankServer:
        """A strict server for as long as the stack is open."""
        return stack.enter_context(serve(self.service, **{"key": KEY, "strict": True, **options}))  # type: ignore[arg-type]  # options of the service

    def scores(self, server: RerankServer, texts: Sequence[str]) -> list[float]:
        """What must be reported for texts that are sent in one request."""
        return server.scores(QUERY, sent(texts), model=self.model, raw_scores=self.reports_raw)

    def used(self, *requests: Sequence[str]) -> tuple[int | None, float | None]:
        """Tokens and search units that the service counts for requests with these texts."""
        tokens = sum(pair_tokens(QUERY, sent(texts)) for texts in requests)
        units = None if self.units is None else sum(math.ceil(len(texts) / (self.units or 1)) for texts in requests)
        return (tokens if self.tokens else None), units


_HOSTED = {"error_ids": True, "reply_ids": True}

CASES = [
    Case("cohere", "rerank-v4.0-fast", "cohere", _PLAIN, cap=1000, units=100, **_HOSTED),
    Case("jina", "jina-reranker-v2-base-multilingual", "jina", _NOT_BACK, cap=1024, error_ids=True),
    Case("jina", "jina-reranker-v3", "jina", _NOT_BACK, "cosine", listwise=True, cap=1024, label="v3"),
    Case("voyage", "rerank-2.5", "voyage", _VOYAGE, cap=1000, **_HOSTED),
    Case("mixedbread", "mixedbread-ai/mxbai-rerank-large-v2", "mixedbread", _mixedbread, "rank", cap=1000, **_HOSTED),
    Case("nvidia", "nvidia/llama-3.2-nv-rerankqa-1b-v2", "nvidia", _nim, "logit", cap=512, **_HOSTED),
    Case("pinecone", "bge-reranker-v2-m3", "pinecone", _pinecone_cut, cap=100, units=100, tokens=False, **_HOSTED),
    Case("together", "mixedbread-ai/Mxbai-Rerank-Large-V2", "together", _NOT_BACK, **_HOSTED),
    Case("fireworks", "fireworks/qwen3-reranker-8b", "fireworks", _NOT_BACK, **_HOSTED),
    Case("openrouter", "cohere/rerank-v3.5", "openrouter", _PLAIN, cap=1000, units=100, **_HOSTED),
    Case("openrouter", "other/reranker", "openrouter", _PLAIN, "rank", units=100, **_HOSTED, label="other"),
    Case("vllm", BGE, "vllm", _PLAIN, reply_ids=True),
    Case("vllm-score", BGE, "vllm-score", _score, reply_ids=True),
    Case("tei", BGE, "tei", _tei, cap=32, tokens=False),
    Case("llama-cpp", "bge-reranker-v2-m3", "llama-cpp", _PLAIN, "logit"),
    Case("llama-cpp", "Qwen3-Reranker-0.6B", "llama-cpp", _PLAIN, label="qwen3"),
    Case("infinity", BGE, "infinity", _INFINITY, cap=2048, reply_ids=True, tokens=False),
    Case("xinference", "bge-reranker-v2-m3", "xinference", _NOT_BACK, "rank", tokens=False, reply_ids=True),
    Case("localai", "jina-reranker-v1-tiny-en", "localai", _PLAIN, "rank", tokens=False),
    Case("sie", BGE, "sie", _sie, tokens=False),
    Case("sie", "other/reranker", "sie", _sie, "rank", tokens=False, label="other"),
]


def _http(dialect: str, service: str, body: BodyOf, **more: object) -> Case:
    return Case("http", "my-model", service, body, "rank", dialect=dialect, label=dialect, **more)  # type: ignore[arg-type]  # fields of Case


CASES += [
    _http("cohere", "cohere", _PLAIN, units=100, **_HOSTED),
    _http("jina", "jina", _NOT_BACK, error_ids=True),
    _http("infinity", "infinity", _INFINITY, reports_raw=True, reply_ids=True),
    _http("voyage", "voyage", _VOYAGE, **_HOSTED),
    _http("mixedbread", "mixedbread", _mixedbread, **_HOSTED),
    _http("tei", "tei", _tei, reports_raw=True, tokens=False),
    _http("nim", "nvidia", _nim, path="/v1/retrieval/my-model/reranking", **_HOSTED),
    _http(
        "pinecone",
        "pinecone",
        _pinecone,
        units=100,
        tokens=False,
        headers={"Api-Key": KEY, "X-Pinecone-Api-Version": "2026-04"},
        **_HOSTED,
    ),
    _http("score", "vllm-score", _score, reply_ids=True),
    _http("sie", "sie", _sie, tokens=False),
]

SPLITTABLE = [case for case in CASES if not case.listwise]
PROVIDER_CASES = [case for case in SPLITTABLE if not case.label or case.dialect == "cohere"]
"""One case for each scheme."""


def case_of(name: str) -> Case:
    """The case of this id."""
    return next(case for case in CASES if str(case) == name)


class Servers:
    """Starts the server of each case once, when it is first needed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: dict[str, RerankServer] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of(self, case: Case) -> RerankServer:
        """The server of a case, with no faults left over."""
        name = str(case)
        if name not in self._running:
            self._running[name] = case.serve(self._stack)
        self._running[name].heal()
        return self._running[name]


def sent(texts: Sequence[str]) -> list[str]:
    """What goes over the wire: several services refuse a blank document."""
    return [text if text.strip() else "." for text in texts]


def check_ranking(ranking: Ranking, documents: Sequence[str], scores: Mapping[str, float], kind: ScoreKind) -> None:
    """Every document is there with its own score, best first, earlier ones first where they tie."""
    order = sorted(range(len(documents)), key=lambda index: (-scores[documents[index]], index))
    assert [hit.index for hit in ranking] == order
    assert [hit.rank for hit in ranking] == list(range(len(documents)))
    assert [hit.document.text for hit in ranking] == [documents[index] for index in order]
    # A sigmoid of our own may round the last bits otherwise than the server's.
    assert [hit.score for hit in ranking] == pytest.approx([scores[documents[index]] for index in order], rel=1e-12)
    assert ranking.score_kind == kind
    assert not ranking.degraded
