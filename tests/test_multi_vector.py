"""Late interaction through sentence-transformers' MultiVectorEncoder, on a tiny ColBERT-type model."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path

import pytest
import sentence_transformers
import torch

from uprank.errors import ModelLoadError, QueryTooLongError
from uprank.scorers import LateInteractionScorer, ScoreRequest, Scores
from uprank.scorers.local.files import ModelFiles
from uprank.scorers.local.late_interaction import _is_multi_vector

pytestmark = pytest.mark.skipif(
    not hasattr(sentence_transformers, "MultiVectorEncoder"), reason="needs sentence-transformers 6 or later"
)

QUERY = "what does the quick red fox see"
TEXTS = [
    "the quick brown fox jumps over the lazy dog!",
    "blue whale",
    "paris, the capital of france; berlin, the capital of germany.",
    "x",
    "how to read a csv file into a list with python, and how to write one under the river",
]
EXPANSION = {"strategy": "fixed", "attend": False, "length": 16}

Build = Callable[..., "sentence_transformers.MultiVectorEncoder"]


@pytest.fixture(scope="module")
def build(tiny_models: dict[str, Path]) -> Build:
    """Makes a ColBERT-type model: BERT, a projection, a scoring mask, unit vectors."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    def make(
        *, expansion: dict[str, object] | None = None, skip: list[str] | None = None, unit: bool = True
    ) -> MultiVectorEncoder:
        torch.manual_seed(7)
        backbone = Transformer(str(tiny_models["bert"]), query_expansion=expansion, document_length=48)
        projection = Dense(
            32, 6, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"
        )
        mask = MultiVectorMask(skiplist_words=list(string.punctuation) if skip is None else skip)
        modules = [backbone, projection, mask] + [Normalize(module_input_name="token_embeddings")] * unit
        prompts = {"query": "query ", "document": "document "}
        return MultiVectorEncoder(modules=modules, prompts=prompts, device="cpu")

    return make


