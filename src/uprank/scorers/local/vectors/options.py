"""What a user may say about where document vectors are kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from uprank.errors import ConfigurationError

__all__ = ["STORE_MEMORY", "Store", "StoreDType", "StoreOptions"]

StoreDType: TypeAlias = Literal["float32", "float16", "int8"]
"""What a kept number takes: 4 bytes, 2, or 1. Of int8, each vector has a scale of 4 bytes besides."""

Store: TypeAlias = "bool | str | os.PathLike[str]"
"""Where document vectors are kept: ``True`` in memory, a folder there as well, ``False`` nowhere."""

STORE_MEMORY = 256.0
"""Megabytes: about 1,700 passages of 100 tokens with 384 dimensions in float32, four times as many in int8."""

_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What a user asks for, checked.

    Args:
        store: As :data:`Store`.
        store_dtype: ``"auto"`` is float32 in memory, float16 where there is a folder.
        store_memory: The most megabytes (of a million bytes) kept in memory; 0 keeps nothing there.

    Raises:
        ConfigurationError: If one of them is none of these.
    """

    store: Store
    store_dtype: StoreDType | Literal["auto"]
    store_memory: float

    def __post_init__(self) -> None:
        if not isinstance(self.store, (bool, str, os.PathLike)) or self.store == "":
            raise ConfigurationError(
                f"store must be a folder, True (in memory alone) or False (nothing is kept); got {self.store!r}."
            )
        if self.store_dtype not in ("auto", *get_args(StoreDType)):
            raise ConfigurationError(
                f"store_dtype must be one of auto, {', '.join(get_args(StoreDType))}; got {self.store_dtype!r}."
            )
        number = isinstance(self.store_memory, (int, float)) and not isinstance(self.store_memory, bool)
        if not number or not 0 <= self.store_memory < float("inf"):
            raise ConfigurationError(f"store_memory must be megabytes, 0 or more; got {self.store_memory!r}.")

    @property
    def folder(self) -> Path | None:
        """Of the store on disk."""
        return None if isinstance(self.store, bool) else Path(self.store).expanduser()

    @property
    def dtype(self) -> StoreDType:
        """What is kept."""
        if self.store_dtype == "auto":
            return "float32" if self.folder is None else "float16"
        return self.store_dtype

    @property
    def keeps(self) -> bool:
        """Whether anything is kept."""
        return self.folder is not None or (self.store is True and self.store_memory > 0)

    @property
    def memory_bytes(self) -> int:
        """The most bytes kept in memory."""
        return int(self.store_memory * _MEGABYTE)
