"""What a server is told: its models, its limits and its keys, as a TOML or YAML file says them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from uprank.errors import ConfigurationError
from uprank.secrets import Secret, as_secret, secrets_among

__all__ = ["KeySettings", "Limits", "ModelSettings", "SecretSource", "ServerSettings"]

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class SecretSource(_Settings):
    """Where a secret is: in an environment variable, or in a file of its own. It is read when it is needed.

    Args:
        env: The variable's name.
        file: The file's path.
    """

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> SecretSource:
        if (self.env is None) == (self.file is None):
            raise ValueError("give env or file, the place where the secret is")
        return self

    def read(self) -> Secret:
        """Return the secret.

        Raises:
            ConfigurationError: If there is none.
        """
        place = f"the environment variable {self.env}" if self.file is None else f"the file {self.file}"
        try:
            found = os.environ.get(self.env or "") if self.file is None else self.file.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"A key cannot be read from {place}: {error.strerror}.") from None
        secret = as_secret(found, f"The key in {place}")
        if secret is None:
            raise ConfigurationError(f"There is no key in {place}.")
        return secret


class KeySettings(SecretSource):
    """A key by which a client may use the server.

    Args:
        name: Shown in the log and in metrics in the key's place.
        requests_per_minute: How many requests it may make; ``None`` for any number.
        env: As for :class:`SecretSource`.
        file: Likewise; with several lines each is a key of that name, so that one can replace another.
    """

    name: Annotated[str, Field(min_length=1)] = "key"
    requests_per_minute: Positive | None = None


class Limits(_Settings):
    """What one request may hold; more is refused before anything is scored.

    Args:
        body_bytes: 413 above it.
        documents: 422 above it, as for the rest.
        document_chars: Of each document.
        query_chars: Of the query.
        batch_tokens: Of all documents together, with the query counted for each, by an estimate that is seldom too
            low; ``None`` for no limit.
    """

    body_bytes: Positive = 16 * 1024 * 1024
    documents: Positive = 1_024
    document_chars: Positive = 200_000
    query_chars: Positive = 20_000
    batch_tokens: Positive | None = None


class ModelSettings(BaseModel):
    """One model that is served. What is not named here is an argument of :class:`~uprank.Reranker`, or of the model.

    Args:
        model: As for :class:`~uprank.Reranker`; or one of the next two.
        cascade: The arguments of :class:`~uprank.Cascade`.
        fusion: The arguments of :class:`~uprank.Fusion`.
        aliases: Other names that clients send; ``"*"`` stands for every name that is no other model's.
        warm: Whether to load it before the first request; by default as the server's ``warm`` says.
    """

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    model: str | None = None
    cascade: dict[str, object] | None = None
    fusion: dict[str, object] | None = None
    aliases: tuple[str, ...] = ()
    warm: bool | None = None

    @model_validator(mode="after")
    def _whole(self) -> ModelSettings:
        if [self.model, self.cascade, self.fusion].count(None) != 2:
            raise ValueError("give one of model, cascade and fusion")
        more = self.options
        for name in secrets_among({key: value for key, value in more.items() if not _is_source(value)}):
            raise ValueError(
                f'{name} must not stand here: put it into the environment, and here {{ env = "ITS_NAME" }}'
            )
        if more.get("on_error", "raise") != "raise":
            raise ValueError(
                'on_error="passthrough" cannot be served: no wire format can say that nothing was scored; use fallback'
            )
        return self

    @property
    def options(self) -> dict[str, object]:
        """The arguments of the reranker, secrets being named by where they are."""
        return dict(self.model_extra or {})


class ServerSettings(_Settings):
    """Everything that ``uprank serve`` is told.

    Args:
        host: The address to listen on; by default this machine alone can reach it.
        port: 0 takes a free one.
        models: By the id under which clients ask for them.
        default_model: Which one answers clients that name none; by default the first.
        warm: Whether to load all models before the first request; else each is loaded at its first.
        limits: Of one request.
        keys: Who may use the server; with none, everybody.
        max_queue: How many requests may be under way, the waiting ones included; more are answered 429.
        deadline: Seconds until a request is given up and answered 504.
        unknown_fields: Whether a field that a dialect does not have is ignored, or refused with 422.
        cors_origins: The web pages that may call it from a browser, e.g. ``["https://example.org"]``; none by default.
        metrics: Whether ``/metrics`` is there.
        docs: Whether ``/docs`` and ``/openapi.json`` are.
        page: Whether ``/`` shows the page to try models on.
        drain_delay: Seconds between the signal to end and the moment when no connection is accepted any more;
            ``/health/ready`` says 503 meanwhile, so that a load balancer looks elsewhere.
        drain_seconds: How long accepted requests may take to end after that.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8_000
    models: Annotated[dict[str, ModelSettings], Field(min_length=1)]
    default_model: str | None = None
    warm: bool = False
    limits: Limits = Limits()
    keys: tuple[KeySettings, ...] = ()
    max_queue: Positive = 512
    deadline: Seconds = 60.0
    unknown_fields: Literal["ignore", "refuse"] = "ignore"
    cors_origins: tuple[str, ...] = ()
    metrics: bool = True
    docs: bool = True
    page: bool = True
    drain_delay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    drain_seconds: Seconds = 30.0

    @model_validator(mode="after")
    def _names(self) -> ServerSettings:
        if self.default_model is not None and self.default_model not in self.models:
            raise ValueError(f"default_model must be one of {', '.join(self.models)}; got {self.default_model!r}")
        seen: dict[str, str] = {name: name for name in self.models}
        for name, model in self.models.items():
            for alias in model.aliases:
                if seen.setdefault(alias, name) != name:
                    raise ValueError(f"{alias!r} names both {seen[alias]} and {name}")
        return self

    @classmethod
    def of(cls, given: Mapping[str, object], *, source: str = "The settings") -> ServerSettings:
        """Check settings.

        Args:
            given: As a file holds them.
            source: What they are, for the error.

        Raises:
            ConfigurationError: If they cannot be used; values are not shown.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems = error.errors(include_input=False, include_url=False, include_context=False)
            told = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'as a whole'}: {one['msg']}" for one in problems)
            raise ConfigurationError(f"{source} cannot be used. {told}") from None

    @classmethod
    def from_file(cls, path: str | Path, **changes: object) -> ServerSettings:
        """Read settings from a TOML or YAML file.

        Args:
            path: Its suffix tells which: ``.toml``, ``.yaml`` or ``.yml``.
            changes: Settings that replace the file's.

        Raises:
            ConfigurationError: If the file cannot be read or its settings cannot be used.
        """
        return cls.of({**_parsed(Path(path)), **changes}, source=str(path))


def _is_source(value: object) -> bool:
    return isinstance(value, Mapping) and len(value) == 1 and set(value) <= {"env", "file"}


def _parsed(path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"The settings cannot be read from {path}: {why}.") from None
    found: object
    try:
        if path.suffix == ".toml":
            found = _toml(text)
        elif path.suffix in (".yaml", ".yml"):
            import yaml  # late, as all that only one form of file needs

            found = yaml.safe_load(text)
        else:
            raise ConfigurationError(f"{path} is neither .toml nor .yaml, so it is not known how to read it.")
    except ConfigurationError:
        raise
    except Exception as error:  # each parser has errors of its own
        raise ConfigurationError(f"{path} cannot be parsed: {error}") from None
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} must hold settings by their names, as a table.")
    return found


def _toml(text: str) -> dict[str, object]:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
