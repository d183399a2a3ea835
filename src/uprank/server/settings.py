"""What a server is told: its models, its limits and its keys, as a TOML or YAML file says them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from uprank.errors import ConfigurationError
from uprank.secrets import Masked, Secret, as_secret, masked, secrets_among
from uprank.server.files import parsed
from uprank.server.setting_mistakes import mistakes_in_settings

__all__ = [
    "CombinationSettings",
    "KeySettings",
    "Limits",
    "MemberSettings",
    "ModelSettings",
    "SecretSource",
    "ServerSettings",
    "is_secret_source",
]

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _origin(given: str) -> str:
    """As browsers send it: nothing else would ever be equal to it."""
    # Extensions and desktop applications have schemes of their own.
    if not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/?#\s@A-Z]+", given):
        raise ValueError(
            "an origin is a scheme, a host and perhaps a port, in small letters and with nothing after them, not even "
            'a "/", e.g. "https://example.org"; or "*" for all'
        )
    return given


def _name(given: str) -> str:
    if not re.fullmatch(r"\S(.*\S)?", given) or len(given) > 200:
        raise ValueError("it has 1 to 200 characters, without a line break and without a space at either end")
    return given


def _as_list(given: object) -> object:
    """One of what may be several needs no list around it."""
    return [given] if isinstance(given, str) else given


Origin = Annotated[str, AfterValidator(_origin)]
Name = Annotated[str, AfterValidator(_name)]


class _Settings(BaseModel):
    # What is wrong with a setting is told without its value, which may be a secret in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), hide_input_in_errors=True)


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

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"the environment variable {self.env}" if self.file is None else f"the file {self.file}"

    def read(self) -> Secret:
        """Return the secret.

        Raises:
            ConfigurationError: If there is none.
        """
        secret = as_secret(self._text(), f"The key in {self.place}")
        if secret is None:
            raise ConfigurationError(f"There is no key in {self.place}.")
        return secret

    def _text(self) -> str | None:
        if self.file is None:
            return os.environ.get(self.env or "")
        try:
            return self.file.read_text(encoding="utf-8-sig")  # some editors put a mark before the first character
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigurationError(f"A key cannot be read from {self.place}: {why}.") from None


class KeySettings(SecretSource):
    """A key by which a client may use the server.

    Args:
        name: Shown in the log and in metrics in the key's place.
        requests_per_minute: How many requests it may make; ``None`` for any number. So many may come at once, after
            which they are let through evenly.
        env: As for :class:`SecretSource`.
        file: Likewise; with several lines each is a key of that name, so that one can replace another. They share
            the rate.
    """

    name: Name = "key"
    requests_per_minute: Positive | None = None

    def read_all(self) -> tuple[Secret, ...]:
        """Return the key, or all of them; each once.

        Raises:
            ConfigurationError: If there is none, or one cannot be sent in a header.
        """
        lines = dict.fromkeys(Masked(line.strip()) for line in (self._text() or "").splitlines())
        found = tuple(key for line in lines if (key := as_secret(line, f"A key in {self.place}")) is not None)
        if not found:  # never a server that is open because a file is empty
            raise ConfigurationError(f"There is no key in {self.place}.")
        return found


class Limits(_Settings):
    """What one request may hold; more is refused before anything is scored.

    Args:
        body_bytes: 413 above it.
        documents: 422 above it, as for the rest.
        document_chars: Of each document.
        query_chars: Of the query, and of an instruction.
        batch_tokens: Of all documents together, with the query and the instruction counted for each, by an estimate
            that is seldom too low; ``None`` for no limit.
    """

    body_bytes: Positive = 8 * 1024 * 1024
    documents: Positive = 1_024
    document_chars: Positive = 200_000
    query_chars: Positive = 20_000
    batch_tokens: Positive | None = None


class _Open(BaseModel):
    """Settings among which the arguments of something else stand."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=(), hide_input_in_errors=True)

    @property
    def options(self) -> dict[str, object]:
        """Those arguments, secrets being named by where they are."""
        return dict(self.model_extra or {})

    def __repr_args__(self) -> Iterable[tuple[str | None, object]]:
        return masked({name or "": value for name, value in super().__repr_args__()}).items()

    @model_validator(mode="after")
    def _without_secrets(self) -> _Open:
        for name in _secrets_in({**self.options, "model": getattr(self, "model", None)}):
            raise ValueError(
                f'{name} must not stand here: put it into the environment, and here {{ env = "ITS_NAME" }}'
            )
        return self


class MemberSettings(_Open):
    """A model that is a part of another: of its fallback, of a cascade, of a fusion.

    What is not named here is an argument of the model, e.g. ``base_url``. Where a model needs none, its name may stand
    for all of this.

    Args:
        model: As for :class:`~uprank.Reranker`; or one of the next two.
        cascade: The arguments of :class:`~uprank.Cascade`.
        fusion: The arguments of :class:`~uprank.Fusion`.
        fallback: Models that are asked in this order where this one fails.
    """

    model: str | None = None
    cascade: CombinationSettings | None = None
    fusion: CombinationSettings | None = None
    fallback: tuple[_Member, ...] = ()

    @model_validator(mode="after")
    def _one_of(self) -> MemberSettings:
        if [self.model, self.cascade, self.fusion].count(None) != 2:
            raise ValueError("give one of model, cascade and fusion")
        return self


class CombinationSettings(_Open):
    """What a cascade or a fusion is made of. What is not named here is another of its arguments.

    Args:
        models: Its members, in their order.
    """

    models: tuple[_Member, ...]


