"""What a cross-encoder does with the transformer's output: which vectors it reads, and how they become a logit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from uprank.scorers.local.engines.torch.bodies import bert_layers, modern_layers
from uprank.scorers.local.sentence_pairs import modular

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder
    from torch import nn
    from transformers import (
        BertForSequenceClassification,
        BertModel,
        ModernBertForSequenceClassification,
        ModernBertModel,
        PreTrainedModel,
        RobertaForSequenceClassification,
    )

    from uprank.scorers.local.engines.torch.bodies import Pooling

__all__ = ["Anatomy", "Head", "anatomy"]

Head: TypeAlias = Callable[["torch.Tensor"], "torch.Tensor"]
"""From vectors of shape (rows, dimensions) to logits of shape (rows,) or (rows, 1)."""

_ROBERTA = ("roberta", "xlm_roberta", "camembert")
_MODELS = {
    "bert.BertModel": "bert",
    "camembert.CamembertModel": "roberta",
    "modernbert.ModernBertModel": "modernbert",
    "roberta.RobertaModel": "roberta",
    "xlm_roberta.XLMRobertaModel": "roberta",
}


class Anatomy(NamedTuple):
    """A cross-encoder taken apart.

    Attributes:
        family: ``"bert"``, ``"roberta"`` or ``"modernbert"``.
        body: Its transformer, without a head.
        pooling: Which vectors the head reads.
        head: Of the model's own modules.
    """

    family: str
    body: PreTrainedModel
    pooling: Pooling
    head: Head


def anatomy(model: CrossEncoder) -> Anatomy | str:
    """Take a cross-encoder apart, or tell why that cannot be done."""
    if modular(model) and len(list(model.children())) > 1:
        return _of_modules(model)
    return _of_classifier(cast("PreTrainedModel", model.model))


def _of_classifier(model: PreTrainedModel) -> Anatomy | str:
    kind = _kind(model)
    family, _, name = kind.partition(".")
    if kind == "bert.BertForSequenceClassification":
        bert = cast("BertForSequenceClassification", model)
        pooler = cast("nn.Module", bert.bert.pooler)

        def bert_head(vectors: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = bert.classifier(pooler(vectors[:, None]))  # it reads the first token
            return logits

        return _checked("bert", model, bert.bert, "first", bert_head)
    if family in _ROBERTA and name.endswith("ForSequenceClassification"):
        roberta = cast("RobertaForSequenceClassification", model)

        def roberta_head(vectors: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = roberta.classifier(vectors[:, None])  # likewise
            return logits

        return _checked("roberta", model, roberta.roberta, "first", roberta_head)
    if kind == "modernbert.ModernBertForSequenceClassification":
        modern = cast("ModernBertForSequenceClassification", model)

        def modern_head(vectors: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = modern.classifier(modern.head(vectors))
            return logits

        pooling: Pooling = "mean" if modern.config.classifier_pooling == "mean" else "first"
        return _checked("modernbert", model, modern.model, pooling, modern_head)
    return f"{type(model).__name__} is of no family known here"


def _of_modules(model: CrossEncoder) -> Anatomy | str:
    """A transformer, a pooling, and modules that take the pooled vectors, as sentence-transformers chains them."""
    front, pool, *rest = model.children()
    modes = {"cls": "first", "mean": "mean"}
    own = type(pool).__module__.startswith("sentence_transformers.")
    if not (own and type(pool).__name__ == "Pooling" and hasattr(front, "model") and rest):
        return "it is not a transformer, a pooling and a head"
    mode = pool.pooling_mode
    if not isinstance(mode, str) or mode not in modes or not pool.include_prompt:
        return f"its pooling is {mode!r}" + ("" if pool.include_prompt else " without the prompt")
    inner = cast("PreTrainedModel", front.model)
    family = _MODELS.get(_kind(inner))
    if family is None:
        return f"{type(inner).__name__} is of no family known here"

    def head(vectors: torch.Tensor) -> torch.Tensor:
        features: dict[str, torch.Tensor] = {"sentence_embedding": vectors}
        for module in rest:
            features = module(features)
        return features["scores"]

    pooling: Pooling = "first" if mode == "cls" else "mean"
    return _checked(family, model, inner, pooling, head)


def _kind(model: PreTrainedModel) -> str:
    """Package and name of a class of transformers; of any other class its full name, which is none known here."""
    path = type(model).__module__.split(".")
    name = type(model).__name__
    return f"{path[2]}.{name}" if path[:2] == ["transformers", "models"] else f"{'.'.join(path)}.{name}"


def _checked(family: str, whole: nn.Module, body: PreTrainedModel, pooling: Pooling, head: Head) -> Anatomy | str:
    """The anatomy, unless something about the model is not as its family has it."""
    config = body.config
    if any(module._forward_hooks or module._forward_pre_hooks for module in whole.modules()):
        return "hooks are attached to its modules"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "it is a decoder"
    if getattr(config, "position_embedding_type", "absolute") not in ("absolute", None):
        return f"its positions are {config.position_embedding_type}"
    if family == "modernbert":
        ropes = getattr(config, "rope_parameters", None) or {}
        if not hasattr(config, "layer_types") or not hasattr(body, "rotary_emb"):
            return "this version of transformers builds ModernBERT in another way"
        if any((ropes.get(kind) or {}).get("rope_type") != "default" for kind in set(config.layer_types)):
            return "its rotary positions are scaled"
    return _plainly(family, body) or Anatomy(family, body, pooling, head)


def _plainly(family: str, body: PreTrainedModel) -> str | None:
    """Why the projections before attention cannot be read as plain matrices; ``None`` if they can."""
    from torch import nn

    parts: list[nn.Module]
    if family == "modernbert":
        parts = [layer.attn.Wqkv for layer in modern_layers(cast("ModernBertModel", body))]
    else:
        own = [layer.attention.self for layer in bert_layers(cast("BertModel", body))]
        parts = [part for one in own for part in (one.query, one.key, one.value)]
    odd = next((type(part).__name__ for part in parts if type(part) is not nn.Linear), None)
    return f"its projections are {odd}" if odd else None
