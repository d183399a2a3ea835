"""One question through both frameworks: what BM25 found, and how each framework reranked it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import MetadataMode, NodeWithScore

from uprank.demo.retrieval import BM25Index, BM25NodeRetriever, BM25Retriever
from uprank.langchain import RerankRetriever
from uprank.llama_index import RerankPostprocessor
from uprank.reranker import Reranker

__all__ = ["Bench", "Comparison", "Found", "Reranked"]


@dataclass(frozen=True, slots=True)
class Found:
    """A passage as BM25 found it."""

    id: str
    score: float


@dataclass(frozen=True, slots=True)
class Reranked:
    """A passage as it came back from a framework, read from what the framework's users see."""

    id: str
    index: int
    score: float
    kind: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One question before and after.

    Args:
        query: The question.
        found: All candidates, best first.
        langchain: What the LangChain retriever returned.
        llama_index: What the LlamaIndex postprocessor returned.
        seconds: Time both took together, retrieval included.
    """

    query: str
    found: Sequence[Found]
    langchain: Sequence[Reranked]
    llama_index: Sequence[Reranked]
    seconds: float

    @property
    def agrees(self) -> bool:
        """Whether both frameworks returned the same passages from the same places in the same order."""
        return [(hit.id, hit.index) for hit in self.langchain] == [(hit.id, hit.index) for hit in self.llama_index]

    @property
    def largest_difference(self) -> float:
        """By how much the two scores of a passage differ at most."""
        return max(
            (abs(one.score - other.score) for one, other in zip(self.langchain, self.llama_index, strict=False)),
            default=0.0,
        )


class Bench:
    """Both frameworks over one index and one reranker, so that the model is loaded once.

    Args:
        index: The first stage.
        reranker: The second stage.
        candidates: How many passages the first stage hands on.
        top_n: How many come back.
    """

    def __init__(self, index: BM25Index, reranker: Reranker, *, candidates: int, top_n: int) -> None:
        self._documents = BM25Retriever(index=index, k=candidates)
        self._langchain = RerankRetriever(base_retriever=self._documents, model=reranker, top_n=top_n)
        self._nodes = BM25NodeRetriever(index, candidates)
        # NONE scores the text alone, as LangChain does.
        self._llama_index = RerankPostprocessor(model=reranker, top_n=top_n, metadata_mode=MetadataMode.NONE)

    def compare(self, query: str) -> Comparison:
        """Retrieve and rerank through LangChain, then through LlamaIndex.

        Raises:
            ScorerError: If the model failed.
        """
        started = time.perf_counter()
        documents = self._langchain.invoke(query)
        nodes = self._nodes.retrieve(query)
        reranked = self._llama_index.postprocess_nodes(nodes, query_str=query)
        seconds = time.perf_counter() - started
        found = [Found(node.node_id, float(node.score or 0.0)) for node in nodes]
        return Comparison(query, found, list(map(_document, documents)), list(map(_node, reranked)), seconds)


def _document(document: LangChainDocument) -> Reranked:
    metadata = document.metadata
    return Reranked(
        str(document.id), int(metadata["rerank_index"]), float(metadata["relevance_score"]), str(metadata["kind"])
    )


def _node(node: NodeWithScore) -> Reranked:
    return Reranked(
        node.node_id, int(node.metadata["rerank_index"]), float(node.score or 0.0), str(node.metadata["kind"])
    )
