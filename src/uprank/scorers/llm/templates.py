r"""The files that prompts are written in.

A file begins with a header of lines ``name: value`` (lines that begin with ``#`` are comments), followed by sections. A
section begins with a line ``=== title``; its text is all up to the next such line, without the last line break. A last
line ``=== end`` keeps line breaks at the end of the section before it. ::

    version: 1
    kind: order
    === system
    You judge search results.
    === user
    Order {total} passages by their relevance to: {query}
    {instruction}
    {passages}
    {format}

Header:

* ``kind``: ``order``, ``select``, ``compare`` or ``score``; needed.
* ``version``: any word; 1 by default.
* ``forms``: of ``text json tool logprobs``, those of its answers; all by default.
* ``labels``: ``nonce``, ``letter`` or ``numeric``; by default letters where the probabilities of labels are read, else
  nonces.
* ``fenced``: ``no`` leaves the passages without a fence, which is less safe.
* ``one-line``: ``yes`` writes each query and passage on one line.
* ``most``: passages in a prompt.
* ``thinks``: ``yes`` if thoughts come before the answer.
* ``answers``: the words for relevant and not relevant.
* ``instruction``: where the caller gives none.

Sections:

* ``system``: at most one, first. It cannot hold the query or passages.
* ``user``, ``assistant``: the conversation, as many as there are. ``user each`` and ``assistant each`` are said for
  each passage.
* ``passage``: how one is written, by default ``[{label}] {text}``.
* ``instruction``: how the instruction is written, by default ``{text}``.
* ``format text``, ``format json``, ``format tool``, ``format logprobs``: how the answer is asked for, instead of the
  usual words; for some answers also ``… many`` (more than one is chosen), ``… one`` and ``… yes-no`` (one
  passage is graded).
* ``text``: the whole prompt in the model's own template, of ``{system}`` and ``{user}``; with one user section.

Placeholders: ``{query}``, ``{passages}``, ``{instruction}``, ``{format}``, ``{total}`` (passages), ``{count}`` (to be
chosen), ``{top}`` (the highest grade), ``{nonce}`` (the code of the fence); for each passage ``{label}`` and
``{text}``. A line that holds nothing but a placeholder is left out where there is nothing to fill in. ``{{query}}``
stands for the word in braces. What is filled in is never read as a template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from uprank.errors import ConfigurationError
from uprank.scorers.llm.fencing import LabelKind

__all__ = ["AnswerFormat", "PromptKind", "Sheet", "Turn", "fill", "read_sections", "read_sheet"]

AnswerFormat: TypeAlias = Literal["text", "json", "tool", "logprobs"]
"""How a model answers: in its own words of a given form, by JSON, by calling a function, or by its first token."""

PromptKind: TypeAlias = Literal["order", "select", "compare", "score"]
"""What is asked of passages: their order, the best of them, the better of two, a grade for each."""

_PLACEHOLDER = re.compile(r"^\{([a-z]+)\}\n|\{\{([a-z]+)\}\}|\{([a-z]+)\}", re.MULTILINE)
_SECTION = re.compile(r"^=== *(.*?) *$", re.MULTILINE)
_COUNTS = frozenset({"total", "count", "top"})
_CONTENT = frozenset({"query", "passages"})
_OF_EACH = frozenset({"label", "text"})
_HEADERS = frozenset(
    {"kind", "version", "forms", "labels", "fenced", "one-line", "most", "thinks", "answers", "instruction"}
)
_VARIANTS = ("", " many", " one", " yes-no")


@dataclass(frozen=True, slots=True)
class Turn:
    """A message, or one for each passage.

    Args:
        role: Who says it.
        text: The template.
        each: Whether it is said for each passage.
    """

    role: Literal["system", "user", "assistant"]
    text: str
    each: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a file says; see the top of this module.

    Args:
        kind: What is asked.
        version: Of the file.
        forms: Of answers.
        labels: Of passages; ``None`` for the usual ones.
        fenced: Whether passages stand in a fence.
        one_line: Whether texts are written on one line.
        most: Passages in one prompt.
        thinks: Whether thoughts come first.
        answers: For relevant and not relevant.
        default_instruction: Where the caller gives none.
        turns: The conversation.
        passage: How one is written.
        instruction: How the instruction is written.
        wordings: How answers are asked for, by form and variant.
        whole: The prompt in the model's own template.
    """

    kind: PromptKind
    version: str
    forms: tuple[AnswerFormat, ...]
    labels: LabelKind | None
    fenced: bool
    one_line: bool
    most: int | None
    thinks: bool
    answers: tuple[str, str] | None
    default_instruction: str | None
    turns: tuple[Turn, ...]
    passage: str
    instruction: str
    wordings: tuple[tuple[str, str], ...]
    whole: str | None


def fill(template: str, values: Mapping[str, str]) -> str:
    """A template with its placeholders filled, in one pass: what is filled in is not looked at.

    Args:
        template: With placeholders.
        values: For each of them.
    """

    def value(match: re.Match[str]) -> str:
        line, word, name = match.groups()
        if word is not None:
            return "{" + word + "}"
        if line is not None:
            return f"{values[line]}\n" if values[line] else ""
        return values[name]

    return _PLACEHOLDER.sub(value, template)


