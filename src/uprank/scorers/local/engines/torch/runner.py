"""Cross-encoders of sentence-transformers for the scheduler: one replica a lane."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from uprank.errors import ConfigurationError
from uprank.scorers.local.batching import default_token_budget, release_memory
from uprank.scorers.local.engines.base import Tokens
from uprank.scorers.local.engines.cores import usable_cores
from uprank.scorers.local.engines.torch.devices import share_threads
from uprank.scorers.local.engines.torch.logits import Logits
from uprank.scorers.local.engines.torch.packed import PackedModel, packed_model
from uprank.scorers.local.engines.torch.padded import padded_logits
from uprank.scorers.local.jobs import Row, Runner

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder

    from uprank.scorers.local.pairs import ModelInputs

__all__ = ["PairLogits", "TorchPairRunner"]

logger = logging.getLogger("uprank")

PairLogits: TypeAlias = "Logits | NDArray[np.float32]"
"""Logits of a batch: perhaps still on their way, or arrived."""

_PACKED_CPU_BUDGET = 4_096  # without padding to save on, larger batches only get cheaper


class TorchPairRunner(Runner[Tokens, PairLogits]):
    """Runs pairs on one or several replicas of a cross-encoder, without padding where that is possible.

    BERT, RoBERTa, XLM-RoBERTa and ModernBERT classifiers run on packed sequences; any other model
    runs padded, through its own forward. On CUDA, :meth:`run` returns before the device is done and
    nothing in it waits for the device; :meth:`part` waits. A row's ``group`` holds what the model's
    forward needs beside token ids, as pairs of name and value.

    One packed model on a CPU runs a batch on each core, with one thread of torch: that keeps the cores
    busier than a team of threads on every product of a batch, and all share the weights.

    Args:
        models: At least one, alike, in evaluation mode; the first runs the batches of lane 0, and so on.
            The same model may be given several times, for several threads on one device.
        token_budget: The most tokens in a batch; by default 65,536, on a CPU 4,096 packed and 1,024
            padded. Always 1, so one row at a time, where a padded model has no padding token.
        packed: Whether sequences are packed; ``None`` for where it is faster: on a CPU, and on CUDA
            in half precision with a kernel for sequences of unequal length.
        compile: Compile what is done to each token alone with ``torch.compile``, on the first batch.
            Where there is no compiler, a warning says so and the model runs uncompiled. Padded
            models are not compiled.

    Raises:
        ConfigurationError: If ``packed=True`` and the model cannot be packed.

    Attributes:
        packed: Whether sequences are packed.
    """

    def __init__(
        self,
        models: Sequence[CrossEncoder],
        *,
        token_budget: int | None = None,
        packed: bool | None = None,
        compile: bool = False,
    ) -> None:
        import torch

        device_type = models[0].device.type
        self._threads = torch.get_num_threads()
        cores = min(self._threads, usable_cores())  # torch knows no quota, we not what it was told to use
        self._models = list(models)
        self._packed = self._prepared(packed=packed, compile=compile)
        self.packed = bool(self._packed)
        self.padded = not self.packed
        # Compiled loops keep the number of threads that they were compiled for.
        if self.packed and device_type == "cpu" and len(models) == 1 and not compile:
            self._models *= cores
            self._packed *= cores
        self.lanes = len(self._models)
        self._share = max(1, cores // self.lanes)
        self.ahead = device_type == "cuda"
        if compile and not self._packed:
            logger.warning("compile=True has no effect: batches of this model are padded")
        if not self._packed and models[0].tokenizer.pad_token_id is None:
            self.token_budget = 1
        else:
            own = _PACKED_CPU_BUDGET if self._packed and device_type == "cpu" else default_token_budget(device_type)
            self.token_budget = token_budget or own

    def __repr__(self) -> str:
        kind, how = str(self._models[0].dtype).removeprefix("torch."), "packed" if self.packed else "padded"
        return f"torch in {kind} on {self._models[0].device}, {how}, {self.lanes} at once"

    def run(self, rows: Sequence[Row[Tokens]], lane: int) -> PairLogits:
        import torch

        tokens = [row.payload for row in rows]
        model = self._models[lane]
        if self.lanes > 1 and model.device.type == "cpu":
            share_threads(self._share, self._threads)
        with torch.inference_mode(), _current(model.device):
            if self._packed:
                return self._packed[lane].logits(tokens)
            return padded_logits(model, tokens, dict(cast("ModelInputs", rows[0].group or ())))

    def part(self, output: PairLogits, positions: Sequence[int]) -> NDArray[np.float32]:
        return np.asarray(output, dtype=np.float32)[list(positions)]

    def release_memory(self) -> None:
        release_memory()

    def _prepared(self, *, packed: bool | None, compile: bool) -> list[PackedModel]:
        """One packed model a lane, or none at all."""
        if packed is False:
            return []
        ready: dict[int, PackedModel] = {}
        for model in self._models:
            if id(model) in ready:
                continue
            one = packed_model(model, compile=compile, fast=packed is None)
            if isinstance(one, str):
                if packed:
                    raise ConfigurationError(f"packed=True is not possible for this model: {one}.")
                logger.debug("Batches are padded: %s", one)
                return []
            ready[id(model)] = one
        return [ready[id(model)] for model in self._models]


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Work on this device, where there may be several of its kind."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
