"""Tiny random models, built here and saved to disk: no model hub is needed."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from uprank import Document

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# HTTP clients, of which the tests make thousands, read 40 ms of authorities each. None is asked here: one will do.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "certificates" / "unrelated.pem")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a job that a shell has put in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


BERT_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def _save_tokenizer(folder: Path, pair: str, single: str, tokens: dict[str, str], **settings: object) -> int:
    """Save a tokenizer with these special tokens, and return the size of its vocabulary."""
    from transformers import PreTrainedTokenizerFast

    extra = settings.get("additional_special_tokens", [])
    special = list(dict.fromkeys([*tokens.values(), *extra]))
    tokenizer = _wordpiece(special, pair, single)
    settings.setdefault("model_input_names", ["input_ids", "attention_mask"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens, **settings).save_pretrained(folder)
    return tokenizer.get_vocab_size()


def save_bert(folder: Path, *, identity: bool = True, positions: int = 128, num_labels: int = 1) -> Path:
    """A BERT classifier; ``identity`` stores that no activation follows its logits."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    vocab_size = _save_tokenizer(
        folder,
        "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        "[CLS] $A [SEP]",
        BERT_TOKENS,
        model_max_length=positions,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocab_size,
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
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    tokens = {
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    tokens |= {"bos_token": "<s>", "eos_token": "</s>"}
    vocab_size = _save_tokenizer(folder, "<s> $A </s> </s> $B </s>", "<s> $A </s>", tokens, model_max_length=128)
    torch.manual_seed(1)
    config = XLMRobertaConfig(
        vocab_size=vocab_size,
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
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    vocab_size = _save_tokenizer(folder, "[CLS] $A [SEP] $B [SEP]", "[CLS] $A [SEP]", BERT_TOKENS, model_max_length=256)
    torch.manual_seed(2)
    config = ModernBertConfig(
        vocab_size=vocab_size,
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
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokens = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<|im_end|>"}
    vocab_size = _save_tokenizer(
        folder,
        "",
        "",
        tokens,
        model_max_length=160,
        additional_special_tokens=["<|im_start|>"],
        padding_side="left",
        chat_template=CHAT_TEMPLATE if template else None,
    )
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=160,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=2,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


SAVERS = {"bert": save_bert, "xlm-roberta": save_xlm_roberta, "modernbert": save_modernbert, "causal": save_causal}


def pytest_configure(config: pytest.Config) -> None:
    """Make known the marker that the next function reads."""
    config.addinivalue_line(
        "markers",
        "rotated(n): of all combinations of a test's parameters, run one in n; the others are slow. Where n is no more "
        "than the length of every list of parameters but one, still every pair of two parameters' values comes up.",
    )


@pytest.hookimpl(tryfirst=True)  # before those marked slow are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow the combinations of which it is not the turn: those whose values' places do not add up to it."""
    seen: dict[tuple[object, str], list[int]] = {}  # the values of each parameter, in their order
    for item in items:
        if (mark := item.get_closest_marker("rotated")) is None:
            continue
        assert isinstance(item, pytest.Function)
        lists = [each.args[0] for each in item.iter_markers("parametrize")]
        together = {name for names in lists if not isinstance(names, str) for name in names[1:]}
        total = 0
        for name, value in item.callspec.params.items():
            if name not in together:
                values = seen.setdefault((item.function, name), [])
                if id(value) not in values:
                    values.append(id(value))
                total += values.index(id(value))
        if total % mark.args[0]:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _no_full_collection_of_what_came_before() -> None:
    """Leave out of all full collections what was imported so far: else they take a second each, and many are made."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_gate_of_an_earlier_test() -> Iterator[None]:
    """A server of an earlier test may have had the same port, and have asked for fewer requests at once."""
    yield
    if "uprank.scorers.http.gate" in sys.modules:
        sys.modules["uprank.scorers.http.gate"]._gates.clear()


@pytest.fixture(scope="session", autouse=True)
def _models_built_here_are_kept_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models that engines build do not go to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPRANK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def stdlib_documents() -> list[Document]:
    """The documentation of Python's standard library, read but once: that takes seconds."""
    from uprank.demo.stdlib_docs import load_stdlib_docs

    return load_stdlib_docs()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of one tiny cross-encoder of each architecture."""
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in SAVERS.items()}
