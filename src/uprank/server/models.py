"""From the settings of a model to its reranker."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from uprank.assembly import Around, assembled
from uprank.errors import ConfigurationError, InvalidInputError
from uprank.reranker import Reranker
from uprank.scorers.base import Scorer
from uprank.secrets import Masked
from uprank.server.setting_mistakes import no_such_settings
from uprank.server.settings import MemberSettings, ModelSettings, SecretSource, is_secret_source

if TYPE_CHECKING:
    from uprank.cache import CacheLike

__all__ = ["made_reranker"]

_Made = TypeVar("_Made")


def made_reranker(name: str, settings: ModelSettings) -> Reranker:
    """Make a reranker. No model is loaded yet.

    Args:
        name: Of the model, for errors.
        settings: Its own.

    Raises:
        ConfigurationError: If it cannot work.
        MissingDependencyError: If a package is missing.
    """
    try:
        options = _with_secrets(settings.options)
        if "cache" in options:
            options["cache"] = _cache(options["cache"])
        if "calibrator" in options:
            options["calibrator"] = _calibrator(options["calibrator"])
        fallback = [_member(one) for one in settings.fallback]
        model = settings.model or _combined(settings)
        return Reranker(model, fallback=fallback, **options)  # type: ignore[arg-type]  # checked there
    except (ConfigurationError, InvalidInputError, TypeError) as error:  # the last: what e.g. a cascade does not take
        raise ConfigurationError(f"The model {name} cannot be set up: {error}{_meant(settings, error)}") from error


def _meant(settings: ModelSettings, error: Exception) -> str:
    """Which setting of a served model was meant by what was taken for an option of the model itself."""
    for name in settings.options:
        close = difflib.get_close_matches(name, ModelSettings.model_fields, n=1, cutoff=0.75)
        if close and f"'{name}'" in str(error):
            return f" Did you mean {close[0]}?"
    return ""


def _member(settings: MemberSettings) -> Scorer:
    fallback = [_member(one) for one in settings.fallback]
    options = _with_secrets(settings.options)
    return assembled(settings.model or _combined(settings), options, Around(fallback))


def _combined(settings: MemberSettings) -> Scorer:
    """The cascade or the fusion that is described."""
    if settings.cascade is not None:
        from uprank.scorers.combined.cascade import Cascade

        models = [_member(one) for one in settings.cascade.models]
        return _made("cascade", Cascade, models, **_with_secrets(settings.cascade.options))
    if settings.fusion is not None:
        from uprank.scorers.combined.fusion import Fusion

        models = [_member(one) for one in settings.fusion.models]
        return _made("fusion", Fusion, models, **_with_secrets(settings.fusion.options))
    raise ConfigurationError("There is no model.")  # refused by the settings


def _cache(given: object) -> CacheLike:
    """A cache of the model's own, so that it can be told how often it was of use; several may have one file."""
    if not isinstance(given, Mapping):
        return given  # type: ignore[return-value]  # checked there
    from uprank.cache import DiskCache, MemoryCache

    if set(given) <= {"max_entries"}:
        return _made("cache", MemoryCache, **given)
    return _made("cache", DiskCache, **given)


def _made(what: str, make: Callable[..., _Made], *given: object, **options: object) -> _Made:
    """Make what a table describes; of names that do not fit Python would tell in its own words.

    Args:
        what: The table's name.
        make: A class whose arguments are the settings of the table.
        given: Its first arguments, which are no settings.
        options: The settings.
    """
    arguments = list(inspect.signature(make).parameters.values())[len(given) :]
    known = {one.name: one for one in arguments if "Callable" not in str(one.annotation)}  # no file holds a function
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigurationError(f"In {what}: {no_such_settings(unknown, list(known))}")
    missing = [name for name, one in known.items() if one.default is one.empty and name not in options]
    if missing:
        raise ConfigurationError(f"In {what}: {', '.join(missing)} is missing.")
    return make(*given, **options)


def _calibrator(path: object) -> object:
    if not isinstance(path, str):
        raise ConfigurationError("calibrator must be the path of a file that Calibrator.save() wrote.")
    from uprank.calibrator import Calibrator

    try:
        return Calibrator.load(path)
    except OSError as error:
        raise ConfigurationError(f"The calibrator cannot be read from {path}: {error.strerror}.") from None


def _with_secrets(options: Mapping[str, object]) -> dict[str, object]:
    """Options with each secret in the place of where it is, also within tables and lists."""
    return {name: _read(value) for name, value in options.items()}


def _read(value: object) -> object:
    if is_secret_source(value):
        # A string, since headers and addresses take nothing else.
        return Masked(SecretSource.model_validate(value).read().get_secret_value())
    if isinstance(value, Mapping):
        return _with_secrets(value)
    return [_read(one) for one in value] if isinstance(value, (list, tuple)) else value
