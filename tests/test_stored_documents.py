"""Scorers that keep document vectors: a document seen before is not read again, and scores as before."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from uprank import Reranker
from uprank.errors import ConfigurationError, ScorerError
from uprank.scorers import EmbeddingScorer, LateInteractionScorer, ScoreRequest, Scores
from uprank.scorers.local.embedded import EmbeddedScorer
from uprank.scorers.local.engines.exported import load_exported
from uprank.scorers.local.files import ModelFiles
from uprank.scorers.local.jobs import Row
from uprank.scorers.local.vector_scorer import VectorScorer
from uprank.scorers.local.vectors.encoded import DeviceVectors, Encoded
from uprank.scorers.local.vectors.maxsim import maxsim

DL19 = Path(__file__).resolve().parents[2] / "shared" / "data" / "trec-dl19" / "candidates.jsonl"
QUERY = "what does the quick red fox see"
TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "blue whale",
    "",
    "paris is the capital of france and berlin the capital of germany",
    "fox " * 200,
    "how to read a csv file into a list with python, and how to write one under the river",
]


@pytest.fixture(scope="module")
def folder(tiny_models: dict[str, Path]) -> str:
    return str(tiny_models["bert"])


class Reads:
    """Notes what a scorer's model reads."""

    def __init__(self, scorer: VectorScorer) -> None:
        scorer.score("fox", ["warm up"])
        self.queries = self.documents = 0
        runner = scorer._loaded()
        run = runner.run

        def noted(rows: Sequence[Row[object]], lane: int) -> Encoded:
            queries = sum(row.place < 0 for row in rows)
            self.queries += queries
            self.documents += len(rows) - queries
            return run(rows, lane)

        runner.run = noted


