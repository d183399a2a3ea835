"""The wait that a reply asks for: ``retry-after-ms``, and ``Retry-After`` in seconds or as a date."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uprank.scorers.http.retries import wait_hint


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "-1", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "nan", "retry-after": "7"}, 7.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 -0000"}, 0.0),
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 99 Dec 2999 99:99:99 GMT"}, None),
        ({"retry-after": "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"}, None),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 +999999999999"}, None),
    ],
)
def test_wait_hint(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_hint(headers) == seconds


@pytest.mark.parametrize("zone", [timezone.utc, timezone(timedelta(hours=-8)), timezone(timedelta(hours=5.5))])
def test_wait_hint_of_a_date_is_the_time_until_then(zone: timezone) -> None:
    moment = datetime.now(zone) + timedelta(seconds=40)
    hint = wait_hint({"retry-after": format_datetime(moment)})
    assert hint is not None
    assert 38 < hint <= 40


@given(st.text(max_size=40), st.text(max_size=40))
def test_wait_hint_reads_anything_without_an_error(milliseconds: str, seconds: str) -> None:
    hint = wait_hint({"retry-after-ms": milliseconds, "retry-after": seconds})
    assert hint is None or 0 <= hint < float("inf")


@given(
    st.builds(
        "{}, {} {} {} {}:{}:{} {}".format,
        st.sampled_from(["Fri", "Mon", ""]),
        st.integers(-1, 10**20),
        st.sampled_from(["Jan", "Feb", "Xyz"]),
        st.integers(-1, 10**20),
        st.integers(-1, 10**12),
        st.integers(-1, 99),
        st.integers(-1, 99),
        st.one_of(st.sampled_from(["GMT", "-0000", ""]), st.integers(-(10**12), 10**12).map("{:+05d}".format)),
    )
)
def test_wait_hint_reads_any_date_without_an_error(date: str) -> None:
    hint = wait_hint({"retry-after": date})
    assert hint is None or 0 <= hint < float("inf")
