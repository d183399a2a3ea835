"""Pairs for a cross-encoder that sentence-transformers has loaded, by its own tokenizer.

Two kinds are read here. An encoder with a classification head takes both texts side by side; a model
with a chat template gets them as messages of the roles ``query`` and ``document``, the instruction as
the system message, as sentence-transformers does.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from uprank.scorers.local.batching import beginnings, chunks
from uprank.scorers.local.engines.base import TokenIds, Tokens
from uprank.scorers.local.loading import LongQuery, position_limit, smallest_limit, valid_max_length
from uprank.scorers.local.pairs import ModelInputs, Pair, PairEncoder, ReadyQuery, Surplus, known_window

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

__all__ = ["SentencePairEncoder", "is_bare_classifier", "is_causal", "modular"]

_CAUSAL_TASKS = ("text-generation", "any-to-any")


class SentencePairEncoder(PairEncoder):
    """Turns a query and its documents into token ids for a loaded cross-encoder.

    Args:
        model: The loaded cross-encoder.
        name: Names the model in errors.
        max_length: The window in tokens, for query, document and special tokens together; by
            default the model's own.
        long_query: As for :class:`~uprank.scorers.local.pairs.PairEncoder`.

    Raises:
        ConfigurationError: If ``max_length`` is more than the model has positions for.
    """

    def __init__(self, model: CrossEncoder, *, name: str, max_length: int | None, long_query: LongQuery) -> None:
        super().__init__(name=name, window=_window(model, max_length, name), long_query=long_query)
        self._model = model
        self._tokenizer = model.tokenizer
        self._chats = "message" in getattr(model, "modalities", ())
        if self._chats:
            _leave_ragged(model)
        else:
            side = self._tokenizer.truncation_side
            self._surplus = Surplus(self.window, self._tokenised("a", ["", "b"], self.window), side)

    def rows(self, query: ReadyQuery, texts: Sequence[str]) -> list[Pair]:
        return self._chat_rows(query, texts) if self._chats else self._text_rows(query, texts)

    def _prompt(self, instruction: str | None) -> str | None:
        prompts = getattr(self._model, "prompts", None) or {}
        if instruction is None:
            default = getattr(self._model, "default_prompt_name", None)
            return prompts.get(default) if default else None
        if self._chats:
            (without,), _ = self._render("", [""], None)
            (with_it,), _ = self._render("", [""], instruction)
            heard = not np.array_equal(without, with_it)
        else:
            heard = any(prompts.values())
        if not heard:
            raise self._no_place_for_an_instruction()
        return instruction

    def _around(self, query: str, prompt: str | None) -> tuple[int, ModelInputs]:
        if self._chats:
            (tokens,), model_inputs = self._render(query, [""], prompt)
            return len(tokens), model_inputs
        taken = len(self._tokenizer([(prompt or "") + query], [""], verbose=False)["input_ids"][0])
        inputs: dict[str, Hashable] = {"logits_to_keep": 1} if is_causal(self._model) else {}
        if prompt and modular(self._model):  # for a pooling that leaves the prompt out
            inputs["prompt_length"] = _front(self._model)._get_prompt_length(prompt)
        return taken, tuple(inputs.items())

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _cut(self, text: str, limit: int) -> str:
        return self._cut_all([text], limit)[0]

    def _cut_all(self, texts: Sequence[str], limit: int) -> list[str]:
        if limit < 1:
            return [""] * len(texts)
        fast, side = self._tokenizer.is_fast, self._tokenizer.truncation_side
        self._tokenizer.truncation_side = "right"  # whatever the tokenizer was saved with: the beginning stays
        try:
            tokens = self._tokenizer(
                beginnings(texts, limit, self._count),
                add_special_tokens=False,
                truncation=True,
                max_length=limit + 1,
                return_offsets_mapping=fast,
            )
        finally:
            self._tokenizer.truncation_side = side
        cut = []
        for row, text in enumerate(texts):
            ids = tokens["input_ids"][row]
            if len(ids) <= limit:
                cut.append(text)
            elif fast:
                cut.append(text[: tokens["offset_mapping"][row][limit - 1][1]])
            else:
                cut.append(str(self._tokenizer.decode(ids[:limit], skip_special_tokens=True)))
        return cut

    def _text_rows(self, query: ReadyQuery, texts: Sequence[str]) -> list[Pair]:
        front = (query.prompt or "") + query.text
        if self._tokenizer.truncation_side == "right":
            texts = beginnings(texts, self.window, self._count)
        rows: list[Pair] = []
        for chunk in chunks(texts):
            pairs = self._tokenised(front, chunk, self.window + 1)
            rows.extend(self._surplus.taken(pair, query.room) for pair in pairs)
        return rows

    def _tokenised(self, front: str, texts: Sequence[str], window: int) -> list[Tokens]:
        tokens = self._tokenizer(
            [front] * len(texts),
            texts,
            truncation="only_second",
            max_length=window,
            padding=False,
            return_attention_mask=False,
        )
        types = tokens.get("token_type_ids")
        return [
            Tokens(_array(ids), _array(types[number]) if types else None)
            for number, ids in enumerate(tokens["input_ids"])
        ]

    def _chat_rows(self, query: ReadyQuery, texts: Sequence[str]) -> list[Pair]:
        rows: list[Pair] = []
        for chunk in chunks(texts):
            read = self._cut_all(chunk, query.room)
            rendered, _ = self._render(query.text, read, query.prompt)
            for position, tokens in enumerate(rendered):
                spare = query.room
                while len(tokens) > self.window:  # tokens may split differently where text meets template
                    spare = max(0, spare - (len(tokens) - self.window))
                    read[position] = self._cut_all([chunk[position]], spare)[0]
                    (tokens,), _ = self._render(query.text, [read[position]], query.prompt)
                rows.append(Pair(tokens, None, truncated=read[position] != chunk[position]))
        return rows

    def _render(self, query: str, texts: Sequence[str], prompt: str | None) -> tuple[list[TokenIds], ModelInputs]:
        """Token ids through the model's own chat template, and what else its forward takes."""
        # Messages made here, not pairs: of a pair, a text that looks like an image's address would be taken for one.
        flat = _front(self._model).input_formatter.message_format == "flat"

        def message(role: str, text: str) -> dict[str, object]:
            return {"role": role, "content": text if flat else [{"type": "text", "text": text}]}

        conversations = [[message("query", query), message("document", text)] for text in texts]
        features = self._model.preprocess(conversations, prompt=prompt)
        rest = tuple((key, value) for key, value in features.items() if key in ("modality", "logits_to_keep"))
        return [_array(ids) for ids in features["input_ids"]], cast(ModelInputs, rest)


