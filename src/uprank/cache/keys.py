"""Under which keys scores are kept: digests of all that they depend on.

Each part is written with its length before it, so that no two questions share a key:
``("ab", "c")`` is another one than ``("a", "bc")``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from uprank.errors import ConfigurationError
from uprank.scorers.base import ScoreRequest

__all__ = ["document_keys", "identity_digest", "list_key"]

_SIZE = 32
# To be raised whenever scorers of the same identity come to give other scores, or keys are made otherwise.
_PERSON = b"uprank scores 1"


def identity_digest(identity: Mapping[str, object], *, name: str) -> bytes:
    """The digest of a scorer's identity.

    Args:
        identity: What JSON can hold.
        name: Names the scorer in the error.

    Raises:
        ConfigurationError: If JSON cannot hold it.
    """
    try:
        written = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"The identity of {name} must be what JSON can hold: {error}.") from None
    return hashlib.blake2b(written.encode(), digest_size=_SIZE, person=_PERSON).digest()


def document_keys(identity: bytes, request: ScoreRequest) -> list[bytes]:
    """A key for each text by itself, whatever stands beside it."""
    common = _common(identity, b"document", request)
    keys = []
    for text in request.texts:
        digest = common.copy()
        digest.update(_part(text))
        keys.append(digest.digest())
    return keys


def list_key(identity: bytes, request: ScoreRequest) -> bytes:
    """One key for all texts in their order."""
    digest = _common(identity, b"list", request)
    for text in request.texts:
        digest.update(_part(text))
    return digest.digest()


def _common(identity: bytes, what: bytes, request: ScoreRequest) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=_SIZE, person=_PERSON)
    digest.update(identity)  # always of one length
    for part in (what, _part(request.instruction), _part(request.query)):
        digest.update(part)
    return digest


def _part(text: str | None) -> bytes:
    if text is None:  # which is not the empty instruction
        return b"\0"
    encoded = text.encode("utf-8", "surrogatepass")
    return b"\1" + len(encoded).to_bytes(8, "little") + encoded
