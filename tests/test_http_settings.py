"""What a caller may set: each option is checked when the scorer is made, and does what it says."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from rerank_servers import SERVICES, edited, native, refused_port, relevance, serve
from rerank_servers.client import QUERY, TEXTS
from uprank import Reranker
from uprank.errors import BadReplyError, CanaryError, ConfigurationError, InvalidInputError, ScoreKindError
from uprank.scorers import HTTPScorer
from uprank.scorers.base import ScoreKind
from uprank.scorers.http.canary import CANARY, canary_problem
from uprank.scorers.http.providers import PROVIDERS

NAN, INF = math.nan, math.inf

# Options


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        *[("timeout", value, "timeout must be a positive number") for value in (0, -1, NAN, INF, True, "5", None)],
        *[("deadline", value, "deadline must be a positive number") for value in (0, -1, NAN, INF, True, "5")],
        *[("max_retries", value, "max_retries must be an integer") for value in (-1, 1.5, True, "2", None)],
        *[("max_concurrency", value, "max_concurrency must be an integer") for value in (0, -1, 1.5, True, "8", None)],
        *[("requests_per_minute", value, "requests_per_minute must be an integer") for value in (0, -3, 1.5, True)],
        *[("max_documents", value, "max_documents must be an integer") for value in (0, -1, 2.0, True, "10")],
        *[("score_kind", value, "score_kind must be one of probability, logit") for value in ("prob", "", 1)],
        ("price", {"token": 1.0}, "price has no unit 'token'; it takes tokens, search_units, requests"),
        *[("price", {"tokens": value}, "must be a number of at least 0") for value in (-1, NAN, INF, True, "1")],
        ("headers", {"X-Team": 7}, "headers must map strings to strings; look at 'X-Team'"),
        ("headers", {7: "x"}, "headers must map strings to strings"),
        ("headers", {"X-Team": "a\r\nX-Other: b"}, "The header 'X-Team' holds characters"),
        ("headers", {"X-Team": "é"}, "The header 'X-Team' holds characters"),
        *[
            ("headers", {name: "v"}, "holds characters that cannot be sent")
            for name in ("", "X Team", "X:", "Ü", "X\r\nY")
        ],
        ("dialect", "jina", "has its own dialect"),
        ("api_key", 7, "api_key must be a string or a SecretStr, got int"),
        ("api_key", "ke\ny", "api_key holds characters that no key has"),
        ("base_url", "localhost:8000", "base_url must be an address like"),
    ],
)
def test_an_option_that_cannot_work_is_refused_when_the_scorer_is_made(option: str, value: object, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Reranker("vllm:m", **{option: value})


@pytest.mark.parametrize(
    "options", [{"deadline": None}, {"max_retries": 0}, {"requests_per_minute": None}, {"price": {}}]
)
def test_what_may_be_nothing(options: dict[str, object]) -> None:
    with serve("vllm") as server, Reranker("vllm:m", base_url=server.base_url, **options) as reranker:
        assert len(reranker.rank(QUERY, TEXTS)) == 4


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("jina:m", {"truncate": True}, r"jina:m has no option 'truncate'\. Did you mean 'truncation'\?"),
        ("jina:m", {"max_concurency": 2}, "Did you mean 'max_concurrency'"),
        ("voyage:m", {"top_k": 3}, r"voyage:m has no option 'top_k'\. Did you mean 'top_n'\?"),
        ("vllm:m", {"api_base": "http://h"}, "Did you mean 'base_url'"),
        ("llama-cpp", {"truncation": True}, r"llama-cpp has no option 'truncation'\. It takes: api_key"),
        ("cohere:m", {"max_chunks_per_doc": 1}, "It takes: max_tokens_per_doc, priority, relevant_spans"),
        ("jina:m", {"whatever": 1}, r"go into extra_body=\{\.\.\.\}"),
    ],
)
def test_an_unknown_option_is_refused_with_advice(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Reranker(name, api_key="k", **options)


def test_unknown_providers_and_dialects_name_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="No provider 'jinx'; known: cohere, jina"):
        HTTPScorer("m", provider="jinx")
    with pytest.raises(ConfigurationError, match="No dialect 'jinx'; known: cohere, jina"):
        HTTPScorer("m", base_url="http://h", dialect="jinx")


@pytest.mark.parametrize("scheme", [scheme for scheme, row in PROVIDERS.items() if row.key_required])
def test_a_hosted_service_without_a_key_says_where_it_may_be(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in PROVIDERS[scheme].key_variables:
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(
        ConfigurationError, match=f"{scheme}:m needs a key. To give a key, pass api_key= or set"
    ) as caught:
        Reranker(f"{scheme}:m")
    assert all(variable in str(caught.value) for variable in PROVIDERS[scheme].key_variables)
    for variable in PROVIDERS[scheme].key_variables:
        monkeypatch.setenv(variable, "  ")
        with pytest.raises(ConfigurationError, match="needs a key"):
            Reranker(f"{scheme}:m")
        monkeypatch.setenv(variable, "k")
        assert Reranker(f"{scheme}:m").model == f"{scheme}:m"
        monkeypatch.delenv(variable)
    assert Reranker(f"{scheme}:m", base_url="http://127.0.0.1:9")  # a server of one's own may need none


def test_the_key_is_looked_up_for_each_request_and_the_given_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JINA_API_KEY", "first")
    with serve("jina") as server:
        with Reranker("jina:m", base_url=server.base_url) as reranker:
            reranker.rank(QUERY, TEXTS)
            monkeypatch.setenv("JINA_API_KEY", " renewed\n")
            reranker.rank(QUERY, TEXTS)
        with Reranker("jina:m", base_url=server.base_url, api_key="given") as reranker:
            reranker.rank(QUERY, TEXTS)
        sent = [request.headers["authorization"] for request in server.posts]
    assert sent == ["Bearer first", "Bearer renewed", "Bearer given"]


def test_headers_are_sent_with_every_request() -> None:
    with serve("tei") as server:
        with Reranker("tei", base_url=server.base_url, headers={"X-Team": "search", "X-Empty": ""}) as reranker:
            reranker.rank(QUERY, TEXTS)
        assert [
            (request.method, request.headers["x-team"], request.headers["x-empty"]) for request in server.requests
        ] == [
            ("GET", "search", ""),
            ("POST", "search", ""),
        ]


@pytest.mark.parametrize(
    ("price", "cost"),
    [
        ({"requests": 0.5}, 1.0),
        ({"search_units": 2.0}, 4.0),
        ({"search_units": 2.0, "requests": 0.5}, 5.0),
        ({"tokens": 0.0}, 0.0),
        ({}, None),
        (None, None),
    ],
)
def test_the_price_fills_the_cost(price: dict[str, float] | None, cost: float | None) -> None:
    with (
        serve("cohere", key="k") as server,
        Reranker("cohere:m", base_url=server.base_url, api_key="k", price=price, max_documents=2) as reranker,
    ):
        usage = reranker.rank(QUERY, TEXTS).usage
    assert (usage.requests, usage.search_units) == (2, 2)
    assert usage.cost == cost


def test_there_is_no_cost_where_the_service_does_not_count_the_unit() -> None:
    with serve("jina", key="k") as server:
        options: dict[str, object] = {"base_url": server.base_url, "api_key": "k"}
        with Reranker("jina:m", price={"search_units": 2.0, "requests": 1.0}, **options) as reranker:
            assert reranker.rank(QUERY, TEXTS).usage.cost is None
        with Reranker("jina:m", price={"tokens": 0.5}, **options) as reranker:
            usage = reranker.rank(QUERY, TEXTS).usage
            assert usage.tokens is not None
            assert usage.cost == usage.tokens * 0.5


@pytest.mark.parametrize(("given", "sizes"), [(3, [3, 3, 1]), (7, [7]), (1, [1] * 7), (2000, [7])])
def test_max_documents_is_the_callers_own_limit(given: int, sizes: list[int]) -> None:
    texts = [f"text {number}" for number in range(7)]
    with serve("jina", key="k") as server:
        with Reranker("jina:m", base_url=server.base_url, api_key="k", max_documents=given) as reranker:
            reranker.rank(QUERY, texts)
        assert sorted((len(request.texts) for request in server.posts), reverse=True) == sizes


def test_max_documents_cannot_raise_what_the_service_takes() -> None:
    texts = [f"text {number}" for number in range(33)]
    with serve("tei") as server:
        with Reranker("tei", base_url=server.base_url, max_documents=1000) as reranker:
            reranker.rank(QUERY, texts)
        assert sorted(len(request.texts) for request in server.posts) == [1, 32]


# What scores mean

KINDS = {
    "cohere:rerank-v3.5": "probability",
    "jina:jina-reranker-v2-base-multilingual": "probability",
    "jina:jina-reranker-v3": "cosine",
    "jina:jina-reranker-v3.5": "cosine",
    "jina:jina-colbert-v2": "rank",
    "voyage:rerank-2.5": "probability",
    "mixedbread:mixedbread-ai/mxbai-rerank-large-v2": "rank",
    "nvidia:nvidia/llama-nemotron-rerank-1b-v2": "logit",
    "pinecone:bge-reranker-v2-m3": "probability",
    "together:m": "probability",
    "fireworks:fireworks/qwen3-reranker-8b": "probability",
    "openrouter:cohere/rerank-v3.5": "probability",
    "openrouter:nvidia/llama-nemotron-rerank-vl-1b-v2": "rank",
    "vllm:BAAI/bge-reranker-v2-m3": "probability",
    "tei": "probability",
    "llama-cpp": "logit",
    "llama-cpp:bge-reranker-v2-m3": "logit",
    "llama-cpp:Qwen3-Reranker-0.6B-Q8_0": "probability",
    "infinity:m": "probability",
    "xinference:m": "rank",
    "xinference:Qwen3-Reranker-4B": "probability",
    "xinference:jina-reranker-v3": "cosine",
    "localai:m": "rank",
    "sie:BAAI/bge-reranker-v2-m3": "probability",
    "sie:mixedbread-ai/mxbai-rerank-base-v2": "logit",
    "sie:BAAI/bge-m3": "cosine",
}
LISTWISE = {"jina:jina-reranker-v3", "jina:jina-reranker-v3.5", "xinference:jina-reranker-v3"}


@pytest.mark.parametrize("name", KINDS)
def test_what_the_scores_of_each_model_mean(name: str) -> None:
    scorer = Reranker(name, base_url="http://127.0.0.1:9", api_key="k").scorer
    assert scorer.score_kind == KINDS[name]
    assert scorer.listwise is (name in LISTWISE)


def ranked(service: str, model: str, **options: object) -> tuple[list[float | None], str | None, object]:
    """The scores in the order of the texts, what they mean, and the last body sent."""
    with serve(service, key="k") as server:
        with Reranker(model, base_url=server.base_url, api_key="k", **options) as reranker:
            ranking = reranker.rank(QUERY, TEXTS)
        scores = [hit.score for hit in sorted(ranking, key=lambda hit: hit.index)]
        return scores, ranking.score_kind, server.posts[-1].json


@pytest.mark.parametrize("service", ["tei", "infinity"])
def test_raw_scores_are_asked_for_and_shown_as_probabilities_once(service: str) -> None:
    name = "tei" if service == "tei" else "infinity:m"
    p = [relevance(QUERY, text) for text in TEXTS]
    logits = [native(service, value, raw_scores=True) for value in p]
    scores, kind, body = ranked(service, name)
    assert (scores, kind) == (pytest.approx(p, abs=1e-12), "probability")
    assert isinstance(body, dict)
    assert body["raw_scores"] is True
    scores, kind, body = ranked(service, name, score_kind="logit")
    assert (scores, kind) == (pytest.approx(logits), "logit")
    assert isinstance(body, dict)
    assert body["raw_scores"] is True
    scores, kind, body = ranked(service, name, score_kind="logit", score="probability")
    assert (scores, kind) == (pytest.approx(p, abs=1e-12), "probability")
    scores, kind, body = ranked(service, name, score_kind="probability")
    assert (scores, kind) == (pytest.approx(p, abs=0), "probability")  # the server's own sigmoid
    assert isinstance(body, dict)
    assert body["raw_scores"] is False


def test_score_kind_says_what_the_row_does_not_know() -> None:
    p = [relevance(QUERY, text) for text in TEXTS]
    scores, kind, _ = ranked("localai", "localai:m")
    assert kind == "rank"
    scores, kind, _ = ranked("localai", "localai:m", score_kind="probability", threshold=0.0)
    assert (scores, kind) == (p, "probability")
    scores, kind, _ = ranked("nvidia", "nvidia:m", score="probability")
    assert (scores, kind) == (pytest.approx(p, abs=1e-12), "probability")
    with pytest.raises(ScoreKindError):
        ranked("localai", "localai:m", threshold=0.5)


def test_logits_declared_as_probabilities_are_noticed() -> None:
    with pytest.raises(BadReplyError, match=r"which is no probability.*score_kind="):
        ranked("llama-cpp", "llama-cpp", score_kind="probability")


def test_an_instruction_that_the_model_does_not_take_is_refused_in_the_call() -> None:
    with pytest.raises(InvalidInputError, match="takes no instruction"):
        Reranker("jina:m", api_key="k").rank(QUERY, TEXTS, instruction="be strict")


# The obvious pair

BAD = {
    "probability": [(0.1, 0.9), (0.5, 0.5), (0.0, 0.0), (0.92, 0.70), (0.4, 0.1), (1e-20, 0.0)],
    "logit": [(-2.0, 3.0), (0.0, 0.0), (3.0, 1.0), (-1.0, -3.0)],
    "cosine": [(0.1, 0.6), (0.30, 0.28), (0.0, 0.0)],
    "rank": [(1.0, 2.0), (0.5, 0.5)],
}
GOOD = {
    "probability": [(0.997, 7e-6), (0.5, 0.49), (1.0, 0.0)],
    "logit": [(4.2, -13.4), (0.0, -0.1)],
    "cosine": [(0.32, 0.02), (-0.2, -0.4)],
    "rank": [(-4.0, -11.0), (1e-19, 1e-20)],
}


@pytest.mark.parametrize("kind", BAD)
def test_what_the_obvious_pair_must_score(kind: ScoreKind) -> None:
    assert [values for values in GOOD[kind] if canary_problem(values, kind)] == []
    told = [canary_problem(values, kind) for values in BAD[kind]]
    assert None not in told
    assert all("check=False" in str(problem) for problem in told)
    assert f"{BAD[kind][0][0]:.4g}" in str(told[0])


@pytest.mark.parametrize("name", SERVICES)
async def test_a_good_server_passes_the_check_once(name: str) -> None:
    model = "" if name == "tei" else ":bge-reranker-v2-m3"
    with serve(name, key="k") as server:
        reranker = Reranker(f"{name}{model}", base_url=server.base_url, api_key="k", check=True)
        texts = ["Whales swim.", "Paris is the capital of France."]
        first = reranker.rank("capital of France?", texts)
        second = await reranker.arank("capital of France?", texts)
        await reranker.aclose()
        asked = [(request.query, request.texts) for request in server.posts]
    assert asked == [(CANARY.query, list(CANARY.texts)), *[("capital of France?", texts)] * 2]
    assert [hit.index for hit in first] == [hit.index for hit in second] == [1, 0]
    information = 1 if name == "tei" else 0
    assert (first.usage.requests, second.usage.requests) == (2 + information, 1)


def _entries(body: object) -> list[dict[str, object]]:
    if isinstance(body, dict):
        body = next(body[key] for key in ("results", "data", "rankings", "scores") if key in body)
    assert isinstance(body, list)
    return body


def flat(body: object) -> object:
    for entry in _entries(body):
        entry[next(key for key in ("relevance_score", "score", "logit") if key in entry)] = 0.5
    return body


def swapped(body: object) -> object:
    first, second = _entries(body)
    key = "index" if "index" in first else "item_id"
    first[key], second[key] = second[key], first[key]
    return body


@pytest.mark.parametrize("change", [flat, swapped], ids=["flat", "swapped"])
@pytest.mark.parametrize("name", SERVICES)
async def test_a_server_that_scores_without_sense_fails_the_check_each_time(
    name: str, change: Callable[[object], object]
) -> None:
    model = "" if name == "tei" else ":bge-reranker-v2-m3"
    with serve(name, key="k") as server:
        server.fail_always(edited(change))
        reranker = Reranker(f"{name}{model}", base_url=server.base_url, api_key="k", check=True)
        with pytest.raises(CanaryError, match=r"the check failed, with a score of .* check=False") as plain:
            reranker.rank("q", ["a", "b"])
        with pytest.raises(CanaryError) as awaited:
            await reranker.arank("q", ["a", "b"])
        assert str(plain.value) == str(awaited.value)
        assert [request.query for request in server.posts] == [CANARY.query] * 2  # nothing else was sent
        server.heal()
        assert len(reranker.rank("q", ["a", "b"])) == 2  # the server was restarted as it should be
        await reranker.aclose()


def test_listwise_models_are_checked_by_the_margin_of_cosines() -> None:
    with (
        serve("jina", key="k") as server,
        Reranker("jina:jina-reranker-v3", base_url=server.base_url, api_key="k", check=True) as reranker,
    ):
        assert reranker.rank("q", ["a"]).score_kind == "cosine"
        assert len(server.posts) == 2


def test_without_check_nothing_more_is_sent() -> None:
    with serve("vllm") as server, Reranker("vllm:m", base_url=server.base_url) as reranker:
        reranker.rank("q", ["a"])
        assert [request.query for request in server.posts] == ["q"]


async def test_a_batch_asks_once_what_must_be_known_of_the_server() -> None:
    """A check for each query of a batch would be paid for as often."""
    for way in ("rank_many", "arank_many"):
        with serve("tei") as server:
            reranker = Reranker("tei", base_url=server.base_url, check=True)
            given = ["one", "two", "three"], [["a", "b"]] * 3
            rankings = reranker.rank_many(*given) if way == "rank_many" else await reranker.arank_many(*given)
            await reranker.aclose()
            assert [request.path for request in server.requests][:2] == ["/info", "/rerank"]
            assert sorted(request.query for request in server.posts) == sorted([CANARY.query, *given[0]])
        assert [ranking.usage.requests for ranking in rankings] == [3, 1, 1]


def test_a_server_that_cannot_be_asked_fails_every_query_of_a_batch() -> None:
    reranker = Reranker("tei", base_url=f"http://127.0.0.1:{refused_port()}", max_retries=0, on_error="passthrough")
    rankings = reranker.rank_many(["one", "two"], [["a", "b"], ["c"]])
    assert [[hit.document.text for hit in ranking] for ranking in rankings] == [["a", "b"], ["c"]]
    assert all(ranking.degraded for ranking in rankings)


def test_a_file_of_certificates_that_is_not_there_is_refused_when_the_scorer_is_made() -> None:
    with pytest.raises(ConfigurationError, match="is no file of certificates"):
        Reranker("tei", verify="/no/such/file.pem")
