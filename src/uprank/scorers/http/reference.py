"""The known services as Markdown, written from their rows: the generated part of docs/providers.md.

After a change of a row, ``python -m uprank.scorers.http.reference docs/providers.md`` brings the
page up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from uprank.scorers.http.addresses import join, with_model
from uprank.scorers.http.dialects import DIALECTS, request_body
from uprank.scorers.http.providers import PROVIDERS, ModelRow, Provider

__all__ = ["main", "providers_page", "updated"]

_BEGIN = "<!-- begin: written by `python -m uprank.scorers.http.reference docs/providers.md` -->\n"
_END = "<!-- end -->\n"

_COLUMNS = ("scheme", "models", "key variable", "limits of a request", "score kind", "splittable", "base_url")
_DIALECT_COLUMNS = ("dialect", "request body")


def providers_page() -> str:
    """Return a table of all services, and a section for each of them."""
    lines = [*_table(_COLUMNS, (cells for row in PROVIDERS.values() for cells in _rows(row)))]
    for row in PROVIDERS.values():
        lines += ["", *_section(row)]
    return "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """Return a page with the part between its two markers written anew.

    Raises:
        ValueError: If it does not have both markers, each once and in order.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end or _BEGIN in rest or _END in after:
        raise ValueError(f"the page must have the lines {_BEGIN.strip()} and {_END.strip()}, each once")
    return f"{before}{begin}\n{providers_page()}\n{end}{after}"


def main(arguments: Sequence[str]) -> None:
    """Bring the generated part of the page that is named up to date."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m uprank.scorers.http.reference docs/providers.md")
    page = Path(arguments[0])
    page.write_bytes(updated(page.read_bytes().decode()).encode())  # line ends as they are, on every system


def _table(names: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    for cells in (names, ("---",) * len(names), *rows):
        yield f"| {' | '.join(cells)} |"


def _rows(row: Provider) -> Iterator[tuple[str, ...]]:
    """The rows of one service: its particular models, then all others."""
    keys = ", ".join(map(_code, row.key_variables)) + ("" if row.key_required else " (optional)")
    base = "the route's full address, required" if row.base_url is None else _code(row.base_url)
    for models in (*row.models, ModelRow()):
        yield (
            f"[`{row.scheme}:`](#{row.scheme})",
            _models(row, models),
            keys if row.key_variables else "none",
            _limits(row, models),
            row.native or models.score_kind or row.score_kind,
            "no" if models.listwise else "yes",
            base,
        )


def _models(row: Provider, models: ModelRow) -> str:
    if models in row.models:
        name = _code(models.pattern)
    else:
        name = ("any other" if row.models else "any") + ("" if row.takes_model else ", or none")
    if row.example and row.row(row.example) == models:
        name += f", e.g. {_code(row.example)}"
    if models.instruction or row.instruction:
        name += "; takes an instruction"
    for field, value in models.sends.items():
        name += f"; {_code(field)} is {_code(_json(value))}"
    return name


def _limits(row: Provider, models: ModelRow) -> str:
    amounts = (
        (models.max_documents or row.max_documents, "documents"),
        (models.max_request_tokens or row.max_request_tokens, "tokens"),
        (row.max_request_bytes, "bytes"),
    )
    known = ", ".join(f"{amount:,} {unit}" for amount, unit in amounts if amount is not None) or "none known"
    return known if row.info is None else f"{known}; documents as its {_code(row.info)} says"


def _section(row: Provider) -> Iterator[str]:
    yield from (f"### `{row.scheme}:`", "", *_facts(row))
    yield from ("", "```python", "from uprank import Reranker", _construction(row), "```")
    if row.base_url is None:
        bodies = ((_code(name), _code(_example_body(name))) for name in DIALECTS)
        yield from ("", *_table(_DIALECT_COLUMNS, bodies))


def _construction(row: Provider) -> str:
    options = {}
    if row.key_required:
        options["api_key"] = "..."
    if row.base_url is None:
        options |= {"dialect": "jina", "base_url": "http://localhost:8000/v1/rerank"}
    elif not row.key_required:
        options["base_url"] = row.base_url
    arguments = [f"{row.scheme}:{row.example}", *options.values()]
    names = ["", *(f"{name}=" for name in options)]
    given = ", ".join(name + json.dumps(value) for name, value in zip(names, arguments, strict=True))
    return f"reranker = Reranker({given})"


def _facts(row: Provider) -> Iterator[str]:
    """What is particular to a service: one paragraph, a sentence a line."""
    yield f"{row.title}. {_address(row)}"
    if row.base_variable is not None:
        yield f"The environment variable {_code(row.base_variable)} may give another address."
    for prefix, base in row.base_by_key.items():
        yield f"With a key that begins with {_code(prefix)}, they go to {_code(base)}."
    if row.auth != "Authorization":
        yield f"The key goes into the header {_code(row.auth)}."
    for name, value in row.headers.items():
        yield f"Every request has the header {_code(f'{name}: {value}')}."
    always = DIALECTS[row.dialect].always if row.base_url is not None else {}
    if always:
        yield f"Every request has {_enumerated([_code(f'{name}: {_json(value)}') for name, value in always.items()])}."
    if row.native is not None:
        yield "Raw logits are asked for and decide the order; what is reported is their sigmoid."
    instructions = {models.instruction or row.instruction for models in (*row.models, ModelRow())}
    for field in sorted(filter(None, instructions)):
        place = "stands before the query, on a line of its own" if field == "query" else f"goes into {_code(field)}"
        yield f"An instruction {place}."
    if row.fields:
        yield f"Request fields that may be given as options: {_enumerated([_code(field) for field in row.fields])}."
    if not row.counts_tokens:
        yield "The tokens that it counts are not the model's."


def _address(row: Provider) -> str:
    if row.base_url is None:
        return "The body of a request is that of the `dialect`, `cohere` by default; nothing is appended to `base_url`."
    where = f"Requests go to {_code(join(row.base_url, with_model(row.path, row.example)))}"
    if row.own_path is None:
        return f"{where}."
    return f"{where}, those to a `base_url` of yours to its {_code(row.own_path)}."


def _example_body(dialect: str) -> str:
    return _json(request_body(DIALECTS[dialect], "my-model", "a query", ["a text"], {}))


def _enumerated(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _code(text: str) -> str:
    return f"`{text}`"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main(sys.argv[1:])
