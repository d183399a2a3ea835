"""Cross-encoders on torch as the scheduler runs them: any model, several replicas, compiled or not."""

from __future__ import annotations

import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers_torch import as_jobs_give_them, chained, load, own_logits, random_rows

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

from uprank.scorers.local.engines.base import Tokens  # noqa: E402
from uprank.scorers.local.engines.cores import usable_cores  # noqa: E402
from uprank.scorers.local.engines.torch import Logits, TorchPairRunner, best_half  # noqa: E402
from uprank.scorers.local.engines.torch.compiled import Compiled  # noqa: E402

PAIRS = [
    ("red fox", "the quick red fox jumps over the lazy dog"),
    ("red fox", "whale"),
    ("red fox", "population of paris and berlin and germany, by year"),
    ("red fox", "fox fox"),
]


def tokenised(model) -> tuple[list[Tokens], dict[str, object]]:
    """The pairs as the model's own preprocessing has them, the padding taken off again; and what else it passes on."""
    features = model.preprocess(PAIRS)
    masks = features["attention_mask"].bool()
    types = features.get("token_type_ids")
    rows = [
        Tokens(
            features["input_ids"][row][mask].numpy().astype(np.int32),
            None if types is None else types[row][mask].numpy().astype(np.int32),
        )
        for row, mask in enumerate(masks)
    ]
    given = ("input_ids", "attention_mask", "token_type_ids")
    return rows, {key: value for key, value in features.items() if key not in given}


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "modernbert", "causal"])
@pytest.mark.parametrize("packed", [None, False])
def test_logits_are_those_of_sentence_transformers(tiny_models: dict[str, Path], name: str, packed: bool | None):
    model = load(tiny_models[name])
    rows, inputs = tokenised(model)
    runner = TorchPairRunner([model], packed=packed)
    assert runner.packed == (packed is None and name != "causal")
    assert not runner.ahead  # a CPU is done when run() returns
    found = runner.run(as_jobs_give_them(rows, tuple(inputs.items())), 0)
    expected = model.predict(PAIRS, activation_fn=torch.nn.Identity())
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(runner.part(found, [0, 1, 2, 3]), expected, atol=1e-4)


def test_a_part_has_the_rows_that_were_asked_for(tiny_models):
    model = load(tiny_models["bert"])
    rows = random_rows(model, (9, 30, 5, 30))
    expected = own_logits(model, rows)
    for packed in (True, False):
        runner = TorchPairRunner([model], packed=packed)
        output = runner.run(as_jobs_give_them(rows), 0)
        assert len(output) == 4
        part = runner.part(output, [3, 0])
        assert isinstance(part, np.ndarray)
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, expected[[3, 0]], atol=1e-4)
        np.testing.assert_allclose(runner.part(output, [2]), expected[[2]], atol=1e-4)


def test_logits_read_as_an_array():
    logits = Logits(torch.tensor([3.0, 1.0, 2.0], dtype=torch.float16), np.array([2, 0, 1]))
    assert np.asarray(logits).tolist() == [1, 2, 3]
    assert np.asarray(logits).dtype == np.float32
    assert np.asarray(logits, dtype=np.float64).dtype == np.float64
    place = np.zeros(3, dtype=np.float32)
    place[[0, 1, 2]] = logits
    assert place.tolist() == [1, 2, 3]


def test_a_model_without_a_padding_token_gets_one_row_at_a_time(tiny_models):
    model = load(tiny_models["causal"])
    rows, inputs = tokenised(model)
    expected = TorchPairRunner([model]).run(as_jobs_give_them(rows, tuple(inputs.items())), 0).numpy()
    model.tokenizer.pad_token = None
    runner = TorchPairRunner([model], token_budget=5_000)
    assert runner.token_budget == 1
    np.testing.assert_allclose(
        runner.run(as_jobs_give_them(rows, tuple(inputs.items())), 0).numpy(), expected, atol=1e-5
    )


def test_what_a_group_holds_reaches_the_model(tiny_models):
    """A pooling that leaves the prompt out must be told how long it is."""
    model = chained(tiny_models["bert"], "mean", include_prompt=False)
    rows = random_rows(model, (12, 20))
    runner = TorchPairRunner([model])
    plain = runner.run(as_jobs_give_them(rows), 0).numpy()
    prompted = runner.run(as_jobs_give_them(rows, (("prompt_length", 4),)), 0).numpy()
    for row, one in zip(rows, prompted, strict=True):
        features = {"input_ids": torch.from_numpy(row.ids)[None].long(), "prompt_length": 4}
        features["attention_mask"] = torch.ones_like(features["input_ids"])
        with torch.inference_mode():
            assert model(features)["scores"].item() == pytest.approx(one, abs=1e-4)
    assert np.abs(plain - prompted).min() > 1e-3


def test_budgets(tiny_models):
    model = load(tiny_models["bert"])
    assert TorchPairRunner([model], packed=False).token_budget == 1_024
    assert TorchPairRunner([model]).token_budget == 4_096
    assert TorchPairRunner([model], token_budget=77).token_budget == 77


