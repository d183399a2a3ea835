"""The SDKs of Cohere and Voyage, unmodified, with the server in their services' place."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest

pytest.importorskip("cohere", reason="the official SDK is the client")
pytest.importorskip("voyageai", reason="the official SDK is the client")

import cohere
import voyageai

from serving import serving
from table_scorer import TableScorer
from uprank import Ranking, Reranker
from uprank.errors import ModelLoadError

KEY = "loopback-key-1f3e"
WRONG = "loopback-key-0000"
MOST = 8

QUERY = "Wo schläft der Fuchs? 🦊"
SCORES = {
    "a red fox": 2.5,
    "naïve café\u2028\x00": -1.25,
    'a "quoted" \\ line\n\ttab': 7.0,
    "日本語 🗾": -1.25,
    " spaces ": 1e-9,
    "": -11.0,
}
TEXTS = [*SCORES, "a red fox"]

Found = list[tuple[int, float]]
Ask = Callable[..., "tuple[Found, Any]"]  # Any: the SDK's own answer


# Six clients, each asked in the same words


def _cohere_v1(address: str, texts: Sequence[object], key: str = KEY, **call: object) -> tuple[Found, Any]:
    with cohere.Client(key, base_url=address) as client:
        answer = client.rerank(query=QUERY, documents=texts, **call)
    return [(one.index, one.relevance_score) for one in answer.results], answer


def _cohere_v2(address: str, texts: Sequence[object], key: str = KEY, **call: object) -> tuple[Found, Any]:
    with cohere.ClientV2(key, base_url=address) as client:
        answer = client.rerank(query=QUERY, documents=texts, **call)
    return [(one.index, one.relevance_score) for one in answer.results], answer


def _cohere_v1_async(address: str, texts: Sequence[object], key: str = KEY, **call: object) -> tuple[Found, Any]:
    async def ask() -> Any:
        async with cohere.AsyncClient(key, base_url=address) as client:
            return await client.rerank(query=QUERY, documents=texts, **call)

    answer = asyncio.run(ask())
    return [(one.index, one.relevance_score) for one in answer.results], answer


def _cohere_v2_async(address: str, texts: Sequence[object], key: str = KEY, **call: object) -> tuple[Found, Any]:
    async def ask() -> Any:
        async with cohere.AsyncClientV2(key, base_url=address) as client:
            return await client.rerank(query=QUERY, documents=texts, **call)

    answer = asyncio.run(ask())
    return [(one.index, one.relevance_score) for one in answer.results], answer


def _in_voyages_words(call: dict[str, Any]) -> dict[str, Any]:
    call.pop("request_options", None)  # without it, it tries once
    return {"top_k" if name == "top_n" else name: value for name, value in call.items()}


def _voyage(address: str, texts: Sequence[object], key: str = KEY, **call: object) -> tuple[Found, Any]:
    client = voyageai.Client(key, base_url=address + "/voyage/v1")
    answer = client.rerank(QUERY, texts, **_in_voyages_words(call))
    return [(one.index, one.relevance_score) for one in answer.results], answer


def _voyage_async(address: str, texts: Sequence[object], key: str = KEY, **call: object) -> tuple[Found, Any]:
    client = voyageai.AsyncClient(key, base_url=address + "/voyage/v1")
    answer = asyncio.run(client.rerank(QUERY, texts, **_in_voyages_words(call)))
    return [(one.index, one.relevance_score) for one in answer.results], answer


COHERE: dict[str, Ask] = {
    "cohere-v1": _cohere_v1,
    "cohere-v1-async": _cohere_v1_async,
    "cohere-v2": _cohere_v2,
    "cohere-v2-async": _cohere_v2_async,
}
VOYAGE: dict[str, Ask] = {"voyage": _voyage, "voyage-async": _voyage_async}
CLIENTS = {**COHERE, **VOYAGE}

NO_RETRY = {"request_options": {"max_retries": 0}}


def in_process(ranking: Ranking) -> Found:
    return [(hit.index, hit.score) for hit in ranking]


@pytest.fixture(scope="module")
def table() -> Reranker:
    """As clients see the model that is served, whose own scores are logits."""
    return Reranker(TableScorer("table", SCORES), score="probability")


@pytest.fixture(scope="module")
def embedded() -> Reranker:
    return Reranker("embedded")


@pytest.fixture(scope="module")
def address(embedded: Reranker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that wants a key and takes few documents."""
    key = tmp_path_factory.mktemp("keys") / "key"
    key.write_text(KEY)
    keys = [{"file": str(key)}]
    logits = Reranker(TableScorer("table", SCORES))
    with serving({"table": logits, "embedded": embedded}, keys=keys, limits={"documents": MOST}) as address:
        yield address


