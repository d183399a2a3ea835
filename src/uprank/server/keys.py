"""Who may use the server, and how often."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from uprank.server.refusals import Refusal
from uprank.server.settings import KeySettings

__all__ = ["Keys"]

_HEADERS = ("x-api-key", "api-key")


class Keys:
    """The keys that open the server.

    Only digests are kept. All of them are compared, in constant time, whichever fits.

    Args:
        settings: None at all lets everybody in.
        clock: Seconds, for the rates.

    Raises:
        ConfigurationError: If a key cannot be read.
    """

    def __init__(self, settings: Sequence[KeySettings], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = [
            _Key(one.name, _digest(line.strip()), _Rate(one.requests_per_minute, clock))
            for one in settings
            for line in one.read().get_secret_value().splitlines()
            if line.strip()
        ]

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
        given = _given(headers)
        if not given:
            raise Refusal(401, "missing_api_key", "This server needs a key: send it as 'Authorization: Bearer KEY'.")
        digest = _digest(given)
        found = [key for key in self._keys if hmac.compare_digest(key.digest, digest)]
        if not found:
            raise Refusal(401, "invalid_api_key", "The key is none of this server's.")
        found[0].rate.take(found[0].name)
        return found[0].name


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    digest: bytes
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
        if self._left < 1:
            wait = (1 - self._left) * 60 / self._per_minute
            limit = f"The key {name!r} may make {self._per_minute} requests a minute."
            raise Refusal(429, "rate_limited", limit, retry_after=wait)
        self._left -= 1


def _given(headers: Mapping[str, str]) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return next((headers[name].strip() for name in _HEADERS if headers.get(name, "").strip()), "")


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
