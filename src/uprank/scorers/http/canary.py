"""An obvious pair, to see whether a server scores at all well.

A server can be started in ways that give scores without an error and without sense, e.g. vLLM with
Qwen3-Reranker but without its chat template, or llama.cpp with weights whose head was lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from uprank.scorers.base import ScoreKind, ScoreRequest

__all__ = ["CANARY", "canary_problem"]

CANARY = ScoreRequest(
    "What is the capital of France?",
    ("Paris is the capital of France.", "Knead the dough for ten minutes and let it rise in a warm place."),
)
"""The first text answers the query, the second has nothing to do with it."""

_LEAST_MARGIN = 0.05  # of cosines, which lie close together for many models


def canary_problem(values: Sequence[float], kind: ScoreKind) -> str | None:
    """What is wrong with the scores of :data:`CANARY`; ``None`` if they are as they should be.

    Args:
        values: Of its two texts.
        kind: What they mean. Probabilities and logits must lie on the right side of one half and of
            zero; of others only the order, and for cosines a small margin, can be expected.
    """
    answer, other = values
    shown = f"{answer:.4g} for a document that answers the query, {other:.4g} for one that has nothing to do with it"
    advice = (
        "The server was probably started with the wrong chat template, weights or task; compare its command line "
        "with the model's card. check=False turns this check off."
    )
    middle = {"probability": 0.5, "logit": 0.0}.get(kind, math.nan)
    margin = _LEAST_MARGIN if kind == "cosine" else 0.0
    if answer - other <= margin or answer < middle or other > middle:
        return f"the check failed, with a score of {shown}. {advice}"
    return None
