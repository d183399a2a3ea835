"""Who is measured: each library in its default configuration, and sentence-transformers in its best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from speed_bench.adapters import Options

__all__ = [
    "BASE",
    "BEST",
    "ENGINES",
    "OURS",
    "OURS_INT8",
    "PEERS",
    "SWEEP",
    "UPRANK",
    "UPRANK_INT8",
    "Contestant",
    "Export",
    "variants",
]

OURS = "uprank"
OURS_INT8 = "uprank, int8"
BASE = "sentence-transformers, default"
BEST = "sentence-transformers, best"


@dataclass(frozen=True, slots=True)
class Export:
    """A model exported ahead, once, in the library's environment.

    Args:
        what: As ``preparing.py`` names it.
        folder: Where exports of this kind are kept.
    """

    what: str
    folder: str


@dataclass(frozen=True, slots=True)
class Contestant:
    """A library in one configuration.

    Args:
        name: As in the report.
        library: As ``speed_bench.adapters`` names it.
        options: For its adapter; the model and the device are added.
        environment: ``"project"`` or ``"peers"``.
        export: What must be prepared first.
        scheme: Stands before the model's folder.
        devices: Where it runs at all.
    """

    name: str
    library: str
    options: Options = field(default_factory=Options)
    environment: str = "project"
    export: Export | None = None
    scheme: str = ""
    devices: tuple[str, ...] = ("cpu", "cuda")


def _uprank(name: str, devices: tuple[str, ...] = ("cpu", "cuda"), **options: str) -> Contestant:
    chosen = Options(**options)  # type: ignore[typeddict-item]  # engine and dtype, as written below
    return Contestant(name, "uprank", chosen, scheme="cross-encoder:", devices=devices)


UPRANK = _uprank(OURS)
UPRANK_INT8 = _uprank(OURS_INT8, ("cpu",), engine="onnx", dtype="int8")
"""In the precision of FlashRank's models: beside it, the like is compared with the like."""

ENGINES: Sequence[Contestant] = (
    _uprank("uprank, torch float32", engine="torch", dtype="float32"),
    _uprank("uprank, torch bfloat16", engine="torch", dtype="bfloat16"),
    _uprank("uprank, torch float16", ("cuda",), engine="torch", dtype="float16"),
    _uprank("uprank, onnx float32", ("cpu",), engine="onnx", dtype="float32"),
    _uprank("uprank, onnx int8", ("cpu",), engine="onnx", dtype="int8"),
    _uprank("uprank, openvino float32", ("cpu",), engine="openvino", dtype="float32"),
    _uprank("uprank, openvino bfloat16", ("cpu",), engine="openvino", dtype="bfloat16"),
    _uprank("uprank, openvino int8", ("cpu",), engine="openvino", dtype="int8"),
)
"""uprank told what to use, rather than left to choose."""

_ST = "sentence-transformers"
_ONNX = Export("st-onnx", "st-onnx")
_OPENVINO = Export("st-openvino", "st-openvino")


def _st(name: str, export: Export | None, devices: tuple[str, ...] = ("cpu",), **options: str) -> Contestant:
    chosen = Options(**options)  # type: ignore[typeddict-item]  # engine, dtype and file_name, as written below
    return Contestant(name, _ST, chosen, "peers" if export else "project", export, devices=devices)


PEERS: Sequence[Contestant] = (
    Contestant(BASE, _ST),
    Contestant("FlashRank", "flashrank", {"file_name": "model_Q.onnx"}, "peers", Export("flashrank", "flashrank"),
               devices=("cpu",)),
    Contestant("rerankers", "rerankers", environment="peers"),
    Contestant("FlagEmbedding", "flagembedding", environment="peers"),
)  # fmt: skip

SWEEP: Sequence[Contestant] = (
    _st("torch float32", None, ("cpu", "cuda")),
    _st("torch bfloat16", None, ("cpu", "cuda"), dtype="bfloat16"),
    _st("torch float16", None, ("cuda",), dtype="float16"),
    _st("onnx float32", _ONNX, engine="onnx", file_name="onnx/model.onnx"),
    _st("onnx int8", _ONNX, engine="onnx", file_name="onnx/model_int8.onnx"),
    _st("openvino", _OPENVINO, engine="openvino", file_name="openvino/openvino_model.xml"),
    _st("openvino int8", _OPENVINO, engine="openvino", file_name="openvino/openvino_model_int8.xml"),
)
"""Where sentence-transformers' best configuration is looked for. OpenVINO itself takes bf16 where the CPU has it."""

_BATCHES = {"cpu": {"torch": (32, 8, 16, 64), "other": (16, 4, 8, 32)}, "cuda": {"torch": (64, 32, 128, 256)}}


def variants(contestant: Contestant, device: str) -> tuple[int, ...]:
    """The batch sizes to try, the likeliest first: where it is far behind, the others are not tried."""
    kinds = _BATCHES[device]
    return kinds["other" if "engine" in contestant.options and "other" in kinds else "torch"]