# Answers


@pytest.mark.parametrize("top_n", [None, 1, 3, 50])
@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_gets_the_ranking_that_a_call_in_process_gives(
    client: str, top_n: int | None, address: str, table: Reranker
) -> None:
    """Without ``top_n`` the SDK of Cohere leaves the field out, and that of Voyage sends null."""
    call = {} if top_n is None else {"top_n": top_n}
    found, _ = CLIENTS[client](address, TEXTS, model="rerank-v4.0-pro", **call)
    assert found == in_process(table.rank(QUERY, TEXTS, top_n=top_n))


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_reaches_a_model_by_its_id(client: str, address: str, embedded: Reranker) -> None:
    texts = ["Foxes sleep in dens.", "The stock market fell.", "Füchse schlafen im Bau.", "Bake for ten minutes."]
    found, _ = CLIENTS[client](address, texts, model="embedded")
    expected = in_process(embedded.rank(QUERY, texts))
    assert [index for index, _ in found] == [index for index, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-6)


def test_cohere_may_send_every_optional_field_as_null(address: str, table: Reranker) -> None:
    """Its SDK sends a ``None`` that it was given as null."""
    expected = in_process(table.rank(QUERY, TEXTS))
    optional = dict.fromkeys(["top_n", "rank_fields", "return_documents", "max_chunks_per_doc"])
    for ask in (_cohere_v1, _cohere_v1_async):
        assert ask(address, TEXTS, model=None, **optional)[0] == expected
    optional = dict.fromkeys(["top_n", "max_tokens_per_doc", "priority"])
    for ask in (_cohere_v2, _cohere_v2_async):
        assert ask(address, TEXTS, model="m", **optional)[0] == expected


def test_cohere_reads_version_usage_and_warnings(address: str) -> None:
    _, answer = _cohere_v2(address, TEXTS, model="m", max_tokens_per_doc=100)
    assert answer.id
    assert answer.meta.api_version.version == "2"
    assert answer.meta.billed_units.search_units == 1
    assert any("max_tokens_per_doc" in warning for warning in answer.meta.warnings)
    _, answer = _cohere_v2(address, TEXTS, model="m")
    assert not answer.meta.warnings


def test_cohere_gets_its_documents_back_if_it_asks(address: str) -> None:
    _, answer = _cohere_v1(address, TEXTS, model="m", return_documents=True)
    assert [one.document.text for one in answer.results] == [TEXTS[one.index] for one in answer.results]
    _, answer = _cohere_v1(address, TEXTS, model="m", return_documents=False)
    assert [one.document for one in answer.results] == [None] * len(TEXTS)


def test_cohere_may_send_objects_and_say_which_fields_count(address: str, table: Reranker) -> None:
    objects = [{"text": text, "title": TEXTS[-1 - number]} for number, text in enumerate(TEXTS)]
    found, answer = _cohere_v1(address, objects, model="m", return_documents=True)
    assert found == in_process(table.rank(QUERY, TEXTS))
    assert [one.document.title for one in answer.results] == [objects[one.index]["title"] for one in answer.results]
    found, _ = _cohere_v1(address, objects, model="m", rank_fields=["title"])
    assert found == in_process(table.rank(QUERY, [one["title"] for one in objects]))


@pytest.mark.parametrize("client", VOYAGE)
def test_voyage_has_its_documents_and_counts_tokens(client: str, address: str) -> None:
    found, answer = CLIENTS[client](address, TEXTS, model="rerank-2.5", truncation=False)
    assert [one.document for one in answer.results] == [TEXTS[index] for index, _ in found]
    assert answer.total_tokens == len(SCORES)  # the scorer counts one for each text that it reads


async def test_many_calls_over_one_client_get_their_own_answers() -> None:
    """Each query has one document that only it shares a word with."""
    texts = [f"word{number} and nothing else" for number in range(24)]
    with serving({"bm25": Reranker("bm25")}) as address:
        voyage = voyageai.AsyncClient(KEY, base_url=address + "/voyage/v1")
        async with cohere.AsyncClientV2(KEY, base_url=address) as client:
            calls = [client.rerank(model="m", query=text, documents=texts, top_n=1) for text in texts]
            more = [voyage.rerank(text, texts, model="m", top_k=1) for text in texts]
            answers = await asyncio.gather(*calls, *more)
    assert [answer.results[0].index for answer in answers] == [*range(24), *range(24)]


# Errors, each as the SDK's own


