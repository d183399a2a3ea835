"""The templates of fine-tuned models, byte for byte, against prompts written by hand from the models' own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from uprank.scorers.llm.prompts import Passage, Prompt

GOLDEN = sorted((Path(__file__).parent / "golden_prompts").glob("*.json"))
USUAL = {"listwise", "setwise", "pairwise", "pointwise", "reasoning"}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_bytes_are_those_of_the_original(path):
    golden = read(path)
    prompt, form = Prompt.load(golden["prompt"]), golden["form"]
    labels = prompt.labels_for(form)
    assert labels == "numeric"
    question = {
        "query": golden["query"],
        "passages": [Passage(str(number), text) for number, text in enumerate(golden["passages"], 1)],
        "instruction": golden.get("instruction"),
        "form": form,
    }
    messages = prompt.render(**question)
    assert [[message.role, message.content] for message in messages] == golden["messages"]
    assert prompt.text(**question) == golden["text"]


def test_every_template_that_is_not_our_own_has_a_golden_file():
    assert {read(path)["prompt"] for path in GOLDEN} == set(Prompt.names()) - USUAL


def test_every_template_that_is_not_our_own_names_its_source_and_licence():
    home = Path(__import__("uprank").__file__).parent / "scorers" / "llm" / "prompts_data"
    for name in set(Prompt.names()) - USUAL:
        header = (home / f"{name}.txt").read_text(encoding="utf-8").partition("===")[0]
        assert "commit " in header, name
        assert "License" in header, name
