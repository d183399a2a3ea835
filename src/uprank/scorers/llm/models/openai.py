"""Any OpenAI-compatible address, through the official SDK.

OpenAI itself, and by ``base_url`` vLLM, llama.cpp, Ollama, LM Studio, OpenRouter and the like. The
connections, waiting and retrying are ours, as for every other service; the SDK's own retries are
turned off. https://platform.openai.com/docs/api-reference
"""

# ruff: noqa: E402 - the check comes before the imports of what it checks
from __future__ import annotations

from uprank.extras import require

require("The scheme llm:", "llm", "openai", "httpx", "anyio")

import json
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx
import openai

from uprank.errors import ConfigurationError
from uprank.scorers.http.addresses import join
from uprank.scorers.http.clients import ClientOptions, Clients, Transport, Verify
from uprank.scorers.http.endpoint import lost, timeouts
from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.http.settings import (
    Keys,
    secrets_in,
    valid_count,
    valid_headers,
    valid_proxy,
    valid_transport,
    valid_verify,
)
from uprank.scorers.llm.chat import ChatCall, ChatRequest, Features
from uprank.scorers.llm.models.dialect import as_dicts, asked, chat_arguments, reply_of, text_arguments
from uprank.scorers.llm.models.outcomes import lost_by_name
from uprank.secrets import KeyLike, Masked, masked, without_secrets

__all__ = ["OpenAIModel"]

Connection = TypeVar("Connection", httpx.Client, httpx.AsyncClient)

_HOME = "https://api.openai.com/v1"
_ROUTES = ("/chat/completions", "/completions")  # which the SDK appends
_NO_KEY = "none"  # for a server without keys; the SDK wants one
_OURS = frozenset({"model", "messages", "prompt", "stream", "n"})
_OF_A_CLIENT = ("api_key", "base_url", "organization", "project", "headers", "proxy", "transport")


