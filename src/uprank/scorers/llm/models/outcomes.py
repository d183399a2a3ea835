"""What an exception of somebody else's client stands for: a reply, no reply, or something to be raised.

LangChain, LlamaIndex and functions raise what the SDK beneath them raises, and there are many.
They are told apart by what most of them carry, a status, headers and a body, and by their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from uprank.scorers.http.messages import Lost, Reply, Unreadable, decode
from uprank.scorers.llm.chat import ChatRequest, Features
from uprank.scorers.llm.models.dialect import reply_of
from uprank.scorers.llm.unsupported import unsupported_feature
from uprank.secrets import SecretLike, is_secret

__all__ = ["came_of", "lost_by_name", "secrets_of", "stumbled_in"]

# By the names of classes, since each client has classes of its own for the same few outcomes.
_NO_CONNECTION = re.compile(
    r"Connect(ion)?Timeout|ConnectError|ConnectorError|PoolTimeout|ProxyError|EndpointConnection|ConnectionRefused"
)
_NEVER = re.compile(r"LocalProtocol|UnsupportedProtocol|DecodingError|InvalidURL|Certificate")
_TIMEOUT = re.compile(r"Timeout|DeadlineExceeded")
_BROKEN = re.compile(
    r"ConnectionError|ConnectionReset|Connection(Aborted|Closed|Interrupted)|Disconnected|ReadError|WriteError"
    r"|NetworkError|TransportError|ProtocolError|BrokenPipe|IncompleteRead|ChunkedEncoding"
)
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_SCHEME = re.compile(r"[A-Za-z]+ +")  # "Bearer <key>", which is looked for bare
_DEPTH = 6  # of causes


def came_of(error: Exception, request: ChatRequest, features: Features, timeout: float) -> Reply | Lost | None:
    """The outcome that an exception stands for; ``None`` where it stands for none, and is to be raised.

    Nothing of the exception is kept: its traceback holds the request, and with it the key.

    Args:
        error: Raised by a client.
        request: What was asked.
        features: What the model was believed to take.
        timeout: Seconds it had.
    """
    for cause in _causes(error):
        found = _reply(cause, request)
        if found is not None:
            return found
    lost = lost_by_name(error, timeout)
    if lost is not None:
        return lost
    if isinstance(error, (NotImplementedError, TypeError, ValueError)):
        named = _UNEXPECTED.search(str(error))
        refusal = {"message": str(error), "param": named.group(1) if named else None, "code": "unsupported_parameter"}
        reply = Reply(400, {}, {"error": refusal})
        if unsupported_feature(reply, request, features):
            return reply
    return None


def lost_by_name(error: BaseException, timeout: float) -> Lost | None:
    """What the names of an exception and of its causes say of a reply that never came."""
    chain = list(_causes(error))
    names = [kind.__name__ for cause in reversed(chain) for kind in type(cause).__mro__]  # the first cause knows best
    detail = _detail(chain[-1] if any(_BROKEN.search(name) for name in names) else error)
    never = any(map(_NEVER.search, names))
    if any(map(_NO_CONNECTION.search, names)):
        return Lost("connect", detail, permanent=never or "certificate" in detail.lower())
    if any(map(_TIMEOUT.search, names)):
        return Lost("timeout", f"no whole reply within {timeout:g} s")
    return Lost("broken", detail, permanent=never) if any(map(_BROKEN.search, names)) else None


def stumbled_in(error: Exception, *packages: str) -> Reply | None:
    """A success that a client could not read: what it raised came from its own lines, or from pydantic's.

    Args:
        error: What was raised.
        packages: Import names of the client.
    """
    trace = error.__traceback__
    if trace is None or not isinstance(error, (LookupError, TypeError, AttributeError, ValueError, RecursionError)):
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    place = str(trace.tb_frame.f_globals.get("__name__", ""))
    if place.partition(".")[0] in packages or any(place.startswith(f"{package}.") for package in packages):
        return Reply(200, {}, Unreadable(f"its client made of it a {_detail(error)}"[:500]))
    return None


def secrets_of(client: object) -> tuple[str, ...]:
    """The keys among the fields of a framework's object."""
    return tuple(dict.fromkeys(key for key in _secrets(vars(client)) if key))


def _secrets(fields: Mapping[str, object]) -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, SecretLike):
            key = value.get_secret_value()
            if isinstance(key, str):
                yield key
        elif isinstance(value, str) and is_secret(name):
            yield _SCHEME.sub("", value, count=1) if _SCHEME.match(value) else value
        elif isinstance(value, Mapping):  # headers, among others
            yield from _secrets(value)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, what it was raised from, and so on."""
    found: BaseException | None = error
    for _ in range(_DEPTH):
        if found is None:
            return
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _reply(error: BaseException, request: ChatRequest) -> Reply | None:
    """The reply that an exception carries."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore's
        about = response.get("ResponseMetadata")
        about = about if isinstance(about, Mapping) else {}
        status, headers = about.get("HTTPStatusCode"), about.get("HTTPHeaders")
        data: object = {"error": response.get("Error") or str(error)}
        return Reply(status, _lower(headers), data) if isinstance(status, int) else None
    status = next((value for value in _statuses(error, response) if 200 <= value <= 599), None)
    if status is None:
        return None
    headers = getattr(response, "headers", None) or getattr(error, "headers", None)
    content = _content(response)
    if content is not None and status < 300:  # the client would not take what the server sent
        return reply_of(status, _lower(headers), content, request)
    if status < 400:
        return None
    body = getattr(error, "body", None)
    data = decode(content) if content else body if body not in (None, "") else {"error": {"message": str(error)}}
    return Reply(status, _lower(headers), Unreadable(data[:2000]) if isinstance(data, str) else data)


def _statuses(error: BaseException, response: object) -> Iterator[int]:
    for holder, name in ((error, "status_code"), (response, "status_code"), (error, "code"), (error, "http_status")):
        value = getattr(holder, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            yield int(value)


def _content(response: object) -> bytes | None:
    try:
        content = getattr(response, "content", None)
    except Exception:  # a stream that was never read
        return None
    return content if isinstance(content, bytes) else None


def _lower(headers: object) -> dict[str, str]:
    given = headers if isinstance(headers, Mapping) else {}
    return {str(name).lower(): str(value) for name, value in given.items()}


def _detail(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")[:500]
