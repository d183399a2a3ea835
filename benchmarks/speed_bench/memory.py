"""The most memory a process has held, since its start or since it was last asked."""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["forget_peak", "peak_bytes"]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_bytes() -> int:
    """The most bytes of memory this process has had in use: since :func:`forget_peak`, where that works."""
    if _STATUS.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        if found:
            return int(found[1]) * 1_024
    import resource

    unit = 1 if sys.platform == "darwin" else 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> bool:
    """Count the peak from now on. Returns whether the system can: Linux alone."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True