class OpenAIModel:
    """A model behind an OpenAI-compatible address.

    Every feature is tried; those that the model refuses are not asked for again.

    Args:
        model: As the server names it, e.g. ``"gpt-4.1-mini"``.
        api_key: The key, also as a ``SecretStr``; by default ``OPENAI_API_KEY``, looked up for each
            request. A server of your own may do without.
        base_url: The server's address, e.g. ``"http://localhost:11434/v1"``; by default
            ``OPENAI_BASE_URL``, else OpenAI's. An address without a path is completed by ``/v1``.
        organization: By default ``OPENAI_ORG_ID``.
        project: By default ``OPENAI_PROJECT_ID``.
        headers: Sent with every request; ``Authorization`` takes the place of the key.
        proxy: A proxy's URL; by default the environment's (``HTTPS_PROXY``, ``NO_PROXY``).
        verify: ``False`` trusts any server; a path is a file of certificates to trust; or an ``ssl.SSLContext``.
        transport: Instead of the network: an httpx transport.
        max_connections: How many idle connections are kept; of a ready client without its asynchronous
            twin, also how many threads ask it at once.
        context_window: Tokens of a prompt and its answer together, where you know them.
        extra_body: Further fields of each request, e.g. ``{"reasoning_effort": "minimal"}``.
        client: A ready ``openai.OpenAI`` or ``AzureOpenAI``; its key, address and connections are its own.
            Asynchronous calls run it in threads, unless ``async_client`` is given.
        async_client: A ready ``openai.AsyncOpenAI`` or ``AsyncAzureOpenAI``; on its own it serves
            asynchronous calls only.

    Raises:
        ConfigurationError: If an option cannot work, or a key is needed and not there.
        MissingDependencyError: If the SDK is not installed.
    """

    provider = "openai"

    def __init__(
        self,
        model: str,
        *,
        api_key: KeyLike | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        verify: Verify = True,
        transport: Transport | None = None,
        max_connections: int = 64,
        context_window: int | None = None,
        extra_body: Mapping[str, object] | None = None,
        client: openai.OpenAI | openai.AsyncOpenAI | None = None,
        async_client: openai.AsyncOpenAI | None = None,
    ) -> None:
        # Masked, so that a traceback that prints this function's variables shows no secret.
        given = masked({name: value for name, value in locals().items() if name not in ("self", "model")})
        api_key, base_url, headers, proxy = (given[name] for name in ("api_key", "base_url", "headers", "proxy"))
        if not isinstance(model, str) or not model.strip():
            raise ConfigurationError('llm: needs the name of a model, e.g. "llm:gpt-4.1-mini".')
        self._model = model.strip()
        self.name = f"llm:{self._model}"
        self.features = Features("json_schema", "tools", "logprobs", "seed", "temperature", "max_tokens", "system")
        self.context_window = valid_count("context_window", context_window)
        self._threads = valid_count("max_connections", max_connections) or 1
        self._extra = _valid_extra(self.name, extra_body or {})
        self._recipe: tuple[str, dict[str, object]] = (self._model, without_secrets(given))
        self._ready = _ready(client, async_client, given)
        valid_transport(transport)
        headers, proxy = valid_headers(headers or {}), valid_proxy(proxy)
        own_header = any(name.lower() == "authorization" for name in headers)
        if own_header and api_key is not None:
            raise ConfigurationError(f"{self.name}: headers= has Authorization already, which api_key= would replace.")
        self._keys = Keys(self.name, () if own_header or self._ready else ("OPENAI_API_KEY",), api_key)
        address = base_url if base_url is not None else (os.environ.get("OPENAI_BASE_URL") or None)
        if address is None and not own_header and not self._ready:
            self._keys.check()
        self.address = _base(address) if not self._ready else _address_of(*self._ready)
        self._secrets = tuple(map(Masked, secrets_in(headers, proxy)))
        options = ClientOptions(
            self._threads, {}, proxy, valid_verify(verify), transport, secure=self.address.startswith("https")
        )
        self._connections = Clients(options)
        # What the SDK's clients are made with: its own names of headers, which it compares letter by letter.
        self._options: dict[str, Any] = {  # Any: each option has a type of its own
            "base_url": self.address,
            "organization": organization,
            "project": project,
            "default_headers": {"Authorization" if n.lower() == "authorization" else n: v for n, v in headers.items()},
            "max_retries": 0,
        }
        self._sync: dict[httpx.Client, openai.OpenAI] = {}
        self._async: dict[httpx.AsyncClient, openai.AsyncOpenAI] = {}

    def __reduce__(self) -> tuple[object, ...]:
        if self._ready:
            raise TypeError(f"{self.name} holds a ready client, which is not pickled; give api_key= instead")
        return _remake, self._recipe

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        request = asked(call.request)
        try:
            return self._ask(self._client(), request, timeout)
        except openai.APIError as error:
            return _came_of(error, request, timeout)

    async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
        request = asked(call.request)
        try:
            with anyio.fail_after(timeout):
                client = await self._async_client()
                if client is not None:
                    return await self._aask(client, request, timeout)
                ask = partial(self._ask, self._client(), request, timeout)
                limiter = anyio.CapacityLimiter(self._threads)  # the gate counts; this only keeps anyio's own from it
                return await anyio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=limiter)
        except TimeoutError:
            return Lost("timeout", f"no whole reply within {timeout:g} s")
        except openai.APIError as error:
            return _came_of(error, request, timeout)

    def secrets(self) -> tuple[str, ...]:
        """The key, and what of the headers and the proxy's address is secret."""
        held = (client.api_key for client in self._ready or () if client is not None)
        found = (str(self._keys.value()), *(key for key in held if isinstance(key, str)), *self._secrets)
        return tuple(key for key in found if key)

    def close(self) -> None:
        """Close the connections; those of a ready client are its owner's. The next request opens new ones."""
        self._connections.close()

    async def aclose(self) -> None:
        """As :meth:`close`; waits until those of the running event loop are closed."""
        await self._connections.aclose()

    def _ask(self, client: openai.OpenAI, request: ChatRequest, timeout: float) -> Reply:
        route = client.chat.completions if request.text is None else client.completions
        raw = route.with_raw_response.create(**self._arguments(request, timeout))
        return _reply(raw.http_response, request)

    async def _aask(self, client: openai.AsyncOpenAI, request: ChatRequest, timeout: float) -> Reply:
        route = client.chat.completions if request.text is None else client.completions
        raw = await route.with_raw_response.create(**self._arguments(request, timeout))
        return _reply(raw.http_response, request)

    def _arguments(self, request: ChatRequest, timeout: float) -> dict[str, Any]:  # Any: as above
        common = {"model": self._model, "timeout": timeouts(timeout), "extra_body": self._extra or None}
        if request.text is not None:
            return {**common, **text_arguments(request, self.features)}
        messages = as_dicts(request.messages, system="system" in self.features)
        return {**common, "messages": messages, **chat_arguments(request, self.features)}

    def _client(self) -> openai.OpenAI:
        if self._ready:
            if self._ready[0] is None:
                raise ConfigurationError(
                    f"{self.name} has only an async client: await arank(), or pass client= as well."
                )
            return self._ready[0]
        connection = self._connections.sync()
        found = self._sync.get(connection)
        if found is None:
            _forget_closed(self._sync)
            found = openai.OpenAI(api_key=_NO_KEY, http_client=connection, **self._options)
            self._sync[connection] = found
        found.api_key = self._keys.value() or _NO_KEY  # which may have been renewed
        return found

    async def _async_client(self) -> openai.AsyncOpenAI | None:
        if self._ready:
            return self._ready[1]
        connection = await self._connections.current()
        found = self._async.get(connection)
        if found is None:
            _forget_closed(self._async)
            found = openai.AsyncOpenAI(api_key=_NO_KEY, http_client=connection, **self._options)
            self._async[connection] = found
        found.api_key = self._keys.value() or _NO_KEY
        return found


