"""Objects that ask for the same model get one reranker, and so one loaded model."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from uprank import register_scorer, rerank
from uprank.scorers import CallableScorer, registry
from uprank.sharing import shared_reranker

made: list[CallableScorer] = []


def length(query: str, texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def make(model: str, *, sign: float = 1, tags: object = None) -> CallableScorer:
    made.append(CallableScorer(length))
    return made[-1]


@pytest.fixture(autouse=True)
def scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    made.clear()
    register_scorer("counted", make)


def test_the_same_model_and_options_share_one_reranker():
    first = shared_reranker("counted:a", sign=1)
    assert shared_reranker("counted:a", sign=1) is first
    assert len(made) == 1


def test_other_options_other_models_and_equal_numbers_of_another_type_do_not():
    rerankers = [
        shared_reranker("counted:a"),
        shared_reranker("counted:b"),
        shared_reranker("counted:a", sign=1),
        shared_reranker("counted:a", sign=1.0),
        shared_reranker("counted:a", sign=True),
        shared_reranker("counted:a", on_error="passthrough"),
    ]
    assert len(set(map(id, rerankers))) == len(made) == 6


def test_options_that_cannot_be_hashed_are_taken_and_not_shared():
    first = shared_reranker("counted:a", tags={"x": 1})
    assert shared_reranker("counted:a", tags={"x": 1}) is not first


def test_lists_are_shared_too():
    """A chain of models is a list, and must keep its circuits from call to call."""
    first = shared_reranker("counted:a", fallback=["bm25"], fields=["text"])
    assert shared_reranker("counted:a", fallback=["bm25"], fields=["text"]) is first
    assert shared_reranker("counted:a", fallback=["embedded"], fields=["text"]) is not first


def test_a_scheme_registered_anew_is_not_answered_with_its_former_scorer():
    first = shared_reranker("counted:a")
    register_scorer("counted", make, replace=True)
    assert shared_reranker("counted:a") is not first


def test_a_reranker_nobody_holds_is_let_go():
    gone = weakref.ref(shared_reranker("counted:a"))
    gc.collect()
    assert gone() is None


def test_many_threads_make_one():
    with ThreadPoolExecutor(8) as pool:
        rerankers = list(pool.map(lambda _: shared_reranker("counted:a"), range(64)))
    assert len(set(map(id, rerankers))) == len(made) == 1


def test_rerank_and_the_framework_classes_share_too():
    from uprank.langchain import RerankCompressor
    from uprank.llama_index import RerankPostprocessor

    assert rerank("q", ["a", "bb"], "counted:a")[0].index == 1
    compressor, postprocessor = RerankCompressor(model="counted:a"), RerankPostprocessor(model="counted:a")
    assert compressor.reranker is not None
    assert postprocessor.reranker is compressor.reranker
    assert compressor.model_copy(deep=True).reranker is compressor.reranker


def test_a_factory_may_ask_for_a_shared_reranker_itself():
    def cascade(model: str) -> CallableScorer:
        inner = shared_reranker("counted:inner")

        def score(query: str, texts: list[str]) -> list[float | None]:
            return [hit.score for hit in sorted(inner.rank(query, texts), key=lambda hit: hit.index)]

        return CallableScorer(score)

    register_scorer("cascade", cascade)
    with ThreadPoolExecutor(1) as pool:
        reranker = pool.submit(shared_reranker, "cascade:a").result(10)
    assert [hit.index for hit in reranker.rank("q", ["a", "bbb", "bb"])] == [1, 2, 0]


def test_functions_do_not_push_named_models_out():
    rerank("q", ["a"], "counted:a")
    for _ in range(10):
        rerank("q", ["a"], lambda query, texts: [0.0])
    rerank("q", ["a"], "counted:a")
    assert len(made) == 1
