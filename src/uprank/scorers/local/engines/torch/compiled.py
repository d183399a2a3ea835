"""Functions compiled by ``torch.compile`` where there is a compiler, and run as they are where not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

from uprank.scorers.local.batching import is_out_of_memory

__all__ = ["Compiled"]

logger = logging.getLogger("uprank")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Compiled(Generic[Arguments, Result]):
    """A function that is compiled when first called, for tensors of any length.

    Where that fails, it runs uncompiled from then on, after a warning. Lack of memory is raised as it is.

    Args:
        function: Of tensors and modules.
    """

    def __init__(self, function: Callable[Arguments, Result]) -> None:
        import torch

        self._plain = function
        self._compiled: Callable[Arguments, Result] | None = torch.compile(function, dynamic=True)

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if self._compiled is not None:
            try:
                return self._compiled(*args, **kwargs)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                logger.warning("torch.compile failed, so the model runs uncompiled: %s", _gist(error))
                self._compiled = None
        return self._plain(*args, **kwargs)


def _gist(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
