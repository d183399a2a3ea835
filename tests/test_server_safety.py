"""What surrounds every route: headers, which pages may ask, and errors of any kind."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from refused_requests import DOCUMENT, QUERY, RAISES, WAYS, TroubledScorer, everything_logged, post, unseen
from serving import serving, serving_app, settings_for
from uprank import ConfigurationError, Reranker
from uprank.server import ServerSettings, create_app
from uprank.server.dialects.base import Body
from uprank.server.dialects.rerank import RerankBody
from uprank.server.dialects.sie import SieBody

BODY = {"query": QUERY, "documents": [DOCUMENT, f"{DOCUMENT} too"]}
PAGE = "https://app.example.org"
HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "frame-ancestors 'none'",
}


@pytest.fixture(scope="module")
def client():
    with (
        serving({"table": Reranker(TroubledScorer())}) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def shared():
    """A server that one other page may use."""
    with (
        serving({"table": Reranker(TroubledScorer())}, cors_origins=[PAGE]) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield client


@pytest.fixture
def log():
    with everything_logged() as log:
        yield log
    unseen(log)


def test_every_reply_has_the_headers_that_keep_browsers_from_harm(client):
    replies = [
        client.post("/v1/rerank", json=BODY),
        client.post("/v1/rerank", content=b"{"),
        client.post("/v1/rerank", json={**BODY, "query": RAISES}),
        client.get("/v1/rerank"),
        client.get("/nowhere"),
        client.get("/health"),
        client.get("/metrics"),
        client.get("/v1/models"),
        client.get("/openapi.json"),
    ]
    assert [reply.status_code for reply in replies] == [200, 400, 500, 405, 404, 200, 200, 200, 200]
    for reply in replies:
        assert {name: reply.headers.get_list(name) for name in HEADERS} == {
            name: [value] for name, value in HEADERS.items()
        }


def test_a_reply_keeps_a_header_of_its_own(client):
    page = client.get("/")
    assert page.status_code == 200
    (policy,) = page.headers.get_list("content-security-policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-frame-options"] == "DENY"


def test_paths_and_methods_that_are_not_there_are_told_in_the_form_of_the_other_errors(client):
    for reply, told in (
        (client.get(f"/{DOCUMENT}?q={QUERY}"), "There is nothing at this path."),
        (client.post("/v1/nowhere", json=BODY), "There is nothing at this path."),
        # No redirect: behind a proxy it would lead a client, with its key, to an address without TLS.
        (client.post("/v1/rerank/", json=BODY), "There is nothing at this path."),
        (client.get("/v1/rerank"), "This path does not take this method."),
        (client.put("/v1/rerank", json=BODY), "This path does not take this method."),
    ):
        found = reply.json()
        assert found["message"] == found["detail"] == found["error"]["message"] == told
        assert found["error"]["code"] == reply.status_code
        assert found["id"] == reply.headers["x-request-id"]
        unseen(reply)
    assert client.get("/v1/rerank").headers["allow"] == "POST"


def test_other_pages_are_told_nothing_by_default(client):
    preflight = {"origin": PAGE, "access-control-request-method": "POST"}
    for reply in (
        client.options("/v1/rerank", headers=preflight),
        client.get("/v1/models", headers={"origin": PAGE}),
    ):
        assert not [name for name in reply.headers if name.startswith("access-control")]
    assert client.options("/v1/rerank", headers=preflight).status_code == 405


def test_a_page_that_is_named_may_ask_and_read_the_answer(shared):
    preflight = shared.options(
        "/v1/rerank",
        headers={
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,x-client-name",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert "x-client-name" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    reply = shared.post("/v1/rerank", json=BODY, headers={"origin": PAGE, "sec-fetch-site": "cross-site"})
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert "x-request-id" in reply.headers["access-control-expose-headers"]


@pytest.mark.parametrize("body", [{**BODY, "query": RAISES}, {**BODY, "query": ""}])
def test_a_page_that_is_named_can_read_an_error_too(shared, body):
    reply = shared.post("/v1/rerank", json=body, headers={"origin": PAGE})
    assert reply.status_code in (500, 422)
    assert reply.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example.org", "sec-fetch-site": "cross-site"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example.org"},
        {"origin": "null"},
        {"origin": f"{PAGE}.evil.org"},
        {"origin": f"{PAGE}:444"},
    ],
)
def test_other_pages_cannot_make_it_work_either(client, shared, headers):
    """A simple request is sent without asking first; only its reply would be kept from the page."""
    for server in (client, shared):
        sent = json.dumps({**BODY, "query": RAISES}).encode()  # which would be an error of another kind
        reply = server.post("/v1/rerank", content=sent, headers={**headers, "content-type": "text/plain"})
        assert reply.status_code == 403
        assert reply.json()["error"]["type"] == "origin_not_allowed"
        assert "access-control-allow-origin" not in reply.headers


def test_its_own_page_and_whoever_is_no_browser_may_ask(client):
    own = str(client.base_url).rstrip("/")
    for headers in (
        {},
        {"origin": own, "sec-fetch-site": "same-origin"},
        {"origin": own},
        {"origin": "https://behind.a.proxy", "sec-fetch-site": "same-origin"},
        {"sec-fetch-mode": "cors"},
    ):
        assert client.post("/v1/rerank", json=BODY, headers=headers).status_code == 200


def test_a_page_whose_name_was_made_to_lead_here_may_not_ask(client):
    for name, status in (
        ("evil.example.org:8000", 403),
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]", 200),
        ("[::1", 403),
        ("[::1]:8000", 200),
    ):
        headers = {"host": name, "origin": f"http://{name}"}
        assert client.post("/v1/rerank", json=BODY, headers=headers).status_code == status, name


def test_a_server_for_others_is_reached_by_any_name():
    with serving({"table": Reranker(TroubledScorer())}, host="0.0.0.0") as address:  # noqa: S104 - see serving()
        headers = {"host": "rerank.example.org", "origin": "http://rerank.example.org"}
        assert httpx.post(f"{address}/v1/rerank", json=BODY, headers=headers).status_code == 200


def test_every_page_may_ask_where_the_settings_say_so():
    with serving({"table": Reranker(TroubledScorer())}, cors_origins=["*"]) as address:
        headers = {"origin": "https://any.example.org", "sec-fetch-site": "cross-site"}
        reply = httpx.post(f"{address}/v1/rerank", json=BODY, headers=headers)
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "origin", ["https://a.example/", "https://a.example/path", "a.example", "https://u:p@a.example", "", "https://*.a "]
)
def test_an_origin_that_no_browser_would_send_is_refused_in_the_settings(origin):
    with pytest.raises(ConfigurationError, match="cors_origins"):
        ServerSettings.of({"models": {"a": {"model": "bm25"}}, "cors_origins": [origin]})


@pytest.mark.parametrize(("dialect", "path"), [(RerankBody, "/v2/rerank"), (SieBody, "/v1/score/table")])
@pytest.mark.parametrize("method", ["reply", "question"])
def test_a_fault_of_a_dialect_is_told_in_its_form_and_without_words(client, log, monkeypatch, dialect, path, method):
    def faulty(self: Body, *more: object) -> object:
        raise ValueError(self, more)

    monkeypatch.setattr(dialect, method, faulty)
    (way,) = [way for way in WAYS if way.dialect is dialect and way.path == path]
    reply = post(client, way, way.body())
    assert reply.status_code == 500
    assert way.told(reply) == "The server failed; its log says more under this request's id."
    unseen(reply)
    line = next(line for line in log.lines if line.startswith("ERROR"))
    assert reply.headers["x-request-id"] in line
    assert path.replace("table", "{model:path}") + " failed: ValueError" in line
    assert "in faulty" in line


def test_a_fault_of_any_other_route_is_logged_without_its_words_and_answered(log):
    app = create_app(settings_for({"table": Reranker(TroubledScorer())}), {"table": Reranker(TroubledScorer())})

    async def fails(_: Request) -> StreamingResponse:
        raise RuntimeError(DOCUMENT)

    async def fails_late(_: Request) -> StreamingResponse:
        async def parts() -> Iterator[bytes]:
            yield b"begun"
            raise RuntimeError(DOCUMENT)

        return StreamingResponse(parts())

    app.add_route("/fails", fails)
    app.add_route("/fails-late", fails_late)
    with serving_app(app) as address:
        with everything_logged() as said:
            reply = httpx.get(f"{address}/fails")
            assert reply.status_code == 500
            assert reply.json()["error"]["type"] == "internal_error"
            assert reply.headers["x-frame-options"] == "DENY"
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.get(f"{address}/fails-late")
            assert httpx.get(f"{address}/health").status_code == 200
        unseen(reply, said)
        errors = [line for line in said.lines if line.startswith("ERROR uprank.server")]
        assert [line.splitlines()[0].partition(": ")[2].partition(": ")[2] for line in errors] == [
            "fails failed: RuntimeError",
            "fails_late failed: RuntimeError",
        ]
