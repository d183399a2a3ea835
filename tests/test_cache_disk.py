"""Scores kept in a file: shared by threads, forks and processes, through kills, locks, damage and lack of rights."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from uprank.cache import CacheEntry, DiskCache, database, disk
from uprank.errors import ConfigurationError
from uprank.scorers import Scorer, Scores
from uprank.scorers.combined.cached import Cached

QUERY, TEXT = "planted-query-4711", "planted-text-0815"
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks and rights of POSIX")

WRITER = """
import sys
from uprank.cache import CacheEntry, DiskCache
path, first, count, each = sys.argv[1], *map(int, sys.argv[2:5])
cache = DiskCache(path)
print("open", flush=True)
sys.stdin.readline()
for number in range(first, first + count):
    keys = [b"%d/%d" % (number, one) for one in range(each)]
    cache.put_many([CacheEntry(key, key * 20, "q", ("t",)) for key in keys])
    assert cache.get_many(keys) == [key * 20 for key in keys]
    print(number, flush=True)
"""


class Lengths(Scorer):
    """Scores by lengths; counts what it was asked."""

    name = "lengths"
    score_kind = "logit"

    def __init__(self) -> None:
        self.pairs = 0

    def identity(self) -> dict[str, object]:
        return {"scheme": "lengths"}

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        self.pairs += len(texts)
        return Scores([len(text) / 7 for text in texts], "logit")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.db"


def entries(*keys: str, record: str = "r") -> list[CacheEntry]:
    return [CacheEntry(key.encode(), (record + key).encode(), QUERY, (TEXT,)) for key in keys]


def written(path: Path) -> bytes:
    """All bytes on disk, the journal's too."""
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def started(path: Path, first: int, count: int, each: int = 5) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(path), str(first), str(count), str(each)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def whole(path: Path) -> None:
    """Nothing in the file contradicts itself, and the count of its rows is right."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert (
        connection.execute("SELECT count(*) FROM entries").fetchone()
        == connection.execute("SELECT entries FROM counts").fetchone()
    )
    connection.close()


def forked(work: Callable[[], None]) -> int:
    """Run something in a forked child; return its number."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def in_a_fork(work: Callable[[], None]) -> None:
    """Run something in a forked child, which must come to its end."""
    assert os.waitpid(forked(work), 0)[1] == 0


def test_scores_survive_the_process(path: Path):
    first = DiskCache(path)
    values = Cached(Lengths(), first).score("q", ["a", "bb"]).values
    first.close()
    scorer, second = Lengths(), DiskCache(path)
    assert Cached(scorer, second).score("q", ["bb", "a"]).values == values[::-1]
    assert scorer.pairs == 0
    assert second.stats().entries == 2
    second.close()


def test_more_keys_than_one_statement_takes(path: Path):
    cache = DiskCache(path)
    many = entries(*(f"{number:04}" for number in range(1203)))
    cache.put_many(many)
    keys = [entry.key for entry in many]
    wanted = [*keys[::-1], b"unknown", keys[0], keys[0]]
    assert cache.get_many(wanted) == [*(b"r" + key for key in keys[::-1]), None, b"r" + keys[0], b"r" + keys[0]]
    assert (cache.stats().hits, cache.stats().misses) == (1205, 1)
    assert cache.get_many([]) == []
    cache.close()


def test_a_later_record_takes_the_place_of_an_earlier_one(path: Path):
    cache = DiskCache(path)
    cache.put_many(entries("a", "b"))
    cache.put_many(entries("a", record="new "))
    assert cache.get_many([b"a", b"b"]) == [b"new a", b"rb"]
    assert cache.stats().entries == 2
    cache.close()
    whole(path)


def test_no_text_is_stored(path: Path):
    cache = DiskCache(path)
    Cached(Lengths(), cache).score(QUERY, [TEXT])
    cache.put_many(entries("a"))
    assert QUERY.encode() not in written(path)
    assert TEXT.encode() not in written(path)
    cache.close()
    assert b"planted" not in written(path)


def test_texts_are_stored_where_that_is_asked_for(path: Path):
    cache = DiskCache(path, store_text=True, max_entries=2)
    Cached(Lengths(), cache).score(QUERY, [TEXT, "x\ud800"])
    connection = sqlite3.connect(path)
    assert set(connection.execute("SELECT query, text FROM texts")) == {(QUERY, TEXT), (QUERY, "x\\ud800")}
    cache.put_many(entries("a", "b"))
    assert connection.execute("SELECT count(*) FROM texts").fetchone() == (2,)  # they go with their scores
    cache.clear()
    assert connection.execute("SELECT count(*) FROM texts").fetchone() == (0,)
    assert cache.stats().entries == 0
    connection.close()
    cache.close()


