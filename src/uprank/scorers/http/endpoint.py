"""What carries requests by httpx."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

import anyio
import httpx

from uprank.scorers.http.clients import ClientOptions, Clients
from uprank.scorers.http.messages import Call, Lost, Reply, decode
from uprank.secrets import Secret

__all__ = ["HTTPEndpoint", "lost", "timeouts"]

_CONNECT = 10.0  # seconds; who does not pick up by then is not there
_NEVER = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.DecodingError, httpx.InvalidURL)


class HTTPEndpoint:
    """Sends by httpx.

    Args:
        options: How to connect.
        header: The header that carries the key; all but ``Authorization`` carry it bare.
        key: Asked for each request, so that a key renewed in the environment is used.
    """

    def __init__(self, options: ClientOptions, header: str, key: Callable[[], Secret | None]) -> None:
        self._clients = Clients(options)
        self._auth = _KeyAuth(header, key)

    def send(self, call: Call, timeout: float) -> Reply | Lost:
        client = self._clients.sync()
        try:
            response = client.send(_request(client, call, timeout), auth=self._auth)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return lost(error, timeout)
        return _reply(response)

    async def asend(self, call: Call, timeout: float) -> Reply | Lost:
        client = await self._clients.current()
        try:
            with anyio.fail_after(timeout):
                response = await client.send(_request(client, call, timeout), auth=self._auth)
        except TimeoutError:
            return Lost("timeout", f"no whole reply within {timeout:g} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return lost(error, timeout)
        return _reply(response)

    def close(self) -> None:
        self._clients.close()

    async def aclose(self) -> None:
        await self._clients.aclose()


class _KeyAuth(httpx.Auth):
    """Adds the key at the last moment, so that it is in no value of ours."""

    def __init__(self, header: str, key: Callable[[], Secret | None]) -> None:
        self._header, self._key = header, key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        key = self._key()
        if key is not None:
            bearer = "Bearer " if self._header == "Authorization" else ""
            request.headers[self._header] = bearer + key.get_secret_value()
        yield request


def timeouts(seconds: float) -> httpx.Timeout:
    """The timeouts of one attempt."""
    return httpx.Timeout(seconds, connect=min(seconds, _CONNECT))


def lost(error: httpx.HTTPError | httpx.InvalidURL, timeout: float) -> Lost:
    """What an exception of httpx says, without the request that it holds."""
    detail = f"{type(error).__name__}: {error}".rstrip(": ")  # some have no text
    if isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout)):
        return Lost("connect", detail)
    if isinstance(error, httpx.TimeoutException):
        return Lost("timeout", f"no whole reply within {timeout:g} s")  # its own text is empty, or says less
    if isinstance(error, (httpx.ConnectError, httpx.ProxyError)):
        return Lost("connect", detail, permanent="certificate" in detail.lower())
    return Lost("broken", detail, permanent=isinstance(error, _NEVER))


def _request(client: httpx.Client | httpx.AsyncClient, call: Call, timeout: float) -> httpx.Request:
    headers: Mapping[str, str] = {"Accept": "application/json"}
    if call.body is None:
        return client.build_request("GET", call.url, headers=headers, timeout=timeouts(timeout))
    headers = {**headers, "Content-Type": "application/json"}
    return client.build_request("POST", call.url, content=call.content, headers=headers, timeout=timeouts(timeout))


def _reply(response: httpx.Response) -> Reply:
    return Reply(response.status_code, response.headers, decode(response.content))
