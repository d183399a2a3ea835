"""LlamaIndex: a node postprocessor that reranks, for query engines, chat engines and tools.

>>> index.as_query_engine(node_postprocessors=[RerankPostprocessor(top_n=5)])  # doctest: +SKIP
"""
# ruff: noqa: E402 - the check comes before the imports it is for

from __future__ import annotations

from uprank.extras import require

# Not `llama_index`: that is a namespace which other packages share.
require("RerankPostprocessor", "llama-index", "llama_index.core")

from collections.abc import Generator
from typing import TypeAlias

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # it has no __all__
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from uprank.adapter import RerankFields
from uprank.documents import Document
from uprank.errors import ConfigurationError, InvalidInputError
from uprank.notes import noted, notes_of
from uprank.observe import reported_by
from uprank.ranking import Ranking
from uprank.rounds import adrive, drive

__all__ = ["RerankPostprocessor"]

Nodes: TypeAlias = list[NodeWithScore]
RerankPlan: TypeAlias = Generator[tuple[str, list[Document]], Ranking, Nodes]

dispatcher = get_dispatcher(__name__)


class RerankPostprocessor(RerankFields, BaseNodePostprocessor):
    """Reorders retrieved nodes by how well they answer the query.

    Has the fields of :class:`~uprank.adapter.RerankFields` too. The nodes given are never changed: the result holds
    new ``NodeWithScore`` objects, each with a copy of its node. The copy keeps id, class, relationships and metadata
    (the values are shared) and gains these metadata keys, none of which reaches the embedding or the LLM text:

    * ``retrieval_score`` (float): the score it came with; left as it was where it came without.
    * Those of :func:`~uprank.notes.notes_of`, e.g. ``rerank_index``, its position in the list given.
    * ``rerank_skipped`` (``"no text"``): a node without text of its own, e.g. an ``ImageNode``. Nothing is fetched for
      it. It follows the scored nodes, with score ``None``; with a ``threshold`` or ``min_gap`` it is left out.

    LlamaIndex computes ``node.hash`` over the metadata of text nodes and documents, so a copy's differs
    from the original's: tell nodes apart by ``node_id``, and store the originals.

    Each call sends a ``ReRankStartEvent`` and a ``ReRankEndEvent``, and a ``RERANKING`` event to the callback manager;
    the end also where the call fails: with an empty list then. JSON and pickles hold no ``api_key``: give it again.

    Attributes:
        metadata_mode: Which metadata is scored with a node's text. ``EMBED`` is what was embedded, and
            what LlamaIndex's own rerankers score; ``NONE`` is the text alone, as in LangChain. ``ALL`` shows the keys
            above of an earlier rerank too. With ``fields`` or ``template``, these say it.

    Raises:
        InvalidInputError: (a ``ValueError``) If a call has no query, or an empty one.
        ScorerError: If scoring failed, unless ``on_error="passthrough"``.
    """

    metadata_mode: MetadataMode = MetadataMode.EMBED

    @classmethod
    def class_name(cls) -> str:
        return "RerankPostprocessor"

    def to_json(self, **kwargs: object) -> str:
        self.check_writable()
        return super().to_json(**kwargs)

    def __getstate__(self) -> dict[str, object]:
        state = super().__getstate__()
        # LlamaIndex leaves out what cannot be pickled: this would come back with the default model.
        lost = type(self).model_fields.keys() - state["__dict__"].keys() - {"callback_manager"}
        if lost:
            names = ", ".join(sorted(lost))
            raise ConfigurationError(f"{names}= cannot be pickled; give model= by its name, with plain options.")
        return state

    def _postprocess_nodes(self, nodes: Nodes, query_bundle: QueryBundle | None = None) -> Nodes:
        return drive(self._plan(nodes, query_bundle), lambda call: self.reranker.rank(*call, **self.call_options()))

    @dispatcher.span  # the base class gives a span to abstract methods only, which the sync one is
    async def _apostprocess_nodes(self, nodes: Nodes, query_bundle: QueryBundle | None = None) -> Nodes:
        options = self.call_options()
        return await adrive(self._plan(nodes, query_bundle), lambda call: self.reranker.arank(*call, **options))

    def _plan(self, nodes: Nodes, query_bundle: QueryBundle | None) -> RerankPlan:
        """Ask for one ranking of the nodes' texts, between the start and the end events."""
        model, top_n = self.reranker.model, self.top_n or self.reranker.top_n or len(nodes)
        query = None if query_bundle is None else query_bundle.query_str.strip()  # tools add line ends
        start: dict[str, object] = {EventPayload.NODES: nodes, EventPayload.QUERY_STR: query}
        start |= {EventPayload.MODEL_NAME: model, EventPayload.TOP_K: top_n}
        for index, item in enumerate(nodes):
            if not isinstance(item, NodeWithScore):
                raise InvalidInputError(f"Node {index} must be a NodeWithScore, got {type(item).__name__}.")
        result: Nodes = []
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=model))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=start) as event:
                if query is None:
                    raise InvalidInputError("Reranking needs a query: pass query_str= or query_bundle=.")
                textual = [i for i, item in enumerate(nodes) if self._own_text(item).strip()]
                with reported_by("llama_index"):
                    ranking = yield query, [self._document(nodes[i]) for i in textual]
                result = self._arrange(nodes, textual, ranking)[:top_n]
                event.on_end(payload={EventPayload.NODES: result})
        finally:
            dispatcher.event(ReRankEndEvent(nodes=result))
        return result

    def _document(self, item: NodeWithScore) -> Document:
        mode = MetadataMode.NONE if self.reads_fields else self.metadata_mode
        return Document(item.node.get_content(mode), item.node_id, item.node.metadata | _retrieval_score(item))

    def _own_text(self, item: NodeWithScore) -> str:
        seen = self.reranker.rendering
        return seen.text(self._document(item)) if seen else item.node.get_content(MetadataMode.NONE)

    def _arrange(self, nodes: Nodes, textual: list[int], ranking: Ranking) -> Nodes:
        """Return the nodes in their new order: the ranked ones, then those without text."""
        found = {textual[hit.index]: (hit.score, notes_of(ranking, hit)) for hit in ranking}
        as_they_came = ranking.degraded and all(hit.score is None for hit in ranking) and [*found] == sorted(found)
        if as_they_came or not self.selection.limits_scores:
            skipped = sorted({*range(len(nodes))}.difference(textual))
            found |= dict.fromkeys(skipped, (None, {**notes_of(ranking), "rerank_skipped": "no text"}))
        order = sorted(found) if as_they_came else found
        return [_rescored(nodes[i], found[i][0], {**found[i][1], "rerank_index": i}) for i in order]


def _retrieval_score(item: NodeWithScore) -> dict[str, float]:
    return {} if item.score is None else {"retrieval_score": float(item.score)}


def _rescored(item: NodeWithScore, score: float | None, notes: dict[str, object]) -> NodeWithScore:
    node, notes = item.node, notes | _retrieval_score(item)
    copy = node.model_copy(
        update={
            "metadata": noted(node.metadata, notes),
            "excluded_embed_metadata_keys": list(dict.fromkeys([*node.excluded_embed_metadata_keys, *notes])),
            "excluded_llm_metadata_keys": list(dict.fromkeys([*node.excluded_llm_metadata_keys, *notes])),
        }
    )
    return item.model_copy(update={"node": copy, "score": score})
