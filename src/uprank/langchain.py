"""LangChain: a document compressor that is a Runnable too, and a retriever that reranks another's documents."""

# ruff: noqa: E402 - the check comes before the imports of what it checks
from __future__ import annotations

from uprank.extras import require

require("uprank.langchain", "langchain", "langchain_core")

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun as AsyncRun
from langchain_core.callbacks import CallbackManagerForRetrieverRun as Run
from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.load.serializable import Serializable
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import RunnableConfig, RunnableSerializable, ensure_config
from langchain_core.runnables.config import get_async_callback_manager_for_config, get_callback_manager_for_config
from pydantic import AliasChoices, Field
from typing_extensions import TypedDict

from uprank.adapter import RerankFields
from uprank.errors import InvalidInputError
from uprank.ranking import Ranking

__all__ = ["RerankCompressor", "RerankInput", "RerankRetriever"]

Docs: TypeAlias = Sequence[Document]


class RerankInput(TypedDict):
    query: str
    documents: Docs


class _Fields(RerankFields, Serializable):
    # Last among the bases, as LangChain's own ignore unknown fields.
    model_config = RerankFields.model_config

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        # Dumped by name, never by value: under the one that its service has for it.
        return {"api_key": self.reranker.scorer.key_variable or "UPRANK_API_KEY"}


class RerankCompressor(BaseDocumentCompressor, RunnableSerializable[RerankInput, list[Document]], _Fields):
    """Reranks by ``page_content``; its fields are those of :class:`~uprank.adapter.RerankFields`.

    Documents come back as copies with id, class and metadata kept; ``relevance_score`` (a float) and ``rerank_index``
    (the position in the list given) replace those of an earlier stage. Where scoring failed and ``on_error`` is
    ``"passthrough"``, ``relevance_score`` is ``None`` and ``rerank_degraded`` true; so it is of an order that is only
    the best that could be had. LangChain's ``dumps`` marks a ready ``Reranker`` as not implemented; give a model's
    name to have it written.
    """

    def compress_documents(self, documents: Docs, query: str, callbacks: Callbacks = None) -> list[Document]:
        """Return the documents that pass, best first. For no documents, no call is made.

        Args:
            documents: Never changed.
            query: Not empty.
            callbacks: Told of one retriever run; by default those of the surrounding run, if any.

        Raises:
            UprankError: As :meth:`uprank.Reranker.rank` does.
        """
        return self.invoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    async def acompress_documents(self, documents: Docs, query: str, callbacks: Callbacks = None) -> list[Document]:
        """As :meth:`compress_documents`, awaiting the scorer. Cancelling the task cancels the call."""
        return await self.ainvoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    def invoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """As :meth:`compress_documents`; ``kwargs`` may be top_n (or k), threshold and instruction, for this call."""
        query, documents = self._unpack(input)
        if not documents:
            return []
        config, details = self._traced(config)
        run = get_callback_manager_for_config(config).on_retriever_start(None, query, **details)
        try:
            ranked = list(_ranked(self.reranker.rank(query, documents, **self.call_options(kwargs), **kwargs)))
        except BaseException as error:  # a run that started must end, also by KeyboardInterrupt
            run.on_retriever_error(error)
            raise
        run.on_retriever_end(ranked)
        return ranked

    async def ainvoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """As :meth:`invoke`, awaiting the scorer. Cancelling the task cancels the call."""
        query, documents = self._unpack(input)
        if not documents:
            return []
        config, details = self._traced(config)
        run = await get_async_callback_manager_for_config(config).on_retriever_start(None, query, **details)
        try:
            ranked = list(_ranked(await self.reranker.arank(query, documents, **self.call_options(kwargs), **kwargs)))
        except BaseException as error:  # also CancelledError
            await run.on_retriever_error(error)
            raise
        await run.on_retriever_end(ranked)
        return ranked

    def _unpack(self, given: RerankInput) -> tuple[str, list[dict[str, Any]]]:
        try:
            return given["query"], [{"text": source.page_content, "source": source} for source in given["documents"]]
        except (AttributeError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{self.get_name()} takes a query and LangChain Documents; got {error!r}"
            ) from error

    def _traced(self, given: RunnableConfig | None) -> tuple[RunnableConfig, dict[str, Any]]:
        config, name = ensure_config(given), self.get_name()
        config["metadata"] |= {"ls_provider": "uprank", "ls_model_name": self.reranker.model, "ls_retriever_name": name}
        return config, {"run_id": config.get("run_id"), "name": config.get("run_name") or name}


class RerankRetriever(BaseRetriever, _Fields):
    """Reranks, as :class:`RerankCompressor` does, what any other Runnable from a query to documents finds.

    ``top_n`` may be called ``k``. ``invoke`` takes it, ``threshold`` and ``instruction``, and hands on all else.
    """

    base_retriever: RetrieverLike
    top_n: int | None = Field(default=None, ge=1, strict=True, validation_alias=AliasChoices("top_n", "k"))

    def _get_relevant_documents(self, query: str, *, run_manager: Run, **kwargs: Any) -> list[Document]:
        config, options = RunnableConfig(callbacks=run_manager.get_child()), self.call_options(kwargs)
        found = self.base_retriever.invoke(query, config, **kwargs)
        return RerankCompressor(model=self.reranker).invoke({"query": query, "documents": found}, config, **options)

    async def _aget_relevant_documents(self, query: str, *, run_manager: AsyncRun, **kwargs: Any) -> list[Document]:
        config, options = RunnableConfig(callbacks=run_manager.get_child()), self.call_options(kwargs)
        found = await self.base_retriever.ainvoke(query, config, **kwargs)
        given = RerankInput(query=query, documents=found)
        return await RerankCompressor(model=self.reranker).ainvoke(given, config, **options)


def _ranked(ranking: Ranking) -> Iterator[Document]:
    for hit in ranking:
        source: Document = hit.document.metadata["source"]
        metadata = {**source.metadata, "relevance_score": hit.score, "rerank_index": hit.index, "rerank_degraded": True}
        if not ranking.degraded:
            del metadata["rerank_degraded"]  # also that of an earlier stage
        yield source.model_copy(update={"metadata": metadata})
