"""Bi-encoder scores against the cosine of the model's own embeddings, one text at a time."""

from __future__ import annotations

import math
import socket
import sys
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from uprank.errors import ConfigurationError, MissingDependencyError, ModelLoadError, QueryTooLongError
from uprank.scorers import EmbeddingScorer, ScoreRequest, Scores

QUERY = "what does the quick red fox see"
TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "blue whale",
    "paris is the capital of france and berlin the capital of germany",
    "x",
    "how to read a csv file into a list with python, and how to write one under the river",
]


@pytest.fixture(scope="module")
def folder(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bi-encoder with prompts, its vectors not normalised."""
    from sentence_transformers.models import Pooling, Transformer

    modules = [Transformer(str(tiny_models["bert"])), Pooling(32, pooling_mode="mean")]
    model = SentenceTransformer(modules=modules, prompts={"query": "query ", "document": "document "}, device="cpu")
    folder = tmp_path_factory.mktemp("bi-encoder")
    model.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def scorer(folder: Path) -> EmbeddingScorer:
    return EmbeddingScorer(str(folder), store=False)


def cosine(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True)) / (math.hypot(*first) * math.hypot(*second))


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[float]:
    model = SentenceTransformer(str(folder), device="cpu")
    query = model.encode("query " + QUERY).tolist()
    return [cosine(query, model.encode("document " + text).tolist()) for text in TEXTS]


def test_scores_equal_single_text_cosines_with_the_models_prompts(scorer: EmbeddingScorer, expected: list[float]):
    scores = scorer.score(QUERY, TEXTS)
    assert scores.kind == scorer.score_kind == "cosine"
    assert list(scores.values) == pytest.approx(expected, abs=1e-5)
    assert len(set(scores.values)) == len(TEXTS)
    # [CLS] query red fox [SEP], [CLS] document fox [SEP]
    assert scorer.score("red fox", ["fox"]).usage.tokens == 5 + 4


@pytest.mark.parametrize("token_budget", [1, 24, None])
def test_batches_equal_single_texts(folder: Path, expected: list[float], token_budget: int | None):
    scores = EmbeddingScorer(str(folder), token_budget=token_budget).score(QUERY, TEXTS)
    assert list(scores.values) == pytest.approx(expected, abs=1e-5)


def test_requests_of_one_call_equal_separate_calls(scorer: EmbeddingScorer):
    requests = [ScoreRequest("red fox", TEXTS[:3]), ScoreRequest("capital", TEXTS[1:])]
    for request, outcome in zip(requests, scorer.score_many(requests), strict=True):
        assert isinstance(outcome, Scores)
        alone = scorer.score(request.query, request.texts).values
        assert list(outcome.values) == pytest.approx(list(alone), abs=1e-5)


def test_cosines_stay_in_range(scorer: EmbeddingScorer, folder: Path, tmp_path: Path):
    model = SentenceTransformer(str(folder), device="cpu")
    model.prompts = {"query": "", "document": ""}
    model.save(str(tmp_path))
    same = EmbeddingScorer(str(tmp_path))
    assert all(same.score(text, [text]).values[0] == pytest.approx(1.0, abs=1e-6) for text in TEXTS)
    assert all(same.score(text, [text]).values[0] <= 1.0 for text in TEXTS)


def test_zero_vectors_score_zero(tmp_path: Path):
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "fox": 1, "whale": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 1.0]]).numpy()
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)]).save(str(tmp_path))
    scorer = EmbeddingScorer(str(tmp_path))
    scores = scorer.score("fox", ["dog", "", "fox", "whale", "dog " * 2_000])
    assert list(scores.values) == pytest.approx([0.0, 0.0, 1.0, -math.sqrt(0.5), 0.0], abs=1e-6)
    assert scores.warnings == ()  # no window, nothing cut
    assert list(scorer.score("dog", ["fox", "whale"]).values) == [0.0, 0.0]


def test_the_window_can_be_set_and_is_kept(folder: Path):
    scorer = EmbeddingScorer(str(folder), max_length=8)
    head = "red green blue fox whale"  # with [CLS], the prompt and [SEP], 8 tokens
    scores = scorer.score("fox", [head + " dog", head + " cat", "dog"])
    assert scores.values[0] == pytest.approx(scores.values[1], abs=1e-6)
    assert scores.warnings == ("2 of 3 documents reach the window of 8 tokens; text beyond it was not read.",)
    outcomes = scorer.score_many([ScoreRequest(head + " dog", ["fox"]), ScoreRequest(head, ["fox"])])
    assert isinstance(outcomes[0], QueryTooLongError)
    assert isinstance(outcomes[1], Scores)
    cut = EmbeddingScorer(str(folder), max_length=8, long_query="truncate").score(head + " dog", ["fox"])
    assert list(cut.values) == pytest.approx(list(outcomes[1].values), abs=1e-6)


def test_strange_texts_are_scored(scorer: EmbeddingScorer):
    texts = ["", "\x00", "\x01\x02", "fox\x00", "fox " * 250_000, "https://example.org/fox.png", "🦊"]
    assert all(-1.0 <= value <= 1.0 for value in scorer.score(QUERY, texts).values)


@pytest.fixture
def seeing_folder(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A tiny CLIP, which reads texts and images."""
    pytest.importorskip("PIL", reason="images need Pillow")
    modules = pytest.importorskip("sentence_transformers.base.modules", reason="needs sentence-transformers 5.4")
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokenizer = AutoTokenizer.from_pretrained(tiny_models["xlm-roberta"], model_max_length=64)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(tmp_path / "clip")
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "eos_token_id": 2, "pad_token_id": 1, **layers}
    vision = {"image_size": 32, "patch_size": 16, **layers}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    SentenceTransformer(modules=[modules.Transformer(str(tmp_path / "clip"))]).save(str(tmp_path / "model"))
    return tmp_path / "model"


def test_a_text_that_looks_like_an_images_address_is_not_fetched(seeing_folder: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address) or [])
    scores = EmbeddingScorer(str(seeing_folder)).score("https://example.org/q.png", ["https://example.org/fox.png"])
    assert -1.0 <= scores.values[0] <= 1.0
    assert not [address for address in asked if "example.org" in str(address)]


@pytest.mark.no_cover
def test_ten_thousand_documents(scorer: EmbeddingScorer):
    texts = [f"fox {number}" for number in range(10_000)]
    values = scorer.score(QUERY, texts).values
    assert values[7_777] == pytest.approx(scorer.score(QUERY, [texts[7_777]]).values[0], abs=1e-5)


def test_the_model_can_be_closed_and_used_again(folder: Path, expected: list[float]):
    scorer = EmbeddingScorer(str(folder))
    scorer.score(QUERY, TEXTS)
    scorer.close()
    assert scorer._runner is None
    assert list(scorer.score(QUERY, TEXTS).values) == pytest.approx(expected, abs=1e-5)


def test_what_cannot_work_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigurationError, match="dtype"):
        EmbeddingScorer(str(folder), dtype="half")
    with pytest.raises(ConfigurationError, match="int8"):
        EmbeddingScorer(str(folder), dtype="int8")
    with pytest.raises(ConfigurationError, match="at most 128"):
        EmbeddingScorer(str(folder), max_length=500).score("fox", ["dog"])
    with pytest.raises(ModelLoadError, match=r"embedding:.*could not be loaded"):
        EmbeddingScorer(str(tmp_path)).score("fox", ["dog"])
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "uprank\[local\]"'):
        EmbeddingScorer(str(folder))
