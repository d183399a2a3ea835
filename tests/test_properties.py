"""For any documents, scores and options: a subset by identity, sorted, without repeats, the input unchanged."""

import asyncio
import copy
import math
import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uprank import Document, Reranker
from uprank.calibration import sigmoid
from uprank.documents import scorable

pytestmark = pytest.mark.no_cover  # a hundred examples each of what other tests cover

# Whether an example is slow says more about the machine than about the code.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Few letters, so that equal texts are common; lone surrogates, NUL and astral characters among them.
texts = st.text(st.sampled_from(["a", "b", " ", "\x00", "\ud800", "\udc00", "\ufffd", "é", "\U0001f600"]), max_size=3)
metadata = st.dictionaries(
    st.sampled_from(["page", "id", "tags"]), st.one_of(st.integers(), st.lists(st.text())), max_size=2
)
documents = st.one_of(
    texts,
    st.builds(Document, texts, st.one_of(st.none(), st.text()), st.one_of(st.none(), metadata)),
    st.builds(lambda text, rest: {**rest, "text": text}, texts, metadata),
)
scores = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 40.0, 41.0, 5e-324, -1e308]),
    st.integers(-2, 2),
)
top_ns = st.one_of(st.none(), st.integers(1, 9))
thresholds = st.one_of(st.none(), st.floats(-3, 3), st.just(0.0))


@st.composite
def lists(draw, max_size=8):
    """A list in which the same object may stand several times."""
    pool = draw(st.lists(documents, max_size=max_size))
    return (
        [pool[position] for position in draw(st.lists(st.integers(0, len(pool) - 1), max_size=max_size))]
        if pool
        else []
    )


@st.composite
def cases(draw):
    """Documents, and a score for each text among them."""
    given_documents = draw(lists())
    return given_documents, {scorable(text_of(document)): draw(scores) for document in given_documents}


def text_of(document):
    if isinstance(document, Document):
        return document.text
    return document if isinstance(document, str) else document["text"]


def table(score_of):
    return lambda query, asked: [score_of[text] for text in asked]


def snapshot(given_documents):
    """What the documents are, in every detail, and which objects they are."""
    return copy.deepcopy(
        [
            (document.text, document.id, dict(document.metadata)) if isinstance(document, Document) else document
            for document in given_documents
        ]
    ), [id(document) for document in given_documents]


@relaxed
@given(cases(), top_ns, thresholds, st.sampled_from(["raise", "passthrough"]))
def test_the_result_is_the_best_of_the_input_in_order(case, top_n, threshold, policy):
    given_documents, score_of = case
    before = snapshot(given_documents)
    ranking = Reranker(table(score_of), on_error=policy).rank("q", given_documents, top_n=top_n, threshold=threshold)
    assert snapshot(given_documents) == before

    values = [float(score_of[scorable(text_of(document))]) for document in given_documents]
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    kept = [index for index in order if threshold is None or values[index] >= threshold][:top_n]
    assert [hit.index for hit in ranking] == kept
    assert [hit.score for hit in ranking] == [values[index] for index in kept]
    assert [hit.rank for hit in ranking] == [order.index(index) for index in kept] == list(range(len(kept)))
    assert all(type(hit.score) is float for hit in ranking)
    assert not ranking.degraded
    for hit in ranking:
        theirs = given_documents[hit.index]
        if isinstance(theirs, Document):
            assert hit.document is theirs
        else:
            assert hit.document.text == text_of(theirs)
        if isinstance(theirs, dict):
            assert hit.document.metadata == {key: value for key, value in theirs.items() if key != "text"}


@relaxed
@given(cases(), top_ns, thresholds)
def test_a_failing_scorer_degrades_to_the_input(case, top_n, threshold):
    given_documents, _ = case

    def broken(query, asked):
        raise OSError

    before = snapshot(given_documents)
    ranking = Reranker(broken, on_error="passthrough").rank("q", given_documents, top_n=top_n, threshold=threshold)
    assert snapshot(given_documents) == before
    assert [(hit.index, hit.rank, hit.score) for hit in ranking] == [
        (index, index, None) for index in range(len(given_documents))
    ][:top_n]
    assert ranking.degraded == bool(given_documents)