@pytest.mark.parametrize("dtype", ["auto", "float16", "int8"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_document_seen_before_is_not_read_again_and_scores_the_same(
    folder: str, tmp_path: Path, dtype: str, on_disk: bool
):
    scorer = LateInteractionScorer(folder, store=tmp_path if on_disk else True, store_dtype=dtype)
    reads = Reads(scorer)
    first, again = scorer.score(QUERY, TEXTS), scorer.score(QUERY, TEXTS[::-1])
    assert (reads.queries, reads.documents) == (2, len(TEXTS))
    assert list(again.values[::-1]) == pytest.approx(list(first.values), abs=1e-6)
    assert again.values[::-1][2] == -1.0  # no token
    query_tokens = scorer.score(QUERY, ["fox"]).usage.tokens - 3
    assert again.usage.tokens == query_tokens
    assert first.usage.tokens == query_tokens + scorer.score("fox", TEXTS).usage.tokens - 3 + sum(
        text.length for text in scorer._loaded().encoder.documents(TEXTS)
    )
    assert first.warnings == again.warnings  # the window is told of, also of what was stored
    assert "1 of 6 documents reach the window" in again.warnings[0]
    exact = LateInteractionScorer(folder, store=False).score(QUERY, TEXTS).values
    tolerance = {"auto": 1e-3 if on_disk else 1e-6, "float16": 1e-3, "int8": 0.02}[dtype]
    assert list(first.values) == pytest.approx(list(exact), abs=tolerance)


def test_without_a_store_everything_is_read_again(folder: str):
    for options in ({"store": False}, {"store_memory": 0}):
        scorer = LateInteractionScorer(folder, **options)
        reads = Reads(scorer)
        scorer.score(QUERY, TEXTS)
        scorer.score(QUERY, TEXTS)
        assert reads.documents == 2 * len(TEXTS)


def test_documents_are_precomputed(folder: str, tmp_path: Path):
    scorer = LateInteractionScorer(folder, store=tmp_path)
    reads = Reads(scorer)
    texts = [f"fox {number}" for number in range(2_500)]  # several calls
    assert scorer.precompute(text for text in texts) == 2_500
    assert scorer.precompute(["fox 7", "fox 7", "whale"]) == 1
    assert reads.documents == 2_501
    ranking = Reranker(scorer).rank(QUERY, texts)
    assert reads.documents == 2_501
    assert len(ranking) == 2_500
    scorer.close()
    reopened = LateInteractionScorer(folder, store=tmp_path, store_memory=0)
    reads = Reads(reopened)
    reopened.score(QUERY, [*texts, "whale", "river"])
    assert reads.documents == 1


def test_a_text_given_twice_is_precomputed_once(folder: str, caplog: pytest.LogCaptureFixture):
    scorer = LateInteractionScorer(folder)
    reads = Reads(scorer)
    texts = [f"fox {number}" for number in range(1_024)]  # a group, which runs while the next is looked up
    assert scorer.precompute([*texts, *texts, "whale"]) == reads.documents == 1_025
    assert not caplog.records


def test_precomputing_where_nothing_is_kept_is_refused(folder: str):
    with pytest.raises(ConfigurationError, match="keep no vectors"):
        LateInteractionScorer(folder, store=False).precompute(["fox"])


def test_precomputing_more_than_memory_holds_is_told(folder: str, caplog: pytest.LogCaptureFixture):
    scorer = LateInteractionScorer(folder, store_memory=0.01)
    assert scorer.precompute([f"fox {number}" for number in range(100)]) == 100
    assert "raise store_memory" in caplog.text


def test_a_failing_model_is_a_scorer_error(folder: str):
    scorer = LateInteractionScorer(folder)
    scorer.score("fox", ["warm up"])

    def fail(rows: Sequence[Row[object]], lane: int) -> Encoded:
        raise RuntimeError("wrong shape")

    scorer._loaded().run = fail
    with pytest.raises(ScorerError, match="failed with RuntimeError: wrong shape"):
        scorer.precompute(["fox"])


def test_precomputing_shows_a_bar_on_request(folder: str, capfd: pytest.CaptureFixture[str]):
    scorer = LateInteractionScorer(folder)
    scorer.score("fox", ["whale"])
    capfd.readouterr()
    scorer.precompute(["fox", "whale"])
    assert capfd.readouterr() == ("", "")
    scorer.precompute(["fox", "whale", "river", "river"], progress=True)
    assert "4/4" in capfd.readouterr().err


def test_an_error_in_the_source_of_texts_is_the_callers(folder: str):
    def texts() -> object:
        yield "fox"
        raise OSError("the file is gone")

    scorer = LateInteractionScorer(folder)
    with pytest.raises(OSError, match="the file is gone"):
        scorer.precompute(texts())
    assert len(scorer.score(QUERY, TEXTS).values) == len(TEXTS)


def test_a_text_that_requests_share_is_read_once_and_scored_for_each(folder: str):
    scorer = LateInteractionScorer(folder)
    reads = Reads(scorer)
    requests = [ScoreRequest(query, TEXTS[start:]) for query in ("red fox", "river", "red fox") for start in (0, 2)]
    outcomes = scorer.score_many(requests)
    assert (reads.queries, reads.documents) == (2, len(TEXTS))
    exact = LateInteractionScorer(folder, store=False)
    for request, outcome in zip(requests, outcomes, strict=True):
        assert isinstance(outcome, Scores)
        assert list(outcome.values) == pytest.approx(list(exact.score(request.query, request.texts).values), abs=1e-5)


def test_documents_run_a_second_time_are_scored_and_counted_once(folder: str, monkeypatch: pytest.MonkeyPatch):
    requests = [ScoreRequest(query, TEXTS[:2]) for query in ("red fox", "river", "whale")]
    expected = LateInteractionScorer(folder, store=False).score_many(requests)
    calls = 0

    def short_of_memory(query: object, documents: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:  # the first request has its scores
            raise MemoryError
        return maxsim(query, documents)

    monkeypatch.setattr("uprank.scorers.local.vectors.jobs.maxsim", short_of_memory)
    for outcome, wanted in zip(LateInteractionScorer(folder).score_many(requests), expected, strict=True):
        assert list(outcome.values) == pytest.approx(list(wanted.values), abs=1e-5)
        assert outcome.usage == wanted.usage
    assert calls > 3


def test_thousands_of_queries_in_one_call_hold_few_vectors(folder: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("uprank.scorers.local.vectors.jobs._WAVE", 10)
    scorer = LateInteractionScorer(folder)
    reads = Reads(scorer)
    requests = [ScoreRequest(f"fox {number}", [f"whale {number % 7}", f"river {number}"]) for number in range(95)]
    outcomes = scorer.score_many(requests)
    assert (reads.queries, reads.documents) == (95, 7 + 95)  # what an earlier wave stored is known to the next
    for number in (0, 9, 10, 94):
        alone = scorer.score(requests[number].query, requests[number].texts)
        assert list(outcomes[number].values) == pytest.approx(list(alone.values), abs=1e-5)


def test_eight_threads_and_many_tasks_get_their_own_scores(folder: str, tmp_path: Path):
    scorer = LateInteractionScorer(folder, store=tmp_path, store_memory=0.05)  # small: much is let go
    texts = [f"{a} {b} {n}" for a in ("fox", "whale") for b in ("sea", "river") for n in range(20)]
    queries = ["red fox", "blue whale", "deep sea", "lazy river"]
    expected = {query: list(scorer.score(query, texts).values) for query in queries}
    scorer.close()

    def ask(number: int) -> None:
        query, own = queries[number % 4], texts[number % 30 :]
        values = scorer.score(query, own).values
        assert list(values) == pytest.approx(expected[query][number % 30 :], abs=1e-6)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(40)))

    async def all_at_once() -> None:
        answers = await asyncio.gather(*(scorer.ascore(query, texts) for query in queries * 3))
        for answer, query in zip(answers, queries * 3, strict=True):
            assert list(answer.values) == pytest.approx(expected[query], abs=1e-6)

    asyncio.run(all_at_once())


def test_another_process_finds_what_this_one_stored(folder: str, tmp_path: Path):
    scorer = LateInteractionScorer(folder, store=tmp_path)
    expected = list(scorer.score(QUERY, TEXTS).values)
    program = f"""
from uprank.scorers import LateInteractionScorer
scorer = LateInteractionScorer({folder!r}, store={str(tmp_path)!r})
scores = scorer.score({QUERY!r}, {TEXTS!r} + ["river"])
print([scores.usage.tokens, list(scores.values)])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    tokens, values = json.loads(done.stdout)
    assert values[:-1] == pytest.approx(expected, abs=1e-6)
    assert tokens == scorer.score(QUERY, ["fox"]).usage.tokens  # the query, and "river", which is as long as "fox"


@pytest.mark.parametrize("options", [{"max_length": 64}, {"store_dtype": "int8"}, {"model": "modernbert"}])
def test_a_store_of_another_set_up_is_refused(tiny_models: dict[str, Path], tmp_path: Path, options: dict[str, object]):
    with Reranker(LateInteractionScorer(str(tiny_models["bert"]), store=tmp_path)) as reranker:
        reranker.rank(QUERY, TEXTS)
    other = LateInteractionScorer(str(tiny_models[options.pop("model", "bert")]), store=tmp_path, **options)
    with pytest.raises(ConfigurationError, match="was not made by late-interaction:"):
        Reranker(other, on_error="passthrough").rank(QUERY, TEXTS)


def test_a_store_of_vectors_of_another_kind_is_refused(folder: str, tmp_path: Path):
    EmbeddingScorer(folder, store=tmp_path).precompute(TEXTS)
    with pytest.raises(ConfigurationError, match="vectors is 'text' there, 'tokens' here"):
        LateInteractionScorer(folder, engine="torch", store=tmp_path).score(QUERY, TEXTS)


def test_a_store_made_by_the_onnx_file_that_a_model_ships_is_of_that_file(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("UPRANK_CACHE", str(tmp_path / "cache"))
    exported = load_exported(
        ModelFiles.find(folder), engine="onnx", precision="float32", output="vectors", name="tiny"
    )._path
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.copytree(exported.parent, copy / "onnx")
    LateInteractionScorer(str(copy), engine="onnx", store=tmp_path / "weights").precompute(TEXTS)
    made_by = json.loads((tmp_path / "weights" / "store.json").read_text())["made_by"]
    assert made_by["precision"] == "float32"  # the weights were run
    (copy / "model.safetensors").unlink()
    LateInteractionScorer(str(copy), engine="onnx", store=tmp_path / "shipped").precompute(TEXTS)
    same = LateInteractionScorer(str(copy), engine="openvino", dtype="float32", store=tmp_path / "shipped")
    assert same.precompute(TEXTS) == 0
    weights = next((copy / "onnx").glob("*.data"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ConfigurationError, match="precision is 'float32 of the ONNX file sha256:"):
        LateInteractionScorer(str(copy), engine="onnx", store=tmp_path / "shipped").precompute(TEXTS)


@pytest.mark.parametrize(("vnni", "precision"), [(True, "int8 of onnx"), (False, "7-bit int8 of onnx")])
def test_what_int8_means_here_is_told(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vnni: bool, precision: str
):
    monkeypatch.setattr("uprank.scorers.local.encoders.has_vnni", lambda: vnni)
    LateInteractionScorer(folder, engine="onnx", dtype="int8", store=tmp_path).precompute(TEXTS)
    assert json.loads((tmp_path / "store.json").read_text())["made_by"]["precision"] == precision


def test_the_same_weights_in_another_folder_are_the_same_model(folder: str, tmp_path: Path):
    LateInteractionScorer(folder, store=tmp_path / "store").precompute(TEXTS)
    copy = shutil.copytree(folder, tmp_path / "copy")
    again = LateInteractionScorer(str(copy), store=tmp_path / "store")
    assert again.precompute(TEXTS) == 0
    again.close()
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-06'))
    with pytest.raises(ConfigurationError, match="model is"):
        LateInteractionScorer(str(copy), store=tmp_path / "store").precompute(TEXTS)


def test_engines_share_a_store(folder: str, tmp_path: Path):
    stored = LateInteractionScorer(folder, engine="torch", store=tmp_path)
    expected = list(stored.score(QUERY, TEXTS).values)
    other = LateInteractionScorer(folder, engine="openvino", dtype="float32", store=tmp_path)
    assert other.precompute(TEXTS) == 0
    assert list(other.score(QUERY, TEXTS).values) == pytest.approx(expected, abs=1e-5)


def test_a_header_holds_neither_token_nor_text(folder: str, tmp_path: Path):
    scorer = LateInteractionScorer(folder, store=tmp_path, token="hf_secret")
    scorer.precompute(["an unusual passage"])
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"hf_secret" not in content
    assert b"unusual" not in content
    assert set(json.loads((tmp_path / "store.json").read_text())["made_by"]) == {
        "model",
        "window",
        "precision",
        "vectors",
        "encoding",
    }


def test_a_pickle_and_a_closed_scorer_hold_no_vectors(folder: str):
    scorer = LateInteractionScorer(folder)
    scorer.precompute([f"fox {number}" for number in range(200)])
    data = pickle.dumps(scorer)
    assert len(data) < 10_000
    assert pickle.loads(data).precompute(["fox 1"]) == 1  # noqa: S301 - made here
    scorer.close()
    assert scorer._vectors is None
    assert scorer.precompute(["fox 1"]) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_keeps_what_was_stored(folder: str):
    program = f"""
import os
from uprank.scorers import LateInteractionScorer
scorer = LateInteractionScorer({folder!r})
scorer.precompute(["fox", "whale"])
child = os.fork()
if child == 0:
    os._exit(0 if scorer.precompute(["fox", "whale", "river"]) == 1 else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", program], timeout=120, check=False).returncode == 0


def test_embeddings_are_kept_too(tiny_models: dict[str, Path], tmp_path: Path):
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(tiny_models["bert"]), device="cpu").save(str(tmp_path / "model"))
    scorer = EmbeddingScorer(str(tmp_path / "model"), store=tmp_path / "store")
    reads = Reads(scorer)
    first = scorer.score(QUERY, TEXTS).values
    assert list(scorer.score(QUERY, TEXTS).values) == pytest.approx(list(first), abs=1e-6)
    assert (reads.queries, reads.documents) == (2, len(TEXTS))
    exact = EmbeddingScorer(str(tmp_path / "model"), store=False).score(QUERY, TEXTS).values
    assert list(first) == pytest.approx(list(exact), abs=1e-3)


def test_what_a_device_makes_is_scored_there_and_kept_here(folder: str):
    """With vectors as an accelerator gives them."""
    import torch

    def on_device(scorer: VectorScorer) -> VectorScorer:
        scorer.score("fox", ["warm up"])
        runner = scorer._loaded()
        run = runner.run

        def run_there(rows: Sequence[Row[object]], lane: int) -> Encoded:
            here = run(rows, lane)
            return DeviceVectors(torch.from_numpy(here.host()), here.counts)

        runner.run = run_there
        return scorer

    exact = list(LateInteractionScorer(folder, store=False).score(QUERY, TEXTS).values)
    for store in (False, True):
        scorer = on_device(LateInteractionScorer(folder, store=store))
        for _ in range(2):
            assert list(scorer.score(QUERY, TEXTS).values) == pytest.approx(exact, abs=1e-5)


@pytest.mark.skipif(not DL19.is_file(), reason="needs the TREC DL19 candidates in ../shared/data")
def test_the_order_of_real_passages_is_the_same(tmp_path: Path):
    queries = [json.loads(line) for line in DL19.read_text(encoding="utf-8").splitlines()[:1]]
    with (
        Reranker(EmbeddedScorer(store=False, max_length=48)) as exact,
        Reranker(EmbeddedScorer(store=tmp_path / "half", max_length=48)) as half,
        Reranker(EmbeddedScorer(store_dtype="int8", max_length=48)) as eighth,
    ):
        for entry in queries:
            texts = [document["text"] for document in entry["documents"][:15]]
            best = exact.rank(entry["query"], texts)
            by_index = {hit.index: hit.score for hit in best}
            for reranker, error in ((half, 1e-3), (eighth, 2e-3)):
                for _ in range(2):
                    ranking = reranker.rank(entry["query"], texts)
                    assert all(abs(hit.score - by_index[hit.index]) <= error for hit in ranking)
                    # Whatever changed places was nearer to each other than the rounding.
                    in_order = [by_index[hit.index] for hit in ranking]
                    assert all(low - high <= 2 * error for high, low in pairwise(in_order))
            assert [hit.index for hit in half.rank(entry["query"], texts)][:10] == [hit.index for hit in best][:10]
