"""LangChain's own suite for retrievers, unmodified, under both names of the number of results."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests

from uprank import Reranker
from uprank.langchain import RerankRetriever

QUERY = "how do I parse JSON"
TEXTS = ["json parses JSON text", "csv reads rows", "how to parse", "sched runs later", "a JSON document", "nothing"]


def shared_words(query: str, texts: list[str]) -> list[int]:
    return [len(set(query.split()) & set(text.split())) for text in texts]


class TestRerankRetriever(RetrieversIntegrationTests):
    """``k``, LangChain's usual name."""

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return RerankRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
        store.add_documents([Document(text) for text in TEXTS])
        return {"model": Reranker(shared_words), "base_retriever": store.as_retriever(search_kwargs={"k": 6})}

    @property
    def retriever_query_example(self) -> str:
        return QUERY


class TestRerankRetrieverTopN(TestRerankRetriever):
    """``top_n``, the field's name."""

    @property
    def num_results_arg_name(self) -> str:
        return "top_n"