@relaxed
@given(cases())
def test_each_text_is_scored_once_and_clean(case):
    given_documents, score_of = case
    asked = []

    def scorer(query, texts):
        asked.extend(texts)
        return table(score_of)(query, texts)

    Reranker(scorer).rank("q", given_documents)
    assert len(asked) == len(set(asked))
    assert set(asked) == {scorable(text_of(document)) for document in given_documents}
    for text in asked:
        text.encode()  # raises if a lone surrogate is left


@settings(relaxed, max_examples=60)
@given(st.lists(cases(), max_size=3), top_ns, thresholds, st.booleans(), st.booleans())
def test_the_four_methods_agree(jobs, top_n, threshold, awaited, failing):
    score_of = {text: value for _, scores_of_job in reversed(jobs) for text, value in scores_of_job.items()}

    def scorer(query, asked):
        if failing and query == "q1":
            raise OSError
        return table(score_of)(query, asked)

    async def ascorer(query, asked):
        return scorer(query, asked)

    reranker = Reranker(
        ascorer if awaited else scorer, name="m", top_n=top_n, threshold=threshold, on_error="passthrough"
    )
    queries = [f"q{number}" for number in range(len(jobs))]
    lists_of_documents = [given_documents for given_documents, _ in jobs]

    async def alone():
        return [
            await reranker.arank(query, given_documents)
            for query, given_documents in zip(queries, lists_of_documents, strict=True)
        ]

    async def together():
        return await reranker.arank_many(queries, lists_of_documents)

    expected = [
        reranker.rank(query, given_documents)
        for query, given_documents in zip(queries, lists_of_documents, strict=True)
    ]
    for rankings in (reranker.rank_many(queries, lists_of_documents), asyncio.run(alone()), asyncio.run(together())):
        assert [replace(ranking, elapsed=0.0) for ranking in rankings] == [
            replace(ranking, elapsed=0.0) for ranking in expected
        ]


@relaxed
@given(cases(), st.randoms(use_true_random=False))
def test_shuffling_the_input_changes_only_the_order_of_ties(case, random):
    given_documents, score_of = case
    shuffled = list(range(len(given_documents)))
    random.shuffle(shuffled)
    reranker = Reranker(table(score_of))
    one = reranker.rank("q", given_documents)
    other = reranker.rank("q", [given_documents[index] for index in shuffled])
    assert [hit.score for hit in one] == [hit.score for hit in other]
    assert sorted(hit.index for hit in one) == sorted(shuffled[hit.index] for hit in other)
    for hit, twin in zip(one, other, strict=True):
        assert score_of[scorable(hit.document.text)] == score_of[scorable(twin.document.text)]


@relaxed
@given(cases(), top_ns)
def test_probabilities_keep_the_order_of_the_logits(case, top_n):
    given_documents, score_of = case
    native = Reranker(table(score_of), top_n=top_n).rank("q", given_documents)
    ranking = Reranker(table(score_of), top_n=top_n, score_kind="logit", score="probability").rank("q", given_documents)
    assert [hit.index for hit in ranking] == [hit.index for hit in native]
    assert [hit.score for hit in ranking] == [sigmoid(hit.score) for hit in native]
    assert all(0.0 <= hit.score <= 1.0 for hit in ranking)


@relaxed
@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_the_sigmoid_never_decreases_and_stays_in_bounds(one, other):
    assert 0.0 <= sigmoid(one) <= 1.0
    assert sigmoid(min(one, other)) <= sigmoid(max(one, other))
    assert math.isclose(sigmoid(one) + sigmoid(-one), 1.0, abs_tol=1e-15)


@relaxed
@given(st.text(st.characters(), max_size=20) | texts)
def test_cleaning_joins_pairs_and_replaces_lone_surrogates_and_nothing_else(text):
    joined = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda pair: chr(0x10000 + ((ord(pair[0][0]) - 0xD800) << 10) + ord(pair[0][1]) - 0xDC00),
        text,
    )
    assert scorable(text) == re.sub("[\ud800-\udfff]", "\ufffd", joined)
