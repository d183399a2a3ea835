"""How batches are formed of the rows that wait: who leads, who joins, how much padding there is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_parts import padded
from uprank.scorers.local.jobs import Row
from uprank.scorers.local.pool import Batch, Pool, Share

relaxed = settings(deadline=None, max_examples=60)
mixes = st.lists(st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab")), min_size=1, max_size=25), max_size=6)


class Caller(Share):
    def __init__(self, name: str = "") -> None:
        super().__init__()
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


def rows_of(lengths, group=None):
    return [Row(length, (length, place), place, group) for place, length in enumerate(lengths)]


def pool_of(**calls):
    pool, callers = Pool(), {name: Caller(name) for name in calls}
    for name, lengths in calls.items():
        pool.add(callers[name], rows_of(lengths))
    return pool, callers


def drained(pool, budget):
    batches = []
    while pool:
        batches.append(pool.take(budget, budget))
    return batches


def lengths(batch):
    return [row.length for row in batch.rows]


@relaxed
@given(mixes, st.integers(1, 200), st.integers(1, 200))
def test_every_row_is_in_one_batch_with_its_owner_and_within_the_budget(mix, budget, target):
    pool, given_rows = Pool(), {}
    for call in mix:
        caller = Caller()
        given_rows[caller] = [Row(length, place, place, group) for place, (length, group) in enumerate(call)]
        pool.add(caller, given_rows[caller])
    waiting = sum(len(call) for call in mix)
    came = {caller: [] for caller in given_rows}
    while pool:
        assert len(pool) == waiting
        batch = pool.take(budget, min(budget, target))
        waiting -= len(batch.rows)
        assert batch.rows
        assert len({row.group for row in batch.rows}) == 1
        assert batch.size == padded(batch.rows)
        assert batch.size <= budget or len(batch.rows) == 1
        for caller, places in batch.shares.items():
            came[caller] += [batch.rows[place] for place in places]
            assert batch.only(caller).rows == [batch.rows[place] for place in places]
        assert sorted(place for places in batch.shares.values() for place in places) == list(range(len(batch.rows)))
    assert waiting == pool.tokens == 0
    for caller, rows in given_rows.items():
        assert sorted(row.place for row in came[caller]) == [row.place for row in rows]
        assert all(any(row is other for other in rows) for row in came[caller])
        assert caller.tokens == 0
        assert caller.begun


@relaxed
@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(64, 400))
def test_the_rows_of_one_call_go_from_long_to_short_and_equal_ones_in_their_order(call, budget):
    pool, _ = pool_of(a=call)
    flat = [row for batch in drained(pool, budget) for row in batch.rows]
    assert [row.place for row in flat] == sorted(range(len(call)), key=lambda place: (-call[place], place))


@relaxed
@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=25), min_size=1, max_size=6), st.integers(64, 400))
def test_padding_is_bounded(calls, budget):
    """At most 15 % of each row, and beyond that what a 32nd of a full batch costs."""
    pool, _ = pool_of(**{str(number): call for number, call in enumerate(calls)})
    for batch in drained(pool, budget):
        like = int(0.85 * batch.longest)
        assert sum(like - row.length for row in batch.rows if row.length < like) <= budget // 32


@relaxed
@given(mixes, st.integers(1, 200))
def test_without_padding_batches_are_full_whatever_the_lengths(mix, budget):
    """Every batch but the last of a group: no row that waits would have had room in place of padding."""
    pool, given_rows = Pool(), 0
    pool.padded = False
    for call in mix:
        pool.add(Caller(), [Row(length, place, place) for place, (length, _) in enumerate(call)])
        given_rows += len(call)
    *full, last = drained(pool, budget) or [Batch()]
    assert len(last.rows) + sum(len(batch.rows) for batch in full) == given_rows
    longest = max((length for call in mix for length, _ in call), default=0)
    for batch in [*full, last]:
        assert batch.size == sum(max(1, row.length) for row in batch.rows)
        assert batch.size <= budget or len(batch.rows) == 1
        for share in batch.shares:
            assert not batch.only(share).padded
    for batch in full:
        assert batch.size > budget - max(1, longest)


def test_without_padding_rows_of_all_lengths_share_a_batch():
    for padded_rows, expected in ((True, [[90, 88], [10], [2]]), (False, [[90, 10, 88, 2]])):
        pool, _ = pool_of(a=[90, 10], b=[88, 2])
        pool.padded = padded_rows
        assert [lengths(batch) for batch in drained(pool, 200)] == expected


def test_equal_rows_added_later_go_later():
    pool, caller = Pool(), Caller()
    pool.add(caller, [Row(5, "first", 0), Row(5, "second", 1)])
    pool.add(caller, [Row(5, "third", 2), Row(9, "long", 3)])
    assert [row.payload for row in pool.take(9, 9).rows] == ["long"]
    assert [row.payload for row in pool.take(100, 100).rows] == ["first", "second", "third"]


def test_the_rows_of_a_call_are_split_into_parts_of_the_target():
    pool, _ = pool_of(a=[10] * 10)
    assert len(pool.take(1_000, 50).rows) == 5
    assert len(pool.take(1_000, 50).rows) == 5
    pool, _ = pool_of(a=[30, 30, 30, 30, 10, 10])
    assert lengths(pool.take(1_000, 70)) == [30, 30]


def test_a_row_longer_than_the_budget_goes_alone():
    pool, _ = pool_of(a=[500, 5, 5], b=[499])
    assert lengths(pool.take(100, 100)) == [500]


def test_rows_of_several_calls_share_a_batch_nearest_lengths_first():
    pool, callers = pool_of(a=[50], b=[50, 48, 20], c=[49, 47, 46])
    batch = pool.take(250, 250)
    assert lengths(batch) == [50, 50, 49, 48, 47]
    assert batch.shares == {callers["a"]: [0], callers["b"]: [1, 3], callers["c"]: [2, 4]}


def test_a_little_longer_rows_fill_the_batch_up_much_longer_ones_do_not():
    pool, callers = pool_of(a=[50, 50], b=[51, 52, 53, 90])
    pool.add(callers["a"], [])
    batch = pool.take(320, 320)  # whose spare padding is 10 tokens
    assert set(batch.shares) == set(callers.values())
    assert lengths(batch) == [50, 50, 51, 52, 53]


def test_rows_of_different_groups_never_share_a_batch():
    pool, first, second = Pool(), Caller(), Caller()
    pool.add(first, rows_of([10, 10], "x"))
    pool.add(second, rows_of([10, 10], "y"))
    assert [{row.group for row in batch.rows} for batch in drained(pool, 1_000)] == [{"x"}, {"y"}]


# --- whose turn it is


def finished(pool, budget):
    """Take all; tells in which order calls had their last row taken."""
    order = []
    while pool:
        order += [share.name for share in pool.take(budget, budget).shares if not share.tokens]
    return order


def like_calls(number, rows=28):
    """Calls that differ little, of two to four full batches of 1,000 tokens."""
    drawn = random.Random(0)
    return {str(call): [drawn.randint(60, 140) for _ in range(rows)] for call in range(number)}


def test_like_calls_are_answered_one_after_the_other_and_not_all_in_the_end():
    pool, callers = pool_of(**like_calls(40))
    total, run, when = pool.tokens, 0, {}
    while pool:
        batch = pool.take(1_000, 1_000)
        run += batch.tokens
        when.update({share: run / total for share in batch.shares if not share.tokens})
    for place, caller in enumerate(callers.values(), 1):  # but for the rows that fill other calls' batches up
        assert when[caller] <= place / 40 + 0.08


def test_without_padding_like_calls_are_answered_in_their_order():
    pool, _ = pool_of(**like_calls(10))
    pool.padded = False
    assert finished(pool, 1_000) == [str(number) for number in range(10)]


def test_of_like_calls_the_last_goes_first_where_callers_do_not_wait():
    pool, _ = pool_of(**like_calls(3, rows=10))
    pool.padded, pool.latest_first = False, True
    assert finished(pool, 1_000) == ["2", "1", "0"]


def test_a_call_that_was_begun_is_finished_before_a_like_one_begins():
    for latest_first in (False, True):
        pool, callers = pool_of(a=[100] * 7, b=[100] * 7)
        pool.latest_first = latest_first
        begun, other = ("b", "a") if latest_first else ("a", "b")
        assert [*pool.take(100, 100).shares] == [callers[begun]]
        pool.add(Caller("late"), rows_of([100] * 7))
        while callers[begun].tokens:
            assert [*pool.take(100, 100).shares] == [callers[begun]]
        assert callers[other].tokens == 700


def test_calls_go_by_what_they_have_left_and_not_by_what_waits_of_it():
    pool, callers = pool_of(long=[100] * 4, short=[100] * 6)
    callers["long"].coming = 5_000  # it has given only its first rows
    assert [*pool.take(100, 100).shares] == [callers["short"]]


@pytest.mark.parametrize(("first", "second", "leads"), [(600, 500, 0), (500, 600, 0), (900, 400, 1), (90, 10, 0)])
def test_calls_are_alike_up_to_a_factor_of_two_and_below_a_batch(first, second, leads):
    pool = Pool()
    callers = [Caller("first"), Caller("second")]
    for caller, tokens in zip(callers, (first, second), strict=True):
        pool.add(caller, [Row(10, None, place, caller.name) for place in range(tokens // 10)])
    assert [*pool.take(100, 100).shares] == [callers[leads]]


def test_a_large_call_is_not_starved_by_small_ones_that_keep_coming():
    """Each of them alone would fill a batch; all of them together would take every batch for ever."""
    pool, callers = pool_of(large=[50] * 40)
    large, batches = callers["large"], 0
    while large.tokens:
        while len(pool) - len(large.rows.get(None, ())) < 4:
            pool.add(Caller("small"), [Row(10, None, place, "other") for place in range(10)])
        pool.take(100, 100)
        batches += 1
        assert batches <= 8 * 20
    assert batches > 8 * 19  # and it takes no more than its share, but for the last batch, when it is as small as they


def test_the_share_of_the_oldest_call_is_filled_with_its_own_rows():
    pool, callers = pool_of(large=[50, *[45] * 12])
    for _ in range(50):
        pool.add(Caller("small"), rows_of([49, 49]))
    batches = [pool.take(100, 100) for _ in range(16)]
    assert [place for place, batch in enumerate(batches) if callers["large"] in batch.shares] == [7, 15]
    assert [lengths(batches[place]) for place in (7, 15)] == [[50, 45], [45, 45]]


def test_a_small_call_is_answered_after_a_few_batches_whatever_waits():
    pool, _ = pool_of(big=list(range(20, 60)) * 250)
    for _ in range(50):
        pool.take(400, 400)
    small = Caller("small")
    pool.add(small, rows_of([25, 31, 38, 44, 52, 57, 22, 28, 40, 50]))
    batches = 0
    while small.tokens:
        pool.take(400, 400)
        batches += 1
    assert batches <= 8


def test_a_small_call_of_like_rows_stays_together():
    pool, _ = pool_of(big=[30] * 1_000)
    pool.take(300, 300)
    small = Caller("small")
    pool.add(small, rows_of([28, 29, 30, 29, 28, 30, 30, 29]))
    pool.take(300, 300)
    assert len(pool.take(300, 300).shares.get(small, [])) == 8 or not small.tokens


def test_small_calls_alone_are_mixed_for_the_least_padding():
    pool, _ = pool_of(**{str(number): [20, 22, 24, 26, 28, 30] for number in range(10)})
    batches = drained(pool, 300)
    assert sum(batch.size for batch in batches) <= 1.02 * 10 * (20 + 22 + 24 + 26 + 28 + 30)


# --- rows that come back, rows that leave


def test_rows_put_back_wait_again():
    pool, callers = pool_of(a=[10, 20, 30], b=[30])
    batch = pool.take(1_000, 1_000)
    pool.put_back(batch, callers["b"])
    assert pool.tokens == 30 + callers["a"].tokens
    assert {row.payload for again in drained(pool, 1_000) for row in again.rows} >= {(30, 0)}


def test_a_dropped_caller_leaves_nothing_and_dropping_twice_is_nothing():
    pool, callers = pool_of(a=[10, 20], b=[15])
    pool.drop(callers["a"])
    pool.drop(callers["a"])
    assert pool.tokens == 15
    assert [lengths(batch) for batch in drained(pool, 100)] == [[15]]
    assert not pool


@pytest.mark.parametrize("budget", [1, 7])
def test_rows_without_tokens_count_as_one(budget):
    pool, _ = pool_of(a=[0] * 20)
    assert max(len(batch.rows) for batch in drained(pool, budget)) == budget


def test_an_empty_batch_has_no_tokens():
    assert Batch().size == 0
