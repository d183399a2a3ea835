"""What the figures were measured on, without anything that names the machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Machine", "describe"]

_FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_bf16": "amx_bf16",
    "amx_int8": "amx_int8",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine's hardware.

    Args:
        cpu: The model, as it names itself.
        cores: That this process may use.
        flags: Of the instructions that matter to matrix products.
        memory: GiB.
        gpu: Model, memory and driver of the first GPU, or ``"no GPU"``.
        system: The operating system and its architecture.
        python: The driver's version.
        settings: Environment variables that bear on threads, where they are set.
    """

    cpu: str
    cores: int
    flags: tuple[str, ...]
    memory: float
    gpu: str
    system: str
    python: str
    settings: dict[str, str]

    @property
    def bf16(self) -> bool:
        """Whether the CPU multiplies matrices in bf16."""
        return bool({"avx512_bf16", "amx_bf16"} & set(self.flags))

    @property
    def vnni(self) -> bool:
        """Whether the CPU has instructions for int8."""
        return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & set(self.flags))

    @property
    def onnx_quantization(self) -> str:
        """The instructions that a model is best quantised for, as sentence-transformers names them."""
        if "avx512_vnni" in self.flags:
            return "avx512_vnni"
        if self.system.endswith(("arm64", "aarch64")):
            return "arm64"
        return "avx512" if "avx512" in self.flags else "avx2"

    def slug(self, device: str) -> str:
        """A short name for files."""
        text = self.gpu.split(",")[0] if device == "cuda" else f"{self.cpu} {self.cores} cores"
        return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")

    def sentence(self, device: str) -> str:
        """The hardware in words, as it stands beside figures."""
        has = ", ".join(self.flags) or "no AVX2"
        lacks = " and ".join(name for name, there in (("bf16", self.bf16), ("VNNI", self.vnni)) if not there)
        text = f"{self.cpu}, {self.cores} cores ({has}{f'; no {lacks}' if lacks else ''}), {self.memory:g} GiB"
        return f"{self.gpu}; {text}" if device == "cuda" else text


def describe() -> Machine:
    """Look at the machine that this runs on."""
    info = _read("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", info)
    flags = re.search(r"flags\s*:\s*(.+)", info)
    there = set(flags[1].split()) if flags else set()
    memory = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        cpu=model[1].strip() if model else platform.processor() or "unknown CPU",
        cores=cores,
        flags=tuple(name for flag, name in _FLAGS.items() if flag in there),
        memory=round(int(memory[1]) / 2**20, 1) if memory else 0.0,
        gpu=_gpu(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        settings={name: os.environ[name] for name in _SETTINGS if name in os.environ},
    )


_SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM")


def _gpu() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "no GPU"
    query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError):
        return "no GPU"
    lines = told.stdout.strip().splitlines()
    return lines[0] if lines else "no GPU"


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""
