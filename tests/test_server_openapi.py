"""The OpenAPI document: valid, true of what the server does, and readable without anything from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from html.parser import HTMLParser

import httpx
import msgpack
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from free_scorer import FreeScorer
from serving import serving, settings_for
from uprank import Reranker
from uprank.server import create_app
from uprank.server.reference_page import reference_page
from uprank.server.routes import ROUTES
from uprank.server.samples import schema_of

PATHS = [path for route in ROUTES for path in route.paths]
KEY = "key-for-this-test"


def document_of(**more: object) -> dict:
    rerankers = {"free": Reranker(FreeScorer())}
    return create_app(settings_for(rerankers, **more), rerankers).openapi()


@pytest.fixture(scope="module")
def document() -> dict:
    return document_of()


@pytest.fixture
def keyed(monkeypatch) -> dict:
    monkeypatch.setenv("A_KEY", KEY)
    return {"keys": [{"env": "A_KEY"}]}


def operations(document):
    return {(path, method): one for path, all_ in document["paths"].items() for method, one in all_.items()}


def test_it_is_valid_openapi(document, keyed):
    definitions = pytest.importorskip("schemathesis.specs.openapi.definitions", reason="it holds the schema of OpenAPI")
    for one in (document, document_of(**keyed), document_of(unknown_fields="refuse")):
        problems = [
            f"{error.instance_path}: {error.message}" for error in definitions.OPENAPI_31_VALIDATOR.iter_errors(one)
        ]
        assert not problems, problems[0][:500]
        assert json.loads(json.dumps(one, allow_nan=False)) == one


def test_every_schema_is_one_and_every_reference_leads_somewhere(document):
    jsonschema_rs = pytest.importorskip("jsonschema_rs")
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    for reference in re.findall(r'"\$ref": "#/components/(\w+)/([^"]+)"', json.dumps(document)):
        assert reference[1] in document["components"][reference[0]]


def test_every_route_is_told_with_what_it_takes_and_answers(document):
    for path in PATHS:
        told = document["paths"][re.sub(r"\{(\w+):\w+\}", r"{\1}", path)]["post"]
        assert told["summary"]
        assert all(told["tags"]), f"a dialect on {path} does not say who speaks it"
        assert {"200", "400", "404", "413", "422", "429", "502", "503", "504"} <= set(told["responses"])
        assert {one["name"] for one in told.get("parameters", [])} == set(re.findall(r"\{(\w+)", path))
        for status, reply in told["responses"].items():
            if "$ref" in reply:
                reply = document["components"]["responses"][reply["$ref"].rpartition("/")[2]]
            for content in reply["content"].values():
                assert content["schema"], f"{path} does not say what {status} looks like"
                assert content["examples"], f"{path} does not show {status}"


def test_operation_ids_and_tags_are_unique_and_known(document):
    ids = [one["operationId"] for one in operations(document).values()]
    assert len(ids) == len(set(ids))
    tags = [tag["name"] for tag in document["tags"]]
    assert len(tags) == len(set(tags))
    assert {tag for one in operations(document).values() for tag in one.get("tags", [])} <= set(tags)


@pytest.mark.parametrize("body", {body for route in ROUTES for body in route.bodies}, ids=lambda body: body.__name__)
def test_examples_are_what_their_dialect_reads_and_its_schema_takes(body, document):
    jsonschema_rs = pytest.importorskip("jsonschema_rs")
    assert body.examples, "a dialect shows no example"
    schema = {**document["components"]["schemas"][body.__name__], "components": document["components"]}
    strict = document_of(unknown_fields="refuse")["components"]
    for example in body.examples:
        jsonschema_rs.validate(schema, example)
        jsonschema_rs.validate({**strict["schemas"][body.__name__], "components": strict}, example)


@pytest.mark.parametrize("body", {body for route in ROUTES for body in route.bodies}, ids=lambda body: body.__name__)
def test_every_field_that_need_not_be_given_may_be_null(body, document):
    jsonschema_rs = pytest.importorskip("jsonschema_rs")
    schema = {**document["components"]["schemas"][body.__name__], "components": document["components"]}
    example = body.examples[0]
    for name, field in body.model_fields.items():
        if not field.is_required():
            jsonschema_rs.validate(schema, {**example, name: None})


def test_keys_are_told_of_where_there_are_any_and_never_shown(document, keyed):
    assert "securitySchemes" not in document["components"]
    assert not any("401" in one["responses"] or "security" in one for one in operations(document).values())
    told = document_of(**keyed)
    assert {one["type"] for one in told["components"]["securitySchemes"].values()} == {"http", "apiKey"}
    assert all(
        "security" in one and "401" in one["responses"]
        for (_, method), one in operations(told).items()
        if method == "post"
    )
    assert KEY not in json.dumps(told)


def test_a_key_is_needed_where_the_document_says_so_and_only_there(keyed):
    with serving({"free": Reranker(FreeScorer())}, **keyed) as address, httpx.Client(base_url=address) as client:
        for (path, method), one in operations(client.get("/openapi.json").json()).items():
            url = path.replace("{", "").replace("}", "")
            assert (client.request(method, url).status_code == 401) == ("security" in one), path
            assert client.request(method, url, headers={"x-api-key": KEY}).status_code != 401


def test_the_limits_are_told_as_they_are_set():
    told = document_of(limits={"documents": 77, "query_chars": 1_234}, deadline=9)["info"]["description"]
    assert "77 documents" in told
    assert "1234 characters" in told
    assert "9 seconds" in told


def test_fields_of_no_dialect_are_refused_by_the_schema_where_the_server_refuses_them():
    for body in {body for route in ROUTES for body in route.bodies}:
        schema = document_of(unknown_fields="refuse")["components"]["schemas"][body.__name__]
        assert schema["additionalProperties"] is False
        assert set(body.unlisted) <= set(schema["properties"])


def test_there_are_no_docs_where_none_are_wanted():
    with serving({"free": Reranker(FreeScorer())}, docs=False) as address:
        assert [httpx.get(address + path).status_code for path in ("/docs", "/openapi.json", "/redoc")] == [404] * 3


class Outside(HTMLParser):
    """What a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found += [f"{tag} {value}" for name, value in attrs if name in ("src", "href") and "//" in (value or "")]
        self.found += [tag] if tag in ("script", "iframe", "link", "img") else []

    def handle_data(self, data):
        self.text.append(data)


