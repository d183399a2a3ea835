"""LangChain: a document compressor that is a Runnable too, and a retriever that reranks another's documents."""

# ruff: noqa: E402 - the check comes before the imports of what it checks
from __future__ import annotations

from uprank.extras import require

require("uprank.langchain", "langchain", "langchain_core")

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun as AsyncRun
from langchain_core.callbacks import CallbackManagerForRetrieverRun as Run
from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.load.serializable import Serializable
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables import config as configs
from pydantic import AliasChoices, Field
from typing_extensions import TypedDict

from uprank import documents as core
from uprank.adapter import RerankFields
from uprank.errors import InvalidInputError
from uprank.notes import noted, notes_of
from uprank.ranking import Ranking

__all__ = ["RerankCompressor", "RerankInput", "RerankRetriever"]
Docs: TypeAlias = Sequence[Document]


class RerankInput(TypedDict):
    query: str
    documents: Docs


class _Fields(RerankFields, Serializable):
    model_config = RerankFields.model_config  # last among the bases, as LangChain's own ignore unknown fields

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"api_key": self.reranker.scorer.key_variable or "UPRANK_API_KEY"}  # dumped by name, not by value


class RerankCompressor(BaseDocumentCompressor, RunnableSerializable[RerankInput, list[Document]], _Fields):
    """Reranks by ``page_content``, or by ``fields`` of the metadata; it has :class:`~uprank.adapter.RerankFields`.

    Documents come back as copies with id, class and metadata; ``relevance_score`` (a float or ``None``) and the keys
    of :func:`~uprank.notes.notes_of`, e.g. ``rerank_index``, replace those of an earlier stage. A number under
    ``retrieval_score`` is the first stage's score. LangChain's ``dumps`` marks a ready ``Reranker`` as not
    implemented; give a model's name to have it written.
    """

    def compress_documents(self, documents: Docs, query: str, callbacks: Callbacks = None) -> list[Document]:
        """Return those that pass, best first, as one run told to ``callbacks``, or to the surrounding run's."""
        return self.invoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    async def acompress_documents(self, documents: Docs, query: str, callbacks: Callbacks = None) -> list[Document]:
        """As :meth:`compress_documents`, awaiting the scorer. Cancelling the task cancels the call."""
        return await self.ainvoke({"query": query, "documents": documents}, {"callbacks": callbacks})

    def invoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """As :meth:`compress_documents`; ``kwargs`` may be options of this call: top_n (or k), threshold, ..."""
        query, sources, documents = self._unpack(input)
        if not sources:
            return []
        config, details = self._traced(config)
        run = configs.get_callback_manager_for_config(config).on_retriever_start(None, query, **details)
        try:
            with _within(run, config):
                ranking = self.reranker.rank(query, documents, **self.call_options(kwargs), **kwargs)
            ranked = _arranged(sources, ranking)
        except BaseException as error:  # a run that started must end, also by KeyboardInterrupt
            run.on_retriever_error(error)
            raise
        run.on_retriever_end(ranked)
        return ranked

    async def ainvoke(self, input: RerankInput, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """As :meth:`invoke`, awaiting the scorer. Cancelling the task cancels the call."""
        query, sources, documents = self._unpack(input)
        if not sources:
            return []
        config, details = self._traced(config)
        run = await configs.get_async_callback_manager_for_config(config).on_retriever_start(None, query, **details)
        try:
            with _within(run, config):
                ranking = await self.reranker.arank(query, documents, **self.call_options(kwargs), **kwargs)
            ranked = _arranged(sources, ranking)
        except BaseException as error:  # also CancelledError
            await run.on_retriever_error(error)
            raise
        await run.on_retriever_end(ranked)
        return ranked

    def _unpack(self, given: RerankInput) -> tuple[str, list[Document], list[core.Document]]:
        try:
            query, sources = given["query"], list(given["documents"])
            return query, sources, [core.Document(one.page_content, one.id, one.metadata) for one in sources]
        except (AttributeError, KeyError, TypeError) as e:
            raise InvalidInputError(f"{self.get_name()} takes a query and LangChain Documents; got {e!r}") from e

    def _traced(self, given: RunnableConfig | None) -> tuple[RunnableConfig, dict[str, Any]]:
        config, name = configs.ensure_config(given), self.get_name()
        config["metadata"] |= {"ls_provider": "uprank", "ls_model_name": self.reranker.model, "ls_retriever_name": name}
        return config, {"run_id": config.get("run_id"), "name": config.get("run_name") or name}


class RerankRetriever(BaseRetriever, _Fields):
    """Reranks, as :class:`RerankCompressor` does, what any other Runnable from a query to documents finds.

    ``top_n`` may be called ``k``. ``invoke`` takes it and the other options of a call, and hands on all else.
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


@contextmanager
def _within(run: Run | AsyncRun, config: RunnableConfig) -> Iterator[None]:
    """Make what is called, e.g. a chat model that judges, a child of the run."""
    token = configs.var_child_runnable_config.set(configs.patch_config(config, callbacks=run.get_child()))
    try:
        yield
    finally:
        configs.var_child_runnable_config.reset(token)


def _arranged(sources: list[Document], ranking: Ranking) -> list[Document]:
    pairs = ((sources[hit.index], {"relevance_score": hit.score, **notes_of(ranking, hit)}) for hit in ranking)
    return [source.model_copy(update={"metadata": noted(source.metadata, notes)}) for source, notes in pairs]
