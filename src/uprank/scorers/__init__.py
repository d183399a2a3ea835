"""The scorers. Each is loaded when it is first asked for, so importing this costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uprank.scorers.base import ScoreKind, Scorer, ScoreRequest, Scores, Usage
from uprank.scorers.callable import CallableScorer
from uprank.scorers.registry import SCHEMES, import_target, register_scorer

if TYPE_CHECKING:
    from uprank.scorers.http.cohere import CohereScorer
    from uprank.scorers.http.scorer import HTTPScorer
    from uprank.scorers.llm.scorer import LLMScorer
    from uprank.scorers.local.bm25 import BM25Scorer
    from uprank.scorers.local.cross_encoder import CrossEncoderScorer
    from uprank.scorers.local.embedding import EmbeddingScorer
    from uprank.scorers.local.late_interaction import LateInteractionScorer

__all__ = [
    "BM25Scorer",
    "CallableScorer",
    "CohereScorer",
    "CrossEncoderScorer",
    "EmbeddingScorer",
    "HTTPScorer",
    "LLMScorer",
    "LateInteractionScorer",
    "ScoreKind",
    "ScoreRequest",
    "Scorer",
    "Scores",
    "Usage",
    "register_scorer",
]

_LAZY = {row.target.partition(":")[2]: row for row in SCHEMES.values()}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return import_target(_LAZY[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