def read_sections(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The header of a file, and its sections by title.

    Args:
        text: Of the file.
    """
    parts = _SECTION.split(text.replace("\r\n", "\n"))
    sections = [
        (title, body.removeprefix("\n").removesuffix("\n"))
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return parts[0], [section for section in sections if section[0] != "end"]


def read_sheet(text: str, name: str) -> Sheet:
    """Read a prompt's file.

    Args:
        text: Of the file.
        name: Of the prompt, for errors.

    Raises:
        ConfigurationError: If it is not of the form above; the message says what is wrong.
    """
    head, sections = read_sections(text)
    header = _header(head, name)
    turns: list[Turn] = []
    others: dict[str, str] = {}
    for title, body in sections:
        role, _, each = title.partition(" ")
        if role in ("system", "user", "assistant") and each in ("", "each"):
            turns.append(Turn(cast('Literal["system", "user", "assistant"]', role), body, each == "each"))
        elif title in others or title not in _titles():
            raise _wrong(name, f"the section {title!r} is {'there twice' if title in others else 'not known'}")
        else:
            others[title] = body
    _check_turns(turns, name)
    if "text" in others and [turn.role for turn in turns if turn.role != "system"] != ["user"]:
        raise _wrong(name, "with a section 'text' there must be one user section and no assistant section")
    for title, body in others.items():
        _check_placeholders(body, _allowed_in(title), title, name)
    wordings = {title.removeprefix("format "): body for title, body in others.items() if title.startswith("format ")}
    answers = tuple(header["answers"].split()) if "answers" in header else None
    if answers is not None and len(answers) != 2:
        raise _wrong(name, f"answers: {header['answers']} must be two words, e.g. answers: yes no")
    most = header.get("most")
    if most is not None and not (most.isascii() and most.isdigit() and int(most) > 0):
        raise _wrong(name, f"most: {most} must be a whole number above 0")
    forms = header.get("forms", " ".join(get_args(AnswerFormat))).split()
    return Sheet(
        kind=cast("PromptKind", _one_of(header, "kind", get_args(PromptKind), name)),
        version=header.get("version", "1"),
        forms=tuple(cast("AnswerFormat", _known(form, "forms", get_args(AnswerFormat), name)) for form in forms),
        labels=cast("LabelKind", _one_of(header, "labels", get_args(LabelKind), name)) if "labels" in header else None,
        fenced=_one_of(header, "fenced", ("yes", "no"), name, "yes") == "yes",
        one_line=_one_of(header, "one-line", ("yes", "no"), name, "no") == "yes",
        most=None if most is None else int(most),
        thinks=_one_of(header, "thinks", ("yes", "no"), name, "no") == "yes",
        answers=None if answers is None else (answers[0], answers[1]),
        default_instruction=header.get("instruction"),
        turns=tuple(turns),
        passage=others.get("passage", "[{label}] {text}"),
        instruction=others.get("instruction", "{text}"),
        wordings=tuple(sorted(wordings.items())),
        whole=others.get("text"),
    )


def _header(head: str, name: str) -> dict[str, str]:
    header: dict[str, str] = {}
    for line in head.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        key, colon, value = line.partition(":")
        if not colon or key.strip() not in _HEADERS:
            raise _wrong(name, f"the line {line!r} above the first section is none of {', '.join(sorted(_HEADERS))}")
        header[key.strip()] = value.strip()
    return header


def _titles() -> frozenset[str]:
    formats = {f"format {form}{variant}" for form in get_args(AnswerFormat) for variant in _VARIANTS}
    return frozenset({"passage", "instruction", "text", *formats})


def _allowed_in(title: str) -> frozenset[str]:
    special = {"passage": _OF_EACH, "instruction": frozenset({"text"}), "text": frozenset({"system", "user"})}
    return special.get(title, _COUNTS)


def _check_turns(turns: list[Turn], name: str) -> None:
    used: set[str] = set()
    for number, turn in enumerate(turns):
        title = f"{turn.role} each" if turn.each else turn.role
        if turn.role == "system":
            inside = sorted((_CONTENT | _OF_EACH) & _placeholders(turn.text))
            if inside:
                raise _wrong(
                    name,
                    f"{{{inside[0]}}} stands in the system section, where a document would speak with authority; "
                    "move it to a user section",
                )
            if number or turn.each:
                raise _wrong(name, "there may be one system section, before all others, and not for each passage")
        allowed = (
            _COUNTS | {"nonce"} if turn.role == "system" else _COUNTS | _CONTENT | {"instruction", "format", "nonce"}
        )
        used |= _check_placeholders(turn.text, _OF_EACH if turn.each else allowed, title, name)
        used |= {"passages"} if turn.each and "text" in _placeholders(turn.text) else set()
    for needed in sorted(_CONTENT):
        if needed not in used:
            raise _wrong(name, f"no user section holds {{{needed}}}")
    if turns[-1].role != "user":
        raise _wrong(name, "the conversation must end with a user section")


def _check_placeholders(template: str, allowed: frozenset[str], title: str, name: str) -> set[str]:
    found = _placeholders(template)
    unknown = sorted(found - allowed)
    if unknown:
        raise _wrong(
            name,
            f"the section {title!r} holds {{{unknown[0]}}}, but there it may only hold "
            f"{', '.join(f'{{{one}}}' for one in sorted(allowed))}; {{{{{unknown[0]}}}}} stands for the word in braces",
        )
    return found


def _placeholders(template: str) -> set[str]:
    return {line or name for line, _, name in _PLACEHOLDER.findall(template) if line or name}


def _one_of(header: Mapping[str, str], key: str, values: tuple[str, ...], name: str, default: str = "") -> str:
    return _known(header.get(key, default), key, values, name)


def _known(value: str, key: str, values: tuple[str, ...], name: str) -> str:
    if value not in values:
        raise _wrong(name, f"{key}: {value or 'missing'} must be one of {', '.join(values)}")
    return value


def _wrong(name: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"The prompt {name!r} cannot be used: {what}.")
