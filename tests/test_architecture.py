"""The order of the house: a file imports from those before it, never from those after."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "uprank"

# From the ground floor up; a package stands for all its files.
FLOORS = [
    "errors",
    "extras",
    "secrets",
    "documents",
    "fields",
    "tokens",
    "rounds",
    "concurrency",
    "scorers.evidence",
    "scorers.base",
    "scorers.checking",
    "scorers.presets",
    "calibration",
    "calibrations",
    "calibrator",
    "scorers.callable",
    "scorers.registry",
    "scorers.local",
    "scorers.http",
    "scorers.llm",
    "cache",
    "scorers.combined",
    "scorers",
    "ranking",
    "validation",
    "selection",
    "choosing",
    "pipeline",
    "fidelity",
    "streaming",
    "observe",
    "assembly",
    "reranker",
    "notes",
    "telemetry",
    "sharing",
    "shortcut",
    "testing",
    "adapter",
    "langchain",
    "llama_index",
    "demo",
    "server",
    "cli",
    "__main__",
]


def floor_of(module: str) -> int:
    """The floor of ``uprank.<module>``: that of the longest name in the list that it lies in."""
    homes = [name for name in FLOORS if module == name or module.startswith(name + ".")]
    assert homes, f"uprank.{module} has no place in the house: add it to FLOORS and docs/architecture.md"
    return FLOORS.index(max(homes, key=len))


def imports_at_load(path: Path) -> set[str]:
    """Modules of uprank that a file imports when it is loaded, not those for type checkers or inside functions."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            # `from uprank.scorers import registry` imports a module, `from uprank import Reranker` the front door.
            deeper = [f"{node.module}.{name}" for name in names if is_module(f"{node.module}.{name}")]
            names = deeper or [str(node.module)]
        found.update(name.removeprefix("uprank.") for name in names if name.startswith("uprank."))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def is_module(name: str) -> bool:
    place = SOURCE.parent / Path(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def test_imports_lead_down():
    for path in SOURCE.rglob("*.py"):
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if module == "__init__":
            continue  # the front door: it shows what all floors offer
        for target in imports_at_load(path):
            assert floor_of(target) <= floor_of(module), f"uprank.{module} must not import uprank.{target}"


def test_only_the_adapters_know_the_frameworks():
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).parts
        if parts[0] in ("langchain.py", "llama_index.py", "demo") or parts[:3] == ("scorers", "llm", "models"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not name.startswith(("langchain", "llama_index")), f"{path} imports {name}"


def test_no_file_has_two_subjects():
    for path in SOURCE.rglob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        limit = 150 if path.name in ("langchain.py", "llama_index.py") else 400
        assert lines <= limit, f"{path.relative_to(SOURCE)} has {lines} lines"
