"""What all libraries are asked in the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypedDict

__all__ = ["Adapter", "Options"]


class Options(TypedDict, total=False):
    """How a library is set up; what is not given is the library's own default.

    Attributes:
        model: The model's folder, or a name.
        device: ``"cpu"`` or ``"cuda"``.
        engine: What computes: ``"torch"``, ``"onnx"`` or ``"openvino"``.
        dtype: Of the weights or of the matrix products.
        file_name: Of an exported model in its folder.
        batch_size: Pairs in a batch.
    """

    model: str
    device: str
    engine: str
    dtype: str
    file_name: str
    batch_size: int


class Adapter(ABC):
    """A library with its model loaded.

    Attributes:
        thread_safe: Whether threads may call :meth:`score_one` at once. Where they may not, they queue for a lock,
            as a service built on the library must do.
        has_tasks: Whether there is :meth:`ascore_one`.
    """

    thread_safe = False
    has_tasks = False

    @abstractmethod
    def __init__(self, options: Options) -> None:
        """Load the model."""

    @abstractmethod
    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> list[list[float]]:
        """Score several queries, each with documents of its own, in the way that the library is fastest.

        Returns:
            A list a query, in the order of the documents; more is better.
        """

    def score_one(self, query: str, documents: Sequence[str]) -> list[float]:
        """Score one query."""
        return self.score([query], [documents])[0]

    async def ascore_one(self, query: str, documents: Sequence[str]) -> list[float]:
        """As :meth:`score_one`, in a task."""
        raise NotImplementedError

    def set_batch_size(self, batch_size: int | None) -> None:
        """Use batches of so many pairs from now on; ``None`` is the library's default."""
        if batch_size is not None:
            raise ValueError(f"{type(self).__name__} has no batch size")

    def precompute(self, documents: Sequence[str]) -> None:
        """Compute ahead what can be of documents."""
        raise NotImplementedError("it stores nothing ahead")

    def device_peak(self) -> int | None:
        """The most bytes of a GPU's memory that were in use, where there is one."""
        return None


def flattened(queries: Sequence[str], documents: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """All pairs, query by query."""
    return [(query, text) for query, texts in zip(queries, documents, strict=True) for text in texts]


def split(scores: Sequence[float], documents: Sequence[Sequence[str]]) -> list[list[float]]:
    """Scores of all pairs as a list a query."""
    values = iter(scores)
    return [[float(next(values)) for _ in texts] for texts in documents]


def torch_peak(device: str) -> int | None:
    """The most bytes that torch has had on a GPU since it was last asked."""
    if not device.startswith("cuda"):
        return None
    import torch

    peak = int(torch.cuda.max_memory_allocated())
    torch.cuda.reset_peak_memory_stats()
    return peak
