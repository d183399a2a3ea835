"""Random pipelines of fallbacks, cascades, fusions, passages, caches and calibrators, with faults at every stage.

Whatever they are made of and whatever goes wrong: documents are the caller's own and unchanged, each at most once, in
the order of their scores; none is lost without a reason; no score is invented; an error is one of uprank's; and
sync and async agree.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import pytest

from composition_maker import Maker
from composition_parts import Node, Spec, build, leaves_of, parts_of
from composition_scores import Asked, spans
from selection_rules import by_the_rules
from uprank import Document, Ranking, Reranker
from uprank.documents import scorable
from uprank.errors import ConfigurationError, InvalidInputError, ScoreKindError, UprankError
from uprank.scorers.base import ScoreRequest, Scores

pytestmark = pytest.mark.no_cover  # hundreds of examples of what other tests cover

LONG = " ".join(f"Sentence {number} tells of the deep blue sea and of red foxes." for number in range(12))
ODD = ["", " ", "caf\u00e9 \U0001f98a", "a\ud800b"]
TEXTS = ["red fox", "blue whale", "green frog", "red fox", *ODD, LONG, LONG[:300]]
LIMITS = {"threshold", "min_gap"}
NOT_APPLIED = "No threshold or gap was applied"


@dataclass(frozen=True)
class Case:
    """A pipeline, and what it is given.

    Args:
        spec: What scores.
        reranker: Further options of the reranker.
        selection: What of the ranking is wanted.
        query: What is asked.
        documents: What is ranked.
        around: The options of the reranker that make the spec of its model, where it is made so.
        model: That model.
    """

    spec: Spec
    reranker: dict[str, object]
    selection: dict[str, float]
    query: str
    documents: list[object]
    around: dict[str, object] | None = None
    model: Spec | None = None

    def make(self, complaints: list[str], **selection: float) -> Reranker:
        if self.around is None:
            return Reranker(build(self.spec, complaints), **self.reranker, **selection)
        around = dict(self.around)
        if "fallback" in around:
            around["fallback"] = [build(spec, complaints) for spec in around["fallback"]]
        return Reranker(build(self.model, complaints), **around, **self.reranker, **selection)

    @property
    def faults(self) -> list[str]:
        """What goes wrong at this query."""
        struck = [leaf.fault for leaf in leaves_of(self.spec) if leaf.fault and leaf.fault.strikes(self.query)]
        return [fault.how[0] for fault in struck]

    @property
    def timed(self) -> bool:
        return any(leaf.fault is not None and leaf.fault.how[0] == "hang" for leaf in leaves_of(self.spec))


def case_of(seed: int) -> Case:
    random = Random(seed)
    maker = Maker(random, faults=random.choice([0.0, 0.1, 0.4]))
    around = model = None
    likely = random.random() < 0.5
    if random.random() < 0.2:
        spec, model, around = by_options(random, maker, likely=likely)
    else:
        spec = maker.spec(random.randint(0, 3), likely=likely)
    reranker: dict[str, object] = {
        "score": "probability" if random.random() < (0.6 if likely else 0.1) else "native",
        "on_error": random.choice(["raise", "passthrough"]),
        "count_tokens": tokens_of,
    }
    if random.random() < 0.2:
        reranker["fields"] = ["title", "text"]
    takes = [leaf.instructed for leaf in leaves_of(spec)]
    if any(takes) and "Calibrated" not in parts_of(spec):
        reranker["instruction"] = "prefer code"
    drawn = {
        "top_n": random.randint(1, 6),
        "threshold": random.choice([-1.0, 0.0, 0.5, 0.7]),
        "min_gap": random.choice([0.1, 0.5, 2.0]),
        "max_tokens": random.randint(1, 40),
        "keep_at_least": random.randint(1, 3),
    }
    selection = {name: value for name, value in drawn.items() if random.random() < (0.2 if name in LIMITS else 0.3)}
    if random.random() < 0.04:
        selection["diversity"] = random.choice([0.3, 0.7, 1.0])
    documents = [document(random) for _ in range(random.choice([0, 1, 2, 4, 5, 6, 8]))]
    return Case(spec, reranker, selection, random.choice(["fox", "fox?"]), documents, around, model)


def by_options(random: Random, maker: Maker, *, likely: bool) -> tuple[Spec, Spec, dict[str, object]]:
    """A composition that the reranker makes of its own options; and its model, and these options."""
    wraps = random.random() < 0.7
    first, *others = [maker.leaf(likely=likely, form="scorer") for _ in range(random.randint(1, 3))]
    around: dict[str, object] = {"fallback": others} if others else {}
    specs: list[Spec] = [first, *others]
    if wraps and random.random() < 0.5:
        around["cache"] = True
        specs = [Node("Cached", (spec,)) for spec in specs]
    if wraps and random.random() < 0.5:
        how = random.choice(["max_passage", "mean_top"])
        around.update(long_documents=how, passage_tokens=16)
        specs = [Node("Passages", (spec,), {"how": how, "tokens": 16}) for spec in specs]
    return (Node("Fallback", tuple(specs)) if others else specs[0]), first, around


def document(random: Random) -> object:
    text = random.choice(TEXTS)
    metadata: dict[str, object] = {}
    if random.random() < 0.6:
        metadata["retrieval_score"] = random.choice([0.1, 0.5, 3, -2.0])
    if random.random() < 0.3:
        metadata["title"] = random.choice(["On foxes", "", None])
    kind = random.random()
    if kind < 0.4:
        return text
    if kind < 0.8:
        return Document(text, random.choice([None, "x"]), metadata)
    return {**metadata, "text": text, "tags": ["a"]}


def tokens_of(text: str) -> int:
    return len(text.split())


def metadata_of(given: object) -> Mapping[str, object]:
    return {} if isinstance(given, str) else given.metadata if isinstance(given, Document) else given


def text_of(given: object, reranker: dict[str, object]) -> str:
    """What is scored of a document, by the documentation."""
    metadata = metadata_of(given)
    text = given if isinstance(given, str) else given.text if isinstance(given, Document) else metadata["text"]
    title = metadata.get("title")
    if "fields" in reranker:
        text = "\n".join(part for part in (title, text) if part and part.strip())
    return scorable(text)


def snapshot(documents: list[object]) -> object:
    values = [(one.text, one.id, one.metadata) if isinstance(one, Document) else one for one in documents]
    return copy.deepcopy(values), [id(one) for one in documents]


def outcome_of(call) -> Ranking | UprankError:
    """The ranking or the error; any error that is not one of uprank's fails the test."""
    try:
        return call()
    except UprankError as error:
        return error


