"""Cohere, through its official SDK.

The SDK speaks to the service, or to Bedrock, SageMaker and Azure by the clients it has for them.
Splitting, waiting, retrying and merging are ours, as for every other service; its own retries are
turned off. https://docs.cohere.com/reference/rerank
"""

# ruff: noqa: E402 - the check comes before the imports of what it checks
from __future__ import annotations

from uprank.extras import require

require("The scheme cohere:", "cohere", "cohere", "httpx", "anyio")

import inspect
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import anyio.to_thread
import httpx
from cohere import AsyncClientV2, ClientV2  # by name: the SDK loads them late, for half a second
from cohere.core.api_error import ApiError

from uprank.errors import ConfigurationError
from uprank.scorers.http.clients import ClientOptions, Clients
from uprank.scorers.http.endpoint import lost, timeouts
from uprank.scorers.http.gate import Gate
from uprank.scorers.http.messages import Call, Lost, Reply, Unreadable
from uprank.scorers.http.providers import PROVIDERS, Provider
from uprank.scorers.http.scorer import HTTPScorer
from uprank.scorers.http.settings import Keys
from uprank.scorers.http.talking import Endpoint
from uprank.secrets import masked

__all__ = ["AsyncCohereClient", "CohereClient", "CohereScorer"]

Connection = TypeVar("Connection", httpx.Client, httpx.AsyncClient)

# What the SDK raises over a body that is JSON, but not of the shape it expects.
_STUMBLES = (TypeError, AttributeError, ValueError, RecursionError)
_READERS = ("cohere.core.unchecked_base_model", "cohere.core.pydantic_utilities")


class CohereClient(Protocol):
    """``cohere.ClientV2`` and its kin, e.g. ``cohere.BedrockClientV2``."""

    @property
    def rerank(self) -> Any: ...  # Any: its parameters differ from version to version


class AsyncCohereClient(CohereClient, Protocol):
    """``cohere.AsyncClientV2``: its ``rerank`` is awaited."""


class CohereScorer(HTTPScorer):
    """Scores by Cohere's rerank models.

    Args:
        model: E.g. ``"rerank-v4.0-fast"``.
        client: A ready ``cohere.ClientV2``, ``BedrockClientV2`` or ``SagemakerClientV2``; its key, address and
            connections are its own. Asynchronous calls run it in threads, unless ``async_client`` is given.
        async_client: A ready ``cohere.AsyncClientV2``; on its own it serves asynchronous calls only.
        options: As for :class:`~uprank.scorers.HTTPScorer`; request fields are ``max_tokens_per_doc``
            (documents are cut to it, 4,096 by default), ``priority`` and ``relevant_spans``.

    Raises:
        ConfigurationError: As for :class:`~uprank.scorers.HTTPScorer`, or if a ready client is
            given together with what it has of its own.
        MissingDependencyError: If the SDK is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        client: CohereClient | None = None,
        async_client: AsyncCohereClient | None = None,
        **options: Any,  # Any: checked by the class above
    ) -> None:
        options = masked(options)
        for given in (client, async_client):
            if given is not None and not callable(getattr(given, "rerank", None)):
                raise ConfigurationError(f"A Cohere client has a method rerank; got a {type(given).__name__}.")
        headers = options.get("headers")
        if isinstance(headers, Mapping) and any(str(name).lower() == "authorization" for name in headers):
            raise ConfigurationError(
                'The Cohere SDK writes the header Authorization itself: pass api_key=, or use "http:<model>" with '
                'dialect="cohere" and the full address.'
            )
        if client is not None and async_client is None and inspect.iscoroutinefunction(client.rerank):
            client, async_client = None, cast(AsyncCohereClient, client)
        if async_client is not None and not inspect.iscoroutinefunction(async_client.rerank):
            raise ConfigurationError(
                "async_client must be an AsyncClientV2, whose rerank is awaited; got another kind."
            )
        self._ready = (client, async_client) if client is not None or async_client is not None else None
        own = [name for name in ("api_key", "base_url", "headers", "proxy", "transport") if options.get(name)]
        if self._ready is not None and own:
            raise ConfigurationError(f"A ready Cohere client has its own {', '.join(own)}; set them there.")
        options.setdefault("provider", "cohere")
        super().__init__(model, **options)
        if self._ready is not None:
            # Only the client knows its address and key, so its requests are counted by themselves.
            gate = Gate(self._target.gate.most, self._target.gate.per_minute)
            self._target = replace(self._target, url="by the client given", gate=gate)
            self._gate = gate

    def __reduce__(self) -> tuple[object, ...]:
        if self._ready is not None:
            raise TypeError(f"{self.name} holds a ready client, which is not pickled; give api_key= instead")
        return super().__reduce__()

    def identity(self) -> Mapping[str, object] | None:
        return None if self._ready is not None else super().identity()  # where a ready client asks, only it knows

    def _brings_key(self) -> bool:
        return self._ready is not None

    def _endpoint_for(self, options: ClientOptions, row: Provider, keys: Keys) -> Endpoint:
        if self._ready is not None:
            return _ReadyClients(*self._ready, threads=options.connections)
        return _OwnClients(options, keys)


class _SDKEndpoint(ABC):
    """Sends by the SDK; where its clients come from is for the two classes below."""

    @abstractmethod
    def _rerank(self, url: str, arguments: dict[str, Any]) -> Reply: ...

    @abstractmethod
    async def _arerank(self, url: str, arguments: dict[str, Any]) -> Reply: ...

    def send(self, call: Call, timeout: float) -> Reply | Lost:
        try:
            return self._rerank(call.url, _arguments(call, timeout))
        except (ApiError, httpx.HTTPError, *_STUMBLES) as error:
            return _came_of(error, timeout)

    async def asend(self, call: Call, timeout: float) -> Reply | Lost:
        try:
            with anyio.fail_after(timeout):
                return await self._arerank(call.url, _arguments(call, timeout))
        except TimeoutError:
            return Lost("timeout", f"no whole reply within {timeout:g} s")
        except (ApiError, httpx.HTTPError, *_STUMBLES) as error:
            return _came_of(error, timeout)


class _OwnClients(_SDKEndpoint):
    """SDK clients over our connections, so that proxies, certificates and event loops are one matter."""

    def __init__(self, options: ClientOptions, keys: Keys) -> None:
        self._connections = Clients(options)
        self._keys = keys
        self._sync: dict[httpx.Client, ClientV2] = {}
        self._async: dict[httpx.AsyncClient, AsyncClientV2] = {}

    def _rerank(self, url: str, arguments: dict[str, Any]) -> Reply:
        connection = self._connections.sync()
        found = self._sync.get(connection)
        if found is None:
            _forget_closed(self._sync)
            found = ClientV2(self._key, base_url=_base(url), client_name="uprank", httpx_client=connection)
            self._sync[connection] = found
        response = found.with_raw_response.rerank(**arguments)
        return Reply(200, response.headers, _plain(response.data))

    async def _arerank(self, url: str, arguments: dict[str, Any]) -> Reply:
        connection = await self._connections.current()
        found = self._async.get(connection)
        if found is None:
            _forget_closed(self._async)
            found = AsyncClientV2(self._key, base_url=_base(url), client_name="uprank", httpx_client=connection)
            self._async[connection] = found
        response = await found.with_raw_response.rerank(**arguments)
        return Reply(200, response.headers, _plain(response.data))

    def _key(self) -> str:
        # For a server without keys: of an empty one, most versions of the SDK make a header that cannot be sent.
        return self._keys.value() or "none"

    def close(self) -> None:
        self._connections.close()

    async def aclose(self) -> None:
        await self._connections.aclose()


class _ReadyClients(_SDKEndpoint):
    """The caller's own clients; it is for the caller to close them.

    They are asked by ``rerank`` alone, which a caller may have wrapped; headers do not come with its answer.
    """

    def __init__(self, client: CohereClient | None, async_client: AsyncCohereClient | None, threads: int) -> None:
        self._given = client
        self._async = async_client
        self._threads = threads

    def close(self) -> None:
        """Nothing of ours is open."""

    async def aclose(self) -> None:
        """Likewise."""

    def _rerank(self, url: str, arguments: dict[str, Any]) -> Reply:
        return Reply(200, {}, _plain(self._client().rerank(**arguments)))

    def _client(self) -> CohereClient:
        if self._given is None:
            raise ConfigurationError("Only an async Cohere client was given: await arank(), or pass client= as well.")
        return self._given

    async def _arerank(self, url: str, arguments: dict[str, Any]) -> Reply:
        if self._async is not None:
            return Reply(200, {}, _plain(await self._async.rerank(**arguments)))
        call = partial(self._client().rerank, **arguments)
        limiter = anyio.CapacityLimiter(self._threads)  # the gate counts; this only keeps anyio's own from counting
        response = await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        return Reply(200, {}, _plain(response))


def _forget_closed(clients: dict[Connection, Any]) -> None:
    """Drop the SDK's clients of closed connections; each holds its connection, so a weak dictionary would keep both."""
    for connection in [connection for connection in list(clients) if connection.is_closed]:
        clients.pop(connection, None)


