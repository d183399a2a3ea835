"""RerankCompressor: the documents it returns, sync and async, and its errors."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import Runnable
from pydantic import ValidationError

from uprank import InvalidInputError, InvalidScoresError, Reranker, ScorerError
from uprank.langchain import RerankCompressor

Compress = Callable[..., "list[Document]"]


def length(query: str, texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def broken(query: str, texts: list[str]) -> list[float]:
    raise ConnectionError("the server is down")


def compressor(function: Callable[..., object] = length, **fields: object) -> RerankCompressor:
    settings = {name: fields.pop(name) for name in ("score", "on_error") if name in fields}
    return RerankCompressor(model=Reranker(function, **settings), **fields)


@pytest.fixture(params=["compress", "acompress", "invoke", "ainvoke"])
def compress(request: pytest.FixtureRequest) -> Compress:
    """Each way to call a compressor; all must agree."""

    def call(reranking: RerankCompressor, documents: list[Document], query: str = "query") -> list[Document]:
        given = {"query": query, "documents": documents}
        if request.param == "compress":
            return reranking.compress_documents(documents, query)
        if request.param == "acompress":
            return asyncio.run(reranking.acompress_documents(documents, query))
        return reranking.invoke(given) if request.param == "invoke" else asyncio.run(reranking.ainvoke(given))

    return call


DOCUMENTS = [
    Document("bb", id="two", metadata={"page": 2}),
    Document("dddd", id="four"),
    Document("a", id="one", metadata={"page": 1}),
    Document("ccc", id="three"),
]


def test_best_first_with_score_and_index(compress: Compress) -> None:
    ranked = compress(compressor(), DOCUMENTS)

    assert [document.page_content for document in ranked] == ["dddd", "ccc", "bb", "a"]
    assert [document.metadata["relevance_score"] for document in ranked] == [4.0, 3.0, 2.0, 1.0]
    assert [document.metadata["rerank_index"] for document in ranked] == [1, 3, 0, 2]
    assert ranked[2].metadata == {"page": 2, "relevance_score": 2.0, "rerank_index": 0}


def test_scores_are_python_floats(compress: Compress) -> None:
    numpy = pytest.importorskip("numpy")
    ranked = compress(compressor(lambda query, texts: numpy.arange(len(texts), dtype="float32")), DOCUMENTS)

    assert {type(document.metadata["relevance_score"]) for document in ranked} == {float}
    assert {type(document.metadata["rerank_index"]) for document in ranked} == {int}


def test_only_page_content_and_query_are_scored(compress: Compress) -> None:
    seen: list[tuple[str, list[str]]] = []

    def spy(query: str, texts: list[str]) -> list[float]:
        seen.append((query, texts))
        return length(query, texts)

    compress(compressor(spy), DOCUMENTS, "what?")

    assert seen == [("what?", ["bb", "dddd", "a", "ccc"])]


def test_no_documents_no_call(compress: Compress) -> None:
    assert compress(compressor(broken), []) == []


def test_d25_document_id_is_kept(compress: Compress) -> None:
    """D25: six wrappers rebuild the Document and lose its id."""
    assert [document.id for document in compress(compressor(), DOCUMENTS)] == ["four", "three", "two", "one"]


def test_document_subclass_and_uncopyable_metadata_are_kept(compress: Compress) -> None:
    class Passage(Document):
        page: int = 0

    lock = threading.Lock()
    [passage] = compress(compressor(), [Passage(page_content="text", page=7, metadata={"lock": lock})])

    assert type(passage) is Passage
    assert passage.page == 7
    assert passage.metadata["lock"] is lock


def test_callers_documents_stay_as_they_were(compress: Compress) -> None:
    given = [Document("a", metadata={"tags": ["x"], "relevance_score": 0.3}), Document("bb")]
    before, metadata = copy.deepcopy(given), [document.metadata for document in given]

    ranked = compress(compressor(), given)

    assert given == before
    assert all(document.metadata is was for document, was in zip(given, metadata, strict=True))
    assert not {id(document) for document in ranked} & {id(document) for document in given}
    assert ranked[1].metadata["tags"] is given[0].metadata["tags"]


def test_d26_r4_fresh_score_wins_over_stale_score(compress: Compress) -> None:
    """D26/R4: an earlier stage's relevance_score survives, the new one is lost, and an id key is injected."""
    stale = [
        Document("good answer", metadata={"relevance_score": 0.01, "rerank_index": 9}),
        Document("bad", metadata={"relevance_score": 0.99, "rerank_index": 8}),
    ]

    assert [document.metadata for document in compress(compressor(), stale)] == [
        {"relevance_score": 11.0, "rerank_index": 0},
        {"relevance_score": 3.0, "rerank_index": 1},
    ]


