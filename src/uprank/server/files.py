"""Files of settings, in TOML or YAML, as mappings. No error shows what a file holds."""

from __future__ import annotations

from pathlib import Path

from uprank.errors import ConfigurationError

__all__ = ["parsed"]


def parsed(path: Path) -> dict[str, object]:
    """Read a file of settings.

    Args:
        path: Its suffix tells the format: ``.toml``, ``.yaml`` or ``.yml``.

    Raises:
        ConfigurationError: If it cannot be read, is not of that format, or holds something else than settings.
    """
    if path.suffix not in (".toml", ".yaml", ".yml"):
        raise ConfigurationError(f"{path} is neither .toml nor .yaml, so it is not known how to read it.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"The settings cannot be read from {path}: {why}.") from None
    found = _toml(path, text) if path.suffix == ".toml" else _yaml(path, text)
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} must hold settings by their names, as a table.")
    return found


def _toml(path: Path, text: str) -> object:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}.") from None  # which quotes names, but no values


def _yaml(path: Path, text: str) -> object:
    import yaml  # late, as all that only one format needs

    class Repeated(yaml.constructor.ConstructorError):
        """A name stands twice."""

    class Strict(yaml.SafeLoader):
        """Refuses a name that stands twice in a table, which TOML does too."""

        def construct_mapping(
            self,
            node: yaml.MappingNode,
            deep: bool = False,  # noqa: FBT001, FBT002 - as it is called
        ) -> dict[object, object]:
            if not isinstance(node, yaml.MappingNode):  # a tag said that it is one
                raise yaml.constructor.ConstructorError(problem_mark=node.start_mark)
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(names)) < len(names):
                raise Repeated(problem_mark=node.start_mark)
            return super().construct_mapping(node, deep=deep)

    try:
        return yaml.load(text, Strict)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f": see line {mark.line + 1}, column {mark.column + 1}"
        told = "is not YAML"
        if isinstance(error, Repeated):
            told = "has a name twice in one table"
        elif isinstance(error, yaml.constructor.ConstructorError):
            told = "holds a tag, where plain values are needed"
        raise ConfigurationError(f"{path} {told}{place}.") from None
