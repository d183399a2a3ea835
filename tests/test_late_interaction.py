"""Late interaction against slow reference computations, on tiny models built here."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from uprank import Reranker
from uprank.errors import (
    ConfigurationError,
    MissingDependencyError,
    ModelLoadError,
    QueryTooLongError,
    ScorerError,
)
from uprank.scorers import LateInteractionScorer, ScoreRequest, Scores
from uprank.scorers.local.embedded import EmbeddedScorer
from uprank.scorers.local.encoders import TorchModel
from uprank.scorers.local.tokenizing import TokenisedText
from uprank.scorers.local.vector_scorer import VectorScorer
from uprank.scorers.local.vectors.encoded import Encoded

QUERY = "what does the quick red fox see"
TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "blue whale",
    "paris is the capital of france and berlin the capital of germany",
    "x",
    "fox",
    "how to read a csv file into a list with python, and how to write one under the river",
    "fox whale",
]


def scored(outcome: Scores | Exception) -> Scores:
    assert isinstance(outcome, Scores), outcome
    return outcome


class Reference:
    """MaxSim in plain Python, one text at a time."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModel.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def vectors(self, text: str) -> list[list[float]]:
        ids = self.tokenizer(text)["input_ids"]
        hidden = self.model(torch.tensor([ids])).last_hidden_state[0, 1:-1]  # without [CLS] and [SEP]
        return [[float(x) / math.hypot(*token) for x in token] for token in hidden.tolist()]

    def score(self, query: str, text: str) -> float:
        documents = self.vectors(text)
        best = [
            max(sum(a * b for a, b in zip(wanted, given, strict=True)) for given in documents)
            for wanted in self.vectors(query)
        ]
        return sum(best) / len(best)


