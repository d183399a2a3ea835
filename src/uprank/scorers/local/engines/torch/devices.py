"""What a device computes well, and how arrays get there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["best_half", "sent", "share_threads"]

_one_at_a_time = threading.Lock()


def best_half(device: torch.device | str) -> torch.dtype:
    """The half precision that a device has units for; float32 where it has none.

    On CUDA: bfloat16 from compute capability 8.0 on, float16 before. Elsewhere float32: on MPS, float16
    overflows in models that were trained in bfloat16, and not every processor knows either type.

    Args:
        device: ``"cuda"``, ``"cuda:1"``, ``"mps"``, ``"cpu"``, …
    """
    import torch

    device = torch.device(device)
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def sent(values: NDArray[np.int32] | NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """An array as a tensor on a device; to CUDA it travels while the host goes on."""
    import torch

    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def share_threads(share: int, elsewhere: int) -> None:
    """Let torch use this thread's part of the processor, when it runs on several of our threads at once.

    Other threads of the process keep the number of threads that torch has there.

    Args:
        share: How many threads torch may use here.
        elsewhere: How many it uses otherwise.
    """
    import torch

    if torch.get_num_threads() == share:  # asked first: a new thread takes its number over when first asked
        return
    with _one_at_a_time:
        torch.set_num_threads(share)
        # That also became the number of threads that begin later; undone elsewhere, since here it shall hold.
        undo = threading.Thread(target=torch.set_num_threads, args=(elsewhere,))
        undo.start()
        undo.join()
