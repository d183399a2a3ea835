"""Rerankers of LangChain, LlamaIndex and Haystack, SDKs and LiteLLM, unmodified, in an environment of their own.

All calls of a module are made in one process, at once, since importing the clients takes longer than all the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from server_clients.calls import Call
from server_clients.environment import HOW_TO_GET_IT, Outcome, find_python, make
from serving import serving
from table_scorer import TableScorer
from uprank import Reranker
from uprank.errors import RateLimitError

PYTHON = find_python()
pytestmark = pytest.mark.skipif(PYTHON is None, reason=HOW_TO_GET_IT)

CLIENTS = (
    "cohere-5",
    "haystack-tei",
    "haystack-tei-async",
    "langchain-cohere",
    "langchain-cohere-async",
    "langchain-nvidia",
    "langchain-nvidia-async",
    "llama-index-cohere",
    "llama-index-jina",
    "llama-index-nvidia",
    "llama-index-tei",
    "llama-index-xinference",
    "mixedbread",
    "mixedbread-async",
    "xinference",
)
LITELLM = ("cohere", "infinity", "jina", "nvidia", "tei", "vllm", "voyage")

KEY = "loopback-key-77ab"
WRONG = "loopback-key-0000"
MOST = 5

QUERY = "Wo schläft der Fuchs? 🦊"
SCORES = {
    "a red fox": 0.75,
    "naïve café\u2028": 0.5,
    'a "quoted" \\ line\n\ttab': 0.90625,
    "日本語 🗾": 0.5,
    " spaces ": 0.0625,
    "the last of all": 0.03125,
}
# One text twice, and several of one score: their places decide, also across the parts of a list that a client splits.
TEXTS = (*SCORES, "a red fox", "日本語 🗾")
SENTENCES = (
    "Foxes sleep in dens that they dig under roots.",
    "The stock market fell by two percent on Monday.",
    "Red foxes are active at night and rest by day.",
    "Preheat the oven to 180 degrees.",
)

WAIT = 2
"""Seconds that a busy server asks to wait; more than any client would on its own."""

UNAUTHORIZED = {
    "cohere": "cohere.errors.unauthorized_error.UnauthorizedError",
    "haystack": "builtins.RuntimeError",
    "langchain-cohere": "cohere.errors.unauthorized_error.UnauthorizedError",
    "langchain-nvidia": "builtins.Exception",
    "litellm": "litellm.exceptions.AuthenticationError",
    "llama-index-cohere": "cohere.errors.unauthorized_error.UnauthorizedError",
    "llama-index-jina": "builtins.RuntimeError",
    "llama-index-nvidia": "httpx.HTTPStatusError",
    "llama-index-tei": "builtins.AssertionError",  # it looks at no status, and counts what it got
    "llama-index-xinference": "builtins.Exception",
    "mixedbread": "mixedbread.AuthenticationError",
    "xinference": "builtins.RuntimeError",
}
TOO_MANY = UNAUTHORIZED | {
    "cohere": "cohere.errors.unprocessable_entity_error.UnprocessableEntityError",
    "langchain-cohere": "cohere.errors.unprocessable_entity_error.UnprocessableEntityError",
    "litellm": "litellm.exceptions.BadRequestError",
    "litellm-tei": "litellm.exceptions.APIError",
    "llama-index-cohere": "cohere.errors.unprocessable_entity_error.UnprocessableEntityError",
    "mixedbread": "mixedbread.UnprocessableEntityError",
}
SILENT = ("llama-index-tei", "llama-index-nvidia")
"""Their errors do not say what the server said."""
KEYLESS = ("llama-index-xinference",)
"""They send no key."""
SPLITTING = ("langchain-nvidia", "langchain-nvidia-async")
"""They send at most four documents at once."""
PATIENT = (
    "cohere-5",
    "haystack-tei",
    "haystack-tei-async",
    "langchain-cohere",
    "langchain-cohere-async",
    "llama-index-cohere",
    "mixedbread",
    "mixedbread-async",
)
"""They try again after 429."""


def of_family(client: str, table: dict[str, str]) -> str:
    """What the table has for the client: under its own name, or under the longest beginning of it."""
    return table[max((name for name in table if client.startswith(name)), key=len)]


def reads_logits(client: str) -> bool:
    return "nvidia" in client or client.startswith("haystack")


@dataclass
class Busy:
    """Scores by length; turns each query away once, and notes when it came."""

    came: dict[str, list[float]] = field(default_factory=dict)

    def __call__(self, query: str, texts: list[str]) -> list[float]:
        times = self.came.setdefault(query, [])
        times.append(time.monotonic())
        if len(times) == 1:
            raise RateLimitError("The service has too much to do.", retry_after=WAIT)
        return [1 / len(text) for text in texts]


@dataclass(frozen=True)
class Servers:
    """Where each kind of server is."""

    table: str
    strict: str
    keyed: str
    embedded: str
    busy: str
    scorer: Busy


@contextmanager
def servers(folder: Path, embedded: Reranker) -> Iterator[Servers]:
    """Servers that differ in what they serve, ask for and allow."""
    (folder / "key").write_text(KEY)
    keyed = {"keys": [{"file": str(folder / "key")}], "limits": {"documents": MOST}}
    scorer = Busy()
    with ExitStack() as stack:

        def serve(reranker: Reranker, **settings: object) -> str:
            return stack.enter_context(serving({"served": reranker}, **settings))

        yield Servers(
            table=serve(table()),
            strict=serve(table(), unknown_fields="refuse"),
            keyed=serve(table(), **keyed),
            embedded=serve(embedded),
            busy=serve(Reranker(scorer)),
            scorer=scorer,
        )


def table() -> Reranker:
    return Reranker(TableScorer("table", SCORES, kind="probability"))


@dataclass(frozen=True)
class Asked:
    """The calls of a client, and what came of them."""

    servers: Servers
    outcomes: dict[Call, Outcome]

    def __getitem__(self, call: Call) -> Outcome:
        return self.outcomes[call]


# The calls


def plain(at: Servers, client: str) -> Call:
    return Call(client, at.table, QUERY, TEXTS)


def first_three(at: Servers, client: str) -> Call:
    return Call(client, at.table, QUERY, TEXTS, top_n=3)


def strict(at: Servers, client: str) -> Call:
    return Call(client, at.strict, QUERY, TEXTS, top_n=5)


def embedded(at: Servers, client: str) -> Call:
    return Call(client, at.embedded, QUERY, SENTENCES)


def right_key(at: Servers, client: str) -> Call:
    return Call(client, at.keyed, QUERY, TEXTS[:3], key=KEY)


def wrong_key(at: Servers, client: str) -> Call:
    return replace(right_key(at, client), key=WRONG)


def too_many(at: Servers, client: str) -> Call:
    return replace(right_key(at, client), texts=TEXTS)


def busy(at: Servers, client: str) -> Call:
    return Call(client, at.busy, f"{QUERY} {client}", TEXTS)


COMMON = (plain, first_three, strict, embedded, right_key, wrong_key, too_many)


@pytest.fixture(scope="module")
def model() -> Reranker:
    """Loaded before anybody waits for it: some clients wait five seconds and no more."""
    model = Reranker("embedded")
    model.load()
    return model


@pytest.fixture(scope="module")
def asked(model: Reranker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    assert PYTHON is not None
    with servers(tmp_path_factory.mktemp("keys"), model) as at:
        calls = [busy(at, client) for client in CLIENTS]  # first: while these wait, the others are made
        calls += [call(at, client) for client in CLIENTS for call in COMMON]
        yield Asked(at, make(PYTHON, ["frameworks", "sdks"], calls))


def check_rankings(asked: Asked, client: str, model: Reranker) -> None:
    """Compare with the rankings of a call in this process."""
    at = asked.servers
    for call in (plain(at, client), first_three(at, client), strict(at, client)):
        expected = table().rank(QUERY, TEXTS, top_n=call.top_n)
        assert asked[call].order == [hit.index for hit in expected], (call.address, call.top_n)
        if reads_logits(client):
            logits = [math.log(hit.score / (1 - hit.score)) for hit in expected]
            assert asked[call].scores == pytest.approx(logits, abs=1e-12)
        else:
            assert asked[call].scores == [hit.score for hit in expected]
    expected = model.rank(QUERY, SENTENCES)
    assert asked[embedded(at, client)].order == [hit.index for hit in expected]
    assert asked[embedded(at, client)].scores == pytest.approx([hit.score for hit in expected], abs=1e-6)


def check_refusals(asked: Asked, client: str) -> None:
    """The right key opens, a wrong one is the client's own error, and so is what is too much; both with our words."""
    at = asked.servers
    opened, refused, too_much = (asked[call(at, client)] for call in (right_key, wrong_key, too_many))
    if client in KEYLESS:
        for outcome in (opened, refused, too_much):
            assert outcome.error == of_family(client, UNAUTHORIZED)
            assert "This server needs a key" in outcome.message
        return
    assert opened.order == [2, 0, 1]
    assert refused.error == of_family(client, UNAUTHORIZED)
    if client in SPLITTING:
        assert len(too_much.order) == len(TEXTS)
    else:
        assert too_much.error == of_family(client, TOO_MANY)
    if client not in SILENT:
        assert "The key is none of this server's." in refused.message
        if client not in SPLITTING:
            assert f"{len(TEXTS)} documents are more than the {MOST}" in too_much.message
    for outcome in (refused, too_much):
        assert WRONG not in outcome.message
        assert KEY not in outcome.message
        assert QUERY not in outcome.message
        assert TEXTS[0] not in outcome.message


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_gets_the_ranking_that_a_call_in_process_gives(client: str, asked: Asked, model: Reranker) -> None:
    check_rankings(asked, client, model)


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_is_refused_in_its_own_words(client: str, asked: Asked) -> None:
    check_refusals(asked, client)


