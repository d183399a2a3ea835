"""A model's ``config.json``, read with the defaults that transformers has for what is not in it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Config", "ConfigError"]


class ConfigError(ValueError):
    """A setting is missing or of the wrong kind."""


class Config:
    """Settings by name.

    Args:
        settings: The content of ``config.json``.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.settings = settings

    @property
    def model_type(self) -> str:
        """The family, e.g. ``"bert"``; empty where it is not said."""
        value = self.settings.get("model_type")
        return value if isinstance(value, str) else ""

    @property
    def labels(self) -> int:
        """How many logits a classifier has; 2 where it is not said, as transformers has it."""
        labels = self.settings.get("id2label")
        return len(labels) if isinstance(labels, Mapping) else self.integer("num_labels", default=2)

    def get(self, name: str) -> object:
        """A setting as it is, or ``None``."""
        return self.settings.get(name)

    def integer(self, *names: str, default: int | None = None) -> int:
        """A whole number, by the first of the names that is there."""
        value = self._first(names, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{names[0]} in config.json should be a whole number, is {value!r}.")
        return value

    def number(self, *names: str, default: float | None = None) -> float:
        """A number, by the first of the names that is there."""
        value = self._first(names, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{names[0]} in config.json should be a number, is {value!r}.")
        return float(value)

    def text(self, *names: str, default: str | None = None) -> str:
        """A string, by the first of the names that is there."""
        value = self._first(names, default)
        if not isinstance(value, str):
            raise ConfigError(f"{names[0]} in config.json should be text, is {value!r}.")
        return value

    def _first(self, names: tuple[str, ...], default: object) -> object:
        for name in names:
            if self.settings.get(name) is not None:
                return self.settings[name]
        if default is None:
            raise ConfigError(f"config.json does not say {' or '.join(names)}.")
        return default
