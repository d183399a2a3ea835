"""The files in deploy/ fit each other, the command line, the settings and the server. No container is built here."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import httpx
import pytest
import typer
import yaml

from serving import serving
from table_scorer import TableScorer
from uprank import Reranker
from uprank.cli import create_app as create_command
from uprank.server import ServerSettings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "uprank.service").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
KUBERNETES = {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
for _pattern in (r"^#.*\n", r"\\\n\s*"):  # one instruction a line
    DOCKERFILE = re.sub(_pattern, "", DOCKERFILE, flags=re.MULTILINE)

POD = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
ANALYZE = shutil.which("systemd-analyze")
STATE = PurePosixPath("/var/lib/uprank")


SETTINGS = (DEPLOY / "uprank.toml").read_text(encoding="utf-8")
NEEDED = {"embedded": {"embedded"}, "cross-encoder": {"local", "openvino", "embedded"}, "cohere": {"cohere"}}
"""Of which extras each scheme needs one; the embedded model brings OpenVINO."""


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def unit(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


COMMANDS = {
    "Dockerfile": json.loads(instructions("CMD")[0]),
    "compose": COMPOSE["services"]["uprank"]["command"],
    "compose cuda": COMPOSE["services"]["uprank-cuda"]["command"],
    "kubernetes": CONTAINER["args"],
    "systemd": unit("ExecStart")[0].split()[1:],
}


@pytest.fixture
def settings(request, tmp_path):
    """What each place reads at /etc/uprank/uprank.toml."""
    if request.param == "uprank.toml":
        return ServerSettings.from_file(DEPLOY / "uprank.toml")
    place = tmp_path / "uprank.toml"
    place.write_text(KUBERNETES["ConfigMap"]["data"]["uprank.toml"], encoding="utf-8")
    return ServerSettings.from_file(place)


everywhere = pytest.mark.parametrize("settings", ["uprank.toml", "ConfigMap"], indirect=True)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_every_option_that_is_used_is_one_of_the_command(command):
    assert command[0] == "serve"
    serve = typer.main.get_command(create_command()).commands["serve"]
    known = {option for parameter in serve.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {one for one in command if one.startswith("-")} <= known
    assert command[command.index("--config") + 1] == "/etc/uprank/uprank.toml"


@everywhere
def test_the_settings_can_be_used(settings):
    assert settings.warm  # else a probe says ready before anything is loaded
    assert not settings.keys  # which the command line names
    for model in settings.models.values():
        assert STATE in PurePosixPath(model.options["cache"]).parents


@everywhere
def test_what_was_accepted_has_time_to_end(settings):
    assert settings.deadline <= settings.drain_seconds
    whole = settings.drain_delay + settings.drain_seconds
    if settings.drain_delay:
        assert POD["terminationGracePeriodSeconds"] > whole
    else:
        assert seconds(COMPOSE["services"]["uprank"]["stop_grace_period"]) > whole
        assert int(unit("TimeoutStopSec")[0]) > whole
    assert instructions("STOPSIGNAL") == unit("KillSignal") == ["SIGTERM"]


def test_ports_agree():
    port = ServerSettings.model_fields["port"].default
    assert instructions("EXPOSE") == [str(port)]
    assert f":{port}/" in instructions("HEALTHCHECK")[0]
    for service in COMPOSE["services"].values():
        assert service["ports"][0].split(":")[-1] == str(port)
        assert f":{port}/" in service["healthcheck"]["test"][-1]
    [declared] = CONTAINER["ports"]
    assert declared["containerPort"] == port
    annotations = KUBERNETES["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port)
    [served] = KUBERNETES["Service"]["spec"]["ports"]
    assert served["targetPort"] == declared["name"]


def test_containers_listen_to_others_and_a_machine_only_to_itself():
    for name, command in COMMANDS.items():
        if name == "systemd":
            assert "--host" not in command
        else:
            assert command[command.index("--host") + 1] == "0.0.0.0"  # noqa: S104 - of the container


def test_keys_are_read_where_they_are_put():
    def key_file(name: str) -> str:
        return COMMANDS[name][COMMANDS[name].index("--api-key-file") + 1]

    [secret] = COMPOSE["services"]["uprank"]["secrets"]
    assert secret in COMPOSE["secrets"]
    assert key_file("compose") == key_file("compose cuda") == f"/run/secrets/{secret}"
    assert COMPOSE["secrets"][secret]["file"].removeprefix("./") in (DEPLOY / ".gitignore").read_text().split()
    [mount] = [one for one in CONTAINER["volumeMounts"] if one["name"] == "key"]
    assert PurePosixPath(mount["mountPath"]) == PurePosixPath(key_file("kubernetes")).parent
    [name] = [credential.split(":")[0] for credential in unit("LoadCredential")]
    assert key_file("systemd") == f"%d/{name}"
    assert f"--from-literal={PurePosixPath(key_file('kubernetes')).name}=" in (DEPLOY / "kubernetes.yaml").read_text()


def test_all_that_is_written_lies_where_it_is_kept():
    environments = [instructions("ENV")[1], " ".join(unit("Environment"))]
    for environment in environments:
        found = dict(one.split("=", 1) for one in environment.split())
        for name in ("HOME", "HF_HOME", "UPRANK_CACHE"):
            assert STATE in (PurePosixPath(found[name]), *PurePosixPath(found[name]).parents)
    assert instructions("VOLUME") == [str(STATE)]
    assert PurePosixPath("/var/lib", unit("StateDirectory")[0]) == STATE
    for service in COMPOSE["services"].values():
        assert any(volume.split(":")[1] == str(STATE) for volume in service["volumes"])
        assert service["read_only"]
    assert str(STATE) in [mount["mountPath"] for mount in CONTAINER["volumeMounts"]]
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}


def test_nobody_is_root():
    [user] = instructions("USER")
    assert int(user) == POD["securityContext"]["runAsUser"] > 0
    assert f"--uid {user}" in DOCKERFILE
    # The user is set in the stage that both images are made from.
    at_user = DOCKERFILE.index(f"USER {user}")
    assert DOCKERFILE.index("AS runtime") < at_user < DOCKERFILE.index("FROM runtime AS cuda")


def test_the_images_are_made_of_what_there_is():
    stages: list[str] = []
    for line in instructions("FROM"):
        base, _, name = line.split()
        assert base in stages or base == "python:${PYTHON}-slim"
        stages.append(name)
    assert {*re.findall(r"--from=(\S+)", DOCKERFILE)} <= {*stages}
    for service in COMPOSE["services"].values():
        assert service["build"]["target"] in stages
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert service["image"] == f"uprank:{service['build']['target']}"
    assert CONTAINER["image"].removeprefix("uprank:") in stages
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in instructions("COPY"):
        if not line.startswith("--from"):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch(source, pattern) for pattern in let_in), source


def test_the_extras_exist():
    from uprank.server.files import parsed  # which reads TOML in any Python

    project = parsed(ROOT / "pyproject.toml")["project"]
    assert isinstance(project, dict)
    wanted = re.findall(r'"\.\[(.*?)\]"', DOCKERFILE) + re.findall(r'"uprank\[(.*?)\]"', UNIT)
    assert len(wanted) == 3
    offered = re.findall(r'^(?:# )?(?:model = |fallback = \[)"([a-z0-9-]+)', SETTINGS, re.MULTILINE)
    assert {*offered} == {*NEEDED}
    for extras in wanted:
        there = {*extras.split(",")}
        assert {"server", *there} <= {*project["optional-dependencies"]}
        for scheme in offered:  # also those that wait as comments
            assert there & NEEDED[scheme], scheme


def test_probes_and_health_checks_find_the_server(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nobody is; it is not for the server itself
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    health = json.loads(instructions("HEALTHCHECK")[0].partition("CMD ")[2])
    for service in COMPOSE["services"].values():
        assert service["healthcheck"]["test"] == ["CMD", *health]
    assert health[0] == "python"
    with serving({"table": Reranker(TableScorer("table", {}))}) as address:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = CONTAINER[probe]["httpGet"]
            assert asked["port"] == CONTAINER["ports"][0]["name"]
            assert httpx.get(address + asked["path"], trust_env=False).status_code == 200
        annotations = KUBERNETES["Deployment"]["spec"]["template"]["metadata"]["annotations"]
        assert httpx.get(address + annotations["prometheus.io/path"], trust_env=False).status_code == 200
        port = address.rpartition(":")[2]
        checked = [sys.executable, *(one.replace(":8000", f":{port}") for one in health[1:])]
        assert subprocess.run(checked, timeout=30).returncode == 0
    assert subprocess.run(checked, timeout=30, stderr=subprocess.DEVNULL).returncode != 0  # the server has ended


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path):
    program = unit("ExecStart")[0].split()[0]
    copy = tmp_path / "uprank.service"
    copy.write_text(UNIT.replace(f"ExecStart={program}", f"ExecStart={sys.executable}"), encoding="utf-8")
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    found = subprocess.run([str(ANALYZE), "verify", copy], capture_output=True, text=True, env=environment)
    # Other units of the machine are looked at too; what is wrong with those is not ours.
    assert "uprank.service" not in found.stderr, found.stderr
    judged = subprocess.run(
        [str(ANALYZE), "security", "--offline=true", "--threshold=25", copy], capture_output=True, text=True
    )
    assert judged.returncode == 0, judged.stdout[-500:]  # an exposure of at most 2.5 of 10