def _base(url: str) -> str:
    return url.removesuffix(PROVIDERS["cohere"].path)  # which the SDK appends


def _arguments(call: Call, timeout: float) -> dict[str, Any]:  # Any: of several types, as the SDK wants them
    named = ("model", "query", "documents")
    body = call.body or {}
    # Further fields go round the SDK's signature, which grows from version to version.
    further = {name: value for name, value in body.items() if name not in named}
    options = {"max_retries": 0, "timeout_in_seconds": timeouts(timeout), "additional_body_parameters": further}
    return {**{name: body[name] for name in named if name in body}, "request_options": options}


def _failure(error: ApiError | httpx.HTTPError, timeout: float) -> Reply | Lost:
    if isinstance(error, httpx.HTTPError):
        return lost(error, timeout)
    headers = {name.lower(): value for name, value in (getattr(error, "headers", None) or {}).items()}
    data = Unreadable(error.body) if isinstance(error.body, str) else _plain(error.body)
    return Reply(error.status_code or 0, headers, data)


def _came_of(error: Exception, timeout: float) -> Reply | Lost:
    """What an exception of the SDK stands for; one that is no outcome of a request is raised again."""
    if isinstance(error, (ApiError, httpx.HTTPError)):
        return _failure(error, timeout)
    if isinstance(error, RecursionError) or _in_reading(error):
        return _unread(error)
    raise error


def _in_reading(error: Exception) -> bool:
    """Whether it was raised where the SDK makes its objects of a reply, rather than before there was one."""
    return any(frame.f_globals.get("__name__") in _READERS for frame, _ in traceback.walk_tb(error.__traceback__))


def _unread(error: Exception) -> Reply:
    return Reply(200, {}, Unreadable(f"the SDK made of it a {type(error).__name__}: {error}"))


def _plain(value: object) -> object:
    """What the SDK's objects were made of. They are not validated, so their own export would stumble."""
    if isinstance(value, (str, int, float)) or value is None:  # most of them, so first
        return value
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    if hasattr(value, "__pydantic_extra__"):
        return _plain({**value.__dict__, **(value.__pydantic_extra__ or {})})
    return value
