"""Bi-encoders: one vector for the query, one for each document, compared by their cosine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from uprank.extras import require
from uprank.scorers.local.engines.choice import valid_engine
from uprank.scorers.local.loading import Checkpoint, DType, LongQuery, valid_max_length
from uprank.scorers.local.scheduler import MAX_QUEUE
from uprank.scorers.local.vector_scorer import VectorScorer
from uprank.scorers.local.vectors.loading import model_digest, model_files
from uprank.scorers.local.vectors.options import STORE_MEMORY, StoreOptions

if TYPE_CHECKING:
    from uprank.scorers.local.encoders import AnyEncoder
    from uprank.scorers.local.vectors.options import Store, StoreDType

__all__ = ["EmbeddingScorer"]


class EmbeddingScorer(VectorScorer):
    """Scores by the cosine of two embeddings, from any ``SentenceTransformer``; a cheap first stage.

    The model's own prompts for queries and documents apply. A zero vector has the cosine 0.

    Args:
        model: A Hugging Face repository or a local folder.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, …; by default the best there is.
        dtype: Of the weights; ``"auto"`` is float32 on a CPU, half precision on CUDA, else the checkpoint's own.
            Vectors are compared in float32.
        max_length: The window in tokens; by default the model's own. Text beyond it is not read, and
            a warning says for how many documents.
        revision: A branch, tag or commit of the repository.
        store: Where documents' vectors are kept, so that a document seen before is not read again:
            ``True`` in memory, a folder there as well, ``False`` nowhere. Texts are not stored.
        store_dtype: What is kept: ``"float32"``, ``"float16"`` or ``"int8"``; ``"auto"`` is float32 in memory
            alone, float16 with a folder. Scores are those of vectors so rounded, from the first call on.
        store_memory: The most megabytes of vectors kept in memory; what was not used for longest goes.
        token_budget: The most tokens in one batch, padding counted; by default 1,024 on a CPU and
            65,536 elsewhere. Halved for the rest of a call where memory runs out.
        max_wait_ms: How long an idle model waits for more calls to share a batch with, in milliseconds;
            by default 0 on a CPU, where small batches are as fast, and 2 on a GPU.
        max_queue: The most calls that may wait; one more raises ``OverloadedError``.
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
        store: Store = True,
        store_dtype: StoreDType | Literal["auto"] = "auto",
        store_memory: float = STORE_MEMORY,
        token_budget: int | None = None,
        max_wait_ms: float | None = None,
        max_queue: int = MAX_QUEUE,
        long_query: LongQuery = "error",
        trust_remote_code: bool = False,
        local_files_only: bool = False,
        token: str | None = None,
        progress: bool = False,
    ) -> None:
        kept = StoreOptions(store, store_dtype, store_memory)
        super().__init__(
            f"embedding:{model}",
            store=kept,
            token_budget=token_budget,
            max_wait_ms=max_wait_ms,
            max_queue=max_queue,
            long_query=long_query,
            progress=progress,
        )
        require(f'model "{self.name}"', "local", "torch", "sentence_transformers")
        self._checkpoint = Checkpoint(model, device, dtype, revision, trust_remote_code, local_files_only, token=token)
        self.revision = revision
        valid_engine("torch", dtype)
        self._max_length = self.document_window = valid_max_length(max_length, name=self.name)

    def _load(self) -> AnyEncoder:
        from sentence_transformers import SentenceTransformer

        from uprank.scorers.local.sentence_encoders import SingleVectorTextEncoder

        model = self._checkpoint.load(SentenceTransformer)
        return SingleVectorTextEncoder(model.eval(), self._max_length, name=self.name)

    def exact(self) -> EmbeddingScorer:
        return self._unstored(_checkpoint=replace(self._checkpoint, dtype="float32"))

    def identity(self) -> Mapping[str, object]:
        from uprank.scorers.local.identity import computation, content

        asked = self._checkpoint
        return {
            "scheme": "embedding",
            **content(model_files(asked)),
            **computation("torch", asked.dtype, asked.device, name=self.name),
            "max_length": self._max_length,
            **self._kept_as(),
        }

    def _digest(self) -> str:
        return model_digest(model_files(self._checkpoint))
