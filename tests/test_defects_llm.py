"""Defects seen in other LLM rerankers, each shown to be absent here. D6, D8, ... and R5 number them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from chat_brains import TEXT_ONLY, Saying, by_number, chain, indices, numbered, ranked, reading
from chat_server import filtered, serve_chat, status
from uprank import Document, Ranking, Reranker
from uprank.errors import (
    AuthenticationError,
    BadReplyError,
    ContentRefusedError,
    RequestTooLargeError,
    ServerError,
    ServiceError,
)
from uprank.scorers import LLMScorer
from uprank.scorers.llm import Completion
from uprank.testing import AskedQuestion, MockChatModel

THREE = ["a passage about boats", "a passage about bread", "a passage about bees"]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uprank.scorers.http.retries._FIRST_WAIT", 0.001)


def by_numbers(answer: str, texts: Sequence[str], **options: Any) -> Ranking:
    """By a model that was tuned to answer with the passages' numbers, and says this."""
    return Reranker(LLMScorer(lambda messages: answer, prompt="rank-zephyr", **options)).rank("which?", list(texts))


@pytest.mark.parametrize("method", ["listwise", "setwise", "pairwise", "pointwise"])
def test_d6_documents_may_have_metadata_and_may_be_none_at_all(method: str) -> None:
    """D6: metadata together with document objects always failed, and an empty list was an IndexError."""
    model = MockChatModel(by_number)
    reranker = Reranker(LLMScorer(model, method=method))
    documents = [Document("passage 1", metadata={"page": 1}), Document("passage 9", id="n", metadata={"page": 2})]
    ranking = reranker.rank("which?", documents)
    assert [(hit.document.id, hit.document.metadata) for hit in ranking] == [("n", {"page": 2}), (None, {"page": 1})]
    asked = len(model.questions)
    for nothing in ([], (), iter(())):
        assert list(reranker.rank("which?", nothing)) == []
    assert len(model.questions) == asked


@pytest.mark.parametrize("method", ["listwise", "setwise", "pairwise", "pointwise"])
def test_d8_duplicate_passages_each_come_back_as_themselves(method: str) -> None:
    """D8: results were mapped back by text, so equal passages came back as one of them twice."""
    model = MockChatModel(by_number)
    texts = {"a": "passage 5", "b": "passage 7", "c": "passage 5", "d": "passage 7", "e": "passage 6"}
    documents = [Document(text, id=name) for name, text in texts.items()]
    ranking = Reranker(LLMScorer(model, method=method)).rank("which?", documents)
    assert [hit.document.id for hit in ranking] == ["b", "d", "e", "a", "c"]
    assert all(hit.document is documents[hit.index] for hit in ranking)
    assert all(len(set(question.texts)) == len(question.texts) for question in model.questions)


async def asked_both_ways(reranker: Reranker, texts: Sequence[str], how: str) -> Ranking:
    if how == "sync":
        return reranker.rank("which?", texts)
    try:
        return await reranker.arank("which?", texts)
    finally:
        await reranker.aclose()


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_d9_a_refused_key_is_raised_and_not_the_original_order(how: str) -> None:
    """D9: the exception of a failing call was dropped with its task: a 401 gave the original order."""
    with serve_chat(reading(by_number), key="right") as server:
        reranker = Reranker("llm:m", base_url=server.base_url, api_key="wrong", on_error="raise")
        with pytest.raises(AuthenticationError, match="401"):
            await asked_both_ways(reranker, numbered(60), how)


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_d9_one_failing_call_among_several_at_once_is_said(how: str) -> None:
    """D9: likewise; where the other calls of a round succeed, the result says that a part is not the model's."""
    with serve_chat(reading(by_number)) as server:
        server.fail_when(lambda request: b"passage 59" in request.body, status(500))
        options = {"base_url": server.base_url, "api_key": "k", "max_retries": 0, "strategy": "top-down"}
        ranking = await asked_both_ways(Reranker("llm:m", **options), numbered(60), how)
        assert sorted(indices(ranking)) == list(range(60))
        assert ranking.degraded
        assert "500" in "".join(ranking.warnings)
        with pytest.raises(ServerError, match="500"):
            await asked_both_ways(Reranker("llm:m", strict=True, **options), numbered(60), how)


