"""What one request may hold, counted before anything is scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from uprank.documents import Document, DocumentLike, as_document
from uprank.errors import InvalidDocumentError
from uprank.fields import Rendering
from uprank.server.questions import Question
from uprank.server.refusals import Refusal
from uprank.server.settings import Limits
from uprank.tokens import estimate_tokens

__all__ = ["check_count", "check_limits"]


def check_count(given: Mapping[str, object], limits: Limits) -> None:
    """Refuse too many documents before each of them is looked at, in whichever field they are.

    Args:
        given: The parsed body.
        limits: The server's.

    Raises:
        Refusal: 422.
    """
    for value in given.values():
        if isinstance(value, list) and len(value) > limits.documents:
            raise _too_many(len(value), limits)


def check_limits(question: Question, limits: Limits, rendering: Rendering | None = None) -> None:
    """Refuse what is more than the server takes.

    Args:
        question: What is asked.
        limits: The server's.
        rendering: What the model reads of a document; ``None`` where that is its text.

    Raises:
        Refusal: 422, saying what is too much and how much is allowed.
    """
    documents = sum(map(len, question.documents))
    if documents > limits.documents:
        raise _too_many(documents, limits)
    for name, text in _asked(question):
        if len(text) > limits.query_chars:
            told = f"The {name} has {len(text)} characters; {limits.query_chars} are allowed here."
            raise Refusal(422, "query_too_long", told)
    if rendering is not None:
        read = [[_rendered(document, rendering) for document in documents] for documents in question.documents]
        question = replace(question, documents=read)
    before = 0
    for texts in question.documents:
        if not _are_short(texts, limits.document_chars):
            for number, text in enumerate(map(_text, texts), before):
                if len(text) > limits.document_chars:
                    told = f"documents[{number}] has {len(text)} characters; {limits.document_chars} are allowed here."
                    raise Refusal(422, "document_too_long", told)
        before += len(texts)
    if limits.batch_tokens is not None and _exceeds(question, limits.batch_tokens):
        told = f"The request has more than the {limits.batch_tokens} tokens that are allowed here, by an estimate."
        raise Refusal(422, "too_many_tokens", told)


def _are_short(texts: Sequence[DocumentLike], limit: int) -> bool:
    """Whether all are strings within the limit, which most are, without a call for each."""
    return set(map(type, texts)) == {str} and max(map(len, texts)) <= limit  # type: ignore[arg-type]  # as just seen


def _asked(question: Question) -> Iterator[tuple[str, str]]:
    for query in question.queries:
        yield "query", query
    if question.instruction is not None:
        yield "instruction", question.instruction


def _exceeds(question: Question, limit: int) -> bool:
    """Whether there are more tokens; counted no further than that, since counting takes time too."""
    tokens = 0
    instruction = 0 if question.instruction is None else estimate_tokens(question.instruction)
    for query, texts in zip(question.queries, question.documents, strict=True):
        with_each = instruction + estimate_tokens(query)  # read again with each document
        for text in map(_text, texts):
            # No text has sixteen characters a token by this estimate, so what is far too long need not all be read.
            tokens += with_each + estimate_tokens(text[: 20 * limit + 20])
            if tokens > limit:
                return True
    return False


def _too_many(documents: int, limits: Limits) -> Refusal:
    told = f"{documents} documents are more than the {limits.documents} that a request may have here."
    return Refusal(422, "too_many_documents", told)


def _rendered(document: DocumentLike, rendering: Rendering) -> str:
    """What is read of a document; of one that cannot be read, which is refused later, its text."""
    if isinstance(document, str):
        return document
    try:
        return rendering.text(as_document(document, "", text_of=rendering.text))
    except InvalidDocumentError:
        return _text(document)


def _text(document: DocumentLike) -> str:
    if isinstance(document, str):
        return document
    text = document.text if isinstance(document, Document) else document.get("text")
    return text if isinstance(text, str) else ""
