"""Prompts: templates in files, filled with a query and passages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

from uprank.errors import ConfigurationError
from uprank.scorers.llm.chat import Message
from uprank.scorers.llm.examples import Asked, Example, answer_of, groups_of
from uprank.scorers.llm.fencing import Fence, LabelKind, labels, neutral
from uprank.scorers.llm.shapes import max_tokens_for, schema_for
from uprank.scorers.llm.templates import AnswerFormat, PromptKind, Sheet, Turn, fill, read_sections, read_sheet

__all__ = ["AnswerFormat", "Example", "Passage", "Prompt", "PromptKind", "max_tokens_for", "schema_for"]

_HERE = Path(__file__).parent / "prompts_data"


@dataclass(frozen=True, slots=True)
class Passage:
    """A document as it is shown.

    Args:
        label: Its name in this prompt.
        text: Its text.
    """

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """How a question is put to a model.

    Make one by :meth:`load`, :meth:`read` or :meth:`parse`; the form of the files is told in
    :mod:`uprank.scorers.llm.templates`.

    Attributes:
        name: For messages.
        version: As its file says.
        kind: What it asks: ``"order"`` of passages, ``"select"`` the best, ``"compare"`` two, ``"score"`` each.
        forms: The forms of answer that it can ask for.
        fenced: Whether the passages stand in a fence. Templates that fine-tuned models have learnt have none.
        most: Passages in one prompt, at most; ``None`` for any number.
        answers: The words for relevant and not relevant whose probabilities are the score, for models that were tuned
            to say them; ``None`` where they are as usual: yes and no, or the grade's digit.
        thinks: Whether the answer comes after thoughts, which need room.
        takes_instruction: Whether there is a place for the caller's instruction.
        hash: 12 hexadecimal digits that change with whatever shapes the prompt, for caches and records.
    """

    name: str
    version: str
    kind: PromptKind
    forms: tuple[AnswerFormat, ...]
    fenced: bool
    most: int | None
    answers: tuple[str, str] | None
    thinks: bool
    takes_instruction: bool
    hash: str
    _sheet: Sheet
    _wordings: tuple[tuple[str, str], ...]

    @classmethod
    def load(cls, name: str) -> Prompt:
        """A prompt that comes with the package.

        Args:
            name: One of :meth:`names`.

        Raises:
            ConfigurationError: If there is none of that name.
        """
        if name not in cls.names():
            raise ConfigurationError(
                f"There is no prompt named {name!r}. Those that come with uprank: {', '.join(cls.names())}. "
                "Give your own as a path or a Prompt."
            )
        return _shipped(name)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The prompts that come with the package, in alphabetical order."""
        return _names()

    @classmethod
    def read(cls, path: str | Path) -> Prompt:
        """A prompt from a file.

        Args:
            path: Of a text file in UTF-8.

        Raises:
            ConfigurationError: If it cannot be read, or as :meth:`parse`.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise ConfigurationError(f"The prompt {str(path)!r} cannot be read: {problem}") from problem
        return cls.parse(text, name=Path(path).stem)

    @classmethod
    def parse(cls, text: str, *, name: str = "custom") -> Prompt:
        """A prompt from the text of such a file.

        Args:
            text: A header, then sections.
            name: For messages.

        Raises:
            ConfigurationError: If a header or a placeholder is not known, something needed is missing, or the system
                section holds the query or passages.
        """
        sheet = read_sheet(text, name)
        wordings = {**_wordings(sheet.kind), **dict(sheet.wordings)}
        shaping = [repr(getattr(sheet, field.name)) for field in fields(sheet)] + [repr(sorted(wordings.items()))]
        return cls(
            name=name,
            version=sheet.version,
            kind=sheet.kind,
            forms=sheet.forms,
            fenced=sheet.fenced,
            most=sheet.most,
            answers=sheet.answers,
            thinks=sheet.thinks,
            takes_instruction=any("{instruction}" in turn.text for turn in sheet.turns),
            hash=hashlib.sha256("\n".join(shaping).encode()).hexdigest()[:12],
            _sheet=sheet,
            _wordings=tuple(sorted(wordings.items())),
        )

    def labels_for(self, form: AnswerFormat) -> LabelKind:
        """The kind of labels that its passages need.

        Args:
            form: Of the answer.
        """
        if self._sheet.labels is not None:
            return self._sheet.labels
        return "letter" if form == "logprobs" and self.kind != "score" else "nonce"

    def render(
        self,
        *,
        query: str,
        passages: Sequence[Passage],
        form: AnswerFormat,
        fence: Fence | None = None,
        instruction: str | None = None,
        count: int = 1,
        top: int = 1,
        examples: Sequence[Example] = (),
    ) -> tuple[Message, ...]:
        """The messages of one question.

        The query and the passages are made harmless by :func:`~uprank.scorers.llm.fencing.neutral`, also where they
        have been before; the instruction is the caller's own word and is not.

        Args:
            query: The query.
            passages: In the order in which they are shown, at least one.
            form: Of the answer, one of :attr:`forms`.
            fence: Made from all that is shown; by default it is made here.
            instruction: What the caller adds, e.g. what counts as relevant.
            count: How many to choose.
            top: The highest grade; 1 with a single passage asks yes or no.
            examples: Shown first. One without grades is left out where grades are asked for, one of
                a single document where documents are compared.

        Raises:
            ConfigurationError: If the prompt does not take that form, so many passages, an instruction or examples.
        """
        self._check(passages, form, instruction, examples)
        sheet = self._sheet
        if fence is None:
            fence = Fence.make("", [query, *(passage.text for passage in passages)])
        if instruction is None:
            instruction = sheet.default_instruction
        asked = Asked(form, "" if instruction is None else fill(sheet.instruction, {"text": instruction}), count, top)
        real = self._turns(query, passages, asked, fence)
        shown = [message for example in examples for message in self._example(example, passages, asked, fence)]
        if real[0].role == "system":
            return (real[0], *shown, *real[1:])
        return (*shown, *real)

    def text(
        self,
        *,
        query: str,
        passages: Sequence[Passage],
        form: AnswerFormat,
        fence: Fence | None = None,
        instruction: str | None = None,
        count: int = 1,
        top: int = 1,
        examples: Sequence[Example] = (),
    ) -> str | None:
        """The whole prompt with the model's own chat template in it; ``None`` if this prompt does not know it.

        Arguments and errors are those of :meth:`render`.
        """
        if self._sheet.whole is None:
            return None
        messages = self.render(
            query=query,
            passages=passages,
            form=form,
            fence=fence,
            instruction=instruction,
            count=count,
            top=top,
            examples=examples,
        )
        return fill(self._sheet.whole, {"system": "", **{message.role: message.content for message in messages}})

    def _check(
        self, passages: Sequence[Passage], form: AnswerFormat, instruction: str | None, examples: Sequence[Example]
    ) -> None:
        if form not in self.forms:
            raise ConfigurationError(f"The prompt {self.name!r} asks for {' or '.join(self.forms)}, not for {form}.")
        if not passages or (self.most is not None and len(passages) > self.most):
            raise ConfigurationError(
                f"The prompt {self.name!r} takes 1 to {self.most or 'any number of'} passages, not {len(passages)}."
            )
        if instruction is not None and not self.takes_instruction:
            raise ConfigurationError(f"The prompt {self.name!r} has no place for an instruction: leave it out.")
        if examples and self._sheet.whole is not None:
            raise ConfigurationError(
                f"The prompt {self.name!r} is the one that its model was tuned for, without examples: leave them out."
            )

    def _turns(self, query: str, passages: Sequence[Passage], asked: Asked, fence: Fence) -> list[Message]:
        live = [passage.label for passage in passages]
        shown = [Passage(passage.label, self._clean(passage.text, live, fence)) for passage in passages]
        between = "\n\n" if self.fenced else "\n"
        block = between.join(self._passage(self._sheet.passage, passage) for passage in shown)
        values = {
            "query": self._clean(query, live, fence),
            "passages": f"{fence.begin}\n{block}\n{fence.end}" if self.fenced else block,
            "instruction": asked.instruction,
            "nonce": fence.nonce,
            "total": str(len(passages)),
            "count": str(asked.count),
            "top": str(asked.top),
        }
        values["format"] = fill(self._wording(asked, len(passages)), values)
        messages = []
        for turn, each in _grouped(self._sheet.turns):
            if not each:
                messages.append(Message(turn[0].role, fill(turn[0].text, values)))
                continue
            for passage in shown:
                messages.extend(Message(one.role, self._passage(one.text, passage)) for one in turn)
        return messages

    @staticmethod
    def _passage(template: str, passage: Passage) -> str:
        return fill(template, {"label": passage.label, "text": passage.text})

    def _clean(self, text: str, live: Sequence[str], fence: Fence) -> str:
        text = neutral(text, live)
        if self._sheet.one_line:  # after which two pieces that were on two lines could make one id
            text = neutral(" ".join(text.split()), live)
        if self.fenced and fence.nonce.lower() in text.lower():
            text = re.sub(re.escape(fence.nonce), "(code)", text, flags=re.IGNORECASE)
        return text

    def _wording(self, asked: Asked, total: int) -> str:
        variant = ""
        if self.kind == "select" and asked.count > 1:
            variant = " many"
        elif self.kind == "score" and total == 1:
            variant = " yes-no" if asked.top == 1 else " one"
        wordings = dict(self._wordings)
        return wordings.get(asked.form + variant) or wordings.get(asked.form, "")

    def _example(self, example: Example, real: Sequence[Passage], asked: Asked, fence: Fence) -> list[Message]:
        messages = []
        for number, group in enumerate(groups_of(example, self.kind, len(real))):
            texts = [example.documents[position] for position in group]
            kind = self.labels_for(asked.form)
            taken = [passage.label for passage in real] if kind == "nonce" else []
            names = labels(kind, len(group), f"{fence.nonce}|{number}", [example.query, *texts], taken)
            passages = [Passage(name, text) for name, text in zip(names, texts, strict=True)]
            turns = self._turns(example.query, passages, asked, fence)
            messages += [turn for turn in turns if turn.role != "system"]
            said = answer_of(example, dict(zip(group, names, strict=True)), self.kind, asked, thinks=self.thinks)
            messages.append(Message("assistant", said))
        return messages


def _grouped(turns: Sequence[Turn]) -> list[tuple[list[Turn], bool]]:
    """Turns one by one, but those that follow each other for each passage together."""
    groups: list[tuple[list[Turn], bool]] = []
    for turn in turns:
        if turn.each and groups and groups[-1][1]:
            groups[-1][0].append(turn)
        else:
            groups.append(([turn], turn.each))
    return groups


@lru_cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _HERE.glob("*.txt")))


@lru_cache
def _shipped(name: str) -> Prompt:
    return Prompt.read(_HERE / f"{name}.txt")


@lru_cache
def _wordings(kind: PromptKind) -> dict[str, str]:
    return dict(read_sections((_HERE / "answers" / f"{kind}.txt").read_text(encoding="utf-8"))[1])
