"""What is noted on a framework's documents: plain values, flat, under the same keys in every framework."""

from __future__ import annotations

from collections.abc import Mapping

from uprank.ranking import RankedDocument, Ranking

__all__ = ["NOTES", "noted", "notes_of"]

NOTES = (
    "rerank_index",
    "rerank_degraded",
    "rerank_skipped",
    "rerank_model",
    "rerank_stage",
    "rerank_passage",
    "rerank_passage_start",
    "rerank_truncated",
)
"""All keys that a rerank may note; those of an earlier one go."""


def notes_of(ranking: Ranking, hit: RankedDocument | None = None) -> dict[str, object]:
    """What is known of a score, beside the score itself.

    Args:
        ranking: What the hit is of.
        hit: ``None`` for a document that was not scored.

    Returns:
        Those of these that apply:

        * ``rerank_index`` (int): the document's position in the list given.
        * ``rerank_degraded`` (``True``): the order is the original one, or only the best that could be had.
        * ``rerank_model`` (str): who gave the score, where several models share the work.
        * ``rerank_stage`` (int): which stage of a cascade, the first being 0.
        * ``rerank_passage`` (str), ``rerank_passage_start`` (int): the part of the document that the score is of,
          and where it begins, in characters of the text that was scored.
        * ``rerank_truncated`` (``True``): the model read only the beginning.
    """
    notes: dict[str, object] = {"rerank_degraded": True} if ranking.degraded else {}
    if hit is None:
        return notes
    notes["rerank_index"] = hit.index
    model = hit.model or (ranking.model if ranking.attempts else None)
    if model is not None and hit.score is not None:
        notes["rerank_model"] = model
    if hit.stage is not None:
        notes["rerank_stage"] = hit.stage
    if hit.passage is not None:
        notes |= {"rerank_passage": hit.passage.text, "rerank_passage_start": hit.passage.start}
    if hit.truncated:
        notes["rerank_truncated"] = True
    return notes


def noted(metadata: Mapping[str, object], notes: Mapping[str, object]) -> dict[str, object]:
    """Metadata with these notes, and none of an earlier rerank."""
    return {**{key: value for key, value in metadata.items() if key not in NOTES}, **notes}
