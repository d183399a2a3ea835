"""How each service wants to be asked, as data: one function builds every request body.

A body holds the query, the documents, what is always sent, and the caller's own fields where they
are given; nothing else, and never a null, since several services refuse unknown or null fields.
``top_n`` is never sent: the pipeline wants every score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["DIALECTS", "Dialect", "request_body"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The shape of a request body.

    Args:
        query: The key of the query.
        documents: The key of the documents.
        model: Whether the model's name goes into the body.
        query_object: Whether the query is sent as ``{"text": …}``.
        document_objects: Whether documents are.
        ids: Whether each document carries its position as ``"id"``, because the reply has no index.
        always: What is sent in every request, so that no server's default decides.
    """

    query: str = "query"
    documents: str = "documents"
    model: bool = True
    query_object: bool = False
    document_objects: bool = False
    ids: bool = False
    always: Mapping[str, object] = field(default_factory=dict)


# Documents are never asked back: they are the caller's own, found again by index.
DIALECTS: dict[str, Dialect] = {
    "cohere": Dialect(),
    "jina": Dialect(always={"return_documents": False}),
    "infinity": Dialect(always={"return_documents": False, "raw_scores": True}),
    "voyage": Dialect(always={"return_documents": False, "truncation": True}),
    "mixedbread": Dialect(documents="input", always={"return_input": False}),
    "tei": Dialect(documents="texts", model=False, always={"truncate": True, "raw_scores": True, "return_text": False}),
    "nim": Dialect(documents="passages", query_object=True, document_objects=True, always={"truncate": "END"}),
    "pinecone": Dialect(document_objects=True, always={"return_documents": False}),
    "score": Dialect(query="data_1", documents="data_2"),
    "sie": Dialect(documents="items", model=False, query_object=True, document_objects=True, ids=True),
}


def request_body(
    dialect: Dialect, model: str, query: str, texts: Sequence[str], fields: Mapping[str, object]
) -> dict[str, object]:
    """Build the body of one request.

    Args:
        dialect: Its shape.
        model: The model's name, as the service knows it.
        query: With the instruction in it, where the service takes one there.
        texts: The documents.
        fields: Further fields; they win over what is always sent, and ``None`` leaves a field out.
    """
    body: dict[str, object] = {}
    if dialect.model and model:
        body["model"] = model
    body[dialect.query] = {"text": query} if dialect.query_object else query
    body[dialect.documents] = _documents(dialect, texts)
    body.update({name: value for name, value in {**dialect.always, **fields}.items() if value is not None})
    return body


def _documents(dialect: Dialect, texts: Sequence[str]) -> list[object]:
    # Servers differ in whether they take an empty document, so that one of them could cost all the
    # others their scores; a full stop says as little.
    full = [text if text.strip() else "." for text in texts]
    if dialect.ids:
        return [{"id": str(position), "text": text} for position, text in enumerate(full)]
    return [{"text": text} for text in full] if dialect.document_objects else list(full)
