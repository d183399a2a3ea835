"""Where document vectors are kept: bounds, crashes, other processes, other models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from uprank.errors import ConfigurationError
from uprank.scorers.local.vectors.blocks import Known, rounded
from uprank.scorers.local.vectors.disk import DiskStore
from uprank.scorers.local.vectors.encoded import normalised
from uprank.scorers.local.vectors.index import ENTRY_BYTES, Entry, packed
from uprank.scorers.local.vectors.memory import MemoryStore
from uprank.scorers.local.vectors.options import StoreDType
from uprank.scorers.local.vectors.store import VectorStore, digest

MADE_BY = {"model": "sha256:00", "window": 256, "precision": "float32", "encoding": 1}
DIMENSIONS = 24


def document(number: int, size: int = 3, dtype: StoreDType = "float32", dimensions: int = DIMENSIONS) -> Known:
    values = np.random.default_rng(number).standard_normal((size, dimensions)).astype(np.float32)
    return Known(rounded(normalised(values), dtype), 0, size, size + 2)


def key(number: int) -> bytes:
    return digest(f"document {number}")


def same(first: Known | None, second: Known) -> bool:
    if first is None or (first.size, first.tokens) != (second.size, second.tokens):
        return False
    ours, theirs = (one.block.slice(one.start, one.start + one.size) for one in (first, second))
    if not np.array_equal(ours.values, theirs.values):
        return False
    return ours.scales is None or np.array_equal(ours.scales, theirs.scales)


def disk(folder: Path, dtype: StoreDType = "float16", **made_by: object) -> DiskStore:
    return DiskStore(folder, dtype, MADE_BY | made_by, name="model")


class TestMemory:
    @pytest.mark.parametrize("dtype", ["float32", "int8"])
    def test_what_is_kept_is_found_and_is_a_copy(self, dtype: StoreDType):
        store = MemoryStore(1_000_000)
        known = document(1, dtype=dtype)
        store.put(key(1), known)
        copy = document(1, dtype=dtype)
        known.block.values[...] = 0
        found, missing = store.get([key(1), key(2)])
        assert same(found, copy)
        assert missing is None
        assert same(store.put(key(1), document(2, dtype=dtype)), copy)  # it is there already

    @pytest.mark.parametrize("limit", [0, 500, 20_000, 300_000])
    def test_the_bound_holds_for_documents_of_any_size(self, limit: int):
        store = MemoryStore(limit)
        sizes = np.random.default_rng(0).integers(0, 60, 400).tolist()
        for number, size in enumerate(sizes):
            store.put(key(number), document(number, size))
            assert store.nbytes <= limit
        kept = [number for number, known in enumerate(store.get([key(n) for n in range(400)])) if known is not None]
        assert len(kept) == len(store)
        assert limit < 20_000 or 399 in kept
        assert all(same(known, document(n, sizes[n])) for n in kept for known in store.get([key(n)]))
        held = {id(known.block): known.block.values.nbytes for n in kept for known in store.get([key(n)])}
        assert sum(held.values()) <= limit
        assert limit < 300_000 or sum(sizes[n] for n in kept) * DIMENSIONS * 4 > limit * 0.6  # room is not wasted

    def test_documents_without_tokens_are_bounded_too(self):
        store = MemoryStore(10_000)
        for number in range(1_000):
            store.put(key(number), document(number, 0))
        assert 1 <= len(store) < 40

    def test_what_was_used_least_lately_goes_first(self):
        store = MemoryStore(120_000)
        for number in range(2_000):
            store.put(key(number), document(number))
            assert same(store.get([key(0)])[0], document(0))  # in use all the time
        assert store.get([key(1_000)]) == [None]
        assert store.get([key(1_999)]) != [None]

    def test_neighbours_lie_side_by_side(self):
        store = MemoryStore(1_000_000)
        for number in range(5):
            store.put(key(number), document(number, 4))
        found = store.get([key(number) for number in range(5)])
        assert [known.start for known in found] == [0, 4, 8, 12, 16]
        assert len({id(known.block) for known in found}) == 1

    def test_eight_threads(self):
        store = MemoryStore(60_000)
        expected = [document(number, 1 + number % 9) for number in range(100)]

        def work(seed: int) -> int:
            found = 0
            for number in np.random.default_rng(seed).integers(0, 100, 300).tolist():
                (known,) = store.get([key(number)])
                if known is None:
                    known = store.put(key(number), expected[number])
                else:
                    found += 1
                assert same(known, expected[number])
            return found

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(work, range(8))) > 0
        assert store.nbytes <= 60_000

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.parametrize("held", [False, True])
    def test_a_fork_keeps_it_unless_it_was_being_changed(self, held: bool):
        store = MemoryStore(1_000_000)
        store.put(key(1), document(1))
        if held:
            store._lock.acquire()
        child = os.fork()
        if child == 0:
            found = store.get([key(1)]) != [None]
            store.put(key(2), document(2))
            os._exit(0 if found is not held and same(store.get([key(2)])[0], document(2)) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class TestDisk:
    @pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
    def test_what_is_stored_is_found_by_the_next_who_opens_it(self, tmp_path: Path, dtype: StoreDType):
        stored = [document(number, number, dtype) for number in range(6)]  # the first without any vector
        writer, reader = disk(tmp_path, dtype), disk(tmp_path, dtype)
        assert reader.get([key(0)]) == [None]
        writer.put([key(number) for number in range(4)], stored[:4])
        writer.put([key(number) for number in range(6)], stored)
        for store in (writer, reader, disk(tmp_path, dtype)):
            found = store.get([key(number) for number in (5, 0, 9, 3)])
            assert found[2] is None
            assert all(same(found[place], stored[number]) for place, number in ((0, 5), (1, 0), (3, 3)))
            assert len(store) == 6  # none twice
        assert json.loads((tmp_path / "store.json").read_text())["dimensions"] == DIMENSIONS

    def test_the_layout_is_the_one_that_is_documented(self, tmp_path: Path):
        known = document(1, 2, "int8")
        disk(tmp_path, "int8").put([key(1)], [known])
        vectors, index = (tmp_path / "vectors.bin").read_bytes(), (tmp_path / "index.bin").read_bytes()
        assert np.array_equal(np.frombuffer(vectors[:8], "<f4"), known.block.scales)
        assert np.array_equal(np.frombuffer(vectors[8:], np.int8).reshape(2, DIMENSIONS), known.block.values)
        assert index[:16] == key(1)
        assert np.frombuffer(index[16:24], "<u8").tolist() == [0]
        assert np.frombuffer(index[24:32], "<u4").tolist() == [2, 4]
        assert len(index) == 40
        header = json.loads((tmp_path / "store.json").read_text())
        assert (header["version"], header["dtype"], header["made_by"]) == (1, "int8", MADE_BY)

    @pytest.mark.parametrize("name", ["vectors.bin", "index.bin"])
    def test_a_crash_at_any_byte_of_the_last_record_leaves_the_others(self, tmp_path: Path, name: str):
        origin = tmp_path / "origin"
        documents = [document(number, 2, "int8") for number in range(4)]
        store = disk(origin, "int8")
        store.put([key(number) for number in range(2)], documents[:2])
        before = {file: (origin / file).stat().st_size for file in ("vectors.bin", "index.bin")}
        store.put([key(2)], [documents[2]])
        content = {file.name: file.read_bytes() for file in origin.iterdir()}
        for size in range(before[name], len(content[name])):
            folder = tmp_path / str(size)
            folder.mkdir()
            for file, whole in content.items():
                cut = whole if file != name else whole[:size]
                (folder / file).write_bytes(cut)
            again = disk(folder, "int8")
            found = again.get([key(number) for number in range(3)])
            assert same(found[0], documents[0])
            assert same(found[1], documents[1])
            assert found[2] is None
            again.put([key(2), key(3)], documents[2:])
            found = disk(folder, "int8").get([key(number) for number in range(4)])
            assert all(same(known, document) for known, document in zip(found, documents, strict=True))

    @pytest.mark.parametrize("name", ["vectors.bin", "index.bin"])
    def test_damage_is_noticed_and_stored_anew(self, tmp_path: Path, name: str):
        disk(tmp_path).put([key(1), key(2)], [document(1, dtype="float16"), document(2, dtype="float16")])
        damaged = bytearray((tmp_path / name).read_bytes())
        damaged[20] ^= 1
        (tmp_path / name).write_bytes(damaged)
        store = disk(tmp_path)
        assert store.get([key(1)]) == [None]
        assert same(store.get([key(2)])[0], document(2, dtype="float16"))
        store.put([key(1)], [document(1, dtype="float16")])
        assert same(disk(tmp_path).get([key(1)])[0], document(1, dtype="float16"))

    def test_two_processes_write_while_this_one_reads(self, tmp_path: Path):
        program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_vector_store import disk, document, key
from pathlib import Path
store = disk(Path({str(tmp_path)!r}))
first = int(sys.argv[1])
for number in range(first, first + 40):
    store.put([key(number)], [document(number, 1 + number % 7, "float16")])
"""
        writers = [subprocess.Popen([sys.executable, "-c", program, str(first)]) for first in (0, 20)]
        reader = disk(tmp_path)
        deadline = time.monotonic() + 60
        while any(writer.poll() is None for writer in writers) and time.monotonic() < deadline:
            for number, known in enumerate(reader.get([key(number) for number in range(60)])):
                assert known is None or same(known, document(number, 1 + number % 7, "float16"))
            time.sleep(0.02)
        assert [writer.wait(10) for writer in writers] == [0, 0]
        found = reader.get([key(number) for number in range(60)])
        assert all(same(known, document(n, 1 + n % 7, "float16")) for n, known in enumerate(found))
        assert len(reader) == 60

    @pytest.mark.parametrize(
        ("dtype", "made_by", "message"),
        [
            ("int8", {}, "dtype is 'float16' there, 'int8' here"),
            ("float16", {"model": "sha256:11"}, "model is 'sha256:00' there, 'sha256:11' here"),
            ("float16", {"window": 128}, "window is 256 there, 128 here"),
            ("float16", {"precision": "bfloat16"}, "precision is 'float32' there"),
        ],
    )
    def test_a_store_of_another_model_is_refused(
        self, tmp_path: Path, dtype: StoreDType, made_by: dict[str, object], message: str
    ):
        disk(tmp_path).put([key(1)], [document(1, dtype="float16")])
        with pytest.raises(ConfigurationError, match=message):
            disk(tmp_path, dtype, **made_by)

    def test_a_store_made_meanwhile_by_another_model_is_refused(self, tmp_path: Path):
        ours, theirs = disk(tmp_path), disk(tmp_path, window=8)
        theirs.put([key(1)], [document(1, dtype="float16")])
        with pytest.raises(ConfigurationError, match="window is 8 there"):
            ours.get([key(1)])
        with pytest.raises(ConfigurationError, match="window is 8 there"):
            ours.put([key(2)], [document(2, dtype="float16")])
        with pytest.raises(ConfigurationError, match="24 dimensions"):
            theirs.put([key(2)], [document(2, dtype="float16", dimensions=8)])
        assert len(disk(tmp_path, window=8)) == 1

    def test_a_store_removed_and_remade_is_another(self, tmp_path: Path):
        def put(store: DiskStore, *numbers: int) -> None:
            store.put([key(number) for number in numbers], [document(n, dtype="float16") for n in numbers])

        ours, again = disk(tmp_path / "store"), disk(tmp_path / "store")
        put(ours, 1)
        assert again.get([key(1)]) != [None]
        shutil.rmtree(tmp_path / "store")
        assert ours.get([key(1)]) == [None]
        put(disk(tmp_path / "store"), 2, 3)
        put(again, 4)  # by the same model: it goes on
        for store in (ours, again):
            found = store.get([key(number) for number in range(1, 5)])
            assert found[0] is None
            assert all(same(known, document(n, dtype="float16")) for n, known in enumerate(found[1:], start=2))
        shutil.rmtree(tmp_path / "store")
        theirs = disk(tmp_path / "store", model="sha256:11")
        put(theirs, 1, 2, 3, 4)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="model is 'sha256:11' there"):
                put(ours, 5)
            with pytest.raises(ConfigurationError, match="model is 'sha256:11' there"):
                again.get([key(1)])
        assert len(disk(tmp_path / "store", model="sha256:11")) == 4

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "cannot be read"),
            ("[]", "not the header"),
            ('{"format": "other"}', "not the header"),
            ('{"format": "uprank vectors", "version": 2}', "version 2"),
            (None, "has lost its store.json"),
        ],
    )
    def test_what_is_no_store_is_refused(self, tmp_path: Path, content: str | None, message: str):
        disk(tmp_path).put([key(1)], [document(1, dtype="float16")])
        header = tmp_path / "store.json"
        header.unlink() if content is None else header.write_text(content)
        with pytest.raises(ConfigurationError, match=message):
            disk(tmp_path)

    def test_a_file_in_the_place_of_the_folder_is_refused(self, tmp_path: Path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigurationError, match="there can be no store"):
            disk(tmp_path / "file")

    @pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
    def test_a_full_disk_ends_the_storing_and_not_the_scoring(self, tmp_path: Path):
        program = f"""
import logging, resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
logging.basicConfig(format="%(message)s")
from test_vector_store import disk, document, key, same
from pathlib import Path
store = disk(Path({str(tmp_path)!r}))
store.put([key(0)], [document(0, 10, "float16")])
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
for number in range(1, 30):
    store.put([key(number)], [document(number, 10, "float16")])
assert same(store.get([key(0)])[0], document(0, 10, "float16"))
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr.count("nothing more is stored") == 1
        again = disk(tmp_path)
        again.put([key(29)], [document(29, 10, "float16")])
        found = disk(tmp_path).get([key(0), key(29)])
        assert same(found[0], document(0, 10, "float16"))
        assert same(found[1], document(29, 10, "float16"))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_fork_while_something_is_written_holds_no_lock(self, tmp_path: Path):
        store = disk(tmp_path)
        store.put([key(1)], [document(1, dtype="float16")])
        with store._lock, store._locked():
            child = os.fork()
            if child == 0:
                found = store.get([key(1)]) != [None]
                time.sleep(0.3)  # with the parent's file open
                os._exit(0 if found else 1)
        store.put([key(2)], [document(2, dtype="float16")])
        assert len(store) == 2
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_many_appended_entries_are_sorted_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("uprank.scorers.local.vectors.index._MOST_RECENT", 10)
        writer, reader = disk(tmp_path), disk(tmp_path)
        documents = [document(number, 1, "float16") for number in range(60)]
        for start in range(0, 60, 4):
            writer.put([key(n) for n in range(start, start + 4)], documents[start : start + 4])
            found = reader.get([key(number) for number in range(60)])
            assert [known is not None for known in found] == [number < start + 4 for number in range(60)]
        assert all(map(same, found, documents))

    @pytest.mark.slow
    def test_a_million_passages_take_40_gigabytes_and_open_within_a_second(self, tmp_path: Path):
        passages, tokens, dimensions = 1_000_000, 100, 384
        known = document(0, tokens, "int8", dimensions)
        disk(tmp_path, "int8").put([key(0)], [known])
        record = (tmp_path / "vectors.bin").stat().st_size
        with (tmp_path / "vectors.bin").open("r+b") as file:
            file.truncate(record * passages)  # sparse: holes take no room
        entry_type = np.dtype([("digest", "V16"), ("offset", "<u8"), ("rest", "V16")])
        entries = np.zeros(passages, dtype=entry_type)
        entries["digest"] = np.frombuffer(np.random.default_rng(0).bytes(16 * passages), dtype="V16")
        content = bytearray(entries.tobytes())
        first = (tmp_path / "index.bin").read_bytes()
        content[-ENTRY_BYTES:] = first  # the one record that is real, found among all others
        (tmp_path / "index.bin").write_bytes(content)
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 40e9
        started = time.perf_counter()
        store = disk(tmp_path, "int8")
        (found,) = store.get([key(0)])
        assert time.perf_counter() - started < 1.0
        assert same(found, known)
        assert len(store) == passages


def test_both_tiers_together(tmp_path: Path):
    memory = MemoryStore(1_000_000)
    store = VectorStore("float16", memory, disk(tmp_path))
    block = store.round(document(1, 5).block.values)
    store.put([key(1)], [Known(block, 0, 5, 7)])
    memory.clear()
    (from_disk,) = store.get([key(1)])
    (from_memory,) = store.get([key(1)])
    assert len(memory) == 1
    assert from_disk.block is from_memory.block
    assert np.array_equal(from_memory.block.values[:5], block.values)
    alone = VectorStore("float16", None, disk(tmp_path))
    assert np.array_equal(alone.get([key(1)])[0].block.values, block.values)


def test_digests_tell_texts_apart():
    texts = ["", " ", "fox", "fox ", "\udcff", "鯨", "鯨" * 1000]
    assert len({digest(text) for text in texts}) == len(texts)
    assert all(len(digest(text)) == 16 for text in texts)


def test_an_entry_has_forty_bytes():
    assert len(packed(Entry(key(1), 1 << 40, 3, 5, 7))) == ENTRY_BYTES == 40


def test_threads_that_write_and_read_one_store(tmp_path: Path):
    store = VectorStore("int8", MemoryStore(20_000), disk(tmp_path, "int8"))
    expected = [document(number, 1 + number % 5, "int8") for number in range(60)]
    failures: list[int] = []

    def work(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 60, 40).tolist():
            (known,) = store.get([key(number)])
            if known is None:
                store.put([key(number)], [expected[number]])
            elif not same(known, expected[number]):
                failures.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert len(disk(tmp_path, "int8")) <= 60