# --- what holds


def check_error(case: Case, error: UprankError, *, limited: bool) -> None:
    """There was a reason, and under ``passthrough`` it was a mistake in the set-up."""
    wants_meaning = limited or case.reranker["score"] == "probability"
    if isinstance(error, ScoreKindError) and wants_meaning:
        return
    assert case.faults, f"no fault, but {error!r}"
    if case.reranker["on_error"] == "passthrough":
        assert "misuse" in case.faults, f"passed over, but {error!r}"
        assert isinstance(error, (ConfigurationError, InvalidInputError))
        assert not isinstance(error, ScoreKindError)


def check_everything(case: Case, ranking: Ranking) -> None:
    """A ranking from which nothing was to be left out."""
    assert sorted(hit.index for hit in ranking) == [*range(len(case.documents))], "documents were lost or repeated"
    assert [hit.rank for hit in ranking] == [*range(len(ranking))]
    for hit in ranking:
        given = case.documents[hit.index]
        if isinstance(given, Document):
            assert hit.document is given
        else:
            assert hit.document.text == (given if isinstance(given, str) else given["text"])
            if isinstance(given, dict):
                assert hit.document.metadata == {key: value for key, value in given.items() if key != "text"}
    shown = [hit.score for hit in ranking if hit.score is not None]
    assert all(type(score) is float and math.isfinite(score) for score in shown)
    assert all(above >= below for above, below in pairwise(shown)), "not in the order of scores"
    if ranking.score_kind == "probability":
        assert all(-1e-6 <= score <= 1 + 1e-6 for score in shown)
    if passed_through(ranking):
        assert case.faults
        assert shown == []
        assert [hit.index for hit in ranking] == [*range(len(ranking))]
        assert ranking.degraded
    elif not case.faults and not any(leaf.degraded for leaf in leaves_of(case.spec)):
        assert ranking.attempts == ()
        if not any(leaf.kind == "graded" for leaf in leaves_of(case.spec)):  # which gives no score to some, or to all
            assert not ranking.degraded
            assert len(shown) == len(ranking), "scores were lost"
    if ranking.attempts:
        assert case.faults
        # Another model's answer is as good as one; an order without one of those that were to make it is not.
        assert ranking.degraded or "Fallback" in parts_of(case.spec), "a model is missing, and nobody says so"
    check_scores(case, ranking)


