"""Bi-encoders: one vector for the query, one for each document, compared by their cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uprank.extras import require
from uprank.scorers.local.loading import Checkpoint, DType, LongQuery, valid_max_length
from uprank.scorers.local.vector_scorer import VectorScorer

if TYPE_CHECKING:
    from uprank.scorers.local.encoders import TextEncoder

__all__ = ["EmbeddingScorer"]


class EmbeddingScorer(VectorScorer):
    """Scores by the cosine of two embeddings, from any ``SentenceTransformer``; a cheap first stage.

    The model's own prompts for queries and documents apply. A zero vector has the cosine 0.

    Args:
        model: A Hugging Face repository or a local folder.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, …; by default the best there is.
        dtype: Of the weights; ``"auto"`` is float32 on a CPU, else the checkpoint's own. Vectors are
            compared in float32.
        max_length: The window in tokens; by default the model's own. Text beyond it is not read, and
            a warning says for how many documents.
        revision: A branch, tag or commit of the repository.
        token_budget: The most tokens in one batch, padding counted; by default 1,024 on a CPU and
            65,536 elsewhere. Halved for the rest of a call where memory runs out.
        long_query: A query longer than the window is an ``"error"``, or is cut to it with a warning:
            ``"truncate"``.
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
        super().__init__(f"embedding:{model}", token_budget=token_budget, long_query=long_query, progress=progress)
        require(f'model "{self.name}"', "local", "torch", "sentence_transformers")
        self._checkpoint = Checkpoint(model, device, dtype, revision, trust_remote_code, local_files_only, token=token)
        self._max_length = valid_max_length(max_length, name=self.name)

    def _load(self) -> TextEncoder:
        from sentence_transformers import SentenceTransformer

        from uprank.scorers.local.encoders import SingleVectorTextEncoder

        model = self._checkpoint.load(SentenceTransformer)
        return SingleVectorTextEncoder(model.eval(), self._max_length, name=self.name)
