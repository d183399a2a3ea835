"""Keys and other secrets: held so that nothing shows them, and taken out of whatever is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn, Protocol, TypeAlias, runtime_checkable

from uprank.errors import ConfigurationError

__all__ = ["KeyLike", "Secret", "SecretLike", "as_secret", "is_secret", "redact", "secrets_among", "without_secrets"]

_NAMES = re.compile(r"api[-_]?key|token$|secret|passw(or)?d|authorization|cookie|credential", re.IGNORECASE)


@runtime_checkable
class SecretLike(Protocol):
    """What pydantic's ``SecretStr`` offers."""

    def get_secret_value(self) -> str: ...


KeyLike: TypeAlias = "str | SecretLike"
"""How a key may be given."""


class Secret:
    """A string that no repr, log or pickle shows. :meth:`get_secret_value` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret('**********')"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled; set it by its environment variable where it is needed")


def as_secret(value: object, what: str) -> Secret | None:
    """Return a key as a :class:`Secret`; ``None`` if it is ``None`` or blank.

    Args:
        value: A string or a ``SecretStr``. Space around it, such as a file's last newline, is dropped.
        what: What it is, for the error.

    Raises:
        ConfigurationError: If it is something else, or cannot be sent in a header. It is not shown.
    """
    if value is None:
        return None
    text = value.get_secret_value() if isinstance(value, SecretLike) else value
    if not isinstance(text, str):
        raise ConfigurationError(f"{what} must be a string or a SecretStr, got {type(text).__name__}.")
    text = text.strip()
    if not all(" " <= character <= "~" for character in text):
        raise ConfigurationError(f"{what} holds characters that no key has; was it copied with something around it?")
    return Secret(text) if text else None


def is_secret(name: object) -> bool:
    """Whether an option or a header of that name holds a secret."""
    return isinstance(name, str) and _NAMES.search(name) is not None


def secrets_among(options: Mapping[str, object]) -> Iterator[str]:
    """Name the options that hold a secret by their name, also within mappings."""
    for name, value in options.items():
        if is_secret(name):
            yield name
        elif isinstance(value, Mapping):
            yield from secrets_among(value)


def without_secrets(options: Mapping[str, object]) -> dict[str, object]:
    """Return ``options`` less those that hold a secret by their name, also within mappings."""
    return {
        name: without_secrets(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if not is_secret(name)
    }


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with every secret in it replaced; some services repeat the key in their errors."""
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "**********")
    return text


_SHORTEST = 4  # shorter ones are words by chance, e.g. the "none" of a server without keys
