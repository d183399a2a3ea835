"""What loading any local model needs: checked options, a device, a number format, a window."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar, get_args

from uprank.errors import ConfigurationError
from uprank.extras import installed

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "Checkpoint",
    "DType",
    "LongQuery",
    "check_present",
    "device_for",
    "dtype_argument",
    "pick_device",
    "pick_dtype",
    "position_limit",
    "smallest_limit",
    "valid_device",
    "valid_devices",
    "valid_dtype",
    "valid_long_query",
    "valid_max_length",
]

DType: TypeAlias = Literal["auto", "float32", "bfloat16", "float16", "int8"]
"""What a model computes in; ``"auto"`` is half precision where the device computes that natively, else float32.

Natively: CUDA and MPS as torch tells (the checkpoint's own type on MPS), and a CPU that knows bfloat16
through OpenVINO. ``"int8"`` is for ONNX Runtime and OpenVINO. Logits and vectors are float32 in any case.
"""

LongQuery: TypeAlias = Literal["error", "truncate"]
"""What becomes of a query that does not fit the model's window."""

ModelT = TypeVar("ModelT", covariant=True)

_SMALLEST_WINDOW = 8
_DEVICE = r"(cpu|cuda|mps|xpu|npu|hpu|mtia|xla|privateuseone)(:\d+)?"
_NO_LIMIT = 1_000_000_000  # tokenizers without a limit claim windows beyond this


class Loader(Protocol[ModelT]):
    """A model class of sentence-transformers."""

    def __call__(
        self,
        source: str,
        /,
        *,
        device: str,
        revision: str | None,
        trust_remote_code: bool,
        local_files_only: bool,
        token: str | None,
        model_kwargs: dict[str, object],
    ) -> ModelT: ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Which weights to load, in which form, onto which device.

    Args:
        source: A Hugging Face repository or a local folder.
        device: As for :func:`pick_device`.
        dtype: As for :func:`pick_dtype`.
        revision: A branch, tag or commit of the repository.
        trust_remote_code: Run Python code from the repository.
        local_files_only: Use what is on disk, ask no hub.
        token: A Hugging Face access token.

    Raises:
        ConfigurationError: If ``dtype`` or ``device`` is none, or ``source`` a folder that does not exist.
    """

    source: str
    device: str | None
    dtype: DType
    revision: str | None
    trust_remote_code: bool
    local_files_only: bool
    token: str | None = field(repr=False)

    def __post_init__(self) -> None:
        valid_dtype(self.dtype)
        valid_device(self.device)
        # A folder that is written as one is never looked for on a hub.
        if self.source.startswith((".", "/", "~")):
            folder = Path(self.source).expanduser()
            if not folder.is_dir():
                raise ConfigurationError(f"There is no folder {self.source!r} to load a model from.")
            object.__setattr__(self, "source", str(folder))

    def load(self, kind: Loader[ModelT]) -> ModelT:
        """Load it with a model class of sentence-transformers."""
        device = pick_device(self.device)
        with no_progress_bars():
            return kind(
                self.source,
                device=device,
                revision=self.revision,
                trust_remote_code=self.trust_remote_code,
                local_files_only=self.local_files_only,
                token=self.token,
                model_kwargs={dtype_argument(): pick_dtype(self.dtype, device)},
            )


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar for the weights that it loads."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers has no type for it
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # likewise


def valid_device(device: str | None) -> str | None:
    """Return ``device`` if it is written as torch writes them, or ``None``; raise ``ConfigurationError`` if not."""
    if device is None or (isinstance(device, str) and re.fullmatch(_DEVICE, device)):
        return device
    raise ConfigurationError(f'device must be such as "cpu", "cuda", "cuda:1" or "mps"; got {device!r}.')


def valid_devices(device: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return one or several devices of one kind as a tuple, or ``None``.

    Raises:
        ConfigurationError: If there is none, one is not written as torch writes them, or their kinds differ.
    """
    if device is None:
        return None
    if not isinstance(device, (str, Sequence)):
        raise ConfigurationError(f'device must be such as "cpu" or "cuda:1", or a list of such; got {device!r}.')
    devices = (device,) if isinstance(device, str) else tuple(device)
    for one in devices:
        valid_device(one)
    if len({one.partition(":")[0] for one in devices}) != 1:
        raise ConfigurationError(f"device must be one or several of a kind, such as cuda:0 and cuda:1; got {device!r}.")
    return devices


def valid_dtype(dtype: DType) -> DType:
    """Return ``dtype`` if it is one; raise ``ConfigurationError`` if not."""
    if dtype not in get_args(DType):
        raise ConfigurationError(f"dtype must be one of {', '.join(get_args(DType))}; got {dtype!r}.")
    return dtype


def valid_long_query(long_query: LongQuery) -> LongQuery:
    """Return ``long_query`` if it is one; raise ``ConfigurationError`` if not."""
    if long_query not in get_args(LongQuery):
        raise ConfigurationError(f'long_query must be "error" or "truncate", got {long_query!r}.')
    return long_query


def valid_max_length(max_length: int | None, *, positions: int | None = None, name: str) -> int | None:
    """Return ``max_length`` if the model can read that many tokens, or ``None``.

    Args:
        max_length: The window asked for, special tokens included.
        positions: The most tokens that the model has positions for, where known.
        name: Names the model in the error.

    Raises:
        ConfigurationError: If it is no integer, under 8, or over ``positions``.
    """
    if max_length is None:
        return None
    whole = isinstance(max_length, int) and not isinstance(max_length, bool)
    if not whole or max_length < _SMALLEST_WINDOW or (positions is not None and max_length > positions):
        most = "" if positions is None else f" and at most {positions}, the positions of {name}"
        raise ConfigurationError(
            f"max_length must be an integer of at least {_SMALLEST_WINDOW}{most}; got {max_length!r}."
        )
    return max_length


def pick_device(device: str | None) -> str:
    """Return ``device``, or the best there is: CUDA, then Apple's MPS, then the CPU."""
    if device is not None:
        return device
    if not _may_be_accelerated():
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_present(device: str) -> None:
    """Raise ``ConfigurationError`` where torch has no such device."""
    import torch

    kind = device.partition(":")[0]
    if (kind == "cuda" and not torch.cuda.is_available()) or (kind == "mps" and not torch.backends.mps.is_available()):
        raise ConfigurationError(
            f'There is no device {device!r} here, or this torch is built without it. Pass device="cpu", or install '
            "a torch for it."
        )


def _may_be_accelerated() -> bool:
    """Whether it is worth asking torch for an accelerator: importing it takes seconds."""
    import ctypes
    import sys

    if not installed("torch"):
        return False
    if sys.platform == "darwin" or Path("/dev/kfd").exists():  # MPS; AMD's driver
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def device_for(device: str | None, engine: str, dtype: DType) -> str:
    """As :func:`pick_device`, but a CPU where an engine or a number format is asked for that no other device has."""
    if device is None and (engine in ("onnx", "openvino") or dtype == "int8"):
        return "cpu"
    return pick_device(device)


def pick_dtype(dtype: DType, device: str) -> torch.dtype | Literal["auto"]:
    """Return what transformers takes for ``dtype`` on ``device``.

    A CPU gets float32 from torch: half precision is slower there, and some operations lack it. CUDA gets
    half precision, other devices the checkpoint's own type.
    """
    import torch

    from uprank.scorers.local.engines.torch.devices import best_half

    if dtype != "auto":
        chosen: torch.dtype = getattr(torch, dtype)
        return chosen
    kind = torch.device(device).type
    if kind == "cpu":
        return torch.float32
    return best_half(device) if kind == "cuda" else "auto"


def dtype_argument() -> str:
    """The name that ``from_pretrained`` has for the weights' type; it changed in transformers 4.56."""
    import transformers

    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"


def position_limit(model: nn.Module) -> int | None:
    """The most tokens that a transformer has positions for; ``None`` where it has no such limit."""
    from torch import nn

    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "get_text_config"):  # of a model that sees, the part that reads
        config = config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    for module in model.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(getattr(module, "position_embeddings", None), nn.Embedding):
            return positions - padding - 1  # RoBERTa and its kin count positions from padding_idx + 1
    return positions


def smallest_limit(*limits: float | None) -> int | None:
    """The least of the limits that are known; ``None`` where none is."""
    known = [limit for limit in limits if limit is not None and limit < _NO_LIMIT]
    return int(min(known)) if known else None
