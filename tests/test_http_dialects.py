"""Request bodies and addresses: what is sent where, for every service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import httpx
import pytest

from uprank import Reranker
from uprank.errors import ConfigurationError
from uprank.scorers import HTTPScorer
from uprank.scorers.http.addresses import join, origin, with_model
from uprank.scorers.http.dialects import DIALECTS, request_body
from uprank.scorers.http.providers import PROVIDERS

Q, TEXTS = "who?", ["one", "two"]
OBJECTS = [{"text": "one"}, {"text": "two"}]
PLAIN = {"query": Q, "documents": TEXTS}
KEPT = {"return_documents": False}

# What each service gets for a query and two texts, from its documentation; "m" is the model.
BODIES: dict[str, dict[str, object]] = {
    "cohere": {"model": "m", **PLAIN},
    "jina": {"model": "m", **PLAIN, **KEPT},
    "voyage": {"model": "m", **PLAIN, **KEPT, "truncation": True},
    "mixedbread": {"model": "m", "query": Q, "input": TEXTS, "return_input": False},
    "nvidia": {"model": "m", "query": {"text": Q}, "passages": OBJECTS, "truncate": "END"},
    "pinecone": {"model": "m", "query": Q, "documents": OBJECTS, **KEPT},
    "together": {"model": "m", **PLAIN, **KEPT},
    "fireworks": {"model": "m", **PLAIN, **KEPT},
    "openrouter": {"model": "m", **PLAIN},
    "vllm": {"model": "m", **PLAIN},
    "vllm-score": {"model": "m", "data_1": Q, "data_2": TEXTS},
    "tei": {"query": Q, "texts": TEXTS, "truncate": True, "raw_scores": True, "return_text": False},
    "llama-cpp": {"model": "m", **PLAIN},
    "infinity": {"model": "m", **PLAIN, **KEPT, "raw_scores": True},
    "xinference": {"model": "m", **PLAIN, **KEPT},
    "localai": {"model": "m", **PLAIN},
    "sie": {"query": {"text": Q}, "items": [{"id": "0", "text": "one"}, {"id": "1", "text": "two"}]},
    "http": {"model": "m", **PLAIN},
}


class Recorder:
    """A transport that answers every rerank request, and keeps what it was sent."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(404)
        self.requests.append(request)
        scores = [{"index": 0, "score": 0.5}, {"index": 1, "score": 0.25}]
        if "items" in json.loads(request.content):
            scores = [{"item_id": "1", "score": 0.25}, {"item_id": "0", "score": 0.5}]
        return httpx.Response(200, json={"results": scores})

    @property
    def body(self) -> object:
        return json.loads(self.requests[-1].content)

    @property
    def url(self) -> str:
        return str(self.requests[-1].url)

    def scorer(self, scheme: str, model: str = "m", **options: object) -> HTTPScorer:
        if scheme == "http":
            options.setdefault("base_url", "http://127.0.0.1:9/rerank")
        transport = httpx.MockTransport(self)
        return HTTPScorer(model, provider=scheme, transport=transport, api_key="k", **options)  # type: ignore[arg-type]  # by name


def sent_body(scheme: str, model: str = "m", texts: Sequence[str] = TEXTS, **options: object) -> object:
    recorder = Recorder()
    instruction = options.pop("instruction", None)
    recorder.scorer(scheme, model, **options).score(Q, texts, instruction=instruction)  # type: ignore[arg-type]  # a string
    return recorder.body


# Bodies


@pytest.mark.parametrize("scheme", PROVIDERS)
def test_a_body_holds_what_the_service_documents_and_nothing_else(scheme: str) -> None:
    assert sent_body(scheme) == BODIES[scheme]


def test_every_provider_has_a_body_here() -> None:
    assert set(BODIES) == set(PROVIDERS)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_server_of_any_dialect_can_be_asked_by_the_scheme_http(dialect: str) -> None:
    scheme = {"nim": "nvidia", "score": "vllm-score"}.get(dialect, dialect)
    assert sent_body("http", dialect=dialect) == BODIES[scheme]


@pytest.mark.parametrize("scheme", PROVIDERS)
def test_a_blank_document_is_sent_as_a_full_stop_everywhere(scheme: str) -> None:
    """Voyage refuses a whole request for one empty string; others drop the document."""
    text = json.dumps(sent_body(scheme, texts=["", " \n\t"]))
    assert text.count('"."') == 2
    assert '""' not in text


