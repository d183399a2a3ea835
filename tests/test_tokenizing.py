"""Tokenising without transformers gives what transformers gives, and what torch is told is what engines are told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer

from conftest import save_bert
from uprank import ConfigurationError, InvalidInputError, ModelLoadError, QueryTooLongError
from uprank.scorers.local.pair_files import FilePairEncoder, PairSettings, not_plain
from uprank.scorers.local.sentence_pairs import SentencePairEncoder
from uprank.scorers.local.tokenizing import FastTokenizer

QUERY = "how to parse json"
TEXTS = ["a red fox", "python json file " * 60, "", "the sea [SEP] a </s> fox", "日本語 ?!", "read a csv"]


def encoders(folder: Path, **options):
    config = json.loads((folder / "config.json").read_text())
    settings = PairSettings.read(folder, config)
    options = {"name": "model", "max_length": None, "long_query": "error", **options}
    files = FilePairEncoder(FastTokenizer.from_folder(folder, types=True, name="model"), settings, **options)
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


def test_what_follows_the_logits_and_what_is_no_plain_classifier(tmp_path: Path):
    def kind(folder: Path) -> str:
        return PairSettings.read(folder, json.loads((folder / "config.json").read_text())).score_kind

    assert kind(save_bert(tmp_path / "identity")) == "logit"
    assert kind(save_bert(tmp_path / "sigmoid", identity=False)) == "probability"
    folder, classifier = tmp_path / "identity", {"architectures": ["BertForSequenceClassification"]}
    assert not_plain(folder, classifier) is None
    assert "BertForMaskedLM" in str(not_plain(folder, {"architectures": ["BertForMaskedLM"]}))
    assert "Python code" in str(not_plain(folder, {**classifier, "auto_map": {"AutoModel": "x.Y"}}))
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert not_plain(folder, classifier) is None
    (folder / "modules.json").write_text(json.dumps([*modules, {"type": "sentence_transformers.models.Dense"}]))
    assert "Dense" in str(not_plain(folder, classifier))


def test_a_tokenizer_that_cannot_be_read_and_a_window_that_is_not_known(tmp_path: Path):
    folder = save_bert(tmp_path)
    settings = PairSettings("logit", {}, None, None, None)
    tokenizer = FastTokenizer.from_folder(folder, types=True, name="model")
    tokenizer.limit = None
    with pytest.raises(ConfigurationError, match="pass max_length="):
        FilePairEncoder(tokenizer, settings, name="model", max_length=None, long_query="error")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json could not be read"):
        FastTokenizer.from_folder(folder, types=True, name="model")
