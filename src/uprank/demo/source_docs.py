"""Docstrings and signatures of a module from its source text. Nothing is imported or run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from uprank.demo.entries import Entry, Export, Import, Kind, ModuleDocs

__all__ = ["read_source"]

Function: TypeAlias = "ast.FunctionDef | ast.AsyncFunctionDef"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def read_source(source: bytes, module: str, *, is_package: bool) -> ModuleDocs:
    """Read what a module documents.

    Args:
        source: Its text, as in the file.
        module: Its dotted name.
        is_package: Whether relative imports start at the module itself.

    Raises:
        SyntaxError: If it is not Python of the running version.
    """
    tree = ast.parse(source)
    statements = list(_statements(tree.body))
    listed = _listed(statements)
    exports: dict[str, Export] = {}
    for node in statements:
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            # A name in __all__ is public also where nobody wrote a docstring, e.g. csv.DictReader.
            bare = listed is not None and node.name in listed
            if isinstance(node, ast.ClassDef):
                entries = _class(node, keep_bare=bare)
            else:
                entries = _function(node, keep_bare=bare)
            exports.setdefault(node.name, Export((module, node.name), tuple(entries)))
    imports = tuple(
        _import(node, module, is_package=is_package) for node in statements if isinstance(node, ast.ImportFrom)
    )
    return ModuleDocs(ast.get_docstring(tree) or "", exports, imports, listed)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, also those under ``if`` and ``try``: fallbacks and platforms."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            yield from _statements(node.body)
            for handler in node.handlers if isinstance(node, ast.Try) else ():
                yield from _statements(handler.body)
            yield from _statements(node.orelse)


def _listed(statements: Sequence[ast.stmt]) -> frozenset[str] | None:
    for node in statements:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            try:
                return frozenset(map(str, ast.literal_eval(node.value)))
            except (ValueError, TypeError):  # computed from other modules' lists
                return None
    return None


def _import(node: ast.ImportFrom, module: str, *, is_package: bool) -> Import:
    source = node.module or ""
    if node.level:
        parts = module.split(".")
        package = parts[: len(parts) - node.level + is_package]
        source = ".".join([*package, source] if source else package)
    star = any(alias.name == "*" for alias in node.names)
    names = None if star else tuple((alias.name, alias.asname or alias.name) for alias in node.names)
    internal = bool(node.level) or source.startswith(("_", f"{module}."))
    return Import(source, names, internal)


def _function(node: Function, *, keep_bare: bool) -> Iterator[Entry]:
    doc = ast.get_docstring(node) or ""
    if doc or keep_bare:
        yield Entry(node.name, "function", f"({ast.unparse(node.args)})", doc)


def _class(node: ast.ClassDef, *, keep_bare: bool) -> Iterator[Entry]:
    doc = ast.get_docstring(node) or ""
    methods = [child for child in _statements(node.body) if isinstance(child, _FUNCTIONS)]
    if doc or keep_bare:
        maker = next((method for method in methods if method.name == "__init__"), None)
        yield Entry(node.name, "class", _method_signature(maker) if maker else "", doc)
    for method in methods:
        doc = ast.get_docstring(method) or ""
        if doc and not method.name.startswith("_"):
            decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in method.decorator_list}
            kind: Kind = "property" if decorators & {"property", "cached_property"} else "method"
            yield Entry(
                f"{node.name}.{method.name}", kind, "" if kind == "property" else _method_signature(method), doc
            )


def _method_signature(node: Function) -> str:
    """The parameters as a caller sees them, without ``self`` or ``cls``."""
    arguments = node.args
    first = (arguments.posonlyargs or arguments.args)[:1]
    if first and first[0].arg in ("self", "cls"):
        (arguments.posonlyargs or arguments.args).pop(0)
    return f"({ast.unparse(arguments)})"
