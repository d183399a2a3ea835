"""uprank: reorder retrieved documents by how well they answer a query.

>>> from uprank import rerank
>>> rerank("how do I parse JSON?", texts, model="embedded", top_n=3)  # doctest: +SKIP
"""

from uprank.documents import Document
from uprank.errors import (
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
from uprank.ranking import RankedDocument, Ranking
from uprank.reranker import Reranker
from uprank.scorers.base import Usage
from uprank.scorers.registry import register_scorer
from uprank.shortcut import rerank

__all__ = [
    "AuthenticationError",
    "BadReplyError",
    "BillingError",
    "CanaryError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ContentRefusedError",
    "DeadlineExceededError",
    "Document",
    "Fidelity",
    "InvalidDocumentError",
    "InvalidInputError",
    "InvalidScoresError",
    "MissingDependencyError",
    "ModelIntegrityError",
    "ModelLoadError",
    "OverloadedError",
    "QueryTooLongError",
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
