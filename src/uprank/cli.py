"""The command ``uprank``.

Each command is a function beside what it runs, in a module that imports nothing but typer until the
command is called; a new command is one line in :func:`create_app`.
"""

import gc
import os
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Annotated

import uprank
from uprank.errors import UprankError
from uprank.extras import require

if TYPE_CHECKING:
    import typer

__all__ = ["create_app", "main"]


def main() -> None:
    """Run the command line of this process; where it fails, exit with 1 and a message on stderr."""
    # Torch's threads spin while they wait, by default. Where other programs need the cores too, that made the demo's
    # reranking three times slower; where none do, it gains nothing. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character gets "?"
    try:
        create_app()(prog_name="uprank")
    except UprankError as error:
        sys.exit(f"uprank: {error}")
    finally:
        gc.freeze()  # the process ends here: spare it a last look at every object of every module


def create_app() -> "typer.Typer":
    """Make the application with all its commands.

    Raises:
        MissingDependencyError: If typer or rich is not installed.
    """
    require("The command uprank", "cli", "typer", "rich")
    import typer

    from uprank.demo.command import demo
    from uprank.server.command import serve

    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    def show_version(*, wanted: bool) -> None:
        if wanted:
            typer.echo(f"uprank {uprank.__version__}")
            raise typer.Exit

    @app.callback()
    def options(
        *,
        version: Annotated[
            bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=show_version)
        ] = False,
    ) -> None:
        """Reorder retrieved documents by how well they answer a query."""

    app.command()(demo)
    app.command()(serve)
    return app
