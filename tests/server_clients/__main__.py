"""Make the calls that standard input lists as JSON, and write what came of each to standard output.

The modules with the clients are arguments: importing all of them takes as long as a hundred calls.
"""

from __future__ import annotations

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from importlib import import_module

from server_clients.calls import Call, Client, keep_to_this_machine

THREADS = 16
"""Clients that wait before they try again do so side by side."""


def main() -> None:
    keep_to_this_machine()
    logging.disable(logging.CRITICAL)
    clients: dict[str, Client] = {}
    for module in sys.argv[1:]:
        clients.update(import_module(f"server_clients.{module}").CLIENTS)

    def outcome(call: Call) -> dict[str, object]:
        try:
            return {"pairs": clients[call.client](call)}
        except Exception as error:  # each client has errors of its own: they are what is asked for
            kind = type(error)
            return {"error": f"{kind.__module__}.{kind.__qualname__}", "message": str(error)}

    calls = [Call(**{**one, "texts": tuple(one["texts"])}) for one in json.load(sys.stdin)]
    with redirect_stdout(sys.stderr), ThreadPoolExecutor(THREADS) as threads:  # some print of their errors
        outcomes = list(threads.map(outcome, calls))
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
