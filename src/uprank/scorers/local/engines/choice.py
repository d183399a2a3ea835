"""Which engine computes a model: the fastest that is installed, fits the device and knows the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from uprank.errors import ConfigurationError, ModelLoadError
from uprank.extras import installed, require
from uprank.scorers.local.engines.base import EngineName, Precision
from uprank.scorers.local.loading import DType

__all__ = ["ChosenEngine", "Exported", "choose_engine", "choose_precision", "valid_combination", "valid_engine"]

Exported = Literal["onnx", "openvino"]
ChosenEngine = Literal["torch", "onnx", "openvino"]

_TITLES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
_MODULES = {"onnx": ("onnxruntime", "onnx"), "openvino": ("openvino", "onnx")}
_PRECISIONS: dict[str, tuple[DType, ...]] = {
    "torch": ("auto", "float32", "bfloat16", "float16"),
    "onnx": ("auto", "float32", "int8"),
    "openvino": ("auto", "float32", "bfloat16", "int8"),
}


def valid_engine(engine: EngineName, dtype: DType) -> EngineName:
    """Return the engine if it is one that computes in ``dtype``; raise ``ConfigurationError`` if not."""
    if engine not in get_args(EngineName):
        raise ConfigurationError(f"engine must be one of {', '.join(get_args(EngineName))}; got {engine!r}.")
    if engine != "auto" and dtype not in _PRECISIONS[engine]:
        able = " or ".join(f'"{name}"' for name, types in _PRECISIONS.items() if dtype in types)
        raise ConfigurationError(f'engine="{engine}" does not compute in {dtype}; {able} does.')
    return engine


def valid_combination(engine: EngineName, dtype: DType, devices: Sequence[str] | None, *, compile: bool) -> None:
    """Refuse what cannot go together, whatever the model.

    Raises:
        ConfigurationError: If an engine or a number format of the CPU is asked for with something of torch's.
    """
    asked = f'engine="{engine}"' if engine in ("onnx", "openvino") else 'dtype="int8"' if dtype == "int8" else None
    if asked is None:
        return
    if compile:
        raise ConfigurationError(f"{asked} and compile=True do not go together: compiling is for torch.")
    if devices is not None and (len(devices) > 1 or devices[0].partition(":")[0] != "cpu"):
        raise ConfigurationError(f'{asked} runs on device="cpu"; got {", ".join(devices)}.')


def choose_engine(
    asked: EngineName, dtype: DType, device_type: str, unsupported: Callable[[], str | None], *, name: str
) -> ChosenEngine:
    """Choose the engine for a model.

    On a CPU: OpenVINO, then ONNX Runtime (for int8 the other way round), then torch. Elsewhere torch.

    Args:
        asked: The user's choice.
        dtype: What it shall compute in.
        device_type: ``"cpu"``, ``"cuda"``, …
        unsupported: Tells why the model cannot be exported; ``None`` if it can. Asked only if it matters.
        name: Names the model in errors.

    Raises:
        ConfigurationError: If the engine does not run on the device.
        MissingDependencyError: If it is not installed.
        ModelLoadError: If it cannot run the model.
    """
    if asked == "torch":
        return "torch"
    if asked != "auto":
        if device_type != "cpu":
            raise ConfigurationError(f'{name}: engine="{asked}" runs on device="cpu", not on {device_type!r}.')
        _require(asked, name)
        if reason := unsupported():
            raise ModelLoadError(f'{name} cannot run on {_TITLES[asked]}: {reason}. Use engine="torch".')
        return asked
    if device_type != "cpu":
        if dtype == "int8":
            raise ConfigurationError(f'{name}: dtype="int8" runs on device="cpu", not on {device_type!r}.')
        return "torch"
    order: tuple[Exported, ...] = ("onnx", "openvino") if dtype == "int8" else ("openvino", "onnx")
    able = [engine for engine in order if dtype in _PRECISIONS[engine] and all(map(installed, _MODULES[engine]))]
    if able and dtype == "bfloat16" and not _native_bfloat16():
        able = []
    reason = unsupported() if able else None
    if able and reason is None:
        return able[0]
    if dtype == "int8":
        if not able:
            _require("onnx", name)
        raise ModelLoadError(f"{name} cannot run in int8: {reason}.")
    return "torch"


def choose_precision(engine: Exported, dtype: DType) -> Precision:
    """What an exported model computes in: as asked, else bfloat16 where OpenVINO and the processor do, else float32."""
    if dtype == "auto":
        return "bfloat16" if engine == "openvino" and _native_bfloat16() else "float32"
    return dtype


def _native_bfloat16() -> bool:
    from uprank.scorers.local.engines.exported import native_bfloat16

    return native_bfloat16()


def _require(engine: Exported, name: str) -> None:
    require(f'engine="{engine}" for {name}', engine, *_MODULES[engine])
