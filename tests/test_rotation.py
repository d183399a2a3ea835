"""The marker that leaves most combinations of a test's parameters to the long run."""

from __future__ import annotations

import pytest

LETTERS, NUMBERS = ("a", "b", "c"), (1, 2)
ran: set[tuple[str, int]] = set()


@pytest.mark.rotated(2)
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(("letter", "beside"), [(letter, letter * 2) for letter in LETTERS])
def test_a_combination(letter: str, beside: str, number: int) -> None:
    assert beside == letter * 2
    ran.add((letter, number))


def test_every_other_combination_ran_and_with_the_slow_ones_all(request: pytest.FixtureRequest) -> None:
    if request.config.option.keyword or not ran:
        pytest.skip("some of these tests were picked by hand")
    if request.config.option.markexpr == "not slow":
        assert ran == {("a", 1), ("b", 2), ("c", 1)}
    else:
        assert ran == {(letter, number) for letter in LETTERS for number in NUMBERS}
