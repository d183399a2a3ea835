"""What scores mean, where the server says so in a header, as ``uprank serve`` does."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence

import httpx
import pytest

from uprank import Ranking, Reranker
from uprank.errors import BadReplyError, CanaryError, ScoreKindError

HEADER = "X-Uprank-Score-Kind"
Ask = Callable[[Reranker, list[str]], Awaitable[Ranking]]


async def by_rank(reranker: Reranker, texts: list[str]) -> Ranking:
    return reranker.rank("q", texts)


async def by_arank(reranker: Reranker, texts: list[str]) -> Ranking:
    return await reranker.arank("q", texts)


both_ways = pytest.mark.parametrize("ask", [by_rank, by_arank], ids=["sync", "async"])
# One that httpx carries, and the one that Cohere's SDK does; both expect probabilities.
both_carriers = pytest.mark.parametrize("model", ["jina:m", "cohere:m"])


def served(
    model: str, kinds: Mapping[str, str | None], scores: Mapping[str, float] | None = None, **options: object
) -> Reranker:
    """A reranker over a service that says of a reply what its first document has under ``kinds``, or ``"*"``.

    Args:
        model: Of any service.
        kinds: The header's values; ``None`` is a reply without it.
        scores: Of each document; by default the number that it is.
        options: Of the scorer.
    """

    def reply(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/info"):
            return httpx.Response(404)
        body = json.loads(request.content)
        texts: Sequence[str] = body.get("documents") or body["texts"]
        stated = kinds.get(texts[0], kinds.get("*"))
        results = [
            {"index": index, "relevance_score": float(text) if scores is None else scores[text]}
            for index, text in enumerate(texts)
        ]
        headers = {} if stated is None else {HEADER: stated}
        return httpx.Response(200, headers=headers, json=results if "texts" in body else {"results": results})

    return Reranker(model, api_key="k", transport=httpx.MockTransport(reply), **options)


def shown(ranking: Ranking) -> list[tuple[int, float | None]]:
    return [(hit.index, hit.score) for hit in ranking]


@both_ways
@both_carriers
@pytest.mark.parametrize("kind", ["logit", "cosine", "rank"])
async def test_scores_are_of_the_kind_that_the_reply_says(ask: Ask, model: str, kind: str) -> None:
    ranking = await ask(served(model, {"*": kind}), ["-0.5", "3.5", "0.25"])
    assert ranking.score_kind == kind
    assert shown(ranking) == [(1, 3.5), (2, 0.25), (0, -0.5)]


@both_carriers
async def test_what_is_said_to_be_a_probability_must_be_one(model: str) -> None:
    ranking = await by_rank(served(model, {"*": "probability"}), ["0.25", "0.5"])
    assert (ranking.score_kind, shown(ranking)) == ("probability", [(1, 0.5), (0, 0.25)])
    with pytest.raises(BadReplyError, match=r"3\.5, which is no probability"):
        await by_rank(served("xinference:m", {"*": "probability"}), ["0.25", "3.5"])  # whose own may be anything


@both_ways
@both_carriers
@pytest.mark.parametrize("stated", [None, "", "points", "LOGIT", "logit, cosine"])
async def test_a_word_that_is_not_known_says_nothing(ask: Ask, model: str, stated: str | None) -> None:
    ranking = await ask(served(model, {"*": stated}), ["0.25", "0.5"])
    assert ranking.score_kind == "probability"
    with pytest.raises(BadReplyError, match=r"3\.5, which is no probability"):
        await ask(served(model, {"*": stated}), ["0.25", "3.5"])


@pytest.mark.parametrize(
    ("stated", "kind", "score"),
    [
        (None, "probability", 1 / (1 + math.exp(-0.75))),
        ("logit", "probability", 1 / (1 + math.exp(-0.75))),  # as was asked for: the sigmoid is the service's own
        ("probability", "probability", 0.75),
        ("cosine", "cosine", 0.75),
        ("rank", "rank", 0.75),
    ],
)
@pytest.mark.parametrize("model", ["tei:", "infinity:m"])
async def test_only_logits_get_the_sigmoid_that_a_service_leaves_to_its_client(
    model: str, stated: str | None, kind: str, score: float
) -> None:
    ranking = await by_rank(served(model, {"*": stated}), ["0.75"])
    assert ranking.score_kind == kind
    assert ranking[0].score == pytest.approx(score, rel=1e-12)


@both_ways
@both_carriers
async def test_the_caller_knows_better(ask: Ask, model: str) -> None:
    ranking = await ask(served(model, {"*": "cosine"}, score_kind="logit"), ["0.5", "-2.0"])
    assert (ranking.score_kind, shown(ranking)) == ("logit", [(0, 0.5), (1, -2.0)])
    with pytest.raises(BadReplyError, match="which is no probability"):
        await ask(served(model, {"*": "cosine"}, score_kind="probability"), ["0.5", "-2.0"])


async def test_probabilities_are_made_of_logits_and_of_nothing_else() -> None:
    asked = {"score": "probability"}
    ranking = await by_rank(served("jina:m", {"*": "logit"}, **asked), ["3.0"])
    assert ranking.score_kind == "probability"
    assert ranking[0].score == pytest.approx(1 / (1 + math.exp(-3)), rel=1e-12)
    with pytest.raises(ScoreKindError, match="cosine"):
        await by_rank(served("jina:m", {"*": "cosine"}, **asked), ["0.5"])


@both_ways
@both_carriers
@pytest.mark.parametrize("last", ["rank", None])
async def test_parts_of_one_request_must_mean_the_same(ask: Ask, model: str, last: str | None) -> None:
    kinds = {"*": "cosine", "0.3": last}
    texts = ["0.1", "0.2", "0.3"]
    with pytest.raises(BadReplyError, match="sent in parts") as raised:
        await ask(served(model, kinds, max_documents=1), texts)
    assert "cosine" in str(raised.value)
    assert (last or "probability") in str(raised.value)
    for changes in ({"max_documents": 3}, {"max_documents": 1, "score_kind": "rank"}):
        ranking = await ask(served(model, kinds, **changes), texts)
        assert shown(ranking) == [(2, 0.3), (1, 0.2), (0, 0.1)]


async def test_parts_may_leave_unsaid_what_is_known() -> None:
    ranking = await by_rank(served("jina:m", {"0.1": "probability", "*": None}, max_documents=1), ["0.1", "0.2"])
    assert (ranking.score_kind, shown(ranking)) == ("probability", [(1, 0.2), (0, 0.1)])


async def test_queries_of_one_call_may_differ() -> None:
    reranker = served("jina:m", {"0.1": "cosine", "*": "rank"})
    rankings = await reranker.arank_many(["q", "r"], [["0.1", "-0.5"], ["7", "9"]])
    assert [(one.score_kind, shown(one)) for one in rankings] == [
        ("cosine", [(0, 0.1), (1, -0.5)]),
        ("rank", [(1, 9.0), (0, 7.0)]),
    ]


async def test_the_obvious_pair_is_judged_by_what_its_scores_mean() -> None:
    """Both lie under one half, which is right of cosines and wrong of probabilities."""
    answer, other = (
        "Paris is the capital of France.",
        "Knead the dough for ten minutes and let it rise in a warm place.",
    )
    scores = {answer: 0.4, other: 0.1}
    ranking = await by_rank(served("jina:m", {"*": "cosine"}, scores, check=True), [answer])
    assert ranking[0].score == 0.4
    with pytest.raises(CanaryError):
        await by_rank(served("jina:m", {"*": None}, scores, check=True), [answer])


def test_scores_are_not_kept_for_a_caller_who_says_what_they_mean() -> None:
    told, untold = served("jina:m", {}, score_kind="probability"), served("jina:m", {})
    assert told.scorer.identity() != untold.scorer.identity()
