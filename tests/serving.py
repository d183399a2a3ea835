"""A real server on loopback, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from uprank import Reranker
from uprank.server import ServerSettings, create_app


def settings_for(rerankers: Mapping[str, Reranker], **more: object) -> ServerSettings:
    """Settings that serve these, under their ids; each may be replaced by naming ``models`` among the rest."""
    models = {name: {"model": "bm25", "aliases": ["*"] if not number else []} for number, name in enumerate(rerankers)}
    return ServerSettings.of({"models": models, "port": 0, **more})


@contextmanager
def serving(rerankers: Mapping[str, Reranker], **settings: object) -> Iterator[str]:
    """Run a server with these rerankers; gives its address. The first answers for every unknown model.

    Args:
        rerankers: Ready ones, by id.
        settings: Others of :class:`~uprank.server.ServerSettings`.
    """
    with serving_app(create_app(settings_for(rerankers, **settings), rerankers)) as address:
        yield address


class _Prompt(uvicorn.Server):
    """Looks more often whether it should end."""

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.01)


@contextmanager
def serving_app(app: FastAPI) -> Iterator[str]:
    """Run a server with this application; gives its address."""
    server = _Prompt(uvicorn.Config(app, port=0, log_level="warning", access_log=False, lifespan="on"))
    thread = threading.Thread(target=server.run, name="server", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the server ended while it started"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the server did not end"
