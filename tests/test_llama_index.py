"""What RerankPostprocessor returns: order, scores, copies, and what becomes of odd nodes."""

from __future__ import annotations

import copy
import inspect
import json
import socket
import threading

import numpy as np
import pytest
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import (
    Document,
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

from uprank import InvalidInputError, InvalidScoresError, Reranker, ScorerError
from uprank.llama_index import RerankPostprocessor

QUERY = "red fox"


def shared_words(query: str, texts: list[str]) -> list[float]:
    """Score by the share of a text's words that are in the query."""
    asked = set(query.split())
    return [len(asked & set(text.split())) / max(1, len(text.split())) for text in texts]


def failing(query: str, texts: list[str]) -> list[float]:
    raise RuntimeError("the scorer is down")


class Recorder:
    """Keeps every query and text that it scores."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.texts: list[str] = []

    def __call__(self, query: str, texts: list[str]) -> list[float]:
        self.queries.append(query)
        self.texts.extend(texts)
        return shared_words(query, texts)


def text_nodes() -> list[NodeWithScore]:
    """Four nodes with metadata, as a retriever gives them; best for QUERY: n3, n1, then n0 and n2."""
    texts = ["a lazy dog", "the red hat jumps", "a blue whale", "red fox den"]
    return [
        NodeWithScore(node=TextNode(text=text, id_=f"n{i}", metadata={"src": f"s{i}"}), score=0.9 - i / 10)
        for i, text in enumerate(texts)
    ]


def ids(nodes: list[NodeWithScore]) -> list[str]:
    return [item.node.node_id for item in nodes]


def state(nodes: list[NodeWithScore]) -> list[object]:
    """Everything that a careless postprocessor might change in the caller's nodes."""
    return [(id(item), id(item.node), item.score, copy.deepcopy(item.node.model_dump())) for item in nodes]


def test_best_first_with_index_scores_and_the_retrieval_score() -> None:
    postprocessor = RerankPostprocessor(model=Reranker(shared_words), metadata_mode=MetadataMode.NONE)
    result = postprocessor.postprocess_nodes(text_nodes(), query_str=QUERY)
    assert isinstance(postprocessor, BaseNodePostprocessor)
    assert ids(result) == ["n3", "n1", "n0", "n2"]
    assert [item.score for item in result] == [pytest.approx(2 / 3), 0.25, 0.0, 0.0]
    assert [item.node.metadata["rerank_index"] for item in result] == [3, 1, 0, 2]
    assert [item.node.metadata["retrieval_score"] for item in result] == pytest.approx([0.6, 0.8, 0.9, 0.7])
    assert [item.node.metadata["src"] for item in result] == ["s3", "s1", "s0", "s2"]


@pytest.mark.parametrize("selection", [{}, {"top_n": 3}, {"threshold": 0.2}], ids=["all", "top_n", "threshold"])
async def test_async_gives_what_sync_gives(selection: dict[str, float]) -> None:
    postprocessor = RerankPostprocessor(model=Reranker(shared_words), metadata_mode="none", **selection)
    nodes = [NodeWithScore(node=TextNode(text="", id_="empty")), *text_nodes()]
    sync = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    assert await postprocessor.apostprocess_nodes(nodes, QueryBundle(QUERY)) == sync
    wanted = {"top_n": ["n3", "n1", "n0"], "threshold": ["n3", "n1"]}
    assert ids(sync) == wanted.get(next(iter(selection), "all"), ["n3", "n1", "n0", "n2", "empty"])


def test_nodes_are_told_apart_by_position_not_by_id_or_text() -> None:
    named = [("same", "fox x"), ("same", "red fox"), ("other", "red fox")]
    nodes = [NodeWithScore(node=TextNode(id_=name, text=text)) for name, text in named]
    postprocessor = RerankPostprocessor(model=Reranker(shared_words))
    result = postprocessor.postprocess_nodes([*nodes, nodes[1]], query_str=QUERY)
    assert [item.node.metadata["rerank_index"] for item in result] == [1, 2, 3, 0]
    assert [item.score for item in result] == [1.0, 1.0, 1.0, 0.5]
    assert ids(result) == ["same", "other", "same", "same"]
    assert result[0].node is not result[2].node


def test_options_reach_the_reranker() -> None:
    nodes = text_nodes()
    scored = {"model": Reranker(shared_words), "metadata_mode": "none"}
    assert ids(RerankPostprocessor(**scored, top_n=1).postprocess_nodes(nodes, query_str=QUERY)) == ["n3"]
    assert ids(RerankPostprocessor(**scored, top_n=99).postprocess_nodes(nodes, query_str=QUERY)) == [
        "n3",
        "n1",
        "n0",
        "n2",
    ]
    assert ids(RerankPostprocessor(**scored, threshold=0.2).postprocess_nodes(nodes, query_str=QUERY)) == ["n3", "n1"]
    ready = Reranker(shared_words, top_n=2)
    assert len(RerankPostprocessor(model=ready).postprocess_nodes(nodes, query_str=QUERY)) == 2
    assert len(RerankPostprocessor(model=ready, top_n=3).postprocess_nodes(nodes, query_str=QUERY)) == 3
    with pytest.raises(ValueError, match="takes no instruction"):
        RerankPostprocessor(**scored, instruction="by colour")


@pytest.mark.parametrize("wrong", [{"top_n": 0}, {"top_n": -1}, {"threshold": float("nan")}, {"topn": 3}])
def test_wrong_fields_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RerankPostprocessor(model=Reranker(shared_words), **wrong)


def test_a_query_is_needed_and_scored_without_the_white_space_of_tools() -> None:
    recorder = Recorder()
    postprocessor = RerankPostprocessor(model=Reranker(recorder))
    with pytest.raises(ValueError, match="needs a query"):
        postprocessor.postprocess_nodes(text_nodes())
    with pytest.raises(InvalidInputError, match="empty"):
        postprocessor.postprocess_nodes(text_nodes(), query_str=" \n")
    with pytest.raises(ValueError, match="both"):
        postprocessor.postprocess_nodes(text_nodes(), QueryBundle(QUERY), QUERY)
    assert recorder.queries == []
    postprocessor.postprocess_nodes(text_nodes(), query_str="\nred fox\n")
    assert recorder.queries == ["red fox"]


async def test_no_nodes_make_no_call() -> None:
    recorder = Recorder()
    postprocessor = RerankPostprocessor(model=Reranker(recorder))
    assert postprocessor.postprocess_nodes([], query_str=QUERY) == []
    assert await postprocessor.apostprocess_nodes([], query_str=QUERY) == []
    only_empty = [NodeWithScore(node=TextNode(text=" "))]
    assert len(postprocessor.postprocess_nodes(only_empty, query_str=QUERY)) == 1
    assert recorder.queries == []


@pytest.mark.parametrize("mode", list(MetadataMode))
def test_metadata_mode_decides_what_is_scored(mode: MetadataMode) -> None:
    node = TextNode(
        text="red fox",
        metadata={"page": 1, "secret": 2, "vector": 3},
        excluded_llm_metadata_keys=["secret"],
        excluded_embed_metadata_keys=["vector"],
    )
    recorder = Recorder()
    postprocessor = RerankPostprocessor(model=Reranker(recorder), metadata_mode=mode.value)
    postprocessor.postprocess_nodes([NodeWithScore(node=node)], query_str=QUERY)
    assert recorder.texts == [
        {
            MetadataMode.NONE: "red fox",
            MetadataMode.EMBED: "page: 1\nsecret: 2\n\nred fox",
            MetadataMode.LLM: "page: 1\nvector: 3\n\nred fox",
            MetadataMode.ALL: "page: 1\nsecret: 2\nvector: 3\n\nred fox",
        }[mode]
    ]
    assert RerankPostprocessor(model=Reranker(recorder)).metadata_mode is MetadataMode.EMBED


def test_copies_keep_class_id_relationships_and_metadata_that_cannot_be_copied() -> None:
    class Chunk(TextNode):
        page: int = 0

    lock = threading.Lock()
    source = RelatedNodeInfo(node_id="source")
    chunk = Chunk(text="red fox", page=7, metadata={"lock": lock}, relationships={NodeRelationship.SOURCE: source})
    nodes = [
        NodeWithScore(node=chunk),
        NodeWithScore(node=Document(text="a red fox", doc_id="d")),
        NodeWithScore(node=Node(text_resource=MediaResource(text="one fox here"))),
    ]
    result = RerankPostprocessor(model=Reranker(shared_words), metadata_mode="none").postprocess_nodes(
        nodes, query_str=QUERY
    )
    assert [type(item.node) for item in result] == [Chunk, Document, Node]
    for before, after in zip(nodes, result, strict=True):
        assert after is not before
        assert after.node is not before.node
        assert after.node.metadata is not before.node.metadata
        assert after.node.node_id == before.node.node_id
        assert after.node.get_content() == before.node.get_content()
    kept = result[0].node
    assert isinstance(kept, Chunk)
    assert kept.page == 7
    assert kept.metadata["lock"] is lock
    assert kept.source_node is source
    assert "retrieval_score" not in kept.metadata  # it came without a score


def test_the_hash_of_a_copy_follows_llama_index_and_the_original_keeps_its_own() -> None:
    original = TextNode(text="red fox")
    image = ImageNode(text="a red hat", image_url="http://images.invalid/fox.png")
    before = original.hash
    fox, hat = RerankPostprocessor(model=Reranker(shared_words)).postprocess_nodes(
        [NodeWithScore(node=original), NodeWithScore(node=image)], query_str=QUERY
    )
    assert original.hash == before != fox.node.hash
    assert hat.node.hash == image.hash  # an image's hash has no metadata in it
    assert fox.node.node_id == original.node_id


def test_fresh_values_win_over_those_of_an_earlier_stage() -> None:
    postprocessor = RerankPostprocessor(model=Reranker(shared_words), metadata_mode="none")
    degraded = RerankPostprocessor(model=Reranker(failing, on_error="passthrough"))
    first = postprocessor.postprocess_nodes(text_nodes(), query_str="a blue whale")
    second = postprocessor.postprocess_nodes(degraded.postprocess_nodes(first, query_str=QUERY), query_str=QUERY)
    assert ids(first) == ["n2", "n0", "n1", "n3"]
    assert ids(second) == ["n3", "n1", "n2", "n0"]
    best = second[0].node
    assert best.metadata == {"src": "s3", "rerank_index": 3, "retrieval_score": 0.0}  # of the stage before
    assert best.excluded_embed_metadata_keys.count("rerank_index") == 1
    assert best.excluded_llm_metadata_keys.count("retrieval_score") == 1
    filled = second[0].model_copy(update={"node": best.model_copy()})
    filled.node.metadata["rerank_skipped"] = "no text"
    (again,) = postprocessor.postprocess_nodes([filled], query_str=QUERY)
    assert "rerank_skipped" not in again.node.metadata


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Forbids the network; lists what was tried."""
    tried: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tried


def mixed_nodes() -> list[NodeWithScore]:
    """Nodes with and without a text of their own, the latter with metadata all the same."""
    return [
        NodeWithScore(
            node=ImageNode(id_="image", image_url="http://images.invalid/a.png", metadata={"a": 1}), score=0.9
        ),
        NodeWithScore(node=TextNode(text="a dog", id_="dog"), score=0.8),
        NodeWithScore(node=TextNode(text=" \n", id_="blank", metadata={"red": "fox"}), score=0.7),
        NodeWithScore(node=Node(id_="sound", audio_resource=MediaResource(url="http://sounds.invalid/a.mp3"))),
        NodeWithScore(node=Document(text="red fox", doc_id="fox"), score=0.6),
        NodeWithScore(node=ImageNode(id_="captioned", text="red hat", image_url="http://images.invalid/b.png")),
    ]


async def test_nodes_without_text_follow_unscored_and_nothing_is_fetched(network: list[object]) -> None:
    recorder = Recorder()
    postprocessor = RerankPostprocessor(model=Reranker(recorder))
    nodes = mixed_nodes()
    result = postprocessor.postprocess_nodes(nodes, query_str=QUERY)
    assert ids(result) == ["fox", "captioned", "dog", "image", "blank", "sound"]
    assert [item.score for item in result] == [1.0, 0.5, 0.0, None, None, None]
    assert [item.node.metadata.get("rerank_skipped") for item in result] == [None, None, None, *["no text"] * 3]
    assert [item.node.metadata["rerank_index"] for item in result] == [4, 5, 1, 0, 2, 3]
    assert sorted(recorder.texts) == ["a dog", "red fox", "red hat"]
    for item in result:
        before = next(node for node in nodes if node.node_id == item.node_id)
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert item.node.get_content(mode) == before.node.get_content(mode)
    assert await postprocessor.apostprocess_nodes(nodes, query_str=QUERY) == result
    assert network == []
    with pytest.raises(OSError, match="no network"):  # the guard does see what must not be called
        nodes[0].node.resolve_image()


def test_top_n_counts_the_whole_result_and_a_threshold_drops_what_has_no_score() -> None:
    def rerank(**options: object) -> list[str]:
        return ids(RerankPostprocessor(**options).postprocess_nodes(mixed_nodes(), query_str=QUERY))

    assert rerank(model=Reranker(shared_words), top_n=2) == ["fox", "captioned"]
    assert rerank(model=Reranker(shared_words), top_n=4) == ["fox", "captioned", "dog", "image"]
    assert rerank(model=Reranker(shared_words), threshold=0.0) == ["fox", "captioned", "dog"]
    assert rerank(model=Reranker(shared_words, threshold=0.0)) == ["fox", "captioned", "dog"]


@pytest.mark.parametrize("own", [{}, {"threshold": 0.5}])
def test_passthrough_keeps_the_order_of_all_nodes_and_says_so(own: dict[str, float]) -> None:
    postprocessor = RerankPostprocessor(model=Reranker(failing, on_error="passthrough"), **own)
    result = postprocessor.postprocess_nodes(mixed_nodes(), query_str=QUERY)
    assert ids(result) == ids(mixed_nodes())
    assert {item.score for item in result} == {None}
    assert all(item.node.metadata["rerank_degraded"] is True for item in result)
    assert [item.node.metadata["rerank_index"] for item in result] == list(range(6))
    assert result[1].node.metadata["retrieval_score"] == 0.8
    assert [item.node_id for item in result if "rerank_skipped" in item.node.metadata] == ["image", "blank", "sound"]
    assert "rerank_degraded" not in result[0].node.get_content(MetadataMode.LLM)
    cut = RerankPostprocessor(model=postprocessor.model, top_n=3, **own)
    assert ids(cut.postprocess_nodes(mixed_nodes(), query_str=QUERY)) == ["image", "dog", "blank"]


def test_errors_are_raised_by_default_and_the_nodes_left_alone() -> None:
    nodes = text_nodes()
    before = state(nodes)
    with pytest.raises(ScorerError, match="the scorer is down"):
        RerankPostprocessor(model=Reranker(failing)).postprocess_nodes(nodes, query_str=QUERY)
    assert state(nodes) == before


@pytest.mark.parametrize(
    "answer", [[0.1, float("nan"), 0.9, 0.5], [0.1, 0.2], [0.1, 0.2, 0.3, 0.4, 0.5]], ids=["nan", "short", "long"]
)
def test_d24_a_wrong_answer_is_an_error(answer: list[float]) -> None:
    """Elsewhere one NaN left the list unsorted, and two scores for four documents lost two of them."""
    postprocessor = RerankPostprocessor(model=Reranker(lambda query, texts: answer))
    with pytest.raises(InvalidScoresError):
        postprocessor.postprocess_nodes(text_nodes(), query_str=QUERY)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_d30_results_are_clean_json_and_the_callers_nodes_untouched(dtype: type[np.floating]) -> None:
    """SentenceTransformerRerank wrote NumPy scores into the caller's nodes, which to_json() then refused."""
    nodes = text_nodes()
    nodes[0].score = dtype(0.9)  # as such a reranker leaves it behind
    before = state(nodes)
    scorer = Reranker(lambda query, texts: np.array(shared_words(query, texts), dtype=dtype))
    result = RerankPostprocessor(model=scorer).postprocess_nodes(nodes, query_str=QUERY)
    assert state(nodes) == before
    assert {type(item.score) for item in result} == {float}
    assert {type(item.node.metadata["retrieval_score"]) for item in result} == {float}
    for item in result:
        assert json.loads(item.to_json())["score"] == item.score


def test_d30_remote_code_is_not_trusted_and_the_window_is_not_fixed() -> None:
    """SentenceTransformerRerank ran a model's own code by default, with max_length fixed at 512."""
    from uprank.scorers import CrossEncoderScorer

    parameters = inspect.signature(CrossEncoderScorer).parameters
    assert parameters["trust_remote_code"].default is False
    assert {"max_length", "token_budget", "dtype"} <= parameters.keys()


def test_r2_the_retrieval_score_reaches_no_text() -> None:
    """keep_retrieval_score=True put "retrieval_score: 0.6" into what the next reranker and the LLM read."""
    nodes = text_nodes()
    recorder = Recorder()
    first = RerankPostprocessor(model=Reranker(shared_words)).postprocess_nodes(nodes, query_str=QUERY)
    second = RerankPostprocessor(model=Reranker(recorder)).postprocess_nodes(first, query_str=QUERY)
    assert sorted(recorder.texts) == sorted(item.node.get_content(MetadataMode.EMBED) for item in nodes)
    for item in second:
        original = nodes[int(item.node_id[1:])].node
        assert item.node.metadata["retrieval_score"] == next(one.score for one in first if one.id_ == item.id_)
        for mode in (MetadataMode.EMBED, MetadataMode.LLM, MetadataMode.NONE):
            assert item.node.get_content(mode) == original.get_content(mode)


def test_r1_a_second_reranker_does_not_change_the_first_ones_result() -> None:
    """Scores written in place turned A's [1.0, 0.0, 0.0] into B's [100.0, 0.0, 0.0] after the fact."""
    nodes = text_nodes()
    before = state(nodes)
    first = RerankPostprocessor(model=Reranker(shared_words)).postprocess_nodes(nodes, query_str=QUERY)
    kept = state(first)
    hundred = Reranker(lambda query, texts: [100 * score for score in shared_words(query, texts)])
    for source in (nodes, first):  # over the same candidates, and as a second stage
        second = RerankPostprocessor(model=hundred).postprocess_nodes(source, query_str="blue whale")
        assert second[0].score == pytest.approx(40.0)
        assert state(first) == kept
    assert state(nodes) == before


def test_bare_nodes_are_refused_with_what_is_expected() -> None:
    with pytest.raises(InvalidInputError, match="Node 0 must be a NodeWithScore, got TextNode"):
        RerankPostprocessor(model=Reranker(shared_words)).postprocess_nodes([TextNode(text="a")], query_str=QUERY)
