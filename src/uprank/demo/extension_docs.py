"""Docstrings and signatures of a module that has no Python source: it is imported and asked."""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec
from types import ModuleType

from uprank.demo.entries import Entry, Export, Kind, ModuleDocs

__all__ = ["read_extension"]


def read_extension(name: str) -> ModuleDocs | None:
    """Read what a built-in or extension module documents.

    Args:
        name: The module's name.

    Returns:
        ``None`` where this platform or build of Python does not have it, or has it in Python.
    """
    spec = find_spec(name)
    if spec is None or not (spec.origin == "built-in" or isinstance(spec.loader, ExtensionFileLoader)):
        return None
    try:
        with warnings.catch_warnings():  # some say on import that they are deprecated
            warnings.simplefilter("ignore", DeprecationWarning)
            module = importlib.import_module(name)
    except ImportError:  # built, but a library it needs is not there
        return None
    exports = {
        public: Export(id(value), tuple(_entries(public, value)))
        for public, value in _public(module)
        # A Python function in a module without Python source was put there by someone else, e.g. a notebook.
        if isinstance(value, type) or (inspect.isroutine(value) and not inspect.isfunction(value))
    }
    return ModuleDocs(_doc(module), exports)


def _public(module: ModuleType) -> Iterator[tuple[str, object]]:
    names: list[str] = getattr(module, "__all__", None) or dir(module)
    for name in sorted(names):
        if not name.startswith("_"):
            # sys keeps the original of a hook that was replaced.
            original = f"__{name}__" if name.endswith("hook") else name
            yield name, getattr(module, original, getattr(module, name))


def _entries(name: str, value: object) -> Iterator[Entry]:
    if doc := _doc(value):
        yield Entry(name, "class" if isinstance(value, type) else "function", _signature(value), doc)
    if not isinstance(value, type):
        return
    for member, attribute in vars(value).items():
        doc = _doc(attribute)
        if member.startswith("_") or not doc:
            continue
        if inspect.isroutine(attribute):
            kind: Kind = "method"
        elif inspect.isdatadescriptor(attribute):
            kind = "property"
        else:
            continue  # a constant, whose docstring is its type's
        yield Entry(f"{name}.{member}", kind, "" if kind == "property" else _signature(attribute), doc)


def _doc(value: object) -> str:
    doc = getattr(value, "__doc__", None)
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def _signature(value: object) -> str:
    """The parameters as the module writes them down; ``inspect.signature`` would evaluate the defaults."""
    written = getattr(value, "__text_signature__", None)
    if not isinstance(written, str):  # not told by this function
        return ""
    return re.sub(r"^\(\$\w+(, /)?(, )?", "(", " ".join(written.split()))
