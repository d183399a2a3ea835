"""LLMScorer: options → who is asked, how, and how much it may cost."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from uprank.concurrency import Outcomes, Part, together
from uprank.documents import DocumentLike, as_document, scorable
from uprank.errors import ConfigurationError, InvalidInputError, ServiceError
from uprank.rounds import adrive, drive, in_thread
from uprank.scorers.base import Outcome, ScoreRequest
from uprank.scorers.http.gate import shared_gate
from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.http.retries import RetryPolicy, Step
from uprank.scorers.http.talking import RoundsPlan, TalkingScorer, bare
from uprank.scorers.llm.asking import Asker, ChatEndpoint
from uprank.scorers.llm.budget import Budget, Price, Spending
from uprank.scorers.llm.chat import Features
from uprank.scorers.llm.conversions import JudgeKind
from uprank.scorers.llm.judging import Judge, Judged
from uprank.scorers.llm.models.find import as_chat_model
from uprank.scorers.llm.planning import Plan, estimate
from uprank.scorers.llm.probing import Probe, check_probe, measured, probe_plan
from uprank.scorers.llm.program import Recipe
from uprank.scorers.llm.prompts import Example, Prompt
from uprank.scorers.llm.questions import Compare, Order, Question, Score, Select
from uprank.scorers.llm.rendering import Answers, Renderer, choose_form
from uprank.scorers.llm.running import RankPlan, rank_plan
from uprank.scorers.llm.setup import SETUP, Method, Quality, Setup
from uprank.scorers.llm.strategies import auto
from uprank.secrets import header_prints, masked, without_secrets

__all__ = ["LLMScorer"]

_SMALLEST: dict[JudgeKind, Question] = {
    "order": Order((0, 1)),
    "select": Select((0, 1)),
    "prefer": Compare(0, 1),
    "score": Score((0,)),
}
_QUERY = "word " * 8
_LONG = 50_000  # characters; to prepare more of them takes longer than an event loop should wait
_TYPICAL_DOCUMENT = 130  # tokens of a web passage


class LLMScorer(TalkingScorer[Judged]):
    """Ranks by asking a language model.

    Args:
        llm: A model's name for an OpenAI-compatible service (``"gpt-4.1-mini"``), a LangChain chat model, a
            LlamaIndex ``LLM``, a function ``(messages: list[dict]) -> str``, sync or async, or a
            :class:`~uprank.scorers.llm.ChatModel`.
        method: What the model is asked: to put passages in order (``"listwise"``), to grade each (``"pointwise"``,
            the only one whose scores are probabilities), to choose the best (``"setwise"``), to
            compare two (``"pairwise"``).
        strategy: How a long list is made of such questions; ``"auto"`` chooses by its length. See
            ``uprank.scorers.llm.strategies``.
        quality: ``"fast"`` asks about the first ``window`` documents alone; ``"high"`` puts the best ``window`` in
            order five times, each time shuffled (permutation self-consistency), by listwise and setwise judgements.
        answers: In which form the model answers: ``"json"`` (a schema), ``"tool"`` (a function call), ``"logprobs"``
            (the first token's alternatives) or ``"text"``; ``"auto"`` takes the strictest that it has.
        window: Most documents of one question.
        step: By how many the sliding window moves; half the window by default.
        top: How many ranks at the head must be right; what lies below may be ordered roughly. 10 by default, or half
            the window, which is the most that windows can find for certain.
        passes: How often the sliding window goes over the whole list.
        tournaments: How many tournaments are added up.
        blocks: In how many blocks each document is shown.
        shuffles: Shuffled repetitions on the best ``window``, instead of what ``quality`` says.
        scores: Score the best ``window`` besides, and report probabilities that agree with the order. Documents
            below them have no score.
        grades: Highest grade of a pointwise judgement: 1 asks yes or no, 3 for a grade from 0 to 3. 1 by default where
            the model gives log probabilities, else 3.
        batch: Documents graded by one call of ``method="pointwise"``, where the answer is no single token.
        isolate: Never show two documents in one call, so that none can affect another; ``"pointwise"`` only.
        prompt: Instead of the usual one: a shipped prompt's name (``"rank-zephyr"``), a file, or a
            :class:`~uprank.scorers.llm.Prompt`.
        examples: Shown before the question.
        budget: At most so much for one ranking; at its end the best order so far is returned, flagged.
        price: ``{"input": ..., "output": ...}``, the cost of a million tokens.
        context_window: Tokens of a prompt and its answer together. By default what the model tells, else 16,384.
        max_document_tokens: Documents are cut to so many tokens; by default only to what fits.
        thinking: Tokens that the model may think before it answers.
        count_tokens: Counts the tokens of a text; by default an estimate that is seldom too low.
        temperature: Of the model; leave it at 0.
        seed: Of labels and shuffles, and of a model that takes one.
        strict: Whether one call that fails for good fails the ranking; else its documents keep their
            earlier order and the ranking is flagged. If every call fails, it always does.
        timeout: Seconds for one attempt.
        max_retries: Further attempts after a failure that may pass.
        max_concurrency: Most calls of the model in flight at once, of all scorers that ask it there.
        requests_per_minute: Most calls begun in a minute.
        identity: Stands for the model where its answers are kept, e.g. ``"llama-3 in the cellar, v1"``; to be changed
            whenever it is changed. Needed of a model that is not given by its name.
        options: For a model given by its name: ``api_key`` (or ``OPENAI_API_KEY``), ``base_url``, ``headers``,
            ``proxy``, ``verify``, ``transport``, ``extra_body``; see
            :class:`~uprank.scorers.llm.models.openai.OpenAIModel`. For a function: ``name``.

    Raises:
        ConfigurationError: If an option, or the combination, cannot work.
        MissingDependencyError: If a model is given by its name and the SDK is not installed.
    """

    def __init__(
        self,
        llm: object,
        *,
        method: Method = "listwise",
        strategy: str = "auto",
        quality: Quality = "balanced",
        answers: Answers = "auto",
        window: int = 20,
        step: int | None = None,
        top: int | None = None,
        passes: int = 1,
        tournaments: int = 2,
        blocks: int = 2,
        shuffles: int | None = None,
        scores: bool = False,
        grades: int | None = None,
        batch: int = 10,
        isolate: bool = False,
        prompt: str | Path | Prompt | None = None,
        examples: Sequence[Example] = (),
        budget: Budget | Mapping[str, float] | None = None,
        price: Price | Mapping[str, float] | None = None,
        context_window: int | None = None,
        max_document_tokens: int | None = None,
        thinking: int = 0,
        count_tokens: Callable[[str], int] | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        strict: bool = False,
        timeout: float = 60.0,
        max_retries: int = 4,
        max_concurrency: int = 16,
        requests_per_minute: int | None = None,
        identity: str | None = None,
        **options: Any,  # Any: the chat model checks them
    ) -> None:
        options = masked(options)  # so that a traceback that prints variables shows no secret
        given = {name: value for name, value in locals().items() if name in _OPTIONS}
        model = self._model = as_chat_model(llm, options)
        self.name = model.name
        self._setup = Setup.checked(model.name, **{name: given[name] for name in SETUP})
        setup = self._setup
        gate = shared_gate(f"llm|{model.address}", max_concurrency, requests_per_minute, "|".join(model.secrets()))
        super().__init__(ChatEndpoint(model), gate)
        self._asker = Asker(model, gate, RetryPolicy(max_retries, timeout, None))
        self._style = setup.style(model.context_window)
        self.score_kind = "probability" if setup.scores or method == "pointwise" else "rank"
        self.listwise = method != "pointwise"
        self.accepts_instruction = setup.takes_instruction
        self.key_variable = "OPENAI_API_KEY" if isinstance(llm, str) else None
        self._made_of = (llm, without_secrets({**given, **options}))
        self._ready = not isinstance(llm, str) and not inspect.isfunction(llm)
        self._identity = identity
        self._ready |= any(options.get(name) is not None for name in ("client", "async_client"))

    def __reduce__(self) -> tuple[object, ...]:
        if self._ready:
            raise TypeError(
                f'{self.name} holds a ready model, which may hold a key and is not pickled; name it ("llm:<model>")'
            )
        return _remake, self._made_of

    def identity(self) -> Mapping[str, object] | None:
        named = isinstance(self._made_of[0], str) and not self._ready
        if self._identity is None and (not named or self._setup.count_tokens is not None):
            return None
        setup, style = self._setup, self._style
        further = self._made_of[1].get("extra_body")
        headers = header_prints(self._made_of[1].get("headers"))
        model = {"address": self._model.address, "extra_body": further, "headers": headers} if named else None
        return {
            "scheme": "llm",
            "name": self.name,
            "identity": self._identity,
            "model": model,
            "setup": {name: getattr(setup, name) for name in SETUP if name not in _NO_MATTER},
            "prompts": {kind: f"{prompt.name} {prompt.hash}" for kind, prompt in style.prompts.items()},
            "examples": [asdict(example) for example in setup.examples],
            "context_window": style.context_window,
        }

    def plan(self, documents: int | Iterable[DocumentLike], query: str = "", *, instruction: str | None = None) -> Plan:
        """What ranking will cost, before the first call: its own program, run dry.

        Args:
            documents: How many, of about 130 tokens each, or the documents themselves.
            query: The query.
            instruction: As for ranking.

        Raises:
            InvalidInputError: If the documents cannot be ranked, or their number is negative.
            RequestTooLargeError: If the query leaves no room for any document.
        """
        texts = _planned(documents)
        judge = self._judge(Renderer(self._style, ScoreRequest(query or _QUERY, texts, instruction), self._features))
        if len(texts) > 1:
            judge.check(_SMALLEST[self._setup.kind])
        return estimate(self.name, len(texts), self._recipe(len(texts)), judge.expected, self._setup.price)

    def probe(
        self, queries: Sequence[str], documents_per_query: Sequence[Sequence[str]], *, shuffles: int = 3
    ) -> Probe:
        """Measure on your own queries how far the model's order depends on the order in which it is shown.

        Each query's first ``window`` documents are put in order as they come and shuffled; that is
        ``shuffles`` calls a query.

        Args:
            queries: A few dozen.
            documents_per_query: As the retriever returns them.
            shuffles: How often each is asked, at least 2.

        Returns:
            Figures, and whether ``quality="high"`` is worth its price.

        Raises:
            ConfigurationError: If the method is not ``"listwise"``: no other has an order to repeat.
            InvalidInputError: If there is nothing to measure.
            ServiceError: If no query could be measured.
        """
        try:
            return drive(self._probing(queries, documents_per_query, shuffles), self._round)
        except ServiceError as error:
            raise error.with_traceback(None) from None  # which holds the request, and with it the key

    async def aprobe(
        self, queries: Sequence[str], documents_per_query: Sequence[Sequence[str]], *, shuffles: int = 3
    ) -> Probe:
        """As :meth:`probe`, without blocking the event loop."""
        try:
            return await adrive(self._probing(queries, documents_per_query, shuffles), self._around)
        except ServiceError as error:
            raise error.with_traceback(None) from None  # likewise

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        """As :meth:`score_many`. Cancelling the task cancels the requests in flight."""
        renderers = self._renderers(requests)
        if sum(len(text) for request in requests for text in request.texts) > _LONG:
            await in_thread(partial(_measure, renderers))
        return bare(await adrive(self._rankings(renderers), self._around))

    def _plan(self, requests: Sequence[ScoreRequest]) -> RoundsPlan[Judged]:
        return self._rankings(self._renderers(requests))

    def _rankings(self, renderers: Sequence[Renderer]) -> RoundsPlan[Judged]:
        outcomes: list[Outcome] = yield from together([self._ranking(renderer) for renderer in renderers])
        return outcomes

    def _ranking(self, renderer: Renderer) -> RankPlan:
        spending = Spending(self._setup.budget, self._setup.price)
        texts = renderer.request.texts
        judge, recipe = self._judge(renderer, spending), self._recipe(len(texts))
        return (yield from rank_plan(texts, recipe, judge, spending))

    def _probing(
        self, queries: Sequence[str], documents_per_query: Sequence[Sequence[str]], shuffles: int
    ) -> Generator[list[Part[Step, Reply | Lost | None, Judged]], Outcomes[Judged], Probe]:
        if self._setup.kind != "order":
            raise ConfigurationError(f'{self.name}: probe() measures orders, which only method="listwise" asks for.')
        check_probe(queries, documents_per_query, shuffles)
        requests = [
            ScoreRequest(query, list(dict.fromkeys(texts))[: self._setup.window])
            for query, texts in zip(queries, documents_per_query, strict=True)
        ]
        plans = [
            probe_plan(self._judge(renderer), len(renderer.request.texts), shuffles, self._setup.seed)
            for renderer in self._renderers(requests)
            if len(renderer.request.texts) > 1
        ]
        return measured((yield from together(plans)))

    @property
    def _features(self) -> Features:
        return self._model.features

    def _renderers(self, requests: Sequence[ScoreRequest]) -> list[Renderer]:
        return [Renderer(self._style, request, self._features) for request in requests]

    def _judge(self, renderer: Renderer, spending: Spending | None = None) -> Judge:
        spending = spending or Spending(Budget(), None)
        return Judge(self._asker, renderer, spending, strict=self._setup.strict)

    def _recipe(self, count: int) -> Recipe:
        setup = self._setup
        first_window = setup.quality == "fast"
        strategy = setup.strategy
        if strategy == "auto":
            strategy = auto(setup.method, min(count, setup.window) if first_window else count, setup.settings)
        batch, prompt = setup.window, self._style.prompts["score"]
        if setup.method == "pointwise":
            form = choose_form(Score((0,)), prompt, setup.answers, self._features)
            batch = 1 if setup.isolate or form == "logprobs" else setup.batch
        return Recipe(
            setup.kind,
            strategy,
            setup.settings,
            shuffles=setup.repetitions,
            scores=setup.scores,
            batch=min(batch, prompt.most or batch),
            first_window=first_window,
        )


def _measure(renderers: Sequence[Renderer]) -> None:
    for renderer in renderers:
        renderer.measure()


def _planned(documents: int | Iterable[DocumentLike]) -> list[str]:
    """The texts that are planned for, each once."""
    if isinstance(documents, int) and not isinstance(documents, bool):
        if documents < 0:
            raise InvalidInputError(f"documents must be at least 0, got {documents}.")
        return [f"{number} " + "word " * (_TYPICAL_DOCUMENT - 1) for number in range(documents)]
    if isinstance(documents, (str, bytes, bool, Mapping)) or not isinstance(documents, Iterable):
        raise InvalidInputError(f"documents must be a number or a list of documents, got {type(documents).__name__}.")
    found = (as_document(value, f"Document {index}") for index, value in enumerate(documents))
    return list(dict.fromkeys(scorable(document.text) for document in found))


# Of the setup: what decides whether there is an answer, but not which one; and what the identity has in other words.
_NO_MATTER = ("budget", "price", "strict", "count_tokens", "prompt", "examples", "context_window")

_OPTIONS = tuple(
    name
    for name, parameter in inspect.signature(LLMScorer).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
)


def _remake(llm: object, options: dict[str, Any]) -> LLMScorer:  # Any: the options of an earlier one
    return LLMScorer(llm, **options)