@pytest.fixture(scope="module")
def folder(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["bert"]


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference(folder)


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Iterator[LateInteractionScorer]:
    """One that keeps nothing: what is tested here is computed, not remembered."""
    scorer = LateInteractionScorer(str(folder), store=False)
    yield scorer
    scorer.close()


def test_scores_equal_single_text_loops(scorer: LateInteractionScorer, reference: Reference):
    scores = scorer.score(QUERY, TEXTS)
    assert scores.kind == scorer.score_kind == "cosine"
    assert scores.native is None
    assert list(scores.values) == pytest.approx([reference.score(QUERY, text) for text in TEXTS], abs=1e-5)
    assert len(set(scores.values)) == len(TEXTS)  # a model that tells nothing apart would prove nothing


@pytest.mark.parametrize("token_budget", [1, 24, 100_000])
def test_batches_equal_single_texts(folder: Path, scorer: LateInteractionScorer, token_budget: int):
    singles = [scorer.score(QUERY, [text]).values[0] for text in TEXTS]
    batched = LateInteractionScorer(str(folder), token_budget=token_budget).score(QUERY, TEXTS)
    assert list(batched.values) == pytest.approx(singles, abs=1e-5)


def test_requests_of_one_call_equal_separate_calls(scorer: LateInteractionScorer):
    requests = [
        ScoreRequest("red fox", TEXTS[:4]),
        ScoreRequest("capital of germany", TEXTS[2:]),
        ScoreRequest("red fox", TEXTS[5:]),
    ]
    for request, outcome in zip(requests, scorer.score_many(requests), strict=True):
        alone = scorer.score(request.query, request.texts)
        together = scored(outcome)
        assert list(together.values) == pytest.approx(list(alone.values), abs=1e-5)
        assert together.usage.tokens == alone.usage.tokens


def test_a_text_given_twice_is_scored_twice(scorer: LateInteractionScorer):
    requests = [ScoreRequest("red fox", ["whale", "whale"]), ScoreRequest("dog", ["river"])]
    twice, other = map(scored, scorer.score_many(requests))
    assert list(twice.values) == pytest.approx(list(scorer.score("red fox", ["whale"]).values) * 2, abs=1e-5)
    assert list(other.values) == pytest.approx(list(scorer.score("dog", ["river"]).values), abs=1e-5)


def test_tokens_are_counted_without_padding(scorer: LateInteractionScorer):
    # [CLS] red fox [SEP] + [CLS] fox [SEP] + [CLS] quick brown fox [SEP]
    assert scorer.score("red fox", ["fox", "quick brown fox"]).usage.tokens == 4 + 3 + 5


def test_each_text_is_encoded_once_however_many_requests_share_it(folder: Path):
    scorer = LateInteractionScorer(str(folder), engine="torch", store=False)
    scorer.score("fox", ["dog"])
    rows: list[int] = []
    model = scorer._runner.encoder.model.model
    model.register_forward_pre_hook(lambda _, __, given: rows.append(len(given["input_ids"])), with_kwargs=True)
    scorer.score_many([ScoreRequest(query, TEXTS) for query in ("red fox", "whale", "red fox", "river")])
    assert sum(rows) == 3 + len(TEXTS)  # three different queries, and each text


def test_vectors_of_documents_are_let_go_batch_by_batch(folder: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[weakref.ref[np.ndarray]] = []
    most = 0
    run = TorchModel.run

    def watched(self: TorchModel, *arguments: object) -> Encoded:
        nonlocal most
        encoded = run(self, *arguments)
        made.append(weakref.ref(encoded.host()))
        most = max(most, sum(one() is not None for one in made))
        return encoded

    monkeypatch.setattr(TorchModel, "run", watched)
    scorer = LateInteractionScorer(str(folder), engine="torch", token_budget=64, store=False)
    scorer.score(QUERY, [f"fox {n}" for n in range(200)])
    assert most <= 2  # the batch at work, and the one before it


def test_d23_a_pad_token_never_wins(scorer: LateInteractionScorer, reference: Reference):
    """PyLate's rank() pads without a mask: where every real similarity is negative, a pad token wins with 0."""
    words = sorted({word for text in TEXTS for word in text.split()} | {"red", "when", "cat", "time", "river"})
    token = {word: torch.tensor(reference.vectors(word)[0]) for word in words}
    query, text = min(((a, b) for a in words for b in words), key=lambda pair: float(token[pair[0]] @ token[pair[1]]))
    alone = reference.score(query, text)
    assert alone < -0.05  # else this test proves nothing
    together = scorer.score(query, [text, " ".join(TEXTS)]).values
    assert together[0] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("text", ["", " ", "\x00", "\x01\x02\x7f", "\ufffd"])
def test_a_text_without_tokens_has_the_lowest_score(scorer: LateInteractionScorer, text: str):
    assert scorer.score(QUERY, ["fox", text, "whale"]).values[1] == -1.0
    assert scorer.score(QUERY, [text]).values == [-1.0]


def test_a_query_without_tokens_scores_all_lowest_and_says_so(scorer: LateInteractionScorer):
    scores = scorer.score("\x01", ["fox", "whale"])
    assert list(scores.values) == [-1.0, -1.0]
    assert "no token" in scores.warnings[0]


def test_special_tokens_spelled_out_in_a_text_are_text(scorer: LateInteractionScorer):
    assert scorer.score(QUERY, ["[SEP]"]).values[0] > -1.0


def test_unknown_tokens_are_scored(scorer: LateInteractionScorer):
    assert scorer.score(QUERY, ["鯨"]).values[0] > -1.0  # [UNK], a special token to the tokenizer


def test_strange_texts_are_scored(scorer: LateInteractionScorer):
    megabyte = "fox whale " * 100_000
    texts = ["fox\x00whale", "fox\x01", megabyte, "🦊" * 50, "\u202efox", "fox " * 300]
    scores = scorer.score(QUERY, texts)
    assert all(-1.0 < value <= 1.0 for value in scores.values)
    assert scores.warnings == ("2 of 6 documents reach the window of 128 tokens; text beyond it was not read.",)


def test_text_beyond_the_window_is_not_read(folder: Path):
    scorer = LateInteractionScorer(str(folder), max_length=8)
    start = "red green blue fox whale dog"  # with [CLS] and [SEP], 8 tokens
    scores = scorer.score("fox", [start + " cat", start + " paris berlin", "dog"])
    assert scores.values[0] == pytest.approx(scores.values[1], abs=1e-6)
    assert scores.warnings == ("2 of 3 documents reach the window of 8 tokens; text beyond it was not read.",)
    assert scores.usage.tokens == 3 + 8 + 8 + 3


@pytest.mark.no_cover
def test_ten_thousand_documents(scorer: LateInteractionScorer, reference: Reference):
    texts = [f"fox {number}" for number in range(10_000)]
    values = scorer.score(QUERY, texts).values
    assert len(values) == 10_000
    for index in (0, 5_000, 9_999):
        assert values[index] == pytest.approx(reference.score(QUERY, texts[index]), abs=1e-5)


def test_a_query_of_the_whole_window_is_read_and_a_longer_one_refused(folder: Path):
    scorer = LateInteractionScorer(str(folder), max_length=16)
    full, long = " ".join(["fox"] * 14), " ".join(["fox"] * 15)
    outcomes = scorer.score_many([ScoreRequest(long, ["fox"]), ScoreRequest(full, ["fox"])])
    assert isinstance(outcomes[0], QueryTooLongError)
    assert "17 tokens" in str(outcomes[0])
    assert "16" in str(outcomes[0])
    assert scored(outcomes[1]).warnings == ()
    with pytest.raises(QueryTooLongError):
        Reranker(scorer).rank(long, ["fox"])


def test_a_long_query_is_cut_on_request(folder: Path):
    scorer = LateInteractionScorer(str(folder), max_length=16, long_query="truncate")
    head = " ".join(["fox", "whale"] * 7)
    cut = scorer.score(head + " paris", ["dog", "paris"])
    assert list(cut.values) == pytest.approx(list(scorer.score(head, ["dog", "paris"]).values), abs=1e-6)
    assert "cut to 16" in cut.warnings[0]


def test_only_out_of_memory_halves_the_batch(folder: Path, scorer: LateInteractionScorer):
    expected = scorer.score(QUERY, TEXTS).values
    short = LateInteractionScorer(str(folder), engine="torch", store=False)
    short.score("fox", ["dog"])
    sizes: list[int] = []

    def out_of_memory(_: object, __: object, given: dict[str, torch.Tensor]) -> None:
        sizes.append(len(given["input_ids"]))
        if len(given["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    hook = short._runner.encoder.model.model.register_forward_pre_hook(out_of_memory, with_kwargs=True)
    assert list(short.score(QUERY, TEXTS).values) == pytest.approx(list(expected), abs=1e-5)
    assert max(sizes) > 2
    hook.remove()

    def broken(*_: object) -> None:
        raise RuntimeError("wrong shape")

    short._runner.encoder.model.model.register_forward_pre_hook(broken)
    with pytest.raises(ScorerError, match="wrong shape"):
        Reranker(short).rank(QUERY, TEXTS)


def test_the_model_can_be_closed_and_used_again(folder: Path):
    scorer = LateInteractionScorer(str(folder))
    before = scorer.score(QUERY, TEXTS).values
    scorer.close()
    assert scorer._runner is None
    assert list(scorer.score(QUERY, TEXTS).values) == pytest.approx(list(before), abs=1e-6)
    scorer.close()
    scorer.close()


async def test_concurrent_tasks_get_their_own_scores(scorer: LateInteractionScorer):
    queries = [f"{a} {b}" for a in ("red", "blue", "green") for b in ("fox", "whale", "dog", "paris")]
    expected = [scorer.score(query, TEXTS).values for query in queries]
    answers = await asyncio.gather(*(scorer.ascore(query, TEXTS) for query in queries))
    for answer, values in zip(answers, expected, strict=True):
        assert list(answer.values) == pytest.approx(list(values), abs=1e-5)


def test_a_plain_transformer_gets_no_random_projection(folder: Path, scorer: LateInteractionScorer):
    again = LateInteractionScorer(str(folder))
    assert list(again.score(QUERY, TEXTS).values) == pytest.approx(list(scorer.score(QUERY, TEXTS).values), abs=1e-6)


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "modernbert"])
def test_other_architectures_equal_single_text_loops(tiny_models: dict[str, Path], name: str):
    reference = Reference(tiny_models[name])
    expected = [reference.score(QUERY, text) for text in TEXTS]
    for engine in ("torch", "openvino", "onnx"):
        scorer = LateInteractionScorer(str(tiny_models[name]), engine=engine, dtype="float32")
        assert list(scorer.score(QUERY, TEXTS).values) == pytest.approx(expected, abs=1e-5)


def test_positions_of_roberta_are_counted_from_the_padding(tiny_models: dict[str, Path], tmp_path: Path):
    copy = shutil.copytree(tiny_models["xlm-roberta"], tmp_path / "model")
    config = copy / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"model_max_length": 128', '"model_max_length": 100000'))
    scores = LateInteractionScorer(str(copy)).score("fox", ["whale " * 200])
    assert "the window of 128 tokens" in scores.warnings[0]  # 130 positions, of which two are never used


def test_half_precision_is_close(folder: Path, scorer: LateInteractionScorer):
    values = LateInteractionScorer(str(folder), engine="torch", dtype="bfloat16").score(QUERY, TEXTS).values
    assert list(values) == pytest.approx(list(scorer.score(QUERY, TEXTS).values), abs=0.05)
    assert list(values) != list(scorer.score(QUERY, TEXTS).values)


def test_progress_is_shown_on_request_only(folder: Path, capfd: pytest.CaptureFixture[str]):
    scorer = LateInteractionScorer(str(folder))
    scorer.score("fox", ["dog"])
    capfd.readouterr()
    scorer.score("fox", TEXTS)
    assert capfd.readouterr() == ("", "")
    scorer._progress = True
    scorer.score("fox", TEXTS)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capfd.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float64"},
        {"token_budget": 0},
        {"token_budget": True},
        {"max_length": 7},
        {"max_length": True},
        {"max_length": 12.5},
        {"long_query": "cut"},
    ],
)
def test_options_out_of_range_are_refused(folder: Path, options: dict[str, object]):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        LateInteractionScorer(str(folder), **options)