def test_d10_a_number_in_prose_is_no_rank() -> None:
    """D10: every digit of the answer counted, so this one gave the order 2, 3, 1."""
    said = "In 2 of the 3 passages I found 1 match. Final: [3] > [1] > [2]"
    assert indices(by_numbers(said, THREE)) == [2, 0, 1]


@pytest.mark.parametrize(
    "said", ["I can't rank these 3 passages.", "Error 413: 2 of at most 1 requests a minute", "3 2 1 go!"]
)
def test_d10_an_answer_without_an_order_is_an_error(said: str) -> None:
    """D10: likewise; of an apology or an error's text, the digits were the order."""
    with pytest.raises((BadReplyError, ContentRefusedError)):
        by_numbers(said, THREE)


async def test_d11_sync_calls_work_where_a_loop_runs() -> None:
    """D11: the synchronous call ran asyncio.run inside, which a notebook's running loop forbids."""

    async def say(messages: list[dict[str, str]]) -> str:
        return "[3] > [1] > [2]"

    reranker = Reranker(LLMScorer(say, prompt="rank-zephyr"))
    assert indices(reranker.rank("which?", THREE)) == [2, 0, 1]
    assert [indices(each) for each in reranker.rank_many(["which?", "who?"], [THREE, THREE])] == [[2, 0, 1]] * 2
    assert indices(await reranker.arank("which?", THREE)) == [2, 0, 1]


@pytest.mark.parametrize(
    ("code", "attempts"), [(400, 1), (401, 1), (402, 1), (403, 1), (404, 1), (429, 2), (500, 2), (503, 2)]
)
def test_d12_retries_end_and_what_cannot_succeed_is_asked_once(code: int, attempts: int) -> None:
    """D12: every error was retried each 0.1 s without end, wrong keys included."""
    with serve_chat(reading(by_number)) as server:
        server.fail_always(status(code, message="no"))
        options = {"base_url": server.base_url, "api_key": "k", "max_retries": 1, "answers": "text"}
        scorer = Reranker("llm:m", **options).scorer
        scorer._model.features.drop("seed", "temperature")  # so that a 400 does not cost a try without them
        with pytest.raises(ServiceError, match=str(code)):
            Reranker(scorer).rank("which?", THREE)
        assert len(server.posts) == attempts


