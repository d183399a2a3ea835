"""Short names for models worth starting with.

``embedded`` is not listed here: it is a scheme of its own (``uprank.scorers.local.embedded``). The
published figures behind these choices (pairs per second and nDCG@10 on MTEB(eng, v2) retrieval,
bge-reranker-v2-m3 for its languages) are from https://huggingface.co/blog/ettin-reranker.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A model behind a short name.

    Args:
        model: The full model name.
        purpose: When to choose it, in one line.
    """

    model: str
    purpose: str


PRESETS: dict[str, Preset] = {
    "fast": Preset("cross-encoder:cross-encoder/ettin-reranker-17m-v1", "English; 17 M parameters, fit for a CPU"),
    "balanced": Preset("cross-encoder:cross-encoder/ettin-reranker-150m-v1", "English; 150 M parameters"),
    "quality": Preset("cross-encoder:cross-encoder/ettin-reranker-1b-v1", "English; 1 B parameters, for a GPU"),
    "multilingual": Preset("cross-encoder:BAAI/bge-reranker-v2-m3", "over 100 languages; 568 M parameters"),
}