@pytest.mark.parametrize("client", CLIENTS)
def test_clients_that_try_again_wait_as_long_as_they_are_told(client: str, asked: Asked) -> None:
    call = busy(asked.servers, client)
    came = asked.servers.scorer.came[call.query]
    if client not in PATIENT:
        assert asked[call].error
        assert len(came) == 1
        return
    assert asked[call].order == [hit.index for hit in Reranker(Busy({call.query: [0.0]})).rank(call.query, TEXTS)]
    assert len(came) == 2
    if not client.startswith("haystack"):  # which has times of its own
        assert came[1] - came[0] >= WAIT


@pytest.fixture(scope="module")
def asked_by_litellm(model: Reranker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    assert PYTHON is not None
    with servers(tmp_path_factory.mktemp("keys"), model) as at:
        calls = [call(at, f"litellm-{service}") for service in LITELLM for call in COMMON]
        yield Asked(at, make(PYTHON, ["gateways"], calls))


@pytest.mark.slow
@pytest.mark.parametrize("service", LITELLM)
def test_litellm_reaches_the_server_as_any_service(service: str, asked_by_litellm: Asked, model: Reranker) -> None:
    check_rankings(asked_by_litellm, f"litellm-{service}", model)
    check_refusals(asked_by_litellm, f"litellm-{service}")
