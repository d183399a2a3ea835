"""How many cores there are to use, told from files laid out as Linux has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from uprank.scorers.local.engines.cores import has_vnni, lacks_bfloat16, usable_cores


class TestCores:
    def machine(self, root: Path, siblings: dict[int, str]) -> Path:
        for number, shared in siblings.items():
            folder = root / f"sys/devices/system/cpu/cpu{number}/topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(shared + "\n")
        return root

    @pytest.fixture(autouse=True)
    def four_allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5}, raising=False)

    def test_two_threads_of_a_core_count_once(self, tmp_path: Path) -> None:
        root = self.machine(tmp_path, {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5", 2: "2,6"})
        assert usable_cores(root) == 2

    def test_a_machine_that_does_not_tell(self, tmp_path: Path) -> None:
        assert usable_cores(tmp_path) == 4

    @pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 2), ("max 100000", 4), ("20000 100000", 1)])
    def test_a_quota_of_the_control_group(self, quota: str, cores: int, tmp_path: Path) -> None:
        folder = tmp_path / "sys/fs/cgroup"
        folder.mkdir(parents=True)
        (folder / "cpu.max").write_text(quota + "\n")
        assert usable_cores(tmp_path) == cores

    @pytest.mark.parametrize(("quota", "cores"), [("300000", 3), ("-1", 4)])
    def test_a_quota_of_the_first_version(self, quota: str, cores: int, tmp_path: Path) -> None:
        folder = tmp_path / "sys/fs/cgroup/cpu"
        folder.mkdir(parents=True)
        (folder / "cpu.cfs_quota_us").write_text(quota)
        (folder / "cpu.cfs_period_us").write_text("100000")
        assert usable_cores(tmp_path) == cores

    @pytest.mark.parametrize(("flags", "found"), [("sse2 avx2", False), ("avx2 avx512_vnni", True), ("avx_vnni", True)])
    def test_vnni(self, flags: str, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platform.machine", lambda: "x86_64")
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags} sse\n")
        assert has_vnni(tmp_path) is found
        monkeypatch.setattr("platform.machine", lambda: "aarch64")
        assert has_vnni(tmp_path)

    @pytest.mark.parametrize(
        ("line", "lacks"),
        [
            ("flags\t\t: fpu avx2 avx512f", True),
            ("flags\t\t: fpu avx512_bf16", False),
            ("flags : amx_bf16 amx_tile", False),
            ("Features\t: fp asimd bf16", False),
            ("Features\t: fp asimd", True),
            ("model name : unknown", False),
        ],
    )
    def test_bfloat16(self, line: str, lacks: bool, tmp_path: Path) -> None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\n{line}\n")
        assert lacks_bfloat16(tmp_path) is lacks
