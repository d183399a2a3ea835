"""Keys: where they come from, how they are sent, what they cost, and that nothing shows them."""

from __future__ import annotations

import hmac
import logging
import socket
import traceback

import httpx
import pytest

from refused_requests import FIRST, KEY, OTHER_KEY, TroubledScorer, everything_logged, post, unseen
from serving import serving, settings_for
from table_scorer import Clock
from uprank import ConfigurationError, Reranker
from uprank.server import KeySettings, ServerSettings, create_app
from uprank.server import keys as keys_module
from uprank.server.keys import Keys
from uprank.server.refusals import Refusal

SECOND_KEY, TIGHT_KEY, FROM_ENVIRONMENT = "planted-second-key", "planted-tight-key", "planted-key-from-environment"
JSON = {"accept": "application/json"}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_bytes(b"\xef\xbb\xbf" + f"{KEY}\r\n\r\n  {SECOND_KEY}  \n".encode())
    (folder / "tight").write_text(TIGHT_KEY)
    given = [
        {"name": "team", "file": folder / "keys"},
        {"name": "tight", "file": folder / "tight", "requests_per_minute": 1},
        {"env": "UPRANK_TEST_KEY"},
    ]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("UPRANK_TEST_KEY", FROM_ENVIRONMENT)
        with (
            serving({"table": Reranker(TroubledScorer())}, keys=given) as address,
            httpx.Client(base_url=address) as client,
        ):
            yield client


def ask(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post("/v1/rerank", json=FIRST[0].body(), headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"AUTHORIZATION": f"bearer  {KEY}"},
        {"Authorization": f"BEARER {SECOND_KEY}"},
        {"x-api-key": KEY},
        {"X-API-Key": SECOND_KEY},
        {"Api-Key": KEY},
        {"api-key": FROM_ENVIRONMENT},
        {"authorization": "Basic dXNlcjpwYXNz", "x-api-key": KEY},  # a proxy's own
        {"authorization": "Bearer", "x-api-key": KEY},
    ],
)
def test_a_key_is_taken_in_each_of_the_headers_that_clients_use(client, headers):
    assert ask(client, **headers).status_code == 200


@pytest.mark.parametrize("way", FIRST, ids=str)
def test_a_missing_and_a_wrong_key_in_every_dialect(client, way):
    with everything_logged() as log:
        for headers, told in (
            ({}, "This server needs a key: send it as 'Authorization: Bearer KEY'."),
            ({"authorization": f"Bearer {OTHER_KEY}"}, "The key is none of this server's."),
        ):
            reply = client.post(way.path, json=way.body(), headers={**JSON, **headers})
            assert reply.status_code == 401
            assert reply.headers["www-authenticate"] == "Bearer"
            assert way.told(reply) == told
            unseen(reply)
    assert "401" in str(log)
    unseen(log)


@pytest.mark.parametrize(
    "key",
    [KEY[:-1], KEY + "x", KEY.upper(), f"{KEY},{SECOND_KEY}", f"{KEY} {SECOND_KEY}", f'"{KEY}"', "Bearer", "None", "*"],
)
def test_what_is_only_like_a_key_is_none(client, key):
    assert ask(client, authorization=f"Bearer {key}").status_code == 401
    assert ask(client, **{"x-api-key": key}).status_code == 401


@pytest.mark.parametrize("header", [b"authorization: Bearer ", b"x-api-key: ", b"api-key: "])
@pytest.mark.parametrize("value", [b"\xff\xfe", KEY.encode() + b"\xe9", "schlüssel".encode(), b"\x80" * 5_000])
def test_bytes_that_are_no_ascii_are_a_wrong_key(client, header, value):
    reply = raw(client, header + value, b"content-length: 2", body=b"{}")
    assert reply.split(b"\r\n")[0].split()[1] == b"401"


def raw(client: httpx.Client, *headers: bytes, body: bytes = b"") -> bytes:
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
        connection.sendall(b"\r\n".join([b"POST /v1/rerank HTTP/1.1", b"host: here", *headers, b"", b""]) + body)
        return connection.recv(65_536)


