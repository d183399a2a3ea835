"""What the server is told by files: TOML and YAML alike, checked, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from uprank.errors import ConfigurationError
from uprank.server import ServerSettings

TOML = """
host = "0.0.0.0"
port = 9000
default_model = "good"
warm = true
max_queue = 64
deadline = 20
unknown_fields = "refuse"
cors_origins = ["https://example.org"]
drain_delay = 2.5
log_format = "json"

[limits]
documents = 200

[models]
plain = "bm25"

[models.good]
aliases = ["rerank-v3.5", "*"]
top_n = 20
cache = "scores.sqlite"
fallback = ["embedded", { model = "cohere:rerank-v3.5", api_key = { env = "CO_KEY" } }]

[models.good.cascade]
keep = [50]
models = ["bm25", { fusion = { models = ["embedded", "bm25"], weights = [2, 1] } }]

[[keys]]
name = "team"
env = "TEAM_KEY"
requests_per_minute = 600

[[keys]]
file = "keys.txt"
"""
YAML = """
host: 0.0.0.0
port: 9000
default_model: good
warm: true
max_queue: 64
deadline: 20
unknown_fields: refuse
cors_origins: [https://example.org]
drain_delay: 2.5
log_format: json
limits: {documents: 200}
models:
  plain: bm25
  good:
    aliases: [rerank-v3.5, "*"]
    top_n: 20
    cache: scores.sqlite
    fallback:
      - embedded
      - model: cohere:rerank-v3.5
        api_key: {env: CO_KEY}
    cascade:
      keep: [50]
      models:
        - bm25
        - fusion:
            models: [embedded, bm25]
            weights: [2, 1]
keys:
  - name: team
    env: TEAM_KEY
    requests_per_minute: 600
  - file: keys.txt
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "u.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as told:
        ServerSettings.from_file(path)
    assert str(path) in str(told.value)
    assert told.value.__suppress_context__ or told.value.__context__ is None, "its traceback would quote the file"
    return str(told.value)


def test_toml_and_yaml_give_the_same_settings(write):
    toml, *yamls = (ServerSettings.from_file(write(*one)) for one in ((TOML,), (YAML, "u.yaml"), (YAML, "u.yml")))
    assert [toml, toml] == yamls
    assert (toml.port, toml.keys[0].requests_per_minute, toml.limits.documents) == (9000, 600, 200)
    good = toml.models["good"]
    assert good.options == {"top_n": 20, "cache": "scores.sqlite"}
    assert good.cascade is not None
    assert good.cascade.models[1].fusion is not None
    assert good.cascade.models[1].fusion.options == {"weights": [2, 1]}
    assert good.fallback[1].options == {"api_key": {"env": "CO_KEY"}}


def test_what_is_said_besides_replaces_what_the_file_says(write):
    settings = ServerSettings.from_file(write(TOML), port=1, max_queue=2)
    assert (settings.port, settings.max_queue, settings.deadline) == (1, 2, 20)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "prot = 8000\nmodels.a = 'bm25'",
            "There is no setting prot; did you mean port? There are host, port, models, ",
        ),
        ("PRIVATE1 = 8000\nmodels.a = 'bm25'", "There is no setting of that name. There are host, "),
        ("documents = 8\nmodels.a = 'bm25'", "There is no setting documents; did you mean limits.documents? "),
        (
            "limits = {document = 3, boddy_bytes = 1}\nmodels.a = 'bm25'",
            "In limits: There is no setting document; did you mean documents? There is no setting boddy_bytes; did you "
            "mean body_bytes? There are body_bytes, documents, ",
        ),
        (
            "keys = [{name = 'k', key = 'PRIVATE'}]\nmodels.a = 'bm25'",
            "In keys.0: There is no setting key. There are env, file, name, requests_per_minute. The key itself stands "
            'elsewhere: env = "THE_NAME_OF_A_VARIABLE", or file = "PATH".',
        ),
        ("keys = {env = 'PRIVATE'}\nmodels.a = 'bm25'", "keys must be a list. In TOML each key begins with [[keys]]."),
        ("port = 'PRIVATE'\nmodels.a = 'bm25'", "port must be a whole number."),
        ("port = 70000\nmodels.a = 'bm25'", "port must be 65535 or less."),
        ("port = -1\nmodels.a = 'bm25'", "port must be 0 or more."),
        ("drain_seconds = 0\nmodels.a = 'bm25'", "drain_seconds must be more than 0."),
        ("deadline = inf\nmodels.a = 'bm25'", "deadline must be a finite number."),
        ("log_level = 'PRIVATE'\nmodels.a = 'bm25'", "log_level must be 'debug', "),
        ("host = '0.0.0.0'", "models is missing. It says what is served, e.g. models.embedded = "),
        ("[models]", "models must not be empty. It says what is served"),
        ("models.a = 3", "models.a must be a table."),
        ("models.a.top_n = 3", "models.a: give one of model, cascade and fusion"),
        ("models.a = {model = 'bm25', fusion = {models = ['bm25']}}", "models.a: give one of model, cascade and"),
        ("models.a.cascade.keep = [3]", "models.a.cascade.models is missing."),
        ("models.a = {model = 'bm25', fallback = [{}]}", "models.a.fallback.0: give one of model, cascade and fusion"),
        ("models.a = {model = 'bm25', fallback = 'PRIVATE'}", "models.a.fallback must be a list."),
        ("models.a = {model = 'bm25', warm = 'PRIVATE'}", "models.a.warm must be true or false."),
        ("models.a = {model = 'bm25', aliases = ['x', ' ']}", "models.a.aliases.1: it has 1 to 200 characters, "),
        ("models.'' = 'bm25'", 'models: the name "": it has 1 to 200 characters, '),
        ("models.a = {model = 'bm25', on_error = 'passthrough'}", 'models.a: on_error="passthrough" cannot be served'),
        ("default_model = 'PRIVATE'\nmodels.a = 'bm25'", "cannot be used. default_model must be one of a."),
        (
            "models.a = {model = 'bm25', aliases = ['*']}\nmodels.b = {model = 'bm25', aliases = ['*']}",
            'cannot be used. The alias "*" of b is an alias of a too.',
        ),
        (
            "models.a = {model = 'bm25', aliases = ['b']}\nmodels.b = 'bm25'",
            'cannot be used. The alias "b" of a is the name of another model.',
        ),
        (
            "cors_origins = ['https://PRIVATE.org/']\nmodels.a = 'bm25'",
            "cors_origins.0: an origin is a scheme, a host ",
        ),
        ("[[keys]]\nname = 'k'\n[models]\na = 'bm25'", "keys.0: give env or file"),
        ("port = \n# PRIVATE", "is not TOML: Invalid value (at line 1, column 8)"),
        ("a = 'PRIVATE'\na = 'PRIVATE'\n", "is not TOML: Cannot overwrite a value (at line 2"),
        ("a = ['PRIVATE'", "is not TOML: Unclosed array"),
    ],
)
def test_an_error_names_the_file_and_the_field_and_no_value(write, text, told):
    message = refusal(write(text))
    assert told in message
    assert "PRIVATE" not in message
    assert "Value error" not in message


