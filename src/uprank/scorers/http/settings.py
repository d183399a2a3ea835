"""What a caller may set, checked when the scorer is made: keys, addresses, headers, fields, prices."""

from __future__ import annotations

import difflib
import json
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from uprank.errors import ConfigurationError
from uprank.scorers.http.addresses import join, with_model
from uprank.scorers.http.dialects import DIALECTS, Dialect
from uprank.scorers.http.providers import PROVIDERS, Provider
from uprank.secrets import KeyLike, Masked, Secret, as_secret, is_secret

__all__ = [
    "Keys",
    "find_address",
    "find_dialect",
    "find_provider",
    "secrets_in",
    "valid_body",
    "valid_count",
    "valid_fields",
    "valid_headers",
    "valid_price",
    "valid_proxy",
    "valid_transport",
    "valid_verify",
]

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1
_PROXIES = ("http", "https", "socks5", "socks5h")
_ELSEWHERE = {"api_base": "base_url", "url": "base_url", "endpoint": "base_url", "top_k": "top_n", "k": "top_n"}
_PRICED = ("tokens", "search_units", "requests")


class Keys:
    """The key of one scorer: given, or in the environment, where it is looked up for every request.

    Args:
        name: The model's full name, for errors.
        variables: Where to look, in order.
        given: Wins over all of them.
    """

    def __init__(self, name: str, variables: tuple[str, ...], given: KeyLike | None) -> None:
        self._name = name
        self._variables = variables
        self._given = as_secret(given, "api_key")

    def current(self) -> Secret | None:
        """The key to send now."""
        if self._given is not None:
            return self._given
        found = (as_secret(os.environ.get(variable), variable) for variable in self._variables)
        return next((key for key in found if key is not None), None)

    def value(self) -> Masked:
        """The same in clear; empty where there is none."""
        key = self.current()
        return Masked("" if key is None else key.get_secret_value())

    @property
    def advice(self) -> str:
        """How to give one."""
        variables = f" or set the environment variable {' or '.join(self._variables)}" if self._variables else ""
        return f"To give a key, pass api_key={variables}."

    def check(self) -> None:
        """Raise if there is none.

        Raises:
            ConfigurationError: With what to do.
        """
        if self.current() is None:
            raise ConfigurationError(f"{self._name} needs a key. {self.advice}")


def find_provider(provider: str | Provider) -> Provider:
    """The row of a scheme, or a row of the caller's own."""
    if isinstance(provider, Provider):
        return provider
    if not isinstance(provider, str) or provider not in PROVIDERS:
        advice = "A request field of that name goes into extra_body={...}."
        raise ConfigurationError(f"No provider {provider!r}; known: {', '.join(PROVIDERS)}. {advice}")
    return PROVIDERS[provider]


def find_dialect(row: Provider, dialect: str | None) -> Dialect:
    """The shape of the requests; only a server of an unknown kind lets the caller choose."""
    if dialect is not None and row.scheme != "http":
        raise ConfigurationError(f'{row.scheme}: has its own dialect; for another one use "http:<model>".')
    name = dialect or row.dialect
    if name not in DIALECTS:
        raise ConfigurationError(f"No dialect {name!r}; known: {', '.join(DIALECTS)}.")
    return DIALECTS[name]


def find_address(row: Provider, model: str, base_url: str | None, key: str) -> str:
    """The URL that requests go to.

    Args:
        row: The service.
        model: Part of the path, for some.
        base_url: The caller's own; else the environment's, else the service's.
        key: Some services live elsewhere for some kinds of key.
    """
    given = base_url if base_url is not None else (os.environ.get(row.base_variable or "") or None)
    if given is not None:
        path = row.path if row.own_path is None else row.own_path
        return join(given, with_model(path, model))
    elsewhere = next((base for prefix, base in row.base_by_key.items() if key.startswith(prefix)), row.base_url)
    if elsewhere is None:
        raise ConfigurationError(f"{row.scheme}: needs base_url=, the full address of the server's rerank route.")
    return join(elsewhere, with_model(row.path, model))


