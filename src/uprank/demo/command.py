"""``uprank demo``: its options."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    *,
    query: Annotated[
        list[str] | None,
        typer.Option("--query", "-q", help="A question of yours; may be given several times.", show_default="three"),
    ] = None,
    top_n: Annotated[int, typer.Option(min=1, help="How many passages to show.")] = 5,
    candidates: Annotated[int, typer.Option(min=1, help="How many passages BM25 finds for the model to rerank.")] = 40,
    model: Annotated[str, typer.Option(help="What reranks: a preset, or scheme:model.")] = "embedded",
) -> None:
    """Rerank the documentation of Python's standard library, before and after side by side.

    BM25 finds candidates among the docstrings of this very Python.
    The model reranks them, through LangChain and through LlamaIndex.
    Exits with 1 if the two frameworks disagree.
    """
    from uprank.demo.show import run_demo

    if not run_demo(query or None, top_n=top_n, candidates=candidates, model=model):
        raise typer.Exit(code=1)
