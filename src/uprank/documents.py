"""What is ranked: a text with an optional id and metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, overload

from uprank.errors import InvalidDocumentError

__all__ = ["Document", "DocumentLike", "PlainDocuments", "as_document", "scorable"]


@dataclass(frozen=True, slots=True, init=False)
class Document:
    """A text to be ranked. Never changed by uprank: a ranking hands back this very object.

    Args:
        text: The text that is scored.
        id: Any identifier of yours; uprank carries it and does not read it.
        metadata: Anything you want back with the document; kept by reference, never copied,
            so it may hold values that cannot be pickled or copied.

    Raises:
        InvalidDocumentError: If ``text`` or ``id`` is not a string, or ``metadata`` not a mapping.
    """

    text: str
    id: str | None = None
    # The values are the caller's own, of any type, and handed back untouched.
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __init__(self, text: str, id: str | None = None, metadata: Mapping[str, Any] | None = None) -> None:
        if not isinstance(text, str):
            raise InvalidDocumentError(f"Document.text must be a string, got {type(text).__name__}.")
        if id is not None and not isinstance(id, str):
            raise InvalidDocumentError(f"Document.id must be a string or None, got {type(id).__name__}.")
        if metadata is not None and not isinstance(metadata, Mapping):
            raise InvalidDocumentError(f"Document.metadata must be a mapping, got {type(metadata).__name__}.")
        _set_text(self, text)
        _set_id(self, id)
        _set_metadata(self, {} if metadata is None else metadata)


# The slots themselves: a frozen class lets nothing else set them, and object.__setattr__ takes twice as long.
_set_text: Callable[[Document, str], None] = Document.__dict__["text"].__set__
_set_id: Callable[[Document, str | None], None] = Document.__dict__["id"].__set__
_set_metadata: Callable[[Document, Mapping[str, Any]], None] = Document.__dict__["metadata"].__set__


DocumentLike: TypeAlias = "str | Document | Mapping[str, Any]"


def as_document(value: DocumentLike, where: str, *, text_of: Callable[[Document], str] | None = None) -> Document:
    """Return ``value`` as a :class:`Document`; the same object where it already is one.

    A mapping must hold a string under ``"text"``; its other keys become the metadata, and a string
    under ``"id"`` is the document's id too.

    Args:
        value: What the caller gave.
        where: Which one it is, for the error, e.g. ``"document 3"``.
        text_of: Makes the text of a mapping that has none, of its other keys.

    Raises:
        InvalidDocumentError: If it is none of these.
    """
    if isinstance(value, Document):
        return value
    if isinstance(value, str):
        return Document(value)
    if isinstance(value, Mapping):
        identifier = value.get("id")
        identifier = identifier if isinstance(identifier, str) else None
        metadata = {key: item for key, item in value.items() if key != "text"}
        if "text" not in value:
            if text_of is None:
                raise InvalidDocumentError(f'{where} is a mapping without a "text" key (keys: {_keys(value)}).')
            try:
                return Document(text_of(Document("", identifier, metadata)), identifier, metadata)
            except InvalidDocumentError as error:
                raise InvalidDocumentError(f"{where}: {error}") from None
        text = value["text"]
        if not isinstance(text, str):
            raise InvalidDocumentError(f'{where} has {type(text).__name__} under "text"; it must be a string.')
        return Document(text, identifier, metadata)
    raise InvalidDocumentError(f"{where} is of type {_type_name(value)}; {_advice(value)}.")


class PlainDocuments(Sequence[Document]):
    """The documents of texts that are known to be strings. Each is made when it is asked for, and kept.

    Of a long list, of which a few are returned, most never are; to make them all would take as long as the rest of a
    ranking.

    Args:
        texts: The caller's.
    """

    __slots__ = ("_made", "_texts")

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts = texts
        self._made: dict[int, Document] = {}

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | Sequence[Document]:
        if isinstance(index, slice):
            return tuple(self)[index]
        found = self._made.get(index)
        if found is not None:
            return found
        text = self._texts[index]
        number = index if index >= 0 else index + len(self._texts)
        return self._made.setdefault(number, Document(text))  # the same for all threads


def scorable(text: str) -> str:
    """Return ``text`` as every scorer can read it: lone surrogates become U+FFFD.

    Python strings may hold lone surrogates (e.g. from ``surrogateescape``), which neither the
    tokenizers nor JSON in UTF-8 accept. Only what is scored is cleaned, never the document.
    """
    if text.isascii():  # known without a look at its characters
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _keys(mapping: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, list(mapping)[:8])) or "none"


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _advice(value: object) -> str:
    package = type(value).__module__.partition(".")[0]
    if package.startswith("langchain"):
        return "rerank it with uprank.langchain.RerankCompressor, or give its page_content"
    if package == "llama_index":
        return "rerank it with uprank.llama_index.RerankPostprocessor, or give its text"
    return 'give a string, an uprank.Document, or a mapping with a "text" key'
