"""Reading replies: every service's shape gives its scores, and whatever else comes is refused in words."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_servers.client import TEXTS
from uprank import Reranker
from uprank.errors import BadReplyError
from uprank.scorers.http.messages import Unreadable, decode
from uprank.scorers.http.providers import PROVIDERS
from uprank.scorers.http.replies import Results, read_results

RECORDED = sorted((Path(__file__).parent / "recorded" / "replies").glob("*.json"))
NO_TOKENS = {"infinity", "localai"}  # what they call tokens are characters and words
THREE = [{"index": index, "relevance_score": score} for index, score in ((2, 0.9), (0, 0.5), (1, 0.1))]


def read(data: object, count: int = 3, kind: str = "probability") -> Results:
    return read_results(data, count, kind)  # type: ignore[arg-type]  # a kind by its name


def outcome(data: object, count: int = 3, kind: str = "probability") -> Results | ValueError:
    """What reading gives: results, or why there are none. Anything else that is raised fails the test."""
    try:
        return read(data, count, kind)
    except ValueError as error:
        return error


def changed(**changes: object) -> dict[str, object]:
    """Three results, the second of them (document 0) changed; ``...`` takes a key away."""
    second = {key: value for key, value in {**THREE[1], **changes}.items() if value is not ...}
    return {"results": [THREE[0], second, THREE[2]]}


# Every shape


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_the_recorded_reply_of_each_service_gives_its_scores(file: Path) -> None:
    recorded = json.loads(file.read_text())
    row = PROVIDERS[recorded["scheme"]]
    kind = row.row(recorded["model"]).score_kind or row.score_kind
    got = read_results(decode(json.dumps(recorded["body"]).encode()), recorded["documents"], kind)
    assert got == Results(
        tuple(recorded["scores"]),
        recorded.get("tokens"),
        recorded.get("search_units"),
        tuple(recorded.get("warnings", ())),
        kind,
    )
    assert [type(value) for value in got.values] == [float] * len(recorded["scores"])


def test_every_scheme_has_a_recorded_reply() -> None:
    assert {json.loads(file.read_text())["scheme"] for file in RECORDED} == set(PROVIDERS)


@pytest.mark.parametrize("scheme", [scheme for scheme in PROVIDERS if scheme != "cohere"])
def test_recorded_replies_end_to_end(scheme: str) -> None:
    """Over httpx, the documents come back as the caller's own, best first, ties in the caller's order."""
    for file in RECORDED:
        recorded = json.loads(file.read_text())
        if recorded["scheme"] != scheme:
            continue

        def answer(request: httpx.Request, body: object = recorded["body"]) -> httpx.Response:
            return httpx.Response(200, json=body) if request.method == "POST" else httpx.Response(404)

        name = f"{scheme}:{recorded['model']}" if recorded["model"] else scheme
        with Reranker(
            name, base_url="http://127.0.0.1:9/x", api_key="k", transport=httpx.MockTransport(answer)
        ) as reranker:
            documents = TEXTS[: recorded["documents"]]
            ranking = reranker.rank("a query", documents)
        raw = recorded["scores"]
        order = sorted(range(len(raw)), key=lambda index: (-raw[index], index))
        assert [hit.index for hit in ranking] == order
        assert [hit.document.text for hit in ranking] == [documents[index] for index in order]
        native = PROVIDERS[scheme].native
        shown = [1 / (1 + math.exp(-value)) if native == "probability" else value for value in raw]
        assert [hit.score for hit in ranking] == pytest.approx([shown[index] for index in order], abs=1e-12)
        assert ranking.usage.tokens == (None if scheme in NO_TOKENS else recorded.get("tokens"))
        assert ranking.usage.search_units == recorded.get("search_units")
        assert ranking.warnings == tuple(recorded.get("warnings", ()))


def test_equal_scores_keep_the_callers_order() -> None:
    """A server that reverses ties (TEI) does not reverse the documents."""
    body = [{"index": index, "score": 0.25} for index in (3, 2, 1, 0)]
    transport = httpx.MockTransport(lambda request: httpx.Response(200 if request.method == "POST" else 404, json=body))
    with Reranker("tei", transport=transport) as reranker:
        assert [hit.index for hit in reranker.rank("q", TEXTS)] == [0, 1, 2, 3]


# Tolerated


@pytest.mark.parametrize("key", ["results", "data", "rankings", "scores"])
def test_the_list_may_lie_under_any_of_four_keys(key: str) -> None:
    assert read({"other": [], key: THREE}).values == (0.5, 0.1, 0.9)


@pytest.mark.parametrize("key", ["relevance_score", "score", "logit", "relevanceScore"])
def test_the_score_may_lie_under_any_of_four_keys(key: str) -> None:
    assert read([{"index": 0, key: 0.25, "rank": 7}], 1).values == (0.25,)


def test_probabilities_may_step_out_by_rounding_only() -> None:
    assert read([{"index": 0, "score": 1.0000005}, {"index": 1, "score": -1e-7}], 2).values == (1.0000005, -1e-7)
    with pytest.raises(ValueError, match=r"no probability.*score_kind="):
        read([{"index": 0, "score": 1.00001}], 1)


def test_integers_are_scores_too() -> None:
    assert read([{"index": 0, "score": 1}, {"index": 1, "score": 0}], 2).values == (1.0, 0.0)


@pytest.mark.parametrize(
    ("body", "tokens", "units"),
    [
        ({"usage": {"total_tokens": 7, "prompt_tokens": 5}}, 7, None),
        ({"usage": {"prompt_tokens": 5}}, 5, None),
        ({"usage": {"total_tokens": 0, "rerank_units": 2}}, 0, 2),
        ({"usage": {"search_units": 3}, "meta": {"billed_units": {"search_units": 9}}}, None, 3),
        ({"meta": {"billed_units": {"search_units": 1.5, "total_tokens": 11}}}, 11, 1.5),
        ({"meta": {"billed_units": {"input_tokens": 4}, "tokens": {"input_tokens": 6}}}, 6, None),
        ({"usage": {"total_tokens": -1}}, None, None),
        ({"usage": {"total_tokens": True}}, None, None),
        ({"usage": {"total_tokens": "7"}}, None, None),
        ({"usage": {"total_tokens": 10**400}}, None, None),
        ({"usage": {"total_tokens": math.inf, "search_units": math.nan}}, None, None),
        ({"usage": [7], "meta": "x"}, None, None),
        ({"usage": None, "meta": {"billed_units": None, "tokens": None}}, None, None),
    ],
)
def test_usage_is_read_where_it_is_and_never_a_reason_to_fail(
    body: dict[str, object], tokens: int | None, units: float | None
) -> None:
    got = read({**body, "results": THREE})
    assert (got.tokens, got.search_units) == (tokens, units)


@pytest.mark.parametrize(
    ("body", "warnings"),
    [
        ({"meta": {"warnings": ["cut"]}}, ("cut",)),
        ({"warnings": ["cut", "late"]}, ("cut", "late")),
        ({"meta": {"warnings": None}}, ()),
        ({"meta": {"warnings": "cut"}}, ()),
        ({"meta": {"warnings": [None, 7, "cut", ["x"]]}}, ("cut",)),
    ],
)
def test_warnings(body: dict[str, object], warnings: tuple[str, ...]) -> None:
    assert read({**body, "results": THREE}).warnings == warnings


# Refused

MALFORMED = {
    "wrong-list-key": ({"ranks": THREE}, r"no list of results; the keys are 'ranks'"),
    "error-with-status-200": ({"error": {"message": "no"}}, r"no list of results; the keys are 'error'"),
    "no-keys": ({}, r"no list of results; the keys are $"),
    "list-null": ({"results": None}, r"no list of results"),
    "list-object": ({"results": {"0": 0.5}}, r"no list but dict"),
    "list-string": ({"results": "0.5"}, r"no list but str"),
    "list-number": (0.5, r"no list but float"),
    "null": (None, r"no list but NoneType"),
    "true": (True, r"no list but bool"),
    "string": ("[]", r"no list but str"),
    "list-of-numbers": ([0.9, 0.5, 0.1], r"a result is no object but float"),
    "list-of-lists": ([[0, 0.9]], r"a result is no object but list"),
    "list-of-nulls": ({"data": [None, None, None]}, r"a result is no object but NoneType"),
    "no-results": ({"results": []}, r"3 of 3 documents have no score, the first is 0"),
    "fewer-results": ({"results": THREE[:2]}, r"1 of 3 documents have no score, the first is 1"),
    "more-results": (
        {"results": [*THREE, {"index": 3, "relevance_score": 0.1}]},
        r"index 3, but 3 documents were sent",
    ),
    "repeated-at-the-end": ({"results": [*THREE, THREE[0]]}, r"document 2 is scored twice"),
    "index-missing": (changed(index=...), r"the index None, which is no integer"),
    "index-repeated": (changed(index=2), r"document 2 is scored twice"),
    "index-negative": (changed(index=-1), r"the index -1, but 3 documents were sent"),
    "index-out-of-range": (changed(index=3), r"the index 3, but 3 documents were sent"),
    "index-huge": (changed(index=10**300), r"the index 1000+, but 3 documents were sent"),
    "index-string": (changed(index="0"), r"the index '0', which is no integer"),
    "index-bool": (changed(index=False), r"the index False, which is no integer"),
    "index-null": (changed(index=None), r"the index None, which is no integer"),
    "index-float": (changed(index=0.0), r"the index 0\.0, which is no integer"),
    "index-nan": (changed(index=math.nan), r"the index nan, which is no integer"),
    "index-list": (changed(index=[0]), r"the index list, which is no integer"),
    "id-of-the-server": (changed(index=..., item_id="item-0"), r"the index None, which is no integer"),
    "id-out-of-range": (changed(index=..., item_id="3"), r"the index 3, but 3 documents were sent"),
    "id-number": (changed(index=..., item_id=0), r"the index None, which is no integer"),
    "id-superscript": (changed(index=..., item_id="²"), r"the index None, which is no integer"),
    "index-null-beside-an-id": (changed(index=None, item_id="0"), r"the index None, which is no integer"),
    "score-missing": (changed(relevance_score=...), r"document 0 has the score None, which is no finite number"),
    "score-nan": (changed(relevance_score=math.nan), r"document 0 has the score nan"),
    "score-infinite": (changed(relevance_score=math.inf), r"document 0 has the score inf"),
    "score-minus-infinite": (changed(relevance_score=-math.inf), r"document 0 has the score -inf"),
    "score-null": (changed(relevance_score=None), r"document 0 has the score None"),
    "score-string": (changed(relevance_score="0.5"), r"document 0 has the score '0\.5'"),
    "score-bool": (changed(relevance_score=True), r"document 0 has the score True"),
    "score-list": (changed(relevance_score=[0.5]), r"document 0 has the score list"),
    "score-huge-integer": (changed(relevance_score=10**400), r"document 0 has the score 1000+, which is no finite"),
    "score-just-too-large": (changed(relevance_score=2**1024), r"document 0 has the score 17976931"),
    "score-null-beside-another": (changed(relevance_score=None, score=0.5), r"document 0 has the score None"),
    "probability-above-one": (changed(relevance_score=1.5), r"score 1\.5, which is no probability.*score_kind="),
    "probability-below-zero": (changed(relevance_score=-0.5), r"score -0\.5, which is no probability"),
    "empty": (Unreadable(""), r"the body is empty"),
    "html": (Unreadable("<!DOCTYPE html><p>Sign in</p>"), r"the body is no JSON: '<!DOCTYPE html><p>Sign in</p>'"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_one_finite_score_a_document_is_refused_in_words(name: str) -> None:
    data, message = MALFORMED[name]
    with pytest.raises(ValueError, match=message) as caught:
        read(data)
    assert type(caught.value) is ValueError


def test_scores_out_of_range_are_fine_where_no_probability_was_declared() -> None:
    for kind in ("logit", "cosine", "rank"):
        assert read(changed(relevance_score=-7.5), kind=kind).values[0] == -7.5


def test_the_largest_number_is_still_one() -> None:
    assert read(changed(relevance_score=sys.float_info.max), kind="rank").values[0] == sys.float_info.max


def test_what_is_quoted_is_cut() -> None:
    long = "x" * 100_000
    five = (changed(index=long), changed(relevance_score=long), {long: 1}, Unreadable(long), changed(index=7**999))
    for data in five:
        error = outcome(data)
        assert isinstance(error, ValueError)
        assert len(str(error)) < 400


@pytest.mark.parametrize("depth", [900, 960, 980, 985, 990, 992, 994, 996, 998, 100_000])
def test_deep_nesting_is_refused_in_words(depth: int) -> None:
    """Some depths can be decoded and not be printed: neither may end in a RecursionError."""
    nest = b"[" * depth + b"]" * depth
    for body in (nest, b'{"results":[{"index":0,"score":' + nest + b"}]}", b'{"results":[{"index":' + nest + b"}]}"):
        assert type(outcome(decode(body), 1)) is ValueError
    good = b'{"meta":{"warnings":[' + nest + b']},"results":[{"index":0,"score":0.5}]}'
    decoded = decode(good)
    if not isinstance(decoded, Unreadable):
        assert read(decoded, 1).values == (0.5,)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", Unreadable("")),
        (b'{"results": [', Unreadable('{"results": [')),
        (b"\xff\xfe{}", Unreadable("\ufffd\ufffd{}")),
        (b"\xef\xbb\xbf[]", []),
        (b"<html>" + b"x" * 5000, Unreadable("<html>" + "x" * 1994)),
        (b"1" * 5000, Unreadable("1" * 2000)),
        (b"[" * 100_000, Unreadable("[" * 2000)),
        (b" [1]\n", [1]),
    ],
    ids=["empty", "half", "no-utf-8", "byte-order-mark", "html", "more-digits-than-python-reads", "brackets", "space"],
)
def test_decoding_never_raises(content: bytes, expected: object) -> None:
    assert decode(content) == expected


NUMBERS = st.one_of(st.integers(), st.floats(), st.integers(min_value=2**1024 - 5, max_value=2**1030))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8))
KEYS = st.sampled_from(
    [
        "results",
        "data",
        "rankings",
        "scores",
        "index",
        "item_id",
        "score",
        "relevance_score",
        "logit",
        "relevanceScore",
        "usage",
        "meta",
        "billed_units",
        "tokens",
        "total_tokens",
        "input_tokens",
        "search_units",
        "warnings",
    ]
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, st.text(max_size=3)), inner)),
    max_leaves=25,
)
INDICES = st.one_of(st.integers(min_value=-1, max_value=4), LEAVES)
ENTRIES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"index": INDICES, "score": NUMBERS}),
        st.fixed_dictionaries({"item_id": st.one_of(st.integers(0, 4).map(str), LEAVES), "logit": NUMBERS}),
        st.fixed_dictionaries({"index": INDICES}, optional={"relevance_score": JSON, "score": JSON}),
        JSON,
    ),
    max_size=4,
)
REPLIES = st.one_of(
    JSON,
    ENTRIES,
    st.fixed_dictionaries({}, optional={"results": ENTRIES, "data": ENTRIES, "usage": JSON, "meta": JSON}),
)


@given(data=REPLIES, count=st.integers(1, 4), kind=st.sampled_from(["probability", "logit", "cosine", "rank"]))
def test_any_json_gives_one_finite_score_a_document_or_a_value_error(data: object, count: int, kind: str) -> None:
    got = outcome(data, count, kind)
    if isinstance(got, ValueError):
        assert type(got) is ValueError
        assert 0 < len(str(got)) < 800
        return
    assert len(got.values) == count
    assert all(type(value) is float and math.isfinite(value) for value in got.values)
    assert got.tokens is None or (type(got.tokens) is int and got.tokens >= 0)
    assert got.search_units is None or math.isfinite(got.search_units)


@given(scores=st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=30), random=st.randoms())
def test_scores_find_their_documents_in_whatever_order_they_come(scores: list[float], random: object) -> None:
    entries = [{"index": index, "score": score} for index, score in enumerate(scores)]
    random.shuffle(entries)  # type: ignore[attr-defined]  # a random.Random
    assert read(entries, len(scores), "rank").values == tuple(scores)


@given(content=st.binary(max_size=60))
def test_any_bytes_can_be_decoded_and_read(content: bytes) -> None:
    assert type(outcome(decode(content), 1)) in (Results, ValueError)


# What callers see of it


@pytest.mark.parametrize("name", MALFORMED)
async def test_callers_get_a_typed_error_that_names_all_there_is(name: str) -> None:
    data, _ = MALFORMED[name]
    content = data.text.encode() if isinstance(data, Unreadable) else json.dumps(data).encode()
    headers = {"x-request-id": "r-17"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=content, headers=headers))
    model = "jina:jina-reranker-v2-base-multilingual"
    async with Reranker(model, api_key="k", transport=transport) as reranker:
        with pytest.raises(BadReplyError, match=r"HTTP 200, but .* \[request id r-17\]") as plain:
            reranker.rank("q", TEXTS[:3])
        with pytest.raises(BadReplyError) as awaited:
            await reranker.arank("q", TEXTS[:3])
    assert str(plain.value) == str(awaited.value)
    error = plain.value
    assert (error.provider, error.model, error.status, error.request_id) == ("jina", model, 200, "r-17")
