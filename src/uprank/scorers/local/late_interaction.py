"""Late interaction: every token of the query looks for its best match among the document's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from uprank.errors import ConfigurationError, ModelLoadError
from uprank.extras import require
from uprank.scorers.local.engines.choice import Exported, choose_engine, valid_engine
from uprank.scorers.local.loading import (
    Checkpoint,
    DType,
    LongQuery,
    device_for,
    dtype_argument,
    no_progress_bars,
    pick_dtype,
    position_limit,
    smallest_limit,
    valid_max_length,
)
from uprank.scorers.local.scheduler import MAX_QUEUE
from uprank.scorers.local.vector_scorer import VectorScorer
from uprank.scorers.local.vectors.loading import exported_model, model_digest, model_files, require_engine
from uprank.scorers.local.vectors.options import STORE_MEMORY, StoreOptions

if TYPE_CHECKING:
    from uprank.scorers.local.encoders import AnyEncoder
    from uprank.scorers.local.engines.base import EngineName
    from uprank.scorers.local.files import ModelFiles
    from uprank.scorers.local.vectors.options import Store, StoreDType

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
        engine: ``"openvino"``, ``"onnx"`` (ONNX Runtime) or ``"torch"``; by default the fastest that is
            installed and knows the model: on a CPU in this order, elsewhere torch. The first two read
            plain transformers of the BERT, RoBERTa and ModernBERT families, without torch.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, …; by default the best there is that
            the engine and ``dtype`` run on.
        dtype: What is computed in: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"int8"`` (not torch).
            ``"auto"`` is half precision where the device computes that natively, else float32. Vectors
            are compared in float32.
        max_length: The window of documents in tokens; by default the model's own. Text beyond it is
            not read, and a warning says for how many documents.
        revision: A branch, tag or commit of the repository.
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
            ``"truncate"``. ColBERT models often read only 32 tokens of a query.
        trust_remote_code: Run Python code from the model's repository. Only for code you have read.
        local_files_only: Use what is on disk, ask no hub.
        token: A Hugging Face access token for private or gated models.
        progress: Show a tqdm bar over the texts of a call.

    Raises:
        ConfigurationError: If an option is out of range.
        MissingDependencyError: If the packages of the engine are not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        engine: EngineName = "auto",
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
            f"late-interaction:{model}",
            store=kept,
            token_budget=token_budget,
            max_wait_ms=max_wait_ms,
            max_queue=max_queue,
            long_query=long_query,
            progress=progress,
        )
        self._checkpoint = Checkpoint(model, device, dtype, revision, trust_remote_code, local_files_only, token=token)
        self.revision = revision
        self._engine = valid_engine(engine, dtype)
        self._max_length = self.document_window = valid_max_length(max_length, name=self.name)
        require_engine(engine, dtype, "local", "sentence_transformers", name=self.name)

    def _load(self) -> AnyEncoder:
        files = model_files(self._checkpoint)
        if _is_multi_vector(files):
            return self._load_multi_vector()
        device = device_for(self._checkpoint.device, self._engine, self._checkpoint.dtype)
        engine = choose_engine(
            self._engine,
            self._checkpoint.dtype,
            device.partition(":")[0],
            lambda: _not_exported(files),
            name=self.name,
        )
        return self._load_torch(device) if engine == "torch" else self._load_exported(files, engine)

    def _load_exported(self, files: ModelFiles, engine: Exported) -> AnyEncoder:
        from uprank.scorers.local.encoders import TransformerTextEncoder
        from uprank.scorers.local.tokenizing import FastTokenizer

        positions = files.positions
        tokenizer = FastTokenizer.from_folder(files.encoder, types=False, name=self.name)
        asked = valid_max_length(self._max_length, positions=positions, name=self.name)
        model = exported_model(files, engine, self._checkpoint.dtype, name=self.name)
        window = asked or smallest_limit(tokenizer.limit, positions)
        return TransformerTextEncoder(tokenizer, model, window, side=_truncation_side(files))

    def _load_torch(self, device: str) -> AnyEncoder:
        require(f'model "{self.name}"', "local", "torch", "transformers")
        from transformers import AutoModel, AutoTokenizer

        from uprank.scorers.local.encoders import TorchModel, TransformersTokenizer, TransformerTextEncoder

        checkpoint = self._checkpoint
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
        positions = position_limit(model)
        asked = valid_max_length(self._max_length, positions=positions, name=self.name)
        window = asked or smallest_limit(tokenizer.model_max_length, positions)
        return TransformerTextEncoder(
            TransformersTokenizer(tokenizer),
            TorchModel(model, tokenizer.pad_token_id or 0),
            window,
            side=tokenizer.truncation_side,
        )

    def _load_multi_vector(self) -> AnyEncoder:
        if self._engine in ("onnx", "openvino") or self._checkpoint.dtype == "int8":
            raise ConfigurationError(
                f'{self.name} is a multi-vector model, which runs on torch alone: leave engine="auto", '
                "and dtype other than int8."
            )
        require(f'model "{self.name}"', "local", "torch", "sentence_transformers")
        import sentence_transformers

        from uprank.scorers.local.sentence_encoders import MultiVectorTextEncoder

        if not hasattr(sentence_transformers, "MultiVectorEncoder"):
            raise ModelLoadError(
                f"{self.name} is a multi-vector model, which needs sentence-transformers 6 or later; "
                f"{sentence_transformers.__version__} is installed. "
                'Run: pip install --upgrade "sentence-transformers>=6"'
            )
        model = self._checkpoint.load(sentence_transformers.MultiVectorEncoder)
        return MultiVectorTextEncoder(model.eval(), self._max_length, name=self.name)

    def exact(self) -> LateInteractionScorer:
        return self._unstored(_checkpoint=replace(self._checkpoint, dtype="float32"))

    def identity(self) -> Mapping[str, object]:
        from uprank.scorers.local.identity import computation, content

        files, asked = model_files(self._checkpoint), self._checkpoint
        engine: EngineName = "torch" if _is_multi_vector(files) else self._engine
        return {
            "scheme": "late-interaction",
            **content(files),
            **computation(engine, asked.dtype, asked.device, lambda: _not_exported(files), name=self.name),
            "max_length": self._max_length,
            **self._kept_as(),
        }

    def _digest(self) -> str:
        return model_digest(model_files(self._checkpoint))


def _is_multi_vector(files: ModelFiles) -> bool:
    """Whether the checkpoint has a projection of its own for token vectors.

    Given any other, ``MultiVectorEncoder`` would add a random one, whose scores mean nothing.
    """
    saved = files.read("config_sentence_transformers.json")
    if isinstance(saved, dict) and (
        saved.get("model_type") in _MULTI_VECTOR_TYPES or {"query_prefix", "document_prefix"} & saved.keys()
    ):
        return True
    config = files.read("config.json")
    architectures = config.get("architectures") if isinstance(config, dict) else None
    return isinstance(architectures, list) and "HF_ColBERT" in architectures


def _not_exported(files: ModelFiles) -> str | None:
    from uprank.scorers.local.engines.exported import unsupported

    if not (files.encoder / "tokenizer.json").is_file():
        return "it has no tokenizer.json"
    if files.config.get("auto_map"):
        return "its repository brings Python code of its own"
    return unsupported(files, "vectors")


def _truncation_side(files: ModelFiles) -> str:
    path = (files.encoder / "tokenizer_config.json").relative_to(files.folder)
    saved = files.read(str(path))
    return str(saved.get("truncation_side") or "right") if isinstance(saved, dict) else "right"