def test_duplicates_are_scored_once_and_all_returned(compress: Compress) -> None:
    asked: list[list[str]] = []

    def spy(query: str, texts: list[str]) -> list[float]:
        asked.append(texts)
        return length(query, texts)

    twice = Document("same", id="x")
    ranked = compress(compressor(spy), [twice, Document("longest"), twice, Document("same", id="y")])

    assert asked == [["same", "longest"]]
    assert [(document.id, document.metadata["rerank_index"]) for document in ranked] == [
        (None, 1),
        ("x", 0),
        ("x", 2),
        ("y", 3),
    ]


def test_any_text_comes_back_unchanged(compress: Compress) -> None:
    texts = ["", "naïve café", "日本語のテキスト", "🙂👩‍👩‍👧", "null \0 byte", "lone \ud800 surrogate", "עברית"]

    ranked = compress(compressor(), [Document(text) for text in texts], "qué?")

    assert {document.metadata["rerank_index"]: document.page_content for document in ranked} == dict(enumerate(texts))


@pytest.mark.parametrize(("top_n", "count"), [(None, 4), (1, 1), (3, 3), (4, 4), (100, 4)])
def test_top_n(top_n: int | None, count: int, compress: Compress) -> None:
    everything = compress(compressor(), DOCUMENTS)
    assert compress(compressor(top_n=top_n), DOCUMENTS) == everything[:count]


@pytest.mark.parametrize("top_n", [0, -1, 2.5, "many"])
def test_d24_top_n_out_of_range_is_an_error(top_n: object) -> None:
    """D24: top_n=-1 silently drops the worst document."""
    with pytest.raises(ValidationError, match="top_n"):
        compressor(top_n=top_n)
    with pytest.raises(InvalidInputError, match="top_n"):
        compressor().invoke({"query": "q", "documents": DOCUMENTS}, top_n=top_n)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [([1.0], "1 scores for 4 texts"), ([1.0, float("nan"), 2.0, 3.0], "nan"), ([1.0] * 5, "5 scores for 4 texts")],
    ids=["too few", "NaN", "too many"],
)
def test_d24_unusable_answer_is_an_error(answer: list[float], complaint: str, compress: Compress) -> None:
    """D24: one score for three documents drops two of them; NaN gives an arbitrary order."""
    with pytest.raises(InvalidScoresError, match=complaint):
        compress(compressor(lambda query, texts: answer), DOCUMENTS)


def test_threshold_is_inclusive(compress: Compress) -> None:
    ranked = compress(compressor(threshold=3.0), DOCUMENTS)
    assert [document.id for document in ranked] == ["four", "three"]


def test_ties_keep_the_given_order(compress: Compress) -> None:
    ranked = compress(compressor(lambda query, texts: [0.0] * len(texts)), DOCUMENTS)
    assert [document.id for document in ranked] == ["two", "four", "one", "three"]


def test_passthrough_keeps_order_and_invents_no_score(compress: Compress) -> None:
    given = [Document("a", id="1", metadata={"relevance_score": 0.99, "page": 4}), Document("bb"), Document("ccc")]

    ranked = compress(compressor(broken, on_error="passthrough", top_n=2, threshold=0.5), given)

    assert [document.page_content for document in ranked] == ["a", "bb"]
    assert ranked[0].id == "1"
    assert ranked[0].metadata == {"page": 4, "relevance_score": None, "rerank_index": 0, "rerank_degraded": True}


def test_a_later_stage_that_works_clears_the_degraded_flag(compress: Compress) -> None:
    degraded = compress(compressor(broken, on_error="passthrough"), DOCUMENTS)
    ranked = compress(compressor(), degraded)

    assert [document.metadata["relevance_score"] for document in ranked] == [4.0, 3.0, 2.0, 1.0]
    assert not any("rerank_degraded" in document.metadata for document in ranked)


def test_failure_names_the_scorer_and_chains_the_cause(compress: Compress) -> None:
    with pytest.raises(ScorerError, match="broken failed with ConnectionError: the server is down") as caught:
        compress(compressor(broken), DOCUMENTS)
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_blank_query_is_an_error(compress: Compress) -> None:
    with pytest.raises(InvalidInputError, match="query"):
        compress(compressor(on_error="passthrough"), DOCUMENTS, " \n")


