"""A cross-encoder read from its files: what sentence-transformers would make of them, without loading it.

Only plain classifiers are read this way; :func:`not_plain` says why another is not, and torch then
takes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from uprank.scorers.base import ScoreKind
from uprank.scorers.local.engines.base import Tokens
from uprank.scorers.local.loading import LongQuery, smallest_limit, valid_max_length
from uprank.scorers.local.pairs import ModelInputs, PairEncoder, ReadyQuery, known_window
from uprank.scorers.local.tokenizing import FastTokenizer

__all__ = ["FilePairEncoder", "PairSettings", "not_plain"]

_CLASSIFICATION = ("sequence-classification", None)
# Of these, positions count from the padding token's number plus one.
_SHIFTED = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")


def not_plain(folder: Path, config: Mapping[str, object]) -> str | None:
    """Why a model is more than a transformers classifier with one label; ``None`` if it is none but that."""
    architectures = [str(name) for name in cast("list[str]", config.get("architectures") or [])]
    if architectures and not any(name.endswith("ForSequenceClassification") for name in architectures):
        return f"it is a {', '.join(architectures)}"
    if config.get("auto_map"):
        return "its repository brings Python code of its own"
    modules = _read(folder / "modules.json") if (folder / "modules.json").is_file() else None
    if modules is not None:
        kinds = [str(module.get("type")) for module in cast("list[Mapping[str, object]]", modules)]
        if len(kinds) != 1 or not kinds[0].endswith(".Transformer"):
            return f"it is made of the modules {', '.join(kinds)}"
    saved = _saved(folder)
    if saved.get("transformer_task") not in _CLASSIFICATION:
        return f"its task is {saved['transformer_task']}"
    return None


@dataclass(frozen=True, slots=True)
class PairSettings:
    """What else is saved with a cross-encoder.

    Args:
        score_kind: ``"probability"`` where a sigmoid follows the logits.
        prompts: By name, as sentence-transformers saves them.
        default_prompt: The one that is used where none is asked for.
        limit: Tokens that are read of a pair, where that is saved or follows from the positions.
        positions: The most tokens that the model has positions for; ``None`` where there is no limit.
    """

    score_kind: ScoreKind
    prompts: Mapping[str, str]
    default_prompt: str | None
    limit: int | None
    positions: int | None

    @classmethod
    def read(cls, folder: Path, config: Mapping[str, object]) -> PairSettings:
        """Read them from the files of a model's folder."""
        described = _read(folder / "config_sentence_transformers.json")
        nested = cast("Mapping[str, object]", config.get("sentence_transformers") or {})
        activation = nested.get("activation_fn") or config.get("sbert_ce_default_activation_function")
        sigmoid = activation is None or str(activation).endswith(".Sigmoid")
        prompts = cast("Mapping[str, str]", described.get("prompts") or {})
        default = cast("str | None", described.get("default_prompt_name"))
        positions = config.get("max_position_embeddings")
        if isinstance(positions, int) and config.get("model_type") in _SHIFTED:
            positions -= int(cast("int | None", config.get("pad_token_id")) or 0) + 1
        most = positions if isinstance(positions, int) else None
        saved = _saved(folder)
        options = cast("Mapping[str, Mapping[str, int]]", saved.get("processing_kwargs") or {})
        limits = [options.get(part, {}).get("max_length") for part in ("text", "common")]
        limits.append(cast("int | None", saved.get("max_seq_length")))
        return cls(
            "probability" if sigmoid else "logit",
            prompts,
            prompts.get(default) if default else None,
            smallest_limit(most, *limits),
            most,
        )


class FilePairEncoder(PairEncoder):
    """Turns a query and its documents into token ids for a classifier read from its files.

    Args:
        tokenizer: The model's.
        settings: What else is saved with it.
        name: Names the model in errors.
        max_length: The window in tokens, for query, document and special tokens together; by
            default the model's own.
        long_query: As for :class:`~uprank.scorers.local.pairs.PairEncoder`.

    Raises:
        ConfigurationError: If ``max_length`` is more than the model has positions for, or the files
            do not tell how many tokens it reads.
    """

    def __init__(
        self,
        tokenizer: FastTokenizer,
        settings: PairSettings,
        *,
        name: str,
        max_length: int | None,
        long_query: LongQuery,
    ) -> None:
        asked = valid_max_length(max_length, positions=settings.positions, name=name)
        own = smallest_limit(tokenizer.limit, settings.limit)
        super().__init__(name=name, window=known_window(asked or own, name), long_query=long_query)
        self._tokenizer = tokenizer
        self._settings = settings

    def rows(self, query: ReadyQuery, texts: Sequence[str]) -> list[Tokens]:
        return self._tokenizer.pairs((query.prompt or "") + query.text, texts, self.window)

    def _prompt(self, instruction: str | None) -> str | None:
        if instruction is None:
            return self._settings.default_prompt
        if not any(self._settings.prompts.values()):
            raise self._no_place_for_an_instruction()
        return instruction

    def _around(self, query: str, prompt: str | None) -> tuple[int, ModelInputs]:
        return self._tokenizer.count_pair((prompt or "") + query, ""), ()

    def _count(self, text: str) -> int:
        return self._tokenizer.count(text)

    def _cut(self, text: str, limit: int) -> str:
        return self._tokenizer.cut(text, limit)


def _saved(folder: Path) -> Mapping[str, object]:
    return cast("Mapping[str, object]", _read(folder / "sentence_bert_config.json"))


def _read(path: Path) -> dict[str, object]:
    return cast("dict[str, object]", json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