def test_who_has_no_key_sends_no_body_and_is_told_nothing_about_it(client):
    # A server that reads the body says "100 Continue" first.
    assert raw(client, b"content-length: 9999999999", b"expect: 100-continue").startswith(b"HTTP/1.1 401 ")
    assert client.post("/v1/rerank", content=b"{").status_code == 401
    assert ask(client, **{"x-api-key": KEY}).status_code == 200


def test_beyond_its_rate_a_key_is_refused_in_every_dialect_and_other_keys_are_not(client):
    tight = {**JSON, "x-api-key": TIGHT_KEY}
    statuses = [ask(client, **tight).status_code for _ in range(2)]
    assert statuses == [200, 429]
    for way in FIRST:
        reply = client.post(way.path, json=way.body(), headers=tight)
        assert reply.status_code == 429
        assert way.told(reply) == "The key 'tight' may make 1 requests a minute."
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        unseen(reply)
    assert ask(client, **{"x-api-key": KEY}).status_code == 200


@pytest.mark.parametrize("per_minute", [1, 2, 7, 59, 60, 61, 1_000])
def test_who_waits_as_long_as_told_is_let_in_and_need_not_have_waited_a_second_less(monkeypatch, per_minute):
    monkeypatch.setenv("KEY", KEY)
    clock = Clock()
    clock.now = 65_520 + 10 / 37  # a second later than 65,535.27 is a little less than a second later
    keys = Keys([KeySettings(env="KEY", requests_per_minute=per_minute)], clock=clock)
    headers = {"x-api-key": KEY}
    for _ in range(per_minute):  # all at once
        keys.admit(headers)
    for _ in range(50):
        with pytest.raises(Refusal) as caught:
            keys.admit(headers)
        wait = caught.value.retry_after
        assert caught.value.status == 429
        assert wait is not None
        assert wait >= 1
        if wait > 1:
            clock.now += wait - 1.001
            with pytest.raises(Refusal):
                keys.admit(headers)
            clock.now += 1.001
        else:
            clock.now += 1
        for _ in range(max(1, per_minute // 60)):
            keys.admit(headers)
        while True:  # what the last second brought beyond that
            try:
                keys.admit(headers)
            except Refusal:
                break


def test_a_minute_lets_no_more_through_than_the_rate_after_the_first_burst(monkeypatch):
    monkeypatch.setenv("KEY", KEY)
    clock = Clock()
    keys = Keys([KeySettings(env="KEY", requests_per_minute=30)], clock=clock)
    admitted = [0, 0, 0]
    for second in range(180):
        for _ in range(5):
            try:
                keys.admit({"x-api-key": KEY})
                admitted[second // 60] += 1
            except Refusal:
                pass
        clock.now += 1
    assert 30 <= admitted[0] <= 60
    assert admitted[1:] == [30, 30]


def test_keys_of_one_file_share_its_rate_and_a_wrong_one_uses_none_of_it(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n{SECOND_KEY}\n {KEY}\n")
    keys = Keys([KeySettings(file=file, name="team", requests_per_minute=2)], clock=Clock())
    for _ in range(10):
        with pytest.raises(Refusal, match="none of this server's"):
            keys.admit({"x-api-key": OTHER_KEY})
    assert keys.admit({"x-api-key": KEY}) == "team"
    assert keys.check({"x-api-key": KEY}) == "team"
    assert keys.admit({"x-api-key": SECOND_KEY}) == "team"
    for key in (KEY, SECOND_KEY):
        with pytest.raises(Refusal, match="2 requests a minute"):
            keys.admit({"x-api-key": key})
        assert keys.check({"x-api-key": key}) == "team"  # which counts nothing, and is not counted


def test_all_keys_are_compared_whichever_fits(tmp_path, monkeypatch):
    """Or the time to an answer would tell how many keys come before."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return real(one, other)

    real = hmac.compare_digest
    monkeypatch.setattr(keys_module.hmac, "compare_digest", compare)
    file = tmp_path / "keys"
    file.write_text("\n".join([KEY, SECOND_KEY, TIGHT_KEY]))
    keys = Keys([KeySettings(file=file)])
    for key in (KEY, TIGHT_KEY, OTHER_KEY):
        compared.clear()
        try:
            keys.admit({"x-api-key": key})
        except Refusal:
            assert key == OTHER_KEY
        assert len(set(compared)) == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "There is no key in the file"),
        (b" \n\r\n\t\n", "There is no key in the file"),
        (b"\xef\xbb\xbf", "There is no key in the file"),
        (b"planted-\xff", "it is not UTF-8"),
        ("planted-schlüssel".encode(), "holds characters that no key has"),
        (b"planted\x00key", "holds characters that no key has"),
        (None, "No such file"),
    ],
)
def test_keys_that_cannot_be_had_end_the_start_and_never_open_the_server(tmp_path, content, told):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    settings = settings_for({"table": Reranker(TroubledScorer())}, keys=[{"file": file}])
    with pytest.raises(ConfigurationError, match=told) as caught:
        create_app(settings)
    assert caught.value.__traceback__ is not None
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)  # less this test's own variables
    unseen("".join(traceback.TracebackException.from_exception(error, capture_locals=True).format()))


@pytest.mark.parametrize("value", [None, "", "  "])
def test_an_environment_variable_without_a_key_ends_the_start(monkeypatch, value):
    monkeypatch.delenv("KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("KEY", value)
    with pytest.raises(ConfigurationError, match="There is no key in the environment variable KEY"):
        Keys([KeySettings(env="KEY")])


def test_one_key_under_two_names_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text(f"{SECOND_KEY}\n{KEY}")
    monkeypatch.setenv("KEY", KEY)
    with pytest.raises(ConfigurationError, match=r"One key stands in the environment variable KEY and in the file"):
        Keys([KeySettings(env="KEY"), KeySettings(file=file)])


def test_neither_settings_nor_keys_nor_the_application_show_a_key(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text(KEY)
    monkeypatch.setenv("KEY", SECOND_KEY)
    settings = settings_for({"table": Reranker(TroubledScorer())}, keys=[{"file": file}, {"env": "KEY"}])
    keys = Keys(settings.keys)
    app = create_app(settings)
    unseen(settings, repr(settings), settings.model_dump_json(), repr(vars(keys)), repr(vars(app.state)), repr(app))


def test_a_key_in_the_wrong_place_of_the_settings_is_not_shown():
    models = {"a": {"model": "jina:m", "api_key": KEY}}
    for make in (ServerSettings, lambda **given: ServerSettings.of(given)):
        for given in (
            {"models": models},
            {"models": {"a": {"model": "bm25"}}, "keys": [KEY]},
            {"models": {"a": {"model": "bm25"}}, "keys": [{"env": "A", "key": KEY}]},
        ):
            with pytest.raises(ValueError, match=r"models|keys") as caught:
                make(**given)
            unseen(caught.value)


@pytest.mark.parametrize(
    ("host", "warns"),
    [
        ("127.0.0.1", False),
        ("127.3.2.1", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),  # noqa: S104 - nothing listens
        ("::", True),
        ("192.168.1.5", True),
        ("rerank.example.org", True),
        ("", True),
    ],
)
def test_a_server_that_others_can_reach_without_a_key_says_so(caplog, monkeypatch, host, warns):
    monkeypatch.setenv("KEY", KEY)
    reranker = {"table": Reranker(TroubledScorer())}
    with caplog.at_level(logging.WARNING, "uprank.server"):
        create_app(settings_for(reranker, host=host, keys=[{"env": "KEY"}]), reranker)
        assert not caplog.records
        create_app(settings_for(reranker, host=host), reranker)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warns


def test_models_are_listed_for_who_has_a_key_and_probes_answer_everybody(client):
    assert client.get("/v1/models").status_code == 401
    assert client.get("/v1/models", headers={"x-api-key": KEY}).status_code == 200
    assert client.get("/health").status_code == 200


def test_without_keys_whatever_is_sent_as_one_is_ignored():
    with (
        serving({"table": Reranker(TroubledScorer())}) as address,
        httpx.Client(base_url=address, headers={"authorization": "Bearer none"}) as client,
    ):
        assert post(client, FIRST[0], FIRST[0].body()).status_code == 200
