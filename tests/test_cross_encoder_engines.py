"""Which engine and which devices a cross-encoder runs on, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from conftest import save_causal
from uprank import ConfigurationError, ModelLoadError, Reranker
from uprank.scorers import CrossEncoderScorer

QUERY = "how to parse json in python"
TEXTS = ["a red fox", "json python " * 20, "whale", "the capital of france " * 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "tensorflow"}, "engine must be one of auto, torch, onnx, openvino"),
        ({"engine": "torch", "dtype": "int8"}, 'engine="torch" does not compute in int8; "onnx" or "openvino" does'),
        ({"engine": "onnx", "dtype": "bfloat16"}, 'does not compute in bfloat16; "torch" or "openvino" does'),
        ({"device": ["cuda:0", "cpu"]}, "one or several of a kind"),
        ({"device": []}, "one or several of a kind"),
        ({"device": 0}, "device must be such as"),
        ({"engine": "onnx", "compile": True}, "compiling is for torch"),
        ({"engine": "openvino", "device": ["cpu", "cpu"]}, 'runs on device="cpu"'),
        ({"dtype": "int8", "device": "cuda"}, 'runs on device="cpu"'),
        ({"max_wait_ms": -1}, "max_wait_ms must be"),
        ({"max_queue": 0}, "max_queue must be"),
    ],
)
def test_engines_and_devices_that_cannot_be_are_refused_at_once(options: dict[str, object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        Reranker("cross-encoder:any", **options)


def test_an_engine_that_cannot_run_the_model_says_why_and_auto_takes_torch(tmp_path: Path):
    causal = save_causal(tmp_path / "causal", template=False)
    with pytest.raises(ModelLoadError, match=r'cannot run on OpenVINO: .*Use engine="torch"'):
        CrossEncoderScorer(str(causal), device="cpu", engine="openvino").score(QUERY, TEXTS)
    with pytest.raises(ModelLoadError, match="cannot run in int8"):
        CrossEncoderScorer(str(causal), device="cpu", dtype="int8").score(QUERY, TEXTS)
    with pytest.raises(ConfigurationError, match=r'engine="onnx" runs on device="cpu"'):
        CrossEncoderScorer(str(causal), device="cuda", engine="onnx").score(QUERY, TEXTS)


def test_several_devices_share_the_rows(tiny_models: dict[str, Path]):
    one = CrossEncoderScorer(str(tiny_models["bert"]), device="cpu", engine="torch", dtype="float32")
    two = CrossEncoderScorer(str(tiny_models["bert"]), device=["cpu", "cpu"], dtype="float32", token_budget=64)
    expected = one.score(QUERY, TEXTS).values
    assert np.ptp(expected) > 0.1, "a model that scores all alike would prove nothing"
    np.testing.assert_allclose(two.score(QUERY, TEXTS).values, expected, atol=1e-4)


def test_encoders_need_neither_torch_nor_transformers(tiny_models: dict[str, Path]):
    program = f"""
import sys
for name in ("torch", "transformers", "sentence_transformers"):
    sys.modules[name] = None  # importing it now fails
from uprank import Reranker
for engine in ("auto", "onnx"):
    reranker = Reranker({f"cross-encoder:{tiny_models['bert']}"!r}, engine=engine, dtype="float32")
    print(reranker.rank("fox", ["a red fox"])[0].score)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    model = CrossEncoder(str(tiny_models["bert"]), device="cpu")
    expected = model.predict([("fox", "a red fox")], activation_fn=torch.nn.Identity())[0]
    assert [float(line) for line in done.stdout.split()] == pytest.approx([expected] * 2, abs=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device here")
def test_a_device_that_is_not_there_is_a_mistake_in_the_set_up_and_never_passed_over(tiny_models: dict[str, Path]):
    reranker = Reranker(f"cross-encoder:{tiny_models['bert']}", device="cuda", on_error="passthrough")
    with pytest.raises(ConfigurationError, match="There is no device 'cuda' here"):
        reranker.rank(QUERY, ["a red fox"])


def test_the_exact_form_is_the_same_model_in_float32_and_keeps_its_token(tiny_models: dict[str, Path]):
    scorer = CrossEncoderScorer(
        str(tiny_models["bert"]), engine="onnx", dtype="int8", max_length=64, token="hf_secret", progress=True
    )
    exact = scorer.exact()
    assert (exact._checkpoint.dtype, exact._checkpoint.token) == ("float32", "hf_secret")
    assert (scorer._checkpoint.dtype, scorer._progress, exact._progress) == ("int8", True, False)
    assert (exact._max_length, exact._engine) == (64, "onnx")
    np.testing.assert_allclose(
        exact.score(QUERY, ["a red fox"]).values, scorer.score(QUERY, ["a red fox"]).values, atol=0.5
    )
