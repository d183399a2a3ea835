"""The real infinity-emb server in a process of its own, on loopback, with models from local folders.

>>> with serve(python, {"tiny": folder}, tmp_path, max_documents=8) as server:  # doctest: +SKIP
...     httpx.post(server.url + "/rerank", json={"query": "fox", "documents": ["red fox"], "model": "tiny"})

It runs in an environment of its own, see ``infinity-requirements.txt``: that of ``make infinity``, or the one whose
Python is named by the environment variable ``UPRANK_INFINITY_PYTHON``.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from conftest import save_bert, save_xlm_roberta

__all__ = ["HOW_TO_GET_IT", "InfinityServer", "find_python", "save_models", "serve"]

VARIABLE = "UPRANK_INFINITY_PYTHON"
HOW_TO_GET_IT = f"infinity-emb is not installed: run `make infinity`, or name a Python that has it in {VARIABLE}"
ENVIRONMENT = Path(__file__).parents[1] / ".venv-infinity"

START_SECONDS = 180
"""How long the server may take to start; torch alone takes a minute to import from a cold disk."""
LIFETIME_SECONDS = 900
"""How long it may live."""

# Its standard input is a pipe from the tests: when they end, however they do, the pipe ends, and with it the server.
BOOTSTRAP = f"""
import os, sys, threading
def stop_with_the_tests():
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=stop_with_the_tests, daemon=True).start()
end = threading.Timer({LIFETIME_SECONDS}, os._exit, (1,))
end.daemon = True
end.start()
sys.argv[0] = "infinity_emb"
from infinity_emb.cli import cli
cli()
"""

OPTIONS = ["v2", "--host", "127.0.0.1", "--engine", "torch", "--device", "cpu", "--dtype", "float32"]
# BetterTransformer is gone from current releases of optimum.
OPTIONS += ["--no-bettertransformer", "--no-model-warmup", "--no-trust-remote-code"]

PASSED_ON = {"PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP", "LANG"}


@dataclass(frozen=True)
class InfinityServer:
    """A server that answers.

    Args:
        url: Its base, without a slash at the end.
        log: The file with what it printed.
    """

    url: str
    log: Path


def find_python() -> Path | None:
    """The Python that has infinity-emb; ``None`` where there is none.

    One named by the environment variable is taken at its word: if it cannot start the server, that is an error.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    python = ENVIRONMENT / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return python if python.exists() and (ENVIRONMENT / "ready").exists() else None


def save_models(folder: Path) -> dict[str, Path]:
    """Save tiny random models, and return their folders by the names to serve them under.

    Two kinds of cross-encoder; one so sure of everything that in single precision each of its probabilities is 1; and
    a model that embeds texts and cannot rerank.
    """
    from transformers import BertForSequenceClassification, BertModel

    paths = {name: folder / name for name in ("bert", "xlm-roberta", "saturated", "embedder")}
    save_xlm_roberta(paths["xlm-roberta"])
    for name in ("bert", "saturated", "embedder"):
        save_bert(paths[name])
    saturated = BertForSequenceClassification.from_pretrained(paths["saturated"])
    saturated.classifier.bias.data += 40
    saturated.save_pretrained(paths["saturated"])
    BertModel.from_pretrained(paths["embedder"]).save_pretrained(paths["embedder"])
    for path in paths.values():
        _make_loadable(path)
    return paths


@contextmanager
def serve(
    python: Path,
    models: Mapping[str, Path],
    folder: Path,
    *,
    key: str = "",
    max_documents: int = 2048,
    queue_size: int = 32_000,
) -> Iterator[InfinityServer]:
    """Run a server until the ``with`` block ends.

    Args:
        python: A Python that has infinity-emb.
        models: Served names, and the folders of the models. A server of one model serves it under any name.
        folder: For its log and its files; empty.
        key: Asked of every caller; empty asks for none.
        max_documents: Most documents of one request.
        queue_size: How many documents may wait; while more do, it refuses requests with 429.

    Raises:
        RuntimeError: If it does not answer in time, with the end of its log.
    """
    log = folder / "server.log"
    settings = {
        "INFINITY_API_KEY": key,
        "INFINITY_MAX_CLIENT_BATCH_SIZE": str(max_documents),
        "INFINITY_QUEUE_SIZE": str(queue_size),
    }
    for attempts_left in (2, 1, 0):
        port = _free_port()
        process = _start(python, [*OPTIONS, "--port", str(port), *_named(models)], folder, log, settings)
        try:
            url = f"http://127.0.0.1:{port}"
            if _answers(process, url):
                yield InfinityServer(url, log)
                return
        finally:
            process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()
        # It binds its port only when the models are loaded; another process may have taken it meanwhile.
        if not attempts_left or "address already in use" not in _end_of(log):
            raise RuntimeError(f"infinity-emb did not start (status {process.returncode}):\n{_end_of(log)}")


def _make_loadable(folder: Path) -> None:
    """Let the server's transformers 4 load a tokenizer saved by transformers 5, which can still load it too."""
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(config))


def _named(models: Mapping[str, Path]) -> list[str]:
    return [part for name, path in models.items() for part in ("--model-id", str(path), "--served-model-name", name)]


def _start(
    python: Path, options: list[str], folder: Path, log: Path, settings: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name.upper() in PASSED_ON}
    environment |= settings
    environment |= {
        "HOME": str(folder),
        "INFINITY_HOME": str(folder),
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUTF8": "1",
    }
    with log.open("wb") as output:
        return subprocess.Popen(
            [python, "-c", BOOTSTRAP, *options],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
        )


def _answers(process: subprocess.Popen[bytes], url: str) -> bool:
    """Whether it is healthy within its time; false at once when it has ended."""
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, timeout=5) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if client.get(f"{url}/health").status_code == 200:
                    return process.poll() is None
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.2)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]
