"""From a question about candidates to the request that asks it: labels, fence, cuts, form of the answer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from uprank.scorers.base import ScoreRequest
from uprank.scorers.llm.chat import ChatRequest, Feature, Features, Message
from uprank.scorers.llm.fencing import Fence, labels, neutral
from uprank.scorers.llm.prompts import AnswerFormat, Example, Passage, Prompt, PromptKind, max_tokens_for, schema_for
from uprank.scorers.llm.questions import Compare, Order, Prefer, Question, Score, Select, ids_of
from uprank.tokens import cut

__all__ = ["MOST_LETTERS", "Answers", "NoRoom", "Rendered", "Renderer", "Style", "choose_form", "kind_of"]

Answers: TypeAlias = Literal["auto", "text", "json", "tool", "logprobs"]
"""In which form a model is asked to answer; ``"auto"`` takes the strictest that it has."""

_NEEDS: dict[AnswerFormat, Feature] = {"json": "json_schema", "tool": "tools", "logprobs": "logprobs"}
_FIRST: tuple[AnswerFormat, ...] = ("logprobs", "json", "tool", "text")
_SECOND: tuple[AnswerFormat, ...] = ("json", "tool", "text")
MOST_LETTERS = 20  # alternatives that services give for a token at most, so the most labels to tell apart by them
_LEAST_DOCUMENT = 16  # tokens; with less of each document an order would mean nothing
_MARGIN = 0.05  # of the context: an estimate may be short
_THOUGHTS = 2048  # tokens; ReasonRank's are 630 to 930 (arXiv:2508.07050)
_PER_MESSAGE = 4  # tokens around each message
_KINDS: dict[type, PromptKind] = {
    Order: "order",
    Select: "select",
    Compare: "compare",
    Prefer: "compare",
    Score: "score",
}


def choose_form(question: Question, prompt: Prompt, answers: Answers, features: Features) -> AnswerFormat:
    """The form to ask for: the one wanted, as long as the model takes it, else the strictest that it has.

    An order is read from the first token's alternatives only where that is asked for: models that
    were not trained for it order worse that way (arXiv:2406.15657).
    """
    ids = ids_of(question)
    one_token = len(ids) == 1 if isinstance(question, Score) else len(ids) <= MOST_LETTERS
    several = isinstance(question, Select) and question.count > 1
    wanted = answers if answers != "auto" else None
    preferred: tuple[AnswerFormat, ...] = _SECOND
    if isinstance(question, (Score, Compare, Select)) and not several:
        preferred = _FIRST
    for form in (wanted, *preferred) if wanted is not None else preferred:
        if form not in prompt.forms or (form == "logprobs" and not one_token):
            continue
        if form == "text" or _NEEDS[form] in features:
            return form
    return prompt.forms[-1]  # a prompt of a model tuned for one form: it must have that


class NoRoom(Exception):  # noqa: N818 - whether it is an error is for who asks
    """The context has no room for that many documents."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a scorer puts its questions.

    Args:
        prompts: One for each kind of question: ``"order"``, ``"select"``, ``"compare"``, ``"score"``.
        answers: In which form to answer.
        grades: The highest grade of a :class:`Score`; 1 asks yes or no. ``None`` asks that where the probability of
            the answer is known, else for 0 to 3.
        examples: Shown before the question.
        seed: Of labels, and of a model that samples.
        temperature: Of the model.
        count: Counts the tokens of a text.
        context_window: Tokens of a prompt and its answer together.
        max_document_tokens: Documents are cut to so many, at most.
        thinking: Tokens that a model may think before it answers.
    """

    prompts: Mapping[PromptKind, Prompt]
    answers: Answers
    grades: int | None
    examples: Sequence[Example]
    seed: int
    temperature: float
    count: Callable[[str], int]
    context_window: int
    max_document_tokens: int | None
    thinking: int

    def top(self, form: AnswerFormat) -> int:
        """The highest grade, where answers have this form."""
        return self.grades or (1 if form == "logprobs" else 3)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A question as it is asked.

    Args:
        request: For the model.
        labels: Of the candidates, as they are shown.
        form: Of the answer.
        numeric: Whether the labels are plain numbers.
        top: The highest grade.
        words: For yes and for no, of a model that was tuned to say others.
        expected: Tokens that are likely to be read and written.
        documents: Tokens of the documents among them.
        cut: Candidates whose text was cut.
    """

    request: ChatRequest
    labels: tuple[str, ...]
    form: AnswerFormat
    numeric: bool
    top: int
    words: tuple[str, str] | None
    expected: tuple[int, int]
    documents: int
    cut: frozenset[int]


