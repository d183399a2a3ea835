"""Every error that uprank raises.

::

    UprankError
    ├── InvalidInputError (ValueError)         the query, a document, top_n or threshold cannot be used
    │   └── InvalidDocumentError (TypeError)     a document is not text, a Document or a mapping with text
    ├── ConfigurationError (ValueError)        the reranker was set up in a way that cannot work
    │   ├── UnknownModelError                    no scheme or preset of that name
    │   └── ScoreKindError                       the scores do not mean what was asked of them
    ├── MissingDependencyError (ImportError)   an extra is not installed
    └── ScorerError                            the scorer failed, whatever the input
        ├── ModelLoadError                       the model could not be loaded
        │   └── ModelIntegrityError                its weights are not the published ones
        ├── InvalidScoresError                   the scorer's answer cannot be used
        └── QueryTooLongError (ValueError)       the query does not fit the model's window

``on_error="passthrough"`` applies to :class:`ScorerError` and its children alone: mistakes in the
input or in the set-up are always raised.
"""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "InvalidDocumentError",
    "InvalidInputError",
    "InvalidScoresError",
    "MissingDependencyError",
    "ModelIntegrityError",
    "ModelLoadError",
    "QueryTooLongError",
    "ScoreKindError",
    "ScorerError",
    "UnknownModelError",
    "UprankError",
]


class UprankError(Exception):
    """Base of every error raised by uprank."""


class InvalidInputError(UprankError, ValueError):
    """The query, a document or an option of this call cannot be used."""


class InvalidDocumentError(InvalidInputError, TypeError):
    """A document is not a string, a ``Document`` or a mapping with a string under ``"text"``."""


class ConfigurationError(UprankError, ValueError):
    """The reranker was set up in a way that cannot work."""


class UnknownModelError(ConfigurationError):
    """The model name has no known scheme and is no preset."""


class ScoreKindError(ConfigurationError):
    """What was asked of the scores does not fit what they mean."""


class MissingDependencyError(UprankError, ImportError):
    """A package that this backend needs is not installed.

    Args:
        feature: What needs it, e.g. ``'model "embedded"'``.
        extra: The extra of uprank that brings it.
        packages: The missing packages, by import name.
    """

    def __init__(self, feature: str, extra: str, packages: tuple[str, ...]) -> None:
        self.feature = feature
        self.extra = extra
        self.packages = packages
        missing = ", ".join(packages)
        super().__init__(f'{feature} needs {missing}, not installed here. Run: pip install "uprank[{extra}]"')

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str, tuple[str, ...]]]:
        return type(self), (self.feature, self.extra, self.packages)


class ScorerError(UprankError):
    """The scorer failed. The cause, where there is one, is chained."""


class ModelLoadError(ScorerError):
    """The model could not be loaded."""


class ModelIntegrityError(ModelLoadError):
    """A file of the model does not have its published checksum; it was not loaded."""


class InvalidScoresError(ScorerError):
    """The scorer answered with something that is not one finite number per text."""


class QueryTooLongError(ScorerError, ValueError):
    """The query does not fit the model's window; for cross-encoders, half of it."""