def test_what_was_not_used_for_longest_goes_first(path: Path):
    cache = DiskCache(path, max_entries=100)
    keys = [f"{number:03}" for number in range(100)]
    for key in keys:
        cache.put_many(entries(key))
    cache.get_many([b"000"])
    cache.put_many(entries("new"))
    found = cache.get_many([key.encode() for key in keys])
    assert found[0] is not None
    assert found[1:7] == [None] * 6
    assert None not in found[7:]
    assert cache.stats().entries == 95
    cache.put_many(entries(*(f"more {number}" for number in range(500))))
    assert cache.stats().entries <= 100
    cache.close()
    whole(path)


@pytest.mark.parametrize("content", [b"hello", b"\0" * 5000, b"SQLite format 3\0" + b"x" * 5000, b"{}" * 4000])
def test_a_file_of_another_kind_is_left_as_it_is(path: Path, content: bytes):
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"scores\.db") as caught:
        DiskCache(path)
    assert "left as it is" in str(caught.value)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_database_of_another_kind_is_left_as_it_is(path: Path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE entries (key, record, used)")
    connection.commit()
    connection.close()
    content = path.read_bytes()
    with pytest.raises(ConfigurationError, match="database of something else"):
        DiskCache(path)
    assert path.read_bytes() == content


def test_a_cache_of_another_version_is_left_as_it_is(path: Path):
    DiskCache(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    content = path.read_bytes()
    with pytest.raises(ConfigurationError, match="version 2; this uprank knows version 1"):
        DiskCache(path)
    assert path.read_bytes() == content


def test_paths_that_cannot_be_a_cache(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="is a folder"):
        DiskCache(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="There can be no cache"):
        DiskCache(tmp_path / "file" / "scores.db")
    for wrong in (b"scores.db", None, 7, ""):
        with pytest.raises(ConfigurationError, match="path of a file"):
            DiskCache(wrong)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ConfigurationError, match="max_entries"):
        DiskCache(tmp_path / "scores.db", max_entries=0)


def test_an_empty_file_becomes_a_cache_and_a_relative_path_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "empty.db").touch()
    monkeypatch.chdir(tmp_path)
    cache = DiskCache("empty.db")
    cache.close()
    monkeypatch.chdir("/")
    cache.put_many(entries("a"))
    assert cache.path == tmp_path / "empty.db"
    cache.close()
    assert DiskCache(tmp_path / "empty.db").get_many([b"a"]) == [b"ra"]


