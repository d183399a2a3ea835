"""uprank: reorder retrieved documents by how well they answer a query.

>>> from uprank import rerank
>>> rerank("how do I parse JSON?", texts, model="embedded", top_n=3)  # doctest: +SKIP
"""

from uprank.documents import Document
from uprank.errors import (
    ConfigurationError,
    InvalidDocumentError,
    InvalidInputError,
    InvalidScoresError,
    MissingDependencyError,
    ModelIntegrityError,
    ModelLoadError,
    QueryTooLongError,
    ScoreKindError,
    ScorerError,
    UnknownModelError,
    UprankError,
)
from uprank.ranking import RankedDocument, Ranking
from uprank.reranker import Reranker
from uprank.scorers.base import Usage
from uprank.scorers.registry import register_scorer
from uprank.shortcut import rerank

__all__ = [
    "ConfigurationError",
    "Document",
    "InvalidDocumentError",
    "InvalidInputError",
    "InvalidScoresError",
    "MissingDependencyError",
    "ModelIntegrityError",
    "ModelLoadError",
    "QueryTooLongError",
    "RankedDocument",
    "Ranking",
    "Reranker",
    "ScoreKindError",
    "ScorerError",
    "UnknownModelError",
    "UprankError",
    "Usage",
    "register_scorer",
    "rerank",
]

__version__ = "0.1.0"