def test_a_server_without_a_models_name_gets_none() -> None:
    assert sent_body("llama-cpp", "") == PLAIN
    assert sent_body("http", "") == PLAIN


@pytest.mark.parametrize(
    ("scheme", "model", "sent"),
    [
        ("pinecone", "bge-reranker-v2-m3", {"parameters": {"truncate": "END"}}),
        ("pinecone", "pinecone-rerank-v0", {"parameters": {"truncate": "END"}}),
        ("pinecone", "cohere-rerank-3.5", {}),
    ],
)
def test_what_is_particular_to_a_model_is_sent_for_it_alone(scheme: str, model: str, sent: dict[str, object]) -> None:
    assert sent_body(scheme, model) == {**BODIES[scheme], "model": model, **sent}


@pytest.mark.parametrize("scheme", [scheme for scheme, row in PROVIDERS.items() if row.fields and scheme != "cohere"])
def test_the_callers_fields_are_sent_and_none_leaves_a_field_out(scheme: str) -> None:
    for field in PROVIDERS[scheme].fields:
        assert sent_body(scheme, **{field: 7}) == {**BODIES[scheme], field: 7}
        rest = {name: value for name, value in BODIES[scheme].items() if name != field}
        assert sent_body(scheme, **{field: None}) == rest


def test_extra_body_goes_beside_and_wins() -> None:
    extra = {"user": "u", "truncation": False, "return_documents": None}
    assert sent_body("voyage", extra_body=extra) == {"model": "m", **PLAIN, "truncation": False, "user": "u"}


@pytest.mark.parametrize(
    ("scheme", "field"),
    [("jina", "query"), ("tei", "texts"), ("tei", "raw_scores"), ("nvidia", "passages"), ("voyage", "top_k")],
)
def test_extra_body_cannot_undo_what_the_request_is_for(scheme: str, field: str) -> None:
    """Else a second sigmoid, another query, or too few results would come without a word."""
    with pytest.raises(ConfigurationError, match=f"extra_body must not hold '{field}'"):
        Reranker(f"{scheme}:m", api_key="key-1234", extra_body={field: 1})


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_a_field_that_is_no_json_is_refused_when_the_scorer_is_made(value: object) -> None:
    with pytest.raises(ConfigurationError, match="cannot be sent as JSON"):
        Reranker("vllm:m", extra_body={"user": value})


@pytest.mark.parametrize(
    ("scheme", "model", "changes"),
    [
        ("voyage", "rerank-2.5-lite", {"query": "be strict\nwho?"}),
        ("voyage", "rerank-3", {"query": "be strict\nwho?"}),
        ("fireworks", "m", {"task": "be strict"}),
        ("sie", "m", {"instruction": "be strict"}),
    ],
)
def test_an_instruction_goes_where_the_service_takes_one(scheme: str, model: str, changes: dict[str, object]) -> None:
    named = {"model": model} if "model" in BODIES[scheme] else {}
    assert sent_body(scheme, model, instruction="be strict") == {**BODIES[scheme], **named, **changes}
    assert sent_body(scheme, model) == {**BODIES[scheme], **named}


@pytest.mark.parametrize(("scheme", "model"), [("voyage", "rerank-2"), ("jina", "m"), ("vllm", "m"), ("tei", "")])
def test_models_without_instructions_say_so(scheme: str, model: str) -> None:
    name = f"{scheme}:{model}" if model else scheme
    with pytest.raises(ConfigurationError, match="takes no instruction"):
        Reranker(name, api_key="k", instruction="be strict")


def test_text_of_any_script_is_sent_as_it_is() -> None:
    recorder = Recorder()
    recorder.scorer("jina").score("où ?", ["日本 🗾", 'a "b"\\\n\x00'])
    content = recorder.requests[0].content
    assert "où ?".encode() in content
    assert "日本 🗾".encode() in content
    assert json.loads(content)["documents"][1] == 'a "b"\\\n\x00'


def test_a_body_never_changes_what_it_was_made_of() -> None:
    dialect, fields = DIALECTS["voyage"], {"truncation": None}
    before = (dict(dialect.always), dict(fields))
    body = request_body(dialect, "m", Q, TEXTS, fields)
    body["documents"].append("three")  # type: ignore[attr-defined]  # a list
    assert (dict(dialect.always), fields, TEXTS) == (*before, ["one", "two"])


