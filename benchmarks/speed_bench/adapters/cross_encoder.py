"""sentence-transformers: ``CrossEncoder.predict`` on torch, ONNX Runtime or OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence

from speed_bench.adapters.base import Adapter, Options, flattened, split, torch_peak

__all__ = ["CrossEncoderAdapter"]


class CrossEncoderAdapter(Adapter):
    """All pairs of a call in one ``predict``, which sorts them by their characters."""

    def __init__(self, options: Options) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        self._device = options.get("device", "cpu")
        engine = options.get("engine", "torch")
        settings: dict[str, object] = {}
        if "dtype" in options and engine == "torch":
            settings["torch_dtype"] = getattr(torch, options["dtype"])
        if "file_name" in options:
            settings["file_name"] = options["file_name"]
        self._model = CrossEncoder(options["model"], device=self._device, backend=engine, model_kwargs=settings)
        self._batch: dict[str, int] = {}
        self.set_batch_size(options.get("batch_size"))

    def set_batch_size(self, batch_size: int | None) -> None:
        self._batch = {} if batch_size is None else {"batch_size": batch_size}

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> list[list[float]]:
        scores = self._model.predict(flattened(queries, documents), show_progress_bar=False, **self._batch)
        return split(scores, documents)

    def device_peak(self) -> int | None:
        return torch_peak(self._device)
