"""A corpus that every machine has: the documentation in Python's own standard library.

The docstrings of the running interpreter's public modules, classes, functions and methods, each as
one passage. Python modules are read from their source, which runs nothing; modules without source
are imported. A thing that several modules offer appears once, under its shortest name.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from uprank.demo.entries import Entry, Export, Import, ModuleDocs
from uprank.demo.extension_docs import read_extension
from uprank.demo.source_docs import read_source
from uprank.documents import Document
from uprank.errors import UprankError

__all__ = ["MAX_CHARACTERS", "load_stdlib_docs"]

MAX_CHARACTERS = 800
"""A passage longer than this ends after its last paragraph that fits."""

SKIPPED = frozenset(
    {
        *("idlelib", "lib2to3", "pydoc_data", "test", "turtledemo"),  # tools, tests, demonstrations
        *("antigravity", "this"),  # jokes
        *("distutils", "encodings"),  # removed since; tables
        *("genericpath", "nt", "ntpath", "posix", "posixpath"),  # reached as os and os.path
        "readline",  # may write to the terminal when imported
    }
)
TEST_PACKAGES = frozenset({"test", "tests"})


def load_stdlib_docs(library: Path | None = None) -> list[Document]:
    """Collect the documentation of the running interpreter's standard library.

    Args:
        library: Where its sources are; by default where this interpreter says.

    Returns:
        Passages in a fixed order: top-level modules by name, then their submodules. Each has its
        qualified name as ``id``, name, signature and docstring as ``text``, and ``module``,
        ``kind`` (``"module"``, ``"class"``, ``"function"``, ``"method"`` or ``"property"``) and
        ``name`` as ``metadata``.

    Raises:
        UprankError: If this Python comes without the sources of its library.
    """
    reader = _Library(library or Path(sysconfig.get_path("stdlib")))
    passages: dict[str, Document] = {}
    seen: set[object] = set()
    for module in reader.public_modules():
        docs = reader.read(module)
        if docs is None:
            continue
        if docs.doc:
            passages.setdefault(module, _passage(module, Entry("", "module", "", docs.doc)))
        for export in reader.exports(module).values():
            if export.origin not in seen:
                seen.add(export.origin)
                for entry in export.entries:
                    passages.setdefault(f"{module}.{entry.name}", _passage(module, entry))
    return list(passages.values())


class _Library:
    """The modules of one standard library, each read once."""

    def __init__(self, root: Path) -> None:
        self._paths = dict(_sources(root))
        if not self._paths:
            raise UprankError(
                f"This Python has no sources of its standard library in {root} (a zip or a stripped build?), and "
                "they are what the demo searches. Run it with a full installation of Python."
            )
        self._read: dict[str, ModuleDocs | None] = {}
        self._exports: dict[str, dict[str, Export]] = {}

    def public_modules(self) -> list[str]:
        names = self._paths.keys() | sys.stdlib_module_names
        public = [
            name for name in names if name not in SKIPPED and not any(part.startswith("_") for part in name.split("."))
        ]
        return sorted(public, key=lambda name: (name.count("."), name))

    def read(self, module: str) -> ModuleDocs | None:
        """Read a module, once; ``None`` where this Python does not have it."""
        if module not in self._read:
            docs = None
            if path := self._paths.get(module):
                docs = read_source(path.read_bytes(), module, is_package=path.name == "__init__.py")
            elif module in sys.stdlib_module_names:
                docs = read_extension(module)
            self._read[module] = docs
        return self._read[module]

    def exports(self, module: str) -> dict[str, Export]:
        """Every public name of a module: its own, and those it hands on from elsewhere."""
        if module not in self._exports:
            docs = self.read(module)
            self._exports[module] = exports = dict(docs.exports) if docs else {}
            for taken in docs.imports if docs else ():
                for name, export in self._handed_on(taken, docs.listed if docs else None):
                    exports.setdefault(name, export)
        return self._exports[module]

    def _handed_on(self, taken: Import, listed: frozenset[str] | None) -> Iterator[tuple[str, Export]]:
        if taken.names is None:
            source = self.read(taken.module)
            names = [(name, name) for name in self.exports(taken.module)]
            if source is not None and source.listed is not None:
                names = [(name, name) for name, _ in names if name in source.listed]
        else:
            # A name imported for the module's own use is not part of what it offers.
            names = [
                (there, here)
                for there, here in taken.names
                if not here.startswith("_") and (here in listed if listed is not None else taken.internal)
            ]
        for there, here in names:
            if export := self.exports(taken.module).get(there):
                yield here, export.renamed(there, here)


def _sources(root: Path) -> Iterator[tuple[str, Path]]:
    for name in sys.stdlib_module_names:
        package = root / name
        if (package / "__init__.py").is_file():
            yield name, package / "__init__.py"
            if name not in SKIPPED:
                yield from _submodules(name, package)
        elif (file := root / f"{name}.py").is_file():
            yield name, file
            if name == os.path.__name__:
                yield "os.path", file


def _submodules(name: str, package: Path) -> Iterator[tuple[str, Path]]:
    for path in package.iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            yield f"{name}.{path.stem}", path
        elif (path / "__init__.py").is_file() and path.name not in TEST_PACKAGES:
            yield f"{name}.{path.name}", path / "__init__.py"
            yield from _submodules(f"{name}.{path.name}", path)


def _passage(module: str, entry: Entry) -> Document:
    name = f"{module}.{entry.name}" if entry.name else module
    text = f"{name}{entry.signature}\n\n{entry.doc}".rstrip()
    return Document(
        _shortened(text), id=name, metadata={"module": module, "kind": entry.kind, "name": entry.name or module}
    )


def _shortened(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    paragraph = text.rfind("\n\n", 0, MAX_CHARACTERS)
    return text[: paragraph if paragraph > MAX_CHARACTERS // 2 else MAX_CHARACTERS].rstrip()
