"""What docs/server.md says of settings, routes, errors and metrics is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from serving import serving, settings_for
from table_scorer import TableScorer
from uprank import Reranker
from uprank.server import KeySettings, Limits, ModelSettings, ServerSettings, create_app
from uprank.server.served import ServedModels

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
TOML = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """What stands under a heading, without what stands under those below it."""
    return re.split(r"^#+ ", PAGE.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def coded(text: str) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"`([^`]+)`", text))


def told_together(statuses: list[str], codes: list[str]) -> list[tuple[str, str]]:
    """One status for several codes, or one for each."""
    return list(zip(statuses * len(codes) if len(statuses) == 1 else statuses, codes, strict=False))


@pytest.fixture
def secrets(monkeypatch):
    for name in re.findall(r'env = "(\w+)"', "".join(TOML)):
        monkeypatch.setenv(name, f"a-secret-in-{name}")


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("number", range(len(TOML)))
def test_settings_shown_can_be_used(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a cache is to be made
    place = tmp_path / "uprank.toml"
    place.write_text(TOML[number], encoding="utf-8")
    settings = ServerSettings.from_file(place)
    assert {*ServedModels(settings).rerankers} == {*settings.models}
    for key in settings.keys:
        assert key.read_all()


def test_the_defaults_shown_are_the_defaults(tmp_path):
    shown = next(text for text in TOML if "port = 8000" in text)
    place = tmp_path / "uprank.toml"
    place.write_text(shown, encoding="utf-8")
    found = ServerSettings.from_file(place)
    chosen = {"models", "keys", "default_model", "warm"}
    for name, field in ServerSettings.model_fields.items():
        assert re.search(rf"^({name} =|\[+{name}\b)", shown, re.MULTILINE), f"{name} is not shown"
        if name not in chosen:
            assert getattr(found, name) == field.get_default(call_default_factory=True), name
    for name in Limits.model_fields:
        assert re.search(rf"^(# )?{name} = ", shown, re.MULTILINE), name


def test_all_of_a_model_and_of_a_key_is_explained():
    assert {*ModelSettings.model_fields} <= coded(section("Models"))
    for name in KeySettings.model_fields:
        assert f"{name} =" in "".join(TOML), name


def test_all_paths_are_named_and_exist():
    app = create_app(settings_for({"m": Reranker(TableScorer("m", {}))}), {"m": Reranker(TableScorer("m", {}))})
    served = {re.sub(r":path}", "}", route.path) for route in app.routes}
    named = {one for one in coded(PAGE) if re.fullmatch(r"/[a-z0-9/_.{}]*", one)}
    places = {one for one in named if one.startswith(("/etc/", "/var/", "/run/"))}
    assert named - places == served


def test_all_codes_are_told_with_their_status():
    told = {
        (int(status), code)
        for statuses, codes in re.findall(r"^\| (\d{3}.*?) \| (.*?) \|", section("Errors"), re.MULTILINE)
        for status, code in told_together(statuses.split(", "), re.findall(r"`(\w+)`", codes))
    }
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/uprank/server").rglob("*.py"))
    raised = {(int(status), code) for status, code in re.findall(r"Refusal\(\s*(\d{3}), \"(\w+)\"", source)}
    # Of what FastAPI refuses, and of what is told by the input that it depends on.
    raised |= {(int(status), code) for status, code in re.findall(r"(\d{3}): \(\"(\w+)\", \"", source)}
    raised |= {(422, "query_too_long"), (422, "invalid_request")}
    assert told == raised


def test_all_metrics_are_told_and_exist():
    with serving({"m": Reranker(TableScorer("m", {"a": 1.0}), cache=True)}) as address:
        httpx.post(f"{address}/rerank", json={"query": "q", "documents": ["a"]})
        text = httpx.get(f"{address}/metrics").text
    shown = {one for one in re.findall(r"^# TYPE (uprank_\w+)", text, re.MULTILINE) if not one.endswith("_created")}
    told = {one for one in coded(section("Health, metrics and logs")) if re.fullmatch(r"uprank_[a-z_]+", one)}
    assert shown == told
    for row in re.findall(r"^\| (`uprank_.*?) \| (.*?) \|", section("Health, metrics and logs"), re.MULTILINE):
        for name in coded(row[0]):
            labels = {
                label
                for shown_labels in re.findall(rf"^{name}(?:_count)?{{(.*?)}} ", text, re.MULTILINE)
                for label in re.findall(r'(\w+)="', shown_labels)
            }
            assert labels in ({*coded(row[1])}, set()), name  # none where nothing of it has happened yet
