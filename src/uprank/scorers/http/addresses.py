"""Where a service is: the caller's base and the service's path, joined as people mean it."""

from __future__ import annotations

from urllib.parse import quote, urlsplit, urlunsplit

from uprank.errors import ConfigurationError

__all__ = ["join", "origin", "with_model"]


def join(base_url: str, path: str) -> str:
    """Append ``path`` to ``base_url``, which may already end in a part of it or in all of it.

    So ``http://localhost:8000``, ``…:8000/`` and ``…:8000/v1`` all work where the path is
    ``/v1/rerank``, and so does the full address.

    Args:
        base_url: With ``http://`` or ``https://``.
        path: With a leading slash, or empty.

    Raises:
        ConfigurationError: If the base is no such address, or holds a password, a query or a fragment.
    """
    try:
        parts = urlsplit(base_url.strip()) if isinstance(base_url, str) else None
        _ = None if parts is None else parts.port  # read here, since that raises too
    except ValueError:  # half of an IPv6 address, or a port that is none
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        del parts  # a traceback may print variables
        raise ConfigurationError(f"base_url must be an address like http://localhost:8000, got {_masked(base_url)}.")
    if "@" in parts.netloc:
        del parts
        raise ConfigurationError("base_url must hold no user and password; pass them by headers= or api_key=.")
    if parts.query or parts.fragment:
        raise ConfigurationError(
            "base_url must have no query (?…) or fragment (#…); pass keys by api_key= or headers=."
        )
    if not path:  # the full address, as it is: some routes end in a slash
        return urlunsplit(parts)
    base = parts.path.rstrip("/").split("/")
    wanted = path.split("/")[1:]
    overlap = next(
        (length for length in range(len(wanted), 0, -1) if base[1:][-length:] == wanted[:length]),
        0,
    )
    full = "/".join([*base, *wanted[overlap:]])
    return urlunsplit((parts.scheme, parts.netloc, full, "", ""))


def with_model(path: str, model: str) -> str:
    """Put the model's name into a path that asks for it."""
    return path.replace("{model}", quote(model)).replace("{slug}", quote(model.replace(".", "_")))


def origin(url: str) -> str:
    """Scheme, name and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _masked(value: object) -> str:
    """What was given, unless it may hold a password."""
    text = repr(value)
    return "one with a user and password" if "@" in text else text
