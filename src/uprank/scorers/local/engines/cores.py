"""The processor: how many cores there are to use, and what they can do."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

__all__ = ["has_vnni", "lacks_bfloat16", "usable_cores"]

_ROOT = Path("/")


def usable_cores(root: Path = _ROOT) -> int:
    """Processor cores that this process may use, at least 1.

    Counted are those it may be scheduled on (containers and ``taskset`` narrow them), two threads of
    one core once, for they share its arithmetic; then the CPU quota of the control group applies.
    Outside Linux it is the number of logical processors.

    Args:
        root: Of the file system that describes the machine.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    cores = {_siblings(root, number) or str(number) for number in allowed}
    quota = _quota(root)
    return max(1, len(cores) if quota is None else min(len(cores), math.ceil(quota)))


def has_vnni(root: Path = _ROOT) -> bool:
    """Whether products of 8-bit numbers are summed without saturating: ARM, or x86 with VNNI.

    Where an x86 processor does not tell (outside Linux), no.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    return bool({"avx512_vnni", "avx_vnni"} & _flags(root))


def lacks_bfloat16(root: Path = _ROOT) -> bool:
    """Whether the processor says that it has no instructions for products of bfloat16 numbers.

    A runtime may offer bfloat16 all the same, by instructions for float32, which is slower than those.
    Where the processor tells nothing (outside Linux), no.
    """
    flags = _flags(root)
    return bool(flags) and not {"avx512_bf16", "amx_bf16", "bf16"} & flags


def _flags(root: Path) -> set[str]:
    """What the processor can do, by the names of Linux; empty where it does not tell."""
    lines = _text(root / "proc/cpuinfo").splitlines()
    return set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split()[2:])


def _siblings(root: Path, number: int) -> str:
    return _text(root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").strip()


def _quota(root: Path) -> float | None:
    """Cores' worth of time that the control group grants, in its second version or its first."""
    try:
        limit, period = _text(root / "sys/fs/cgroup/cpu.max").split()
        return int(limit) / int(period)
    except ValueError:
        pass  # not there, or "max"
    try:
        old = root / "sys/fs/cgroup/cpu"
        limit, period = _text(old / "cpu.cfs_quota_us"), _text(old / "cpu.cfs_period_us")
        return int(limit) / int(period) if int(limit) > 0 else None
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
