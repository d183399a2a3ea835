"""The cache of exported models: whole or not there, whatever happens beside it."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from uprank.scorers.local.engines.cache import CachedModel, cache_folder, cached_model, content_digest, key_of


class Builder:
    """Writes a model of two files, and counts how often."""

    def __init__(self, text: str = "graph") -> None:
        self.text = text
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        assert not list(folder.iterdir())
        (folder / "model.onnx").write_text(self.text)
        (folder / "model.onnx.data").write_bytes(b"\1" * 5_000)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "models").iterdir())


def test_a_model_is_built_once(tmp_path: Path) -> None:
    build = Builder()
    first = cached_model("k", build, tmp_path)
    second = cached_model("k", build, tmp_path)
    assert first.folder == second.folder == tmp_path / "models" / "k"
    assert (first.folder / "model.onnx").read_text() == "graph"
    assert build.calls == 1
    assert names(tmp_path) == ["k"]


def test_a_key_is_of_all_parts_and_of_no_order() -> None:
    parts = {"weights": ["a", "b"], "config": {"x": 1, "y": None}}
    assert key_of(parts) == key_of({"config": {"y": None, "x": 1}, "weights": ["a", "b"]})
    assert key_of(parts) != key_of({**parts, "weights": ["b", "a"]})
    assert key_of(parts) != key_of({**parts, "output": "logits"})


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.onnx.data").write_bytes(b"\1" * 4_000),
        lambda folder: (folder / "model.onnx.data").write_bytes(b"\2" * 5_000),
        lambda folder: (folder / "model.onnx").write_text("grapX"),
        lambda folder: (folder / "model.onnx").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text('{"files": {}}'),
        lambda folder: (folder / "manifest.json").write_text("[]"),
    ],
    ids=["cut off", "other bytes", "other text", "no file", "no manifest", "half a manifest", "empty one", "a list"],
)
def test_a_damaged_model_is_built_anew(damage, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build = Builder()
    folder = cached_model("k", build, tmp_path).folder
    damage(folder)
    with caplog.at_level(logging.WARNING, "uprank"):
        cached_model("k", build, tmp_path)
    assert build.calls == 2
    assert (folder / "model.onnx").read_text() == "graph"
    assert (folder / "model.onnx.data").read_bytes() == b"\1" * 5_000
    assert "damaged" in caplog.text
    assert names(tmp_path) == ["k"]


def test_a_copied_cache_is_of_use(tmp_path: Path) -> None:
    """Copying changes times, not contents."""
    build = Builder()
    folder = cached_model("k", build, tmp_path).folder
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    cached_model("k", build, tmp_path)
    assert build.calls == 1


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "model.onnx").write_text("half")
        raise ValueError("no such weight")

    with pytest.raises(ValueError, match="no such weight"):
        cached_model("k", build, tmp_path)
    assert names(tmp_path) == []


def unwritable(tmp_path: Path) -> Path:
    """A root under which no folder can be made, by root neither: a file is in the way."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


def test_where_nothing_can_be_written_a_temporary_folder_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    build = Builder()
    with caplog.at_level(logging.WARNING, "uprank"):
        model = cached_model("k", build, unwritable(tmp_path))
    folder = model.folder
    assert model.temporary
    assert (folder / "model.onnx").read_text() == "graph"
    assert "cannot be written" in caplog.text
    assert "UPRANK_CACHE" in caplog.text
    del model
    assert not folder.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_cache_is_read(tmp_path: Path) -> None:
    build = Builder()
    cached_model("k", build, tmp_path)
    (tmp_path / "models").chmod(0o500)
    try:
        assert not cached_model("k", build, tmp_path).temporary
        assert cached_model("other", build, tmp_path).temporary
    finally:
        (tmp_path / "models").chmod(0o700)


def test_a_full_disk_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    build = Builder()

    def full(folder: Path) -> None:
        if folder.is_relative_to(tmp_path / "models"):
            (folder / "model.onnx").write_text("ha")
            raise OSError(28, "No space left on device")
        build(folder)

    model: CachedModel = cached_model("k", full, tmp_path)
    assert model.temporary
    assert (model.folder / "model.onnx").read_text() == "graph"
    assert names(tmp_path) == []


