"""The quality benchmark: its measure by hand on a tiny data set, and the promised figure on real data."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from uprank import Reranker
from uprank.scorers import CallableScorer

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "quality.py"


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    specification = importlib.util.spec_from_file_location("quality", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["quality"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two queries over three and two documents, in the order the first stage left them."""
    folder = tmp_path / "noveleval"
    folder.mkdir()
    queries = [
        {
            "qid": 1,
            "query": "fox",
            "documents": [{"id": n, "text": t} for n, t in (("a", "0"), ("b", "1"), ("c", "2"))],
        },
        {"qid": 2, "query": "whale", "documents": [{"id": "d", "text": "3"}, {"id": "e", "text": "1"}]},
    ]
    (folder / "candidates.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))
    (folder / "qrels.txt").write_text("1 0 a 0\n1 0 b 2\n1 0 c 1\n2 0 e 3\n2 0 unseen 1\n")
    return tmp_path


LOG3 = math.log2(3)
FIRST_STAGE = (
    (2 / LOG3 + 1 / 2) / (2 + 1 / LOG3),  # a b c: gains 0 2 1
    (3 / LOG3) / (3 + 1 / LOG3),  # d e: gains 0 3; the ideal holds the document that was not found
)
RERANKED = ((1 + 2 / LOG3) / (2 + 1 / LOG3), FIRST_STAGE[1])  # by the number in the text: c b a, d e


def by_number(query: str, texts: Sequence[str]) -> list[float]:
    return [float(text) for text in texts]


def test_ndcg_by_hand(quality: ModuleType, data: Path):
    dataset = quality.load(data / "noveleval")
    first = quality.first_stage(dataset)
    assert first.ndcg_at_10 == pytest.approx(sum(FIRST_STAGE) / 2, abs=1e-6)
    assert (first.queries, first.pairs) == (2, 5)
    result = quality.measure(Reranker(CallableScorer(by_number, name="by number"), top_n=1), dataset)
    assert result.ndcg_at_10 == pytest.approx(sum(RERANKED) / 2, abs=1e-6)
    assert result.model == "by number"
    assert result.pairs_per_second == pytest.approx(5 / result.seconds)


def test_ties_keep_the_rankings_order(quality: ModuleType, data: Path):
    dataset = quality.load(data / "noveleval")
    same = Reranker(CallableScorer(lambda query, texts: [0.0] * len(texts), name="ties"))
    assert quality.measure(same, dataset).ndcg_at_10 == pytest.approx(sum(FIRST_STAGE) / 2, abs=1e-6)


def test_only_the_first_ten_count(quality: ModuleType):
    documents = [f"d{number}" for number in range(12)]
    assert quality.ndcg({"q": documents}, {"q": {"d10": 1}}) == 0.0
    assert quality.ndcg({"q": documents}, {"q": {"d9": 1}}) == pytest.approx(1 / math.log2(11), abs=1e-6)


def test_the_command_prints_a_table_and_writes_json(
    quality: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]
):
    target = data / "out.json"
    assert quality.main(["--model", "bm25", "--data", str(data), "--json", str(target)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["data", "model", "nDCG@10", "queries", "pairs", "seconds", "pairs/s"]
    assert lines[1].split() == ["noveleval", "first", "stage", f"{sum(FIRST_STAGE) / 2:.4f}", "2", "5"]
    assert lines[2].split()[:2] == ["noveleval", "bm25"]
    written = json.loads(target.read_text())
    assert [line["model"] for line in written] == ["first stage", "bm25"]
    assert written[1]["pairs_per_second"] > 0


def test_what_is_missing_is_said(quality: ModuleType, data: Path, capsys: pytest.CaptureFixture[str]):
    assert quality.main(["--model", "bm25", "--data", str(data / "nowhere")]) == 2
    assert "UPRANK_DATA" in capsys.readouterr().err
    assert quality.main(["--model", "no-such-model", "--data", str(data)]) == 2
    assert "no-such-model" in capsys.readouterr().err


def test_a_document_listed_twice_is_refused(quality: ModuleType, data: Path):
    candidates = data / "noveleval" / "candidates.jsonl"
    entry = {"qid": 3, "query": "x", "documents": [{"id": "a", "text": "1"}, {"id": "a", "text": "2"}]}
    candidates.write_text(json.dumps(entry))
    with pytest.raises(ValueError, match="twice"):
        quality.load(data / "noveleval")


def real(quality: ModuleType, name: str) -> Path:
    folder: Path = quality.default_data() / name
    if not (folder / "candidates.jsonl").is_file():
        pytest.skip(f"{name} is not under {folder.parent}; name its folder with UPRANK_DATA")
    return folder


@pytest.mark.parametrize(("name", "expected"), [("noveleval", 0.650), ("trec-dl19", 0.506)])
def test_the_first_stage_has_its_published_quality(quality: ModuleType, name: str, expected: float):
    assert quality.first_stage(quality.load(real(quality, name))).ndcg_at_10 == pytest.approx(expected, abs=5e-4)


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("each", "expected"), [(5, 0.655), pytest.param(1, 0.755, marks=pytest.mark.slow)], ids=["every fifth", "all"]
)
def test_embedded_reaches_its_quality_on_noveleval(quality: ModuleType, each: int, expected: float):
    whole = quality.load(real(quality, "noveleval"))
    queries = whole.queries[::each]
    dataset = quality.Dataset(whole.name, queries, {entry.qid: whole.qrels[entry.qid] for entry in queries})
    assert quality.measure(Reranker("embedded"), dataset).ndcg_at_10 >= expected


@pytest.mark.slow
def test_embedded_reaches_its_quality_on_trec_dl19(quality: ModuleType):
    dataset = quality.load(real(quality, "trec-dl19"))
    assert quality.measure(Reranker("embedded"), dataset).ndcg_at_10 >= 0.650