@pytest.fixture(scope="module")
def saved(build: Build, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a model with query expansion and of one without."""
    folders = {}
    for name, expansion in {"expanding": EXPANSION, "plain": None}.items():
        folders[name] = tmp_path_factory.mktemp(name)
        build(expansion=expansion).save(str(folders[name]))
    return folders


def expected(model: sentence_transformers.MultiVectorEncoder, query: str, texts: list[str]) -> list[float]:
    """The model's own MaxSim, one text at a time, over the number of query tokens."""
    wanted = model.encode_query([query])
    sums = [float(model.similarity(wanted, model.encode_document([text]))) for text in texts]
    return [value / len(wanted[0]) for value in sums]


@pytest.mark.parametrize("name", ["expanding", "plain"])
@pytest.mark.parametrize("token_budget", [1, 40, None])
def test_scores_equal_the_models_own_similarity(saved: dict[str, Path], name: str, token_budget: int | None):
    model = sentence_transformers.MultiVectorEncoder(str(saved[name]), device="cpu")
    scorer = LateInteractionScorer(str(saved[name]), token_budget=token_budget)
    scores = scorer.score(QUERY, TEXTS)
    assert scores.kind == "cosine"
    assert list(scores.values) == pytest.approx(expected(model, QUERY, TEXTS), abs=1e-5)


def test_prompts_expansion_and_masks_are_the_models_own(saved: dict[str, Path]):
    values = {name: LateInteractionScorer(str(folder)).score(QUERY, TEXTS).values for name, folder in saved.items()}
    assert list(values["expanding"]) != pytest.approx(list(values["plain"]), abs=1e-3)
    scorer = LateInteractionScorer(str(saved["plain"]))
    scorer.score("fox", ["fox"])
    encoder = scorer._runner.encoder
    vectors = encoder.encode([text.payload for text in encoder.documents(["fox!!", "fox"])], queries=False, lane=0)
    assert vectors.counts == [4, 4]  # [CLS] document fox [SEP]: the marks are skipped


def test_a_model_that_does_not_normalise_gives_cosines_too(build: Build, tmp_path: Path):
    build(unit=False).save(str(tmp_path))
    unit = build(unit=True)
    scores = LateInteractionScorer(str(tmp_path)).score(QUERY, TEXTS)
    assert list(scores.values) == pytest.approx(expected(unit, QUERY, TEXTS), abs=1e-5)
    assert all(-1.0 <= value <= 1.0 for value in scores.values)


def test_d23_zero_vectors_of_padding_never_win(build: Build, tmp_path: Path):
    """PyLate's rank() pads documents with zero vectors: where all similarities are negative, they win with 0."""
    skip = ["[CLS]", "[SEP]", "document", *string.punctuation]
    build(skip=skip).save(str(tmp_path))
    model = sentence_transformers.MultiVectorEncoder(str(tmp_path), device="cpu")
    scorer = LateInteractionScorer(str(tmp_path))
    words = ["fox", "whale", "dog", "river", "paris", "json", "blue", "over", "csv", "time", "when", "cat"]
    vectors = model.encode_query(words), model.encode_document(words)
    lowest = int((model.similarity(*vectors) / torch.tensor([[len(rows)] for rows in vectors[0]])).argmin())
    query, text = words[lowest // len(words)], words[lowest % len(words)]
    (alone,) = expected(model, query, [text])
    assert alone < -0.05  # else this test proves nothing
    values = scorer.score(query, [text, *TEXTS]).values
    assert values[0] == pytest.approx(alone, abs=1e-5)


def test_a_document_without_scored_tokens_has_the_lowest_score(build: Build, tmp_path: Path):
    build(skip=["[CLS]", "[SEP]", "document", "!"]).save(str(tmp_path))
    scorer = LateInteractionScorer(str(tmp_path))
    assert scorer.score(QUERY, ["!", "fox"]).values[0] == -1.0
    assert scorer.score(QUERY, ["!", "! !"]).values == [-1.0, -1.0]


def test_requests_of_one_call_equal_separate_calls(saved: dict[str, Path]):
    scorer = LateInteractionScorer(str(saved["expanding"]))
    requests = [ScoreRequest("red fox", TEXTS[:3]), ScoreRequest("capital", TEXTS[1:]), ScoreRequest("x", ["fox"])]
    for request, outcome in zip(requests, scorer.score_many(requests), strict=True):
        assert isinstance(outcome, Scores)
        alone = scorer.score(request.query, request.texts).values
        assert list(outcome.values) == pytest.approx(list(alone), abs=1e-5)


def test_an_expanded_query_is_never_cut_in_silence(saved: dict[str, Path]):
    fits = " ".join(["fox"] * 13)  # with [CLS], the prompt and [SEP], 16 tokens
    scorer = LateInteractionScorer(str(saved["expanding"]))
    outcomes = scorer.score_many([ScoreRequest(fits, ["dog"]), ScoreRequest(fits + " fox", ["dog"])])
    assert isinstance(outcomes[0], Scores)
    assert isinstance(outcomes[1], QueryTooLongError)
    cut = LateInteractionScorer(str(saved["expanding"]), long_query="truncate").score(fits + " fox", ["dog"])
    assert "cut to 16" in cut.warnings[0]
    assert list(cut.values) == pytest.approx(list(outcomes[0].values), abs=1e-5)


def test_the_window_of_documents_is_the_models_own_or_the_callers(saved: dict[str, Path]):
    long = "fox " * 200
    own = LateInteractionScorer(str(saved["plain"])).score(QUERY, [long, "dog"])
    assert own.warnings == ("1 of 2 documents reach the window of 48 tokens; text beyond it was not read.",)
    wider = LateInteractionScorer(str(saved["plain"]), max_length=100)
    assert "window of 100 tokens" in wider.score(QUERY, [long]).warnings[0]
    encoder = wider._runner.encoder
    (text,) = encoder.documents([long])
    assert text.length == 100
    assert encoder.encode([text.payload], queries=False, lane=0).counts == [100]


def test_models_saved_by_pylate_are_read_as_multi_vector(saved: dict[str, Path], tmp_path: Path):
    files = ModelFiles.find(str(tmp_path))
    settings = tmp_path / "config_sentence_transformers.json"
    for content in ({"model_type": "ColBERT"}, {"query_prefix": "[Q] "}, {"document_prefix": "[D] "}):
        settings.write_text(json.dumps(content))
        assert _is_multi_vector(files)
    settings.write_text(json.dumps({"model_type": "SentenceTransformer"}))
    assert not _is_multi_vector(files)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["HF_ColBERT"]}))
    assert _is_multi_vector(files)


def test_an_older_sentence_transformers_is_told_apart(saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(sentence_transformers, "MultiVectorEncoder")
    with pytest.raises(ModelLoadError, match="sentence-transformers>=6"):
        LateInteractionScorer(str(saved["plain"])).score("fox", ["dog"])
