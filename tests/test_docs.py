"""Every Python snippet of the README and the docs runs, each file in one namespace from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from uprank.scorers import registry

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_run(page: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_registered", {})
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "__snippets__"}
    for match in SNIPPET.finditer(text):
        line = text.count("\n", 0, match.start(1))
        code = compile("\n" * line + match[1], str(page), "exec")  # so that a traceback names the page's own line
        exec(code, namespace)  # noqa: S102 - our own pages


def test_pages_have_snippets():
    assert sum(len(SNIPPET.findall(page.read_text(encoding="utf-8"))) for page in PAGES) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
