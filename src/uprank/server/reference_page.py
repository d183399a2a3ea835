"""The page at ``/docs``: the OpenAPI document as a person reads it, without script and without any outside part."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from typing import Any

__all__ = ["PAGE_HEADERS", "reference_page"]

Json = Mapping[str, Any]  # Any: what an OpenAPI document has

_STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f8; --surface: #fff; --ink: #1b1f24; --soft: #59626c; --line: #dfe3e7;
  --accent: #1f5f9e; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --surface: #1c2025; --ink: #e7eaee; --soft: #a3acb6;
  --line: #30363d; --accent: #86bdf0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
a { color: var(--accent); text-underline-offset: 0.2em; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
code, pre { font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { overflow-x: auto; margin: 0.5rem 0; padding: 0.75rem; background: var(--ground); border: 1px solid var(--line);
  border-radius: 6px; }
section { margin: 1rem 0; padding: 1rem; background: var(--surface); border: 1px solid var(--line);
  border-radius: 8px; }
h2 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
h3 { margin: 1rem 0 0.25rem; font-size: 0.95rem; }
p { margin: 0.25rem 0; }
.soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: 0.2rem 1.25rem 0.2rem 0; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
summary { cursor: pointer; margin-top: 0.5rem; }
"""

PAGE_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
}
"""The page's headers: a browser runs nothing on it and loads nothing for it."""


def reference_page(document: Json) -> str:
    """Return the page.

    Args:
        document: An OpenAPI document; paths whose operations are alike are told of together.
    """
    info = document["info"]
    alike: dict[str, tuple[str, Json, list[str]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            told = {name: value for name, value in operation.items() if name != "operationId"}
            alike.setdefault(json.dumps([method, told]), (method, told, []))[2].append(path)
    sections = [_section(method, paths, told, document) for method, told, paths in alike.values()]
    description = "".join(f"<p>{escape(part)}</p>" for part in info.get("description", "").split("\n\n"))
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API reference</title><style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{escape(info['title'])} <span class=soft>{escape(info['version'])}</span></h1>\n{description}\n"
        f'<p><a href="openapi.json">OpenAPI document</a></p>\n{_keys(document)}'
        f"<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def _keys(document: Json) -> str:
    if "securitySchemes" not in document.get("components", {}):
        return ""
    ways = "<code>Authorization: Bearer KEY</code> or <code>X-Api-Key: KEY</code>"
    return f"<p>This server needs a key, sent as {ways}.</p>\n"


def _section(method: str, paths: list[str], operation: Json, document: Json) -> str:
    named = ", ".join(f"<code>{escape(path)}</code>" for path in paths)
    parts = [f"<h2>{method.upper()} {named}</h2>\n", f"<p>{escape(operation.get('summary', ''))}</p>\n"]
    request = operation.get("requestBody", {}).get("content", {})
    if request:
        parts.append(f"<p class=soft>Takes {escape(', '.join(request))}</p>\n")
        content = next(iter(request.values()))
        for name in _references(content["schema"]):
            parts.append(_fields(name, document["components"]["schemas"][name]))
        parts += _examples("Request", content)
    for status, reply in operation.get("responses", {}).items():
        if status.startswith("2"):
            for content in list(reply.get("content", {}).values())[:1]:
                parts += _examples("Reply", content)
    if set(operation.get("responses", {})) != {"200"}:
        parts.append(_statuses(operation["responses"], document))
    return f"<section>\n{''.join(parts)}</section>\n"


def _references(schema: Json) -> list[str]:
    """The components of which one is meant."""
    return [one["$ref"].rpartition("/")[2] for one in schema.get("anyOf", [schema]) if "$ref" in one]


def _fields(name: str, schema: Json) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{escape(_type(told))}</td>"
        f"<td>{'required' if field in required else ''}</td></tr>\n"
        for field, told in schema.get("properties", {}).items()
    )
    about = "</p>\n<p>".join(_prose(part) for part in schema.get("description", "").split("\n\n"))
    head = "<tr><th>Field</th><th>Type</th><th></th></tr>\n"
    return f"<h3>{escape(name)}</h3>\n<p>{about}</p>\n<div class=wide><table>\n{head}{rows}</table></div>\n"


def _prose(text: str) -> str:
    """Text with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _type(schema: Json) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema or "const" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))


def _examples(kind: str, content: Json) -> list[str]:
    """The first is seen at once, the others are a click away."""
    examples = content.get("examples", {}).values()
    return [_example(kind, one, " open" if not number else "") for number, one in enumerate(examples)]


def _example(kind: str, example: Json, state: str) -> str:
    of = f", {escape(example['summary'])}" if example.get("summary") else ""
    shown = escape(json.dumps(example["value"], indent=2, ensure_ascii=False), quote=False)
    return f"<details{state}><summary>{kind}{of}</summary><pre>{shown}</pre></details>\n"


def _statuses(replies: Json, document: Json) -> str:
    shared = document.get("components", {}).get("responses", {})
    named = {status: shared.get(reply.get("$ref", "").rpartition("/")[2], reply) for status, reply in replies.items()}
    rows = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(reply.get('description', ''))}</td></tr>\n"
        for status, reply in sorted(named.items())
    )
    head = "<tr><th>Status</th><th>Meaning</th></tr>\n"
    return f"<h3>Replies</h3>\n<div class=wide><table>\n{head}{rows}</table></div>\n"
