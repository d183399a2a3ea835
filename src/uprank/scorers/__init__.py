"""The scorers. Each is loaded when it is first asked for, so importing this costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from uprank.scorers.base import Outcome, ScoreKind, Scorer, ScoreRequest, Scores, Usage
from uprank.scorers.callable import CallableScorer
from uprank.scorers.evidence import Attempt, Evidence, Passage
from uprank.scorers.registry import SCHEMES, create_scorer, import_target, register_scorer

if TYPE_CHECKING:
    from uprank.scorers.combined.base import Ask, CombinedScorer
    from uprank.scorers.combined.cached import Cached
    from uprank.scorers.combined.calibrated import Calibrated
    from uprank.scorers.combined.cascade import Cascade
    from uprank.scorers.combined.fallback import Fallback
    from uprank.scorers.combined.fusion import Fusion
    from uprank.scorers.combined.passages import Passages
    from uprank.scorers.http.cohere import CohereScorer
    from uprank.scorers.http.scorer import HTTPScorer
    from uprank.scorers.llm.scorer import LLMScorer
    from uprank.scorers.local.bm25 import BM25Scorer
    from uprank.scorers.local.cross_encoder import CrossEncoderScorer
    from uprank.scorers.local.embedding import EmbeddingScorer
    from uprank.scorers.local.late_interaction import LateInteractionScorer

__all__ = [
    "Ask",
    "Attempt",
    "BM25Scorer",
    "Cached",
    "Calibrated",
    "CallableScorer",
    "Cascade",
    "CohereScorer",
    "CombinedScorer",
    "CrossEncoderScorer",
    "EmbeddingScorer",
    "Evidence",
    "Fallback",
    "Fusion",
    "HTTPScorer",
    "LLMScorer",
    "LateInteractionScorer",
    "Outcome",
    "Passage",
    "Passages",
    "ScoreKind",
    "ScoreRequest",
    "Scorer",
    "Scores",
    "Usage",
    "create_scorer",
    "register_scorer",
]

_LAZY = {row.target.partition(":")[2]: row for row in SCHEMES.values()}
_COMBINED = {
    "Ask": "base",
    "Cached": "cached",
    "Calibrated": "calibrated",
    "Cascade": "cascade",
    "CombinedScorer": "base",
    "Fallback": "fallback",
    "Fusion": "fusion",
    "Passages": "passages",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return import_target(_LAZY[name])
    if name in _COMBINED:
        return getattr(import_module(f"uprank.scorers.combined.{_COMBINED[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
