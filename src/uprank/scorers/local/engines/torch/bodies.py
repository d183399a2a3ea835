"""Transformers without padding: the BERT, RoBERTa and ModernBERT families, on the weights of a loaded model.

Everything that treats each token alone (embeddings, norms, feed-forward) is done by the loaded
model's own modules; only positions and attention differ from its padded forward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar, cast

from uprank.scorers.local.engines.torch.compiled import Compiled

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import BertModel, ModernBertModel
    from transformers.models.bert.modeling_bert import BertLayer
    from transformers.models.modernbert.modeling_modernbert import ModernBertEncoderLayer

    from uprank.scorers.local.engines.torch.attention import Attention
    from uprank.scorers.local.engines.torch.packing import PackedBatch

__all__ = ["BertBody", "Body", "ModernBertBody", "Pooling", "bert_layers", "modern_layers"]

Pooling: TypeAlias = Literal["first", "mean"]
"""Which of a sequence's last hidden states count: that of its first token, or the mean of all."""

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


class Body(ABC):
    """A transformer from token ids to one vector a sequence.

    Attributes:
        padding_id: For :func:`~uprank.scorers.local.engines.torch.packing.pack_tokens`.
    """

    padding_id: int | None = None

    @abstractmethod
    def forward(self, batch: PackedBatch, pooling: Pooling) -> torch.Tensor:
        """Vectors of shape (sequences, dimensions), in the order of the batch."""