TOO_LONG = {
    "error": {
        "message": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 "
        "tokens: [3] > [1] > [2]",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
}


def test_d12_an_error_is_never_taken_for_an_answer() -> None:
    """D12: a prompt that was too long and a filter became the text "ERROR::…", which was then read as the ranking."""
    with serve_chat(lambda messages, body: "[3] > [1] > [2]") as server:
        reranker = Reranker("llm:m", base_url=server.base_url, api_key="k", prompt="rank-zephyr", max_retries=0)
        server.fail_always(status(400, body=json.dumps(TOO_LONG).encode()))
        with pytest.raises(RequestTooLargeError, match="8192"):
            reranker.rank("which?", THREE)
        server.heal()
        server.fail_always(filtered())
        with pytest.raises(ContentRefusedError):
            reranker.rank("which?", THREE)
        server.heal()
        assert indices(reranker.rank("which?", THREE)) == [2, 0, 1]


def test_d13_what_is_set_is_named() -> None:
    """D13: two patterns given by position landed in the fields for reasoning and for the tokens used."""
    with pytest.raises(TypeError, match="positional"):
        LLMScorer(MockChatModel(by_number), "pointwise")  # type: ignore[misc]  # the mistake


def test_d13_thoughts_and_counts_of_tokens_are_told_apart() -> None:
    """D13: likewise; so thoughts were counted as tokens, and the answer lost its own."""

    def say(question: AskedQuestion) -> Completion:
        wrong = chain(question.labels)
        text = f"<think>Is it {wrong}? 7 of 9 say so.</think>{chain(question.labels[::-1])}"
        return Completion(text, input_tokens=1000, output_tokens=70)

    ranking = ranked(say, THREE)
    assert indices(ranking) == [2, 1, 0]
    assert ranking.usage.tokens == 1070


def test_d14_ranks_are_not_called_relevance() -> None:
    """D14: the score of a place was the first stage's score of whoever had stood there."""
    ranking = ranked(lambda question: chain(question.labels[::-1]), THREE)
    assert ranking.score_kind == "rank"
    assert [hit.score for hit in ranking] == sorted({hit.score for hit in ranking}, reverse=True)


def test_d14_a_score_belongs_to_the_document_wherever_it_stood() -> None:
    """D14: likewise; so the same document had another score in another order."""
    scorer = LLMScorer(MockChatModel(by_number), scores=True)
    texts = [f"passage {number}" for number in (100, 900, 500, 300)]
    found = []
    for given in (texts, texts[::-1], texts[2:] + texts[:2]):
        ranking = Reranker(scorer).rank("which?", given)
        assert ranking.score_kind == "probability"
        found.append({hit.document.text: hit.score for hit in ranking})
    grades = {"passage 100": 0.0, "passage 300": 1 / 3, "passage 500": 2 / 3, "passage 900": 1.0}
    assert found[0] == found[1] == found[2] == pytest.approx(grades)


ODD_IDS: dict[str, tuple[str, list[int]]] = {
    "out of range": ("[4] > [3] > [1] > [2]", [2, 0, 1]),
    "negative": ("[-1] > [2] > [3] > [1]", [1, 2, 0]),
    "zero": ("[0] > [3] > [2] > [1]", [2, 1, 0]),
    "repeated": ("[2] > [2] > [2] > [1] > [3]", [1, 0, 2]),
    "all of it": ("[7] > [2] > [0] > [2] > [-3] > [1] > [3] > [1]", [1, 0, 2]),
    "forgotten": ("[3]", [2, 0, 1]),
    "JSON, repeated": ('{"ranking": [3, 3, 1, 9, 2]}', [2, 0, 1]),
    "JSON, negative": ('{"ranking": [-1, 2, 1, 3]}', [1, 0, 2]),
}


@pytest.mark.parametrize(("said", "order"), ODD_IDS.values(), ids=ODD_IDS)
def test_d28_ids_that_are_none_are_dropped_and_no_document_is(said: str, order: list[int]) -> None:
    """D28: an id out of range was an IndexError, repeated and negative ones counted, and the forgotten were lost."""
    assert indices(by_numbers(said, THREE)) == order


def test_d28_repairs_are_told() -> None:
    """D28: likewise; nobody was told that the answer was not what had been asked for."""
    (warning,) = by_numbers("[7] > [2] > [2] > [1] > [3]", THREE).warnings
    assert "unknown ids dropped (1)" in warning
    assert "repeated ids dropped (1)" in warning


@pytest.mark.parametrize("step", [1, 3, 5, 10, 19])
def test_d29_the_step_is_the_one_given(step: int) -> None:
    """D29: a field for the step was not used, and windows always moved by 10."""
    model = MockChatModel(by_number)
    Reranker(LLMScorer(model, strategy="sliding", window=20, step=step)).rank("which?", numbered(45))
    assert len(model.questions) == 1 + -(-25 // step)
    for before, after in zip(model.questions, model.questions[1:-1], strict=False):
        assert len(set(before.texts) & set(after.texts)) == 20 - step


def test_d31_a_word_for_a_score_shifts_none() -> None:
    """D31: "Relevance: high" was skipped, so that every later score went to the document before."""
    asked: list[AskedQuestion] = []

    def say(question: AskedQuestion) -> str:
        asked.append(question)
        given = {"a passage about boats": "high", "a passage about bread": "9", "a passage about bees": "1"}
        return "\n".join(f"{label}: {given[text]}" for label, text in zip(question.labels, question.texts, strict=True))

    ranking = ranked(say, THREE, method="pointwise", grades=9)
    assert {hit.index: hit.score for hit in ranking} == {0: None, 1: 1.0, 2: pytest.approx(1 / 9)}
    assert ranking.degraded
    assert [question.texts for question in asked[1:]] == [("a passage about boats",)] * (len(asked) - 1)


@pytest.mark.parametrize(("said", "score"), [("9.7", None), ("8/10", None), ("-3", None), ("4.5", 0.5)])
def test_d31_a_number_is_taken_whole_or_not_at_all(said: str, score: float | None) -> None:
    """D31: 9.7 was read as 9."""
    ranking = ranked(
        lambda question: "\n".join(
            f"{label}: {said if 'bees' in text else 2}"
            for label, text in zip(question.labels, question.texts, strict=True)
        ),
        THREE,
        method="pointwise",
        grades=9,
    )
    assert {hit.index: hit.score for hit in ranking} == {0: pytest.approx(2 / 9), 1: pytest.approx(2 / 9), 2: score}


@pytest.mark.parametrize("given", [1, 2, 7])
def test_d32_what_the_model_does_not_mention_stays(given: int) -> None:
    """D32: documents that the model did not mention vanished."""
    ranking = ranked(lambda question: chain(question.labels[::-1][:given]), numbered(10))
    assert indices(ranking)[:given] == list(range(9, 9 - given, -1))
    assert sorted(indices(ranking)) == list(range(10))
    assert any("missing ids" in warning for warning in ranking.warnings)


@pytest.mark.parametrize("said", ["None of them is relevant.", "", "[]", '{"ranking": []}'])
def test_d32_an_answer_that_names_none_is_an_error_and_never_an_empty_result(said: str) -> None:
    """D32: likewise; an answer that mentioned none gave an empty list."""
    with pytest.raises((BadReplyError, ContentRefusedError)):
        ranked(lambda question: said, THREE)
    model = Saying(lambda question: said, features=TEXT_ONLY)
    passed = Reranker(LLMScorer(model), on_error="passthrough").rank("which?", THREE)
    assert passed.degraded
    assert [(hit.index, hit.score) for hit in passed] == [(0, None), (1, None), (2, None)]


def test_d33_the_model_is_made_once() -> None:
    """D33: each call built the model anew, and the scores were the retriever's."""
    from llama_index.core.schema import NodeWithScore, TextNode

    from uprank.llama_index import RerankPostprocessor

    with serve_chat(reading(by_number)) as server:
        given = {"model": "llm:m", "api_key": "k", "options": {"base_url": server.base_url}}
        postprocessors = [RerankPostprocessor(**given), RerankPostprocessor(**given)]
        assert postprocessors[0].reranker is postprocessors[1].reranker
        model = postprocessors[0].reranker.scorer._model
        nodes = [NodeWithScore(node=TextNode(text=text), score=0.9 - 0.1 * n) for n, text in enumerate(numbered(3))]
        for postprocessor in postprocessors * 2:
            found = postprocessor.postprocess_nodes(nodes, query_str="which?")
            assert [node.node.metadata["rerank_index"] for node in found] == [2, 1, 0]
            assert [node.node.metadata["retrieval_score"] for node in found] == pytest.approx([0.7, 0.8, 0.9])
            assert found[0].score > found[1].score > found[2].score
            assert postprocessor.reranker.scorer._model is model
        assert len(server.posts) == 4
        assert server.connections == 1


@pytest.mark.parametrize(
    ("lines", "scores"),
    [
        ({1: "high", 2: "9", 3: "1"}, [None, 1.0, 1 / 9]),
        ({1: "0.87", 2: "9", 3: "1"}, [0.87 / 9, 1.0, 1 / 9]),
        ({1: "2", 2: "10", 3: "1"}, [2 / 9, None, 1 / 9]),
        ({0: "9", -1: "9", 1: "2", 2: "3", 3: "1"}, [2 / 9, 3 / 9, 1 / 9]),
        ({1: "2", 3: "1"}, [2 / 9, None, 1 / 9]),
    ],
    ids=["a word", "a fraction", "out of scale", "ids that are none", "left out"],
)
def test_r5_each_document_has_its_own_score_or_none(lines: dict[int, str], scores: list[float | None]) -> None:
    """R5: a score that was no number went to the next document, an id 0 to the last; 0.87 was 0, the rest lost."""

    def say(question: AskedQuestion) -> str:
        names = {1 + THREE.index(text): label for label, text in zip(question.labels, question.texts, strict=True)}
        return "\n".join(
            f"{names.get(number, number)}: {value}"
            for number, value in lines.items()
            if number in names or number not in (1, 2, 3)
        )

    ranking = ranked(say, THREE, method="pointwise", grades=9)
    found = {hit.index: hit.score for hit in ranking}
    assert [found[index] for index in range(3)] == [None if score is None else pytest.approx(score) for score in scores]
