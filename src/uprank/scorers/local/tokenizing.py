"""Texts and pairs as token ids, by the ``tokenizers`` library alone: no torch, no transformers.

Nothing is padded; only documents are cut to fit the window.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uprank.errors import ModelLoadError
from uprank.scorers.local.batching import beginnings, chunks
from uprank.scorers.local.engines.base import TokenIds, Tokens
from uprank.scorers.local.loading import smallest_limit

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

__all__ = ["FastTokenizer", "TokenisedText"]


class TokenisedText(NamedTuple):
    """The token ids of one text.

    Attributes:
        ids: Of shape (tokens,).
        special: Of shape (tokens,); true for tokens that the tokenizer added.
    """

    ids: TokenIds
    special: NDArray[np.bool_]


class FastTokenizer:
    """A tokenizer as saved in ``tokenizer.json``. To be used by one thread at a time.

    Args:
        tokenizer: As loaded by the ``tokenizers`` library.
        limit: The most tokens that the tokenizer's own settings allow, where they say.
        side: Which side of a document is cut off.
        types: Whether the model is told which of two texts a token belongs to.
    """

    def __init__(self, tokenizer: Tokenizer, *, limit: int | None, side: str = "right", types: bool = False) -> None:
        self._tokenizer = tokenizer
        self._side = side
        self._types = types
        self.limit = limit
        tokenizer.no_padding()

    @classmethod
    def from_folder(cls, folder: Path, *, types: bool, name: str) -> FastTokenizer:
        """Load ``tokenizer.json``, and from ``tokenizer_config.json`` the window and the side that is cut.

        Raises:
            ModelLoadError: If there is no such file, or it cannot be read.
        """
        from tokenizers import Tokenizer

        settings_file = folder / "tokenizer_config.json"
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            settings = json.loads(settings_file.read_text(encoding="utf-8")) if settings_file.is_file() else {}
        except Exception as error:  # the library raises bare Exception
            raise ModelLoadError(f"{name}: its tokenizer could not be read: {error}") from error
        limit = smallest_limit(settings.get("model_max_length"))
        return cls(tokenizer, limit=limit, side=settings.get("truncation_side") or "right", types=types)

    def count(self, text: str, *, special: bool = False) -> int:
        """Tokens of a text, uncut, those that the tokenizer adds left out unless ``special``."""
        self._tokenizer.no_truncation()
        return len(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def count_pair(self, query: str, text: str) -> int:
        """Tokens of a pair, uncut, with those that the tokenizer adds."""
        self._tokenizer.no_truncation()
        return len(self._tokenizer.encode(query, text).ids)

    def texts(self, texts: Sequence[str], window: int | None) -> list[TokenisedText]:
        """Tokenise texts, each cut to ``window`` tokens, special tokens included."""
        rows: list[TokenisedText] = []
        # Special tokens are told by where the tokenizer put them: a text may spell them out itself.
        for chunk in chunks(beginnings(texts, window, self._with_special)):
            rows.extend(
                TokenisedText(_ids(encoding), np.asarray(encoding.special_tokens_mask, dtype=np.bool_))
                for encoding in self._encoded(chunk, window)
            )
        return rows

    def pairs(self, query: str, texts: Sequence[str], window: int) -> list[Tokens]:
        """Tokenise the query with each text; only the text is cut, to make ``window`` tokens of both."""
        if self._side == "right":
            texts = beginnings(texts, window, self.count)
        rows: list[Tokens] = []
        for chunk in chunks(texts):
            self._tokenizer.enable_truncation(window, strategy="only_second", direction=self._side)
            for encoding in self._tokenizer.encode_batch([(query, text) for text in chunk]):
                types = np.asarray(encoding.type_ids, dtype=np.int32) if self._types else None
                rows.append(Tokens(_ids(encoding), types))
        return rows

    def cut(self, text: str, limit: int) -> str:
        """The longest beginning of a text that has at most ``limit`` tokens."""
        (text,) = beginnings([text], limit, self.count)
        self._tokenizer.no_truncation()
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        if len(encoding.ids) <= limit:
            return text
        return text[: encoding.offsets[limit - 1][1]] if limit > 0 else ""

    def _with_special(self, text: str) -> int:
        return self.count(text, special=True)

    def _encoded(self, texts: Sequence[str], window: int | None) -> list[Encoding]:
        if window is None:
            self._tokenizer.no_truncation()
        else:
            self._tokenizer.enable_truncation(window, direction=self._side)
        return self._tokenizer.encode_batch(list(texts))


def _ids(encoding: Encoding) -> TokenIds:
    return np.asarray(encoding.ids, dtype=np.int32)
