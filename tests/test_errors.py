"""The error tree, its messages, and what each policy makes of a failure."""

import asyncio
import inspect
import logging
import pickle
import re
import sys
from types import ModuleType

import pytest

import uprank
from uprank import (
    ConfigurationError,
    InvalidDocumentError,
    InvalidInputError,
    InvalidScoresError,
    MissingDependencyError,
    ModelLoadError,
    QueryTooLongError,
    Reranker,
    ScorerError,
    UprankError,
    errors,
)
from uprank.extras import require
from uprank.scorers import Scorer, Scores

DOCUMENTS = ["b", "a", "c"]


def raising(error):
    def scorer(query, texts):
        raise error

    return scorer


# --- the tree


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    path, drawn = [], set()
    for line in inspect.getdoc(errors).splitlines():
        found = re.match(r"^ {4}((?:[│├└─ ]{4})*)(\w+Error)\b(?: \((\w+)\))?", line)
        if found:
            depth, name, builtin = len(found[1]) // 4, found[2], found[3]
            path[depth:] = [getattr(errors, name)]
            drawn.add(name)
            if depth:
                assert path[depth].__bases__[0] is path[depth - 1], name
            if builtin:
                assert issubclass(path[depth], getattr(__import__("builtins"), builtin)), name
    assert drawn == set(errors.__all__)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_public_documented_and_survives_a_process_boundary(name):
    error_class = getattr(uprank, name)
    assert name in uprank.__all__
    assert error_class.__doc__
    error = error_class("f", "extra", ("a", "b")) if error_class is MissingDependencyError else error_class("message")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(again) is error_class
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_input_mistakes_are_value_errors_and_bad_documents_type_errors_too():
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(InvalidDocumentError, TypeError)
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(MissingDependencyError, ImportError)
    assert not issubclass(ScorerError, ValueError)


# --- missing packages


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    with pytest.raises(MissingDependencyError) as caught:
        require("Reading tea leaves", "tea", "json", "no_such_leaf", "no_such_pot")
    assert str(caught.value) == (
        'Reading tea leaves needs no_such_leaf, no_such_pot, not installed here. Run: pip install "uprank[tea]"'
    )
    assert caught.value.packages == ("no_such_leaf", "no_such_pot")


def test_what_is_installed_is_found_without_being_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    require("Zen", "zen", "this")
    assert "this" not in sys.modules


@pytest.mark.parametrize("package", ["json.no_such_leaf", "no_such_tea.leaf"])
def test_a_missing_part_of_a_package_counts_as_missing(package):
    require("Tea", "tea", "json.decoder")
    with pytest.raises(MissingDependencyError, match=package):
        require("Tea", "tea", package)


@pytest.mark.parametrize("blocked", [None, ModuleType("blocked_leaf")], ids=["None", "no spec"])
def test_a_package_whose_import_is_blocked_counts_as_missing(monkeypatch, blocked):
    monkeypatch.setitem(sys.modules, "blocked_leaf", blocked)
    with pytest.raises(MissingDependencyError, match="blocked_leaf"):
        require("Tea", "tea", "blocked_leaf")


# --- on_error="raise"


def test_a_failing_scorer_gives_a_scorer_error_with_its_cause():
    cause = KeyError("results")
    with pytest.raises(ScorerError, match=r"^gpu-7 failed with KeyError: 'results'") as caught:
        Reranker(raising(cause), name="gpu-7").rank("q", DOCUMENTS)
    assert caught.value.__cause__ is cause
    assert type(caught.value) is ScorerError


@pytest.mark.parametrize(
    "error",
    [
        ModelLoadError("no weights"),
        QueryTooLongError("600 tokens"),
        MissingDependencyError("m", "local", ("torch",)),
        ConfigurationError("no"),
        InvalidInputError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_our_own_are_not_wrapped(error):
    with pytest.raises(UprankError) as caught:
        Reranker(raising(error)).rank("q", DOCUMENTS)
    assert caught.value is error


@pytest.mark.parametrize("policy", ["raise", "passthrough"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError(), GeneratorExit()], ids=repr
)
def test_what_is_no_failure_passes_through(policy, error):
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the identity is checked
        Reranker(raising(error), on_error=policy).rank("q", DOCUMENTS)
    assert caught.value is error


# --- on_error="passthrough"


def test_passthrough_keeps_the_order_and_invents_nothing(caplog):
    reranker = Reranker(raising(OSError("no route to host")), name="gpu-7", on_error="passthrough")
    with caplog.at_level(logging.WARNING, logger="uprank"):
        ranking = reranker.rank("q", DOCUMENTS)
    assert ranking.degraded is True
    assert [(hit.document.text, hit.index, hit.rank, hit.score) for hit in ranking] == [
        ("b", 0, 0, None),
        ("a", 1, 1, None),
        ("c", 2, 2, None),
    ]
    assert ranking.warnings == ("Not reranked, original order kept: gpu-7 failed with OSError: no route to host",)
    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        ("uprank", "WARNING", ranking.warnings[0])
    ]
    assert ranking.usage.pairs == 0


def test_passthrough_skips_the_threshold_and_applies_top_n():
    reranker = Reranker(raising(OSError()), threshold=0.9, top_n=2, on_error="passthrough")
    assert [hit.index for hit in reranker.rank("q", DOCUMENTS)] == [0, 1]
    assert len(reranker.rank("q", DOCUMENTS, top_n=None)) == 3


def test_passthrough_says_nothing_where_nothing_failed(caplog):
    ranking = Reranker(lambda query, texts: [3, 1, 2], on_error="passthrough").rank("q", DOCUMENTS)
    assert (ranking.degraded, ranking.warnings, caplog.records) == (False, (), [])
    assert [hit.index for hit in ranking] == [0, 2, 1]


@pytest.mark.parametrize("answer", [[1.0], [1.0, float("nan"), 2.0], None, [1, 2, 3, 4]], ids=repr)
def test_passthrough_covers_answers_that_cannot_be_used(answer):
    ranking = Reranker(lambda query, texts: answer, on_error="passthrough").rank("q", DOCUMENTS)
    assert ranking.degraded
    assert [hit.score for hit in ranking] == [None] * 3


@pytest.mark.parametrize("error", [ModelLoadError("no weights"), QueryTooLongError("600 tokens")], ids=repr)
def test_passthrough_covers_every_scorer_error(error):
    ranking = Reranker(raising(error), on_error="passthrough").rank("q", DOCUMENTS)
    assert ranking.degraded
    assert str(error) in ranking.warnings[0]


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": ""},
        {"documents": ["a", 5]},
        {"documents": "one"},
        {"top_n": 0},
        {"threshold": float("nan")},
        {"instruction": "prefer code"},
    ],
    ids=repr,
)
def test_passthrough_does_not_cover_mistakes_of_the_caller(arguments):
    reranker = Reranker(raising(OSError()), on_error="passthrough")
    with pytest.raises(InvalidInputError):
        reranker.rank(**{"query": "q", "documents": DOCUMENTS} | arguments)


