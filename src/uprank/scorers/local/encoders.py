"""Texts as vectors: one for each token (late interaction), or one for the whole text.

A :class:`TextEncoder` tokenises texts first, so that they can be batched by length, and encodes a
batch of them when asked. All vectors are of unit length, in float32, on the model's device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from uprank.errors import ModelLoadError
from uprank.scorers.local.batching import beginnings, chunks
from uprank.scorers.local.loading import position_limit, smallest_limit, valid_max_length

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    SentenceModel: TypeAlias = "SentenceTransformer | MultiVectorEncoder"

__all__ = [
    "MultiVectorTextEncoder",
    "SingleVectorTextEncoder",
    "TextEncoder",
    "TokenisedTexts",
    "TransformerTextEncoder",
    "Vectors",
]

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # as sentence-transformers looks them up


class Vectors(NamedTuple):
    """The vectors of a batch of texts.

    Attributes:
        values: Of shape (texts, tokens, dimensions).
        scored: Of shape (texts, tokens); false for padding and for tokens that are not scored.
    """

    values: Tensor
    scored: Tensor

    def choose(self, rows: list[int]) -> Vectors:
        """Return those of some of the texts."""
        return Vectors(self.values[rows], self.scored[rows])


@dataclass(frozen=True, slots=True)
class TokenisedTexts:
    """Texts ready to be encoded.

    Args:
        lengths: Tokens of each, special tokens included, cut at the window.
        encode: Takes indices into ``lengths``, returns the vectors of those texts.
    """

    lengths: list[int]
    encode: Callable[[Sequence[int]], Vectors]


class TextEncoder(ABC):
    """A loaded model.

    Attributes:
        device_type: ``"cpu"``, ``"cuda"``, …
        query_window: The most tokens read of a query; ``None`` where there is no limit.
        document_window: Likewise of a document.
    """

    device_type: str
    query_window: int | None
    document_window: int | None

    @abstractmethod
    def query_length(self, query: str) -> int:
        """Tokens of a query, special tokens and prompt included, uncut."""

    @abstractmethod
    def queries(self, texts: Sequence[str]) -> TokenisedTexts:
        """Tokenise queries."""

    @abstractmethod
    def documents(self, texts: Sequence[str]) -> TokenisedTexts:
        """Tokenise documents."""


class TransformerTextEncoder(TextEncoder):
    """A vector for each token: the last hidden state of a plain transformer, special tokens not scored.

    Args:
        model: In evaluation mode.
        tokenizer: Its tokenizer.
        max_length: The window in tokens; by default the model's own.
        name: Names the model in errors.

    Raises:
        ConfigurationError: If ``max_length`` is more than the model has positions for.
    """

    def __init__(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int | None, *, name: str
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        positions = position_limit(model)
        own = smallest_limit(tokenizer.model_max_length, positions)
        window = valid_max_length(max_length, positions=positions, name=name) or own
        self.query_window = self.document_window = window
        self._device = next(model.parameters()).device
        self.device_type = self._device.type

    def query_length(self, query: str) -> int:
        return len(self._tokenizer(query, verbose=False)["input_ids"])

    def queries(self, texts: Sequence[str]) -> TokenisedTexts:
        return self.documents(texts)

    def documents(self, texts: Sequence[str]) -> TokenisedTexts:
        ids: list[NDArray[np.int32]] = []
        scored: list[NDArray[np.bool_]] = []
        for chunk in chunks(beginnings(texts, self.document_window, self.query_length)):
            # Special tokens are told by where the tokenizer put them: a text may spell them out itself.
            rows = self._tokenizer(
                chunk,
                truncation=self.document_window is not None,
                max_length=self.document_window,
                return_attention_mask=False,
                return_token_type_ids=False,
                return_special_tokens_mask=True,
                verbose=False,
            )
            ids.extend(np.asarray(row, dtype=np.int32) for row in rows["input_ids"])
            scored.extend(~np.asarray(row, dtype=np.bool_) for row in rows["special_tokens_mask"])
        return TokenisedTexts(
            [len(row) for row in ids],
            lambda batch: self._encode([ids[index] for index in batch], [scored[index] for index in batch]),
        )

    def _encode(self, ids: list[NDArray[np.int32]], scored: list[NDArray[np.bool_]]) -> Vectors:
        import torch
        from torch.nn.functional import normalize

        width = max(1, *map(len, ids))
        input_ids = np.full((len(ids), width), self._tokenizer.pad_token_id or 0, dtype=np.int64)
        attention = np.zeros((len(ids), width), dtype=np.int64)
        counts = np.zeros((len(ids), width), dtype=np.bool_)
        for row, (tokens, flags) in enumerate(zip(ids, scored, strict=True)):
            input_ids[row, : len(tokens)] = tokens
            attention[row, : len(tokens)] = 1
            counts[row, : len(tokens)] = flags
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.from_numpy(input_ids).to(self._device),
                attention_mask=torch.from_numpy(attention).to(self._device),
            )
            values = normalize(output.last_hidden_state.float(), dim=-1)
            return Vectors(values, torch.from_numpy(counts).to(self._device))


class _SentenceTextEncoder(TextEncoder):
    """A model of sentence-transformers: it tokenises, prompts, masks and projects in its own way.

    Its ``encode`` methods tokenise again, which costs little beside the model; the lengths taken
    here serve batching and warnings.
    """

    def __init__(self, model: SentenceModel) -> None:
        from transformers import PreTrainedTokenizerBase

        tokenizer = model.tokenizer
        self._tokenizer = tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else None
        self.device_type = model.device.type
        prompts = model.prompts or {}
        default = prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        self._query_prompt: str = prompts.get("query", default) or ""
        self._document_prompt: str = next((prompts[key] for key in _DOCUMENT_PROMPTS if key in prompts), default) or ""
        # A bare string that looks like the address of an image would be fetched by a model that sees.
        self._several_modalities = bool({"image", "audio", "video"} & set(getattr(model, "modalities", ())))

    def query_length(self, query: str) -> int:
        return self._count([self._query_prompt + query], None)[0]

    def queries(self, texts: Sequence[str]) -> TokenisedTexts:
        lengths = self._count([self._query_prompt + text for text in texts], self.query_window)
        return TokenisedTexts(lengths, lambda batch: self._encode_queries(self._inputs(texts, batch)))

    def documents(self, texts: Sequence[str]) -> TokenisedTexts:
        texts = beginnings(texts, self.document_window, lambda text: self._count([text], None)[0])
        lengths = self._count([self._document_prompt + text for text in texts], self.document_window)
        return TokenisedTexts(lengths, lambda batch: self._encode_documents(self._inputs(texts, batch)))

    @abstractmethod
    def _encode_queries(self, inputs: list[str]) -> Vectors: ...

    @abstractmethod
    def _encode_documents(self, inputs: list[str]) -> Vectors: ...

    def _inputs(self, texts: Sequence[str], batch: Sequence[int]) -> list[str]:
        if self._several_modalities:
            return [{"text": texts[index]} for index in batch]  # type: ignore[misc]  # as those models take it
        return [texts[index] for index in batch]

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

    def _encode_queries(self, inputs: list[str]) -> Vectors:
        return _ragged(self._multi.encode_query(inputs, batch_size=len(inputs), show_progress_bar=False))

    def _encode_documents(self, inputs: list[str]) -> Vectors:
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

    def __init__(self, model: SentenceTransformer, max_length: int | None, *, name: str) -> None:
        super().__init__(model)
        self._single = model
        if valid_max_length(max_length, positions=position_limit(_backbone(model)), name=name) is not None:
            model.max_seq_length = max_length
        window = None if self._tokenizer is None else smallest_limit(model.get_max_seq_length())
        self.query_window = self.document_window = window

    def _encode_queries(self, inputs: list[str]) -> Vectors:
        count = len(inputs)
        return _single(
            self._single.encode_query(inputs, batch_size=count, show_progress_bar=False, convert_to_tensor=True)
        )

    def _encode_documents(self, inputs: list[str]) -> Vectors:
        count = len(inputs)
        return _single(
            self._single.encode_document(inputs, batch_size=count, show_progress_bar=False, convert_to_tensor=True)
        )


def _ragged(texts: Iterable[Tensor]) -> Vectors:
    """Pad what each text has; the padding is marked as not scored."""
    import torch
    from torch.nn.functional import normalize
    from torch.nn.utils.rnn import pad_sequence

    rows = list(texts)
    values = normalize(pad_sequence(rows, batch_first=True).float(), dim=-1)
    lengths = torch.tensor([len(row) for row in rows], device=values.device)
    return Vectors(values, torch.arange(values.shape[1], device=values.device) < lengths[:, None])


def _single(rows: Tensor) -> Vectors:
    import torch
    from torch.nn.functional import normalize

    values = normalize(rows.float(), dim=-1)[:, None]  # a zero vector stays zero: its cosine is 0
    return Vectors(values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device))


def _backbone(model: SentenceModel) -> nn.Module:
    inner: nn.Module = getattr(model[0], "auto_model", model[0])
    return inner
