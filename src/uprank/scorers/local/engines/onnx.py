"""ONNX Runtime, on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uprank.extras import require
from uprank.scorers.local.engines.cores import usable_cores
from uprank.scorers.local.engines.graph import GraphEngine, Shape
from uprank.scorers.local.engines.quiet import import_onnxruntime

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["OnnxEngine"]

_ERRORS_ONLY = 3


class OnnxEngine(GraphEngine):
    """Runs a graph with ONNX Runtime: one session, called by several threads at once."""

    name = "onnx"
    _session: InferenceSession

    def _load(self, path: Path) -> tuple[Sequence[str], Mapping[str, Shape]]:
        require(f'engine="onnx" for {self._model}', "onnx", "onnxruntime")
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, usable_cores() // self.lanes)
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.enable_mem_pattern = False  # it would keep a plan for every shape of a batch
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait sleep
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        outputs = {
            port.name: tuple(size if isinstance(size, int) else None for size in port.shape)
            for port in self._session.get_outputs()
        }
        return [port.name for port in self._session.get_inputs()], outputs

    def _compute(self, feed: dict[str, NDArray[np.int64]], lane: int) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self._session.run([self._output], feed)[0]
        return values
