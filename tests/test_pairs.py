"""Pairs as token ids at the edges: prompts, sides, windows and heads of unusual models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForQuestionAnswering

from conftest import CHAT_TEMPLATE, save_bert, save_causal, save_xlm_roberta
from uprank import InvalidInputError, ModelLoadError, QueryTooLongError, Reranker
from uprank.scorers import CrossEncoderScorer
from uprank.scorers.base import ScoreRequest, Scores

QUERY = "how to parse json"
TEXTS = ["a red fox", "python json file " * 40, "the sea", "read a csv file in python " * 5]

modules_only = pytest.mark.skipif(not hasattr(CrossEncoder, "preprocess"), reason="needs sentence-transformers >= 5.4")


def scorer(folder: Path, **options: object) -> CrossEncoderScorer:
    return CrossEncoderScorer(str(folder), device="cpu", **{"dtype": "float32", **options})


def change_tokenizer(folder: Path, **settings: object) -> Path:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return folder


def singles(model: CrossEncoderScorer, texts: list[str]) -> list[float]:
    return [model.score(QUERY, [text]).values[0] for text in texts]


@pytest.mark.parametrize("architecture", [BertForQuestionAnswering, BertForMaskedLM], ids=lambda kind: kind.__name__)
def test_a_head_for_another_task_is_refused_rather_than_replaced_by_a_random_one(tmp_path: Path, architecture):
    folder = save_bert(tmp_path)
    config = BertConfig.from_pretrained(folder)
    config.num_labels = 2
    architecture(config).save_pretrained(folder)
    with pytest.raises(ModelLoadError, match=rf"{architecture.__name__}.*no trained classification head"):
        scorer(folder).score(QUERY, TEXTS)


@modules_only
def test_an_instruction_that_leaves_no_room_is_its_own_requests_error(tmp_path: Path):
    model = CrossEncoder(str(save_bert(tmp_path / "plain")), device="cpu", prompts={"rank": "judge "})
    model.save_pretrained(str(tmp_path / "prompted"))
    prompted = scorer(tmp_path / "prompted")
    with pytest.raises(QueryTooLongError, match="leave no room for documents"):
        prompted.score(QUERY, TEXTS, instruction="judge " * 140)
    crowded, fine = prompted.score_many(
        [ScoreRequest("red " * 60, TEXTS, "judge " * 70), ScoreRequest(QUERY, TEXTS, "judge ")]
    )
    assert isinstance(crowded, QueryTooLongError)
    assert isinstance(fine, Scores)


def test_special_tokens_count_against_the_window(tmp_path: Path):
    small = scorer(save_xlm_roberta(tmp_path), max_length=8)
    crowded, fine = small.score_many([ScoreRequest("red blue green fox", TEXTS), ScoreRequest("red", TEXTS)])
    assert isinstance(crowded, QueryTooLongError)
    assert isinstance(fine, Scores)


@modules_only
def test_a_tokenizer_that_cuts_on_the_left_still_has_the_beginning_of_documents_and_queries_read(tmp_path: Path):
    right = scorer(save_causal(tmp_path / "right"))
    left = scorer(change_tokenizer(save_causal(tmp_path / "left"), truncation_side="left"))
    assert left.score(QUERY, TEXTS).values == right.score(QUERY, TEXTS).values
    assert left._pairs._tokenizer.truncation_side == "left"
    bert = change_tokenizer(save_bert(tmp_path / "bert"), truncation_side="left")
    cut = scorer(bert, long_query="truncate").score("red " * 64 + "blue " * 20, ["a fox"])
    assert cut.values == scorer(bert).score("red " * 64, ["a fox"]).values


def test_an_encoder_whose_tokenizer_pads_on_the_left_gives_batches_the_scores_of_singles(tmp_path: Path):
    model = scorer(change_tokenizer(save_bert(tmp_path), padding_side="left"))
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "left"
    np.testing.assert_allclose(model.score(QUERY, TEXTS).values, singles(model, TEXTS), atol=1e-4)


@modules_only
def test_the_window_that_a_model_was_saved_with_is_kept(tmp_path: Path):
    folder = save_bert(tmp_path)
    model = CrossEncoder(str(folder), device="cpu")
    model[0].processing_kwargs = {"text": {"max_length": 40}}
    model.save_pretrained(str(tmp_path / "short"))
    saved = CrossEncoder(str(tmp_path / "short"), device="cpu")
    expected = saved.predict([(QUERY, text) for text in TEXTS], activation_fn=torch.nn.Identity(), batch_size=1)
    scores = scorer(tmp_path / "short").score(QUERY, TEXTS)
    np.testing.assert_allclose(scores.values, expected, atol=1e-4)
    assert scores.warnings[0].startswith("1 of 4 documents reach the window of 40 tokens")


@modules_only
def test_a_template_that_repeats_the_document_stays_within_the_window(tmp_path: Path):
    document = "{% for m in messages if m.role == 'document' %}{{ m.content }}{% endfor %}"
    template = CHAT_TEMPLATE.replace(document, f"{document} {document} {document}")
    folder = save_causal(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    model = scorer(folder)
    assert np.isfinite(model.score(QUERY, TEXTS).values).all()
    pairs = model._pairs
    assert max(len(row.ids) for row in pairs.rows(pairs.query(QUERY, None), TEXTS)) <= pairs.window


@modules_only
def test_an_instruction_that_the_template_would_drop_is_refused(tmp_path: Path):
    folder = save_causal(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = tokenizer.chat_template.replace("m.role == 'system'", "m.role == 'nobody'")
    tokenizer.save_pretrained(folder)
    with pytest.raises(InvalidInputError, match="has no place for an instruction"):
        scorer(folder).score(QUERY, TEXTS, instruction="judge the color")


def test_a_classifier_without_a_padding_token_is_scored_pair_by_pair(tmp_path: Path):
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    folder = save_causal(tmp_path, template=False)
    torch.manual_seed(5)
    config = Qwen3Config.from_pretrained(folder)
    config.pad_token_id, config.num_labels = None, 1
    Qwen3ForSequenceClassification(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    model = scorer(folder)
    scores = model.score(QUERY, TEXTS).values
    assert AutoTokenizer.from_pretrained(folder).pad_token_id is None
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores, singles(model, TEXTS), atol=1e-5)


@pytest.mark.parametrize("scheme", ["cross-encoder", "embedding", "late-interaction"])
def test_a_folder_that_does_not_exist_and_a_device_that_is_none_show_at_once(scheme: str):
    with pytest.raises(ValueError, match=r"There is no folder '\./nowhere' to load a model from"):
        Reranker(f"{scheme}:./nowhere", on_error="passthrough")
    with pytest.raises(ValueError, match="device must be such as"):
        Reranker(f"{scheme}:any", device="gpu", on_error="passthrough")


def test_loading_and_long_queries_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    folder = save_bert(tmp_path)
    capfd.readouterr()
    scorer(folder, long_query="truncate").score("red " * 300, TEXTS)
    assert capfd.readouterr() == ("", "")