class Renderer:
    """Renders the questions of one query.

    Args:
        style: How.
        request: The query and its documents.
        features: What the model takes, at present.
    """

    def __init__(self, style: Style, request: ScoreRequest, features: Features) -> None:
        self._style, self.request, self._features = style, request, features
        self._query = neutral(request.query)
        self._seed = hashlib.sha256(
            "\x00".join([str(style.seed), request.query, *request.texts]).encode("utf-8", "surrogatepass")
        ).hexdigest()
        self._texts: dict[int, str] = {}
        self._tokens: dict[int, int] = {}
        self._cuts: dict[tuple[int, int], tuple[str, bool]] = {}
        self._overheads: dict[tuple[object, ...], int] = {}
        self._most = math.inf
        self._thoughts = style.thinking

    def measure(self) -> None:
        """Make all documents harmless and count their tokens, which takes long for long ones."""
        for one in range(len(self.request.texts)):
            self._size(one)

    def keep_within(self, room: float) -> None:
        """More tokens of documents in one prompt were too much for the model: keep to so many from now on."""
        self._most = min(self._most, room)

    def let_think(self) -> None:
        """The model thinks before it answers: leave room for that from now on."""
        self._thoughts = max(self._thoughts, _THOUGHTS)

    def render(self, question: Question, *, room: float = math.inf, reminder: str = "") -> Rendered:
        """Render a question.

        Args:
            question: About the request's documents.
            room: Tokens for all documents together, at most, e.g. after the model found more too much.
            reminder: Said at the end, e.g. after an answer that could not be read.

        Raises:
            NoRoom: If there is none for that many documents.
        """
        style, ids = self._style, ids_of(question)
        kind, count = kind_of(question), question.count if isinstance(question, Select) else 1
        prompt = style.prompts[kind]
        form = choose_form(question, prompt, style.answers, self._features)
        seed = f"{self._seed}|{kind}|{ids}"
        least = sum(min(_LEAST_DOCUMENT, self._size(one)) for one in ids)
        room = min(max(min(room, self._most), least), self._room(question, prompt, form, count))
        if room < least:
            taken = self._overheads[kind, form, len(ids), count]
            answer = max_tokens_for(kind, form, len(ids)) + self._room_to_think(prompt)
            raise NoRoom(
                f"the query and the rules take {taken} tokens and the answer up to {answer}, which leaves no room for "
                f"{len(ids)} documents in context_window={style.context_window}"
            )
        shown, cut_ids, documents = self._fitted(ids, room)
        tags = labels(prompt.labels_for(form), len(ids), seed, [self._query, *shown])
        messages, text = self._filled(question, prompt, form, count, tags, shown, seed)
        if reminder:
            messages = (*messages[:-1], replace(messages[-1], content=f"{messages[-1].content}\n\n{reminder}"))
        schema = schema_for(kind, form, count, style.top(form)) if form in ("json", "tool") else None
        request = ChatRequest(
            messages,
            max_tokens=max_tokens_for(kind, form, len(ids)) + self._room_to_think(prompt),
            schema=schema if form == "json" else None,
            tool=schema if form == "tool" else None,
            top_logprobs=MOST_LETTERS if form == "logprobs" else 0,
            temperature=style.temperature,
            seed=style.seed,
            text=text,
        )
        overhead = self._overheads[kind, form, len(ids), count]
        written = _written(kind, form, _answers(question)) + self._room_to_think(prompt)
        return Rendered(
            request,
            tags,
            form,
            numeric=prompt.labels_for(form) == "numeric",
            top=style.top(form),
            words=prompt.answers,
            expected=(overhead + documents, written),
            documents=documents,
            cut=cut_ids,
        )

    def expected(self, question: Question) -> tuple[int, int]:
        """Tokens that are likely to be read and written for a question; nothing is rendered for it."""
        style, ids = self._style, ids_of(question)
        kind, count = kind_of(question), question.count if isinstance(question, Select) else 1
        prompt = style.prompts[kind]
        form = choose_form(question, prompt, style.answers, self._features)
        room = self._room(question, prompt, form, count)
        written = _written(kind, form, _answers(question)) + self._room_to_think(prompt)
        return self._overheads[kind, form, len(ids), count] + self._shown(ids, self._share(ids, room)), written

    def _filled(
        self,
        question: Question,
        prompt: Prompt,
        form: AnswerFormat,
        count: int,
        tags: Sequence[str],
        texts: Sequence[str],
        seed: str,
    ) -> tuple[tuple[Message, ...], str | None]:
        filled: dict[str, Any] = {  # Any: the arguments of both calls below
            "query": self._query,
            "passages": [Passage(tag, text) for tag, text in zip(tags, texts, strict=True)],
            "instruction": self.request.instruction,
            "form": form,
            "count": count,
            "top": self._style.top(form),
            "examples": self._style.examples,
            "fence": Fence.make(seed, [self._query, *texts]),
        }
        return prompt.render(**filled), prompt.text(**filled)

    def _room_to_think(self, prompt: Prompt) -> int:
        """Tokens for thoughts before the answer."""
        return self._thoughts or (_THOUGHTS if prompt.thinks else 0)

    def _room(self, question: Question, prompt: Prompt, form: AnswerFormat, count: int) -> float:
        """Tokens for all documents of a question together; none, or fewer, where there is no room at all."""
        style, size = self._style, len(ids_of(question))
        key = (kind_of(question), form, size, count)
        if key not in self._overheads:
            tags = labels(prompt.labels_for(form), size, "overhead", ())
            messages, _ = self._filled(question, prompt, form, count, tags, [""] * size, "overhead")
            self._overheads[key] = sum(style.count(message.content) + _PER_MESSAGE for message in messages)
        answer = max_tokens_for(kind_of(question), form, size) + self._room_to_think(prompt)
        return style.context_window * (1 - _MARGIN) - answer - self._overheads[key]

    def _fitted(self, ids: Sequence[int], room: float) -> tuple[list[str], frozenset[int], int]:
        """The documents, cut where they must be; which were cut; and the tokens of all."""
        share = self._share(ids, room)
        texts, cut_ids = [], set()
        for one in ids:
            text, was_cut = self._texts[one], False
            if self._tokens[one] > share:
                key = (one, int(share))
                if key not in self._cuts:
                    self._cuts[key] = cut(text, int(share), self._style.count)
                text, was_cut = self._cuts[key]
            texts.append(text)
            if was_cut:
                cut_ids.add(one)
        return texts, frozenset(cut_ids), self._shown(ids, share)

    def _shown(self, ids: Sequence[int], share: float) -> int:
        """Tokens of the documents, of each no more than its share."""
        return math.ceil(sum(min(self._size(one), share) for one in ids))

    def _share(self, ids: Sequence[int], room: float) -> float:
        """Tokens that each document may have: the longest are cut first, all of those to the same length."""
        limit = self._style.max_document_tokens or math.inf
        sizes = sorted(min(self._size(one), limit) for one in ids)
        left = room
        for number, size in enumerate(sizes):
            if size * (len(sizes) - number) > left:  # what is left is shared by those that need more than that
                return max(1.0, left / (len(sizes) - number))
            left -= size
        return limit

    def _size(self, one: int) -> int:
        if one not in self._tokens:
            self._texts[one] = neutral(self.request.texts[one])
            self._tokens[one] = self._style.count(self._texts[one])
        return self._tokens[one]


def kind_of(question: Question) -> PromptKind:
    """Which prompt asks it."""
    return _KINDS[type(question)]


def _answers(question: Question) -> int:
    """How many labels or grades an answer holds."""
    if isinstance(question, Select):
        return question.count
    return len(question.ids) if isinstance(question, (Order, Score)) else 1


def _written(kind: PromptKind, form: AnswerFormat, size: int) -> int:
    """Tokens that an answer is likely to take."""
    if form == "logprobs":
        return 1
    return {"order": 5, "select": 5, "compare": 5, "score": 12}[kind] * size + (4 if form == "text" else 12)
