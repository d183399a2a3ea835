"""What goes wrong between the SDK and Cohere is ours to report and to retry; and how long the SDK's clients live."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import pickle
from itertools import pairwise

import pytest

pytest.importorskip("cohere", reason="the official SDK is what is tested here")

import cohere

from cohere_clients import KEY, body, clients
from rerank_servers import refused_port, serve, silent, status
from rerank_servers.client import QUERY, TEXTS
from uprank import Reranker
from uprank.errors import (
    AuthenticationError,
    BadReplyError,
    ConnectionFailedError,
    DeadlineExceededError,
    RateLimitError,
    ScorerError,
    ServerError,
)
from uprank.scorers import CohereScorer


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CO_API_KEY", "COHERE_API_KEY", "CO_API_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("uprank.scorers.http.retries._FIRST_WAIT", 0.01)
    monkeypatch.setattr("uprank.scorers.http.scorer._PER_MINUTE", 0.01)


# What goes wrong


@pytest.mark.parametrize("kind", ["own", "client", "both"])
async def test_the_sdks_own_retries_are_off_and_ours_are_on(kind: str) -> None:
    with serve("cohere", key=KEY) as server:
        for retries in (0, 1):
            server.heal()
            server.fail_always(status(503))
            scorer = CohereScorer("m", max_retries=retries, **clients(server.base_url, kind))  # type: ignore[arg-type]  # by name
            before = len(server.posts)
            with pytest.raises(ServerError, match="HTTP 503") as plain:
                scorer.score(QUERY, TEXTS)
            assert len(server.posts) - before == retries + 1
            with pytest.raises(ServerError) as awaited:
                await scorer.ascore(QUERY, TEXTS)
            assert len(server.posts) - before == 2 * (retries + 1)
            for error in (plain.value, awaited.value):
                assert ("after 1 retry" in str(error)) is (retries == 1)
        server.heal()
        server.fail([len(server.posts), len(server.posts) + 1], status(429))
        ranking = await Reranker(CohereScorer("m", **clients(server.base_url, kind))).arank(QUERY, TEXTS)  # type: ignore[arg-type]  # by name
        assert (ranking.usage.retries, ranking.usage.requests) == (2, 3)


async def test_a_wait_that_the_service_asks_for_is_kept() -> None:
    with serve("cohere", key=KEY) as server:
        server.fail([0, 1], status(429, retry_after_ms=150))
        server.fail([3], status(429, retry_after=1000))
        reranker = Reranker("cohere:m", api_key=KEY, base_url=server.base_url, deadline=5)
        await reranker.arank(QUERY, TEXTS)
        times = [request.received for request in server.posts]
        assert all(0.14 < later - earlier < 1 for earlier, later in pairwise(times))
        with pytest.raises(RateLimitError) as caught:
            await reranker.arank(QUERY, TEXTS)
        assert caught.value.retry_after == 1000
        assert len(server.posts) == 4
        await reranker.aclose()


@pytest.mark.parametrize("kind", ["own", "client", "both"])
async def test_a_wrong_key_no_connection_and_no_reply_have_their_own_errors(kind: str) -> None:
    with serve("cohere", key="another") as server:
        scorer = CohereScorer("m", timeout=0.3, max_retries=0, **clients(server.base_url, kind))  # type: ignore[arg-type]  # by name
        server.fail([2, 3], silent(1.0))
        errors: list[ScorerError] = []
        for kind_of_error in (AuthenticationError, DeadlineExceededError):
            with pytest.raises(kind_of_error) as plain:
                scorer.score(QUERY, TEXTS)
            with pytest.raises(kind_of_error) as awaited:
                await scorer.ascore(QUERY, TEXTS)
            errors += [plain.value, awaited.value]
        assert [type(error) for error in errors] == [AuthenticationError] * 2 + [DeadlineExceededError] * 2
        assert KEY not in " ".join(map(str, errors))
        await scorer.aclose()
    gone = f"http://127.0.0.1:{refused_port()}"
    scorer = CohereScorer("m", max_retries=0, **clients(gone, kind))  # type: ignore[arg-type]  # by name
    with pytest.raises(ConnectionFailedError, match="no connection"):
        scorer.score(QUERY, TEXTS)
    with pytest.raises(ConnectionFailedError, match="no connection"):
        await scorer.ascore(QUERY, TEXTS)


BODIES = {
    "string": b'"results"',
    "list": b"[1, 2]",
    "number": b"7",
    "null": b"null",
    "results-null": b'{"results": null}',
    "results-numbers": b'{"results": [1, 2]}',
    "no-utf-8": b'\xff\xfe{"a"',
    "brackets": b"[" * 100_000,
    "html": b"<html>Sign in</html>",
    "nan": b'{"results": [{"index": 0, "relevance_score": NaN}]}',
    "score-string": b'{"results": [{"index": 0, "relevance_score": "0.5"}]}',
    "index-null": b'{"results": [{"index": null, "relevance_score": 0.5}]}',
    "huge": json.dumps({"results": [{"index": 0, "relevance_score": 10**400}]}).encode(),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_the_sdk_cannot_read_is_a_bad_reply(name: str) -> None:
    """The SDK does not check replies: of some it makes objects without sense, over others it stumbles."""
    with serve("cohere", key=KEY) as server:
        server.fail_always(status(200, body=BODIES[name]))
        scorer = CohereScorer("m", api_key=KEY, base_url=server.base_url)
        with pytest.raises(BadReplyError, match="HTTP 200, but ") as plain:
            scorer.score("q", ["a"])
        with pytest.raises(BadReplyError, match="HTTP 200, but ") as awaited:
            await scorer.ascore("q", ["a"])
        await scorer.aclose()
        assert len(server.posts) == 2  # paid for: not asked again
    assert str(plain.value).split(": ")[1:2] == str(awaited.value).split(": ")[1:2]


# How long things live


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the SDK's clients as they are made."""
    names: list[str] = []

    def counted(kind: type) -> None:
        make = kind.__init__

        def init(self: object, *arguments: object, **options: object) -> None:
            names.append(kind.__name__)
            make(self, *arguments, **options)

        init.__signature__ = inspect.signature(make)  # type: ignore[attr-defined]  # as the original's
        monkeypatch.setattr(kind, "__init__", init)

    counted(cohere.ClientV2)
    counted(cohere.AsyncClientV2)
    return names


