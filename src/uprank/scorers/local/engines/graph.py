"""What the engines that run an ONNX graph have in common."""

from __future__ import annotations

import ctypes
import os
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from uprank.errors import ModelLoadError
from uprank.scorers.local.engines.base import Engine, Precision, Tokens
from uprank.scorers.local.engines.cores import usable_cores
from uprank.scorers.local.engines.padding import padded

__all__ = ["GraphEngine", "Shape"]

Shape: TypeAlias = tuple[int | None, ...]
"""Of a value; ``None`` where it differs from batch to batch."""

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OUTPUTS = {"logits": 1, "last_hidden_state": 3, "token_embeddings": 3}


class _Forked:
    """What a fork has copied is never freed: a runtime that is let go waits for its threads, and there are none."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.Lock()  # another thread of the parent may have held it

    def keep(self, copied: dict[str, object]) -> None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(copied))  # to the end, when all that is referred to is freed


_forked = _Forked()


class GraphEngine(Engine):
    """Runs an ONNX graph on the CPU.

    Inputs and output are found by name, so models that others have exported run as well: those that
    give ``logits`` of shape (rows,) or (rows, 1), or ``last_hidden_state``.

    The cores are shared out evenly among the lanes. By default there is one lane a core: a batch then
    stays in its core's cache, and no core waits for the slowest of a team.

    Args:
        path: The model's file.
        precision: What its matrix products are computed in.
        padding: The token that fills rows up.
        model: Names the model in errors.
        lanes: Threads that may call at once; by default one a core.
        keep: Held as long as the engine: the owner of the file, say.

    Raises:
        MissingDependencyError: If the runtime is not installed.
        ModelLoadError: If it cannot load the model, or the model wants or gives something else.
    """

    token_budget = 640  # from 300 to 1,200 tokens speed is the same; few leave something for every lane

    def __init__(
        self,
        path: Path,
        *,
        precision: Precision = "float32",
        padding: int = 0,
        model: str,
        lanes: int | None = None,
        keep: object = None,
    ) -> None:
        self.precision = precision
        self.lanes = lanes or usable_cores()
        self._path, self._padding, self._model, self._keep = path, padding, model, keep
        self._open()

    def run(self, rows: Sequence[Tokens], lane: int) -> NDArray[np.float32]:
        if self._process != os.getpid():  # a fork copies the model, but not the runtime's threads
            with _forked.lock:
                if self._process != os.getpid():
                    _forked.keep(dict(self.__dict__))
                    self._open()
        values = self._compute(padded(rows, self._inputs, self._padding), lane)
        return values.reshape(len(rows)) if self._output == "logits" else values

    def _open(self) -> None:
        try:
            inputs, outputs = self._load(self._path)
        except ModelLoadError:
            raise
        except Exception as error:  # each runtime has errors of its own
            raise ModelLoadError(f"{self._model} could not be loaded by {type(self).__name__}: {error}") from error
        strange = [name for name in inputs if name not in _INPUTS]
        if strange or "input_ids" not in inputs:
            raise ModelLoadError(
                f"The ONNX file of {self._model} wants inputs that are not known: {', '.join(inputs)}."
            )
        self._inputs = list(inputs)
        self._output = next((name for name in _OUTPUTS if name in outputs), "")
        if not self._output or not _fits(self._output, outputs[self._output]):
            shapes = ", ".join(f"{name} {list(shape)}" for name, shape in outputs.items())
            raise ModelLoadError(
                f"The ONNX file of {self._model} gives neither one logit a row nor a vector a token, but {shapes}."
            )
        self._process = os.getpid()

    @property
    def output(self) -> str:
        """What the model gives: ``"logits"`` or ``"vectors"``."""
        return "logits" if self._output == "logits" else "vectors"

    @abstractmethod
    def _load(self, path: Path) -> tuple[Sequence[str], Mapping[str, Shape]]:
        """Load the model, also a second time; return the names of its inputs, and its outputs' shapes."""

    @abstractmethod
    def _compute(self, feed: dict[str, NDArray[np.int64]], lane: int) -> NDArray[np.float32]:
        """The output ``self._output`` of one batch, in memory of its own."""


def _fits(name: str, shape: Shape) -> bool:
    if name == "logits":
        return len(shape) == 1 or (len(shape) == 2 and shape[1] in (1, None))
    return len(shape) == _OUTPUTS[name]
