"""``uprank serve`` as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from serve_command import process_as_before, served, toml
from uprank.cli import create_app, main
from uprank.errors import ConfigurationError
from uprank.server import ServerSettings, running
from uprank.server.served import ServedModels


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.delenv("UPRANK_API_KEY", raising=False)
    with process_as_before():
        yield


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(create_app(), ["serve", *arguments])


@pytest.fixture
def settings_of(monkeypatch):
    """What the server would be told; the server itself is not run."""

    def settings_of(*arguments: str) -> ServerSettings:
        found: list[ServerSettings] = []
        monkeypatch.setattr(running, "serve", found.append)
        result = invoked(*arguments)
        assert result.exit_code == 0, result.exception
        return found[0]

    return settings_of


def refusal(*arguments: str) -> str:
    error = invoked(*arguments).exception
    assert isinstance(error, ConfigurationError), error
    return str(error)


class TestModels:
    def found(self, settings: ServerSettings, *asked: str) -> list[str]:
        models = ServedModels(settings)
        return [models.find(one)[0] for one in asked]

    def test_an_only_model_answers_whatever_is_asked_for(self, settings_of):
        settings = settings_of("bm25")
        assert settings == ServerSettings.of({"models": {"bm25": {"model": "bm25", "aliases": ["*"]}}})
        assert self.found(settings, "bm25", "rerank-v3.5") == ["bm25", "bm25"]

    def test_several_are_asked_for_by_id_or_by_the_name_under_which_they_are_published(self, settings_of):
        settings = settings_of("bm25", "quick=bm25", "tei:BAAI/small", "big=jina:some/m")
        assert list(settings.models) == ["bm25", "quick", "tei:BAAI/small", "big"]
        asked = ["bm25", "quick", "tei:BAAI/small", "BAAI/small", "big", "some/m"]
        aliases = {alias: name for name, model in settings.models.items() for alias in model.aliases}
        assert [one if one in settings.models else aliases[one] for one in asked] == [
            "bm25", "quick", "tei:BAAI/small", "tei:BAAI/small", "big", "big",
        ]  # fmt: skip
        assert settings.models["big"].model == "jina:some/m"

    def test_a_published_name_of_two_models_stands_for_neither(self, settings_of):
        settings = settings_of("tei:m", "vllm:m", "other=vllm:n", "n=bm25")
        assert [model.aliases for model in settings.models.values()] == [(), (), (), ()]

    def test_an_equals_sign_after_the_colon_is_of_the_model(self, settings_of):
        settings = settings_of("cross-encoder:/a=b", "x=cross-encoder:/c=d")
        assert [model.model for model in settings.models.values()] == ["cross-encoder:/a=b", "cross-encoder:/c=d"]

    def test_two_of_one_id_are_refused(self):
        assert "Two models are called a" in refusal("a=bm25", "a=embedded")

    def test_none_at_all(self):
        told = refusal()
        assert '"uprank serve embedded"' in told
        assert "--config" in told


class TestOptions:
    ALL = (
        *("--host", "0.0.0.0", "--port", "1234", "--warm", "--max-queue", "5", "--deadline", "1.5"),  # noqa: S104 - not run
        *("--drain-delay", "2", "--drain-seconds", "3", "--log-level", "error", "--log-format", "json"),
        *("--api-key-env", "ONE", "--api-key-env", "TWO", "--api-key-file", "some/team.keys"),
    )
    MEANT = {  # noqa: RUF012 - a constant
        "host": "0.0.0.0",  # noqa: S104 - not run
        "port": 1234,
        "warm": True,
        "max_queue": 5,
        "deadline": 1.5,
        "drain_delay": 2,
        "drain_seconds": 3,
        "log_level": "error",
        "log_format": "json",
        "keys": [
            {"name": "ONE", "env": "ONE"},
            {"name": "TWO", "env": "TWO"},
            {"name": "team", "file": "some/team.keys"},
        ],
    }
    FILE = """
        host = "127.0.0.2"
        port = 4321
        warm = true
        max_queue = 9
        deadline = 9
        drain_delay = 9
        drain_seconds = 9
        log_level = "debug"
        default_model = "b"
        [[keys]]
        name = "files"
        env = "FILES"
        [models]
        b = "bm25"
    """

    def test_each_is_a_setting(self, settings_of):
        models = {"bm25": {"model": "bm25", "aliases": ["*"]}}
        assert settings_of("bm25", *self.ALL) == ServerSettings.of({"models": models, **self.MEANT})

    def test_each_replaces_the_files(self, settings_of, tmp_path):
        path = toml(tmp_path / "u.toml", self.FILE)
        assert settings_of("--config", path) == ServerSettings.from_file(path)
        assert settings_of("-c", path, *self.ALL) == ServerSettings.from_file(path, **self.MEANT)
        assert settings_of("-c", path, "--lazy").warm is False
        assert settings_of("-c", path, "b=embedded").models["b"].model == "embedded"

    def test_the_key_of_the_environment_is_for_those_who_give_no_other(self, settings_of, tmp_path, monkeypatch):
        path = toml(tmp_path / "u.toml", self.FILE)
        assert settings_of("bm25").keys == ()
        monkeypatch.setenv("UPRANK_API_KEY", "key-0123456789")
        (key,) = settings_of("bm25").keys
        assert (key.name, key.env) == ("UPRANK_API_KEY", "UPRANK_API_KEY")
        assert [key.name for key in settings_of("-c", path).keys] == ["files"]
        assert [key.name for key in settings_of("bm25", "--api-key-env", "ONE").keys] == ["ONE"]

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (("bm25", "--deadline", "0"), "deadline must be more than 0."),
            (("--deadline", "0"), "deadline must be more than 0."),
            (("bm25", "--log-level", "loud"), "log_level must be 'debug'"),
            (("--config", "none.toml"), "cannot be read from none.toml"),
            (("bm26",), "The model bm26 cannot be set up: No scheme or preset 'bm26'"),
            (("bm25", "--api-key-env", "NOT_SET_HERE"), "NOT_SET_HERE"),
        ],
    )
    def test_what_cannot_work(self, arguments, told):
        assert told in refusal(*arguments)

    def test_a_key_that_is_set_and_empty_opens_no_server(self, monkeypatch):
        monkeypatch.setenv("UPRANK_API_KEY", " ")
        assert "There is no key in the environment variable UPRANK_API_KEY" in refusal("bm25")

    def test_a_model_that_cannot_be_set_up_is_told_with_its_file(self, tmp_path):
        path = toml(tmp_path / "u.toml", "models.mine = { model = 'bm25', k2 = 1 }")
        assert refusal("-c", path).startswith(f"{path}: The model mine cannot be set up: ")

    @pytest.mark.parametrize("arguments", [("--port", "70000"), ("--max-queue", "0"), ("--none",)])
    def test_usage(self, arguments):
        assert invoked("bm25", *arguments).exit_code == 2


class TestProgram:
    def test_help_tells_all_options_and_imports_no_web_server(self):
        code = (
            "import sys; from uprank.cli import main\ntry: main()\nfinally: "
            "print(sorted({'fastapi', 'prometheus_client', 'uvicorn', 'yaml'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "serve", "--help"],
            env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"},
            capture_output=True,
            text=True,
            check=True,
        )
        for option in ("--config", "--warm", "--api-key-env", "--api-key-file", "--drain-delay", "MODEL"):
            assert option in done.stdout
        assert done.stdout.endswith("[]\n")

    def test_it_serves_what_file_and_options_say_and_ends_with_0(self, tmp_path):
        """The real command: its own models, a key, a log in JSON without a word of the request; ended by Ctrl-C."""
        config = tmp_path / "u.yaml"
        config.write_text(
            "port: 1\nwarm: true\nlog_format: json\nmodels:\n  first: bm25\n  second: {model: bm25, aliases: [s]}\n",
            encoding="utf-8",
        )
        with served("-c", str(config), UPRANK_API_KEY="key-0123456789") as server:
            with httpx.Client(base_url=server.address) as client:
                assert client.get("/health").status_code in (200, 503)
                body = {"query": "fox", "documents": ["dog", "fox", "cat"], "model": "s", "top_n": 1}
                assert client.post("/v1/rerank", json=body).status_code == 401
                reply = client.post("/v1/rerank", json=body, headers={"authorization": "Bearer key-0123456789"})
                assert (reply.json()["model"], reply.json()["results"][0]["index"]) == ("second", 1)
                assert "server" not in reply.headers
                assert client.get("/health/ready").json()["status"] == "ready", "bm25 is loaded by now"
            server.signal(signal.SIGINT)
            assert server.exit_code() == 0
        logged = [json.loads(line) for line in server.lines]
        listening = next(line["message"] for line in logged if "Listening" in line["message"])
        assert f"{server.address}, serving first, second; a key is needed" in listening
        assert not any(word in line for line in server.lines for word in ("fox", "dog", "key-0123456789"))

    def test_what_fails_is_one_line_on_stderr_and_1(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["uprank", "serve", "--config", "none.toml"])
        with pytest.raises(SystemExit, match=r"^uprank: The settings cannot be read from none\.toml: .*\.$"):
            main()
