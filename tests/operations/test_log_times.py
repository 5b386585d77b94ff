"""Times in a request log: every format by hand, and the fast way the same as the careful one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmm_core.operations.traffic.request_times import FaultError, TimeFormat

NS = 1_000_000_000
# 2026-12-01 00:00:00 UTC: 20,788 days after 1970-01-01 (56 years of 365 days, 14 leap days, 334 days).
DAY = 20_788 * 86_400 * NS


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-12-01T00:00:00Z", DAY),
        ("2026-12-01 00:00:00Z", DAY),
        ("2026-12-01t00:00:00z", DAY),
        ("2026-12-01T01:00:00+01:00", DAY),
        ("2026-12-01T01:30:00+0130", DAY),
        ("2026-11-30T19:00:00-05", DAY),
        ("2026-12-01 00:00:00 +00:00", DAY),
        ("2026-12-01T00:00:00.5Z", DAY + NS // 2),
        ("2026-12-01T00:00:00,250Z", DAY + NS // 4),
        ("2026-12-01T00:00:00.123456789Z", DAY + 123_456_789),
        ("1796083200", DAY),
        ("1796083200.25", DAY + NS // 4),
        ("1796083200123", DAY + 123_000_000),
        ("1796083200123.5", DAY + 123_500_000),
        ("1796083200123456", DAY + 123_456_000),
        ("1796083200123456789", DAY + 123_456_789),
    ],
)
def test_a_time_is_read_to_the_nanosecond(text: str, ns: int) -> None:
    assert TimeFormat().read(text) == ns
    assert alike([text, text]) == [ns, ns]


def alike(texts: list[str]) -> list[int] | None:
    """Read texts the fast way, from one piece of text."""
    joined = ",".join(texts).encode() + b","
    ends = np.cumsum([len(text.encode()) + 1 for text in texts]) - 1
    starts = np.concatenate([[0], ends[:-1] + 1])
    found = TimeFormat().read_alike(np.frombuffer(joined, np.uint8), starts, ends, texts[0])
    return None if found is None else found.tolist()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "must be ISO 8601"),
        ("yesterday", "must be ISO 8601"),
        ("12.5", "must be ISO 8601"),
        ("-1796083200", "must be ISO 8601"),
        ("17960832001", "must be ISO 8601"),
        ("١٧٩٦٠٨٣٢٠٠", "must be ISO 8601"),
        ("2026-12-01", "must be ISO 8601"),
        ("2026-12-01T00:00:00", "no offset"),
        ("2026-13-01T00:00:00Z", "month"),
        ("2026-02-29T00:00:00Z", "day"),
        ("2026-12-01T24:00:00Z", "hour"),
        ("2026-12-01T00:00:60Z", "second"),
        ("2026-12-01T00:00:00.1234567890Z", "must end in Z or an offset"),
        ("2026-12-01T00:00:00+25:00", "below 24 h"),
        ("2026-12-01T00:00:00 GMT", "must end in Z or an offset"),
        ("1969-12-31T23:59:59Z", "from 1970 to 2199"),
        ("9999-12-31T23:59:59Z", "from 1970 to 2199"),
    ],
)
def test_what_is_no_time_is_a_fault_and_settles_nothing(text: str, fault: str) -> None:
    times = TimeFormat()
    with pytest.raises(FaultError, match=fault):
        times.read(text)
    assert times.name == ""
    assert times.read("1796083200") == DAY


def test_a_time_without_an_offset_is_utc_if_asked_for() -> None:
    assert TimeFormat(assume_utc=True).read("2026-12-01T00:00:00.5") == DAY + NS // 2
    assert TimeFormat(assume_utc=True).read("2026-12-01T01:00:00+01:00") == DAY


@pytest.mark.parametrize(
    ("first", "name"),
    [
        ("2026-12-01T00:00:00Z", "ISO 8601"),
        ("1796083200", "seconds since 1970"),
        ("1796083200123", "milliseconds since 1970"),
        ("1796083200123456", "microseconds since 1970"),
        ("1796083200123456789", "nanoseconds since 1970"),
    ],
)
def test_the_format_is_the_first_ones_and_stays(first: str, name: str) -> None:
    times = TimeFormat()
    times.read(first)
    assert times.name == name
    for other in (
        "2026-12-01T00:00:00Z",
        "1796083200",
        "1796083200123",
        "1796083200123456",
        "x",
        "1796083200x",
    ):
        if len(other) != len(first):
            with pytest.raises(FaultError):
                times.read(other)


MOMENTS = st.integers(365 * 86_400_000_000, 83_639 * 86_400_000_000).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)  # 1971 to 2198


@given(st.lists(MOMENTS, min_size=1, max_size=20), st.integers(-23 * 60, 23 * 60))
def test_iso_times_are_what_datetime_says(moments: list[datetime], offset: int) -> None:
    zone = timezone(timedelta(minutes=offset))
    texts = [moment.astimezone(zone).isoformat(timespec="microseconds") for moment in moments]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = [((moment - epoch) // timedelta(microseconds=1)) * 1000 for moment in moments]
    times = TimeFormat()
    assert [times.read(text) for text in texts] == expected
    assert TimeFormat().read_many(texts).tolist() == expected
    assert alike(texts) == expected


@pytest.mark.parametrize("odd", [".2x0Z", ".2/0Z", ".2:0Z", ".250z", ",250Z", ".25+1Z"])
def test_a_fraction_that_is_not_like_the_first_is_left_to_the_careful_way(odd: str) -> None:
    assert alike(["2026-12-01T00:00:00.250Z", "2026-12-01T00:00:01" + odd]) is None


TAILS = st.text(alphabet="0123456789.,:+-Zz x", max_size=7)
HEADS = st.sampled_from(["2026-12-01T00:00:00", "2026-12-01T00:00:59", "1796083200", "1796083200123", "x"])


@given(st.lists(st.tuples(HEADS, TAILS), min_size=1, max_size=4))
def test_the_fast_way_agrees_with_the_careful_one_or_declines(parts: list[tuple[str, str]]) -> None:
    texts = [head + tail for head, tail in parts]
    times, expected, faults = TimeFormat(), [], 0
    for text in texts:
        try:
            expected.append(times.read(text))
        except FaultError:
            faults += 1
            if not times.name:
                return  # the first is no time: there is nothing to be like
    try:
        found = alike(texts)
    except FaultError:
        assert faults
        return
    if found is not None:
        assert not faults
        assert found == expected


def test_what_is_remembered_is_bounded() -> None:
    times = TimeFormat()
    times.read("1796083200")
    for second in range(200_010):
        times.read(str(1_796_083_200 + second))
    assert len(times.seconds) <= 200_000
