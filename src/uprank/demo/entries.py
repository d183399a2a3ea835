"""What a module documents: the record that both readers (source and extension) fill in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

__all__ = ["Entry", "Export", "Import", "Kind", "ModuleDocs"]

Kind: TypeAlias = Literal["module", "class", "function", "method", "property"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One documented thing.

    Args:
        name: Its name within the module, e.g. ``"DictReader"`` or ``"DictReader.fieldnames"``.
        kind: What it is.
        signature: Its parameters with their brackets; empty where it has none, or none is known.
        doc: Its docstring, dedented; empty for an undocumented name that ``__all__`` lists.
    """

    name: str
    kind: Kind
    signature: str
    doc: str


@dataclass(frozen=True, slots=True)
class Export:
    """A top-level name of a module with everything below it: a class and its methods.

    Args:
        origin: Tells one definition from another, under whatever names it is reached.
        entries: The documented things, the name itself first; may be empty.
    """

    origin: object
    entries: tuple[Entry, ...]

    def renamed(self, old: str, new: str) -> Export:
        """The same definition under the name it has where it is imported."""
        if old == new:
            return self
        return Export(self.origin, tuple(replace(entry, name=new + entry.name[len(old) :]) for entry in self.entries))


@dataclass(frozen=True, slots=True)
class Import:
    """``from module import names``.

    Args:
        module: The module's absolute name.
        names: Pairs of the name there and the name here; ``None`` for a star.
        internal: Whether it takes from within its own package, or from a module with a leading underscore.
    """

    module: str
    names: tuple[tuple[str, str], ...] | None
    internal: bool


@dataclass(frozen=True, slots=True)
class ModuleDocs:
    """What one module says of itself.

    Args:
        doc: Its own docstring; empty without one.
        exports: Its public top-level names, in the order of the source.
        imports: Where it may get further public names from.
        listed: Its ``__all__`` where that is a plain list of strings, otherwise ``None``.
    """

    doc: str
    exports: dict[str, Export]
    imports: tuple[Import, ...] = ()
    listed: frozenset[str] | None = None
