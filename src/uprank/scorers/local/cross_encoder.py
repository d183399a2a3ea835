"""Cross-encoders: query and document read together by one model, through sentence-transformers.

Nogueira and Cho, "Passage Re-ranking with BERT", 2019 (arXiv 1901.04085). Causal models that answer
yes or no are read by the difference of the two logits, as sentence-transformers' ``LogitScore`` does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from uprank.errors import ModelLoadError
from uprank.extras import require
from uprank.scorers.base import Outcome, ScoreRequest, Scores, Usage
from uprank.scorers.local.batching import default_token_budget, release_memory, run_batches, valid_token_budget
from uprank.scorers.local.loading import (
    Checkpoint,
    DType,
    LongQuery,
    valid_long_query,
    valid_max_length,
)
from uprank.scorers.local.worker import LocalScorer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from sentence_transformers import CrossEncoder

    from uprank.scorers.local.pairs import EncodedPairs, PairEncoder, TokenIds

__all__ = ["CrossEncoderScorer"]


class CrossEncoderScorer(LocalScorer):
    """Scores with any ``CrossEncoder`` of sentence-transformers, loaded once, on first use.

    Pairs are tokenised once, sorted by token count across all queries of a call, and packed into
    batches of like length. Only documents are cut to fit the window, never the query. Scores are
    the model's logits in fp32; a model that ends in a sigmoid has its probabilities reported. No
    other activation is applied.

    Args:
        model: A Hugging Face repository or a local folder.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, …; by default the best there is.
        dtype: Of the weights; ``"auto"`` is float32 on a CPU, else the checkpoint's own.
        max_length: The window in tokens, for query and document together; by default the model's own.
        revision: A branch, tag or commit of the repository.
        token_budget: The most tokens in one batch, padding counted; by default 1,024 on a CPU and
            65,536 elsewhere. Halved for the rest of a call where memory runs out.
        long_query: A query of more than half the window is an ``"error"``, or is cut to that with a
            warning: ``"truncate"``.
        trust_remote_code: Run Python code from the model's repository. Only for code you have read.
        local_files_only: Use what is on disk, ask no hub.
        token: A Hugging Face access token for private or gated models.
        progress: Show a tqdm bar over the pairs of a call.

    Raises:
        ConfigurationError: If an option is out of range.
        MissingDependencyError: If torch or sentence-transformers is not installed.
    """

    _loaded_parts = ("_model", "_pairs")
    accepts_instruction = True  # whether this very model does is known once it is loaded

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
        super().__init__(f"cross-encoder:{model}")
        require(f'model "{self.name}"', "local", "torch", "sentence_transformers")
        self._checkpoint = Checkpoint(model, device, dtype, revision, trust_remote_code, local_files_only, token=token)
        self._max_length = valid_max_length(max_length, name=self.name)
        self._token_budget = valid_token_budget(token_budget)
        self._long_query = valid_long_query(long_query)
        self._progress = progress
        self._model: CrossEncoder | None = None
        self._pairs: PairEncoder | None = None

    def _score_batch(self, requests: Sequence[ScoreRequest], abandoned: threading.Event) -> list[Outcome]:
        model, pairs = self._loaded()
        encoded: list[EncodedPairs | Exception] = []
        for request in requests:
            try:
                encoded.append(pairs.encode(request.query, request.texts, request.instruction))
            except Exception as error:  # this request's own fault: the others are scored
                encoded.append(error)
        ready = [pairs_of_one for pairs_of_one in encoded if not isinstance(pairs_of_one, Exception)]
        logits = iter(self._logits(model, ready, abandoned))
        return [one if isinstance(one, Exception) else self._scores(one, next(logits)) for one in encoded]

    def _logits(
        self, model: CrossEncoder, requests: Sequence[EncodedPairs], abandoned: threading.Event
    ) -> list[NDArray[np.float32]]:
        """The logits of each request, all pairs of all requests sorted and batched together."""
        import numpy as np
        from tqdm.auto import tqdm

        ids = [row for request in requests for row in request.input_ids]
        types = [row for request in requests for row in request.token_type_ids]
        model_inputs = requests[0].model_inputs if requests else {}  # alike: one call has one instruction

        def forward(batch: list[int]) -> NDArray[np.float32]:
            return _forward(model, [ids[i] for i in batch], [types[i] for i in batch] if types else [], model_inputs)

        budget = self._token_budget or default_token_budget(model.device.type)
        if model.tokenizer.pad_token_id is None:
            budget = 1  # nothing to pad with: one pair at a time
        logits = np.empty(len(ids), dtype=np.float32)
        with tqdm(total=len(ids), desc=self.name, unit="pair", disable=not self._progress) as bar:
            lengths = [len(row) for row in ids]
            for batch, values in run_batches(lengths, budget, forward, name=self.name, abandoned=abandoned):
                logits[batch] = values
                bar.update(len(batch))
        ends = np.cumsum([len(request.input_ids) for request in requests])
        return np.split(logits, ends[:-1])

    def _scores(self, request: EncodedPairs, logits: NDArray[np.float32]) -> Scores:
        return Scores(
            values=logits.tolist(),
            kind="logit",
            native="probability" if self.score_kind == "probability" else None,
            usage=Usage(tokens=sum(map(len, request.input_ids))),
            warnings=request.warnings,
        )

    def _loaded(self) -> tuple[CrossEncoder, PairEncoder]:
        if self._model is None or self._pairs is None:
            from torch import nn

            from uprank.scorers.local.pairs import PairEncoder

            model = self._load()
            pairs = PairEncoder(model, name=self.name, max_length=self._max_length, long_query=self._long_query)
            # The activation is not applied here: the pipeline does, once, after sorting by the logits.
            self.score_kind = "probability" if isinstance(model.activation_fn, nn.Sigmoid) else "logit"
            self._model, self._pairs = model, pairs
        return self._model, self._pairs

    def _load(self) -> CrossEncoder:
        from sentence_transformers import CrossEncoder

        try:
            model: CrossEncoder = self._checkpoint.load(CrossEncoder)
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
        from uprank.scorers.local.pairs import is_bare_classifier

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

    def _unload(self) -> None:
        self._model = self._pairs = None
        release_memory()


def _forward(
    model: CrossEncoder,
    input_ids: Sequence[TokenIds],
    token_type_ids: Sequence[TokenIds],
    model_inputs: dict[str, object],
) -> NDArray[np.float32]:
    """One forward pass over pairs of like length; fp32 logits, whatever the weights' type."""
    import torch

    from uprank.scorers.local.pairs import modular

    features: dict[str, object] = {**model_inputs, **_padded(model, input_ids, token_type_ids)}
    with torch.inference_mode():
        logits = model(features)["scores"] if modular(model) else model(**features).logits
    values: NDArray[np.float32] = logits.float().reshape(-1).cpu().numpy()
    return values


def _padded(
    model: CrossEncoder, input_ids: Sequence[TokenIds], token_type_ids: Sequence[TokenIds]
) -> dict[str, torch.Tensor]:
    import numpy as np
    import torch

    from uprank.scorers.local.pairs import is_causal

    tokenizer = model.tokenizer
    left = is_causal(model)  # those read the last position; an encoder reads the first, whatever its tokenizer says
    width = max(map(len, input_ids))

    def stack(rows: Sequence[TokenIds], padding: int) -> torch.Tensor:
        block = np.full((len(rows), width), padding, dtype=np.int64)
        for line, row in zip(block, rows, strict=True):
            line[slice(width - len(row), width) if left else slice(len(row))] = row
        return torch.from_numpy(block).to(model.device)

    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    features = {
        "input_ids": stack(input_ids, padding),
        "attention_mask": stack([np.ones(len(row), dtype=np.int32) for row in input_ids], 0),
    }
    if token_type_ids:
        features["token_type_ids"] = stack(token_type_ids, tokenizer.pad_token_type_id)
    return features
