"""What both framework classes hand to the reranker, and what they note on what comes back."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps, loads
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from pydantic import ValidationError

from uprank import Reranker, register_scorer
from uprank.adapter import RerankFields
from uprank.langchain import RerankCompressor
from uprank.llama_index import RerankPostprocessor
from uprank.notes import NOTES
from uprank.scorers import registry
from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores
from uprank.scorers.evidence import Attempt, Evidence, Passage
from uprank.selection import CallOptions

QUERY = "red fox"


class Spy(Scorer):
    """Keeps what it is asked; the longest text is the best."""

    name = "spy"
    score_kind = "logit"

    def __init__(self, model: str = "", *, answer: Callable[[Sequence[str]], Scores] | None = None) -> None:
        self.asked: list[ScoreRequest] = []
        self._answer = answer or (lambda texts: Scores([float(len(text)) for text in texts], "logit"))

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return self._answer(texts)

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        self.asked.extend(requests)
        return super().score_many(requests)


class Broken(Spy):
    name = "broken"

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        raise ConnectionError("the server is down")


@pytest.fixture(autouse=True)
def schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_scorer("spy", Spy)
    register_scorer("broken", Broken)


CHUNKS = [("a fox", {"title": "Foxes", "page": 1}), ("a hat", {"title": "A very long title"}), ("fox den", {})]


def langchain(documents: Sequence[tuple[str, dict[str, object]]] = CHUNKS, **fields: object) -> list[dict[str, object]]:
    """The metadata of what comes back, with the text and the score."""
    given = [Document(text, metadata=metadata) for text, metadata in documents]
    found = RerankCompressor(**fields).compress_documents(given, QUERY)
    return [{**one.metadata, "text": one.page_content, "score": one.metadata["relevance_score"]} for one in found]


def llama_index(
    documents: Sequence[tuple[str, dict[str, object]]] = CHUNKS, **fields: object
) -> list[dict[str, object]]:
    given = [NodeWithScore(node=TextNode(text=text, metadata=metadata)) for text, metadata in documents]
    found = RerankPostprocessor(**fields).postprocess_nodes(given, query_str=QUERY)
    return [{**one.node.metadata, "text": one.node.text, "score": one.score} for one in found]


both = pytest.mark.parametrize("framework", [langchain, llama_index])
Framework = Callable[..., "list[dict[str, object]]"]


@both
def test_a_field_for_everything_that_makes_a_reranker(framework: Framework) -> None:
    """Each option reaches Reranker, which refuses what is wrong: none is dropped on the way."""
    wrong = {
        "min_gap": -1.0,
        "max_tokens": 0,
        "diversity": 2.0,
        "keep_at_least": -1,
        "fallback": ["no-such-scheme:m"],
        "cache": 7,
        "passage_tokens": 10,
        "passage_overlap": 10,
        "fields": [],
        "template": "{title",
    }
    for name, value in wrong.items():
        with pytest.raises(ValidationError):
            framework(model="spy:m", **{name: value})
    with pytest.raises(ValidationError, match="long_documents"):
        framework(model="spy:m", long_documents="all")


@both
@pytest.mark.parametrize(
    ("option", "kept"),
    [
        ({}, ["fox den", "a fox", "a hat"]),
        ({"min_gap": 1.0}, ["fox den"]),
        ({"min_gap": 1.0, "keep_at_least": 2}, ["fox den", "a fox"]),
        ({"max_tokens": 1}, []),
    ],
)
def test_what_is_returned(framework: Framework, option: dict[str, object], kept: list[str]) -> None:
    assert [one["text"] for one in framework(model="spy:m", template="{text}", **option)] == kept


@both
def test_a_call_option_is_not_what_a_reranker_is_made_of(framework: Framework) -> None:
    found = framework(model=Reranker("spy:m", template="{text}"), keep_at_least=2, min_gap=1.0)
    assert [one["text"] for one in found] == ["fox den", "a fox"]


@both
@pytest.mark.parametrize("how", [{"fields": ["title", "text"]}, {"template": "{title}\n{text}"}])
def test_fields_are_scored_alike(framework: Framework, how: dict[str, object]) -> None:
    """The same chunk, the same score, whichever framework holds it, by name or of a ready reranker."""
    spy = Spy()
    ranked = framework(model=spy, **how)
    ready = framework(model=Reranker(spy, **how))
    first, second = spy.asked
    assert first.texts == second.texts
    assert list(first.texts[:2]) == ["Foxes\na fox", "A very long title\na hat"]
    assert first.texts[2].strip() == "fox den"
    assert ranked == ready
    assert [one["text"] for one in ranked] == ["a hat", "a fox", "fox den"]


def test_without_fields_each_framework_scores_what_it_did() -> None:
    spies = Spy(), Spy()
    langchain(model=spies[0])
    llama_index(model=spies[1])
    assert spies[0].asked[0].texts == ("a fox", "a hat", "fox den")
    assert spies[1].asked[0].texts[0] == "title: Foxes\npage: 1\n\na fox"


def test_the_retrieval_score_reaches_the_scorer() -> None:
    spies = Spy(), Spy()
    langchain([("a", {"retrieval_score": 0.5}), ("b", {"retrieval_score": 2})], model=spies[0])
    nodes = [NodeWithScore(node=TextNode(text=text), score=score) for text, score in (("a", 0.5), ("b", 2.0))]
    nodes[0].node.metadata["retrieval_score"] = 9.0  # of an earlier stage; the node's score is the fresh one
    found = RerankPostprocessor(model=spies[1]).postprocess_nodes(nodes, query_str=QUERY)
    assert [spy.asked[0].retrieval_scores for spy in spies] == [(0.5, 2.0), (0.5, 2.0)]
    assert sorted(one.node.metadata["retrieval_score"] for one in found) == [0.5, 2.0]


def told(texts: Sequence[str]) -> Scores:
    """As behind a fallback and a cascade of passages."""
    evidence = [
        Evidence(model="strong", stage=1, passage=Passage(2, 5, text[2:5]), truncated=False) if number else Evidence()
        for number, text in enumerate(texts)
    ]
    values = [float(number) for number in range(len(texts))]
    attempts = (Attempt("spy", "down", "ServerError", 0.1),)
    return Scores(values, "logit", model="second", attempts=attempts, evidence=evidence)


@both
def test_what_is_known_of_a_score_is_noted(framework: Framework) -> None:
    best, *_, last = framework(model=Spy(answer=told))
    assert {key: best[key] for key in NOTES if key in best} == {
        "rerank_index": 2,
        "rerank_model": "strong",
        "rerank_stage": 1,
        "rerank_passage": "x d",
        "rerank_passage_start": 2,
    }
    assert {key: last[key] for key in NOTES if key in last} == {"rerank_index": 0, "rerank_model": "second"}


@both
def test_only_what_is_true_is_noted(framework: Framework) -> None:
    evidence = [Evidence(truncated=True), Evidence(truncated=False), Evidence()]
    short = Spy(answer=lambda texts: Scores([1.0] * 3, "logit", evidence=evidence))
    noted = [{key: one[key] for key in NOTES if key in one} for one in framework(model=short)]
    assert noted == [{"rerank_index": 0, "rerank_truncated": True}, {"rerank_index": 1}, {"rerank_index": 2}]


@both
def test_notes_of_an_earlier_rerank_go(framework: Framework) -> None:
    """A stale passage or model name beside a fresh score would be believed."""
    stale = dict.fromkeys(NOTES, "stale")
    [found] = framework([("a fox", {**stale, "mine": 1})], model=Spy())
    assert {key: found[key] for key in (*NOTES, "mine") if key in found} == {"rerank_index": 0, "mine": 1}


@both
def test_a_fallback_says_who_answered(framework: Framework) -> None:
    found = framework(model="broken:m", fallback=["spy:m"], template="{text}")
    assert [one["text"] for one in found] == ["fox den", "a fox", "a hat"]
    assert {one["rerank_model"] for one in found} == {"spy"}


def test_notes_reach_neither_embedding_nor_prompt_in_llama_index() -> None:
    node = NodeWithScore(node=TextNode(text="a red fox", metadata={"page": 1}))
    evidence = [Evidence(model="strong", stage=1, passage=Passage(0, 1, "ZZZ"), truncated=True)]
    postprocessor = RerankPostprocessor(model=Spy(answer=lambda texts: Scores([1.0], "logit", evidence=evidence)))
    [first] = postprocessor.postprocess_nodes([node], query_str=QUERY)
    [second] = postprocessor.postprocess_nodes([first], query_str=QUERY)
    for found in (first, second):
        assert found.node.metadata["rerank_passage"] == "ZZZ"
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert found.node.get_content(mode) == node.node.get_content(mode)
        assert json.loads(found.to_json())["score"] == 1.0


EVERYTHING: dict[str, object] = {
    "model": "broken:m",
    "fallback": ["spy:m"],
    "long_documents": "max_passage",
    "passage_tokens": 64,
    "passage_overlap": 8,
    "fields": ["title", "text"],
    "min_gap": 0.5,
    "max_tokens": 100,
    "keep_at_least": 1,
}


def test_langchain_round_trips_keep_them() -> None:
    original = RerankCompressor(**EVERYTHING)
    revived = loads(dumps(original), allowed_objects=[RerankCompressor], valid_namespaces=["uprank"])
    for again in (revived, copy.deepcopy(original), pickle.loads(pickle.dumps(original))):  # noqa: S301 - our own
        assert again.model_dump() == original.model_dump()
        assert {name: getattr(again, name) for name in EVERYTHING} == EVERYTHING
        assert again.compress_documents([Document("a")], QUERY) == original.compress_documents([Document("a")], QUERY)


def test_llama_index_round_trips_keep_them() -> None:
    original = RerankPostprocessor(**EVERYTHING)
    revived = RerankPostprocessor.from_json(original.to_json())
    for again in (revived, copy.deepcopy(original), pickle.loads(pickle.dumps(original))):  # noqa: S301 - our own
        assert {name: getattr(again, name) for name in EVERYTHING} == EVERYTHING


def test_a_cache_on_disk_is_named_by_its_path(tmp_path: Path) -> None:
    compressor = RerankCompressor(model="bm25", cache=str(tmp_path / "scores.db"))
    for _ in range(2):
        assert len(compressor.compress_documents([Document("red fox"), Document("hat")], QUERY)) == 2
    assert (tmp_path / "scores.db").exists()
    assert f'"{tmp_path / "scores.db"}"' in dumps(compressor)


def test_the_same_options_share_one_reranker() -> None:
    """Lists are no obstacle: frameworks copy and rebuild these objects at will."""
    one, other = RerankCompressor(**EVERYTHING), RerankPostprocessor(**EVERYTHING)
    assert one.reranker is other.reranker
    assert one.reranker is not RerankCompressor(**{**EVERYTHING, "passage_tokens": 65}).reranker


MAKING = sorted({*EVERYTHING, "cache", "template", "score"} - {"model", *CallOptions.__annotations__})


@pytest.mark.parametrize("name", MAKING)
def test_a_ready_reranker_has_its_own(name: str) -> None:
    values = {**EVERYTHING, "cache": True, "score": "probability", "template": "{text}"}
    with pytest.raises(ValidationError, match=f"a ready Reranker has its own {name}; set them there"):
        RerankCompressor(model=Reranker("spy:m"), **{name: values[name]})


def test_what_a_reranker_is_made_of_cannot_be_changed_afterwards() -> None:
    compressor = RerankCompressor(model="spy:m")
    for name in MAKING:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(compressor, name, None)


def test_every_field_is_documented() -> None:
    described = RerankFields.__doc__ or ""
    assert [name for name in RerankFields.model_fields if f"        {name}: " not in described] == []