# Addresses


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("http://h:8000", "/v1/rerank", "http://h:8000/v1/rerank"),
        ("http://h:8000/", "/v1/rerank", "http://h:8000/v1/rerank"),
        ("http://h:8000//", "/v1/rerank", "http://h:8000/v1/rerank"),
        ("http://h:8000/v1", "/v1/rerank", "http://h:8000/v1/rerank"),
        ("http://h:8000/v1/", "/v1/rerank", "http://h:8000/v1/rerank"),
        ("http://h:8000/v1/rerank", "/v1/rerank", "http://h:8000/v1/rerank"),
        ("http://h:8000/v1/rerank/", "/v1/rerank", "http://h:8000/v1/rerank"),
        ("https://h/gateway", "/v1/rerank", "https://h/gateway/v1/rerank"),
        ("https://h/gateway/v1", "/v1/rerank", "https://h/gateway/v1/rerank"),
        ("https://h/v1/gateway", "/v1/rerank", "https://h/v1/gateway/v1/rerank"),
        ("https://h/rerank", "/rerank", "https://h/rerank"),
        ("https://h/my-rerank", "/rerank", "https://h/my-rerank/rerank"),
        ("https://h/v10", "/v1/rerank", "https://h/v10/v1/rerank"),
        ("https://h/v2", "/v1/rerank", "https://h/v2/v1/rerank"),
        (" https://h/any/where ", "", "https://h/any/where"),
        ("http://[::1]:8000", "/rerank", "http://[::1]:8000/rerank"),
        ("http://h/v1/score/v1", "/v1/score/v1/m", "http://h/v1/score/v1/m"),  # the longest overlap counts
        ("HTTP://h", "/rerank", "http://h/rerank"),
    ],
)
def test_a_base_url_may_hold_none_a_part_or_all_of_the_path(base: str, path: str, url: str) -> None:
    assert join(base, path) == url
    assert join(url, path) == url


@pytest.mark.parametrize(
    "base",
    [
        "",
        "localhost:8000",
        "//h",
        "ftp://h",
        "http://",
        "http:///v1",
        "http://[::1",
        "http://h:port",
        "http://h:99999",
        7,
        None,
    ],
)
def test_what_is_no_address_is_refused_when_the_scorer_is_made(base: object) -> None:
    with pytest.raises(ConfigurationError, match="base_url must be an address like"):
        join(base, "/rerank")  # type: ignore[arg-type]  # deliberately


@pytest.mark.parametrize(
    ("base", "advice"),
    [
        ("http://me:pass-5f2c@h", "no user and password"),
        ("http://pass-5f2c@h/", "no user and password"),
        ("ftp://me:pass-5f2c@h", "must be an address like"),
        ("http://h/?key=pass-5f2c", "no query"),
        ("http://h/#pass-5f2c", "or fragment"),
    ],
)
def test_an_address_with_a_secret_in_it_is_refused_and_not_shown(base: str, advice: str) -> None:
    with pytest.raises(ConfigurationError, match=advice) as caught:
        Reranker("vllm:m", base_url=base)
    assert "pass-5f2c" not in str(caught.value)


def test_the_models_name_in_a_path() -> None:
    assert with_model("/v1/score/{model}", "BAAI/bge-reranker-v2-m3") == "/v1/score/BAAI/bge-reranker-v2-m3"
    assert with_model("/v1/score/{model}", "a b?c#d") == "/v1/score/a%20b%3Fc%23d"
    assert with_model("/r/{slug}/reranking", "nvidia/llama-3.2-x") == "/r/nvidia/llama-3_2-x/reranking"
    assert origin("https://h:8/v1/rerank") == "https://h:8"