@pytest.mark.parametrize(
    "error",
    [MissingDependencyError("m", "local", ("torch",)), ConfigurationError("no")],
    ids=lambda e: type(e).__name__,
)
def test_passthrough_does_not_cover_mistakes_of_the_set_up(error):
    with pytest.raises(type(error)):
        Reranker(raising(error), on_error="passthrough").rank("q", DOCUMENTS)


def test_passthrough_degrades_only_the_query_that_failed():
    def fails_for_two(query, texts):
        if query == "two":
            raise RuntimeError("20 s")
        return [float(ord(text)) for text in texts]

    documents = [["a", "b"], ["x", "w"], ["c", "d"]]
    one, two, three = Reranker(fails_for_two, on_error="passthrough").rank_many(["one", "two", "three"], documents)
    assert [one.degraded, two.degraded, three.degraded] == [False, True, False]
    assert [(hit.index, hit.score) for hit in one] == [(1, 98.0), (0, 97.0)]
    assert [(hit.index, hit.score) for hit in two] == [(0, None), (1, None)]
    assert [(hit.index, hit.score) for hit in three] == [(1, 100.0), (0, 99.0)]
    assert "20 s" in two.warnings[0]
    assert (one.warnings, three.warnings) == ((), ())


def test_without_passthrough_one_failing_query_fails_the_call():
    def fails_for_two(query, texts):
        if query == "two":
            raise RuntimeError("20 s")
        return [1.0] * len(texts)

    with pytest.raises(ScorerError, match="RuntimeError: 20 s"):
        Reranker(fails_for_two).rank_many(["one", "two"], [["a"], ["b"]])


@pytest.mark.parametrize("policy", ["ignore", None, "", "Raise"])
def test_an_unknown_policy_is_refused(policy):
    with pytest.raises(ConfigurationError, match='on_error must be "raise" or "passthrough"'):
        Reranker(raising(OSError()), on_error=policy)


# --- scorers that break their contract


class _Answers(Scorer):
    """Overrides score_many() with an answer that may be wrong."""

    name = "answers"

    def __init__(self, outcomes):
        self._outcomes = outcomes

    def score(self, query, texts, *, instruction=None):
        raise NotImplementedError

    def score_many(self, requests):
        return self._outcomes


@pytest.mark.parametrize(
    "outcomes",
    [[], [Scores([1.0], "logit")] * 3, None, 5, iter([Scores([1.0], "logit")] * 2)],
    ids=["none", "too many", "None", "int", "iterator"],
)
def test_a_wrong_number_of_outcomes_is_an_error_that_names_the_scorer(outcomes):
    with pytest.raises(InvalidScoresError, match="answers"):
        Reranker(_Answers(outcomes)).rank_many(["p", "q"], [["a"], ["b"]])


@pytest.mark.parametrize("outcomes", [[], None], ids=["none", "None"])
def test_a_wrong_number_of_outcomes_is_a_failure_like_others(outcomes):
    rankings = Reranker(_Answers(outcomes), on_error="passthrough").rank_many(["p", "q"], [["a"], ["b"]])
    assert [ranking.degraded for ranking in rankings] == [True, True]


@pytest.mark.parametrize("outcome", [[1.0], None, {"scores": [1.0]}], ids=repr)
def test_an_outcome_that_is_no_scores_is_an_error_that_names_the_scorer(outcome):
    with pytest.raises(InvalidScoresError, match=f"answers must answer with Scores, got {type(outcome).__name__}"):
        Reranker(_Answers([outcome])).rank("q", ["a"])
