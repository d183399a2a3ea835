"""The cross-encoder scorer against sentence-transformers' own predictions, on tiny real models."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from conftest import SAVERS, WORDS, save_bert, save_causal
from uprank import (
    ConfigurationError,
    InvalidInputError,
    ModelLoadError,
    QueryTooLongError,
    Reranker,
    ScorerError,
)
from uprank.scorers import CrossEncoderScorer
from uprank.scorers.base import ScoreRequest, Scores
from uprank.scorers.local.engines.base import EngineName, Tokens
from uprank.scorers.local.engines.torch import TorchPairRunner
from uprank.scorers.local.jobs import Row, Runner
from uprank.scorers.local.pair_job import EnginePairRunner

QUERY = "how to parse json in python"


# Causal models, chat templates and saved prompts came with sentence-transformers 5.4.
modules_only = pytest.mark.skipif(not hasattr(CrossEncoder, "preprocess"), reason="needs sentence-transformers >= 5.4")


def passages(*lengths: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"{number} " + " ".join(rng.choices(WORDS, k=length)) for number, length in enumerate(lengths)]


TEXTS = passages(3, 60, 1, 25, 400, 8, 2, 90, 14)


def predict(folder: Path, query: str, texts: list[str], **options: object) -> np.ndarray:
    model = CrossEncoder(str(folder), device="cpu")
    pairs = [(query, text) for text in texts]
    return model.predict(pairs, activation_fn=torch.nn.Identity(), batch_size=1, **options)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=modules_only if name == "causal" else ()) for name in SAVERS]
)
def folder(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Path:
    return tiny_models[request.param]


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Iterator[CrossEncoderScorer]:
    """A scorer of each model with the usual options, loaded once."""
    made = CrossEncoderScorer(str(folder), device="cpu", dtype="float32")
    yield made
    made.close()


@pytest.mark.parametrize("engine", ["torch", "onnx", "openvino"])
def test_scores_equal_those_of_predict(folder: Path, engine: EngineName):
    if engine != "torch" and folder.name.startswith("causal"):
        pytest.skip("causal models run on torch")
    scores = CrossEncoderScorer(str(folder), device="cpu", engine=engine, dtype="float32").score(QUERY, TEXTS)
    expected = predict(folder, QUERY, TEXTS)
    assert scores.kind == "logit"
    assert np.ptp(expected) > 1, "a model that scores all alike would prove nothing"
    np.testing.assert_allclose(scores.values, expected, atol=1e-4)


@pytest.mark.rotated(2)
@pytest.mark.parametrize("token_budget", [1, 100, 400, 100_000])
def test_batches_of_unequal_length_equal_singles(folder: Path, scorer: CrossEncoderScorer, token_budget: int):
    singles = [scorer.score(QUERY, [text]).values[0] for text in TEXTS]
    batched = CrossEncoderScorer(str(folder), device="cpu", dtype="float32", token_budget=token_budget)
    np.testing.assert_allclose(batched.score(QUERY, TEXTS).values, singles, atol=1e-4)


def test_many_queries_in_one_batch_equal_single_queries(scorer: CrossEncoderScorer):
    queries = [QUERY, "red fox", "the capital of france"]
    lists = [passages(5, 40, 2, seed=1), passages(70, 1, seed=2), passages(9, 9, 30, 4, seed=3)]
    requests = [ScoreRequest(query, texts) for query, texts in zip(queries, lists, strict=True)]
    for outcome, query, texts in zip(scorer.score_many(requests), queries, lists, strict=True):
        assert isinstance(outcome, Scores)
        np.testing.assert_allclose(outcome.values, scorer.score(query, texts).values, atol=1e-4)


def test_a_model_that_ends_in_a_sigmoid_reports_probabilities_and_sorts_by_logits(tmp_path: Path):
    folder = save_bert(tmp_path, identity=False)
    logits = predict(folder, QUERY, TEXTS)
    ranking = Reranker(f"cross-encoder:{folder}", device="cpu", dtype="float32").rank(QUERY, TEXTS)
    assert ranking.score_kind == "probability"
    assert [hit.index for hit in ranking] == sorted(range(len(TEXTS)), key=lambda i: (-logits[i], i))
    for hit in ranking:
        assert hit.score == pytest.approx(1 / (1 + np.exp(-float(logits[hit.index]))), abs=1e-5)


def test_a_model_that_ends_in_identity_reports_logits_or_probabilities_as_asked(tiny_models: dict[str, Path]):
    name = f"cross-encoder:{tiny_models['bert']}"
    native = Reranker(name, device="cpu", dtype="float32").rank(QUERY, TEXTS)
    probable = Reranker(name, device="cpu", dtype="float32", score="probability").rank(QUERY, TEXTS)
    assert native.score_kind == "logit"
    assert probable.score_kind == "probability"
    assert [hit.index for hit in native] == [hit.index for hit in probable]
    for raw, squashed in zip(native, probable, strict=True):
        assert squashed.score == pytest.approx(1 / (1 + np.exp(-raw.score)))


@modules_only
def test_the_instruction_reaches_the_chat_template(tiny_models: dict[str, Path]):
    folder = tiny_models["causal"]
    scorer = CrossEncoderScorer(str(folder), device="cpu", dtype="float32")
    plain = scorer.score(QUERY, TEXTS).values
    told = scorer.score(QUERY, TEXTS, instruction="judge the color red").values
    np.testing.assert_allclose(told, predict(folder, QUERY, TEXTS, prompt="judge the color red"), atol=1e-4)
    assert not np.allclose(plain, told, atol=1e-2)


def test_an_instruction_for_a_model_without_a_place_for_it_is_refused(tiny_models: dict[str, Path]):
    reranker = Reranker(f"cross-encoder:{tiny_models['bert']}", device="cpu", dtype="float32", on_error="passthrough")
    with pytest.raises(InvalidInputError, match="has no place for an instruction"):
        reranker.rank(QUERY, TEXTS, instruction="judge")


@modules_only
def test_the_prompts_a_model_was_saved_with_are_applied(tmp_path: Path):
    folder = save_bert(tmp_path / "plain")
    model = CrossEncoder(str(folder), device="cpu", prompts={"rank": "judge: "}, default_prompt_name="rank")
    model.save_pretrained(str(tmp_path / "prompted"))
    scorer = CrossEncoderScorer(str(tmp_path / "prompted"), device="cpu", dtype="float32")
    expected = model.predict([(QUERY, text) for text in TEXTS], activation_fn=torch.nn.Identity())
    assert not np.allclose(expected, predict(folder, QUERY, TEXTS), atol=1e-2)
    np.testing.assert_allclose(scorer.score(QUERY, TEXTS).values, expected, atol=1e-4)
    other = model.predict([(QUERY, text) for text in TEXTS], activation_fn=torch.nn.Identity(), prompt="system ")
    np.testing.assert_allclose(scorer.score(QUERY, TEXTS, instruction="system ").values, other, atol=1e-4)


@modules_only
def test_a_causal_model_without_a_chat_template_still_equals_predict(tmp_path: Path):
    folder = save_causal(tmp_path, template=False)
    scores = CrossEncoderScorer(str(folder), device="cpu", dtype="float32").score(QUERY, TEXTS).values
    np.testing.assert_allclose(scores, predict(folder, QUERY, TEXTS), atol=1e-4)


def test_only_the_document_is_cut_never_the_query(folder: Path):
    scorer = CrossEncoderScorer(str(folder), device="cpu", dtype="float32", max_length=96)
    long = TEXTS[4]
    beginning = " ".join(long.split()[:90])  # all that can fit, and more
    scores = scorer.score(QUERY, [long, beginning])
    assert scores.values[0] == pytest.approx(scores.values[1], abs=1e-4)
    assert scores.warnings == ("2 of 2 documents reach the window of 96 tokens; text beyond it was not read.",)
    # The end of a query that fills nearly half of the window still decides.
    query = " ".join(["red"] * 40)
    ending = scorer.score(f"{query} whale", [long]).values[0]
    assert ending != pytest.approx(scorer.score(f"{query} fox", [long]).values[0], abs=1e-3)


def test_a_query_of_more_than_half_the_window_is_an_error_that_says_so(folder: Path):
    scorer = CrossEncoderScorer(str(folder), device="cpu", dtype="float32", max_length=64)
    scorer.score(" ".join(["red"] * 20), ["a blue whale"])
    with pytest.raises(QueryTooLongError, match="33 tokens, more than half of the 64"):
        scorer.score(" ".join(["red"] * 33), ["a blue whale"])


def test_a_long_query_spoils_only_its_own_request(tiny_models: dict[str, Path]):
    reranker = Reranker(f"cross-encoder:{tiny_models['bert']}", device="cpu", dtype="float32", on_error="passthrough")
    good, bad = reranker.rank_many([QUERY, "red " * 300], [TEXTS[:3], TEXTS[:3]])
    assert not good.degraded
    assert bad.degraded
    assert [hit.index for hit in bad] == [0, 1, 2]


def test_a_long_query_is_cut_with_a_warning_where_asked(tiny_models: dict[str, Path]):
    scorer = CrossEncoderScorer(str(tiny_models["bert"]), device="cpu", dtype="float32", long_query="truncate")
    cut = scorer.score("red " * 64 + "whale", ["a blue whale"])
    assert cut.warnings[0].startswith("The query has 65 tokens, more than half of the 128")
    assert cut.values == scorer.score("red " * 64, ["a blue whale"]).values


@modules_only
def test_a_template_that_leaves_no_room_is_an_error(tiny_models: dict[str, Path]):
    scorer = CrossEncoderScorer(str(tiny_models["causal"]), device="cpu", dtype="float32")
    with pytest.raises(QueryTooLongError, match="leave no room for documents"):
        scorer.score("red fox", ["a blue whale"], instruction="judge " * 200)


def test_a_text_that_looks_like_an_image_address_is_text(scorer: CrossEncoderScorer):
    texts = ["https://localhost:9/cat.png", "https://localhost:9/dog.mp4", "a red fox"]
    scores = scorer.score("http://localhost:9/red.jpg", texts)
    assert len(scores.values) == 3


@pytest.mark.parametrize(
    "text",
    ["", " ", "\x00", "a\x00b", "\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace"), "🦊" * 50],
)
def test_odd_texts_are_scored(scorer: CrossEncoderScorer, text: str):
    scores = scorer.score(QUERY, [text, "a red fox"])
    assert np.isfinite(scores.values).all()


def test_a_very_long_document_scores_as_its_beginning(scorer: CrossEncoderScorer):
    long = " ".join(random.Random(7).choices(WORDS, k=200_000))
    scores = scorer.score(QUERY, [long, long[:20_000]])
    assert scores.values[0] == pytest.approx(scores.values[1], abs=1e-4)
    word = "x" * 50_000  # one unknown token: what follows it is within the window
    ending = scorer.score(QUERY, [f"{word} red", f"{word} whale"]).values
    assert ending[0] != pytest.approx(ending[1], abs=1e-3)


@pytest.mark.no_cover
def test_a_megabyte_and_ten_thousand_documents(tiny_models: dict[str, Path]):
    reranker = Reranker(f"cross-encoder:{tiny_models['bert']}", device="cpu", dtype="float32")
    ranking = reranker.rank(QUERY, ["red fox " * 131_072, *passages(*[2] * 9_999)])
    assert sorted(hit.index for hit in ranking) == list(range(10_000))
    assert ranking.usage.pairs == 10_000


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "name",
    [
        "bert",
        pytest.param("xlm-roberta", marks=pytest.mark.slow),
        pytest.param("modernbert", marks=pytest.mark.slow),
        pytest.param("causal", marks=[pytest.mark.slow, modules_only]),
    ],
)
def test_eight_threads_give_the_answers_of_one(tiny_models: dict[str, Path], name: str):
    reranker = Reranker(f"cross-encoder:{tiny_models[name]}", device="cpu", dtype="float32")
    queries = [f"{WORDS[n % len(WORDS)]} {WORDS[(3 * n) % len(WORDS)]} {n}" for n in range(50)]
    lists = [passages(*(1 + (n * k) % 12 for k in range(1, 6)), seed=n) for n in range(50)]
    expected = [reranker.rank(query, texts) for query, texts in zip(queries, lists, strict=True)]

    def work(worker: int) -> None:
        for number in range(50):
            turn = (number + 7 * worker) % 50
            ranking = reranker.rank(queries[turn], lists[turn])
            # Not bit by bit: calls share batches, and a sum's last bit depends on a batch's shape.
            assert [hit.score for hit in ranking] == pytest.approx([hit.score for hit in expected[turn]], abs=1e-4)
            by_index = {hit.index: hit.score for hit in expected[turn]}
            assert all(hit.score == pytest.approx(by_index[hit.index], abs=1e-4) for hit in ranking)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


async def test_async_gives_the_same_and_leaves_the_loop_free(tiny_models: dict[str, Path]):
    reranker = Reranker(f"cross-encoder:{tiny_models['modernbert']}", device="cpu", dtype="float32")
    expected = reranker.rank(QUERY, TEXTS)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticker = asyncio.create_task(tick())
    rankings = await asyncio.gather(*(reranker.arank(QUERY, TEXTS) for _ in range(20)))
    ticker.cancel()
    assert ticks > 5
    known = {hit.index: hit.score for hit in expected}
    for ranking in rankings:
        assert {hit.index: hit.score for hit in ranking} == pytest.approx(known, abs=1e-4)


@pytest.mark.parametrize("engine", ["torch", "onnx", "openvino"])
def test_memory_that_runs_out_halves_the_batches_and_loses_no_score(
    tiny_models: dict[str, Path], engine: EngineName, monkeypatch: pytest.MonkeyPatch
):
    scorer = CrossEncoderScorer(str(tiny_models["bert"]), device="cpu", engine=engine, token_budget=1_000)
    expected = scorer.score(QUERY, TEXTS).values
    kind = TorchPairRunner if engine == "torch" else EnginePairRunner
    run, sizes = kind.run, []

    def refuse_large(self: object, rows: list[Row[Tokens]], lane: int) -> object:
        size = sum(row.length for row in rows)
        sizes.append(size)
        if size > 150:
            raise torch.OutOfMemoryError("forced")
        return run(self, rows, lane)

    def break_down(*_: object) -> None:
        raise RuntimeError("not about memory")

    monkeypatch.setattr(kind, "run", refuse_large)
    np.testing.assert_allclose(scorer.score(QUERY, TEXTS).values, expected, atol=1e-4)
    assert max(sizes) > 150
    monkeypatch.setattr(kind, "run", break_down)
    with pytest.raises(RuntimeError, match="not about memory"):
        scorer.score(QUERY, TEXTS)


def test_closing_frees_the_model_and_the_next_call_loads_it_again(tiny_models: dict[str, Path]):
    with Reranker(f"cross-encoder:{tiny_models['bert']}", device="cpu", dtype="float32") as reranker:
        before = reranker.rank(QUERY, TEXTS)
    scorer = reranker.scorer
    assert isinstance(scorer, CrossEncoderScorer)
    assert scorer._pairs is None
    assert [hit.score for hit in reranker.rank(QUERY, TEXTS)] == [hit.score for hit in before]


def test_nothing_is_loaded_before_the_first_call():
    reranker = Reranker("cross-encoder:nobody/never-published")
    assert reranker.rank("q", []).hits == ()
    with pytest.raises(ModelLoadError, match="nobody/never-published could not be loaded"):
        reranker.rank("q", ["a"])
    assert Reranker("cross-encoder:nobody/never-published", on_error="passthrough").rank("q", ["a"]).degraded


def test_a_classifier_with_several_labels_is_refused(tmp_path: Path):
    with pytest.raises(ModelLoadError, match="classifies into 3 labels"):
        CrossEncoderScorer(str(save_bert(tmp_path, num_labels=3)), device="cpu", dtype="float32").score(QUERY, TEXTS)


def test_a_checkpoint_without_a_trained_head_is_refused(tmp_path: Path):
    from transformers import AutoModel, AutoTokenizer

    classifier = save_bert(tmp_path / "classifier")
    AutoModel.from_pretrained(classifier).save_pretrained(tmp_path / "encoder")
    AutoTokenizer.from_pretrained(classifier).save_pretrained(tmp_path / "encoder")
    with pytest.raises(ModelLoadError, match="no trained classification head"):
        CrossEncoderScorer(str(tmp_path / "encoder"), device="cpu", dtype="float32").score(QUERY, TEXTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "dtype must be one of"),
        ({"token_budget": 0}, "token_budget must be a positive integer"),
        ({"token_budget": True}, "token_budget must be a positive integer"),
        ({"long_query": "drop"}, "long_query must be"),
        ({"batch_size": 8}, "It takes: model, engine, device, dtype"),
    ],
)
def test_options_out_of_range_are_refused_at_once(options: dict[str, object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        Reranker("cross-encoder:any", **options)


@pytest.mark.parametrize(("name", "positions"), [("bert", 128), ("xlm-roberta", 128), ("modernbert", 256)])
def test_a_window_beyond_the_models_positions_is_refused(tiny_models: dict[str, Path], name: str, positions: int):
    scorer = CrossEncoderScorer(str(tiny_models[name]), device="cpu", dtype="float32", max_length=positions + 1)
    with pytest.raises(ConfigurationError, match=f"at most {positions}"):
        scorer.score(QUERY, TEXTS)
    CrossEncoderScorer(str(tiny_models[name]), device="cpu", dtype="float32", max_length=positions).score(QUERY, TEXTS)


def test_half_precision_weights_give_the_scores_of_predict_in_half_precision(tiny_models: dict[str, Path]):
    folder = str(tiny_models["bert"])
    scorer = CrossEncoderScorer(folder, device="cpu", engine="torch", dtype="bfloat16")
    scores = [scorer.score(QUERY, [text]).values[0] for text in TEXTS]
    model = CrossEncoder(folder, device="cpu").to(torch.bfloat16)
    pairs = [(QUERY, text) for text in TEXTS]
    expected = model.predict(pairs, activation_fn=torch.nn.Identity(), batch_size=1)
    np.testing.assert_allclose(scores, expected, atol=1e-2)


def test_progress_is_shown_only_on_request(tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    folder = str(tiny_models["bert"])
    quiet = CrossEncoderScorer(folder, device="cpu", dtype="float32")
    quiet.score(QUERY, TEXTS)
    capsys.readouterr()
    quiet.score(QUERY, TEXTS)
    assert capsys.readouterr().err == ""
    CrossEncoderScorer(folder, device="cpu", dtype="float32", progress=True).score(QUERY, TEXTS)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err


def test_remote_code_is_not_trusted_by_default():
    assert inspect.signature(CrossEncoderScorer).parameters["trust_remote_code"].default is False


@pytest.mark.parametrize(("engine", "kind"), [("torch", TorchPairRunner), ("openvino", EnginePairRunner)])
def test_a_failing_forward_is_a_scorer_error_that_names_the_model(
    tiny_models: dict[str, Path], engine: EngineName, kind: type[Runner], monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(kind, "run", fail)
    reranker = Reranker(f"cross-encoder:{tiny_models['bert']}", device="cpu", engine=engine)
    with pytest.raises(ScorerError, match=r"cross-encoder:.*failed with RuntimeError: device lost"):
        reranker.rank(QUERY, TEXTS)
