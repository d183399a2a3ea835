"""How a quantised model is compared with its original: the measures, and the comparison itself."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from uprank import ConfigurationError, InvalidInputError, Reranker
from uprank.fidelity import compare, kendall_tau, ndcg

QUERIES = ["red fox", "json file"]
DOCUMENTS = [["a red fox", "the sea", "a lazy dog"], ["python json file", "the sea"]]


def test_kendalls_tau_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    for seed in range(30):
        numbers = random.Random(seed)
        first = [numbers.randint(0, 5 + seed) for _ in range(12)]
        second = [numbers.randint(0, 5) for _ in range(12)]
        assert kendall_tau(first, second) == pytest.approx(stats.kendalltau(first, second).statistic)


def test_kendalls_tau_at_the_edges():
    assert kendall_tau([1, 2, 3], [10, 20, 30]) == 1
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))
    assert kendall_tau([5], [1]) == 1
    assert kendall_tau([1, 1], [1, 1]) == 1
    assert kendall_tau([1, 1], [1, 2]) == 0


def test_ndcg_by_hand():
    assert ndcg([3, 0, 1], [3, 0, 1]) == pytest.approx((3 + 1 / 2) / (3 + 1 / math.log2(3)))
    assert ndcg([0] * 10 + [1], [0] * 10 + [1]) == 0  # found, but below the first ten
    assert ndcg([0, 0], [0, 0]) == 0


def scores(table):
    def score(query, texts):
        return [table[text] for text in texts]

    return Reranker(score)


def test_a_swap_costs_what_the_judgements_say():
    documents = [["a", "b", "c"]]
    exact = scores({"a": 3.0, "b": 2.0, "c": 1.0}).rank_many(["q"], documents)
    swapped = scores({"a": 2.0, "b": 2.5, "c": 1.0}).rank_many(["q"], documents)
    judged = compare(swapped, exact, [[1, 0, 0]])
    assert judged.exact_ndcg == 1
    assert judged.ndcg == pytest.approx(1 / math.log2(3))
    assert judged.ndcg_difference == pytest.approx(1 / math.log2(3) - 1)
    assert judged.kendall_tau == pytest.approx(1 / 3)
    assert judged.largest_difference == 1.0
    assert (judged.queries, judged.pairs) == (1, 3)
    unjudged = compare(swapped, exact, None)
    assert unjudged.exact_ndcg == 1
    assert 0.9 < unjudged.ndcg < 1


def test_the_wrong_number_of_judgements_and_no_documents_are_errors():
    rankings = scores({"a": 1.0}).rank_many(["q"], [["a"]])
    with pytest.raises(InvalidInputError, match="1 documents but 2 judgements"):
        compare(rankings, rankings, [[1, 2]])
    for judgements, message in (([[float("nan")]], "judgement nan"), ([["x"]], "judgement 'x'"), ([], "0 lists")):
        with pytest.raises(InvalidInputError, match=message):
            compare(rankings, rankings, judgements)
    with pytest.raises(InvalidInputError, match="no document"):
        compare([], [], None)


def test_int8_of_a_cross_encoder_is_compared_with_its_float32(tiny_models: dict[str, Path]):
    reranker = Reranker(f"cross-encoder:{tiny_models['bert']}", device="cpu", engine="onnx", dtype="int8", top_n=1)
    found = reranker.fidelity(QUERIES, DOCUMENTS)
    assert found.pairs == 5  # top_n of the reranker does not leave documents out
    assert 0 < found.largest_difference < 1
    same = Reranker(f"cross-encoder:{tiny_models['bert']}", device="cpu", dtype="float32").fidelity(QUERIES, DOCUMENTS)
    assert (same.kendall_tau, same.ndcg_difference) == (1, 0)
    assert same.largest_difference < 1e-5


def test_what_does_not_run_here_has_no_float32_to_compare_with():
    with pytest.raises(ConfigurationError, match="does not run here"):
        Reranker("cohere:rerank-v3.5", api_key="x").fidelity(QUERIES, DOCUMENTS)
    with pytest.raises(ConfigurationError, match="does not run here"):
        scores({}).fidelity(QUERIES, DOCUMENTS)
