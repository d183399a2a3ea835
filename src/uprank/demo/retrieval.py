"""The first stage: BM25 over the corpus, as each framework retrieves."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document as LangChainDocument
from langchain_core.retrievers import BaseRetriever as LangChainRetriever
from llama_index.core.base.base_retriever import BaseRetriever as LlamaIndexRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from uprank.documents import Document

__all__ = ["BM25Index", "BM25NodeRetriever", "BM25Retriever"]


class BM25Index:
    """BM25 (Lucene's variant, k1 = 1.5, b = 0.75, English stop words) over documents, in memory.

    Args:
        documents: At least one.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = documents
        self._bm25 = bm25s.BM25()
        self._bm25.index(
            bm25s.tokenize([document.text for document in documents], show_progress=False), show_progress=False
        )

    def search(self, query: str, k: int) -> list[tuple[Document, float]]:
        """Return the ``k`` best documents with their scores, best first, ties in corpus order.

        Fewer where fewer share a word with the query: a score of 0 is no match.
        """
        (words,) = bm25s.tokenize([query], return_ids=False, show_progress=False)
        if not words:  # only stop words
            return []
        scores = self._bm25.get_scores(words)
        best = np.argsort(-scores, kind="stable")[:k]
        return [(self._documents[index], float(scores[index])) for index in best if scores[index] > 0]


class BM25Retriever(LangChainRetriever):
    """LangChain's view of the index: documents with their ``bm25_score`` in the metadata.

    Attributes:
        index: What is searched.
        k: How many documents to return at most.
    """

    index: BM25Index
    k: int

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[LangChainDocument]:
        return [
            LangChainDocument(
                id=document.id, page_content=document.text, metadata={**document.metadata, "bm25_score": score}
            )
            for document, score in self.index.search(query, self.k)
        ]


class BM25NodeRetriever(LlamaIndexRetriever):
    """LlamaIndex's view of the index: nodes with their BM25 score.

    Args:
        index: What is searched.
        k: How many nodes to return at most.
    """

    def __init__(self, index: BM25Index, k: int) -> None:
        super().__init__()
        self._index = index
        self._k = k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(
                node=TextNode(id_=document.id, text=document.text, metadata=dict(document.metadata)), score=score
            )
            for document, score in self._index.search(query_bundle.query_str, self._k)
        ]