def test_replicas_run_on_lanes_of_their_own(tiny_models):
    """Each on its own thread, with its part of the processor; threads of others keep theirs."""
    replicas = [load(tiny_models["bert"]) for _ in range(2)]
    runner = TorchPairRunner(replicas)
    assert runner.lanes == 2
    with torch.no_grad():  # to tell the replicas apart
        replicas[1].model.classifier.bias += 100
    rows = random_rows(replicas[0], (9, 30, 5, 30, 12, 12))
    expected = own_logits(replicas[0], rows)
    threads_before = torch.get_num_threads()
    found: dict[int, np.ndarray] = {}
    counts = []

    def work(lane: int) -> None:
        for _ in range(3):
            found[lane] = runner.run(as_jobs_give_them(rows), lane).numpy()
        counts.append(torch.get_num_threads())

    lanes = [threading.Thread(target=work, args=(lane,)) for lane in range(2)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join(30)
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    np.testing.assert_allclose(found[1], expected + 100, atol=1e-4)
    assert counts == [max(1, threads_before // 2)] * 2
    assert torch.get_num_threads() == threads_before
    later: list[int] = []
    other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    other.start()
    other.join(30)
    assert later == [threads_before]


def test_one_packed_model_runs_on_all_cores_of_a_cpu(tiny_models):
    """A lane a core, each with its part of torch's threads, on the same weights; a padded model has but one lane."""
    model = load(tiny_models["bert"])
    rows = random_rows(model, (9, 30, 5, 30))
    expected = own_logits(model, rows)
    counts: list[tuple[int, int, int]] = []

    def work(threads: int) -> None:
        torch.set_num_threads(threads)
        runner = TorchPairRunner([model])
        for lane in range(runner.lanes):
            np.testing.assert_allclose(runner.run(as_jobs_give_them(rows), lane).numpy(), expected, atol=1e-4)
        counts.append((runner.lanes, torch.get_num_threads(), TorchPairRunner([model], packed=False).lanes))
        assert runner.packed
        assert not runner.padded

    before = torch.get_num_threads()
    try:
        for threads in (1, 64):
            with ThreadPoolExecutor(1) as own:
                own.submit(work, threads).result(30)
    finally:
        torch.set_num_threads(before)
    cores = usable_cores()
    assert counts == [(1, 1, 1), (cores, 1 if cores > 1 else 64, 1)]
    assert TorchPairRunner([load(tiny_models["causal"])]).padded


def test_errors_surface_as_they_are(tiny_models):
    """The scheduler halves a batch where memory ran out; whatever else went wrong is the caller's to see."""
    model = load(tiny_models["bert"])
    runner = TorchPairRunner([model])
    with pytest.raises(IndexError):
        runner.run(as_jobs_give_them([Tokens(np.array([10_000_000], dtype=np.int32))]), 0)

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    model.model.classifier.forward = exhausted
    with pytest.raises(torch.OutOfMemoryError):
        runner.run(as_jobs_give_them(random_rows(model, (5,))), 0)
    runner.release_memory()
    del model.model.classifier.forward
    assert len(runner.run(as_jobs_give_them(random_rows(model, (5,))), 0)) == 1


def test_the_best_half_precision(monkeypatch: pytest.MonkeyPatch):
    capability = {"cuda": (9, 0), "cuda:1": (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[str(device)])
    assert best_half("cuda") == torch.bfloat16
    assert best_half(torch.device("cuda", 1)) == torch.float16
    assert best_half("cpu") == best_half("mps") == torch.float32


def test_without_a_compiler_the_function_runs_as_it_is(monkeypatch, caplog: pytest.LogCaptureFixture):
    tries = []

    def no_compiler(function, **_):
        def run(*args):
            tries.append(args)
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore")

        return run

    monkeypatch.setattr(torch, "compile", no_compiler)
    double = Compiled(lambda value: 2 * value)
    with caplog.at_level(logging.WARNING, "uprank"):
        assert [double(2), double(3)] == [4, 6]
    assert len(tries) == 1
    assert "No working C++ compiler found" in caplog.text


def test_lack_of_memory_is_no_lack_of_a_compiler(monkeypatch):
    def exhausted(function, **_):
        def run(*args):
            raise torch.OutOfMemoryError("CUDA out of memory.")

        return run

    monkeypatch.setattr(torch, "compile", exhausted)
    double = Compiled(lambda value: 2 * value)
    for _ in range(2):  # still compiled: the error was not the compiler's
        with pytest.raises(torch.OutOfMemoryError):
            double(2)


def test_padded_models_are_not_compiled(tiny_models, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "uprank"):
        TorchPairRunner([load(tiny_models["causal"])], compile=True)
    assert "compile=True has no effect" in caplog.text


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler")
@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_compiled_logits(tiny_models, name: str, caplog: pytest.LogCaptureFixture):
    model = load(tiny_models[name])
    rows = random_rows(model, (9, 30, 5, 30, 12))
    with caplog.at_level(logging.WARNING, "uprank"):
        runner = TorchPairRunner([model], compile=True)
        compiles = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for batch in (rows, rows[:1], rows[1:3], rows * 7):
            found = runner.run(as_jobs_give_them(batch), 0).numpy()
            np.testing.assert_allclose(found, own_logits(model, batch), atol=1e-4)
    assert not caplog.records
    assert runner.packed
    # A new graph for a single row at most: the lengths of batches must not be compiled in.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - compiles <= 2


@pytest.mark.slow
@pytest.mark.no_cover
def test_a_missing_compiler(tiny_models, caplog: pytest.LogCaptureFixture, monkeypatch):
    from torch._inductor import config

    model = load(tiny_models["bert"])
    rows = random_rows(model, (9, 30))
    torch.compiler.reset()
    with caplog.at_level(logging.WARNING, "uprank"), config.patch({"cpp.cxx": ("/nonexistent/g++",)}):
        monkeypatch.setenv("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
        runner = TorchPairRunner([model], compile=True)
        found = runner.run(as_jobs_give_them(rows), 0).numpy()
    assert "torch.compile failed" in caplog.text
    np.testing.assert_allclose(found, own_logits(model, rows), atol=1e-4)
