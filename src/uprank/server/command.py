"""``uprank serve``: its options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["serve"]

_KEY = "UPRANK_API_KEY"


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="What reranks: a preset, or scheme:model. With id=scheme:model, clients ask for it by that id.",
            show_default=False,
        ),
    ] = None,
    *,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="A TOML or YAML file of settings. What is given here replaces its own."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="0 takes a free one.", show_default="8000")
    ] = None,
    warm: Annotated[
        bool | None, typer.Option("--warm/--lazy", help="Load the models at the start, or each at its first request.")
    ] = None,
    api_key_env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An environment variable that holds a key. May be given several times."),
    ] = None,
    api_key_file: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="A file that holds keys, one a line. May be given several times."),
    ] = None,
    max_queue: Annotated[
        int | None,
        typer.Option(min=1, help="How many requests may be under way; more are answered 429.", show_default="512"),
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds until a request is answered 504.", show_default="60")
    ] = None,
    drain_delay: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds at the end while it says it is not ready but answers.", show_default="0"),
    ] = None,
    drain_seconds: Annotated[
        float | None,
        typer.Option(help="Seconds that accepted requests may take to end after that.", show_default="60"),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning, error or critical.", show_default="info")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.", show_default="text")] = None,
) -> None:
    """Serve rerankers to the clients of Cohere, Jina, Voyage, TEI, vLLM and others.

    E.g. "uprank serve embedded", and then give a client the URL http://127.0.0.1:8000.
    A model that is the only one answers whatever model clients ask for.
    Clients need a key if there are any: from the options, the file, or else the variable UPRANK_API_KEY.
    SIGTERM and Ctrl-C end it, once what was accepted is answered.
    """
    from uprank.errors import ConfigurationError
    from uprank.server import KeySettings, ServerSettings
    from uprank.server import serve as run

    keys = [{"name": name, "env": name} for name in api_key_env or ()]
    keys += [{"name": path.stem, "file": str(path)} for path in api_key_file or ()]
    options = {
        "host": host,
        "port": port,
        "warm": warm,
        "max_queue": max_queue,
        "deadline": deadline,
        "drain_delay": drain_delay,
        "drain_seconds": drain_seconds,
        "log_level": log_level,
        "log_format": log_format,
        "models": _described(models) if models else None,
        "keys": keys or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if config is None and not models:
        ServerSettings.of({**given, "models": {"embedded": "embedded"}})  # whatever else is wrong is told first
        raise ConfigurationError(
            'There is no model to serve. Name one, e.g. "uprank serve embedded", or give settings: '
            '"uprank serve --config uprank.toml".'
        )
    settings = ServerSettings.of(given) if config is None else ServerSettings.from_file(config, **given)
    if not settings.keys and _KEY in os.environ:  # also an empty one, which is an error: never an open server
        settings = settings.model_copy(update={"keys": (KeySettings(name=_KEY, env=_KEY),)})
    try:
        run(settings)
    except ConfigurationError as error:
        if config is None:
            raise
        raise ConfigurationError(f"{config}: {error}") from error


def _described(models: list[str]) -> dict[str, object]:
    """Models as a file would describe them."""
    from uprank.errors import ConfigurationError

    found: dict[str, str] = {}
    for given in models:
        name, equals, model = given.partition("=")
        if not equals or ":" in name:  # then it is a part of the model's name
            name = model = given
        if name in found:
            raise ConfigurationError(f"Two models are called {name}: write id=model, with different ids.")
        found[name] = model
    # Clients may know a model by the name under which it is published, and an only one by any.
    published = [model.partition(":")[2] for model in found.values()]
    aliases = [[name] if name and name not in found and published.count(name) == 1 else [] for name in published]
    if len(found) == 1:
        aliases = [["*"]]
    return {name: {"model": model, "aliases": also} for (name, model), also in zip(found.items(), aliases, strict=True)}
