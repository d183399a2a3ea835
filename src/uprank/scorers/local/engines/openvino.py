"""OpenVINO, on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from uprank.errors import ModelLoadError
from uprank.extras import require
from uprank.scorers.local.engines.cores import lacks_bfloat16, usable_cores
from uprank.scorers.local.engines.graph import GraphEngine, Shape
from uprank.scorers.local.engines.quiet import import_openvino

if TYPE_CHECKING:
    from openvino import InferRequest

__all__ = ["OpenVINOEngine", "native_bfloat16"]

_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}

# OpenVINO's binding deadlocks where two threads of a process hand it their first array at once.
_first_use = threading.Lock()


class OpenVINOEngine(GraphEngine):
    """Runs a graph with OpenVINO: a stream for each lane."""

    name = "openvino"
    _used: ClassVar[bool] = False
    _requests: list[InferRequest]

    def _load(self, path: Path) -> tuple[Sequence[str], Mapping[str, Shape]]:
        require(f'engine="openvino" for {self._model}', "openvino", "openvino")
        if self.precision not in _HINTS:
            raise ModelLoadError(
                f"OpenVINO computes in {', '.join(_HINTS)} on a CPU, not in {self.precision}: {self._model}."
            )
        if self.precision == "bfloat16" and not native_bfloat16():
            raise ModelLoadError(
                f"This processor does not compute in bfloat16 by itself, so {self._model} would be slower in it. "
                "Use float32 or int8."
            )
        openvino = import_openvino()
        core = openvino.Core()
        settings = {
            "NUM_STREAMS": str(self.lanes),
            "INFERENCE_NUM_THREADS": str(max(self.lanes, usable_cores())),
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
        }
        compiled = core.compile_model(core.read_model(path), "CPU", settings)
        self._requests = [compiled.create_infer_request() for _ in range(self.lanes)]
        outputs = {
            name: tuple(size.get_length() if size.is_static else None for size in port.partial_shape)
            for port in compiled.outputs
            for name in port.names
        }
        return [port.any_name for port in compiled.inputs], outputs

    def _compute(self, feed: dict[str, NDArray[np.int64]], lane: int) -> NDArray[np.float32]:
        if OpenVINOEngine._used:
            return self._inferred(feed, lane)
        with _first_use:
            values = self._inferred(feed, lane)
        OpenVINOEngine._used = True
        return values

    def _inferred(self, feed: dict[str, NDArray[np.int64]], lane: int) -> NDArray[np.float32]:
        request = self._requests[lane]
        request.infer(feed, share_inputs=True)
        values: NDArray[np.float32] = request.get_tensor(self._output).data.copy()  # the next batch overwrites it
        return values


def native_bfloat16() -> bool:
    """Whether this machine's CPU computes in bfloat16 by itself, as OpenVINO and the processor tell.

    Raises:
        MissingDependencyError: If OpenVINO is not installed.
    """
    require("bfloat16 on a CPU", "openvino", "openvino")
    if lacks_bfloat16():
        return False
    openvino = import_openvino()
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