def valid_fields(name: str, row: Provider, fields: Mapping[str, object], options: Iterable[str]) -> None:
    """Refuse request fields that the service does not know: some would refuse the request for them."""
    for field in fields:
        if field not in row.fields:
            known = [*row.fields, *(name for name in options if name != "dialect" or row.scheme == "http")]
            close = [_ELSEWHERE[field]] if field in _ELSEWHERE else difflib.get_close_matches(field, known, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ConfigurationError(
                f"{name} has no option {field!r}. {hint}It takes: {', '.join(known)}. Request fields that are not "
                "listed go into extra_body={...}."
            )


def valid_body(name: str, dialect: Dialect, fields: Mapping[str, object], extra: Mapping[str, object]) -> None:
    """Refuse further fields that would undo what the request is for, or that are no JSON."""
    ours = {dialect.query, dialect.documents, "model", "top_n", "top_k", "raw_scores"}
    for field in extra:
        if field in ours:
            raise ConfigurationError(
                f"{name}: extra_body must not hold {field!r}, which is not for the caller to send."
            )
    try:
        json.dumps({**fields, **extra}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name}: a request field cannot be sent as JSON: {error}.") from None


def valid_verify(verify: object) -> bool | str | ssl.SSLContext:
    """Refuse what is no way to trust, and a file of certificates that is not there, before the first call."""
    if isinstance(verify, (bool, ssl.SSLContext)):
        return verify
    if not isinstance(verify, (str, Path)):
        raise ConfigurationError(f"verify must be a file, an ssl.SSLContext, True or False; got {verify!r}.")
    try:
        ssl.create_default_context(cafile=str(verify))
    except OSError as error:  # not there, or not certificates (an SSLError is one too)
        raise ConfigurationError(f"verify={str(verify)!r} is no file of certificates: {error}") from None
    return str(verify)


def valid_transport(transport: object) -> None:
    if transport is not None and not isinstance(transport, (httpx.BaseTransport, httpx.AsyncBaseTransport)):
        raise ConfigurationError(f"transport must be an httpx transport, got {type(transport).__name__}.")


def valid_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Refuse headers that cannot be sent; their values are not shown. Space around them is dropped."""
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers must map names to values, got {type(headers).__name__}.")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError(f"headers must map strings to strings; look at {name!r}.")
        if not _HEADER.fullmatch(name) or not all(
            " " <= character <= "~" or character == "\t" for character in value.strip()
        ):
            raise ConfigurationError(f"The header {name!r} holds characters that cannot be sent.")
    return {name: Masked(value.strip()) for name, value in headers.items()}


def valid_proxy(proxy: str | None) -> str | None:
    """Refuse what is no proxy's address; it is not shown, as it may hold a password."""
    try:
        parts = None if proxy is None else urlsplit(proxy)
        unusable = parts is not None and (parts.scheme not in _PROXIES or not parts.hostname or parts.port == 0)
    except (AttributeError, TypeError, ValueError):
        unusable = True
    parts = None
    if unusable:
        schemes = "://, ".join(_PROXIES)
        raise ConfigurationError(f"proxy must be an address with host and port that begins with one of {schemes}://.")
    if proxy is not None and proxy.startswith("socks") and find_spec("socksio") is None:
        raise ConfigurationError('A SOCKS proxy needs socksio, not installed here. Run: pip install "httpx[socks]"')
    return proxy


def valid_count(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigurationError(f"{name} must be an integer of at least 1 or None, got {value!r}.")
    return value


def valid_price(price: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(price, Mapping):
        raise ConfigurationError(f"price must map units to prices, got {type(price).__name__}.")
    for unit, amount in price.items():
        if unit not in _PRICED:
            raise ConfigurationError(f"price has no unit {unit!r}; it takes {', '.join(_PRICED)}.")
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount < float("inf"):
            raise ConfigurationError(f"price[{unit!r}] must be a number of at least 0, got {amount!r}.")
    return dict(price)


def secrets_in(headers: Mapping[str, str], proxy: str | None) -> tuple[str, ...]:
    """What of the headers and the proxy's address must not be shown."""
    password = (urlsplit(proxy).password if proxy else None) or ""
    found = [value for name, value in headers.items() if is_secret(name)]
    bare = [re.sub("^[A-Za-z]+ +", "", value) for value in found]  # "Bearer <key>"
    return tuple(value for value in (*bare, password, unquote(password)) if value)