REFUSALS: dict[str, tuple[dict[str, object], str, type[Exception], type[Exception]]] = {
    "wrong key": ({"key": WRONG}, "key", cohere.UnauthorizedError, voyageai.error.AuthenticationError),
    "too many documents": (
        {"texts": ["a"] * (MOST + 1)},
        f"{MOST + 1} documents are more than the {MOST}",
        cohere.UnprocessableEntityError,
        voyageai.error.MalformedRequestError,
    ),
    "no count": ({"top_n": -1}, "top_", cohere.UnprocessableEntityError, voyageai.error.MalformedRequestError),
}


@pytest.mark.parametrize("why", REFUSALS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_refusal_is_the_clients_own_error_with_our_message(client: str, why: str, address: str) -> None:
    call, message, of_cohere, of_voyage = REFUSALS[why]
    with pytest.raises(of_cohere if client in COHERE else of_voyage) as caught:
        CLIENTS[client](address, **{"texts": TEXTS, "model": "m", **call})
    told = caught.value.body["message"] if client in COHERE else str(caught.value)
    assert message in told
    assert WRONG not in str(caught.value)
    assert QUERY not in str(caught.value)


def test_a_model_that_is_not_there_is_not_found() -> None:
    models = {"only": {"model": "bm25"}, "second": {"model": "bm25"}}
    with serving({"only": Reranker("bm25")}, models=models) as address:
        for ask in COHERE.values():
            with pytest.raises(cohere.NotFoundError) as caught:
                ask(address, TEXTS, model="other")
            assert caught.value.body["message"] == "There is no such model here. There are only, second."
        for ask in VOYAGE.values():
            with pytest.raises(voyageai.error.APIError, match="There are only, second"):
                ask(address, TEXTS, model="other")


@pytest.fixture(scope="module")
def late() -> Iterator[str]:
    """A server whose model needs longer than it has."""

    async def sleep(query: str, texts: list[str]) -> list[float]:
        await asyncio.sleep(60)
        return [0.0] * len(texts)

    with serving({"late": Reranker(sleep)}, deadline=0.1) as address:
        yield address


@pytest.fixture(scope="module")
def broken() -> Iterator[str]:
    """A server whose model cannot be loaded."""
    scorer = TableScorer("broken", {}, fails={"*": ModelLoadError("The model is not there.")})
    with serving({"broken": Reranker(scorer)}) as address:
        yield address


@pytest.mark.parametrize("client", CLIENTS)
def test_what_the_server_cannot_do_now_is_unavailable_to_clients(client: str, late: str, broken: str) -> None:
    of_voyage = voyageai.error.ServiceUnavailableError
    with pytest.raises(cohere.GatewayTimeoutError if client in COHERE else of_voyage):
        CLIENTS[client](late, TEXTS, model="m", **NO_RETRY)
    with pytest.raises(cohere.ServiceUnavailableError if client in COHERE else of_voyage):
        CLIENTS[client](broken, TEXTS, model="m", **NO_RETRY)


# Overload


def test_a_client_that_is_told_to_wait_comes_back_and_is_answered() -> None:
    """The only place is taken until the server has sent 429: the SDK waits as it was told, and gets its answer."""
    entered, release = threading.Event(), threading.Event()
    refused: list[httpx.Response] = []

    def score(query: str, texts: list[str]) -> list[float]:
        if query == "the first":
            entered.set()
            assert release.wait(20)
        return [float(len(text)) for text in texts]

    def seen(response: httpx.Response) -> None:
        if response.status_code == 429:
            refused.append(response)
            release.set()

    with serving({"m": Reranker(score)}, max_queue=1) as address:
        first: list[httpx.Response] = []
        body = {"query": "the first", "documents": ["a", "bb"]}
        holder = threading.Thread(target=lambda: first.append(httpx.post(f"{address}/rerank", json=body, timeout=30)))
        holder.start()
        try:
            assert entered.wait(20)
            with (
                pytest.raises(cohere.TooManyRequestsError) as caught,
                cohere.ClientV2(KEY, base_url=address) as client,
            ):
                client.rerank(model="m", query="second", documents=["a", "bb"], **NO_RETRY)
            assert int(caught.value.headers["retry-after"]) >= 1
            for ask in VOYAGE.values():
                with pytest.raises(voyageai.error.RateLimitError):
                    ask(address, ["a", "bb"], model="m")
            patient = httpx.Client(event_hooks={"response": [seen]})
            with cohere.ClientV2(KEY, base_url=address, httpx_client=patient) as client:
                answer = client.rerank(model="m", query="third", documents=["a", "bb"])
        finally:
            release.set()
            holder.join(30)
    assert len(refused) == 1
    assert [one.index for one in answer.results] == [1, 0]
    assert [one["index"] for one in first[0].json()["results"]] == [1, 0]
