"""Everything that can go wrong with a request, for every service, at every place of a call, by both drivers."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx
import pytest

from http_cases import PROVIDER_CASES, QUERY, TEXTS, Case, Servers, case_of, check_ranking
from http_troubles import TIMEOUT, TROUBLES, Trouble, for_service, with_status
from rerank_servers import Request, RerankServer, refused_port, silent
from uprank import Ranking
from uprank.errors import (
    BillingError,
    ConnectionFailedError,
    DeadlineExceededError,
    RateLimitError,
    RequestTooLargeError,
    ServiceError,
)
from uprank.scorers.http import retries
from uprank.scorers.http.providers import PROVIDERS

MARKS = (1, 5, 9)  # the second document of each of three chunks of four
SHORT_TIMEOUT = 0.1  # where it makes no difference if a busy machine lets others than the marked request time out
REPRESENTATIVE = [case_of(name) for name in ("cohere", "jina", "tei")]
"""The SDK, the usual kind of service, and a self-hosted one that answers with a bare list."""

pytestmark = pytest.mark.no_cover  # the same lines thousands of times; others cover them

TIMEOUTS = ("slow", "silent")
DRIVERS = ("rank", "arank")
CALL = "x-test-call"  # a header that tells the requests of one call from those that an earlier one gave up
_calls = itertools.count()
HEALING = [trouble for trouble in TROUBLES if trouble.sends == 2]


def everywhere() -> Iterator[tuple[Case, Trouble, int, bool]]:
    """Every service, fault and place, and whether it is tried each time or by the long tests alone.

    Each time: every fault at one place of three services, and a fifth of the faults of each other service. Every place
    comes up for each fault, since the three services' places differ.
    """
    for number, case in enumerate(PROVIDER_CASES):
        for other, trouble in enumerate(TROUBLES):
            if (str(case), trouble.name) == ("cohere", "index-string"):
                continue  # below: its SDK reads the number
            own = (number + other) % 3
            for place in range(3) if case in REPRESENTATIVE else [own]:
                often = place == own and (case in REPRESENTATIVE or number % 5 == other % 5)
                yield case, for_service(case, trouble), place, often


EVERYWHERE = [
    pytest.param(*values, id=f"{values[0]}-{values[1]}-{values[2]}", marks=[] if often else pytest.mark.slow)
    for *values, often in everywhere()
]


class Misdirected(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The network, but requests with a marked document go where nobody listens."""

    def __init__(self, mark: str, times: int | None) -> None:
        self.mark, self.left, self.sent = mark.encode(), times, 0
        self.port = refused_port()
        # No certificates: to read them takes longer than the call.
        self.network, self.async_network = httpx.HTTPTransport(verify=False), httpx.AsyncHTTPTransport(verify=False)

    def _directed(self, request: httpx.Request) -> httpx.Request:
        if self.mark in request.content and self.left != 0:
            self.left = None if self.left is None else self.left - 1
            self.sent += 1
            request.url = request.url.copy_with(port=self.port)
        return request

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.network.handle_request(self._directed(request))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self.async_network.handle_async_request(self._directed(request))

    def close(self) -> None:
        self.network.close()

    async def aclose(self) -> None:
        await self.async_network.aclose()


@dataclass
class Outcome:
    """What came of one call.

    Attributes:
        marked: The requests that held the marked document and reached the server.
        sends: How often they were sent, also to where nobody listens.
    """

    result: Ranking | ServiceError
    marked: list[Request]
    sends: int

    @property
    def error(self) -> ServiceError:
        assert isinstance(self.result, ServiceError), self.result
        return self.result

    @property
    def ranking(self) -> Ranking:
        assert isinstance(self.result, Ranking), self.result
        return self.result


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr("uprank.scorers.http.scorer._PER_MINUTE", 0.01)
    monkeypatch.setattr("uprank.scorers.http.scorer._PER_REQUEST", 0.01)


async def outcome_of(
    case: Case,
    server: RerankServer,
    trouble: Trouble,
    place: int,
    driver: str,
    *,
    times: int | None = None,
    **more: object,
) -> Outcome:
    """Rank three chunks of which one meets trouble, always or so many times."""
    mark, call = TEXTS[MARKS[place]], str(next(_calls))
    options: dict[str, object] = {"max_documents": 4, "max_retries": 1, "deadline": 60.0, **more}
    options["headers"] = {**(case.headers or {}), CALL: call}
    options.setdefault("timeout", SHORT_TIMEOUT if trouble.name in TIMEOUTS else 10.0)
    transport, earlier = None, len(server.requests)

    def marked(request: Request) -> bool:
        return mark in request.texts and request.headers.get(CALL) == call

    if trouble.fault is None:
        options["transport"] = transport = Misdirected(mark, times)
    else:
        server.fail_when(marked, trouble.fault, times=times)
    result: Ranking | ServiceError
    reranker = case.reranker(server, **options)
    try:
        if driver == "arank":
            result = await reranker.arank(QUERY, TEXTS)
        else:  # beside the loop, where another call may be waiting for the same trouble
            result = await asyncio.to_thread(reranker.rank, QUERY, TEXTS)
    except ServiceError as error:
        result = error
    finally:
        await reranker.aclose()
        for thread in threading.enumerate():  # requests that were given up may still be on their way
            if thread.name == "uprank-round":
                await asyncio.to_thread(thread.join, 5.0)
    seen = [request for request in server.requests[earlier:] if request.method == "POST" and marked(request)]
    return Outcome(result, seen, len(seen) + (transport.sent if transport is not None else 0))


