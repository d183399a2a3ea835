"""Cross-encoders: query and document read together by one model.

Nogueira and Cho, "Passage Re-ranking with BERT", 2019 (arXiv 1901.04085). Causal models that answer
yes or no are read by the difference of the two logits, as sentence-transformers' ``LogitScore`` does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from uprank.errors import ModelLoadError
from uprank.extras import installed, require
from uprank.scorers.base import ScoreRequest
from uprank.scorers.local.batching import valid_token_budget
from uprank.scorers.local.engines.base import EngineName
from uprank.scorers.local.engines.choice import (
    Exported,
    choose_engine,
    choose_precision,
    valid_combination,
    valid_engine,
)
from uprank.scorers.local.loading import (
    Checkpoint,
    DType,
    LongQuery,
    check_present,
    device_for,
    valid_devices,
    valid_long_query,
    valid_max_length,
)
from uprank.scorers.local.scheduler import MAX_QUEUE
from uprank.scorers.local.worker import LocalScorer

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

    from uprank.scorers.local.files import ModelFiles
    from uprank.scorers.local.lanes import AnyRunner
    from uprank.scorers.local.pairs import PairEncoder
    from uprank.scorers.local.tasks import AnyJob


__all__ = ["CrossEncoderScorer"]

logger = logging.getLogger("uprank")


class CrossEncoderScorer(LocalScorer):
    """Scores with a classifier of one label, or any ``CrossEncoder`` of sentence-transformers.

    The model is loaded once, on first use. Pairs are tokenised once, sorted by token count across
    all calls that are under way, and packed into batches of like length. Only documents are cut to
    fit the window, never the query. Scores are the model's logits in fp32; a model that ends in a
    sigmoid has its probabilities reported. No other activation is applied.

    Args:
        model: A Hugging Face repository or a local folder.
        engine: ``"openvino"``, ``"onnx"`` (ONNX Runtime) or ``"torch"``; by default the fastest that is
            installed and knows the model: on a CPU in this order, elsewhere torch. The first two read
            classifiers of the BERT, RoBERTa and ModernBERT families, without torch.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, …, by default the best there is; or several,
            each of which gets a copy of the model.
        dtype: What is computed in: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"int8"`` (not torch).
            ``"auto"`` is half precision where the device computes that natively, else float32.
        compile: Compile the model with torch, which takes up to a minute on first use.
        max_length: The window in tokens, for query and document together; by default the model's own.
        revision: A branch, tag or commit of the repository.
        token_budget: The most tokens in one batch, padding counted; by default what the engine is
            fastest with. Halved for the rest of a call where memory runs out.
        max_wait_ms: How long an idle model waits for more calls to share a batch with, in milliseconds;
            by default 0 on a CPU, where small batches are as fast, and 2 on CUDA.
        max_queue: The most calls that may wait; one more raises ``OverloadedError``.
        long_query: A query of more than half the window is an ``"error"``, or is cut to that with a
            warning: ``"truncate"``.
        trust_remote_code: Run Python code from the model's repository. Only for code you have read.
        local_files_only: Use what is on disk, ask no hub.
        token: A Hugging Face access token for private or gated models.
        progress: Show a tqdm bar over the pairs of a call.

    Raises:
        ConfigurationError: If an option is out of range, or two do not go together.
        MissingDependencyError: If the packages of the engine are not installed.
    """

    _loaded_parts = ("_pairs",)
    accepts_instruction = True  # whether this very model does is known once it is loaded

    def __init__(
        self,
        model: str,
        *,
        engine: EngineName = "auto",
        device: str | Sequence[str] | None = None,
        dtype: DType = "auto",
        compile: bool = False,
        max_length: int | None = None,
        revision: str | None = None,
        token_budget: int | None = None,
        max_wait_ms: float | None = None,
        max_queue: int = MAX_QUEUE,
        long_query: LongQuery = "error",
        trust_remote_code: bool = False,
        local_files_only: bool = False,
        token: str | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(f"cross-encoder:{model}", max_wait_ms=max_wait_ms, max_queue=max_queue)
        self._engine = valid_engine(engine, dtype)
        self._devices = valid_devices(device)
        valid_combination(engine, dtype, self._devices, compile=compile)
        self._checkpoint = Checkpoint(model, None, dtype, revision, trust_remote_code, local_files_only, token=token)
        self.revision = revision
        self._compile = compile
        self._max_length = self.document_window = valid_max_length(max_length, name=self.name)
        self._token_budget = valid_token_budget(token_budget)
        self._long_query = valid_long_query(long_query)
        self._progress = progress
        self._pairs: PairEncoder | None = None
        self._on_torch = False  # whether it had to, though another engine was chosen
        self._require()

    def _require(self) -> None:
        """Check that something is installed that could run the model."""
        if self._engine in ("onnx", "openvino"):
            choose_engine(self._engine, self._checkpoint.dtype, "cpu", lambda: None, name=self.name)
        elif self._engine == "torch" or not (installed("openvino") or installed("onnxruntime")):
            require(f'model "{self.name}"', "local", "torch", "sentence_transformers")

    def _job(self, requests: Sequence[ScoreRequest]) -> AnyJob:
        from uprank.scorers.local.pair_job import PairJob

        assert self._pairs is not None  # noqa: S101 - the scheduler loads the runner first
        return PairJob(requests, self._pairs, self.score_kind or "logit", name=self.name, progress=self._progress)

    def _load_runner(self) -> AnyRunner:
        devices = self._devices or (device_for(None, self._engine, self._checkpoint.dtype),)
        found: list[ModelFiles] = []

        def unsupported() -> str | None:
            found.append(self._files())
            return self._not_exported(found[0])

        device_type = devices[0].partition(":")[0]
        engine = choose_engine(self._engine, self._checkpoint.dtype, device_type, unsupported, name=self.name)
        if engine == "torch":
            return self._load_torch(devices)
        try:
            return self._load_exported(engine, found[0])
        except ModelLoadError as error:
            chosen = self._engine != "auto" or self._checkpoint.dtype == "int8"
            if chosen or not (installed("torch") and installed("sentence_transformers")):
                raise
            logger.info("%s runs on torch: %s", self.name, error)
            self._on_torch = True
            return self._load_torch(devices)

    def _files(self) -> ModelFiles:
        from uprank.scorers.local.files import ModelFiles

        checkpoint = self._checkpoint
        try:
            return ModelFiles.find(
                checkpoint.source,
                revision=checkpoint.revision,
                token=checkpoint.token,
                local_files_only=checkpoint.local_files_only,
            )
        except ModelLoadError as error:
            raise ModelLoadError(f"{self.name} could not be loaded: {error}") from error

    def _not_exported(self, files: ModelFiles) -> str | None:
        from uprank.scorers.local.engines.exported import unsupported
        from uprank.scorers.local.pair_files import not_plain

        if self._compile:
            return "compile=True is for torch"
        if self._devices is not None and len(self._devices) > 1:
            return "several devices are for torch"
        return not_plain(files, trust_remote_code=self._checkpoint.trust_remote_code) or unsupported(files, "logits")

    def _load_exported(self, engine: Exported, files: ModelFiles) -> AnyRunner:
        from uprank.scorers.local.engines.exported import load_exported
        from uprank.scorers.local.pair_files import FilePairEncoder, PairSettings, token_types
        from uprank.scorers.local.pair_job import EnginePairRunner
        from uprank.scorers.local.tokenizing import FastTokenizer

        settings = PairSettings.read(files)
        tokenizer = FastTokenizer.from_folder(files.encoder, types=bool(token_types(files)), name=self.name)
        self._pairs = FilePairEncoder(
            tokenizer, settings, name=self.name, max_length=self._max_length, long_query=self._long_query
        )
        precision = choose_precision(engine, self._checkpoint.dtype)
        loaded = load_exported(files, engine=engine, precision=precision, output="logits", name=self.name)
        self.score_kind, self.document_window = settings.score_kind, self._pairs.window
        return EnginePairRunner(loaded, self._token_budget)

    def _load_torch(self, devices: Sequence[str]) -> AnyRunner:
        require(f'model "{self.name}"', "local", "torch", "sentence_transformers")
        from torch import nn

        from uprank.scorers.local.engines.torch import TorchPairRunner
        from uprank.scorers.local.sentence_pairs import SentencePairEncoder

        for device in devices:
            check_present(device)
        models = [self._load_model(device) for device in devices]
        self._pairs = SentencePairEncoder(
            models[0], name=self.name, max_length=self._max_length, long_query=self._long_query
        )
        # The activation is not applied here: the pipeline does, once, after sorting by the logits.
        self.score_kind = "probability" if isinstance(models[0].activation_fn, nn.Sigmoid) else "logit"
        self.document_window = self._pairs.window
        return TorchPairRunner(models, token_budget=self._token_budget, compile=self._compile)

    def _load_model(self, device: str) -> CrossEncoder:
        from sentence_transformers import CrossEncoder

        try:
            model: CrossEncoder = replace(self._checkpoint, device=device).load(CrossEncoder)
        except Exception as error:
            raise ModelLoadError(f"{self.name} could not be loaded: {error}") from error
        self._refuse_random_scores(model)
        if model.num_labels != 1:
            raise ModelLoadError(
                f"{self.name} classifies into {model.num_labels} labels; a reranker gives one score a pair. "
                "Choose a model with one label."
            )
        model.eval()
        return model

    def _refuse_random_scores(self, model: CrossEncoder) -> None:
        """Refuse a checkpoint that has no head for this task: a new head of random weights would score."""
        from uprank.scorers.local.sentence_pairs import is_bare_classifier

        architectures: list[str] = getattr(model.config, "architectures", None) or []
        if not is_bare_classifier(model) or not architectures:
            return
        if any(name.endswith("ForSequenceClassification") for name in architectures):
            return
        if "AutoModelForSequenceClassification" in (getattr(model.config, "auto_map", None) or {}):
            return  # of a class in the model's own repository
        found = f"{self.name} ({', '.join(architectures)})"
        if any(name.endswith("ForCausalLM") for name in architectures):
            raise ModelLoadError(f"{found} is a causal model: sentence-transformers reads it from 5.4 on. Upgrade it.")
        raise ModelLoadError(
            f"{found} has no trained classification head, so its scores would be random. A bi-encoder is named with "
            "embedding: or late-interaction:."
        )

    def identity(self) -> Mapping[str, object]:
        from uprank.scorers.local.identity import computation, content

        files = self._files()
        device = self._devices[0] if self._devices else None
        return {
            "scheme": "cross-encoder",
            **content(files),
            **computation(
                "torch" if self._on_torch else self._engine,
                self._checkpoint.dtype,
                device,
                lambda: self._not_exported(files),
                name=self.name,
            ),
            "compile": self._compile,
            "max_length": self._max_length,
            "long_query": self._long_query,
        }

    def exact(self) -> CrossEncoderScorer:
        return self._twin(_checkpoint=replace(self._checkpoint, dtype="float32"), _compile=False, _progress=False)

    def _unload(self) -> None:
        self._pairs = None