def test_a_window_beyond_the_models_positions_is_refused(folder: Path):
    with pytest.raises(ConfigurationError, match="at most 128"):
        LateInteractionScorer(str(folder), max_length=129).score("fox", ["dog"])


def test_missing_packages_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "uprank\[local\]"'):
        LateInteractionScorer(str(folder), engine="torch")


@pytest.mark.parametrize("options", [{"engine": "onnx"}, {"engine": "openvino"}, {"dtype": "int8"}])
def test_what_only_a_cpu_runs_is_run_there(folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]):
    monkeypatch.setattr("uprank.scorers.local.loading.pick_device", lambda device: device or "cuda")
    makers: tuple[Callable[..., VectorScorer], ...] = (partial(LateInteractionScorer, str(folder)), EmbeddedScorer)
    for make in makers:
        assert len(make(**options).score("fox", ["dog"]).values) == 1
        with pytest.raises(ConfigurationError, match="not on 'cuda'"):
            make(**options, device="cuda").score("fox", ["dog"])


def test_a_model_with_code_of_its_own_is_not_exported(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder, tmp_path / "model")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "own.Model"}}))
    with pytest.raises(ModelLoadError, match="Python code of its own"):
        LateInteractionScorer(str(copy), engine="openvino").score("fox", ["dog"])