async def outcomes_of(case: Case, server: RerankServer, trouble: Trouble, place: int, **more: object) -> list[Outcome]:
    """The outcomes of both drivers; where time has to run out, of both at once."""
    calls = [outcome_of(case, server, trouble, place, driver, **more) for driver in DRIVERS]
    return list(await asyncio.gather(*calls)) if trouble.name in TIMEOUTS else [await call for call in calls]


def expected_error(case: Case, trouble: Trouble) -> type[ServiceError]:
    if case.service == "jina" and trouble.code == 403:
        return BillingError  # its own code for an empty account
    return trouble.error


def has_id(case: Case, trouble: Trouble) -> bool | None:
    """Whether the failed reply carries a request id; ``None`` where it may."""
    if trouble.code is None or not trouble.own_id:
        return None if trouble.name == "truncated" else False
    if case.service == "jina" and trouble.code == 422:
        return None  # within a sentence
    return case.error_ids if trouble.code != 200 else case.reply_ids


def without_ids(message: str) -> str:
    return re.sub(r"0{8}-0000-4000-8000-\d{12}", "<id>", message)


def without_details(message: str) -> str:
    """Less what the operating system and the client's two networks call the same failure."""
    return re.sub(r"\w+Error\b.*", "<detail>", message)


def check_error(case: Case, trouble: Trouble, outcome: Outcome) -> None:
    error, message = outcome.error, str(outcome.error)
    assert type(error) is expected_error(case, trouble)
    assert (error.provider, error.model, error.status) == (case.scheme, case.name, trouble.code)
    assert case.name in message
    if trouble.code is not None:
        assert f"HTTP {trouble.code}" in message
    wanted = has_id(case, trouble)
    if wanted:
        assert error.request_id is not None
    if error.request_id is not None:
        assert wanted is not False
        assert error.request_id.endswith(outcome.marked[-1].id)  # that of the last attempt
        assert error.request_id in message
    if isinstance(error, RateLimitError):
        assert error.retry_after == trouble.wait
    if isinstance(error, RequestTooLargeError):
        assert (error.sent or "").startswith("1 documents, ")
        assert error.allowed
    assert ("after 1 retry" in message) == (trouble.sends == 2)
    # On a busy machine an attempt may time out before the server has read it.
    assert outcome.sends == trouble.sends or (trouble.name in TIMEOUTS and outcome.sends < trouble.sends)


def test_every_provider_is_here_and_every_place_comes_up() -> None:
    assert {case.scheme for case in PROVIDER_CASES} == set(PROVIDERS)
    assert len(PROVIDER_CASES) == len(PROVIDERS)
    each_time = [param.values for param in EVERYWHERE if not param.marks]
    for trouble in TROUBLES:
        services = {str(case): place for case, one, place in each_time if one.name == trouble.name}
        assert len(services) >= 5
        assert set(services.values()) == {0, 1, 2} or trouble.name == "index-string"
    assert {str(case) for case, _, _ in each_time} == {str(case) for case in PROVIDER_CASES}


@pytest.mark.parametrize(("case", "trouble", "place"), EVERYWHERE)
async def test_a_fault_is_the_same_error_from_both_drivers(
    case: Case, trouble: Trouble, place: int, servers: Servers
) -> None:
    server, allowed = servers.of(case), 1
    if trouble.name in TIMEOUTS and case not in REPRESENTATIVE:
        trouble, allowed = replace(trouble, sends=1), 0  # that it is sent once more takes long to see
    outcomes = await outcomes_of(case, server, trouble, place, max_retries=allowed)
    for outcome in outcomes:
        check_error(case, trouble, outcome)
    one, other = (without_ids(str(outcome.error)) for outcome in outcomes)
    if trouble.error is ConnectionFailedError:
        one, other = without_details(one), without_details(other)
    assert one == other


def passed_through() -> Iterator[object]:
    """What is done with an error is the pipeline's, whatever the service: each fault for one of three each time."""
    for case, trouble, place, often in everywhere():
        if often and case in REPRESENTATIVE:
            turn = TROUBLES.index(trouble) // 3 % 3 == REPRESENTATIVE.index(case)
            yield pytest.param(
                case, trouble, place, id=f"{case}-{trouble}-{place}", marks=[] if turn else pytest.mark.slow
            )