def passed_through(ranking: Ranking) -> bool:
    return any(warning.startswith("Not reranked") for warning in ranking.warnings)


def check_scores(case: Case, ranking: Ranking) -> None:
    """Every score is one that some model gave, or what the composition says that it makes of such."""
    names = {leaf.name for leaf in leaves_of(case.spec)}
    count = len({text_of(given, case.reranker) for given in case.documents})
    for hit in ranking:
        text = text_of(case.documents[hit.index], case.reranker)
        assert hit.model is None or hit.model in names or hit.model.startswith(("cascade(", "fusion("))
        assert hit.stage is None or "Cascade" in parts_of(case.spec)
        if hit.passage is not None:
            assert "Passages" in parts_of(case.spec)
            assert text[hit.passage.start : hit.passage.end] == hit.passage.text
        if hit.score is None:
            continue
        asked = Asked(case.query, text, count, None if hit.passage is None else hit.passage.text)
        likely = case.reranker["score"] == "probability"
        known = spans(case.spec, asked, likely=likely)
        assert any(span.holds(hit.score) for span in known), f"{hit.score} was invented for {text!r}: {known}"


def check_order(case: Case, ranking: Ranking, complaints: list[str]) -> None:
    """The order is that of what the scorer says when it is asked by itself, then that of the documents."""
    texts = [text_of(given, case.reranker) for given in case.documents]
    distinct = list(dict.fromkeys(texts))
    found: dict[str, float | None] = {}
    for text, given in zip(texts, case.documents, strict=True):
        scores = [one for one in (found.get(text), metadata_of(given).get("retrieval_score")) if one is not None]
        found[text] = max(scores, default=None)
    retrieved = None if None in found.values() else [float(found[text]) for text in distinct]
    request = ScoreRequest(case.query, distinct, case.reranker.get("instruction"), retrieved)
    (scores,) = case.make(complaints).scorer.score_many([request])
    assert isinstance(scores, Scores), f"by itself the scorer fails: {scores!r}"
    value = dict(zip(distinct, scores.values, strict=True))
    order = sorted(range(len(texts)), key=lambda index: (-value[texts[index]], index))
    assert [hit.index for hit in ranking] == order


def check_selection(case: Case, everything: Ranking, selected: Ranking) -> None:
    """What is missing was to be left out."""
    limits = {name: value for name, value in case.selection.items() if name != "diversity"}
    if passed_through(everything) or any(note.startswith(NOT_APPLIED) for note in selected.warnings):
        limits = {name: value for name, value in limits.items() if name not in LIMITS}
    assert everything.score_kind != "rank" or not limits.keys() & LIMITS, "scores that mean an order were compared"
    scores = [hit.score for hit in everything]
    sizes = [tokens_of(scorable(hit.document.text)) for hit in everything]
    positions = by_the_rules(scores, sizes, everything.degraded, **limits)
    order = [hit.index for hit in everything]
    kept = [hit.index for hit in selected]
    assert [hit.rank for hit in selected] == [*range(len(kept))]
    by_index = {hit.index: hit for hit in everything}
    assert all(by_index[hit.index].score == hit.score for hit in selected)
    if not case.selection.get("diversity"):
        assert kept == [order[position] for position in positions]
        return
    unlimited = {name: value for name, value in limits.items() if name not in ("top_n", "max_tokens")}
    passing = by_the_rules(scores, sizes, everything.degraded, **unlimited)
    assert kept == [index for index in order if index in kept], "not in the order of scores"
    assert {*kept} <= {order[position] for position in passing}
    assert len(kept) <= limits.get("top_n", math.inf)
    assert sum(tokens_of(by_index[index].document.text) for index in kept) <= limits.get("max_tokens", math.inf)
    if "max_tokens" not in limits:
        assert len(kept) == len(positions)
    assert bool(kept) == bool(positions)


