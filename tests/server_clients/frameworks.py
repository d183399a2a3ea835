"""The rerankers of LangChain, LlamaIndex and Haystack. A document is known again by an id that only its caller sees."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence

from haystack.components.rankers import HuggingFaceTEIRanker
from haystack.dataclasses import Document as HaystackDocument
from haystack.utils import Secret
from langchain_cohere import CohereRerank as LangChainCohere
from langchain_core.documents import Document
from langchain_core.documents.compressor import BaseDocumentCompressor
from langchain_nvidia_ai_endpoints import NVIDIARerank as LangChainNVIDIA
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.nvidia_rerank import NVIDIARerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from llama_index.postprocessor.xinference_rerank import XinferenceRerank

from server_clients.calls import Call, Client, Pairs, pairs_of

__all__ = ["CLIENTS"]


# LangChain


def _documents(call: Call) -> list[Document]:
    return [Document(text, metadata={"number": number}) for number, text in enumerate(call.texts)]


def _of_documents(call: Call, found: Sequence[Document]) -> Pairs:
    for document in found:
        assert document.page_content == call.texts[document.metadata["number"]]
    return pairs_of((document.metadata["number"], document.metadata["relevance_score"]) for document in found)


def _langchain(call: Call, compressor: BaseDocumentCompressor) -> Pairs:
    return _of_documents(call, compressor.compress_documents(_documents(call), call.query))


def _langchain_async(call: Call, compressor: BaseDocumentCompressor) -> Pairs:
    return _of_documents(call, asyncio.run(compressor.acompress_documents(_documents(call), call.query)))


def _langchain_cohere(call: Call) -> LangChainCohere:
    return LangChainCohere(
        model=call.model, base_url=call.address, cohere_api_key=call.sent_key, top_n=call.top_n or None
    )


def _langchain_nvidia(call: Call) -> LangChainNVIDIA:
    """It splits what is more than ``max_batch_size``, and sorts the parts' scores together."""
    more = {"nvidia_api_key": call.key} if call.key else {}
    return LangChainNVIDIA(
        model=call.model, base_url=call.address + "/v1", top_n=call.wanted, truncate="END", max_batch_size=4, **more
    )


# LlamaIndex


def _nodes(call: Call) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=text, id_=str(number)), score=0.5) for number, text in enumerate(call.texts)
    ]


def _of_nodes(call: Call, found: Sequence[NodeWithScore]) -> Pairs:
    for one in found:
        assert one.node.get_content() == call.texts[int(one.node.node_id)]
    return pairs_of((int(one.node.node_id), one.score) for one in found)


def _llama_index(call: Call, postprocessor: BaseNodePostprocessor) -> Pairs:
    return _of_nodes(call, postprocessor.postprocess_nodes(_nodes(call), query_str=call.query))


def _llama_index_cohere(call: Call) -> CohereRerank:
    return CohereRerank(
        model=call.model, base_url=call.address, api_key=call.sent_key, top_n=call.wanted, max_retries=1
    )


def _llama_index_jina(call: Call) -> JinaRerank:
    return JinaRerank(model=call.model, base_url=call.address + "/v1", api_key=call.sent_key, top_n=call.wanted)


def _llama_index_tei(call: Call) -> TextEmbeddingInference:
    """Its token is the whole header."""
    token = f"Bearer {call.key}" if call.key else None
    return TextEmbeddingInference(base_url=call.address, top_n=call.wanted, auth_token=token)


def _llama_index_xinference(call: Call) -> XinferenceRerank:
    """It sends no key."""
    return XinferenceRerank(model=call.model, base_url=call.address, top_n=call.wanted)


def _llama_index_nvidia(call: Call) -> NVIDIARerank:
    """Without a model it asks the server which there are, and takes the first."""
    with warnings.catch_warnings(record=True):
        return NVIDIARerank(
            base_url=call.address + "/v1", top_n=call.wanted, **({"api_key": call.key} if call.key else {})
        )


# Haystack


def _haystack(call: Call) -> HuggingFaceTEIRanker:
    token = Secret.from_token(call.key) if call.key else None
    with warnings.catch_warnings(record=True):
        return HuggingFaceTEIRanker(url=call.address, top_k=call.wanted, raw_scores=True, token=token, max_retries=2)


def _haystack_documents(call: Call) -> list[HaystackDocument]:
    return [HaystackDocument(id=str(number), content=text) for number, text in enumerate(call.texts)]


def _of_haystack(call: Call, found: dict[str, list[HaystackDocument]]) -> Pairs:
    for one in found["documents"]:
        assert one.content == call.texts[int(one.id)]
    return pairs_of((int(one.id), one.score) for one in found["documents"])


def _haystack_run(call: Call) -> Pairs:
    return _of_haystack(call, _haystack(call).run(call.query, _haystack_documents(call)))


def _haystack_run_async(call: Call) -> Pairs:
    return _of_haystack(call, asyncio.run(_haystack(call).run_async(call.query, _haystack_documents(call))))


CLIENTS: dict[str, Client] = {
    "haystack-tei": _haystack_run,
    "haystack-tei-async": _haystack_run_async,
    "langchain-cohere": lambda call: _langchain(call, _langchain_cohere(call)),
    "langchain-cohere-async": lambda call: _langchain_async(call, _langchain_cohere(call)),
    "langchain-nvidia": lambda call: _langchain(call, _langchain_nvidia(call)),
    "langchain-nvidia-async": lambda call: _langchain_async(call, _langchain_nvidia(call)),
    "llama-index-cohere": lambda call: _llama_index(call, _llama_index_cohere(call)),
    "llama-index-jina": lambda call: _llama_index(call, _llama_index_jina(call)),
    "llama-index-nvidia": lambda call: _llama_index(call, _llama_index_nvidia(call)),
    "llama-index-tei": lambda call: _llama_index(call, _llama_index_tei(call)),
    "llama-index-xinference": lambda call: _llama_index(call, _llama_index_xinference(call)),
}