def test_all_that_is_wrong_is_told_and_what_is_missing_last(write):
    """A table under a name that is not quite right is missing under the right one."""
    message = refusal(write("port = 'PRIVATE'\nprot = 1\nlimits.documents = 0\nmodel.a = 'bm25'"))
    told = [
        "no setting prot",
        "no setting model; did you mean models?",
        "port must be",
        "limits.documents must be 1 or",
    ]
    places = [message.index(one) for one in [*told, "models is missing"]]
    assert places == sorted(places)
    assert message.count("There are host, port") == 1
    assert "PRIVATE" not in message


def test_one_name_needs_no_list_around_it():
    settings = ServerSettings.of(
        {"models": {"a": {"model": "bm25", "aliases": "*"}}, "cors_origins": "https://example.org"}
    )
    assert settings.models["a"].aliases == ("*",)
    assert settings.cors_origins == ("https://example.org",)


@pytest.mark.parametrize(
    "options",
    [
        "api_key = 'PRIVATE'",
        "headers = {authorization = 'PRIVATE'}",
        "base_url = 'https://me:PRIVATE@example.org'",
        "proxies = ['https://example.org', 'https://me:PRIVATE@example.org']",
        "fallback = [{model = 'cohere:m', api_key = 'PRIVATE'}]",
        "more = [{deep = [{token = 'PRIVATE'}]}]",
    ],
)
@pytest.mark.parametrize("where", ["models.a = {{model = 'x:y', {}}}", "models.a.cascade.models = [{{model='x', {}}}]"])
def test_a_secret_in_the_file_is_refused_wherever_it_stands(write, options, where):
    message = refusal(write(where.format(options)))
    assert "must not stand here" in message
    assert "PRIVATE" not in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("port: 'PRIVATE\n", "is not YAML: see line "),
        ("key: *PRIVATE", "is not YAML: see line 1, column 6"),
        ("!!python/object/apply:os.system ['PRIVATE']", "holds a tag, where plain values are needed: see line 1"),
        ("models: !!map PRIVATE", "holds a tag, where plain values are needed: see line 1"),
        ("models:\n  a: bm25\n  a: PRIVATE", "has a name twice in one table: see line 2, column 3"),
        ("- PRIVATE", "must hold settings by their names"),
        ("models:\n  1: bm25", 'models: the name "1" must be a string.'),
    ],
)
def test_yaml_errors_show_nothing_of_the_file_either(write, text, told):
    message = refusal(write(text, "u.yaml"))
    assert told in message
    assert "PRIVATE" not in message


def test_files_that_cannot_be_read(write, tmp_path):
    assert "No such file" in refusal(tmp_path / "none.toml")
    assert "neither .toml nor .yaml" in refusal(write("", "u.json"))
    (tmp_path / "latin.toml").write_bytes(b"host = '\xe9'")
    assert "it is not UTF-8" in refusal(tmp_path / "latin.toml")
