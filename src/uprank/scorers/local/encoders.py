"""Texts as vectors: one for each token (late interaction), or one for the whole text.

A :class:`TextEncoder` tokenises texts first, so that they can be batched by length, and encodes a
batch of them when asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.evidence import Evidence
from uprank.scorers.local.batching import beginnings, chunks, default_token_budget
from uprank.scorers.local.engines.base import Engine, Tokens
from uprank.scorers.local.engines.cores import has_vnni
from uprank.scorers.local.tokenizing import TokenisedText
from uprank.scorers.local.vectors.encoded import DeviceVectors, Encoded, HostVectors, normalised

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "AnyEncoder",
    "EngineModel",
    "Text",
    "TextEncoder",
    "TorchModel",
    "TransformerTextEncoder",
    "TransformersTokenizer",
]

Payload = TypeVar("Payload")

_CUT, _WHOLE, _UNKNOWN = Evidence(truncated=True), Evidence(truncated=False), Evidence()


class Text(NamedTuple, Generic[Payload]):
    """A text ready to be encoded.

    Attributes:
        length: Its tokens, special tokens and prompt included, cut at the window.
        payload: What the encoder takes.
        truncated: Whether the text has more; ``None`` where the encoder cannot tell.
    """

    length: int
    payload: Payload
    truncated: bool | None = None


class TextEncoder(ABC, Generic[Payload]):
    """A loaded model. Texts are tokenised by one thread at a time, and encoded by one a lane.

    Attributes:
        device_type: ``"cpu"``, ``"cuda"``, …
        precision: What vectors depend on beside the weights, e.g. ``"float32"``.
        vectors: What they are of: ``"tokens"``, ``"tokens, projected"`` or ``"text"``.
        tells_truncated: Whether it tells a text that was cut from one that just fits.
        query_window: The most tokens read of a query; ``None`` where there is no limit.
        document_window: Likewise of a document.
        alike: Whether queries and documents are encoded alike, and so may share a batch.
        lanes: How many batches may run at once.
        token_budget: The tokens in a batch, padding counted, that it is fastest with.
        ahead: Whether :meth:`encode` returns before the device is done.
    """

    device_type: str
    precision: str
    vectors: str
    query_window: int | None
    document_window: int | None
    tells_truncated: bool = False
    alike: bool = False
    lanes: int = 1
    token_budget: int
    ahead: bool = False

    @abstractmethod
    def query_length(self, query: str) -> int:
        """Tokens of a query, special tokens and prompt included, uncut."""

    @abstractmethod
    def queries(self, texts: Sequence[str]) -> list[Text[Payload]]:
        """Tokenise queries."""

    @abstractmethod
    def documents(self, texts: Sequence[str]) -> list[Text[Payload]]:
        """Tokenise documents."""

    @abstractmethod
    def encode(self, payloads: Sequence[Payload], *, queries: bool, lane: int) -> Encoded:
        """Encode a batch.

        Args:
            payloads: At least one, of queries or of documents; of both where they are :attr:`alike`.
            queries: Whether they are queries.
            lane: From 0 to ``lanes - 1``; no two threads at once in the same.
        """

    def evidence(self, length: int) -> Evidence:
        """Whether a document was cut.

        Args:
            length: Its tokens; one more than the window where it is known to have been cut.
        """
        window = self.document_window
        if window is None or length < window or (length == window and self.tells_truncated):
            return _WHOLE
        return _CUT if length > window else _UNKNOWN


AnyEncoder: TypeAlias = TextEncoder[Any]  # what payloads are is its own business


class Tokenizer(Protocol):
    """What splits texts into tokens."""

    def texts(self, texts: Sequence[str], window: int | None) -> list[TokenisedText]: ...

    def count(self, text: str, *, special: bool = False) -> int: ...


class TokenModel(Protocol):
    """A transformer that makes a vector of each token."""

    device_type: str
    precision: str
    lanes: int
    token_budget: int
    ahead: bool

    def run(self, rows: Sequence[TokenisedText], lane: int) -> Encoded:
        """The unit vectors of all tokens that the tokenizer did not add."""


class TransformerTextEncoder(TextEncoder[TokenisedText]):
    """A vector for each token: the last hidden state of a plain transformer, special tokens not scored.

    Args:
        tokenizer: The model's.
        model: Computes the vectors.
        window: The most tokens read of a text; ``None`` where there is no limit.
        side: Which side of a text the tokenizer cuts off.
    """

    tells_truncated = True
    alike = True
    vectors = "tokens"

    def __init__(self, tokenizer: Tokenizer, model: TokenModel, window: int | None, *, side: str = "right") -> None:
        self._tokenizer = tokenizer
        self._surplus = -1 if side == "right" else 0  # which of the tokens of a text is the one too much
        self.model = model
        self.query_window = self.document_window = window
        self.device_type, self.precision, self.ahead = model.device_type, model.precision, model.ahead
        self.lanes, self.token_budget = model.lanes, model.token_budget

    def query_length(self, query: str) -> int:
        return self._tokenizer.count(query, special=True)

    def queries(self, texts: Sequence[str]) -> list[Text[TokenisedText]]:
        return self.documents(texts)

    def documents(self, texts: Sequence[str]) -> list[Text[TokenisedText]]:
        window = self.document_window
        if window is None:
            return [Text(len(row.ids), row, truncated=False) for row in self._tokenizer.texts(texts, None)]
        # One token more than is read tells whether there are more.
        rows = self._tokenizer.texts(texts, window + 1)
        return [
            Text(len(row.ids), row, truncated=False)
            if len(row.ids) <= window
            else Text(window, self._without_surplus(row), truncated=True)
            for row in rows
        ]

    def _without_surplus(self, row: TokenisedText) -> TokenisedText:
        place = np.flatnonzero(~row.special)[self._surplus]
        return TokenisedText(np.delete(row.ids, place), np.delete(row.special, place))

    def encode(self, payloads: Sequence[TokenisedText], *, queries: bool, lane: int) -> Encoded:
        return self.model.run(payloads, lane)


class EngineModel(TokenModel):
    """A transformer on ONNX Runtime or OpenVINO.

    Args:
        engine: With token vectors as its output.
        shipped: The digest of the ONNX file that is run, where it came with the model.
    """

    device_type = "cpu"
    ahead = False

    def __init__(self, engine: Engine, shipped: str | None = None) -> None:
        self.engine = engine
        # What int8 gives differs between engines, and on ONNX Runtime between processors; float32 agrees to rounding.
        precision: str = engine.precision
        if precision == "int8":
            numbers = "int8" if engine.name != "onnx" or has_vnni() else "7-bit int8"
            precision = f"{numbers} of {engine.name}"
        # A file that came with the model may differ from its weights.
        self.precision = precision if shipped is None else f"{precision} of the ONNX file {shipped}"
        self.lanes, self.token_budget = engine.lanes, engine.token_budget

    def run(self, rows: Sequence[TokenisedText], lane: int) -> HostVectors:
        hidden = self.engine.run([Tokens(row.ids) for row in rows], lane)
        return HostVectors(normalised(_packed(hidden, rows)), _counts(rows))


class TorchModel(TokenModel):
    """A transformer of the transformers library.

    Args:
        model: In evaluation mode.
        padding: The token that fills rows up.
    """

    lanes = 1

    def __init__(self, model: nn.Module, padding: int) -> None:
        self.model = model
        self._padding = padding
        parameter = next(model.parameters())
        self._device = parameter.device
        self.device_type = self._device.type
        self.ahead = self.device_type == "cuda"
        self.precision = str(parameter.dtype).removeprefix("torch.")
        self.token_budget = default_token_budget(self.device_type)

    def run(self, rows: Sequence[TokenisedText], lane: int) -> Encoded:
        import torch
        from torch.nn.functional import normalize

        width = max(1, *map(len, (row.ids for row in rows))) if len(rows) > 1 else max(1, len(rows[0].ids))
        input_ids = np.full((len(rows), width), self._padding, dtype=np.int64)
        attention = np.zeros((len(rows), width), dtype=np.int64)
        for line, mask, row in zip(input_ids, attention, rows, strict=True):
            line[: len(row.ids)] = row.ids
            mask[: len(row.ids)] = 1
        with torch.inference_mode():
            output = self.model(
                input_ids=torch.from_numpy(input_ids).to(self._device, non_blocking=True),
                attention_mask=torch.from_numpy(attention).to(self._device, non_blocking=True),
            )
            hidden = output.last_hidden_state.float()
            if self.device_type == "cpu":
                return HostVectors(normalised(_packed(hidden.numpy(), rows)), _counts(rows))
            flat = hidden.reshape(-1, hidden.shape[-1])
            places = torch.from_numpy(_places(rows, width)).to(self._device, non_blocking=True)
            return DeviceVectors(normalize(flat[places], dim=-1), _counts(rows))


class TransformersTokenizer(Tokenizer):
    """A tokenizer of the transformers library.

    Args:
        tokenizer: Fast or slow.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def count(self, text: str, *, special: bool = False) -> int:
        return len(self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    def texts(self, texts: Sequence[str], window: int | None) -> list[TokenisedText]:
        tokenised: list[TokenisedText] = []
        for chunk in chunks(beginnings(texts, window, lambda text: self.count(text, special=True))):
            # Special tokens are told by where the tokenizer put them: a text may spell them out itself.
            rows = self._tokenizer(
                chunk,
                truncation=window is not None,
                max_length=window,
                return_attention_mask=False,
                return_token_type_ids=False,
                return_special_tokens_mask=True,
                verbose=False,
            )
            tokenised.extend(
                TokenisedText(np.asarray(ids, dtype=np.int32), np.asarray(special, dtype=np.bool_))
                for ids, special in zip(rows["input_ids"], rows["special_tokens_mask"], strict=True)
            )
        return tokenised


def _counts(rows: Sequence[TokenisedText]) -> list[int]:
    return [len(row.ids) - int(np.count_nonzero(row.special)) for row in rows]


def _places(rows: Sequence[TokenisedText], width: int) -> NDArray[np.int64]:
    """Where the scored tokens of all rows are, once these are padded to ``width`` and joined."""
    return np.concatenate([np.flatnonzero(~row.special) + width * number for number, row in enumerate(rows)])


def _packed(hidden: NDArray[np.float32], rows: Sequence[TokenisedText]) -> NDArray[np.float32]:
    """The scored tokens' vectors alone, copied."""
    packed: NDArray[np.float32] = hidden.reshape(-1, hidden.shape[-1])[_places(rows, hidden.shape[1])]
    return packed
