"""What may be given as query and documents, and that it comes back untouched."""

import copy
import pickle
import threading
from collections import UserDict
from dataclasses import FrozenInstanceError
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from uprank import Document, InvalidDocumentError, InvalidInputError, Reranker


class Spy:
    """Scores a text by its length, and remembers what it was asked."""

    def __init__(self):
        self.queries = []
        self.texts = []

    def __call__(self, query, texts):
        self.queries.append(query)
        self.texts.append(list(texts))
        return [float(len(text)) for text in texts]


@pytest.fixture
def spy():
    return Spy()


# --- what a document may be


def test_strings_documents_and_mappings_may_be_mixed(spy):
    ready = Document("bb", id="b", metadata={"page": 2})
    ranking = Reranker(spy).rank("q", ["a", ready, {"text": "ccc", "id": "c", "page": 3}])
    assert [hit.index for hit in ranking] == [2, 1, 0]
    mapped, same, plain = (hit.document for hit in ranking)
    assert same is ready
    assert plain == Document("a", id=None, metadata={})
    assert (mapped.text, mapped.id, mapped.metadata) == ("ccc", "c", {"id": "c", "page": 3})


def test_an_identifier_that_is_no_string_stays_in_the_metadata(spy):
    document = Reranker(spy).rank("q", [{"text": "a", "id": 7}])[0].document
    assert (document.id, document.metadata) == (None, {"id": 7})


@pytest.mark.parametrize("make", [MappingProxyType, UserDict], ids=["proxy", "UserDict"])
def test_any_mapping_will_do_and_is_not_changed(spy, make):
    tags = ["x"]
    given = make({"text": "a", "tags": tags})
    document = Reranker(spy).rank("q", [given])[0].document
    assert dict(given) == {"text": "a", "tags": ["x"]}
    assert document.metadata["tags"] is tags


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (None, "NoneType"),
        (5, "int"),
        (2.5, "float"),
        (b"bytes", "bytes"),
        (["a"], "list"),
        (object(), "object"),
        ({}, "keys: none"),
        ({"txt": "a"}, "keys: 'txt'"),
        ({"text": None}, "NoneType"),
        ({"text": b"a"}, "bytes"),
        ({"text": 3}, "int"),
    ],
)
def test_anything_else_is_refused_by_position_and_type(spy, bad, said):
    with pytest.raises(InvalidDocumentError, match=rf"^Document 1\b.*{said}") as caught:
        Reranker(spy).rank("q", ["fine", bad])
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError)
    assert spy.texts == []


def test_rank_many_names_the_query_of_a_bad_document(spy):
    with pytest.raises(InvalidDocumentError, match="Document 2 of query 1"):
        Reranker(spy).rank_many(["p", "q"], [["a"], ["a", "b", 3]])
    assert spy.texts == []


@pytest.mark.parametrize("text", [None, 5, b"a", ["a"]])
def test_a_document_holds_a_string(text):
    with pytest.raises(InvalidDocumentError, match=f"text must be a string, got {type(text).__name__}"):
        Document(text)


def test_a_document_without_text_cannot_be_made():
    with pytest.raises(TypeError, match="text"):
        Document()
    with pytest.raises(InvalidDocumentError, match="id must be a string or None, got int"):
        Document("a", id=5)
    with pytest.raises(InvalidDocumentError, match="metadata must be a mapping, got list"):
        Document("a", metadata=[("page", 1)])


def test_a_document_cannot_be_changed_but_compared_hashed_copied_and_pickled():
    document = Document("text", id="7", metadata={"page": 1})
    with pytest.raises(FrozenInstanceError):
        document.text = "other"
    assert document == Document("text", "7", {"page": 1})
    assert document != Document("text", "7", {"page": 2})
    assert hash(document) == hash(Document("text", "7", {"page": 2}))
    assert pickle.loads(pickle.dumps(document)) == document  # noqa: S301 - our own bytes
    assert copy.deepcopy(document) == document


def test_documents_do_not_share_their_empty_metadata():
    assert Document("a").metadata is not Document("b").metadata


