"""ModernBERT as ONNX: rotary positions, local and global attention, gated feed-forward.

Warner et al., "Smarter, Better, Faster, Longer", 2024 (arXiv 2412.13663).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.local.graphs.config import Config, ConfigError
from uprank.scorers.local.graphs.layers import (
    ACTIVATIONS,
    MASKED,
    Source,
    attention,
    first_token,
    head_linear,
    layer_norm,
    linear,
    mask_bias,
    split_heads,
)

if TYPE_CHECKING:
    from onnx import ModelProto

    from uprank.scorers.local.graphs.writer import GraphWriter

__all__ = ["build_modernbert", "unsupported_modernbert"]

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
_OLD_THETA = {_GLOBAL: ("global_rope_theta", 160_000.0), _LOCAL: ("local_rope_theta", 10_000.0)}


def unsupported_modernbert(config: Config) -> str | None:
    """What of this family's own settings is not built here; ``None`` if all is."""
    if config.text("classifier_pooling", default="cls") not in ("cls", "mean"):
        return f"its pooling is {config.get('classifier_pooling')!r}"
    unknown = set(_layer_types(config)) - {_GLOBAL, _LOCAL}
    if unknown:
        return f"its layers are of the type {', '.join(sorted(unknown))}"
    rotary = config.get("rope_parameters")
    kinds = rotary.values() if isinstance(rotary, Mapping) else ()
    if config.get("rope_scaling") is not None or any(
        isinstance(kind, Mapping) and (kind.get("rope_type", "default") != "default" or "partial_rotary_factor" in kind)
        for kind in kinds
    ):
        return "its rotary positions are scaled"
    if "local_rope_theta" in config.settings and config.get("local_rope_theta") is None:
        return "its local_rope_theta is null, which versions of transformers read differently"
    return None


def build_modernbert(
    graph: GraphWriter, config: Config, weights: Mapping[str, NDArray[np.float32]], *, logits: bool
) -> ModelProto:
    """Write the whole model; the arguments are those of :func:`graphs.bert.build_bert`."""
    return _ModernBert(graph, config, weights).model(logits=logits)


def _layer_types(config: Config) -> list[str]:
    given = config.get("layer_types")
    if isinstance(given, list):
        return [str(kind) for kind in given]
    every = config.integer("global_attn_every_n_layers", default=3)
    return [_LOCAL if number % every else _GLOBAL for number in range(config.integer("num_hidden_layers"))]


def _theta(config: Config, kind: str) -> float:
    rotary = config.get("rope_parameters")
    own = rotary.get(kind) if isinstance(rotary, Mapping) else None
    value = own.get("rope_theta") if isinstance(own, Mapping) else None
    if isinstance(value, (int, float)):
        return float(value)
    name, default = _OLD_THETA[kind]
    return config.number(name, default=default)