@pytest.mark.parametrize(("case", "trouble", "place"), list(passed_through()))
async def test_passthrough_keeps_the_original_order_and_says_so(
    case: Case, trouble: Trouble, place: int, servers: Servers
) -> None:
    server = servers.of(case)
    # One driver for each place and the other for the next: both come up for each fault.
    driver = DRIVERS[(place + [one.name for one in TROUBLES].index(trouble.name)) % 2]
    outcome = await outcome_of(case, server, trouble, place, driver, on_error="passthrough", max_retries=0)
    ranking = outcome.ranking
    assert ranking.degraded
    assert [hit.index for hit in ranking] == list(range(len(TEXTS)))
    assert [hit.document.text for hit in ranking] == TEXTS
    assert {hit.score for hit in ranking} == {None}  # none of those that the other chunks got
    (warning,) = ranking.warnings
    assert case.name in warning
    assert "original order" in warning


# Which service it is makes no difference to a retry: a third of the faults for each, all of them for three.
HEALED = [
    pytest.param(case, trouble, (number + other) % 3, id=f"{case}-{trouble}")
    for number, case in enumerate(PROVIDER_CASES)
    for other, trouble in enumerate(HEALING)
    if for_service(case, trouble).sends == 2
    and (case in REPRESENTATIVE or (trouble.name not in TIMEOUTS and (number + 2 * other) % 3 == 0))
]


@pytest.mark.parametrize(("case", "trouble", "place"), HEALED)
async def test_a_fault_that_passes_costs_one_retry(case: Case, trouble: Trouble, place: int, servers: Servers) -> None:
    server = servers.of(case)
    expected = dict(zip(TEXTS, case.scores(server, TEXTS), strict=True))
    rankings, options = [], {"timeout": TIMEOUT} if trouble.name in TIMEOUTS else {}
    for outcome in await outcomes_of(case, server, trouble, place, times=1, **options):
        check_ranking(outcome.ranking, TEXTS, expected, case.kind)
        usage = outcome.ranking.usage
        assert (usage.requests, usage.retries) == (4 + case.asks_first, 1)
        assert (usage.tokens, usage.search_units) == case.used(TEXTS[:4], TEXTS[4:8], TEXTS[8:])
        assert outcome.sends == 2
        rankings.append(outcome.ranking)
    assert rankings[0] == rankings[1]


@pytest.mark.parametrize("case", PROVIDER_CASES, ids=str)
@pytest.mark.parametrize("driver", ["rank", "arank"])
async def test_a_chunk_that_is_too_large_once_is_halved(case: Case, driver: str, servers: Servers) -> None:
    server = servers.of(case)
    expected = dict(zip(TEXTS, case.scores(server, TEXTS), strict=True))
    trouble = with_status(413, RequestTooLargeError)
    outcome = await outcome_of(case, server, trouble, 1, driver, times=1)
    check_ranking(outcome.ranking, TEXTS, expected, case.kind)
    usage = outcome.ranking.usage
    assert (usage.requests, usage.retries) == (5 + case.asks_first, 0)
    assert [len(request.texts) for request in outcome.marked] == [4, 2]


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("driver", ["rank", "arank"])
async def test_an_index_that_the_sdk_reads_as_a_number_is_that_number(
    place: int, driver: str, servers: Servers
) -> None:
    case = case_of("cohere")
    server = servers.of(case)
    trouble = next(trouble for trouble in TROUBLES if trouble.name == "index-string")
    outcome = await outcome_of(case, server, trouble, place, driver)
    expected = dict(zip(TEXTS, case.scores(server, TEXTS), strict=True))
    check_ranking(outcome.ranking, TEXTS, expected, case.kind)


@pytest.mark.parametrize("case", PROVIDER_CASES, ids=str)
@pytest.mark.parametrize("driver", ["rank", "arank"])
async def test_nobody_listens(case: Case, driver: str, servers: Servers) -> None:
    reranker = case.reranker(servers.of(case), base_url=f"http://127.0.0.1:{refused_port()}/rerank", max_retries=1)
    with pytest.raises(ConnectionFailedError, match="after 1 retry") as caught:
        await reranker.arank(QUERY, TEXTS) if driver == "arank" else reranker.rank(QUERY, TEXTS)
    await reranker.aclose()
    assert (caught.value.provider, caught.value.model, caught.value.status) == (case.scheme, case.name, None)


@pytest.mark.parametrize("case", REPRESENTATIVE, ids=str)
@pytest.mark.parametrize("driver", ["rank", "arank"])
async def test_the_deadline_ends_all_retrying(case: Case, driver: str, servers: Servers) -> None:
    server = servers.of(case)
    trouble = Trouble("silent", silent(5), DeadlineExceededError)
    outcome = await outcome_of(case, server, trouble, 2, driver, timeout=10.0, deadline=TIMEOUT, max_retries=9)
    assert type(outcome.error) is DeadlineExceededError
    assert f"deadline of {TIMEOUT} s" in str(outcome.error)
    assert outcome.sends == 1
