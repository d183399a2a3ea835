"""FlagEmbedding: ``FlagReranker``, which reads any encoder with one label."""

from __future__ import annotations

from collections.abc import Sequence

from speed_bench.adapters.base import Adapter, Options, flattened, split, torch_peak

__all__ = ["FlagAdapter"]


class FlagAdapter(Adapter):
    """All pairs of a call at once, sorted by their tokens, with its default batches of 128."""

    def __init__(self, options: Options) -> None:
        from FlagEmbedding import FlagReranker

        self._device = options.get("device", "cpu")
        # fp16 is what its documentation advises on a GPU; on a CPU it ignores it.
        self._model = FlagReranker(options["model"], use_fp16=self._device != "cpu", devices=[self._device])

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> list[list[float]]:
        return split(self._model.compute_score(flattened(queries, documents)), documents)

    def device_peak(self) -> int | None:
        return torch_peak(self._device)
