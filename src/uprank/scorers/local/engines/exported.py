"""Models as ONNX graphs, built here or shipped with the model, computed by ONNX Runtime or OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from uprank.errors import ModelLoadError
from uprank.extras import require
from uprank.scorers.local.engines.base import Precision
from uprank.scorers.local.engines.cache import CachedModel, cached_model, content_digest, key_of
from uprank.scorers.local.engines.cores import has_vnni
from uprank.scorers.local.engines.graph import GraphEngine
from uprank.scorers.local.engines.onnx import OnnxEngine
from uprank.scorers.local.engines.openvino import OpenVINOEngine, native_bfloat16
from uprank.scorers.local.files import ModelFiles
from uprank.scorers.local.graphs import build as graphs
from uprank.scorers.local.graphs.config import ConfigError
from uprank.scorers.local.graphs.weights import Weights, WeightsError
from uprank.scorers.local.graphs.writer import Numbers

__all__ = ["Runtime", "load_exported", "native_bfloat16", "unsupported"]

Runtime: TypeAlias = Literal["onnx", "openvino"]

_ENGINES: dict[Runtime, type[GraphEngine]] = {"onnx": OnnxEngine, "openvino": OpenVINOEngine}
_PRECISIONS: dict[Runtime, tuple[Precision, ...]] = {
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
}
_FILE = "model.onnx"


def unsupported(files: ModelFiles, output: graphs.Output) -> str | None:
    """Say why a model cannot be run here, without loading it.

    Args:
        files: The model's.
        output: What it should give.

    Returns:
        The reason, as the rest of a sentence; ``None`` if a graph is built for it, or it ships one.

    Raises:
        ModelLoadError: If its configuration cannot be read.
    """
    reason = graphs.unsupported(files.config, output) or files.lacks_weights()
    return None if reason is None or files.ships_onnx() else f"{reason}, and it ships no ONNX file"


def load_exported(
    files: ModelFiles,
    *,
    engine: Runtime,
    precision: Precision,
    output: graphs.Output,
    name: str,
    lanes: int | None = None,
) -> GraphEngine:
    """Load a model: as a graph built from its weights, else as the ONNX file that it ships.

    Built graphs are kept (see ``cache.py``), so this takes longer the first time.

    Args:
        files: The model's.
        engine: What runs it.
        precision: What its matrix products are computed in. ``"int8"`` is 8-bit arithmetic in ONNX
            Runtime, where a score depends a little on what shares its batch; in OpenVINO it is 8-bit
            weights. It needs the weights: a shipped file is run as it is.
        output: What it should give: logits of pairs, or the last hidden states.
        name: Names the model in errors.
        lanes: Threads that may run it at once; by default one a core.

    Raises:
        MissingDependencyError: If the runtime is not installed, or onnx, which graphs are written with.
        ModelLoadError: If the model cannot be run, with the reason.
    """
    if precision not in _PRECISIONS[engine]:
        able = ", ".join(_PRECISIONS[engine])
        raise ModelLoadError(f"{name} cannot be run in {precision} by {engine}, which computes in {able}.")
    reason = graphs.unsupported(files.config, output) or files.lacks_weights()
    if reason is None:
        model = _built(files, engine, precision, output, name)
        path: Path | None = model.folder / _FILE
    else:
        model, path = None, files.shipped_onnx()
    if path is None:
        raise ModelLoadError(f"{name} cannot be run by {engine}: {reason}, and it ships no ONNX file.")
    if model is None and precision == "int8":
        raise ModelLoadError(f"{name} cannot be run in int8: {reason}. Its own ONNX file runs in float32.")
    padding = files.config.get("pad_token_id")
    loaded = _ENGINES[engine](
        path,
        precision=precision,
        padding=padding if isinstance(padding, int) else 0,
        model=name,
        lanes=lanes,
        keep=model,
    )
    if loaded.output != output:
        raise ModelLoadError(f"The ONNX file of {name} gives {loaded.output}, not {output}.")
    return loaded


def _built(files: ModelFiles, engine: Runtime, precision: Precision, output: graphs.Output, name: str) -> CachedModel:
    require(f'engine="{engine}" for {name}', engine, "onnx")
    numbers: Numbers = "float32"
    if precision == "int8":
        numbers = "int8 weights" if engine == "openvino" else "int8" if has_vnni() else "int7"
    settings = files.config
    paths = files.weights()
    try:
        key = key_of(
            {
                "graph": graphs.GRAPH_VERSION,
                "weights": content_digest(paths),
                "config": settings,
                "output": output,
                "numbers": numbers,
            }
        )
        return cached_model(
            key, lambda folder: graphs.build(settings, Weights(paths), output, folder / _FILE, numbers=numbers)
        )
    except (WeightsError, ConfigError, OSError) as error:
        raise ModelLoadError(f"{name} could not be made into a graph: {error}") from error
