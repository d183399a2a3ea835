"""Importing uprank: nothing heavy comes along, and nothing but Python is needed."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import uprank

SOURCE = Path(uprank.__file__).parents[1]
BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "import_time.py"

HEAVY = [
    "asyncio",  # a third of the time; imported where it is used
    "concurrent.futures.thread",
    "httpx",
    "importlib.metadata",
    "langchain",
    "langchain_classic",
    "langchain_core",
    "llama_index",
    "llama_index.core",
    "numpy",
    "pandas",
    "pydantic",
    "rich",
    "sentence_transformers",
    "torch",
    "tqdm",
    "transformers",
    "typer",
]


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


def answer(source, *flags):
    """What a script prints as JSON, run in a fresh interpreter."""
    done = run(*flags, "-c", textwrap.dedent(source))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", ["uprank", "uprank.scorers", "uprank.errors", "uprank.scorers.registry"])
def test_importing_brings_nothing_heavy(module):
    loaded = answer(f"import {module}, json, sys; print(json.dumps(sorted(sys.modules)))")
    assert "uprank" in loaded
    assert set(HEAVY).isdisjoint(loaded)


def test_ranking_with_a_function_brings_nothing_heavy_either():
    loaded = answer("""
        import json, sys
        from uprank import Reranker
        assert [hit.index for hit in Reranker(lambda query, texts: map(len, texts)).rank("q", ["a", "bb"])] == [1, 0]
        print(json.dumps(sorted(sys.modules)))
    """)
    assert set(HEAVY).isdisjoint(loaded)


def test_the_public_names_are_all_there():
    assert all(hasattr(uprank, name) for name in uprank.__all__)
    assert uprank.__all__ == sorted(uprank.__all__)
    assert {"Document", "RankedDocument", "Ranking", "Reranker", "rerank", "register_scorer"} <= set(uprank.__all__)


def test_the_package_says_that_it_is_typed():
    assert (Path(uprank.__file__).parent / "py.typed").is_file()


def bare(source):
    """Run without site-packages: -I ignores the environment, -S leaves out installed packages."""
    head = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
    return answer(head + textwrap.dedent(source), "-I", "-S")


def test_the_core_needs_nothing_but_python():
    found = bare("""
        import asyncio, json, pickle
        from uprank import Document, Reranker, rerank

        def by_length(query, texts):
            return [len(text) for text in texts]

        async def aby_length(query, texts):
            return by_length(query, texts)

        documents = ["a", Document("ccc"), {"text": "bb", "page": 1}]
        rankings = [
            rerank("q", documents, by_length),
            Reranker(aby_length).rank("q", documents),
            asyncio.run(Reranker(by_length, score_kind="logit", score="probability").arank("q", documents)),
            *Reranker(aby_length).rank_many(["q"], [documents]),
        ]
        rankings.append(pickle.loads(pickle.dumps(rankings[0])))
        assert "<table>" in rankings[0]._repr_html_()
        print(json.dumps([[hit["index"] for hit in ranking.to_dicts()] for ranking in rankings]))
    """)
    assert found == [[1, 2, 0]] * 5


def test_without_packages_each_model_says_what_to_install():
    messages = bare("""
        import json
        from uprank import MissingDependencyError, Reranker

        def said(make):
            try:
                make()
            except MissingDependencyError as error:
                return str(error)
            return "no error"

        names = ["embedded", "cross-encoder:x", "late-interaction:x", "embedding:x", "bm25", "fast", "multilingual"]
        messages = {name: said(lambda: Reranker(name)) for name in names}
        ranking = Reranker(lambda query, texts: [1.0]).rank("q", ["a"])
        print(json.dumps(messages | {"to_pandas": said(ranking.to_pandas)}))
    """)
    extras = {
        "embedded": "embedded",
        "cross-encoder:x": "local",
        "late-interaction:x": "local",
        "embedding:x": "local",
        "bm25": "bm25",
        "fast": "local",
        "multilingual": "local",
        "to_pandas": "pandas",
    }
    for name, extra in extras.items():
        assert messages[name].endswith(f', not installed here. Run: pip install "uprank[{extra}]"'), messages[name]


def test_without_packages_an_unknown_name_and_a_bad_option_are_told_as_ever():
    messages = bare("""
        import json
        from uprank import Reranker, UprankError

        def said(make):
            try:
                make()
            except UprankError as error:
                return type(error).__name__
            return "no error"

        print(json.dumps([said(lambda: Reranker("my-gpt-t5")), said(lambda: Reranker("bm25:x"))]))
    """)
    assert messages == ["UnknownModelError", "ConfigurationError"]


@pytest.mark.parametrize("adapter", ["langchain", "llama_index"])
def test_without_its_framework_an_adapter_is_an_import_error(adapter):
    found = bare(f"""
        import json
        try:
            import uprank.{adapter}
        except ImportError as error:
            print(json.dumps(str(error)))
    """)
    assert f'pip install "uprank[{adapter.replace("_", "-")}]"' in found


# --- the benchmark of the time it takes


@pytest.mark.parametrize(("limit", "status"), [("1e9", 0), ("0", 1)])
def test_the_import_benchmark_measures_and_judges(limit, status):
    done = run(str(BENCHMARK), "--runs", "1", "--limit", limit)
    assert done.returncode == status, done.stderr
    assert "import uprank" in done.stdout
    assert "ms" in done.stdout


def test_the_import_benchmark_measures_at_least_once():
    assert run(str(BENCHMARK), "--runs", "0").returncode == 2
