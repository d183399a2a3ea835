"""Query-document pairs as token ids: the query is kept whole, only the document is cut.

Two kinds of cross-encoder are read here. An encoder with a classification head takes both texts side
by side; a model with a chat template gets them as messages of the roles ``query`` and ``document``,
the instruction as the system message, as sentence-transformers does. Nothing is padded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from uprank.errors import ConfigurationError, InvalidInputError, QueryTooLongError
from uprank.scorers.local.batching import beginnings, chunks
from uprank.scorers.local.loading import LongQuery, position_limit, smallest_limit, valid_max_length

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

__all__ = ["EncodedPairs", "PairEncoder", "TokenIds", "is_bare_classifier", "is_causal", "modular"]

TokenIds: TypeAlias = NDArray[np.int32]

_CAUSAL_TASKS = ("text-generation", "any-to-any")


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """The pairs of one request.

    Args:
        input_ids: One array a pair.
        token_type_ids: Likewise, for models that tell the two texts apart by them; else empty.
        model_inputs: What the model's forward needs beside token ids.
        warnings: What the caller should know.
    """

    input_ids: list[TokenIds]
    token_type_ids: list[TokenIds]
    model_inputs: dict[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class PairEncoder:
    """Turns a query and its documents into token ids for one model.

    Args:
        model: The loaded cross-encoder.
        name: Names the model in errors.
        max_length: The window in tokens, for query, document and special tokens together; by
            default the model's own.
        long_query: What to do with a query of more than half the window: ``"error"`` or
            ``"truncate"`` it to that, with a warning.

    Raises:
        ConfigurationError: If ``max_length`` is more than the model has positions for.
    """

    def __init__(self, model: CrossEncoder, *, name: str, max_length: int | None, long_query: LongQuery) -> None:
        self._model = model
        self._tokenizer = model.tokenizer
        self._name = name
        self._long_query = long_query
        self.window = _window(model, max_length, name)
        self._chats = "message" in getattr(model, "modalities", ())
        if self._chats:
            _leave_ragged(model)

    def encode(self, query: str, texts: Sequence[str], instruction: str | None) -> EncodedPairs:
        """Return the token ids of the query with each text.

        Raises:
            QueryTooLongError: If the query fills more than half of the window, or with the
                instruction leaves no room for documents.
            InvalidInputError: If an instruction is given to a model that has no place for it.
        """
        prompt = self._prompt(instruction)
        query, warnings = self._fit_query(query)
        encode = self._encode_chats if self._chats else self._encode_texts
        encoded = encode(query, texts, prompt)
        full = sum(len(ids) >= self.window for ids in encoded.input_ids)
        if full:
            warnings.append(
                f"{full} of {len(texts)} documents reach the window of {self.window} tokens; "
                "text beyond it was not read."
            )
        return replace(encoded, warnings=tuple(warnings))

    def _prompt(self, instruction: str | None) -> str | None:
        prompts = getattr(self._model, "prompts", None) or {}
        if instruction is None:
            default = getattr(self._model, "default_prompt_name", None)
            return prompts.get(default) if default else None
        if self._chats:
            heard = not np.array_equal(self._around("", None), self._around("", instruction))
        else:
            heard = any(prompts.values())
        if not heard:
            raise InvalidInputError(
                f"{self._name} has no place for an instruction, neither in a chat template nor in prompts. "
                "Leave instruction=None, or choose a model that takes one."
            )
        return instruction

    def _fit_query(self, query: str) -> tuple[str, list[str]]:
        limit = self.window // 2
        length = self._count(query)
        if length <= limit:
            return query, []
        problem = f"The query has {length} tokens, more than half of the {self.window} that {self._name} reads"
        if self._long_query == "error":
            raise QueryTooLongError(
                f"{problem}: too little room would be left for the documents. Shorten the query, raise max_length "
                'if the model allows it, or pass long_query="truncate".'
            )
        return self._cut([query], limit)[0], [f"{problem}; it was cut to {limit}."]

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _cut(self, texts: Sequence[str], limit: int) -> list[str]:
        """The longest beginning of each text that has at most ``limit`` tokens."""
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

    def _room(self, taken: int) -> int:
        if taken >= self.window:
            raise QueryTooLongError(
                f"The query and the instruction take {taken} of the {self.window} tokens that {self._name} "
                "reads and leave no room for documents. Shorten them or raise max_length."
            )
        return self.window - taken

    def _encode_texts(self, query: str, texts: Sequence[str], prompt: str | None) -> EncodedPairs:
        query = (prompt or "") + query
        self._room(len(self._tokenizer([query], [""], verbose=False)["input_ids"][0]))
        ids: list[TokenIds] = []
        types: list[TokenIds] = []
        if self._tokenizer.truncation_side == "right":
            texts = beginnings(texts, self.window, self._count)
        for chunk in chunks(texts):
            tokens = self._tokenizer(
                [query] * len(chunk),
                chunk,
                truncation="only_second",
                max_length=self.window,
                padding=False,
                return_attention_mask=False,
            )
            ids.extend(_arrays(tokens["input_ids"]))
            types.extend(_arrays(tokens.get("token_type_ids") or ()))
        model_inputs: dict[str, object] = {"logits_to_keep": 1} if is_causal(self._model) else {}
        if prompt and modular(self._model):  # for a pooling that leaves the prompt out
            model_inputs["prompt_length"] = _front(self._model)._get_prompt_length(prompt)
        return EncodedPairs(ids, types, model_inputs)

    def _encode_chats(self, query: str, texts: Sequence[str], prompt: str | None) -> EncodedPairs:
        room = self._room(len(self._around(query, prompt)))
        ids: list[TokenIds] = []
        model_inputs: dict[str, object] = {}
        for chunk in chunks(texts):
            rendered, model_inputs = self._render(query, self._cut(chunk, room), prompt)
            for position, tokens in enumerate(rendered):
                spare = room
                while len(tokens) > self.window:  # tokens may split differently where text meets template
                    spare = max(0, spare - (len(tokens) - self.window))
                    (tokens,), _ = self._render(query, self._cut([chunk[position]], spare), prompt)
                ids.append(tokens)
        return EncodedPairs(ids, [], model_inputs)

    def _around(self, query: str, prompt: str | None) -> TokenIds:
        """The tokens of everything but the document."""
        return self._render(query, [""], prompt)[0][0]

    def _render(self, query: str, texts: Sequence[str], prompt: str | None) -> tuple[list[TokenIds], dict[str, object]]:
        """Token ids through the model's own chat template, and what else its forward takes."""
        # Messages made here, not pairs: of a pair, a text that looks like an image's address would be taken for one.
        flat = _front(self._model).input_formatter.message_format == "flat"

        def message(role: str, text: str) -> dict[str, object]:
            return {"role": role, "content": text if flat else [{"type": "text", "text": text}]}

        conversations = [[message("query", query), message("document", text)] for text in texts]
        features = self._model.preprocess(conversations, prompt=prompt)
        rest = {key: value for key, value in features.items() if key in ("modality", "logits_to_keep")}
        return _arrays(cast("list[list[int]]", features["input_ids"])), rest


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
    if asked is not None:
        return asked
    saved = _front(model).processing_kwargs if modular(model) else {}
    limits = [saved.get(part, {}).get("max_length") for part in ("chat_template", "text", "common")]
    own = smallest_limit(model.tokenizer.model_max_length, positions, *cast("list[int | None]", limits))
    if own is None:
        raise ConfigurationError(f"{name} does not say how many tokens it reads; pass max_length=.")
    return own


def _arrays(rows: Sequence[Sequence[int]]) -> list[TokenIds]:
    return [np.asarray(row, dtype=np.int32) for row in rows]