def test_a_locked_file_costs_no_ranking_and_no_long_wait(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(database, "_PATIENCE", 0.05)
    cache, scorer = DiskCache(path), Lengths()
    cached = Cached(scorer, cache)
    cached.score("q", ["known"])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    scores = cached.score("q", ["known", "new"])
    assert scores.values == [5 / 7, 3 / 7]
    assert scorer.pairs == 2  # what was kept can be read all the while
    assert "another process holds it" in scores.warnings[0]
    assert cached.score("q", ["newer"]).warnings == ()  # not tried again so soon
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    other.execute("ROLLBACK")
    other.close()
    monkeypatch.setattr(disk.time, "monotonic", lambda: float("inf"))
    cached.score("q", ["newest"])
    assert cache.stats().entries == 2
    cache.close()


def test_a_damaged_file_is_told_of_and_costs_no_ranking(path: Path):
    cache = DiskCache(path)
    cache.put_many(entries(*(f"{number:04}" for number in range(2000))))
    cache.close()
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    damaged = DiskCache(path)
    with pytest.raises(OSError, match=r"scores\.db cannot be read: it is damaged"):
        damaged.get_many([b"%04d" % number for number in range(2000)])
    scores = Cached(Lengths(), damaged).score("q", ["a"])
    assert scores.values == [1 / 7]
    assert any("damaged" in note for note in scores.warnings)
    damaged.close()
    path.write_bytes(b"something else now")
    with pytest.raises(OSError, match="something else than a cache"):
        damaged.get_many([b"a"])
    assert path.read_bytes() == b"something else now"


def test_a_full_disk_costs_no_ranking(path: Path):
    cache = DiskCache(path)
    connection = cache._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    cached = Cached(Lengths(), cache)
    scores = cached.score("q", [str(number) for number in range(500)])
    assert len(scores.values) == 500
    assert "full" in scores.warnings[0]
    assert not connection.in_transaction
    assert cache.stats().entries == 0
    cache.close()
    whole(path)


def test_threads_share_a_file(path: Path):
    cache, wrong = DiskCache(path), []

    def work(first: int) -> None:
        scorer = Cached(Lengths(), cache)
        for number in range(15):
            texts = ["x" * (first + number + more) for more in range(5)]
            scores = scorer.score("q", texts)
            if scores.values != [len(text) / 7 for text in texts] or scores.warnings:
                wrong.append(scores)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.stats().entries == 3 + 14 + 4 + 1  # lengths, from 0
    cache.close()
    whole(path)


def test_a_pickle_is_the_path(path: Path):
    cache = DiskCache(path, max_entries=9, store_text=True)
    cache.put_many(entries("a"))
    copy = pickle.loads(pickle.dumps(cache))  # noqa: S301 - our own
    assert copy.get_many([b"a"]) == [b"ra"]
    assert (copy._most, copy._store_text, repr(copy)) == (9, True, f"DiskCache({str(path)!r})")
    copy.close()
    cache.close()


def test_closing_twice_and_using_it_again(path: Path):
    cache = DiskCache(path)
    cache.put_many(entries("a"))
    cache.close()
    cache.close()
    assert list(path.parent.iterdir()) == [path]  # the journal has gone into the file
    assert cache.get_many([b"a"]) == [b"ra"]
    cache.close()


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_eight_processes_share_one_file(path: Path):
    reading, writing = os.pipe()

    def work(number: int) -> None:
        os.close(writing)
        os.read(reading, 1)  # all begin at once, with making the file
        cache = DiskCache(path)
        for one in range(20):
            mine = entries(*(f"{number}/{one}/{more}" for more in range(5)))
            cache.put_many(mine)
            assert cache.get_many([entry.key for entry in mine]) == [entry.record for entry in mine]
        cache.close()

    children = [forked(partial(work, number)) for number in range(8)]
    os.close(writing)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    os.close(reading)
    keys = [f"{number}/{one}/{more}" for number in range(8) for one in range(20) for more in range(5)]
    cache = DiskCache(path)
    assert cache.get_many([key.encode() for key in keys]) == [b"r" + key.encode() for key in keys]
    assert cache.stats().entries == len(keys)
    cache.close()
    whole(path)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_kill_during_a_hundred_writes_loses_nothing_that_was_readable(path: Path):
    readable: list[int] = []
    for turn, stop in enumerate((3, 40, 90)):
        writer = started(path, 1000 * turn, 100)
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
        for line in writer.stdout:
            if line.strip().isdigit():
                readable.append(int(line))
                if int(line) % 1000 == stop:
                    writer.send_signal(signal.SIGKILL)
                    break
        readable += [int(line) for line in writer.stdout if line.endswith("\n")]
        assert writer.wait(30) == -signal.SIGKILL
        writer.stdin.close()
        writer.stdout.close()
    assert len(readable) >= 4 + 41 + 91
    cache = DiskCache(path)
    keys = [b"%d/%d" % (number, one) for number in readable for one in range(5)]
    assert cache.get_many(keys) == [key * 20 for key in keys]
    cache.put_many(entries("after"))
    assert cache.get_many([b"after"]) == [b"rafter"]
    cache.close()
    whole(path)


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_other_threads_write(path: Path):
    cache, stop = DiskCache(path), threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set() and number < 5000:
            cache.put_many(entries(f"parent {number}"))
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for number in range(5):

            def child(number: int = number) -> None:
                assert cache._connection is None  # none crosses a fork
                cache.put_many(entries(f"child {number}"))
                assert cache.get_many([b"child %d" % number]) == [b"rchild %d" % number]

            in_a_fork(child)
    finally:
        stop.set()
        thread.join()
    assert cache.get_many([b"child %d" % number for number in range(5)]) == [b"rchild %d" % n for n in range(5)]
    assert cache.stats().entries > 5
    cache.close()
    whole(path)


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_does_not_wait_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disk, "_FORKING", 0.01)
    cache = DiskCache(path)
    cache.put_many(entries("a"))
    with cache._lock:  # as a call that takes too long

        def child() -> None:
            assert cache._connection is None  # what was the parent's is set aside
            assert cache.get_many([b"a"]) == [b"ra"]
            assert disk._lost

        in_a_fork(child)
    assert cache.get_many([b"a"]) == [b"ra"]
    cache.close()


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_read_only_folder_is_read(caplog: pytest.LogCaptureFixture):
    folder = Path(tempfile.mkdtemp())
    path = folder / "scores.db"
    try:
        cached = Cached(Lengths(), DiskCache(path))
        cached.score("q", ["known"])
        cached.close()
        path.chmod(0o444)
        folder.chmod(0o555)

        def child() -> None:
            if os.geteuid() == 0:
                os.setuid(65534)  # rights do not bind root
            scorer, cache = Lengths(), DiskCache(path)
            found = Cached(scorer, cache).score("q", ["known"])
            assert (found.values, found.warnings, scorer.pairs) == ([5 / 7], (), 0)
            mixed = Cached(scorer, cache).score("q", ["known", "new"])
            assert (mixed.values, scorer.pairs) == ([5 / 7, 3 / 7], 1)
            assert "cannot be written to" in mixed.warnings[0]
            with pytest.raises(ConfigurationError, match="There can be no cache"):
                DiskCache(folder / "another.db")

        in_a_fork(child)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