def _build_and_read(root: Path, start, results) -> None:
    def build(folder: Path) -> None:
        for name in ("a", "b", "c"):
            with (folder / name).open("wb") as file:
                for _ in range(20):
                    file.write(name.encode() * 5_000)

    start.wait(30)
    whole = True
    for number in range(12):
        folder = cached_model(f"k{number}", build, root).folder
        whole &= all((folder / name).read_bytes() == name.encode() * 100_000 for name in ("a", "b", "c"))
    results.put(whole)


@pytest.mark.no_cover
def test_four_processes_at_once(tmp_path: Path) -> None:
    """All build the same models; each sees them whole, and nothing is left over."""
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    start, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_build_and_read, args=(tmp_path, start, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    try:
        assert [results.get(timeout=60) for _ in workers] == [True] * 4
    finally:
        for worker in workers:
            worker.join(30)
            worker.kill()
    assert names(tmp_path) == sorted(f"k{number}" for number in range(12))


def test_what_ended_early_is_swept_away_after_a_day(tmp_path: Path) -> None:
    old, young = tmp_path / "models" / ".new-old", tmp_path / "models" / ".new-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "half").write_text("x")
    os.utime(old, (1, 1))
    cached_model("k", Builder(), tmp_path)
    assert names(tmp_path) == [".new-young", "k"]


class TestDigests:
    def test_it_is_of_the_content(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"abc")
        (tmp_path / "b").write_bytes(b"abd")
        known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        first, second = content_digest([tmp_path / "a", tmp_path / "b"], tmp_path / "root")
        assert first == known
        assert second != known

    def test_it_is_remembered(self, tmp_path: Path) -> None:
        """A second look reads the note alone: it holds whatever is written there."""
        file, root = tmp_path / "a", tmp_path / "root"
        file.write_bytes(b"abc")
        content_digest([file], root)
        (note,) = (root / "digests").iterdir()
        note.write_text(json.dumps({**json.loads(note.read_text()), "sha256": "remembered"}))
        assert content_digest([file], root) == ["remembered"]

    def test_a_changed_file_is_read_again(self, tmp_path: Path) -> None:
        """Also one of the same size that was given its old time again."""
        file, root = tmp_path / "a", tmp_path / "root"
        file.write_bytes(b"abc")
        before = content_digest([file], root)
        stat = file.stat()
        file.write_bytes(b"abd")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert content_digest([file], root) != before

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"state": 1}', '"x"'])
    def test_a_note_of_no_use_is_replaced(self, content: str, tmp_path: Path) -> None:
        file, root = tmp_path / "a", tmp_path / "root"
        file.write_bytes(b"abc")
        right = content_digest([file], root)
        (note,) = (root / "digests").iterdir()
        good = note.read_text()
        note.write_text(content)
        assert content_digest([file], root) == right
        assert note.read_text() == good

    def test_it_is_told_where_nothing_can_be_noted(self, tmp_path: Path) -> None:
        file = tmp_path / "a"
        file.write_bytes(b"abc")
        assert content_digest([file], unwritable(tmp_path)) == content_digest([file], tmp_path / "root")

    def test_no_path_stands_in_a_note(self, tmp_path: Path) -> None:
        file, root = tmp_path / "private-name", tmp_path / "root"
        file.write_bytes(b"abc")
        content_digest([file], root)
        (note,) = (root / "digests").iterdir()
        assert "private-name" not in note.name + note.read_text()


class TestFolder:
    @pytest.fixture(autouse=True)
    def bare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("UPRANK_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", "/home/me")
        monkeypatch.setenv("USERPROFILE", "/home/me")

    @pytest.mark.parametrize(
        ("platform", "variables", "expected"),
        [
            ("linux", {}, "/home/me/.cache/uprank"),
            ("linux", {"XDG_CACHE_HOME": "/var/cache"}, "/var/cache/uprank"),
            ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/uprank"),
            ("linux", {"UPRANK_CACHE": "~/x", "XDG_CACHE_HOME": "/var/cache"}, "/home/me/x"),
            ("darwin", {}, "/home/me/Library/Caches/uprank"),
            ("win32", {}, "/home/me/AppData/Local/uprank"),
            ("win32", {"LOCALAPPDATA": "/c/local"}, "/c/local/uprank"),
        ],
    )
    def test_where_it_is(
        self, platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == Path(expected)