def test_a_subclass_of_document_comes_back_as_it_is(spy):
    class Page(Document):
        pass

    page = Page("a")
    assert Reranker(spy).rank("q", [page])[0].document is page


# --- what the list of documents may be


def _generator(texts):
    yield from texts


def _values(texts):
    return dict(enumerate(texts)).values()


@pytest.mark.parametrize("container", [list, tuple, iter, np.array, pd.Series, _generator, _values])
def test_any_iterable_of_documents_will_do(spy, container):
    ranking = Reranker(spy).rank("q", container(["b", "aa"]))
    assert [(hit.index, hit.document.text) for hit in ranking] == [(1, "aa"), (0, "b")]


async def _stream():
    yield "a"


@pytest.mark.parametrize(
    "documents",
    ["one string", b"bytes", {"text": "one mapping"}, Document("one document"), None, 5, _stream()],
    ids=lambda value: type(value).__name__,
)
def test_one_document_in_place_of_a_list_is_refused(spy, documents):
    with pytest.raises(InvalidInputError, match=f"documents must be a list, got one {type(documents).__name__}"):
        Reranker(spy).rank("q", documents)
    assert spy.texts == []


def test_a_set_and_a_data_frame_are_refused_since_an_index_into_them_means_nothing(spy):
    import pandas

    for documents in ({"a", "b"}, frozenset("ab"), pandas.DataFrame({"text": ["a", "b"]})):
        with pytest.raises(InvalidInputError, match=f"must be a list, got one {type(documents).__name__}"):
            Reranker(spy).rank("q", documents)
    assert [hit.index for hit in Reranker(spy).rank("q", pandas.Series(["a", "b"]))] == [0, 1]


def test_an_error_of_the_callers_own_generator_is_the_callers():
    def documents():
        yield "a"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        Reranker(Spy(), on_error="passthrough").rank("q", documents())


def test_no_documents_give_an_empty_ranking_and_no_call(spy):
    ranking = Reranker(spy, top_n=3, threshold=0.5).rank("q", iter(()))
    assert (len(ranking), list(ranking), ranking.query, ranking.degraded) == (0, [], "q", False)
    assert spy.texts == []


# --- the query


@pytest.mark.parametrize("query", ["", " ", "\t\n\r", "\u2003\u00a0"])
def test_a_query_without_words_is_refused(spy, query):
    with pytest.raises(InvalidInputError, match="query is empty") as caught:
        Reranker(spy).rank(query, ["a"])
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidInputError, match="query 1 is empty"):
        Reranker(spy).rank_many(["fine", query], [["a"], ["a"]])
    assert spy.texts == []


def test_an_empty_query_is_refused_without_documents_too(spy):
    with pytest.raises(InvalidInputError, match="query is empty"):
        Reranker(spy).rank("", [])


@pytest.mark.parametrize("query", [None, 5, b"q", ["q"]], ids=lambda value: type(value).__name__)
def test_a_query_is_a_string(spy, query):
    with pytest.raises(InvalidInputError, match=f"query must be a string, got {type(query).__name__}"):
        Reranker(spy).rank(query, ["a"])
    with pytest.raises(InvalidInputError, match=f"query 0 must be a string, got {type(query).__name__}"):
        Reranker(spy).rank_many([query], [["a"]])


# --- strange text


@pytest.mark.parametrize(
    ("text", "scored"),
    [
        ("a\ud800b", "a\ufffdb"),
        ("\udfff", "\ufffd"),
        ("end\ud83d", "end\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),  # two halves of one character, as JSON escapes may leave them
        ("\ufeffbom \ud800", "\ufeffbom \ufffd"),
    ],
)
def test_the_scorer_sees_no_lone_surrogates(spy, text, scored):
    document = Document(text)
    ranking = Reranker(spy).rank("query " + text, [document])
    assert spy.texts == [[scored]]
    assert spy.queries == ["query " + scored]
    assert ranking.query == "query " + text
    assert ranking[0].document is document
    assert document.text == text


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "\ufeffbom", "e\u0301 and é", "\u202e", "", "\r\n"])
def test_valid_text_reaches_the_scorer_as_it_is(spy, text):
    assert Reranker(spy).rank("q\x00", [text])[0].document.text == text
    assert (spy.queries, spy.texts) == (["q\x00"], [[text]])


