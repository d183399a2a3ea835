"""The vectors of documents by the content of their texts: in memory, and on disk where that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from uprank.scorers.local.vectors.blocks import Block, Known, rounded
from uprank.scorers.local.vectors.disk import DiskStore, Fingerprint
from uprank.scorers.local.vectors.memory import MemoryStore
from uprank.scorers.local.vectors.options import StoreDType, StoreOptions

__all__ = ["VectorStore", "digest", "open_store"]


def digest(text: str) -> bytes:
    """What a text is found by: the BLAKE2b-128 of its content."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class VectorStore:
    """Finds and keeps vectors. May be used by several threads.

    Args:
        dtype: What is kept. In memory, float16 takes the room of float32, ready to be multiplied.
        memory: ``None`` for none.
        disk: ``None`` for none.
    """

    def __init__(self, dtype: StoreDType, memory: MemoryStore | None, disk: DiskStore | None) -> None:
        self.dtype = dtype
        self._memory = memory
        self._disk = disk

    def __len__(self) -> int:
        if self._disk is not None:
            return len(self._disk)
        return 0 if self._memory is None else len(self._memory)

    def get(self, keys: Sequence[bytes]) -> list[Known | None]:
        """What is kept of some documents, in their order."""
        found: list[Known | None] = [None] * len(keys) if self._memory is None else self._memory.get(keys)
        missing = [place for place, known in enumerate(found) if known is None]
        if not missing or self._disk is None:
            return found
        for place, known in zip(missing, self._disk.get([keys[place] for place in missing]), strict=True):
            if known is not None:
                found[place] = known if self._memory is None else self._memory.put(keys[place], known)
        return found

    def round(self, values: NDArray[np.float32]) -> Block:
        """Vectors as they are kept: a score does not depend on whether they were."""
        return rounded(values, self.dtype)

    def put(self, keys: Sequence[bytes], documents: Sequence[Known]) -> None:
        """Keep documents whose blocks are from :meth:`round`.

        Raises:
            ConfigurationError: If the folder has meanwhile become a store of another model.
        """
        if self._memory is not None:
            for key, known in zip(keys, documents, strict=True):
                self._memory.put(key, known)
        if self._disk is not None:
            self._disk.put(keys, documents)


def open_store(options: StoreOptions, made_by: Callable[[], Fingerprint], *, name: str) -> VectorStore | None:
    """Open the store that was asked for; ``None`` where nothing is to be kept.

    Args:
        options: What was asked for.
        made_by: Called for a store on disk alone.
        name: Names the model in errors.

    Raises:
        ConfigurationError: If the folder holds something else than this model's vectors.
    """
    if not options.keeps:
        return None
    disk = None if options.folder is None else DiskStore(options.folder, options.dtype, made_by(), name=name)
    memory = MemoryStore(options.memory_bytes) if options.memory_bytes else None
    return VectorStore(options.dtype, memory, disk)
