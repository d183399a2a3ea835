"""Long documents by passages, and whether a text was cut: by oracles that note what they are asked, and real models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from conftest import save_bert
from uprank import Reranker
from uprank.errors import ConfigurationError, ScorerError
from uprank.scorers import CallableScorer, CrossEncoderScorer, EmbeddedScorer, LateInteractionScorer, Passages
from uprank.scorers.base import Scorer, ScoreRequest, Scores, Usage
from uprank.scorers.evidence import Evidence, Passage
from uprank.scorers.local.files import ModelFiles
from uprank.scorers.local.pair_files import FilePairEncoder, PairSettings
from uprank.scorers.local.sentence_pairs import SentencePairEncoder
from uprank.scorers.local.tokenizing import FastTokenizer
from uprank.tokens import estimate_tokens

FILLER = "The committee met on a Tuesday and spoke at length about the colour of the curtains. "
ANSWER = "The capital of France is Paris. "
QUERY = "What is the capital of France?"


def words_of(text: str) -> int:
    return len(text.split())


class Oracle(Scorer):
    """Scores a text by the number it ends with, and notes all that it is asked."""

    name = "oracle"
    score_kind = "logit"
    accepts_instruction = True

    def __init__(self, **answer: object) -> None:
        self.asked: list[ScoreRequest] = []
        self.answer = answer

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        raise AssertionError("requests of a call are to be asked together")

    def score_many(self, requests: Sequence[ScoreRequest]) -> list[Scores | Exception]:
        self.asked += requests
        return [ScorerError("no") if request.query == "fail" else self._scores(request.texts) for request in requests]

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Scores | Exception]:
        await asyncio.sleep(0)
        return self.score_many(requests)

    def _scores(self, texts: Sequence[str]) -> Scores:
        answer = dict(self.answer)
        for name in ("reported", "evidence"):
            if name in answer:
                answer[name] = [answer[name](text) for text in texts]
        return Scores([float(text.split()[-1]) for text in texts], "logit", **answer)


def passages(oracle: Scorer, how: str = "max_passage", **options: object) -> Passages:
    return Passages(oracle, how, tokens=8, overlap=0, count_tokens=words_of, **options)


LONG = "a b c d e f g 1 a b c d e f g 5 a b c d e f g 3 tail 4"
SHORT = "short 2"


def test_a_document_scores_as_its_best_window():
    oracle = Oracle()
    scores = passages(oracle).score("q", [SHORT, LONG])
    (request,) = oracle.asked
    assert request.texts == (SHORT, LONG[:16], LONG[16:32], LONG[32:48], "tail 4")
    assert scores.values == [2.0, 5.0]
    assert scores.evidence == [
        Evidence(passage=Passage(0, len(SHORT), SHORT)),
        Evidence(passage=Passage(16, 32, "a b c d e f g 5 ")),
    ]
    assert LONG[16:32] == scores.evidence[1].passage.text
    assert (scores.kind, scores.reported, scores.degraded) == ("logit", None, False)
    assert scores.usage.pairs == 5


def test_the_mean_of_the_best_windows():
    assert passages(Oracle(), "mean_top").score("q", [SHORT, LONG]).values == [2.0, 4.0]
    assert passages(Oracle(), "mean_top", top=2).score("q", [LONG]).values == [4.5]
    best = passages(Oracle(), "mean_top", top=9).score("q", [LONG])
    assert best.values == [3.25]
    assert best.evidence[0].passage.text.split()[-1] == "5"
    assert passages(Oracle(), "mean_top", top=1).score("q", [LONG]).values == [5.0]


def test_a_passage_that_several_documents_share_is_scored_once_and_keeps_its_best_retrieval_score():
    oracle = Oracle()
    texts = [LONG, LONG + " 9", LONG[:16] + "own 7"]
    passages(oracle).score_many([ScoreRequest("q", texts, "judge", (0.2, 0.7, 0.5))])
    (request,) = oracle.asked
    assert len(set(request.texts)) == len(request.texts) == 6
    assert (request.query, request.instruction) == ("q", "judge")
    assert dict(zip(request.texts, request.retrieval_scores, strict=True)) == {
        LONG[:16]: 0.7,
        LONG[16:32]: 0.7,
        LONG[32:48]: 0.7,
        "tail 4": 0.2,
        "tail 4 9": 0.7,
        "own 7": 0.5,
    }


def test_what_else_the_scorer_says_is_kept():
    oracle = Oracle(
        native="probability",
        usage=Usage(tokens=70, requests=2),
        warnings=("one", "two", "one"),
        degraded=True,
        model="other",
        calibrator=abs,
        evidence=lambda text: Evidence(model=text[-1], stage=1, truncated=text.endswith("1 ")),
    )
    scores = passages(oracle).score("q", [SHORT, LONG])
    assert (scores.native, scores.usage, scores.warnings) == ("probability", Usage(5, 70, requests=2), ("one", "two"))
    assert (scores.degraded, scores.model, scores.calibrator) == (True, "other", abs)
    assert [(known.stage, known.truncated, known.passage.start) for known in scores.evidence] == [
        (1, False, 0),
        (1, True, 16),  # the first window was cut although it is not the best one
    ]


def test_what_is_shown_never_rises_where_the_order_falls():
    shown = {"1": 0.0, "2": 0.6, "3": None, "4": 0.6, "5": 0.6}
    oracle = Oracle(reported=lambda text: shown[text.split()[-1]])
    scores = passages(oracle, "mean_top", top=9).score("q", [SHORT, LONG, "x 3"])
    assert scores.values == [2.0, 3.25, 3.0]
    assert scores.reported == [pytest.approx(0.4), pytest.approx(0.4), None]  # the first was 0.6
    rising = Oracle(reported=lambda text: float(text.split()[-1]) / 10)
    assert passages(rising).score("q", [SHORT, LONG]).reported == [0.2, 0.5]
    ranking = Reranker(passages(rising, "mean_top")).rank("q", [SHORT, LONG])
    assert [(hit.index, hit.score) for hit in ranking] == [(1, pytest.approx(0.4)), (0, 0.2)]


async def test_a_request_that_fails_fails_alone_and_async_gives_the_same():
    requests = [ScoreRequest("q", [LONG]), ScoreRequest("fail", [LONG]), ScoreRequest("q", [SHORT])]
    oracle = Oracle()
    outcomes = passages(oracle).score_many(requests)
    assert [type(outcome) for outcome in outcomes] == [Scores, ScorerError, Scores]
    again = await passages(oracle).ascore_many(requests)
    assert [getattr(outcome, "evidence", None) for outcome in again] == [
        getattr(outcome, "evidence", None) for outcome in outcomes
    ]


async def test_long_texts_are_split_off_the_event_loop():
    import threading

    threads: set[threading.Thread] = set()

    def count(text: str) -> int:
        threads.add(threading.current_thread())
        return words_of(text)

    scorer = Passages(Oracle(), tokens=100, count_tokens=count)
    await scorer.ascore("q", ["a b c 1 " * 4_000])
    assert threads
    assert threading.current_thread() not in threads


def test_windows_leave_room_for_the_query_unless_documents_are_read_apart_from_it():
    def longest(scorer: Scorer, query: str = "q", **options: object) -> int:
        asked: list[list[str]] = []
        reading = CallableScorer(lambda _, texts: asked.append(texts) or [0.0] * len(texts))
        reading.document_window = scorer.document_window
        if isinstance(scorer, EmbeddedScorer):
            reading = scorer
            scorer.score_many = lambda requests: [
                asked.append(list(request.texts)) or Scores([0.0] * len(request.texts), "cosine")
                for request in requests
            ]
        Passages(reading, **options).score(query, [FILLER * 200])
        return max(estimate_tokens(text) for text in asked[0])

    unknown = CallableScorer(len)
    line = estimate_tokens(FILLER)
    for found, most in [
        (longest(unknown), 512 - 64),
        (longest(unknown, "why? " * 40), 512 - 128),
        (longest(CrossEncoderScorer(".", max_length=128)), 128 - 64),
        (longest(CrossEncoderScorer(".", max_length=8192)), 512 - 64),
        (longest(EmbeddedScorer(max_length=200), "why? " * 40), 200),
        (longest(unknown, tokens=100), 100),
    ]:
        assert most - line < found <= most


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"how": "best"}, 'how must be "max_passage" or "mean_top"'),
        ({"tokens": 7}, "tokens must be an integer of at least 8, got 7"),
        ({"tokens": True}, "tokens must be an integer"),
        ({"tokens": 100, "overlap": 51}, "overlap must be at most half of the 100 tokens of a window, got 51"),
        ({"overlap": -1}, "overlap must be an integer of at least 0"),
        ({"how": "mean_top", "top": 0}, "top must be an integer of at least 1"),
        ({"count_tokens": 3}, "count_tokens must be a function"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        Passages(Oracle(), **options)


def test_it_stands_for_its_scorer():
    named = CallableScorer(lambda query, texts: [0.0] * len(texts), name="mine", score_kind="cosine", identity="v1")
    scorer = Passages(named, tokens=64)
    assert (scorer.name, scorer.score_kind, scorer.listwise, scorer.document_window) == ("mine", "cosine", False, None)
    assert scorer.identity() != Passages(named, tokens=65).identity() != Passages(named, "mean_top").identity()
    assert scorer.identity() == Passages(named, tokens=64).identity()
    assert Passages(named, count_tokens=len).identity() is None
    assert Passages(CallableScorer(len)).identity() is None
    other = scorer.with_members([CallableScorer(lambda query, texts: [1.0] * len(texts), name="other")])
    assert (other.name, other.score("q", [FILLER * 9]).values) == ("other", [1.0])
    with pytest.raises(ConfigurationError, match="keeps no document vectors"):
        scorer.precompute([FILLER])


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedScorer]:
    scorer = EmbeddedScorer(device="cpu", max_length=64)
    yield scorer
    scorer.close()


def test_an_answer_beyond_the_window_is_found_and_its_passage_told(embedded: EmbeddedScorer):
    documents = [FILLER * 30 + ANSWER + FILLER * 30, FILLER * 40, "Berlin lies in Germany."]
    truncated = Reranker(embedded).rank(QUERY, documents)
    assert [hit.index for hit in truncated] == [2, 0, 1]
    assert [hit.truncated for hit in truncated] == [False, True, True]
    ranking = Reranker(Passages(embedded)).rank(QUERY, documents)
    best = ranking[0]
    assert best.index == 0
    assert ANSWER in best.passage.text
    assert best.passage.text == documents[0][best.passage.start : best.passage.end]
    assert [hit.truncated for hit in ranking] == [False] * 3
    assert ranking.warnings == ()
    (alone,) = embedded.score(QUERY, [best.passage.text]).values
    assert best.score == pytest.approx(alone, abs=1e-5)


def test_windows_are_precomputed_as_they_are_asked_for(embedded: EmbeddedScorer):
    scorer = Passages(embedded)
    text = FILLER.replace("Tuesday", "Friday") * 20
    added = scorer.precompute([text])
    assert added > 1
    assert scorer.precompute([text]) == 0
    scores = scorer.score("Which colour?", [text])
    assert scores.usage.tokens < 10  # the query alone was read


def test_a_text_that_just_fits_was_not_cut(embedded: EmbeddedScorer, tmp_path: Path):
    fits = " ".join(["whale"] * 62)  # with [CLS] and [SEP], the window
    texts = [fits, fits + " fox", "fox", fits + " \n", "fox " * 5_000]
    expected = [False, True, False, False, True]
    stored = EmbeddedScorer(device="cpu", max_length=64, store=str(tmp_path / "kept"))
    for scorer in (embedded, embedded, stored, stored, EmbeddedScorer(device="cpu", max_length=64, store=False)):
        scores = scorer.score("whale", texts)
        assert [known.truncated for known in scores.evidence] == expected
        assert scores.usage.tokens in (3, 3 + 4 * 64 + 3)  # what was kept is not read again
        assert scores.values[0] == pytest.approx(scores.values[1], abs=1e-6)  # the same tokens were read
    stored.close()
    reopened = EmbeddedScorer(device="cpu", max_length=64, store=str(tmp_path / "kept")).score("whale", texts)
    assert [known.truncated for known in reopened.evidence] == expected
    assert reopened.usage.tokens == 3


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_a_cross_encoder_tells_which_documents_it_cut(tiny_models: dict[str, Path], engine: str):
    scorer = CrossEncoderScorer(str(tiny_models["bert"]), engine=engine, device="cpu", dtype="float32")
    fits = " ".join(["fox"] * 123)  # with the query, [CLS] and two [SEP], the window of 128
    scores = scorer.score("red sea", [fits, fits + " dog", "a dog", "fox " * 5_000])
    assert [known.truncated for known in scores.evidence] == [False, True, False, True]
    assert scores.values[0] == pytest.approx(scores.values[1], abs=1e-5)
    assert scores.warnings == ("3 of 4 documents reach the window of 128 tokens; text beyond it was not read.",)
    assert scorer.document_window == 128
    hits = Reranker(Passages(scorer)).rank("red sea", ["fox dog whale. " * 60, "a dog"])
    assert [hit.truncated for hit in hits] == [False, False]
    assert all(len(hit.passage.text) <= 700 for hit in hits)


def test_a_causal_model_tells_which_documents_it_cut(tiny_models: dict[str, Path]):
    scorer = CrossEncoderScorer(str(tiny_models["causal"]), device="cpu", dtype="float32")
    room = scorer.score("red sea", ["a fox"]) and scorer._pairs.query("red sea", None).room
    fits = " ".join(["fox"] * room)
    scores = scorer.score("red sea", [fits, fits + " dog", "a dog"])
    assert [known.truncated for known in scores.evidence] == [False, True, False]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_the_token_that_tells_of_more_is_not_read(tiny_models: dict[str, Path], side: str, kind: str):
    from sentence_transformers import CrossEncoder

    folder = tiny_models[kind]
    long = " ".join(f"fox {word} sea" for word in ("red", "blue", "lazy", "quick") * 20)
    theirs = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    expected = theirs("red fox", long, truncation="only_second", max_length=40)
    limited = FastTokenizer.from_folder(folder, types=kind == "bert", name="model")
    limited._side = side
    files = PairSettings.read(ModelFiles.find(str(folder)))
    settings = PairSettings(files.score_kind, {}, None, files.limit, files.positions, side=side)
    model = CrossEncoder(str(folder), device="cpu")
    model.tokenizer.truncation_side = side
    options = {"name": "model", "max_length": 40, "long_query": "error"}
    for encoder in (FilePairEncoder(limited, settings, **options), SentencePairEncoder(model, **options)):
        pair, short = encoder.rows(encoder.query("red fox", None), [long, "a dog"])
        assert (pair.truncated, short.truncated) == (True, False)
        assert pair.ids.tolist() == expected["input_ids"]
        if kind == "bert":
            assert pair.types.tolist() == expected["token_type_ids"]


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_late_interaction_tells_which_documents_it_cut_on_either_side(tmp_path: Path, engine: str):
    folder = save_bert(tmp_path / "bert", positions=32)
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace("{", '{"truncation_side": "left", ', 1))
    scorer = LateInteractionScorer(str(folder), engine=engine, device="cpu", dtype="float32", store=False)
    fits = " ".join(["fox"] * 29 + ["dog"])
    scores = scorer.score("whale", [fits, "sea " + fits, "fox", fits + " sea"])
    assert [known.truncated for known in scores.evidence] == [False, True, False, True]
    assert scores.values[0] == pytest.approx(scores.values[1], abs=1e-5)  # the end was read
    assert not np.isclose(scores.values[0], scores.values[3], atol=1e-5)
    assert scorer.document_window == 32


def test_documents_by_passages_in_both_ways_in_are_the_callers_own(embedded: EmbeddedScorer):
    documents = [FILLER * 30 + ANSWER, "France"]
    (ranking,) = Reranker(Passages(embedded, "mean_top", top=2)).rank_many([QUERY], [documents])
    assert {hit.document.text for hit in ranking} == set(documents)
    assert asyncio.run(Reranker(Passages(embedded)).arank(QUERY, documents))[0].index == 0
