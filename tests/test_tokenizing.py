"""Tokenising without transformers gives what transformers gives, and what torch is told is what engines are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer

from conftest import save_bert
from uprank import ConfigurationError, InvalidInputError, ModelLoadError, QueryTooLongError, Reranker
from uprank.scorers.local.files import ModelFiles
from uprank.scorers.local.pair_files import FilePairEncoder, PairSettings, not_plain, token_types
from uprank.scorers.local.sentence_pairs import SentencePairEncoder
from uprank.scorers.local.tokenizing import FastTokenizer

QUERY = "how to parse json"
TEXTS = ["a red fox", "python json file " * 60, "", "the sea [SEP] a </s> fox", "日本語 ?!", "read a csv"]


def encoders(folder: Path, **options):
    found = ModelFiles.find(str(folder))
    assert not_plain(found, trust_remote_code=False) is None
    options = {"name": "model", "max_length": None, "long_query": "error", **options}
    tokenizer = FastTokenizer.from_folder(folder, types=token_types(found), name="model")
    files = FilePairEncoder(tokenizer, PairSettings.read(found), **options)
    return files, SentencePairEncoder(CrossEncoder(str(folder), device="cpu"), **options)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "modernbert"])
@pytest.mark.parametrize("max_length", [None, 40])
def test_pairs_from_files_are_those_of_sentence_transformers(tiny_models: dict[str, Path], kind, max_length):
    files, loaded = encoders(tiny_models[kind], max_length=max_length)
    assert files.window == loaded.window
    ours, theirs = files.query(QUERY, None), loaded.query(QUERY, None)
    assert (ours.room, ours.text, ours.prompt) == (theirs.room, theirs.text, theirs.prompt)
    for own, other in zip(files.rows(ours, TEXTS), loaded.rows(theirs, TEXTS), strict=True):
        np.testing.assert_array_equal(own.ids, other.ids)
        np.testing.assert_array_equal(own.types is None, other.types is None)
        if other.types is not None:
            np.testing.assert_array_equal(own.types, other.types)


@pytest.mark.parametrize("side", ["left", "right"])
def test_documents_are_cut_on_the_side_that_the_tokenizer_was_saved_with(tmp_path: Path, side):
    folder = save_bert(tmp_path)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncation_side": side}))
    files, loaded = encoders(folder)
    long = ["red " * 100 + "fox " * 100]
    (own,), (other,) = (encoder.rows(encoder.query(QUERY, None), long) for encoder in (files, loaded))
    np.testing.assert_array_equal(own.ids, other.ids)


def test_a_long_query_is_cut_alike(tmp_path: Path):
    files, loaded = encoders(save_bert(tmp_path), long_query="truncate")
    query = "red fox " * 40
    assert files.query(query, None) == loaded.query(query, None)
    assert files.query(query, None).warnings
    with pytest.raises(QueryTooLongError, match="more than half of the 128"):
        encoders(tmp_path)[0].query(query, None)


def test_prompts_and_the_window_that_a_model_was_saved_with(tmp_path: Path):
    model = CrossEncoder(
        str(save_bert(tmp_path / "plain")), device="cpu", prompts={"rank": "judge "}, default_prompt_name="rank"
    )
    if hasattr(model, "preprocess"):
        model[0].processing_kwargs = {"text": {"max_length": 40}}
    model.save_pretrained(str(tmp_path / "saved"))
    files, loaded = encoders(tmp_path / "saved")
    assert files.window == loaded.window
    for instruction in (None, "decide "):
        own, other = files.query(QUERY, instruction), loaded.query(QUERY, instruction)
        assert own.prompt == other.prompt == (instruction or "judge ")
        np.testing.assert_array_equal(files.rows(own, TEXTS[:1])[0].ids, loaded.rows(other, TEXTS[:1])[0].ids)
    with pytest.raises(InvalidInputError, match="no place for an instruction"):
        encoders(tmp_path / "plain")[0].query(QUERY, "decide ")


def test_texts_are_those_of_transformers(tiny_models: dict[str, Path]):
    theirs = AutoTokenizer.from_pretrained(tiny_models["bert"])
    ours = FastTokenizer.from_folder(tiny_models["bert"], types=False, name="model")
    expected = theirs(TEXTS, truncation=True, max_length=30, return_special_tokens_mask=True)
    for own, ids, special in zip(
        ours.texts(TEXTS, 30), expected["input_ids"], expected["special_tokens_mask"], strict=True
    ):
        assert own.ids.tolist() == ids
        assert own.special.tolist() == [bool(flag) for flag in special]
    assert ours.limit == 128
    assert ours.count("a red fox") == 3
    assert ours.count("a red fox", special=True) == 5
    assert ours.cut("a red fox runs", 2) == "a red"
    assert ours.cut("a red fox", 9) == "a red fox"


def change(path: Path, **settings: object) -> None:
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**found, **settings}))


VARIANTS = {
    "a saved activation": ("config_sentence_transformers.json", {"activation_fn": "torch.nn.modules.linear.Identity"}),
    "a saved sigmoid": ("config_sentence_transformers.json", {"activation_fn": "torch.nn.modules.activation.Sigmoid"}),
    "an old saved activation": ("config.json", {"sbert_ce_default_activation_function": "torch.nn.Identity"}),
    "a function of its own": ("config_sentence_transformers.json", {"activation_fn": "mine.Identity"}),
    "no token types": ("tokenizer_config.json", {"model_input_names": ["input_ids", "attention_mask"]}),
    "lower case": ("sentence_bert_config.json", {"do_lower_case": True, "transformer_task": "sequence-classification"}),
    "a longer window": (
        "sentence_bert_config.json",
        {"max_seq_length": 100, "transformer_task": "sequence-classification"},
    ),
    "a shorter window": ("tokenizer_config.json", {"model_max_length": 64}),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as sentence-transformers saves it."""
    folder = tmp_path_factory.mktemp("model")
    plain = CrossEncoder(str(save_bert(folder / "plain", identity=False)), device="cpu")
    plain.save_pretrained(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.skipif(not hasattr(CrossEncoder, "preprocess"), reason="saved otherwise before sentence-transformers 5.4")
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_saved_with_a_model_counts_alike_on_every_engine(tmp_path: Path, saved: Path, variant: str):
    shutil.copytree(saved, tmp_path / "saved")
    name, settings = VARIANTS[variant]
    if name == "config_sentence_transformers.json":  # where these are read, the others are not
        config = tmp_path / "saved/config.json"
        kept = {key: value for key, value in json.loads(config.read_text()).items() if key != "sentence_transformers"}
        config.write_text(json.dumps(kept))
    change(tmp_path / "saved" / name, **settings)
    rankings = [
        Reranker(f"cross-encoder:{tmp_path}/saved", device="cpu", engine=engine, dtype="float32").rank(QUERY, TEXTS)
        for engine in ("auto", "torch")
    ]
    found, expected = ({hit.index: hit.score for hit in ranking} for ranking in rankings)
    assert rankings[0].score_kind == rankings[1].score_kind
    assert found == pytest.approx(expected, abs=1e-4)
    assert rankings[0].warnings == rankings[1].warnings


def test_a_model_without_tokenizer_json_runs_on_torch(tmp_path: Path):
    folder = save_bert(tmp_path)
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    (folder / "tokenizer.json").unlink()
    change(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    assert not_plain(ModelFiles.find(str(folder)), trust_remote_code=False) == "it has no tokenizer.json"
    assert len(Reranker(f"cross-encoder:{folder}", device="cpu").rank(QUERY, TEXTS)) == len(TEXTS)


def test_what_is_no_plain_classifier(tmp_path: Path):
    folder = save_bert(tmp_path)

    def reason(*, trust_remote_code: bool = False) -> str | None:
        return not_plain(ModelFiles.find(str(folder)), trust_remote_code=trust_remote_code)

    config = json.loads((folder / "config.json").read_text())
    for settings, expected in (
        ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "Python code"),
    ):
        change(folder / "config.json", **settings)
        assert expected in str(reason())
        (folder / "config.json").write_text(json.dumps(config))
    change(folder / "tokenizer_config.json", model_input_names=None, tokenizer_class="SomeTokenizer")
    assert "tell" in str(reason())
    change(folder / "tokenizer_config.json", tokenizer_class="BertTokenizerFast")
    assert reason() is None
    for modules, expected in (
        (["sentence_transformers.models.Transformer"], None),
        (["sentence_transformers.models.Transformer", "sentence_transformers.models.Dense"], "Dense"),
        (["custom_st.Transformer"], "custom_st"),
    ):
        (folder / "modules.json").write_text(json.dumps([{"type": kind, "path": ""} for kind in modules]))
        assert expected in str(reason()) if expected else reason() is None
    (folder / "modules.json").unlink()
    change(folder / "sentence_bert_config.json", something_new=1)
    assert "something_new" in str(reason())
    (folder / "sentence_bert_config.json").unlink()
    change(folder / "config_sentence_transformers.json", activation_fn="mine.Own")
    assert reason() is None
    assert "follows its logits" in str(reason(trust_remote_code=True))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelLoadError, match=r"config\.json"):
        reason()


def test_a_model_does_not_lead_out_of_its_folder(tmp_path: Path):
    folder = save_bert(tmp_path / "model")
    (folder / "modules.json").write_text(json.dumps([{"type": "x.Transformer", "path": "../other"}]))
    with pytest.raises(ModelLoadError, match="leads out of its folder"):
        ModelFiles.find(str(folder)).encoder  # noqa: B018 - a property


def test_a_tokenizer_that_cannot_be_read_and_a_window_that_is_not_known(tmp_path: Path):
    folder = save_bert(tmp_path)
    settings = PairSettings("logit", {}, None, None, None)
    tokenizer = FastTokenizer.from_folder(folder, types=True, name="model")
    tokenizer.limit = None
    with pytest.raises(ConfigurationError, match="pass max_length="):
        FilePairEncoder(tokenizer, settings, name="model", max_length=None, long_query="error")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelLoadError, match="tokenizer could not be read"):
        FastTokenizer.from_folder(folder, types=True, name="model")
