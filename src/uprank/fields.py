"""What is scored of a document that is more than a text: some of its fields, or a template filled with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter

from uprank.documents import Document
from uprank.errors import ConfigurationError, InvalidDocumentError

__all__ = ["Rendering"]

_TEXT = "text"
_NAME = re.compile(r"[^\W\d](?:[\w -]*\w)?")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Rendering:
    r"""Makes the text that is scored of a document's fields.

    ``"text"`` is the document's own text, every other name a key of its metadata. A string is taken as it is, a list
    of strings is joined by ``", "``, anything else is written by ``str``. A field that a document lacks, or whose
    value is ``None``, NaN, blank or an empty list, is left out; a document that has none of the fields is an error.

    Args:
        fields: Names of fields, joined by line breaks, e.g. ``["title", "text"]``. A dot leads into a nested mapping:
            ``"source.title"``, unless there is a key of just this name.
        template: A text with the names of fields in braces, e.g. ``"{title}\n\n{text}"``; ``{{`` and ``}}`` stand for
            braces. A field that is left out leaves nothing in its place. No dots, indices, conversions or format
            specifications: a template never reaches into an object. Give this or ``fields``; without either, a
            document's own text is scored.

    Raises:
        ConfigurationError: If both are given, or one of them is not as described.
    """

    fields: Sequence[str] | None = None
    template: str | None = None
    _parts: tuple[tuple[str, str | None], ...] = field(init=False, repr=False, compare=False)
    """Of the template: a literal, and the name of the field that follows it."""
    _names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.fields is not None and self.template is not None:
            raise ConfigurationError("Give fields= or template=, not both: a template names the fields it wants.")
        parts = () if self.template is None else _parsed(self.template)
        names: tuple[str, ...] = (_TEXT,)
        if self.fields is not None:
            names = _valid_fields(self.fields)
            object.__setattr__(self, "fields", names)  # whatever becomes of the list that was given
        elif self.template is not None:
            names = tuple(name for _, name in parts if name is not None)
        object.__setattr__(self, "_parts", parts)
        object.__setattr__(self, "_names", names)

    def text(self, document: Document) -> str:
        """What is scored of a document.

        Raises:
            InvalidDocumentError: If it has none of the fields.
        """
        found = {name: value for name in self._names if (value := _value(document, name)) is not _MISSING}
        if not found:
            raise InvalidDocumentError(_nothing_found(document, self._names))
        texts = {name: _written(value) for name, value in found.items()}
        if self.template is None:
            return "\n".join(text for text in texts.values() if text)
        return "".join(literal + ("" if name is None else texts.get(name, "")) for literal, name in self._parts)


def _value(document: Document, name: str) -> object:
    """The value of a field; ``_MISSING`` where the document has none."""
    if name == _TEXT:
        return document.text
    if name in document.metadata:
        return document.metadata[name]
    value: object = document.metadata
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _written(value: object) -> str:
    """A value as text; empty where it says nothing."""
    if value is None or _is_nan(value):
        return ""
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return ", ".join(item for item in value if item.strip())
    text = value if isinstance(value, str) else str(value)
    return text if text.strip() else ""


def _is_nan(value: object) -> bool:
    """Whether a value is what tables have for one that is missing."""
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # an array compares its elements
        return False


def _nothing_found(document: Document, names: Sequence[str]) -> str:
    wanted = ", ".join(map(repr, dict.fromkeys(names)))
    which = "A document" if document.id is None else f"The document {document.id!r}"
    keys = ", ".join(map(repr, list(document.metadata)[:8])) or "none"
    return (
        f"{which} has none of the fields {wanted} (keys of its metadata: {keys}). "
        'Name a field that every document has; "text" is the document\'s own text.'
    )


def _valid_fields(fields: Sequence[str]) -> tuple[str, ...]:
    if isinstance(fields, (str, bytes)) or not isinstance(fields, Sequence):
        raise ConfigurationError(f'fields must be a list of names such as ["title", "text"], got {fields!r}.')
    names = tuple(fields)
    if not names:
        raise ConfigurationError("fields is empty: name at least one, or leave it out.")
    for name in names:
        if not isinstance(name, str) or not all(name.split(".")):
            raise ConfigurationError(f'fields must be names such as "title" or "source.title", got {name!r}.')
    if len(set(names)) < len(names):
        raise ConfigurationError(f"fields names one field twice: {', '.join(map(repr, names))}.")
    return names


def _parsed(template: str) -> tuple[tuple[str, str | None], ...]:
    if not isinstance(template, str):
        raise ConfigurationError(f'template must be a string such as "{{title}}: {{text}}", got {template!r}.')
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(
            f"template {template!r} cannot be read: {error}. Braces that are meant as such are doubled: {{{{ and }}}}."
        ) from None
    for _, name, specification, conversion in pieces:
        if name is not None and (specification or conversion or not _NAME.fullmatch(name)):
            written = f"{name}{'!' + conversion if conversion else ''}{':' + specification if specification else ''}"
            raise ConfigurationError(
                f"template has {{{written}}}: only plain names of fields go into braces, without dots, indices, "
                "conversions or format specifications. For a nested value use fields=."
            )
    parts = tuple((literal, name) for literal, name, _, _ in pieces)
    if all(name is None for _, name in parts):
        raise ConfigurationError(f"template {template!r} names no field, so every document would be the same.")
    return parts