class _ModernBert:
    def __init__(self, graph: GraphWriter, config: Config, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self._graph = graph
        self._config = config
        self._source = Source(weights, "embeddings.tok_embeddings.weight", ("model.", ""))
        self._width = config.integer("hidden_size")
        self._heads = config.integer("num_attention_heads")
        self._size = self._width // self._heads
        self._kinds = _layer_types(config)
        if len(self._kinds) != config.integer("num_hidden_layers"):
            raise ConfigError("config.json has layer_types for another number of layers.")
        self._epsilon = config.number("norm_eps", default=1e-5)
        self._activation = ACTIVATIONS[config.text("hidden_activation", default="gelu")]
        self._length = graph.node("Shape", "input_ids", start=1, end=2)

    def model(self, *, logits: bool) -> ModelProto:
        graph = self._graph
        inputs = ["input_ids", "attention_mask"]
        by_first = logits and self._config.text("classifier_pooling", default="cls") == "cls"
        words = graph.weight("embeddings.words", self._source.of("embeddings.tok_embeddings.weight"))
        x = self._norm(graph.node("Gather", words, "input_ids"), "embeddings.norm")
        padding = mask_bias(graph, "attention_mask")
        used = sorted(set(self._kinds))
        rotary = {kind: self._rotary(kind) for kind in used}
        biases = {kind: padding if kind == _GLOBAL else self._window_bias(padding) for kind in used}
        for number, kind in enumerate(self._kinds):
            first_only = by_first and number == len(self._kinds) - 1
            x = self._layer(x, number, biases[kind], rotary[kind], first_only=first_only)
        x = self._norm(x, "final_norm")
        if not logits:
            return graph.model(inputs, x, "last_hidden_state", ["rows", "tokens", self._width])
        pooled = graph.node("Squeeze", x, graph.constant([1])) if by_first else self._mean(x)
        return graph.model(inputs, self._head(pooled), "logits", ["rows"])

    def _rotary(self, kind: str) -> tuple[str, str]:
        """Cosines and sines of shape (tokens, size), from tables: bfloat16 could not tell such angles apart."""
        positions = np.arange(self._config.integer("max_position_embeddings", default=8_192), dtype=np.float32)
        steps = np.arange(0, self._size, 2, dtype=np.float32) / np.float32(self._size)
        frequencies = (1.0 / np.power(np.float32(_theta(self._config, kind)), steps)).astype(np.float32)
        angles = np.outer(positions, np.concatenate([frequencies, frequencies]))
        cosines, sines = (
            self._graph.node(
                "Slice",
                self._graph.weight(f"rotary.{kind}.{name}", values),
                self._graph.constant([0]),
                self._length,
                self._graph.constant([0]),
            )
            for name, values in (("cos", np.cos(angles)), ("sin", np.sin(angles)))
        )
        return cosines, sines

    def _window_bias(self, padding: str) -> str:
        """Of shape (rows, 1, tokens, tokens): far less for what is padding or too far away."""
        graph = self._graph
        length = graph.node("Squeeze", self._length)
        places = graph.node("Range", graph.constant(0), length, graph.constant(1))
        columns, lines = (graph.node("Unsqueeze", places, graph.constant([axis])) for axis in (0, 1))
        distance = graph.node("Abs", graph.node("Sub", lines, columns))
        reach = self._config.integer("local_attention", default=128) // 2
        far = graph.node("Cast", graph.node("Greater", distance, graph.constant(reach)), to=1)
        return graph.node("Add", padding, graph.node("Mul", far, graph.constant(MASKED)))

    def _layer(self, x: str, number: int, bias: str, rotary: tuple[str, str], *, first_only: bool) -> str:
        graph = self._graph
        path = f"layers.{number}"
        normed = x if number == 0 else self._norm(x, f"{path}.attn_norm")
        key = self._rotated(self._projected(normed, path, 1), rotary)
        value = self._projected(normed, path, 2)
        if first_only:  # at the first position the rotation is none
            x = first_token(graph, x)
            query = self._projected(first_token(graph, normed), path, 0)
            bias = graph.node("Slice", bias, graph.constant([0]), graph.constant([1]), graph.constant([2]))
        else:
            query = self._rotated(self._projected(normed, path, 0), rotary)
        turned = graph.node("Transpose", key, perm=(0, 1, 3, 2))
        mixed = attention(graph, query, turned, value, bias, self._width)
        x = graph.node("Add", x, self._linear(mixed, f"{path}.attn.Wo"))
        return graph.node("Add", x, self._feed_forward(self._norm(x, f"{path}.mlp_norm"), f"{path}.mlp"))

    def _projected(self, x: str, path: str, part: int) -> str:
        """The query (0), key (1) or value (2), of shape (rows, heads, tokens, size); queries are scaled."""
        rows = slice(part * self._width, (part + 1) * self._width)
        scale = np.float32(self._size**-0.5 if part == 0 else 1.0)
        name = f"{path}.attn.Wqkv"
        weight, bias = self._source.of(f"{name}.weight"), self._bias(name)
        y = linear(
            self._graph,
            x,
            f"{name}.{part}",
            weight[rows] * scale,
            None if bias is None else bias[rows] * scale,
        )
        return split_heads(self._graph, y, self._heads, self._size)

    def _rotated(self, x: str, rotary: tuple[str, str]) -> str:
        graph = self._graph
        cosines, sines = rotary
        first, second = graph.nodes("Split", x, outputs=2, axis=-1, num_outputs=2)
        turned = graph.node("Concat", graph.node("Neg", second), first, axis=-1)
        return graph.node("Add", graph.node("Mul", x, cosines), graph.node("Mul", turned, sines))

    def _feed_forward(self, x: str, path: str) -> str:
        graph = self._graph
        inner = self._config.integer("intermediate_size")
        weight, bias = self._source.of(f"{path}.Wi.weight"), self._bias(f"{path}.Wi")
        value, gate = (
            linear(graph, x, f"{path}.Wi.{part}", weight[rows], None if bias is None else bias[rows])
            for part, rows in enumerate((slice(inner), slice(inner, 2 * inner)))
        )
        return self._linear(graph.node("Mul", self._activation(graph, value), gate), f"{path}.Wo")

    def _mean(self, x: str) -> str:
        """The mean over what is no padding, of shape (rows, width)."""
        graph = self._graph
        mask = graph.node("Cast", graph.node("Unsqueeze", "attention_mask", graph.constant([2])), to=1)
        axis = graph.constant([1])
        total = graph.node("ReduceSum", graph.node("Mul", x, mask), axis, keepdims=0)
        return graph.node("Div", total, graph.node("ReduceSum", mask, axis, keepdims=0))

    def _head(self, x: str) -> str:
        graph, source = self._graph, self._source
        x = head_linear(graph, x, "head.dense", source.outside("head.dense.weight"), source.optional("head.dense.bias"))
        x = ACTIVATIONS[self._config.text("classifier_activation", default="gelu")](graph, x)
        weight, bias = source.outside("head.norm.weight"), source.optional("head.norm.bias")
        x = layer_norm(graph, x, "head.norm", weight, bias, self._epsilon)
        x = head_linear(graph, x, "classifier", source.outside("classifier.weight"), source.outside("classifier.bias"))
        return graph.node("Squeeze", x, graph.constant([1]))

    def _linear(self, x: str, path: str) -> str:
        return linear(self._graph, x, path, self._source.of(f"{path}.weight"), self._bias(path))

    def _norm(self, x: str, path: str) -> str:
        weight = self._source.of(f"{path}.weight")
        return layer_norm(self._graph, x, path, weight, self._bias(path), self._epsilon)

    def _bias(self, path: str) -> NDArray[np.float32] | None:
        """Biases are as the checkpoint has them: its flags say the same."""
        return self._source.of(f"{path}.bias") if self._source.has(f"{path}.bias") else None
