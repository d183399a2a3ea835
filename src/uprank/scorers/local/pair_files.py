"""A cross-encoder read from its files: what sentence-transformers would make of them, without loading it.

Only plain classifiers are read this way; :func:`not_plain` says why another is not, and torch then
takes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from uprank.scorers.base import ScoreKind
from uprank.scorers.local.files import ModelFiles
from uprank.scorers.local.loading import LongQuery, smallest_limit, valid_max_length
from uprank.scorers.local.pairs import ModelInputs, Pair, PairEncoder, ReadyQuery, Surplus, known_window
from uprank.scorers.local.tokenizing import FastTokenizer

__all__ = ["FilePairEncoder", "PairSettings", "not_plain", "token_types"]

_DESCRIPTION, _MODULE = "config_sentence_transformers.json", "sentence_bert_config.json"
_KNOWN_DESCRIPTION = frozenset(
    ("__version__", "activation_fn", "default_prompt_name", "model_type", "prompts", "similarity_fn_name")
)
_KNOWN_MODULE = frozenset(
    (
        "transformer_task",
        "modality_config",
        "module_output_name",
        "processing_kwargs",
        "unpad_inputs",
        "max_seq_length",
        "do_lower_case",
    )
)


def not_plain(files: ModelFiles, *, trust_remote_code: bool) -> str | None:
    """Why a model is more than a transformers classifier with one label; ``None`` if it is none but that.

    What is not known to change nothing counts as more: torch reads everything as sentence-transformers does.

    Args:
        files: The model's.
        trust_remote_code: Whether code named in its files would be run.

    Raises:
        ModelLoadError: If one of its files cannot be read.
    """
    config = files.config
    architectures = [str(name) for name in cast("list[str]", config.get("architectures") or [])]
    if architectures and not any(name.endswith("ForSequenceClassification") for name in architectures):
        return f"it is a {', '.join(architectures)}"
    if config.get("auto_map"):
        return "its repository brings Python code of its own"
    modules = cast("list[Mapping[str, object]]", files.read("modules.json") or [])
    kinds = [str(module.get("type")) for module in modules]
    if modules and (len(kinds) != 1 or not re.fullmatch(r"sentence_transformers\..*\.Transformer", kinds[0])):
        return f"it is made of the modules {', '.join(kinds)}"
    described = _settings(files, _DESCRIPTION)
    if trust_remote_code and not str(_activation(config, described) or "torch.").startswith("torch."):
        return "a function of its own follows its logits"
    if unknown := sorted(set(described) - _KNOWN_DESCRIPTION):
        return f"its {_DESCRIPTION} has {', '.join(unknown)}"
    if more := _unknown(_settings(files, _MODULE)):
        return f"its {_MODULE} has {more}"
    if not (files.encoder / "tokenizer.json").is_file():
        return "it has no tokenizer.json"
    if token_types(files) is None:
        return "its tokenizer does not say whether it tells query and document apart"
    return None


def token_types(files: ModelFiles) -> bool | None:
    """Whether the model is told which of the two texts a token belongs to; ``None`` where that is not known."""
    if not cast(int, files.config.get("type_vocab_size") or 0) > 1:
        return False  # there is nothing to tell
    settings = _settings(files, "tokenizer_config.json")
    names = settings.get("model_input_names")
    if names is not None:
        return "token_type_ids" in cast("list[str]", names)
    kind = str(settings.get("tokenizer_class")).removesuffix("Fast")
    return {
        "BertTokenizer": True,
        "ElectraTokenizer": True,
        "RobertaTokenizer": False,
        "XLMRobertaTokenizer": False,
    }.get(kind)


def _unknown(saved: Mapping[str, object]) -> str | None:
    """What of a module's settings is not known to mean a plain classifier."""
    options = cast("Mapping[str, Mapping[str, object]]", saved.get("processing_kwargs") or {})
    if any(part not in ("text", "common") or set(given) - {"max_length"} for part, given in options.items()):
        return "processing_kwargs for more than a length"
    if set(cast("Mapping[str, object]", saved.get("modality_config") or {})) - {"text"}:
        return "several modalities"
    if saved.get("transformer_task") not in ("sequence-classification", None):
        return f"the task {saved['transformer_task']}"
    if saved.get("do_lower_case"):
        return "do_lower_case"
    return ", ".join(sorted(set(saved) - _KNOWN_MODULE)) or None


def _activation(config: Mapping[str, object], described: Mapping[str, object]) -> object:
    """The path of what follows the logits, where sentence-transformers looks for it."""
    nested = cast("Mapping[str, object]", config.get("sentence_transformers") or {})
    places = (described.get("activation_fn"), nested.get("activation_fn"))
    return next((path for path in places if path), config.get("sbert_ce_default_activation_function"))


def _settings(files: ModelFiles, name: str) -> Mapping[str, object]:
    """A JSON file beside the model's configuration, or in the model's folder; empty where there is none."""
    prefix = files.encoder.relative_to(files.folder)
    content = files.read(str(prefix / name) if name != _DESCRIPTION else name)
    return cast("Mapping[str, object]", content) if isinstance(content, dict) else {}


@dataclass(frozen=True, slots=True)
class PairSettings:
    """What else is saved with a cross-encoder.

    Args:
        score_kind: ``"probability"`` where a sigmoid follows the logits.
        prompts: By name, as sentence-transformers saves them.
        default_prompt: The one that is used where none is asked for.
        limit: Tokens that are read of a pair, where that is saved or follows from the positions.
        positions: The most tokens that the model has positions for; ``None`` where there is no limit.
        own_limit: Instead of the tokenizer's, where that is saved.
        side: Which side of a document is cut off.
    """

    score_kind: ScoreKind
    prompts: Mapping[str, str]
    default_prompt: str | None
    limit: int | None
    positions: int | None
    own_limit: int | None = None
    side: str = "right"

    @classmethod
    def read(cls, files: ModelFiles) -> PairSettings:
        """Read them from the model's files."""
        config, described, saved = files.config, _settings(files, _DESCRIPTION), _settings(files, _MODULE)
        activation = _activation(config, described)
        # As in sentence-transformers: a function from elsewhere is not trusted, and a sigmoid is what one label has.
        trusted = activation is not None and str(activation).startswith("torch.")
        sigmoid = not trusted or str(activation).endswith(".Sigmoid")
        prompts = cast("Mapping[str, str]", described.get("prompts") or {})
        default = cast("str | None", described.get("default_prompt_name"))
        options = cast("Mapping[str, Mapping[str, int]]", saved.get("processing_kwargs") or {})
        limits = [options.get(part, {}).get("max_length") for part in ("text", "common")]
        return cls(
            "probability" if sigmoid else "logit",
            prompts,
            prompts.get(default) if default else None,
            smallest_limit(files.positions, *limits),
            files.positions,
            cast("int | None", saved.get("max_seq_length")),
            str(_settings(files, "tokenizer_config.json").get("truncation_side") or "right"),
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
        own = smallest_limit(settings.own_limit or tokenizer.limit, settings.limit)
        super().__init__(name=name, window=known_window(asked or own, name), long_query=long_query)
        self._tokenizer = tokenizer
        self._settings = settings
        self._surplus = Surplus(self.window, tokenizer.pairs("a", ["", "b"], self.window), settings.side)

    def rows(self, query: ReadyQuery, texts: Sequence[str]) -> list[Pair]:
        pairs = self._tokenizer.pairs((query.prompt or "") + query.text, texts, self.window + 1)
        return [self._surplus.taken(pair, query.room) for pair in pairs]

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