def told(outcome: Ranking | UprankError) -> object:
    """All of an outcome but what depends on the time it took."""
    if isinstance(outcome, UprankError):
        return type(outcome)
    attempts = [(attempt.model, attempt.kind) for attempt in outcome.attempts]
    return outcome.hits, outcome.model, outcome.score_kind, outcome.degraded, outcome.usage, attempts


async def check(seed: int) -> str:
    """Check one case; return what became of it."""
    case = case_of(seed)
    complaints: list[str] = []
    before = snapshot(case.documents)
    everything = outcome_of(lambda: case.make(complaints).rank(case.query, case.documents))
    limited = bool(case.selection.keys() & LIMITS)
    if isinstance(everything, UprankError):
        check_error(case, everything, limited=False)
    else:
        check_everything(case, everything)
        if case.documents and not passed_through(everything) and not case.timed:
            check_order(case, everything, complaints)

    selected = outcome_of(lambda: case.make(complaints, **case.selection).rank(case.query, case.documents))
    if isinstance(selected, UprankError):
        check_error(case, selected, limited=limited)
        if isinstance(everything, Ranking):
            assert limited, f"nothing was compared, but {selected!r}"
            kinds = {everything.score_kind, case.make(complaints).scorer.score_kind}
            assert "rank" in kinds, f"{kinds} can be compared, but {selected!r}"
    elif isinstance(everything, Ranking) and not case.timed:
        check_selection(case, everything, selected)

    try:
        awaited = await case.make(complaints, **case.selection).arank(case.query, case.documents)
    except UprankError as error:
        awaited = error
    if not case.timed:
        assert told(awaited) == told(selected)
        check_many(case, complaints)
    assert snapshot(case.documents) == before, "the caller's documents were changed"
    assert complaints == []
    return type(selected).__name__ if isinstance(selected, UprankError) else "degraded" if selected.degraded else "well"


def check_many(case: Case, complaints: list[str]) -> None:
    """Several queries at once are as each by itself, whichever of them fails."""
    queries = ["fox", "fox?"]
    alone = [outcome_of(lambda q=q: case.make(complaints, **case.selection).rank(q, case.documents)) for q in queries]
    together = outcome_of(
        lambda: case.make(complaints, **case.selection).rank_many(queries, [case.documents] * len(queries))
    )
    errors = [type(one) for one in alone if isinstance(one, UprankError)]
    if errors:
        assert type(together) in errors
    else:
        assert [told(one) for one in together] == [told(one) for one in alone]


def run(seeds: range) -> dict[str, int]:
    async def all_of_them() -> dict[str, int]:
        became: dict[str, int] = {}
        for seed in seeds:
            try:
                result = await check(seed)
            except BaseException as error:
                raise AssertionError(f"seed {seed}: {error}\n{case_of(seed)}") from error
            became[result] = became.get(result, 0) + 1
        return became

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_compositions_keep_their_promises(first):
    became = run(range(first, first + 100))
    # Random pipelines that all fail, or never do, would show nothing.
    assert became["well"] >= 25
    assert became["degraded"] >= 10
    assert sum(became.values()) - became["well"] - became["degraded"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("first", range(400, 10_000, 400))
def test_ten_thousand_compositions_keep_their_promises(first):
    run(range(first, first + 400))
