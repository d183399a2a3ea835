"""A bar that shows how far a call on a local model is, with its tokens per second."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm.auto import tqdm

__all__ = ["Bar"]


class Bar:
    """A tqdm bar, or none. May be moved by several threads. Closed when it is full.

    Args:
        total: What makes it full; ``None`` where that is not known.
        name: Shown before it.
        unit: What is counted: ``"pair"``, ``"text"``.
        shown: Whether there is one at all.
    """

    def __init__(self, total: int | None, name: str, unit: str, *, shown: bool) -> None:
        self._bar: tqdm[None] | None = None
        self._tokens = 0
        self._lock = threading.Lock()
        self._started = time.perf_counter()
        if shown:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, desc=name, unit=unit)

    def move(self, count: int, tokens: int) -> None:
        """So many more are done, which had so many tokens."""
        if self._bar is None:
            return
        with self._lock:
            self._tokens += tokens
            seconds = max(1e-9, time.perf_counter() - self._started)
            self._bar.set_postfix_str(f"{self._tokens / seconds:,.0f} tokens/s", refresh=False)
            self._bar.update(count)
            if self._bar.total is not None and self._bar.n >= self._bar.total:
                self._bar.close()  # may be called again, and moved

    def close(self) -> None:
        """Leave it as it is: a bar that stays open has the next one drawn below it. May be called again."""
        if self._bar is not None:
            self._bar.close()
