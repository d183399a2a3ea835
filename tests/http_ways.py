"""The ways to a reranker behind HTTP: the package itself, and the classes of both frameworks, each sync and async."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import SecretStr

from rerank_servers import RerankServer
from uprank import Reranker
from uprank.langchain import RerankCompressor
from uprank.llama_index import RerankPostprocessor

QUERY = "capital of France?"
TEXTS = ["Whales swim.", "Paris is the capital of France.", "Bread rises.", "Whales swim."]
MODELS = {
    "cohere": "cohere:rerank-v3.5",
    "jina": "jina:jina-reranker-v2-base-multilingual",
    "voyage": "voyage:rerank-2.5",
    "pinecone": "pinecone:bge-reranker-v2-m3",
    "infinity": "infinity:BAAI/bge-reranker-v2-m3",
    "tei": "tei:BAAI/bge-reranker-v2-m3",
}
Rank = Callable[[str, RerankServer, dict[str, Any]], Awaitable[list[tuple[int, float | None]]]]


def compressor(service: str, server: RerankServer, **options: Any) -> RerankCompressor:
    given = {"base_url": server.base_url, **options}
    return RerankCompressor(model=MODELS[service], api_key=SecretStr("k"), options=given)


def postprocessor(service: str, server: RerankServer, **options: Any) -> RerankPostprocessor:
    given = {"base_url": server.base_url, **options}
    return RerankPostprocessor(model=MODELS[service], api_key=SecretStr("k"), options=given)


def nodes(texts: list[str] = TEXTS) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]


async def by_rank(service: str, server: RerankServer, options: dict[str, Any]) -> list[tuple[int, float | None]]:
    reranker = Reranker(MODELS[service], api_key="k", base_url=server.base_url, **options)
    return [(hit.index, hit.score) for hit in reranker.rank(QUERY, TEXTS)]


async def by_compressor(service: str, server: RerankServer, options: dict[str, Any]) -> list[tuple[int, float | None]]:
    made = compressor(service, server, **options)
    found = made.compress_documents([Document(text) for text in TEXTS], QUERY)
    return [(each.metadata["rerank_index"], each.metadata["relevance_score"]) for each in found]


async def by_acompressor(service: str, server: RerankServer, options: dict[str, Any]) -> list[tuple[int, float | None]]:
    made = compressor(service, server, **options)
    try:
        found = await made.acompress_documents([Document(text) for text in TEXTS], QUERY)
    finally:
        await made.reranker.aclose()
    return [(each.metadata["rerank_index"], each.metadata["relevance_score"]) for each in found]


async def by_postprocessor(
    service: str, server: RerankServer, options: dict[str, Any]
) -> list[tuple[int, float | None]]:
    found = postprocessor(service, server, **options).postprocess_nodes(nodes(), query_str=QUERY)
    return [(each.node.metadata["rerank_index"], each.score) for each in found]


async def by_apostprocessor(
    service: str, server: RerankServer, options: dict[str, Any]
) -> list[tuple[int, float | None]]:
    made = postprocessor(service, server, **options)
    try:
        found = await made.apostprocess_nodes(nodes(), query_str=QUERY)
    finally:
        await made.reranker.aclose()
    return [(each.node.metadata["rerank_index"], each.score) for each in found]


WAYS = {
    "rank": by_rank,
    "langchain": by_compressor,
    "langchain-async": by_acompressor,
    "llama-index": by_postprocessor,
    "llama-index-async": by_apostprocessor,
}