def test_texts_that_are_alike_once_cleaned_are_scored_once_and_all_come_back(spy):
    texts = ["\ud800", "\ufffd", "\udfff"]
    ranking = Reranker(spy).rank("q", texts)
    assert spy.texts == [["\ufffd"]]
    assert [hit.document.text for hit in ranking] == texts


def test_a_document_of_a_megabyte_is_scored_whole(spy):
    large = Document("x" * 1_000_000)
    ranking = Reranker(spy).rank("q", ["small", large])
    assert ranking[0].document is large
    assert ranking[0].score == 1_000_000.0
    assert len(ranking._repr_html_()) < 2_000


def test_ten_thousand_documents_are_ranked_in_one_call():
    calls = []

    def value(query, texts):
        calls.append(len(texts))
        return [float(text) for text in texts]

    order = np.random.default_rng(0).permutation(10_000).tolist()
    ranking = Reranker(value).rank("q", [str(number) for number in order])
    assert [hit.score for hit in ranking] == [float(number) for number in range(9_999, -1, -1)]
    assert all(order[hit.index] == hit.score for hit in ranking)
    assert calls == [10_000]


# --- the caller's objects


def test_the_same_document_twice_is_scored_once_and_returned_twice(spy):
    document = Document("same")
    ranking = Reranker(spy).rank("q", [document, "b", document])
    assert spy.texts == [["same", "b"]]
    assert [hit.index for hit in ranking] == [0, 2, 1]
    assert ranking[0].document is document
    assert ranking[1].document is document


def test_metadata_that_cannot_be_copied_is_handed_back_by_reference(spy):
    lock, generator = threading.Lock(), (number for number in range(3))
    metadata = {"lock": lock, "generator": generator, "self": None}
    metadata["self"] = metadata
    document = Document("a", metadata=metadata)
    ranking = Reranker(spy).rank("q", [document, {"text": "bb", "lock": lock}])
    assert ranking[1].document is document
    assert document.metadata is metadata
    assert ranking[0].document.metadata["lock"] is lock
    assert ranking.to_dicts()[1]["metadata"]["generator"] is generator
    assert list(generator) == [0, 1, 2]
    assert not lock.locked()


def test_the_callers_list_is_not_changed(spy):
    documents = [{"text": "a", "tags": ["x"]}, Document("b", metadata={"y": [1]}), "c"]
    before, items = copy.deepcopy(documents), list(documents)
    Reranker(spy).rank("q", documents, top_n=1)
    assert documents == before
    assert all(now is then for now, then in zip(documents, items, strict=True))


def test_a_document_of_a_framework_is_refused_with_the_way_to_rerank_it(spy):
    from langchain_core.documents import Document as LangChainDocument
    from llama_index.core.schema import NodeWithScore, TextNode

    with pytest.raises(InvalidDocumentError, match=r"langchain_core\.documents\.base\.Document.*RerankCompressor"):
        Reranker(spy).rank("q", [LangChainDocument("a")])
    with pytest.raises(InvalidDocumentError, match=r"llama_index.*NodeWithScore.*RerankPostprocessor"):
        Reranker(spy).rank("q", [NodeWithScore(node=TextNode(text="a"))])


def test_the_hits_of_one_ranking_may_be_ranked_again():
    documents = [Document("a"), Document("bb"), Document("ccc")]
    first = Reranker(lambda query, texts: [len(text) for text in texts]).rank("q", documents, top_n=2)
    second = Reranker(lambda query, texts: [-len(text) for text in texts]).rank("q", first)
    assert [hit.document for hit in second] == [documents[1], documents[2]]
    assert [hit.index for hit in second] == [1, 0]  # positions in the list given: the first ranking
