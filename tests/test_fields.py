"""What is scored of a document with fields: chosen by name, or filled into a template."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import numpy as np
import pytest
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import MetadataMode, TextNode

from uprank import Document
from uprank.errors import ConfigurationError, InvalidDocumentError
from uprank.fields import Rendering

PAPER = Document(
    "Whales are mammals.",
    id="w1",
    metadata={
        "title": "On whales",
        "authors": ["Ahab", "Ishmael"],
        "year": 1851,
        "source": {"name": "library", "shelf": {"row": 7}},
        "a.b": "exact",
        "a": {"b": "nested"},
        "empty": "",
        "none": None,
        "nothing": [],
        "nan": float("nan"),
        "false": False,
    },
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["title", "text"], "On whales\nWhales are mammals."),
        (["text", "title"], "Whales are mammals.\nOn whales"),
        (["title", "empty", "none", "nothing", "nan", "missing", "text"], "On whales\nWhales are mammals."),
        (["authors", "year"], "Ahab, Ishmael\n1851"),
        (["source.name", "source.shelf.row"], "library\n7"),
        (["a.b"], "exact"),
        (["false"], "False"),
        (["source.missing.row", "title.length", "title"], "On whales"),
        (["empty", "none"], ""),
        (("title",), "On whales"),
    ],
)
def test_fields_are_joined_by_line_breaks_and_what_says_nothing_is_left_out(fields: list[str], expected: str):
    assert Rendering(fields).text(PAPER) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{title}\n\n{text}", "On whales\n\nWhales are mammals."),
        ("{title} ({year}), by {authors}", "On whales (1851), by Ahab, Ishmael"),
        ("{{{title}}} {missing}{none}.", "{On whales} ."),
        ("{text}{text}", "Whales are mammals." * 2),
    ],
)
def test_a_template_is_filled_with_fields(template: str, expected: str):
    assert Rendering(template=template).text(PAPER) == expected


def test_without_fields_or_a_template_the_text_is_scored():
    assert Rendering().text(PAPER) == PAPER.text


def test_what_is_filled_in_is_no_template_itself():
    document = Document("{title} {0} {{", metadata={"title": "{text}"})
    assert Rendering(template="{title}: {text}").text(document) == "{text}: {title} {0} {{"
    assert Rendering(["title", "text"]).text(document) == "{text}\n{title} {0} {{"


@pytest.mark.parametrize("key", ["page-number", "Section Title", "größe", "名前", "_x1"])
def test_keys_as_people_name_them_may_stand_in_a_template(key: str):
    assert Rendering(template=f"<{{{key}}}>").text(Document("", metadata={key: "7"})) == "<7>"


def test_a_document_with_none_of_the_fields_is_an_error_that_says_which():
    rendering = Rendering(["title", "body"])
    with pytest.raises(
        InvalidDocumentError,
        match=r"The document 'd7' has none of the fields 'title', 'body' \(keys of its metadata: 'headline'\)\. .*\"te",
    ):
        rendering.text(Document("Some text.", id="d7", metadata={"headline": "x"}))
    with pytest.raises(InvalidDocumentError, match=r"A document has none of the fields 'body' .*: none\)"):
        Rendering(template="{body}").text(Document("Some text."))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rendering(["title"], "{title}"), "fields= or template=, not both"),
        (lambda: Rendering("title"), r"must be a list of names.*got 'title'"),
        (lambda: Rendering([]), "fields is empty"),
        (lambda: Rendering({"title"}), "must be a list of names"),
        (lambda: Rendering(["title", 3]), r"got 3\."),
        (lambda: Rendering(["title", ""]), r"got ''\."),
        (lambda: Rendering(["source."]), r"got 'source\.'"),
        (lambda: Rendering(["title", "text", "title"]), "one field twice"),
        (lambda: Rendering(template=3), "must be a string"),
        (lambda: Rendering(template="no field"), "names no field"),
        (lambda: Rendering(template="{title"), "cannot be read.*doubled"),
        (lambda: Rendering(template="title}"), "cannot be read"),
        (lambda: Rendering(template="{}"), r"\{\}: only plain names"),
        (lambda: Rendering(template="{0}"), r"\{0\}: only plain names"),
        (lambda: Rendering(template="{source.name}"), r"\{source.name\}: only plain names.*use fields="),
        (lambda: Rendering(template="{title.__class__}"), "only plain names"),
        (lambda: Rendering(template="{authors[0]}"), "only plain names"),
        (lambda: Rendering(template="{year:>9999999999}"), r"\{year:>9999999999\}: only plain names"),
        (lambda: Rendering(template="{title!r}"), r"\{title!r\}: only plain names"),
        (lambda: Rendering(template="{title:{year}}"), "only plain names"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Callable[[], Rendering], message: str):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_the_fields_given_are_the_callers_own_and_not_read_again():
    fields = ["title"]
    rendering = Rendering(fields)
    fields.append("text")
    assert rendering.text(PAPER) == "On whales"
    assert rendering == Rendering(("title",))
    assert rendering != Rendering(("text",))


def test_a_value_of_any_type_is_written_by_str():
    values = {"day": datetime.date(2024, 2, 29), "pages": [3, 4], "tags": ["a", " ", "b"], "array": np.arange(2)}
    values |= {"nan": np.float32("nan"), "number": np.float64(0.5)}
    assert Rendering(list(values)).text(Document("", metadata=values)) == "2024-02-29\n[3, 4]\na, b\n[0 1]\n0.5"


@pytest.mark.parametrize("rendering", [Rendering(["title", "text", "tags"]), Rendering(template="{title}: {text}")])
def test_a_chunk_is_rendered_alike_in_both_frameworks(rendering: Rendering):
    metadata = {"title": "On whales", "tags": ["sea", "mammal"], "file": "x.pdf"}
    chunk = LangChainDocument(page_content="They sing.", metadata=dict(metadata), id="1")
    node = TextNode(text="They sing.", metadata=dict(metadata), excluded_embed_metadata_keys=["title"])
    ours = Document(chunk.page_content, chunk.id, chunk.metadata)
    theirs = Document(node.get_content(MetadataMode.NONE), node.node_id, node.metadata)
    assert rendering.text(ours) == rendering.text(theirs)
    assert "file" not in rendering.text(ours)
