"""Keys and other secrets: held so that nothing shows them, and taken out of whatever is shown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from os.path import commonprefix
from typing import Any, NoReturn, Protocol, TypeAlias, runtime_checkable
from urllib.parse import quote

from uprank.errors import ConfigurationError

__all__ = [
    "KeyLike",
    "Masked",
    "Secret",
    "SecretLike",
    "as_secret",
    "fingerprinted",
    "header_prints",
    "is_secret",
    "masked",
    "redact",
    "secrets_among",
    "without_secrets",
]

_NAMES = re.compile(
    r"(api|auth|access|private|subscription)[-_]?key|token$|secret|passw(or)?d|(^|[-_])auth$|authorization|cookie"
    r"|credential|signature$|jwt$|[-_]key$|[-_]code$|session",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"(?<=://)([^/?#@]*):[^/?#]*@")  # in an address, e.g. a proxy's


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


class Masked(str):
    """A string whose repr does not show it. Tracebacks with variables, and debuggers, show the repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"


def masked(options: Mapping[str, Any]) -> dict[str, Any]:  # Any: each option has a type of its own
    """Return ``options`` with every string :class:`Masked` that may be a secret, all headers among them."""
    return {name: _masked(name, value) for name, value in options.items()}


def _masked(name: str, value: object) -> object:
    if isinstance(value, str):
        return Masked(value) if is_secret(name) or _PASSWORD.search(value) else value
    if isinstance(value, Mapping) and name == "headers":
        return {header: Masked(text) if isinstance(text, str) else text for header, text in value.items()}
    if isinstance(value, Mapping) and any(secrets_among(value)):
        return masked(value)
    return value


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
    given = value.get_secret_value() if isinstance(value, SecretLike) else value
    if not isinstance(given, str):
        raise ConfigurationError(f"{what} must be a string or a SecretStr, got {type(given).__name__}.")
    value = given = Masked(given.strip())
    if not all(" " <= character <= "~" for character in given):
        raise ConfigurationError(f"{what} holds characters that no key has; was it copied with something around it?")
    return Secret(given) if given else None


def is_secret(name: object) -> bool:
    """Whether an option or a header of that name holds a secret."""
    return isinstance(name, str) and _NAMES.search(name) is not None


def secrets_among(options: Mapping[str, object]) -> Iterator[str]:
    """Name the options that hold a secret by their name, or a password in an address, also within mappings."""
    for name, value in options.items():
        if is_secret(name) or (isinstance(value, str) and _PASSWORD.search(value)):
            yield name
        elif isinstance(value, Mapping):
            yield from secrets_among(value)


def without_secrets(options: Mapping[str, object]) -> dict[str, object]:
    """Return ``options`` less those that hold a secret by their name, also within mappings.

    Of an address with a password, the password alone is left out: without its proxy, a request
    would take another way rather than fail.
    """
    return {
        name: without_secrets(value) if isinstance(value, Mapping) else _without_password(value)
        for name, value in options.items()
        if not is_secret(name)
    }


def fingerprinted(options: Mapping[str, object]) -> dict[str, object]:
    """Return ``options`` with a digest in the place of what holds a secret by its name, also within mappings.

    Two that differ in such a value are told apart, and neither is shown.
    """
    return {
        name: _fingerprint(value)
        if is_secret(name)
        else fingerprinted(value)
        if isinstance(value, Mapping)
        else _without_password(value)
        for name, value in options.items()
    }


def _fingerprint(value: object) -> str:
    """A digest of a value, which does not show it."""
    return hashlib.sha256(str(value).encode("utf-8", "surrogatepass")).hexdigest()


def header_prints(headers: object) -> dict[str, str]:
    """What tells headers apart and shows none: gateways choose a deployment by header.

    Those that hold a key by their name are left out: keys change, and scores do not.
    """
    given = headers if isinstance(headers, Mapping) else {}
    return {str(name).lower(): _fingerprint(value) for name, value in given.items() if not is_secret(name)}


def _without_password(value: object) -> object:
    return _PASSWORD.sub(r"\1@", value) if isinstance(value, str) and _PASSWORD.search(value) else value


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with every secret in it replaced; some services repeat the key in their errors.

    A long beginning of one is replaced too: what is quoted from a reply may have been cut there.
    """
    forms = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):  # one may be a part of another
        text = _redact(text, form)
    return text


def _redact(text: str, secret: str) -> str:
    kept, position = "", 0
    while (start := text.find(secret[:_BEGINNING], position)) >= 0:
        kept += text[position:start] + _MASK
        position = start + len(commonprefix((text[start : start + len(secret)], secret)))  # noqa: RUF071 - as meant
    return kept + text[position:]


def _forms(secret: str) -> tuple[str, ...]:
    """A secret as it is, and as Python, JSON and addresses write it."""
    return str(secret), str.__repr__(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="")


_MASK = "**********"
_BEGINNING = 8  # characters; shorter beginnings are the same for many keys
_SHORTEST = 4  # shorter ones are words by chance, e.g. the "none" of a server without keys
