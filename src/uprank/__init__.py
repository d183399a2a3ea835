"""uprank: reorder retrieved documents by how well they answer a query.

>>> from uprank import rerank
>>> rerank("how do I parse JSON?", texts, model="embedded", top_n=3)  # doctest: +SKIP
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from uprank.documents import Document
from uprank.errors import (
    AllModelsFailedError,
    AuthenticationError,
    BadReplyError,
    BillingError,
    CanaryError,
    ConfigurationError,
    ConnectionFailedError,
    ContentRefusedError,
    DeadlineExceededError,
    InvalidDocumentError,
    InvalidInputError,
    InvalidScoresError,
    MissingDependencyError,
    ModelIntegrityError,
    ModelLoadError,
    OverloadedError,
    QueryTooLongError,
    QueryTooLongForAllError,
    RateLimitError,
    RequestRefusedError,
    RequestTooLargeError,
    ScoreKindError,
    ScorerError,
    ServerError,
    ServiceError,
    UnknownModelError,
    UprankError,
)
from uprank.fidelity import Fidelity
from uprank.observe import Hooks
from uprank.ranking import RankedDocument, Ranking
from uprank.reranker import Reranker
from uprank.scorers.base import Usage
from uprank.scorers.evidence import Attempt, Passage
from uprank.scorers.registry import register_scorer
from uprank.shortcut import rerank

if _TYPE_CHECKING:
    from uprank.cache import DiskCache, MemoryCache
    from uprank.calibrator import Calibrator
    from uprank.scorers.combined.breaker import Breaker, CircuitState
    from uprank.scorers.combined.cascade import Cascade
    from uprank.scorers.combined.fallback import Fallback
    from uprank.scorers.combined.fusion import Fusion
    from uprank.telemetry import OpenTelemetry

__all__ = [
    "AllModelsFailedError",
    "Attempt",
    "AuthenticationError",
    "BadReplyError",
    "BillingError",
    "Breaker",
    "Calibrator",
    "CanaryError",
    "Cascade",
    "CircuitState",
    "ConfigurationError",
    "ConnectionFailedError",
    "ContentRefusedError",
    "DeadlineExceededError",
    "DiskCache",
    "Document",
    "Fallback",
    "Fidelity",
    "Fusion",
    "Hooks",
    "InvalidDocumentError",
    "InvalidInputError",
    "InvalidScoresError",
    "MemoryCache",
    "MissingDependencyError",
    "ModelIntegrityError",
    "ModelLoadError",
    "OpenTelemetry",
    "OverloadedError",
    "Passage",
    "QueryTooLongError",
    "QueryTooLongForAllError",
    "RankedDocument",
    "Ranking",
    "RateLimitError",
    "RequestRefusedError",
    "RequestTooLargeError",
    "Reranker",
    "ScoreKindError",
    "ScorerError",
    "ServerError",
    "ServiceError",
    "UnknownModelError",
    "UprankError",
    "Usage",
    "register_scorer",
    "rerank",
]

__version__ = "0.1.0"

# Each is loaded when it is first asked for, so that `import uprank` stays quick.
_LATE = {
    "Breaker": "uprank.scorers.combined.breaker",
    "Calibrator": "uprank.calibrator",
    "Cascade": "uprank.scorers.combined.cascade",
    "CircuitState": "uprank.scorers.combined.breaker",
    "DiskCache": "uprank.cache",
    "Fallback": "uprank.scorers.combined.fallback",
    "Fusion": "uprank.scorers.combined.fusion",
    "MemoryCache": "uprank.cache",
    "OpenTelemetry": "uprank.telemetry",
}


def __getattr__(name: str) -> object:
    if name in _LATE:
        return getattr(_import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
