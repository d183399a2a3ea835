"""Who may use the server, and how often."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from uprank.errors import ConfigurationError
from uprank.server.refusals import Refusal
from uprank.server.settings import KeySettings, ServerSettings

__all__ = ["Keys", "is_loopback", "warn_if_open"]

logger = logging.getLogger("uprank.server")

_HEADERS = ("x-api-key", "api-key")


class Keys:
    """The keys that open the server.

    Only digests are kept. All of them are compared, in constant time, whichever fits.

    Args:
        settings: None at all lets everybody in.
        clock: Seconds, for the rates.

    Raises:
        ConfigurationError: If a key cannot be read, or two settings have the same one.
    """

    def __init__(self, settings: Sequence[KeySettings], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys: list[_Key] = []
        places: dict[bytes, str] = {}
        for one in settings:
            rate = _Rate(one.requests_per_minute, clock)
            for key in one.read_all():
                digest = _digest(key.get_secret_value())
                if digest in places:  # under whose name would it go, and at which rate?
                    raise ConfigurationError(f"One key stands in {places[digest]} and in {one.place}.")
                places[digest] = one.place
                self._keys.append(_Key(one.name, digest, rate))

    def __bool__(self) -> bool:
        """Whether a key is needed."""
        return bool(self._keys)

    def admit(self, headers: Mapping[str, str]) -> str | None:
        """Let a request in, and count it.

        Args:
            headers: By their names in lower case. The key is looked for after ``Bearer`` in ``Authorization``, then
                in ``X-Api-Key`` and ``Api-Key``.

        Returns:
            The key's name; ``None`` where there are no keys.

        Raises:
            Refusal: 401 without a right key, 429 beyond its rate.
        """
        if not self._keys:
            return None
        key = self._found(headers)
        key.rate.take(key.name)
        return key.name

    def check(self, headers: Mapping[str, str]) -> str | None:
        """Let a request in that costs nothing, such as a list of the models, and do not count it.

        Args:
            headers: As for :meth:`admit`.

        Returns:
            The key's name; ``None`` where there are no keys.

        Raises:
            Refusal: 401 without a right key.
        """
        return self._found(headers).name if self._keys else None

    def _found(self, headers: Mapping[str, str]) -> _Key:
        given = _given(headers)
        if not given:
            raise Refusal(401, "missing_api_key", "This server needs a key: send it as 'Authorization: Bearer KEY'.")
        digest = _digest(given)
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        if not found:
            raise Refusal(401, "invalid_api_key", "The key is none of this server's.")
        return found[0]


def warn_if_open(settings: ServerSettings) -> None:
    """Log a warning where others than this machine can reach a server that asks for no key."""
    if not settings.keys and not is_loopback(settings.host):
        logger.warning(
            "Whoever can reach %s can use this server: it has no keys. Set keys, or listen on 127.0.0.1", settings.host
        )


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine's, for itself alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    digest: bytes = field(repr=False)  # a short key could be found by it
    rate: _Rate


class _Rate:
    """A bucket of as many requests as a minute may have, filled evenly."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._left = float(per_minute or 0)
        self._seen = clock()

    def take(self, name: str) -> None:
        if self._per_minute is None:
            return
        now = self._clock()
        self._left = min(self._per_minute, self._left + (now - self._seen) * self._per_minute / 60)
        self._seen = now
        if self._left < _WHOLE:
            wait = (1 - self._left) * 60 / self._per_minute
            limit = f"The key {name!r} may make {self._per_minute} requests a minute."
            raise Refusal(429, "rate_limited", limit, retry_after=wait, caller=name)
        self._left -= 1


_WHOLE = 1 - 1e-6  # the sum of many small parts of a request: who waited as long as told is let in


def _given(headers: Mapping[str, str]) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return next((headers[name].strip() for name in _HEADERS if headers.get(name, "").strip()), "")


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
