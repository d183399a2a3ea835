"""Imports the runtimes without the reports that they send to their makers, unasked.

OpenVINO reports its import and conversions where the package ``openvino-telemetry`` is installed, as
it is with it. ONNX Runtime from 1.29 on reports the sessions made, with the model's file name.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from types import ModuleType

__all__ = ["import_onnxruntime", "import_openvino"]

_TELEMETRY = "openvino_telemetry"
_OFF = "ORT_DISABLE_TELEMETRY"  # read when its environment is made, which the import does
_lock = threading.Lock()


def import_openvino() -> ModuleType:
    """Import OpenVINO; its telemetry is hidden meanwhile, unless somebody has imported it before."""
    with _lock:
        hidden = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
        if hidden:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # None: an import of it fails
        try:
            return importlib.import_module("openvino")
        finally:
            if hidden:
                del sys.modules[_TELEMETRY]


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime and turn its telemetry off."""
    with _lock:
        unset = _OFF not in os.environ
        if unset:
            os.environ[_OFF] = "1"
        try:
            onnxruntime = importlib.import_module("onnxruntime")
        finally:
            if unset:
                del os.environ[_OFF]
        onnxruntime.disable_telemetry_events()  # it may have been imported before
    return onnxruntime
