"""What a ranking will cost, told before the first call."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from uprank import Reranker
from uprank.errors import InvalidInputError, RequestTooLargeError
from uprank.scorers import LLMScorer
from uprank.scorers.llm.chat import Completion
from uprank.scorers.llm.reference import BEGIN, END, strategies_table, with_table
from uprank.scorers.llm.strategies import STRATEGIES
from uprank.testing import AskedQuestion, MockChatModel
from uprank.tokens import estimate_tokens

PAGE = Path(__file__).parent.parent / "docs" / "llm.md"
SENTENCE = "The quick brown fox (of 1879) jumps over {n} lazy dogs, and then sleeps. "


def texts(n: int, length: int = 2) -> list[str]:
    """Passages of one length, in sentences."""
    return [SENTENCE.format(n=100 + each) * length for each in range(n)]


def relevance(query: str, text: str) -> float:
    found = re.search(r"over (\d+)", text)
    return int(found[1]) / 1000 if found else 0.0


class CountingModel(MockChatModel):
    """Counts the tokens of what it is asked, without being told what was expected."""

    def __init__(self, count: Callable[[str], int] = estimate_tokens) -> None:
        super().__init__(relevance)
        self.count, self.completions = count, list[Completion]()

    def answer(self, question: AskedQuestion) -> Completion:
        completion = super().answer(question)
        self.completions.append(completion)
        return completion

    @property
    def read(self) -> int:
        return sum(self.count(message.content) for one in self.questions for message in one.request.messages)

    @property
    def written(self) -> int:
        return sum(self.count(completion.text) for completion in self.completions)


# ---------------------------------------------------------------- calls and rounds


@pytest.mark.parametrize(
    ("options", "n", "calls", "rounds"),
    [
        ({"strategy": "sliding"}, 100, 9, 9),
        ({"strategy": "sliding"}, 20, 1, 1),
        ({"strategy": "sliding", "window": 10, "step": 2}, 31, 12, 12),
        ({"strategy": "window"}, 100, 1, 1),
        ({"method": "setwise", "strategy": "tree"}, 100, 24, 20),
        ({"method": "setwise", "strategy": "tournament"}, 100, 26, 5),
        ({"strategy": "blocks"}, 100, 11, 2),
        ({"method": "pairwise", "strategy": "all-pairs"}, 30, 870, 1),
        ({"method": "pairwise", "strategy": "pairwise-sliding"}, 30, 2 * sum(29 - each for each in range(10)), 38),
        ({"method": "pointwise", "answers": "logprobs"}, 100, 100, 1),
        ({"method": "pointwise", "answers": "json", "batch": 8}, 100, 13, 1),
        ({"method": "pointwise", "answers": "json", "isolate": True}, 33, 33, 1),
        ({}, 20, 1, 1),
        ({}, 50, 4, 4),
        ({"quality": "fast"}, 50, 1, 1),
        ({"quality": "high"}, 50, 9, 5),
        ({"shuffles": 3}, 20, 4, 2),
        ({"scores": True, "answers": "json"}, 20, 2, 2),  # the default is no batch of 1: see below
        ({"strategy": "sliding"}, 1, 0, 0),
        ({"strategy": "sliding", "scores": True}, 0, 0, 0),
        ({"method": "pointwise"}, 0, 0, 0),
    ],
)
def test_calls_and_rounds(options: dict[str, object], n: int, calls: int, rounds: int):
    model = MockChatModel(relevance)
    plan = LLMScorer(model, **options).plan(n)
    assert (plan.calls.least, plan.calls.typical, plan.calls.most, plan.calls.exact) == (calls, calls, calls, True)
    assert (plan.rounds.least, plan.rounds.typical, plan.rounds.most) == (rounds, rounds, rounds)
    assert plan.documents == n
    assert model.questions == []  # a plan asks nobody


def test_top_down_says_what_it_depends_on():
    plan = LLMScorer(MockChatModel(relevance)).plan(100)
    assert plan.strategy == "top-down"
    assert (plan.calls.least, plan.rounds.least) == (6, 2)
    assert 6 < plan.calls.typical < plan.calls.most
    assert 2 < plan.rounds.typical < plan.rounds.most
    assert not plan.calls.exact


@pytest.mark.parametrize("options", [{}, {"scores": True}, {"quality": "high"}, {"method": "pointwise", "batch": 4}])
@pytest.mark.parametrize("n", [2, 20, 35])
def test_the_plan_of_what_is_then_done(options: dict[str, object], n: int):
    """All options at once: what is added after the strategy counts too."""
    model = MockChatModel(relevance, features=("json_schema", "system"))
    scorer = LLMScorer(model, window=10, top=5, **options)
    plan = scorer.plan(texts(n))
    Reranker(scorer).rank("foxes?", texts(n))
    assert plan.calls.exact
    assert len(model.questions) == plan.calls.least


def test_a_model_that_turns_out_to_lack_a_feature_is_planned_for_without_it():
    """Without log probabilities several documents are graded by one call."""
    model = MockChatModel(relevance)
    scorer = LLMScorer(model, method="pointwise", batch=5)
    assert scorer.plan(20).calls.least == 20
    model.features.drop("logprobs")
    assert scorer.plan(20).calls.least == 4


def test_a_negative_number_of_documents():
    with pytest.raises(InvalidInputError, match="-1"):
        LLMScorer(MockChatModel(relevance)).plan(-1)


def test_a_query_that_leaves_no_room_is_told_before_the_first_call():
    scorer = LLMScorer(MockChatModel(relevance), context_window=1500)
    with pytest.raises(RequestTooLargeError, match="context_window=1500"):
        scorer.plan(20, "word " * 2000)


# ---------------------------------------------------------------- tokens


def by_words(text: str) -> int:
    """A tokenizer of another kind: words and marks."""
    return len(re.findall(r"\w+|[^\w\s]", text))


@pytest.mark.parametrize(
    ("answers", "count"),
    [
        ("text", by_words),
        ("text", estimate_tokens),
        ("json", estimate_tokens),
        ("tool", by_words),
        ("logprobs", by_words),
    ],
)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("listwise", {"strategy": "sliding"}),
        ("setwise", {"strategy": "tournament"}),
        ("pairwise", {"strategy": "pairwise-sliding"}),
        ("pointwise", {"batch": 7}),
        ("listwise", {"strategy": "sliding", "scores": True, "shuffles": 2}),
        ("listwise", {"strategy": "sliding", "context_window": 1200}),  # so that documents are cut
    ],
)
def test_tokens_read_are_planned_from_above_and_closely(
    method: str, options: dict[str, object], answers: str, count: Callable[[str], int]
):
    """At most a tenth more than the tokens of the messages, of which the plan adds four for each."""
    documents = texts(11, length=12)
    model = CountingModel(count)
    scorer = LLMScorer(model, method=method, answers=answers, window=5, top=2, count_tokens=count, **options)
    plan = scorer.plan(documents, "which foxes jump?")
    ranking = Reranker(scorer).rank("which foxes jump?", documents)
    assert any("were cut" in warning for warning in ranking.warnings) == ("context_window" in options)
    assert plan.calls.exact
    assert plan.input_tokens.exact
    assert model.read <= plan.input_tokens.least <= 1.1 * model.read


def test_tokens_of_documents_of_different_lengths_depend_on_the_order():
    """The window carries the best along: where these are the longest, more is read than where they are the shortest."""
    documents = [SENTENCE.format(n=each) * (1 + each) for each in range(14)]
    read = []
    for sign in (1, -1):
        model = CountingModel()
        model._relevance = lambda query, text, sign=sign: sign * relevance(query, text)
        scorer = LLMScorer(model, strategy="sliding", window=5, top=3)
        Reranker(scorer).rank("which foxes jump?", documents)
        read.append(model.read)
    tokens = scorer.plan(documents, "which foxes jump?").input_tokens
    assert read[0] > 1.1 * read[1]
    assert tokens.least <= 1.1 * read[1]
    assert tokens.most >= read[0]


@pytest.mark.parametrize("answers", ["text", "json", "tool", "logprobs"])
@pytest.mark.parametrize("method", ["listwise", "setwise", "pairwise", "pointwise"])
def test_tokens_written_are_planned_about_right(method: str, answers: str):
    """Between two thirds and two and a half times what an estimate that counts rather too many finds in the answers,
    and no more than the limit that the model is given."""
    documents = texts(12)
    model = CountingModel()
    scorer = LLMScorer(model, method=method, answers=answers, window=6, top=3)
    plan = scorer.plan(documents)
    Reranker(scorer).rank("foxes?", documents)
    limit = sum(question.request.max_tokens for question in model.questions)
    assert model.written / 1.5 <= plan.output_tokens.most <= min(limit, 2.5 * model.written)


def test_by_number_a_typical_document_is_supposed():
    scorer = LLMScorer(MockChatModel(relevance), strategy="window", window=10)
    ten, none_longer = scorer.plan(10).input_tokens.least, scorer.plan(["a"] * 1 + ["b"]).input_tokens.least
    assert 1300 <= ten <= 1300 + none_longer + 200
    long = scorer.plan(["word " * 1000] * 1 + ["b"]).input_tokens.least
    assert long - none_longer == pytest.approx(1000, abs=20)


def test_the_query_and_the_instruction_count():
    scorer = LLMScorer(MockChatModel(relevance), strategy="sliding", window=10, step=5)
    plain = scorer.plan(20, "what?").input_tokens.least
    assert scorer.plan(20, "what? " * 50).input_tokens.least > plain + 3 * 2 * 49
    told = scorer.plan(20, "what?", instruction="only what is in force today, and never a draft").input_tokens.least
    assert plain + 3 * 10 <= told <= plain + 3 * 40


def test_thoughts_count_as_written():
    quick = LLMScorer(MockChatModel(relevance), strategy="sliding").plan(50)
    slow = LLMScorer(MockChatModel(relevance), strategy="sliding", thinking=1000).plan(50)
    assert slow.output_tokens.least == quick.output_tokens.least + 4 * 1000


# ---------------------------------------------------------------- money and words


def test_the_price():
    free = LLMScorer(MockChatModel(relevance), strategy="sliding").plan(100)
    assert free.cost is None
    plan = LLMScorer(MockChatModel(relevance), strategy="sliding", price={"input": 0.4, "output": 1.6}).plan(100)
    assert plan.cost == pytest.approx((0.4 * plan.input_tokens.typical + 1.6 * plan.output_tokens.typical) / 1e6)


def test_what_it_cost_is_told_by_the_same_price():
    model = CountingModel()
    scorer = LLMScorer(model, strategy="sliding", window=6, price={"input": 2.0, "output": 10.0})
    plan = scorer.plan(texts(20), "foxes?")
    ranking = Reranker(scorer).rank("foxes?", texts(20))
    assert ranking.usage.cost is not None
    assert plan.cost is not None
    assert 0 < ranking.usage.cost < plan.cost  # the mock counts characters by fours: fewer than the estimate


def test_in_words():
    plan = LLMScorer(MockChatModel(relevance), price={"input": 1.0, "output": 1.0}).plan(100)
    told = str(plan)
    calls = f"({plan.calls.least}-{plan.calls.most}) calls"
    for expected in ("llm:mock", "top-down", "100 documents", calls, "cost 0."):
        assert expected in told
    fixed = str(LLMScorer(MockChatModel(relevance), strategy="sliding").plan(100))
    assert "9 calls in 9 rounds" in fixed
    assert "cost" not in fixed


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def table() -> str:
    return strategies_table()


def test_the_page_shows_the_table_that_the_plans_make(table: str):
    page = PAGE.read_text(encoding="utf-8")
    shown = page.partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == table


def test_the_table_has_every_strategy_and_method(table: str):
    header, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert {row[1] for row in rows} >= {f"`{name}`" for name in STRATEGIES}
    assert {row[0] for row in rows} == {"listwise", "setwise", "pairwise", "pointwise"}
    assert {len(row) for row in rows} == {len(header)}
    sliding = dict(zip(header, next(row for row in rows if row[1] == "`sliding`"), strict=True))
    assert (sliding["N = 20"], sliding["N = 100"]) == ("1 / 1", "9 / 9")


def test_a_page_keeps_what_stands_around_its_table(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("uprank.scorers.llm.reference.strategies_table", lambda: "NEW")
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert with_table(page) == f"before\n{BEGIN}\n\nNEW\n\n{END}\nafter\n"
    assert with_table(with_table(page)) == with_table(page)
