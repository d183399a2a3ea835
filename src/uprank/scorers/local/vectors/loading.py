"""What loading the scorers by vectors has in common."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from uprank.extras import installed, require
from uprank.scorers.local.engines.choice import Exported, choose_engine, choose_precision

if TYPE_CHECKING:
    from uprank.scorers.local.encoders import EngineModel
    from uprank.scorers.local.engines.base import EngineName
    from uprank.scorers.local.files import ModelFiles
    from uprank.scorers.local.loading import Checkpoint, DType

__all__ = ["exported_model", "model_digest", "model_files", "require_engine", "shipped_digest"]

# What vectors depend on: weights, configurations, tokenizers, code. An export that is run tells of itself
# in EngineModel.precision.
_SUFFIXES = (".safetensors", ".bin", ".json", ".txt", ".model", ".py", ".jinja")
_LEFT_OUT = ("onnx", "openvino")


def require_engine(engine: EngineName, dtype: DType, extra: str, *packages: str, name: str) -> None:
    """Check that something is installed that could run the model.

    Args:
        engine: What was asked for.
        dtype: Likewise.
        extra: The extra that brings ``packages``.
        packages: What torch needs beside itself.
        name: Of the scorer.

    Raises:
        MissingDependencyError: If it is not.
    """
    if engine in ("onnx", "openvino"):
        choose_engine(engine, dtype, "cpu", lambda: None, name=name)
    elif engine == "torch" or not (installed("openvino") or installed("onnxruntime")):
        require(f'model "{name}"', extra, "torch", *packages)


def exported_model(files: ModelFiles, engine: Exported, dtype: DType, *, name: str) -> EngineModel:
    """Load a transformer on ONNX Runtime or OpenVINO, to make a vector for each token."""
    from uprank.scorers.local.encoders import EngineModel
    from uprank.scorers.local.engines.exported import load_exported
    from uprank.scorers.local.graphs.build import unsupported

    precision = choose_precision(engine, dtype)
    loaded = load_exported(files, engine=engine, precision=precision, output="vectors", name=name)
    shipped = unsupported(files.config, "vectors") or files.lacks_weights()  # then load_exported takes no other
    return EngineModel(loaded, shipped_digest(files) if shipped else None)


def shipped_digest(files: ModelFiles) -> str | None:
    """The digest of the repository's own ONNX model, fetched if need be; ``None`` where it has none."""
    from uprank.scorers.local.engines.cache import content_digest

    path = files.shipped_onnx()
    if path is None:
        return None
    parts = sorted(path.parent.glob(f"{path.name}*"))  # large weights lie in a file of their own
    return f"sha256:{sha256(' '.join(content_digest(parts)).encode()).hexdigest()}"


def model_files(checkpoint: Checkpoint) -> ModelFiles:
    """The files of a checkpoint; of a repository, what was not fetched yet is fetched when it is read."""
    from uprank.scorers.local.files import ModelFiles

    return ModelFiles.find(
        checkpoint.source,
        revision=checkpoint.revision,
        token=checkpoint.token,
        local_files_only=checkpoint.local_files_only,
    )


def model_digest(files: ModelFiles) -> str:
    """What tells a model from all others: its commit, or the digest of all that its vectors depend on."""
    from uprank.scorers.local.engines.cache import content_digest

    if files.remote and files.commit is not None:
        return f"{files.source}@{files.commit}"
    paths = [
        path
        for path in sorted(files.folder.rglob("*"))
        if path.suffix in _SUFFIXES and path.is_file() and path.relative_to(files.folder).parts[0] not in _LEFT_OUT
    ]
    overall = sha256()
    for path, digest in zip(paths, content_digest(paths), strict=True):
        overall.update(f"{path.relative_to(files.folder).as_posix()}\0{digest}\0".encode())
    return f"sha256:{overall.hexdigest()}"
