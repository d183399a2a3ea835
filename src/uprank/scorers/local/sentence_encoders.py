"""Texts as vectors by a model of sentence-transformers: one for each token, or one for the whole text."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from uprank.errors import ModelLoadError
from uprank.scorers.local.batching import beginnings, chunks, default_token_budget
from uprank.scorers.local.encoders import Text, TextEncoder
from uprank.scorers.local.loading import position_limit, smallest_limit, valid_max_length
from uprank.scorers.local.vectors.encoded import DeviceVectors, Encoded, HostVectors

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer
    from torch import Tensor, nn

    SentenceModel: TypeAlias = "SentenceTransformer | MultiVectorEncoder"

__all__ = ["MultiVectorTextEncoder", "SingleVectorTextEncoder"]

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # as sentence-transformers looks them up


class _SentenceTextEncoder(TextEncoder[str]):
    """A model of sentence-transformers: it tokenises, prompts, masks and projects in its own way.

    Its ``encode`` methods tokenise again, which costs little beside the model; the lengths taken
    here serve batching and warnings.
    """

    def __init__(self, model: SentenceModel) -> None:
        from transformers import PreTrainedTokenizerBase

        # A copy: the model's own is at work on another thread meanwhile, and holds settings of each call.
        tokenizer = copy.deepcopy(model.tokenizer)
        self._tokenizer = tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else None
        self.device_type = model.device.type
        self.precision = str(next((one.dtype for one in model.parameters()), "")).removeprefix("torch.")
        self.token_budget = default_token_budget(self.device_type)
        prompts = model.prompts or {}
        default = prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        self._query_prompt: str = prompts.get("query", default) or ""
        self._document_prompt: str = next((prompts[key] for key in _DOCUMENT_PROMPTS if key in prompts), default) or ""
        # A bare string that looks like the address of an image would be fetched by a model that sees.
        self._several_modalities = bool({"image", "audio", "video"} & set(getattr(model, "modalities", ())))

    def query_length(self, query: str) -> int:
        return self._count([self._query_prompt + query], None)[0]

    def queries(self, texts: Sequence[str]) -> list[Text[str]]:
        lengths = self._count([self._query_prompt + text for text in texts], self.query_window)
        return list(map(Text, lengths, texts))

    def documents(self, texts: Sequence[str]) -> list[Text[str]]:
        texts = beginnings(texts, self.document_window, lambda text: self._count([text], None)[0])
        lengths = self._count([self._document_prompt + text for text in texts], self.document_window)
        return list(map(Text, lengths, texts))

    def encode(self, payloads: Sequence[str], *, queries: bool, lane: int) -> Encoded:
        inputs = list(payloads)
        if self._several_modalities:
            inputs = [{"text": text} for text in inputs]  # type: ignore[misc]  # as those models take it
        return self._encode_queries(inputs) if queries else self._encode_documents(inputs)

    @abstractmethod
    def _encode_queries(self, inputs: list[str]) -> Encoded: ...

    @abstractmethod
    def _encode_documents(self, inputs: list[str]) -> Encoded: ...

    def _count(self, texts: Sequence[str], window: int | None) -> list[int]:
        if self._tokenizer is None:  # static embeddings and the like have tokenizers of other kinds
            return [len(text) // 4 + 1 for text in texts]
        lengths: list[int] = []
        for chunk in chunks(texts):
            rows = self._tokenizer(
                chunk,
                truncation=window is not None,
                max_length=window,
                return_attention_mask=False,
                verbose=False,
            )
            lengths.extend(map(len, rows["input_ids"]))
        return lengths


class MultiVectorTextEncoder(_SentenceTextEncoder):
    """A vector for each token, from a multi-vector (ColBERT-type) model of sentence-transformers 6 or later.

    The model's own prompts, query expansion, projection and scoring masks apply.

    Args:
        model: The loaded model.
        max_length: The window of documents in tokens; by default the model's own.
        name: Names the model in errors.

    Raises:
        ConfigurationError: If ``max_length`` is more than the model has positions for.
        ModelLoadError: If the model reads no text.
    """

    vectors = "tokens, projected"

    def __init__(self, model: MultiVectorEncoder, max_length: int | None, *, name: str) -> None:
        super().__init__(model)
        self._multi = model
        if self._tokenizer is None:
            raise ModelLoadError(f"{name} has no tokenizer for text.")
        first = model[0]
        if valid_max_length(max_length, positions=position_limit(_backbone(model)), name=name) is not None:
            if hasattr(first, "document_length"):
                setattr(first, "document_length", max_length)  # noqa: B010 - a torch module's type has no such attribute
            else:
                model.max_seq_length = max_length
        limit = smallest_limit(model.max_seq_length)
        self.document_window = getattr(first, "document_length", None) or limit
        self.query_window = getattr(first, "query_length", None) or limit
        expansion = getattr(first, "query_expansion", None)
        if expansion is not None:  # a query is filled up to this length with expansion tokens
            length: int = expansion["length"]
            fixed = expansion["strategy"] == "fixed"
            self.query_window = length if fixed or self.query_window is None else max(self.query_window, length)

    def _encode_queries(self, inputs: list[str]) -> Encoded:
        return _ragged(self._multi.encode_query(inputs, batch_size=len(inputs), show_progress_bar=False))

    def _encode_documents(self, inputs: list[str]) -> Encoded:
        return _ragged(self._multi.encode_document(inputs, batch_size=len(inputs), show_progress_bar=False))


class SingleVectorTextEncoder(_SentenceTextEncoder):
    """One vector a text, from a bi-encoder of sentence-transformers. The model's own prompts apply.

    Args:
        model: The loaded model.
        max_length: The window in tokens; by default the model's own.
        name: Names the model in errors.

    Raises:
        ConfigurationError: If ``max_length`` is more than the model has positions for.
    """

    vectors = "text"

    def __init__(self, model: SentenceTransformer, max_length: int | None, *, name: str) -> None:
        super().__init__(model)
        self._single = model
        if valid_max_length(max_length, positions=position_limit(_backbone(model)), name=name) is not None:
            model.max_seq_length = max_length
        window = None if self._tokenizer is None else smallest_limit(model.get_max_seq_length())
        self.query_window = self.document_window = window

    def _encode_queries(self, inputs: list[str]) -> Encoded:
        count = len(inputs)
        return _single(
            self._single.encode_query(inputs, batch_size=count, show_progress_bar=False, convert_to_tensor=True)
        )

    def _encode_documents(self, inputs: list[str]) -> Encoded:
        count = len(inputs)
        return _single(
            self._single.encode_document(inputs, batch_size=count, show_progress_bar=False, convert_to_tensor=True)
        )


def _ragged(texts: Iterable[Tensor]) -> Encoded:
    """Join the token vectors of all texts."""
    import torch

    rows = list(texts)
    return _unit(torch.cat(rows), [len(row) for row in rows])


def _single(rows: Tensor) -> Encoded:
    return _unit(rows, [1] * len(rows))


def _unit(values: Tensor, counts: list[int]) -> Encoded:
    from torch.nn.functional import normalize

    values = normalize(values.float(), dim=-1)  # a zero vector stays zero: its cosine is 0
    return HostVectors(values.numpy(), counts) if values.device.type == "cpu" else DeviceVectors(values, counts)


def _backbone(model: SentenceModel) -> nn.Module:
    inner: nn.Module = getattr(model[0], "auto_model", model[0])
    return inner
