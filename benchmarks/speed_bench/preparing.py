"""Models exported and quantised ahead, by each library's own documented way; runs in that library's environment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["prepare"]

Settings = Mapping[str, str]

_CALIBRATION_PAIRS = 100


def prepare(what: str, model: Path, target: Path, settings: Settings) -> None:
    """Export a model, unless an earlier run did.

    Args:
        what: ``"st-onnx"``, ``"st-openvino"`` or ``"flashrank"``.
        model: The folder of the model.
        target: The folder to write; complete, or not there at all.
        settings: ``"quantization"`` names the instructions to quantise for, ``"texts"`` is a file with queries and
            documents to calibrate with, ``"made_of"`` says what the folder is made of: another one makes it anew.
    """
    stamp = target / "prepared.json"
    if stamp.is_file() and json.loads(stamp.read_text()) == dict(settings):
        return
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    _WAYS[what](model, target, settings)
    stamp.write_text(json.dumps(dict(settings)))


def _st_onnx(model: Path, target: Path, settings: Settings) -> None:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.backend import export_dynamic_quantized_onnx_model

    loaded = CrossEncoder(str(model), backend="onnx", device="cpu")
    loaded.save_pretrained(str(target))
    export_dynamic_quantized_onnx_model(loaded, settings["quantization"], str(target), file_suffix="int8")


def _st_openvino(model: Path, target: Path, settings: Settings) -> None:
    from sentence_transformers import CrossEncoder

    loaded = CrossEncoder(str(model), backend="openvino", device="cpu")
    loaded.save_pretrained(str(target))
    _quantise_openvino(loaded, target, Path(settings["texts"]))


def _quantise_openvino(loaded: object, target: Path, texts: Path) -> None:
    """As ``export_static_quantized_openvino_model`` does, but calibrated by texts at hand: its own are on a hub."""
    from datasets import Dataset
    from optimum.intel.openvino import OVConfig, OVQuantizationConfig, OVQuantizer

    workload = json.loads(texts.read_text("utf-8"))
    queries, documents = zip(
        *(
            (query, text)
            for query, documents in zip(workload["queries"], workload["documents"], strict=True)
            for text in documents[:_CALIBRATION_PAIRS]
        ),
        strict=True,
    )
    encoded = loaded.tokenizer(
        list(queries[:_CALIBRATION_PAIRS]),
        list(documents[:_CALIBRATION_PAIRS]),
        padding="max_length",
        max_length=384,
        truncation=True,
    )
    made = target / "int8"
    quantiser = OVQuantizer.from_pretrained(_transformers_model(loaded))
    quantiser.quantize(
        calibration_dataset=Dataset.from_dict(dict(encoded)),
        ov_config=OVConfig(quantization_config=OVQuantizationConfig()),
        save_directory=made,
    )
    for suffix in ("xml", "bin"):
        found = next(made.rglob(f"openvino_model.{suffix}"))
        shutil.move(found, target / "openvino" / f"openvino_model_int8.{suffix}")
    shutil.rmtree(made)


def _transformers_model(loaded: object) -> object:
    """What is inside of a CrossEncoder: older versions have it under another name."""
    return getattr(loaded, "transformers_model", None) or loaded.model


def _flashrank(model: Path, target: Path, settings: Settings) -> None:
    """An ONNX file quantised dynamically to int8, as FlashRank's own larger models are."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from optimum.exporters.onnx import main_export

    exported = target / "exported"
    main_export(str(model), output=exported, task="text-classification", do_validation=False)
    quantize_dynamic(exported / "model.onnx", target / "model_Q.onnx", weight_type=QuantType.QInt8)
    shutil.rmtree(exported)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(model / name, target / name)


_WAYS: Mapping[str, Callable[[Path, Path, Settings], None]] = {
    "st-onnx": _st_onnx,
    "st-openvino": _st_openvino,
    "flashrank": _flashrank,
}
