"""Services' own SDKs."""

from __future__ import annotations

import asyncio

import cohere
import mixedbread
from xinference_client import RESTfulClient

from server_clients.calls import Call, Client, Pairs, pairs_of

__all__ = ["CLIENTS"]


def _cohere(call: Call) -> Pairs:
    """An SDK before its release 6, which the frameworks still need."""
    client = cohere.Client(call.sent_key, base_url=call.address)
    answer = client.rerank(model=call.model, query=call.query, documents=list(call.texts), top_n=call.top_n)
    return pairs_of((one.index, one.relevance_score) for one in answer.results)


def _mixedbread(call: Call) -> Pairs:
    with mixedbread.Mixedbread(api_key=call.sent_key, base_url=call.address) as client:
        answer = client.rerank(model=call.model, query=call.query, input=list(call.texts), top_k=call.wanted)
    return pairs_of((one.index, one.score) for one in answer.data)


def _mixedbread_async(call: Call) -> Pairs:
    async def ask() -> Pairs:
        async with mixedbread.AsyncMixedbread(api_key=call.sent_key, base_url=call.address) as client:
            answer = await client.rerank(model=call.model, query=call.query, input=list(call.texts), top_k=call.wanted)
        return pairs_of((one.index, one.score) for one in answer.data)

    return asyncio.run(ask())


def _xinference(call: Call) -> Pairs:
    client = RESTfulClient(call.address, api_key=call.key or None)
    answer = client.get_model(call.model).rerank(list(call.texts), call.query, top_n=call.top_n)
    return pairs_of((one["index"], one["relevance_score"]) for one in answer["results"])


CLIENTS: dict[str, Client] = {
    "cohere-5": _cohere,
    "mixedbread": _mixedbread,
    "mixedbread-async": _mixedbread_async,
    "xinference": _xinference,
}