@pytest.mark.parametrize(
    "given",
    [
        "just a query",
        DOCUMENTS,
        None,
        {"query": "q"},
        {"documents": DOCUMENTS},
        {"query": "q", "documents": ["text"]},
        {"query": "q", "documents": DOCUMENTS[0]},
        {"query": "q", "documents": None},
    ],
)
async def test_wrong_input_says_what_is_expected(given: object) -> None:
    expected = "RerankCompressor takes a query and LangChain Documents; got "
    with pytest.raises(InvalidInputError, match=expected):
        compressor().invoke(given)
    with pytest.raises(InvalidInputError, match=expected):
        await compressor().ainvoke(given)


def test_unknown_field_and_unknown_option_are_refused() -> None:
    with pytest.raises(ValidationError, match="RerankCompressor has no field 'topn': did you mean 'top_n'"):
        compressor(topn=3)
    with pytest.raises(TypeError, match="topn"):
        compressor().invoke({"query": "q", "documents": DOCUMENTS}, topn=3)


def test_d3_accepted_as_compressor_and_as_runnable() -> None:
    """D3: the wrapper imports a module gone in LangChain 1.x, prints advice and returns None."""
    assert isinstance(compressor(), BaseDocumentCompressor)
    assert isinstance(compressor(), Runnable)


def test_d3_needs_langchain_core_alone() -> None:
    """D3, as above: nothing of langchain, langchain-classic or langchain-community is imported."""
    script = (
        "import sys, uprank.langchain\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "sys.exit(', '.join(roots & {'langchain', 'langchain_classic', 'langchain_community', 'torch'}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_langchain_core_the_error_says_what_to_install() -> None:
    script = (
        "import sys\n"
        "sys.modules.update(langchain_core=None, pydantic=None)\n"
        "from uprank import MissingDependencyError\n"
        "try:\n"
        "    import uprank.langchain\n"
        "except MissingDependencyError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert 'Run: pip install "uprank[langchain]"' in done.stderr


def test_pickled_and_copied_it_ranks_the_same() -> None:
    original = compressor(top_n=2)
    expected = original.compress_documents(DOCUMENTS, "q")

    for twin in (pickle.loads(pickle.dumps(original)), copy.deepcopy(original), original.model_copy()):  # noqa: S301
        assert twin.compress_documents(DOCUMENTS, "q") == expected


async def test_r6_concurrent_calls_wait_together() -> None:
    """R6: 48 requests to a server that takes 1 s need over 8 s, as each waits for a thread."""

    async def remote(query: str, texts: list[str]) -> list[float]:
        await asyncio.sleep(1)
        return [float(text == query) for text in texts]

    reranking = compressor(remote)
    documents = [Document(str(number)) for number in range(48)]
    started = time.perf_counter()

    found = await asyncio.gather(*(reranking.acompress_documents(documents, str(number)) for number in range(48)))

    assert time.perf_counter() - started < 2
    assert [ranked[0].page_content for ranked in found] == [str(number) for number in range(48)]


async def test_r6_cancelling_frees_the_call() -> None:
    """R6: a cancelled call keeps its thread and its connection until the server answers."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def stuck(query: str, texts: list[str]) -> list[float]:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return length(query, texts)

    task = asyncio.create_task(compressor(stuck, on_error="passthrough").acompress_documents(DOCUMENTS, "q"))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert cancelled.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_r6_a_timeout_returns_in_time() -> None:
    """R6: wait_for(..., 0.1) comes back only when the server has answered."""

    async def slow(query: str, texts: list[str]) -> list[float]:
        await asyncio.sleep(5)
        return length(query, texts)

    started = time.perf_counter()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(compressor(slow).acompress_documents(DOCUMENTS, "q"), 0.1)
    assert time.perf_counter() - started < 1


async def test_a_sync_scorer_does_not_block_the_loop() -> None:
    released = threading.Event()

    def waits(query: str, texts: list[str]) -> list[float]:
        assert released.wait(10)
        return length(query, texts)

    task = asyncio.create_task(compressor(waits).acompress_documents(DOCUMENTS, "q"))
    await asyncio.sleep(0.05)
    released.set()  # never reached if the scorer held the loop
    assert len(await task) == 4


async def test_the_list_may_change_while_it_is_being_scored() -> None:
    changing = list(DOCUMENTS)

    async def interrupted(query: str, texts: list[str]) -> list[float]:
        changing.clear()
        return length(query, texts)

    ranked = await compressor(interrupted).acompress_documents(changing, "q")
    assert [document.id for document in ranked] == ["four", "three", "two", "one"]
