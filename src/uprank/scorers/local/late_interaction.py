"""Late interaction: every token of the query looks for its best match among the document's tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from uprank.errors import ModelLoadError
from uprank.extras import require
from uprank.scorers.local.loading import (
    Checkpoint,
    DType,
    LongQuery,
    dtype_argument,
    no_progress_bars,
    pick_device,
    pick_dtype,
    valid_max_length,
)
from uprank.scorers.local.vector_scorer import VectorScorer

if TYPE_CHECKING:
    from uprank.scorers.local.encoders import TextEncoder

__all__ = ["LateInteractionScorer"]

_MULTI_VECTOR_TYPES = ("MultiVectorEncoder", "ColBERT")  # the second as PyLate saves it


class LateInteractionScorer(VectorScorer):
    """Scores by MaxSim over token vectors: the mean over the query's tokens of their best cosine.

    A ColBERT-type model (saved by sentence-transformers, PyLate or Stanford's ColBERT) is read by
    sentence-transformers' ``MultiVectorEncoder``, with its own prompts, query expansion, projection
    and masks. Of any other transformer the last hidden states are compared as they are, padding and
    special tokens left out. A document without any token to score gets -1, the lowest score.

    Args:
        model: A Hugging Face repository or a local folder.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, …; by default the best there is.
        dtype: Of the weights; ``"auto"`` is float32 on a CPU, else the checkpoint's own. Vectors are
            compared in float32.
        max_length: The window of documents in tokens; by default the model's own. Text beyond it is
            not read, and a warning says for how many documents.
        revision: A branch, tag or commit of the repository.
        token_budget: The most tokens in one batch, padding counted; by default 1,024 on a CPU and
            65,536 elsewhere. Halved for the rest of a call where memory runs out.
        long_query: A query longer than the window is an ``"error"``, or is cut to it with a warning:
            ``"truncate"``. ColBERT models often read only 32 tokens of a query.
        trust_remote_code: Run Python code from the model's repository. Only for code you have read.
        local_files_only: Use what is on disk, ask no hub.
        token: A Hugging Face access token for private or gated models.
        progress: Show a tqdm bar over the texts of a call.

    Raises:
        ConfigurationError: If an option is out of range.
        MissingDependencyError: If torch or sentence-transformers is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str | None = None,
        dtype: DType = "auto",
        max_length: int | None = None,
        revision: str | None = None,
        token_budget: int | None = None,
        long_query: LongQuery = "error",
        trust_remote_code: bool = False,
        local_files_only: bool = False,
        token: str | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(
            f"late-interaction:{model}", token_budget=token_budget, long_query=long_query, progress=progress
        )
        require(f'model "{self.name}"', "local", "torch", "sentence_transformers")
        self._checkpoint = Checkpoint(model, device, dtype, revision, trust_remote_code, local_files_only, token=token)
        self._max_length = valid_max_length(max_length, name=self.name)

    def _load(self) -> TextEncoder:
        return self._load_multi_vector() if self._is_multi_vector() else self._load_transformer()

    def _load_transformer(self) -> TextEncoder:
        from transformers import AutoModel, AutoTokenizer

        from uprank.scorers.local.encoders import TransformerTextEncoder

        checkpoint = self._checkpoint
        device = pick_device(checkpoint.device)
        access = {
            "revision": checkpoint.revision or "main",
            "trust_remote_code": checkpoint.trust_remote_code,
            "local_files_only": checkpoint.local_files_only,
            "token": checkpoint.token,
        }
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, **access)
        dtype = {dtype_argument(): pick_dtype(checkpoint.dtype, device)}
        with no_progress_bars():
            model = AutoModel.from_pretrained(checkpoint.source, **access, **dtype).to(device).eval()
        return TransformerTextEncoder(model, tokenizer, self._max_length, name=self.name)

    def _load_multi_vector(self) -> TextEncoder:
        import sentence_transformers

        from uprank.scorers.local.encoders import MultiVectorTextEncoder

        if not hasattr(sentence_transformers, "MultiVectorEncoder"):
            raise ModelLoadError(
                f"{self.name} is a multi-vector model, which needs sentence-transformers 6 or later; "
                f"{sentence_transformers.__version__} is installed. "
                'Run: pip install --upgrade "sentence-transformers>=6"'
            )
        model = self._checkpoint.load(sentence_transformers.MultiVectorEncoder)
        return MultiVectorTextEncoder(model.eval(), self._max_length, name=self.name)

    def _is_multi_vector(self) -> bool:
        """Whether the checkpoint has a projection of its own for token vectors.

        Given any other, ``MultiVectorEncoder`` would add a random one, whose scores mean nothing.
        """
        saved = self._read_json("config_sentence_transformers.json")
        if saved.get("model_type") in _MULTI_VECTOR_TYPES or {"query_prefix", "document_prefix"} & saved.keys():
            return True
        architectures = self._read_json("config.json").get("architectures")
        return isinstance(architectures, list) and "HF_ColBERT" in architectures

    def _read_json(self, filename: str) -> dict[str, object]:
        from sentence_transformers.util import load_file_path

        checkpoint = self._checkpoint
        path = load_file_path(
            checkpoint.source,
            filename,
            token=checkpoint.token,
            revision=checkpoint.revision,
            local_files_only=checkpoint.local_files_only,
        )
        content = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        return content if isinstance(content, dict) else {}
