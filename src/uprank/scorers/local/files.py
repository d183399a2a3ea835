"""The files of a model: in a local folder, or in a repository of the Hugging Face Hub."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from uprank.errors import ModelLoadError
from uprank.extras import require

__all__ = ["ModelFiles"]

logger = logging.getLogger("uprank")

_SETTINGS = (  # small files, fetched first
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "*/config.json",
    "0_Transformer/*.json",
)
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# Of these, positions count from the padding token's number plus one.
_SHIFTED = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")
_PADDING = 1  # where the configuration does not say
_SHIPPED_ONNX = ("onnx/model.onnx", "model.onnx")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where the files of one model are. What is not on disk yet is fetched when it is asked for.

    Use :meth:`find` to make one.

    Args:
        source: A Hugging Face repository or a local folder.
        folder: Where the files are, or will be.
        remote: Whether they come from a hub.
        commit: Of the repository, so that later fetches give files of the same version.
        token: A Hugging Face access token.
        local_files_only: Use what is on disk, ask no hub.
    """

    source: str
    folder: Path
    remote: bool = False
    commit: str | None = None
    token: str | None = field(default=None, repr=False)
    local_files_only: bool = False

    @classmethod
    def find(
        cls,
        source: str,
        *,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> ModelFiles:
        """Find a model; of a repository, fetch its small files.

        Args:
            source: A Hugging Face repository or a local folder.
            revision: A branch, tag or commit of the repository.
            token: A Hugging Face access token for private or gated models.
            local_files_only: Use what is on disk, ask no hub.

        Raises:
            MissingDependencyError: If it is a repository, and huggingface_hub is not installed.
            ModelLoadError: If there is no such model, or it cannot be fetched.
        """
        folder = Path(source).expanduser()
        if folder.is_dir():
            return cls(source, folder)
        folder = _fetch(source, revision, token, _SETTINGS, local_files_only=local_files_only)
        return cls(source, folder, remote=True, commit=folder.name, token=token, local_files_only=local_files_only)

    @property
    def encoder(self) -> Path:
        """Where the transformer itself is: in a model of modules, the folder of the first."""
        modules = self.read("modules.json")
        if isinstance(modules, list) and modules and isinstance(modules[0], dict):
            path = self.folder / str(modules[0].get("path", ""))
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise ModelLoadError(f"modules.json of {self.source} leads out of its folder: {path.name!r}.")
            return path
        return self.folder

    @property
    def config(self) -> dict[str, object]:
        """The content of ``config.json``.

        Raises:
            ModelLoadError: If there is none, or it cannot be read.
        """
        settings = _read(self.encoder / "config.json", self.source)
        if not isinstance(settings, dict):
            raise ModelLoadError(f"{self.source} has no config.json, so it is not known what model it is.")
        return settings

    @property
    def positions(self) -> int | None:
        """The most tokens that the model has positions for; ``None`` where there is no such limit."""
        config = self.config
        positions = config.get("max_position_embeddings")
        if not isinstance(positions, int) or positions <= 0:
            return None
        if config.get("model_type") not in _SHIFTED:
            return positions
        padding = config.get("pad_token_id")
        return positions - (padding if isinstance(padding, int) else _PADDING) - 1

    def read(self, name: str) -> object:
        """The content of a JSON file among the small files; ``None`` where it is not there.

        Raises:
            ModelLoadError: If it cannot be read.
        """
        return _read(self.folder / name, self.source)

    def weights(self) -> list[Path]:
        """The safetensors files, fetched if need be: one, or all shards.

        Raises:
            ModelLoadError: If there are none, or they cannot be fetched.
        """
        prefix = self._prefix
        folder = self._with(prefix + _WEIGHTS, prefix + _INDEX, prefix + "model-*-of-*.safetensors")
        single, index = folder / (prefix + _WEIGHTS), folder / (prefix + _INDEX)
        if single.is_file():
            return [single]
        shards = _shards(index, self.source) if index.is_file() else []
        missing = [path.name for path in shards if not path.is_file()]
        if missing:
            raise ModelLoadError(f"{self.source} lacks shards of its weights: {', '.join(missing)}.")
        if shards:
            return shards
        raise ModelLoadError(
            f"{self.source} has no weights in safetensors format ({_WEIGHTS}); pickled ones are not read here."
        )

    def shipped_onnx(self) -> Path | None:
        """The repository's own ONNX model in full precision, fetched if need be; ``None`` where it has none."""
        folder = self._with(*(name + suffix for name in _SHIPPED_ONNX for suffix in ("", "_data", ".data")))
        return next((folder / name for name in _SHIPPED_ONNX if (folder / name).is_file()), None)

    def lacks_weights(self) -> str | None:
        """Why there are no weights that can be read here, as the rest of a sentence; ``None`` if there are some."""
        if self._any(self._prefix + _WEIGHTS, self._prefix + _INDEX):
            return None
        return "it has no weights in safetensors format"

    def ships_onnx(self) -> bool:
        """Whether the repository has an ONNX model in full precision; nothing is fetched to tell."""
        return self._any(*_SHIPPED_ONNX)

    def _any(self, *names: str) -> bool:
        if any((self.folder / name).is_file() for name in names):
            return True
        if not self.remote or self.local_files_only:
            return False
        from huggingface_hub import HfApi

        try:
            return any(HfApi(token=self.token).file_exists(self.source, name, revision=self.commit) for name in names)
        except Exception as error:  # offline, say: then what is not on disk cannot be had either
            logger.debug("the hub could not be asked about the files of %s: %s", self.source, error)
            return False

    @property
    def _prefix(self) -> str:
        path = self.encoder.relative_to(self.folder).as_posix()
        return "" if path == "." else f"{path}/"

    def _with(self, *patterns: str) -> Path:
        if not self.remote:
            return self.folder
        return _fetch(self.source, self.commit, self.token, patterns, local_files_only=self.local_files_only)


def _fetch(
    source: str, revision: str | None, token: str | None, patterns: tuple[str, ...], *, local_files_only: bool
) -> Path:
    require(f"model {source!r}", "onnx", "huggingface_hub")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                source, revision=revision, token=token, allow_patterns=list(patterns), local_files_only=local_files_only
            )
        )
    except Exception as error:  # of many kinds: no network, no such repository, not allowed, a bad name
        raise ModelLoadError(f"{source} is no folder here and could not be fetched from the hub: {error}") from error


def _read(path: Path, source: str) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path.name} of {source} could not be read: {error}") from error


def _shards(index: Path, source: str) -> list[Path]:
    content = _read(index, source)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict):
        raise ModelLoadError(f"{index.name} of {source} has no weight_map.")
    return [index.parent / Path(str(name)).name for name in sorted(set(names.values()))]
