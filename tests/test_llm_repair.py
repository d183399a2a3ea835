"""Answers that leave passages out, at random or at the end: what asking again for those is worth, simulated."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from statistics import mean

import pytest

from ranking_oracles import NoisyJudge, Topic, run, topic
from uprank import Ranking, Reranker
from uprank.scorers import LLMScorer
from uprank.scorers.llm import judging
from uprank.scorers.llm.chat import Completion
from uprank.scorers.llm.questions import Order
from uprank.scorers.llm.strategies import STRATEGIES, Settings
from uprank.testing import AskedQuestion, MockChatModel

N = 100
TOPICS = 40
FEATURES = ("system", "temperature", "max_tokens")
Damage = Callable[[list[str], random.Random], tuple[list[str], bool]]


class NoisyModel(MockChatModel):
    """Orders the passages of a prompt as :class:`NoisyJudge` orders candidates, with errors of .6 that are made anew
    for each prompt and a liking for what is shown early; then loses a part of its answer.

    Args:
        of: The topic; passage ``n`` is its candidate ``n``.
        damage: Takes the labels in order and a source of chance, gives those that are said, and whether the limit of
            tokens cut them off.
    """

    def __init__(self, of: Topic, damage: Damage) -> None:
        super().__init__(lambda query, text: 0.0, features=FEATURES)
        self._judge = NoisyJudge(of, independent=0.6, position_bias=0.5)
        self._of, self._damage = of, damage
        self.lost = 0

    def answer(self, question: AskedQuestion) -> Completion:
        ids = tuple(int(text.split(" ")[1]) for text in question.texts)
        label_of = dict(zip(ids, question.labels, strict=True))
        answer = self._judge(Order(ids))
        assert isinstance(answer, tuple)
        chance = random.Random(f"damage {self._of.seed} {ids}")
        labels = [label_of[each] for each in answer if isinstance(each, int)]
        said, cut_off = self._damage(labels, chance)
        self.lost += len(labels) - len(said)
        return Completion(" > ".join(f"[{label}]" for label in said), "length" if cut_off else "stop")


def whole(labels: list[str], chance: random.Random) -> tuple[list[str], bool]:
    return labels, False


def forgetful(labels: list[str], chance: random.Random) -> tuple[list[str], bool]:
    """Each is left out once in twenty times."""
    return [label for label in labels if chance.random() >= 0.05], False


def cut_off(labels: list[str], chance: random.Random) -> tuple[list[str], bool]:
    """The last quarter is missing: the limit of tokens was reached."""
    return labels[: round(0.75 * len(labels))], True


def ranked(of: Topic, damage: Damage) -> tuple[Ranking, NoisyModel]:
    model = NoisyModel(of, damage)
    scorer = LLMScorer(model, strategy="sliding")
    return Reranker(scorer).rank("which?", [f"passage {each} of many" for each in range(N)]), model


@lru_cache
def quality(damage: Damage, *, append: bool = False, topics: int = TOPICS) -> tuple[float, float]:
    """Mean nDCG@10 and calls over the topics.

    ``append`` keeps what is left out behind the rest of its window, as everybody else does; it takes no setting but
    the share of a window from which on that is done, which is set to nought.
    """
    found, calls = [], []
    with pytest.MonkeyPatch.context() as patch:
        if append:
            patch.setattr(judging, "_MANY_MISSING", 0.0)
        for seed in range(topics):
            of = topic(seed)
            ranking, model = ranked(of, damage)
            found.append(of.ndcg([hit.index for hit in ranking]))
            calls.append(len(model.questions))
    return mean(found), mean(calls)


def without_loss(of: Topic) -> tuple[int, ...]:
    """What the same judge comes to without prompts."""
    judge = NoisyJudge(of, independent=0.6, position_bias=0.5)
    return run(STRATEGIES["sliding"].start(N, Settings()), judge, N).order


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_simulation_is_that_of_the_strategies(seed: int):
    """Nothing lost: prompts and answers change nothing."""
    ranking, model = ranked(topic(seed), whole)
    assert tuple(hit.index for hit in ranking) == without_loss(topic(seed))
    assert (len(model.questions), ranking.warnings) == (9, ())


@pytest.mark.no_cover  # the same lines, a thousand times
def test_to_ask_for_the_missing_is_worth_its_calls():
    """5 % of the ids are lost at random: asking for those alone, next to four that were placed, gains 0.02 of nDCG@10
    or more over appending them, and regains more than half of what that loses."""
    again, calls = quality(forgetful)
    appended, as_ever = quality(forgetful, append=True)
    nothing_lost = mean(of.ndcg(without_loss(of)) for of in map(topic, range(TOPICS)))
    assert as_ever == 9
    assert 12 <= calls <= 17  # a window of 20 is complete in one of three times
    assert again >= appended + 0.02
    assert again - appended > nothing_lost - again


@pytest.mark.no_cover  # the same lines, a thousand times
def test_an_answer_that_was_cut_off_is_taken_to_be_in_order():
    """A quarter is missing at the end: it belongs there. Nothing is asked again."""
    ndcg, calls = quality(cut_off)
    assert ndcg >= 0.94
    assert calls == 9


@pytest.mark.slow
@pytest.mark.no_cover
def test_over_more_topics():
    again, _ = quality(forgetful, topics=150)
    appended, _ = quality(forgetful, append=True, topics=150)
    assert again >= appended + 0.02
    assert quality(cut_off, topics=150)[0] >= 0.94


# ---------------------------------------------------------------- one answer


def test_what_was_put_right_is_told():
    """And how often: as many ids as were lost were asked for again, or appended."""
    ranking, model = ranked(topic(3), forgetful)
    (warning,) = ranking.warnings
    assert "missing ids asked for again" in warning
    assert model.lost > 0
    assert not ranking.degraded  # every answer is the model's
    cut, _ = ranked(topic(3), cut_off)
    assert any("cut off, the rest appended (9)" in warning for warning in cut.warnings)


def test_the_second_prompt_shows_the_missing_and_four_that_were_placed():
    ranking, model = ranked(topic(5), forgetful)
    windows = [question for question in model.questions if len(question.texts) == 20]
    second = [question for question in model.questions if len(question.texts) < 20]
    assert len(windows) == 9
    assert second
    for question in second:
        assert 5 <= len(question.texts) <= 8
        known = {text for window in windows for text in window.texts}
        assert set(question.texts) <= known
    assert sorted(hit.index for hit in ranking) == list(range(N))


class Omits(MockChatModel):
    """Leaves out these passages, wherever more than eight are shown."""

    def __init__(self, *omitted: int) -> None:
        super().__init__(lambda query, text: int(text.split(" ")[1]) / 100, features=FEATURES)
        self._omitted = {f"passage {number} of many" for number in omitted}

    def answer(self, question: AskedQuestion) -> Completion:
        completion = super().answer(question)
        if len(question.texts) <= 8:
            return completion
        labels = dict(zip(question.labels, question.texts, strict=True))
        kept = [one for one in completion.text.split(" > ") if labels[one.strip("[]")] not in self._omitted]
        return Completion(" > ".join(kept))


@pytest.mark.parametrize("number", range(1, 21))
def test_one_that_was_left_out_comes_back_near_its_place(number: int):
    """Between the neighbours that it was shown with, which are five places apart at most."""
    texts = [f"passage {each} of many" for each in random.Random(1).sample(range(1, 21), 20)]
    model = Omits(number)
    ranking = Reranker(LLMScorer(model)).rank("which?", texts)
    found = [int(hit.document.text.split(" ")[1]) for hit in ranking]
    assert len(model.questions) == 2
    others = [each for each in found if each != number]
    assert others == sorted(others, reverse=True)
    assert abs(found.index(number) - (20 - number)) <= 3


def test_several_that_were_left_out_keep_the_order_they_are_given():
    texts = [f"passage {each} of many" for each in range(1, 21)]
    model = Omits(3, 11, 12, 19)
    found = [int(hit.document.text.split(" ")[1]) for hit in Reranker(LLMScorer(model)).rank("which?", texts)]
    assert [each for each in found if each in (3, 11, 12, 19)] == [19, 12, 11, 3]
    assert mean(abs(place - (20 - each)) for place, each in enumerate(found)) <= 1


def test_more_than_a_fifth_left_out_are_appended_in_their_order():
    texts = [f"passage {each} of many" for each in range(1, 21)]
    model = Omits(2, 5, 8, 11, 14)
    ranking = Reranker(LLMScorer(model)).rank("which?", texts)
    found = [int(hit.document.text.split(" ")[1]) for hit in ranking]
    assert len(model.questions) == 1
    assert found[-5:] == [2, 5, 8, 11, 14]
    assert any("missing ids appended (5)" in warning for warning in ranking.warnings)