@pytest.mark.parametrize(
    ("scheme", "model", "options", "url"),
    [
        ("jina", "m", {}, "https://api.jina.ai/v1/rerank"),
        ("jina", "m", {"base_url": "http://p/jina"}, "http://p/jina/v1/rerank"),
        ("voyage", "m", {}, "https://api.voyageai.com/v1/rerank"),
        ("voyage", "m", {"base_url": "http://h/v1"}, "http://h/v1/rerank"),
        ("mixedbread", "m", {}, "https://api.mixedbread.com/v1/reranking"),
        ("pinecone", "m", {}, "https://api.pinecone.io/rerank"),
        ("together", "m", {}, "https://api.together.ai/v1/rerank"),
        ("fireworks", "m", {}, "https://api.fireworks.ai/inference/v1/rerank"),
        ("openrouter", "m", {}, "https://openrouter.ai/api/v1/rerank"),
        (
            "nvidia",
            "nvidia/llama-3.2-nv-rerankqa-1b-v2",
            {},
            "https://ai.api.nvidia.com/v1/retrieval/nvidia/llama-3_2-nv-rerankqa-1b-v2/reranking",
        ),
        ("nvidia", "nvidia/llama-3.2-x", {"base_url": "http://h:8000"}, "http://h:8000/v1/ranking"),
        ("nvidia", "m", {"base_url": "http://h:8000/v1"}, "http://h:8000/v1/ranking"),
        ("vllm", "m", {}, "http://localhost:8000/v1/rerank"),
        ("vllm-score", "m", {"base_url": "http://h/v1"}, "http://h/v1/score"),
        ("tei", "", {}, "http://localhost:3000/rerank"),
        ("llama-cpp", "", {}, "http://localhost:8080/v1/rerank"),
        ("infinity", "m", {"base_url": "http://h:7997"}, "http://h:7997/rerank"),
        ("xinference", "m", {}, "http://localhost:9997/v1/rerank"),
        ("localai", "m", {}, "http://localhost:8080/v1/rerank"),
        ("sie", "BAAI/bge-m3", {}, "http://localhost:8080/v1/score/BAAI/bge-m3"),
        ("sie", "BAAI/bge-m3", {"base_url": "http://h/v1"}, "http://h/v1/score/BAAI/bge-m3"),
        ("http", "m", {"base_url": "http://h/any/where"}, "http://h/any/where"),
    ],
)
def test_where_each_service_is_asked(scheme: str, model: str, options: dict[str, object], url: str) -> None:
    recorder = Recorder()
    recorder.scorer(scheme, model, **options).score(Q, TEXTS)
    assert recorder.url == url


def test_keys_that_mongodb_issues_go_to_mongodb(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    transport = httpx.MockTransport(recorder)
    HTTPScorer("m", provider="voyage", api_key="al-123456", transport=transport).score(Q, TEXTS)
    assert recorder.url == "https://ai.mongodb.com/v1/rerank"
    monkeypatch.setenv("VOYAGE_API_KEY", "al-654321")
    HTTPScorer("m", provider="voyage", transport=transport).score(Q, TEXTS)
    assert recorder.url == "https://ai.mongodb.com/v1/rerank"
    HTTPScorer("m", provider="voyage", api_key="pa-123", transport=transport).score(Q, TEXTS)
    assert recorder.url == "https://api.voyageai.com/v1/rerank"
    HTTPScorer("m", provider="voyage", base_url="http://h", transport=transport).score(Q, TEXTS)
    assert recorder.url == "http://h/v1/rerank"


def test_the_scheme_http_wants_an_address() -> None:
    with pytest.raises(ConfigurationError, match="needs base_url="):
        Reranker("http:m")


@pytest.mark.parametrize(("scheme", "name"), [("pinecone", "api-key"), ("jina", "authorization")])
def test_the_header_that_carries_the_key(scheme: str, name: str) -> None:
    recorder = Recorder()
    recorder.scorer(scheme).score(Q, TEXTS)
    headers = recorder.requests[0].headers
    assert headers[name] == ("Bearer k" if name == "authorization" else "k")
    assert ("authorization" in headers) is (name == "authorization")
    assert headers.get("x-pinecone-api-version") == ("2026-04" if scheme == "pinecone" else None)
    assert headers["accept"] == "application/json"


def test_a_self_hosted_server_gets_no_header_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    recorder = Recorder()
    HTTPScorer("m", provider="vllm", transport=httpx.MockTransport(recorder)).score(Q, TEXTS)
    assert "authorization" not in recorder.requests[0].headers


def test_a_row_of_ones_own_is_a_provider() -> None:
    row = replace(PROVIDERS["jina"], scheme="mine", base_url="http://127.0.0.1:9", path="/x", key_required=False)
    recorder = Recorder()
    scorer = HTTPScorer("m", provider=row, transport=httpx.MockTransport(recorder))
    scorer.score(Q, TEXTS)
    assert (scorer.name, recorder.url, recorder.body) == ("mine:m", "http://127.0.0.1:9/x", BODIES["jina"])