def test_a_text_that_no_tokenizer_reads_fails_its_own_requests(folder: Path, monkeypatch: pytest.MonkeyPatch):
    scorer = LateInteractionScorer(str(folder))
    expected = scorer.score("fox", TEXTS).values
    tokenizer = scorer._loaded().encoder._tokenizer
    texts = tokenizer.texts

    def strict(given: Sequence[str], window: int | None) -> list[TokenisedText]:
        if "unreadable" in given:
            raise ValueError("no such character")
        return texts(given, window)

    monkeypatch.setattr(tokenizer, "texts", strict)
    good, query, document = scorer.score_many(
        [ScoreRequest("fox", TEXTS), ScoreRequest("unreadable", TEXTS), ScoreRequest("fox", ["new", "unreadable"])]
    )
    assert list(scored(good).values) == pytest.approx(list(expected), abs=1e-5)
    assert [str(query), str(document)] == ["no such character"] * 2
    with pytest.raises(ScorerError, match="no such character"):
        scorer.precompute(["another", "unreadable"])


def test_the_bar_of_a_call_that_fails_is_closed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    scorer = LateInteractionScorer(str(folder), progress=True)
    scorer.score("fox", ["dog"])
    assert not tqdm._instances

    def fail(rows: object, lane: int) -> Encoded:
        raise ValueError("wrong shape")

    monkeypatch.setattr(scorer._loaded(), "run", fail)
    gc.disable()  # not left to the collector, which may come much later
    try:
        assert [str(outcome) for outcome in scorer.score_many([ScoreRequest("fox", ["whale"])])] == ["wrong shape"]
        deadline = time.monotonic() + 2
        while tqdm._instances and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not tqdm._instances
    finally:
        gc.enable()


def test_a_failed_load_is_tried_again(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder, tmp_path / "model")
    weights = (copy / "model.safetensors").rename(tmp_path / "aside")
    scorer = LateInteractionScorer(str(copy))
    for _ in range(2):
        with pytest.raises(ModelLoadError, match=r"late-interaction:.*could not be loaded"):
            scorer.score("fox", ["dog"])
    weights.rename(copy / "model.safetensors")
    assert -1.0 <= scorer.score("fox", ["dog"]).values[0] <= 1.0


def test_importing_the_local_scorers_imports_no_model_library():
    modules = ("late_interaction", "embedded", "embedding", "bm25")
    heavy = ("torch", "transformers", "sentence_transformers", "onnxruntime", "openvino", "bm25s", "numpy")
    code = "; ".join(f"import uprank.scorers.local.{module}" for module in modules)
    code += f"; import sys; sys.exit(', '.join(m for m in {heavy} if m in sys.modules) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
