"""Where a model is asked, in words: told apart from others, readable in an error, and without secrets."""

from __future__ import annotations

import itertools
import re
import weakref
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

__all__ = ["label", "urls_of"]

_known: dict[tuple[str, int], tuple[weakref.ref[object], str]] = {}
_counts: dict[str, Iterator[int]] = {}
_URL = re.compile(r"(^|_)(api_base|base_url|api_url|api_host|endpoint|endpoint_url|server_url|host|url)$")


def label(name: str, thing: object) -> str:
    """Return ``name``, with a number behind it for all but the first thing of that name in this process.

    The same thing gets the same label for as long as it lives; no other one ever gets it.

    Args:
        name: Of the thing.
        thing: Need not be hashable. One that takes no weak references gets a new number each time.
    """
    key = (name, id(thing))  # forgotten before another thing can have this id
    found = _known.get(key)
    if found is not None:
        return found[1]
    number = next(_counts.setdefault(name, itertools.count(1)))
    own = name if number == 1 else f"{name} ({number})"

    def forget(dead: weakref.ref[object]) -> None:
        held = _known.get(key)
        if held is not None and held[0] is dead:
            del _known[key]

    try:
        entry = (weakref.ref(thing, forget), own)
    except TypeError:
        return own
    # No lock, in which the garbage collector might call forget(): this is one step, and the first thread's label holds.
    return _known.setdefault(key, entry)[1]


def urls_of(client: object) -> tuple[str, ...]:
    """The addresses among the fields of a framework's object, without users, passwords and queries."""
    fields = vars(client).items()
    found = (_plain(value) for name, value in fields if isinstance(value, str) and _URL.search(name))
    return tuple(dict.fromkeys(url for url in found if url))


def _plain(address: str) -> str:
    try:
        parts = urlsplit(address.strip())
    except ValueError:  # half of an IPv6 address
        return ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")) if parts.scheme and host else ""
