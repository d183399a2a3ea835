"""What tells the scores of one local model from those of another, found out without loading it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from uprank.scorers.local.engines.choice import choose_engine, choose_precision
from uprank.scorers.local.loading import DType, device_for, pick_dtype
from uprank.scorers.local.vectors.loading import model_digest, shipped_digest

if TYPE_CHECKING:
    from uprank.scorers.local.engines.base import EngineName
    from uprank.scorers.local.files import ModelFiles

__all__ = ["computation", "content"]


def content(files: ModelFiles) -> dict[str, object]:
    """Of a model's files: the commit of a repository, or the digest of all that counts in a folder."""
    return {"model": model_digest(files), "onnx": None if files.remote else shipped_digest(files)}


def computation(
    engine: EngineName,
    dtype: DType,
    device: str | None,
    unsupported: Callable[[], str | None] = lambda: None,
    *,
    name: str,
) -> dict[str, object]:
    """Which engine computes, in which number format, on which kind of device.

    Args:
        engine: What was asked for.
        dtype: Likewise.
        device: Likewise.
        unsupported: Tells why the model cannot be exported; ``None`` if it can.
        name: Names the model in errors.
    """
    device = device_for(device, engine, dtype)
    kind = device.partition(":")[0]
    chosen = choose_engine(engine, dtype, kind, unsupported, name=name)
    precision = str(pick_dtype(dtype, device)) if chosen == "torch" else choose_precision(chosen, dtype)
    return {"engine": chosen, "precision": precision.removeprefix("torch."), "device": kind}
