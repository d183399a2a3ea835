"""docs/providers.md says what the services' rows say, and the rows what the scorers do."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from uprank import ConfigurationError, RequestTooLargeError, Reranker, ServiceError
from uprank.scorers import HTTPScorer, registry
from uprank.scorers.http import reference
from uprank.scorers.http.failures import is_retryable
from uprank.scorers.http.messages import Reply
from uprank.testing import MockTransport

PAGE = Path(__file__).parent.parent / "docs" / "providers.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMAND = "python -m uprank.scorers.http.reference docs/providers.md"
SERVICES = [name for name, scheme in registry.SCHEMES.items() if scheme.target.startswith("uprank.scorers.http.")]
HEADINGS = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)


@dataclass(frozen=True)
class Line:
    """One line of the table of services."""

    scheme: str
    models: str
    keys: tuple[str, ...]
    optional: bool
    limits: str
    score_kind: str
    splittable: bool
    base_url: str

    def limit(self, unit: str) -> int | None:
        found = re.search(rf"([\d,]+) {unit}", self.limits)
        return int(found[1].replace(",", "")) if found else None

    @property
    def model(self) -> str:
        """A model that the line is about; in capitals, as case is said not to count."""
        named = re.findall(r"`([^`]+)`", self.models.partition(";")[0])
        if self.models.startswith("any"):
            return named[0] if named else "some-model"
        return named[0].replace("*", "x").upper()

    def reranker(self, **options: object) -> Reranker:
        if self.scheme == "http":
            options["base_url"] = "http://localhost:1/rerank"
        if not self.optional:
            options.setdefault("api_key", "k")
        return Reranker(f"{self.scheme}:{self.model}", **options)


def lines() -> list[Line]:
    found = []
    for row in re.findall(r"^\| \[`.*$", TEXT, re.MULTILINE):
        link, models, keys, limits, kind, splittable, base = [cell.strip() for cell in row.strip("|").split(" | ")]
        named = tuple(re.findall(r"`([^`]+)`", keys))
        scheme = re.fullmatch(r"\[`(.+):`\]\(#\1\)", link)
        assert scheme is not None, link
        assert splittable in ("yes", "no")
        optional = keys == "none" or keys.endswith("(optional)")
        found.append(Line(scheme[1], models, named, optional, limits, kind, splittable == "yes", base.strip("`")))
    return found


LINES = lines()
each_line = pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.scheme}:{line.model}")


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch):
    for variable in {"CO_API_URL", *(key for line in LINES for key in line.keys)}:
        monkeypatch.delenv(variable, raising=False)


class Recorder(MockTransport):
    """Keeps the requests as httpx made them, with the key."""

    def __init__(self) -> None:
        super().__init__(lambda query, documents: [1 / (1 + len(text)) for text in documents])
        self.raw: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.raw.append(request)
        return super().handle_request(request)


def test_the_page_is_what_the_rows_say():
    assert reference.updated(TEXT).encode() == PAGE.read_bytes(), f"docs/providers.md is out of date; run: {COMMAND}"


def test_the_command_brings_a_page_up_to_date(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_bytes(TEXT.replace("| 1,024 documents |", "| 7 documents |").replace("### `jina:`", "").encode())
    assert page.read_bytes() != PAGE.read_bytes()
    reference.main([str(page)])
    assert page.read_bytes() == PAGE.read_bytes()


@pytest.mark.parametrize(
    "page",
    ["", "<!-- end -->\n" + TEXT.replace("<!-- end -->\n", ""), TEXT + TEXT, TEXT.replace("<!-- begin: ", "<!-- ")],
    ids=["empty", "end first", "twice", "no beginning"],
)
def test_a_page_without_its_markers_is_left_alone(page: str, tmp_path: Path):
    path = tmp_path / "page.md"
    path.write_bytes(page.encode())
    with pytest.raises(ValueError, match="must have the lines"):
        reference.main([str(path)])
    assert path.read_bytes() == page.encode()


def test_the_command_says_how_it_is_used():
    with pytest.raises(SystemExit, match=re.escape(COMMAND)):
        reference.main([])


def test_every_service_of_the_registry_is_there():
    assert len(SERVICES) > 15
    assert list(dict.fromkeys(line.scheme for line in LINES)) == SERVICES
    assert [heading[1:-2] for heading in HEADINGS if re.fullmatch(r"`[a-z-]+:`", heading)] == SERVICES


def test_links_within_the_page_lead_to_headings():
    slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS]
    assert len(slugs) == len(set(slugs))
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= set(slugs)


@each_line
def test_a_line_says_what_the_scorer_declares(line: Line):
    scorer = line.reranker().scorer
    assert isinstance(scorer, HTTPScorer)
    assert scorer.score_kind == line.score_kind
    assert scorer.listwise != line.splittable
    assert scorer.accepts_instruction == ("takes an instruction" in line.models)
    limits = scorer._target.limits
    assert (limits.documents, limits.tokens, limits.bytes) == (
        line.limit("documents"),
        line.limit("tokens"),
        line.limit("bytes"),
    )
    assert (scorer._target.info_url is not None) == ("`/info` says" in line.limits)


@each_line
def test_a_service_is_asked_there_with_the_key_of_the_environment(line: Line, monkeypatch: pytest.MonkeyPatch):
    for variable in line.keys or (None,):
        if variable is not None:
            monkeypatch.setenv(variable, "planted-key")
        recorder = Recorder()
        options = {"base_url": "http://localhost:1/rerank"} if line.scheme == "http" else {}
        ranking = Reranker(f"{line.scheme}:{line.model}", transport=recorder, **options).rank(
            "q", ["long text", "text"]
        )
        if variable is not None:
            monkeypatch.delenv(variable)
        assert [hit.index for hit in ranking] == [1, 0]
        sent = recorder.raw[-1]
        assert str(sent.url).startswith(options.get("base_url", line.base_url) + ("" if options else "/"))
        assert any("planted-key" in value for value in sent.headers.values()) == (variable is not None)


@each_line
def test_a_key_is_needed_where_the_line_does_not_call_it_optional(line: Line):
    if line.optional:
        assert line.reranker().model
        return
    with pytest.raises(ConfigurationError, match=f"{line.keys[0]}"):
        line.reranker(api_key=None)


@each_line
def test_only_what_is_called_splittable_is_split(line: Line):
    recorder = Recorder()
    reranker = line.reranker(transport=recorder, max_documents=2)
    texts = ["longest text", "long text", "text"]
    if line.splittable:
        assert [hit.index for hit in reranker.rank("q", texts)] == [2, 1, 0]
        assert sorted(len(request.documents) for request in recorder.requests if request.body) == [1, 2]
    else:
        with pytest.raises(RequestTooLargeError, match="cannot be split"):
            reranker.rank("q", texts)
        assert recorder.requests == []


@pytest.mark.parametrize("scheme", SERVICES)
def test_a_section_has_a_snippet_of_two_lines_for_the_address_it_names(scheme: str):
    section = re.search(rf"^### `{scheme}:`\n(.*?)(?=^##|^<!-- end)", TEXT, re.MULTILINE | re.DOTALL)
    assert section is not None
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    assert len(snippet.splitlines()) == 2
    namespace: dict[str, object] = {}
    exec(snippet, namespace)  # noqa: S102 - our own page
    reranker = namespace["reranker"]
    assert isinstance(reranker, Reranker)
    assert reranker.model.startswith(f"{scheme}:")
    assert isinstance(reranker.scorer, HTTPScorer)
    if scheme == "http":
        assert "dialect=" in snippet
    else:
        assert f"Requests go to `{reranker.scorer._target.url}`" in section[1]


def test_every_option_is_listed_with_its_default():
    table = TEXT[TEXT.index("\n## Options\n") : TEXT.index("\n## Keys\n")]
    listed = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", table, re.MULTILINE))
    parameters = inspect.signature(HTTPScorer).parameters.values()
    options = {each.name: repr(each.default) for each in parameters if each.kind is each.KEYWORD_ONLY}
    del options["provider"]  # which the scheme says
    assert listed == options


def test_every_error_of_a_service_is_listed():
    table = TEXT[TEXT.index("\n## Errors\n") : TEXT.index("\n## Retries and deadlines\n")]
    # Those of language models alone are raised elsewhere, and have no place on this page.
    code = "".join(path.read_text(encoding="utf-8") for path in Path(inspect.getfile(reference)).parent.glob("*.py"))
    raised = {error.__name__ for error in ServiceError.__subclasses__() if re.search(rf"\b{error.__name__}\b", code)}
    assert len(raised) > 9
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == raised


def test_the_statuses_that_are_sent_again_are_those_listed():
    listed = re.search(r"answered with ([\d,\s]+) or (\d+)", TEXT)
    assert listed is not None
    statuses = {int(number) for number in re.findall(r"\d+", listed[0])}
    assert statuses == {status for status in range(100, 600) if is_retryable(Reply(status, {}, {}))}