def test_the_reference_page_needs_nothing_from_elsewhere_and_shows_every_path(keyed):
    with serving({"free": Reranker(FreeScorer())}, **keyed) as address:
        reply = httpx.get(f"{address}/docs")
        document = httpx.get(f"{address}/openapi.json").json()
    assert reply.status_code == 200
    page = Outside()
    page.feed(reply.text)
    assert page.found == []
    assert set(document["paths"]) <= set(page.text)
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert KEY not in reply.text


def test_the_reference_page_begins_with_the_common_format_and_shows_an_example_of_each(document):
    page = reference_page(document)
    paths = [re.findall("<code>(/.*?)</code>", section) for section in re.findall("<h2>POST (.*?)</h2>", page)]
    assert [one for together in paths for one in together] == [re.sub(r":\w+", "", path) for path in PATHS]
    sections = re.findall("<section>\n<h2>POST.*?</section>", page, re.DOTALL)
    assert re.findall("<h3>(.*?)</h3>", sections[0]) == ["RerankBody", "TeiBody", "VoyageBody", "Replies"]
    for section in sections:
        assert re.findall("<details open><summary>(Request|Reply)", section) == ["Request", "Reply"]
        body = re.findall("<h3>(.*?)</h3>", section)[0].removesuffix("Body")
        first = document["paths"][re.findall("<code>(/.*?)</code>", section)[0]]["post"]["requestBody"]["content"]
        assert next(iter(first["application/json"]["examples"])) == body


@pytest.mark.parametrize(
    ("values", "schema"),
    [
        ([1, 2], {"type": "integer"}),
        ([1, 0.5], {"type": "number"}),
        ([0.5, None], {"anyOf": [{"type": "number"}, {"type": "null"}]}),
        ([None], {}),
        ([[]], {"type": "array", "items": {}}),
        ([["a"], []], {"type": "array", "items": {"type": "string"}}),
        ([True, "a"], {"anyOf": [{"type": "boolean"}, {"type": "string"}]}),
        (
            [{"a": 1, "b": "x"}, {"a": 2}],
            {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["a"]},
        ),
    ],
)
def test_a_schema_is_read_off_values(values, schema):
    assert schema_of(values) == schema


def explore(examples: int, *, left_out: Collection[str] = ()) -> set[tuple[str, int]]:
    """Let schemathesis send what fits the document and what does not, and compare every reply with it.

    Args:
        examples: Of each kind, to each operation.
        left_out: Documented paths that are not asked.

    Returns:
        The statuses that came, with their paths.
    """
    schemathesis = pytest.importorskip("schemathesis", reason="the tests' environment may do without it")
    from schemathesis import checks
    from schemathesis.generation import GenerationMode

    schemathesis.serializer("application/msgpack")(lambda _, value: msgpack.packb(value, default=str))
    schemathesis.deserializer("application/msgpack")(lambda _, reply: msgpack.unpackb(reply.content))
    wanted = [
        checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]
    seen = set()
    with serving({"bm25": Reranker("bm25"), "free": Reranker(FreeScorer())}) as address:
        for found in schemathesis.openapi.from_url(f"{address}/openapi.json").get_all_operations():
            operation = found.ok()
            if operation.path in left_out:
                continue
            modes = [GenerationMode.POSITIVE]
            if operation.body:  # without, there is nothing to be wrong
                modes.append(GenerationMode.NEGATIVE)
            for mode in modes:

                @settings(
                    max_examples=examples,
                    derandomize=True,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=operation.as_strategy(mode))
                def send(case):
                    reply = case.call_and_validate(checks=wanted, timeout=20)
                    seen.add((case.operation.path, reply.status_code))

                send()
    return seen


def test_what_schemathesis_sends_is_answered_as_documented():
    seen = explore(3, left_out=[path for route in ROUTES for path in route.paths[1:]])
    assert {path for path, _ in seen} >= {re.sub(r":\w+", "", route.paths[0]) for route in ROUTES}
    assert {200, 422} <= {status for _, status in seen}


@pytest.mark.slow
def test_much_that_schemathesis_sends_is_answered_as_documented():
    seen = explore(60)
    assert {(re.sub(r":\w+", "", path), status) for path in PATHS for status in (200, 422)} <= seen


def test_other_methods_are_refused_with_those_that_there_are(document):
    with serving({"free": Reranker(FreeScorer())}) as address, httpx.Client(base_url=address) as client:
        for path, operations_ in document["paths"].items():
            reply = client.delete(path.replace("{", "").replace("}", ""))
            assert reply.status_code == 405, path
            allowed = {one.strip().lower() for one in reply.headers["allow"].split(",")}
            assert set(operations_) <= allowed <= {*operations_, "head", "options"}
