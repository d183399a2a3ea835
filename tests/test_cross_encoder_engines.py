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