async def test_the_sdks_clients_are_made_once_a_connection(made: list[str]) -> None:
    with serve("cohere", key=KEY) as server:
        reranker = Reranker("cohere:m", api_key=KEY, base_url=server.base_url)
        assert made == []
        for _ in range(3):
            reranker.rank(QUERY, TEXTS)
            await reranker.arank(QUERY, TEXTS)
        assert sorted(made) == ["AsyncClientV2", "ClientV2"]
        assert server.connections == 2
        await reranker.aclose()
        reranker.rank(QUERY, TEXTS)
        assert made[2:] == ["ClientV2"]  # after closing, a new connection
        reranker.close()


def test_event_loops_that_have_ended_leave_nothing_behind() -> None:
    with serve("cohere", key=KEY) as server:
        reranker = Reranker("cohere:m", api_key=KEY, base_url=server.base_url)
        for _ in range(6):
            asyncio.run(reranker.arank(QUERY, TEXTS))
        gc.collect()
        alive = [one for one in gc.get_objects() if isinstance(one, cohere.AsyncClientV2)]
        mine = [one for one in alive if one._client_wrapper.get_base_url() == server.base_url]
        assert len(mine) <= 1
        assert server.connections == 6
        reranker.close()


def test_a_scorer_is_remade_from_its_pickle_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve("cohere", key=KEY) as server:
        pickled = pickle.dumps(CohereScorer("m", api_key=KEY, base_url=server.base_url, max_tokens_per_doc=9))
        assert KEY.encode() not in pickled
        monkeypatch.setenv("CO_API_KEY", KEY)
        again = pickle.loads(pickled)  # noqa: S301 - our own
        assert isinstance(again, CohereScorer)
        again.score("q", ["a"])
        again.close()
        assert body(server) == {"model": "m", "query": "q", "documents": ["a"], "max_tokens_per_doc": 9}
