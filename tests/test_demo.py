"""What the demo searches and how: the corpus, the first stage, and both frameworks over them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from uprank import Document, Reranker, UprankError
from uprank.demo.comparison import Bench, Comparison
from uprank.demo.retrieval import BM25Index, BM25NodeRetriever, BM25Retriever
from uprank.demo.stdlib_docs import MAX_CHARACTERS, load_stdlib_docs

# Loads the corpus where other things may have changed the interpreter: hooks, builtins, the hash seed.
ELSEWHERE = """
import builtins, hashlib, json, sys

def hook(*args):
    "Not Python's own."

sys.excepthook = hook
builtins.injected = hook
from uprank.demo.stdlib_docs import load_stdlib_docs

documents = load_stdlib_docs()
digest = hashlib.sha256(repr([(d.id, d.text, d.metadata) for d in documents]).encode()).hexdigest()
print(json.dumps({"digest": digest, "modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def corpus(stdlib_documents: list[Document]) -> list[Document]:
    return stdlib_documents


@pytest.fixture(scope="module")
def by_id(corpus: list[Document]) -> dict[str, Document]:
    return {str(document.id): document for document in corpus}


@pytest.fixture(scope="module")
def index(corpus: list[Document]) -> BM25Index:
    return BM25Index(corpus)


@pytest.fixture(scope="module")
def comparison(index: BM25Index) -> Comparison:
    with Reranker("embedded") as reranker:
        return Bench(index, reranker, candidates=40, top_n=5).compare("read a CSV file into dictionaries")


class TestCorpus:
    def test_holds_thousands_of_passages_each_under_its_own_id(self, corpus, by_id):
        assert len(corpus) > 4000
        assert len(by_id) == len(corpus)
        assert len({document.text for document in corpus}) > 0.95 * len(corpus)

    @pytest.mark.parametrize(
        ("name", "kind", "module"),
        [
            ("json", "module", "json"),
            ("csv.DictReader", "class", "csv"),
            ("csv.reader", "function", "csv"),
            ("json.loads", "function", "json"),
            ("time.sleep", "function", "time"),
            ("builtins.sorted", "function", "builtins"),
            ("builtins.str.split", "method", "builtins"),
            ("builtins.int.real", "property", "builtins"),
            ("itertools.groupby", "class", "itertools"),
            ("collections.deque.appendleft", "method", "collections"),
            ("datetime.datetime.strptime", "method", "datetime"),
            ("decimal.Decimal.sqrt", "method", "decimal"),
            ("pathlib.Path.rglob", "method", "pathlib"),
            ("pathlib.PurePath.name", "property", "pathlib"),
            ("asyncio.sleep", "function", "asyncio"),
            ("os.path.join", "function", "os.path"),
            ("os.listdir", "function", "os"),
            ("logging.handlers.RotatingFileHandler", "class", "logging.handlers"),
        ],
    )
    def test_knows_what_a_programmer_looks_for(self, by_id, name, kind, module):
        own = name.removeprefix(f"{module}.")
        assert by_id[name].metadata == {"module": module, "kind": kind, "name": own}
        assert by_id[name].text.startswith(name)

    @pytest.mark.parametrize(
        "absent",
        [
            "asyncio.tasks.sleep",
            "posixpath.join",
            "posix.listdir",
            "_csv.reader",
            "io.open",
            "csv.StringIO",
            "datetime.date.min",
        ],
    )
    def test_shows_a_thing_once_under_its_public_name(self, by_id, absent):
        assert absent not in by_id

    def test_has_no_private_names(self, corpus):
        assert [d.id for d in corpus if any(part.startswith("_") for part in str(d.id).split("."))] == []

    def test_text_is_name_signature_and_docstring(self, by_id):
        name_and_signature, blank, first = by_id["json.loads"].text.split("\n")[:3]
        assert name_and_signature.startswith("json.loads(s, *, cls=None, object_hook=None")
        assert blank == ""
        assert first.startswith("Deserialize ``s``")
        # an extension module writes its signatures down in another way, and self is not for the caller
        assert by_id["builtins.str.split"].text.startswith("builtins.str.split(sep=None, maxsplit=-1)\n\n")
        assert by_id["pathlib.Path.rglob"].text.startswith("pathlib.Path.rglob(pattern")
        assert by_id["builtins.dict.fromkeys"].text.startswith("builtins.dict.fromkeys(iterable, value=None, /)\n\n")
        # written over several lines there
        assert by_id["builtins.open"].text.partition("\n")[0].endswith("closefd=True, opener=None)")
        # public, and documented only by its signature
        assert by_id["csv.DictReader"].text.startswith("csv.DictReader(f, fieldnames=None, restkey=None")

    def test_long_docstrings_end_early(self, corpus, by_id):
        assert max(len(document.text) for document in corpus) <= MAX_CHARACTERS
        assert "\n\n" in by_id["subprocess"].text
        assert len(by_id["subprocess"].text) > MAX_CHARACTERS // 2

    def test_is_the_same_everywhere_and_runs_no_module_that_acts(self, corpus):
        environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONWARNINGS": "error"}
        run = subprocess.run(
            [sys.executable, "-c", ELSEWHERE], env=environment, capture_output=True, text=True, check=True
        )
        assert run.stderr == ""
        told = json.loads(run.stdout)  # nothing else was printed, e.g. by `this`
        acting = {"antigravity", "this", "idlelib", "tkinter", "turtle", "turtledemo", "readline", "test", "webbrowser"}
        assert acting.isdisjoint(told["modules"])
        expected = hashlib.sha256(repr([(d.id, d.text, d.metadata) for d in corpus]).encode()).hexdigest()
        assert told["digest"] == expected


class TestSources:
    """The rules of what is public, on a library small enough to write down."""

    @pytest.fixture
    def library(self, tmp_path: Path):
        def write(files: dict[str, str]) -> dict[str, str]:
            for name, source in files.items():
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(source)
            documents = load_stdlib_docs(tmp_path)
            return {str(d.id): d.text for d in documents if str(d.metadata["module"]).split(".")[0] in ("csv", "json")}

        return write

    def test_reads_without_running(self, library, tmp_path):
        passages = library({"csv.py": f'"""Tables."""\nopen({str(tmp_path / "ran")!r}, "w")\nraise SystemExit'})
        assert passages == {"csv": "csv\n\nTables."}
        assert not (tmp_path / "ran").exists()

    def test_what_is_undocumented_counts_only_if_listed(self, library):
        source = "__all__ = ['Listed']\nclass Listed:\n    def __init__(self, a, *, b=1): pass\nclass Other: pass\n"
        assert library({"csv.py": source}) == {"csv.Listed": "csv.Listed(a, *, b=1)"}

    def test_methods_properties_and_private_names(self, library):
        source = '''
class Reader:
    """Reads."""
    @classmethod
    def of(cls, path): """Open it."""
    @staticmethod
    def plain(selfish): """No self here."""
    async def line(self, /, n=1): """One line."""
    @property
    def width(self): """How wide."""
    @width.setter
    def width(self, value): """Not shown."""
    def _hidden(self): """Not shown."""
    def silent(self): pass
class _Hidden:
    """Not shown."""
    def shown(self): """Not shown."""
'''
        assert library({"csv.py": source}) == {
            "csv.Reader": "csv.Reader\n\nReads.",
            "csv.Reader.of": "csv.Reader.of(path)\n\nOpen it.",
            "csv.Reader.plain": "csv.Reader.plain(selfish)\n\nNo self here.",
            "csv.Reader.line": "csv.Reader.line(n=1)\n\nOne line.",
            "csv.Reader.width": "csv.Reader.width\n\nHow wide.",
        }

    def test_platforms_and_fallbacks_count_once(self, library):
        source = '''
import sys
try:
    from _absent_extension import fast
except ImportError:
    def fast(): """Slow."""
if sys.platform == "win32":
    def where(): """Windows."""
else:
    def where(): """Elsewhere."""
    def fork(): """Only here."""
'''
        assert library({"csv.py": source}) == {
            "csv.fast": "csv.fast()\n\nSlow.",
            "csv.where": "csv.where()\n\nWindows.",
            "csv.fork": "csv.fork()\n\nOnly here.",
        }

    def test_a_package_hands_on_from_its_parts(self, library):
        passages = library(
            {
                "json/__init__.py": "from ._core import *\nfrom .reader import read as load, aid\n__all__ = ['load']\n",
                "json/_core.py": "__all__ = ['dump']\ndef dump(x): 'Write.'\ndef unlisted(): 'Not exported.'\n",
                "json/reader.py": "def read(f): 'Read.'\ndef aid(): 'Help.'\n",
                "json/tests/__init__.py": "def case(): 'A test.'\n",
                "json/__main__.py": "def main(): 'A program.'\n",
            }
        )
        assert passages == {
            "json.dump": "json.dump(x)\n\nWrite.",
            "json.load": "json.load(f)\n\nRead.",
            "json.reader.aid": "json.reader.aid()\n\nHelp.",
        }

    def test_an_import_for_own_use_is_not_offered(self, library):
        passages = library({"csv.py": "from json import dumps\n", "json.py": "def dumps(x): 'Write.'\n"})
        assert passages == {"json.dumps": "json.dumps(x)\n\nWrite."}

    def test_a_long_docstring_is_cut_after_a_paragraph(self, library):
        paragraphs = "\n\n".join(letter * 250 for letter in "abcd")
        (text,) = library({"csv.py": f'"""{paragraphs}"""'}).values()
        assert text == "csv\n\n" + "\n\n".join(letter * 250 for letter in "abc")

    def test_a_long_paragraph_is_cut_within(self, library):
        (text,) = library({"csv.py": f'"""Short.\n\n{"a" * 2000}"""'}).values()
        assert text == "csv\n\nShort.\n\n".ljust(MAX_CHARACTERS, "a")

    def test_a_python_without_sources_is_told_so(self, tmp_path):
        with pytest.raises(UprankError, match=r"no sources of its standard library in .*full installation"):
            load_stdlib_docs(tmp_path)


class TestFirstStage:
    def test_gives_exactly_k_best_first(self, index, corpus):
        place = {document.id: number for number, document in enumerate(corpus)}
        hits = index.search("find all files matching a pattern recursively", 50)
        assert len(hits) == 50
        order = [(-score, place[document.id]) for document, score in hits]
        assert order == sorted(order)
        assert hits[0][0].id == "pathlib.Path.rglob"
        assert index.search("find all files matching a pattern recursively", 3) == hits[:3]

    def test_scores_are_bm25(self):
        texts = ["apple apple pear", "apple plum", "plum fig", "fig"]
        (best, score), (second, _) = BM25Index([Document(text) for text in texts]).search("apple", 4)
        idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
        frequency = 2 / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / 2))  # twice, in 3 words where 2 are the mean
        assert best.text == texts[0]
        assert second.text == texts[1]
        assert score == pytest.approx(idf * frequency, rel=1e-5)

    def test_finds_only_what_shares_a_word(self):
        index = BM25Index([Document("bird"), Document("cat", id="a"), Document("cat", id="b")])
        assert [document.id for document, _ in index.search("cat", 3)] == ["a", "b"]  # equal: in order
        assert index.search("unheard", 3) == []
        assert index.search("the of", 3) == []  # stop words alone
        assert index.search("?!", 3) == []

    def test_both_frameworks_retrieve_the_same(self, index):
        found = index.search("compress data with gzip", 10)
        documents = BM25Retriever(index=index, k=10).invoke("compress data with gzip")
        nodes = BM25NodeRetriever(index, 10).retrieve("compress data with gzip")
        ids, texts, scores = zip(*((d.id, d.text, score) for d, score in found), strict=True)
        assert tuple(d.id for d in documents) == tuple(n.node_id for n in nodes) == ids
        assert tuple(d.page_content for d in documents) == tuple(n.node.get_content() for n in nodes) == texts
        assert tuple(d.metadata["bm25_score"] for d in documents) == tuple(n.score for n in nodes) == scores
        assert all(d.metadata["kind"] == n.node.metadata["kind"] for d, n in zip(documents, nodes, strict=True))


class TestBench:
    def test_the_model_finds_what_bm25_buried(self, comparison):
        best = comparison.langchain[0]
        assert best.id == "csv.DictReader"
        assert best.kind == "class"
        assert best.index > 5

    def test_every_index_points_to_where_bm25_had_it(self, comparison):
        assert len(comparison.found) == 40
        assert len(comparison.langchain) == 5
        for hits in (comparison.langchain, comparison.llama_index):
            assert [comparison.found[hit.index].id for hit in hits] == [hit.id for hit in hits]
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)

    def test_the_frameworks_agree(self, comparison):
        assert comparison.agrees
        assert comparison.largest_difference < 1e-5

    def test_a_disagreement_is_seen(self, comparison):
        first, second, *others = comparison.langchain
        assert not replace(comparison, llama_index=[second, first, *others]).agrees
        assert not replace(comparison, llama_index=[first, second]).agrees
        assert not replace(comparison, llama_index=[replace(first, index=0), second, *others]).agrees
        louder = replace(comparison, llama_index=[replace(first, score=first.score + 0.5), second, *others])
        assert louder.agrees
        assert louder.largest_difference == pytest.approx(0.5, abs=1e-4)
