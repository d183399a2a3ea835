"""LiteLLM, which speaks to a service as the part of a model's name before the slash says."""

from __future__ import annotations

import litellm

from server_clients.calls import Call, Client, Pairs, pairs_of

__all__ = ["CLIENTS"]


def _litellm(service: str, path: str = "") -> Client:
    def client(call: Call) -> Pairs:
        answer = litellm.rerank(
            model=f"{service}/{call.model}",
            query=call.query,
            documents=list(call.texts),
            top_n=call.wanted,
            return_documents=False,
            api_base=call.address + path,
            api_key=call.sent_key,
            max_retries=0,
        )
        return pairs_of((one["index"], one["relevance_score"]) for one in answer.results)

    return client


CLIENTS: dict[str, Client] = {
    "litellm-cohere": _litellm("cohere"),
    "litellm-infinity": _litellm("infinity"),
    "litellm-jina": _litellm("jina_ai"),
    "litellm-nvidia": _litellm("nvidia_nim"),
    "litellm-tei": _litellm("huggingface"),
    "litellm-vllm": _litellm("hosted_vllm"),
    "litellm-voyage": _litellm("voyage", "/voyage"),
}
