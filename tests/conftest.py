"""Tiny random models, built here and saved to disk: no model hub is needed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

TEXT = """
    the a of to in is and for on with how what when who where why red blue green fox whale dog cat jumps runs swims
    over under deep sea river lazy quick brown python parse json csv file read write list dict function time city
    capital france paris berlin germany population yes no query document instruct judge relevant system
"""
WORDS = TEXT.split()


def _vocabulary(special: list[str]) -> list[str]:
    letters = [chr(code) for code in range(33, 127)]
    return [*special, *letters, *("##" + letter for letter in letters), *(w for w in WORDS if len(w) > 1)]


def _wordpiece(special: list[str], pair: str, single: str):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {token: number for number, token in enumerate(_vocabulary(special))}
    unknown = next(token for token in special if "unk" in token.lower())
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    used = [(token, vocabulary[token]) for token in special if token in pair]
    if used:
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=used)
    return tokenizer


def save_bert(folder: Path, *, identity: bool = True, positions: int = 128, num_labels: int = 1) -> Path:
    """A BERT classifier; ``identity`` stores that no activation follows its logits."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = _wordpiece(special, "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", "[CLS] $A [SEP]")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=positions,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=positions,
        num_labels=num_labels,
        initializer_range=0.6,
    )
    if identity:
        config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_xlm_roberta(folder: Path) -> Path:
    """An XLM-RoBERTa classifier: positions count from ``padding_idx + 1``, no token types."""
    import torch
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForSequenceClassification

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = _wordpiece(special, "<s> $A </s> </s> $B </s>", "<s> $A </s>")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=128,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(1)
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        num_labels=1,
        type_vocab_size=1,
        pad_token_id=1,
        initializer_range=0.6,
    )
    config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_modernbert(folder: Path) -> Path:
    """A ModernBERT classifier: rotary positions, local and global attention, mean pooling."""
    import torch
    from transformers import ModernBertConfig, ModernBertForSequenceClassification, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = _wordpiece(special, "[CLS] $A [SEP] $B [SEP]", "[CLS] $A [SEP]")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=256,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(2)
    config = ModernBertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=256,
        local_attention=16,
        num_labels=1,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
        classifier_pooling="mean",
        initializer_range=0.6,
        initializer_cutoff_factor=3.0,
    )
    config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    ModernBertForSequenceClassification(config).save_pretrained(folder)
    return folder


CHAT_TEMPLATE = (
    "<|im_start|>system judge {% for m in messages if m.role == 'system' %}instruct {{ m.content }}{% endfor %}"
    "<|im_end|><|im_start|>query "
    "{% for m in messages if m.role == 'query' %}{{ m.content }}{% endfor %} document "
    "{% for m in messages if m.role == 'document' %}{{ m.content }}{% endfor %}<|im_end|><|im_start|>"
)


def save_causal(folder: Path, *, template: bool = True) -> Path:
    """A causal model that answers yes or no through a chat template."""
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    special = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>"]
    tokenizer = _wordpiece(special, "", "")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=160,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        padding_side="left",
        chat_template=CHAT_TEMPLATE if template else None,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=160,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=3,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


SAVERS = {"bert": save_bert, "xlm-roberta": save_xlm_roberta, "modernbert": save_modernbert, "causal": save_causal}


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of one tiny cross-encoder of each architecture."""
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in SAVERS.items()}