def _remake(model: str, options: dict[str, object]) -> OpenAIModel:
    return OpenAIModel(model, **options)  # type: ignore[arg-type]  # the options of an earlier one


def _reply(response: httpx.Response, request: ChatRequest) -> Reply:
    return reply_of(response.status_code, dict(response.headers), response.content, request)


def _came_of(error: openai.APIError, request: ChatRequest, timeout: float) -> Reply | Lost:
    """What an exception of the SDK stands for. It is not kept: it holds the request, and with it the key."""
    if isinstance(error, (openai.APIStatusError, openai.APIResponseValidationError)):
        return _reply(error.response, request)
    cause = error.__cause__
    if isinstance(cause, (httpx.HTTPError, httpx.InvalidURL)):
        return lost(cause, timeout)
    found = lost_by_name(cause or error, timeout)  # of a ready client with connections of another kind
    if found is None:
        raise cause or error
    return found


def _ready(
    client: object, async_client: object, given: Mapping[str, object]
) -> tuple[openai.OpenAI | None, openai.AsyncOpenAI | None] | None:
    """The caller's own clients, without their retries."""
    if client is None and async_client is None:
        return None
    if isinstance(client, openai.AsyncOpenAI) and async_client is None:
        client, async_client = None, client
    if client is not None and not isinstance(client, openai.OpenAI):
        raise ConfigurationError(f"client must be an openai.OpenAI or AzureOpenAI, got a {type(client).__name__}.")
    if async_client is not None and not isinstance(async_client, openai.AsyncOpenAI):
        raise ConfigurationError(f"async_client must be an openai.AsyncOpenAI, got a {type(async_client).__name__}.")
    own = [name for name in _OF_A_CLIENT if given.get(name)]
    if own:
        raise ConfigurationError(f"A ready OpenAI client has its own {', '.join(own)}; set them there.")
    return (
        None if client is None else client.with_options(max_retries=0),
        None if async_client is None else async_client.with_options(max_retries=0),
    )


def _address_of(client: openai.OpenAI | None, async_client: openai.AsyncOpenAI | None) -> str:
    ready = client or async_client
    return "" if ready is None else str(ready.base_url).rstrip("/")


def _base(address: str | None) -> str:
    """The address up to the routes, as people write it: also with one of them, or without a path."""
    if address is None:
        return _HOME
    base = join(address, "").rstrip("/")
    for route in _ROUTES:
        base = base.removesuffix(route)
    return base if urlsplit(base).path else join(base, "/v1")


def _valid_extra(name: str, extra: Mapping[str, object]) -> dict[str, object]:
    if not isinstance(extra, Mapping):
        raise ConfigurationError(f"extra_body must map names to values, got {type(extra).__name__}.")
    for field in extra:
        if field in _OURS:
            raise ConfigurationError(
                f"{name}: extra_body must not hold {field!r}, which is not for the caller to send."
            )
    try:
        json.dumps(dict(extra), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name}: extra_body cannot be sent as JSON: {error}.") from None
    return dict(extra)


def _forget_closed(clients: dict[Connection, Any]) -> None:
    """Drop the SDK's clients of closed connections; each holds its connection, so a weak dictionary would keep both."""
    for connection in [connection for connection in list(clients) if connection.is_closed]:
        clients.pop(connection, None)
