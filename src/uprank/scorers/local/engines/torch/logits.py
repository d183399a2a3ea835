"""What a batch was scored: logits that may still be on their way from the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["Logits"]


class Logits:
    """One float32 logit a row. The host waits for the device when they are read, not before.

    NumPy reads it as an array (``numpy.asarray``).

    Args:
        values: Of shape (rows,), on the model's device, the work that makes them perhaps still queued.
        order: The row that each value belongs to; ``None`` if they are in the rows' order.
    """

    def __init__(self, values: torch.Tensor, order: NDArray[np.intp] | None = None) -> None:
        import torch

        self._order = order
        self._ordered: NDArray[np.float32] | None = None
        self._arrived: torch.cuda.Event | None = None
        values = values.float()
        if values.device.type == "cuda":
            # The copy is queued right behind the batch: asked for later, it would wait for the next batch too.
            self._values = torch.empty(values.shape, dtype=torch.float32, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch's own gap
            self._arrived.record(torch.cuda.current_stream(values.device))
        else:
            self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def numpy(self) -> NDArray[np.float32]:
        """The logits in the rows' order."""
        if self._ordered is None:
            if self._arrived is not None:
                self._arrived.synchronize()
            values: NDArray[np.float32] = self._values.cpu().numpy()
            self._ordered = values if self._order is None else np.empty_like(values)
            if self._order is not None:
                self._ordered[self._order] = values
        return self._ordered

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[np.float32]:  # noqa: FBT001 - NumPy's
        values = self.numpy()
        return values if dtype is None else values.astype(dtype, copy=False)