def _as_table(given: object) -> object:
    return {"model": given} if isinstance(given, str) else given


_Member = Annotated[MemberSettings, BeforeValidator(_as_table)]


class ModelSettings(MemberSettings):
    """One model that is served.

    What is not named here is an argument of :class:`~uprank.Reranker`, or of the model. ``cache`` is ``true`` (in
    memory), the path of a file, which several models may share, or a table of the arguments of
    :class:`~uprank.DiskCache` (with ``path``) or of :class:`~uprank.MemoryCache`; ``calibrator`` is the path of what
    :meth:`~uprank.Calibrator.save` wrote. What only Python can say has no place here: ``hooks``, ``count_tokens``, and
    other functions.

    Args:
        aliases: Other names that clients send, or one; ``"*"`` stands for every name that is no other model's.
        warm: Whether to load it before the server is ready; by default as the server's ``warm`` says.
        model: As for :class:`MemberSettings`.
        cascade: Likewise.
        fusion: Likewise.
        fallback: Likewise.
    """

    aliases: Annotated[tuple[Name, ...], BeforeValidator(_as_list)] = ()
    warm: bool | None = None

    @model_validator(mode="after")
    def _served(self) -> ModelSettings:
        if self.options.get("on_error", "raise") != "raise":
            raise ValueError(
                'on_error="passthrough" cannot be served: no wire format can say that nothing was scored; use fallback'
            )
        return self


class ServerSettings(_Settings):
    """Everything that ``uprank serve`` is told.

    Args:
        host: The address to listen on; by default this machine alone can reach it.
        port: 0 takes a free one.
        models: By the id under which clients ask for them; where a model needs no options, its name is enough.
        default_model: Which one answers clients that name none; by default the first.
        warm: Whether to load all models at the start, the server being ready only then; else each is loaded at its
            first request.
        limits: Of one request.
        keys: Who may use the server; with none, everybody.
        max_queue: How many requests may be under way, the waiting ones included; more are answered 429.
        deadline: Seconds until a request is given up and answered 504, or 408 if its body was not there.
        unknown_fields: Whether a field that a dialect does not have is ignored, or refused with 422.
        cors_origins: The web pages that may call it from a browser, e.g. ``["https://example.org"]``; none by default.
        metrics: Whether ``/metrics`` is there.
        docs: Whether ``/docs`` and ``/openapi.json`` are.
        page: Whether ``/`` shows the page to try models on.
        drain_delay: Seconds between the signal to end and the moment when no connection is accepted any more;
            ``/health/ready`` says 503 meanwhile, so that a load balancer looks elsewhere.
        drain_seconds: How long accepted requests may take to end after that, at least ``deadline`` if all of them
            are to be answered; the rest is answered 503.
        log_level: From which on the server logs.
        log_format: ``"text"``, or ``"json"`` for one object a line.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8_000
    models: Annotated[dict[Name, Annotated[ModelSettings, BeforeValidator(_as_table)]], Field(min_length=1)]
    default_model: str | None = None
    warm: bool = False
    limits: Limits = Limits()
    keys: tuple[KeySettings, ...] = ()
    max_queue: Positive = 512
    deadline: Seconds = 60.0
    unknown_fields: Literal["ignore", "refuse"] = "ignore"
    cors_origins: Annotated[tuple[Origin, ...], BeforeValidator(_as_list)] = ()
    metrics: bool = True
    docs: bool = True
    page: bool = True
    drain_delay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    drain_seconds: Seconds = 60.0
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    log_format: Literal["text", "json"] = "text"

    @model_validator(mode="after")
    def _names(self) -> ServerSettings:
        if self.default_model is not None and self.default_model not in self.models:
            raise ValueError(f"default_model must be one of {', '.join(self.models)}")
        owners: dict[str, str] = {name: name for name in self.models}
        for name, model in self.models.items():
            for alias in model.aliases:
                owner = owners.setdefault(alias, name)
                if owner != name:
                    whose = "the name of another model" if alias == owner else f"an alias of {owner} too"
                    raise ValueError(f'The alias "{alias}" of {name} is {whose}')
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
            tables: dict[str, type[BaseModel]] = {"": cls, "limits": Limits, "keys": KeySettings}
            raise ConfigurationError(f"{source} cannot be used. {mistakes_in_settings(error, tables)}") from None

    @classmethod
    def from_file(cls, path: str | Path, **changes: object) -> ServerSettings:
        """Read settings from a TOML or YAML file.

        Args:
            path: Its suffix tells which: ``.toml``, ``.yaml`` or ``.yml``.
            changes: Settings that replace the file's.

        Raises:
            ConfigurationError: If the file cannot be read or its settings cannot be used.
        """
        return cls.of({**parsed(Path(path)), **changes}, source=str(path))


def is_secret_source(value: object) -> bool:
    """Whether a value says where a secret is: ``{ env = "NAME" }`` or ``{ file = "path" }``."""
    return isinstance(value, Mapping) and len(value) == 1 and set(value) <= {"env", "file"}


def _secrets_in(options: Mapping[str, object]) -> Iterator[str]:
    """Name the options that hold a secret themselves, also within tables and lists."""
    for name, value in options.items():
        if is_secret_source(value):
            continue
        if isinstance(value, Mapping):
            yield from _secrets_in(value)
        elif any(secrets_among({name: value})):  # by its name, or an address with a password
            yield name
        elif isinstance(value, (list, tuple)):
            for one in value:
                yield from _secrets_in({name: one})