class BertBody(Body):
    """``BertModel``, ``RobertaModel``, ``XLMRobertaModel`` and ``CamembertModel`` of transformers.

    Args:
        model: Loaded, in evaluation mode. The weights of its queries, keys and values are moved
            next to each other; the model itself goes on to work.
        attention: For its device and type.
        padding_id: Where positions count from ``padding_id + 1``.
        compile: Compile what is done to each token alone.
    """

    def __init__(self, model: BertModel, attention: Attention, *, padding_id: int | None, compile: bool) -> None:
        self.padding_id = padding_id
        self._attention = attention
        self._embeddings = model.embeddings
        self._layers = bert_layers(model)
        self._heads: int = model.config.num_attention_heads
        self._joint = []
        for layer in self._layers:
            own = layer.attention.self
            self._joint.append(_joined([own.query, own.key, own.value]))
        self._finish = _maybe_compiled(_finish_bert, compile=compile)

    def forward(self, batch: PackedBatch, pooling: Pooling) -> torch.Tensor:
        from torch.nn.functional import linear

        hidden = self._embedded(batch)
        for layer, (weight, bias) in zip(self._layers, self._joint, strict=True):
            if pooling == "first" and layer is self._layers[-1]:
                width = hidden.shape[1]
                key, value = self._by_head(linear(hidden, weight[width:], bias[width:]), 2)
                hidden = hidden.index_select(0, batch.firsts)
                (query,) = self._by_head(linear(hidden, weight[:width], bias[:width]), 1)
                seen = self._attention.first(query, key, value, batch)
            else:
                query, key, value = self._by_head(linear(hidden, weight, bias), 3)
                seen = self._attention.full(query, key, value, batch, None)
            hidden = self._finish(layer, seen.flatten(1), hidden)
        return hidden if pooling == "first" else _means(hidden, batch)

    def _by_head(self, joint: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        return joint.view(len(joint), parts, self._heads, -1).unbind(1)

    def _embedded(self, batch: PackedBatch) -> torch.Tensor:
        own = self._embeddings
        kinds = own.token_type_embeddings
        hidden = own.word_embeddings(batch.ids)
        hidden = hidden + (kinds.weight[0] if batch.types is None else kinds(batch.types))
        hidden = hidden + own.position_embeddings(batch.positions)
        normed: torch.Tensor = own.LayerNorm(hidden)
        return normed


def _finish_bert(layer: BertLayer, seen: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    hidden = layer.attention.output(seen, hidden)
    finished: torch.Tensor = layer.output(layer.intermediate(hidden), hidden)
    return finished


class ModernBertBody(Body):
    """``ModernBertModel`` of transformers 5: rotary positions, layers that look at a window only.

    Args:
        model: Loaded, in evaluation mode.
        attention: For its device and type.
        compile: Compile what is done to each token alone.
    """

    def __init__(self, model: ModernBertModel, attention: Attention, *, compile: bool) -> None:
        import torch

        self._attention = attention
        self._model = model
        self._layers = modern_layers(model)
        self._heads: int = model.config.num_attention_heads
        kinds = model.config.layer_types or []
        self._kinds = kinds
        self._windows = {"full_attention": None, "sliding_attention": model.config.sliding_window}
        weight = model.embeddings.tok_embeddings.weight
        places = torch.arange(model.config.max_position_embeddings, device=weight.device)[None]
        self._turns = {}
        for kind in set(kinds):
            cos, sin = model.rotary_emb(weight[:1], places, kind)
            self._turns[kind] = cos[0], sin[0]
        self._begin = _maybe_compiled(_begin_modern, compile=compile)
        self._finish = _maybe_compiled(_finish_modern, compile=compile)

    def forward(self, batch: PackedBatch, pooling: Pooling) -> torch.Tensor:
        hidden: torch.Tensor = self._model.embeddings(batch.ids)
        turns = {
            kind: (cos.index_select(0, batch.positions), sin.index_select(0, batch.positions))
            for kind, (cos, sin) in self._turns.items()
        }
        for layer, kind in zip(self._layers, self._kinds, strict=True):
            window = self._windows[kind]
            query, key, value = self._begin(layer, hidden, turns[kind], self._heads)
            if pooling == "first" and layer is self._layers[-1] and window is None:
                # Its queries were computed for all tokens: a rotation and a third of one product too much.
                hidden, query = (tensor.index_select(0, batch.firsts) for tensor in (hidden, query))
                seen = self._attention.first(query, key, value, batch)
            else:
                seen = self._attention.full(query, key, value, batch, window)
            hidden = self._finish(layer, seen.flatten(1), hidden)
        if pooling == "first" and len(hidden) != len(batch):
            hidden = hidden.index_select(0, batch.firsts)
        hidden = self._model.final_norm(hidden)
        return hidden if pooling == "first" else _means(hidden, batch)


def _begin_modern(
    layer: ModernBertEncoderLayer, hidden: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    import torch

    cos, sin = turns
    joint: torch.Tensor = layer.attn.Wqkv(layer.attn_norm(hidden)).view(len(hidden), 3, heads, -1)
    pair = joint[:, :2].float()
    left, right = pair.chunk(2, dim=-1)
    turned = (pair * cos[:, None, None] + torch.cat((-right, left), dim=-1) * sin[:, None, None]).to(hidden.dtype)
    return turned[:, 0], turned[:, 1], joint[:, 2]


def _finish_modern(layer: ModernBertEncoderLayer, seen: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    hidden = hidden + layer.attn.Wo(seen)
    finished: torch.Tensor = hidden + layer.mlp(layer.mlp_norm(hidden))
    return finished


def bert_layers(model: BertModel) -> list[BertLayer]:
    """The layers of a model built like BERT."""
    return cast("list[BertLayer]", list(model.encoder.layer))


def modern_layers(model: ModernBertModel) -> list[ModernBertEncoderLayer]:
    """The layers of a model built like ModernBERT."""
    return cast("list[ModernBertEncoderLayer]", list(model.layers))


def _joined(parts: list[nn.Linear]) -> tuple[nn.Parameter, nn.Parameter]:
    """The weights of several linear layers as one, which the layers go on to use: nothing is held twice."""
    import torch
    from torch import nn

    with torch.no_grad():
        weight = nn.Parameter(torch.cat([part.weight for part in parts]), requires_grad=False)
        bias = nn.Parameter(torch.cat([part.bias for part in parts]), requires_grad=False)
        start = 0
        for part in parts:
            end = start + part.out_features
            part.weight.data, part.bias.data = weight.data[start:end], bias.data[start:end]
            start = end
    return weight, bias


def _means(hidden: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """The mean of each sequence, summed in float32."""
    import torch

    sums = torch.segment_reduce(hidden.float(), "mean", offsets=batch.bounds, axis=0, unsafe=True)
    return sums.to(hidden.dtype)


def _maybe_compiled(function: FunctionT, *, compile: bool) -> FunctionT:
    return Compiled(function) if compile else function  # type: ignore[return-value]  # called alike