def _leave_ragged(model: CrossEncoder) -> None:
    """Have the model's own preprocessing render the chat template and neither pad nor cut."""
    front = _front(model)
    options = front.processing_kwargs
    front.processing_kwargs = {
        **options,
        "text": {**options.get("text", {}), "padding": False, "truncation": False},
        "common": {**options.get("common", {}), "return_tensors": None},
    }


def modular(model: CrossEncoder) -> bool:
    """Whether the model is a sequence of modules, as from sentence-transformers 5.4 on."""
    return hasattr(model, "preprocess")


def is_causal(model: CrossEncoder) -> bool:
    """Whether the model answers with the logits of a next token."""
    return modular(model) and _front(model).transformer_task in _CAUSAL_TASKS


def is_bare_classifier(model: CrossEncoder) -> bool:
    """Whether the model is nothing but a transformers classifier, so that its head is the checkpoint's or random."""
    if not modular(model):
        return True
    return len(list(model.children())) == 1 and _front(model).transformer_task == "sequence-classification"


class _Formatter(Protocol):
    message_format: str


class _Front(Protocol):
    """What is used here of the first module of a sequence of modules."""

    input_formatter: _Formatter
    processing_kwargs: dict[str, dict[str, object]]
    transformer_task: str

    def _get_prompt_length(self, prompt: str) -> int | None: ...


def _front(model: CrossEncoder) -> _Front:
    return cast(_Front, model[0])


def _window(model: CrossEncoder, max_length: int | None, name: str) -> int:
    positions = position_limit(model)
    asked = valid_max_length(max_length, positions=positions, name=name)
    saved = _front(model).processing_kwargs if modular(model) else {}
    limits = [saved.get(part, {}).get("max_length") for part in ("chat_template", "text", "common")]
    own = smallest_limit(model.tokenizer.model_max_length, positions, *cast("list[int | None]", limits))
    return known_window(asked or own, name)


def _array(ids: Sequence[int]) -> TokenIds:
    return np.asarray(ids, dtype=np.int32)
