"""Working Days of England and Wales, against the dates the government published."""

from __future__ import annotations

from datetime import date

import pytest

from tmm_core.operations.report.working_days import bank_holidays, due_date, easter, is_working_day

#: Year: month and day of every bank holiday of England and Wales, as published.
PUBLISHED = {
    2019: "0101 0419 0422 0506 0527 0826 1225 1226",
    2020: "0101 0410 0413 0508 0525 0831 1225 1228",
    2021: "0101 0402 0405 0503 0531 0830 1227 1228",
    2022: "0103 0415 0418 0502 0602 0603 0829 0919 1226 1227",
    2023: "0102 0407 0410 0501 0508 0529 0828 1225 1226",
    2024: "0101 0329 0401 0506 0527 0826 1225 1226",
    2025: "0101 0418 0421 0505 0526 0825 1225 1226",
    2026: "0101 0403 0406 0504 0525 0831 1225 1228",
    2027: "0101 0326 0329 0503 0531 0830 1227 1228",
    2028: "0103 0414 0417 0501 0529 0828 1225 1226",
}


@pytest.mark.parametrize("year", PUBLISHED)
def test_bank_holidays_are_those_published(year: int) -> None:
    assert " ".join(f"{day:%m%d}" for day in sorted(bank_holidays(year))) == PUBLISHED[year]


@pytest.mark.parametrize(
    ("year", "month", "day"),
    # The earliest and latest Easter there can be, leap years.
    [(1818, 3, 22), (1943, 4, 25), (1961, 4, 2), (2000, 4, 23), (2008, 3, 23), (2038, 4, 25), (2049, 4, 18)],
)
def test_easter_is_right_at_its_extremes(year: int, month: int, day: int) -> None:
    assert easter(year) == date(year, month, day)


@pytest.mark.parametrize(
    ("year", "month", "due"),
    [
        # 1 December 2026 is a Tuesday: 1 2 3 4, 7 8 9 10 11, 14.
        (2026, 11, date(2026, 12, 14)),
        # New Year's Day 2027 is a Friday: 4 5 6 7 8, 11 12 13 14 15.
        (2026, 12, date(2027, 1, 15)),
        # Good Friday 3 and Easter Monday 6 April 2026: 1 2, 7 8 9 10, 13 14 15 16.
        (2026, 3, date(2026, 4, 16)),
        # 1 May 2026 is a Friday and the 4th a bank holiday: 1, 5 6 7 8, 11 12 13 14 15.
        (2026, 4, date(2026, 5, 15)),
        # New Year's Day 2028 is a Saturday and Monday its substitute: 4 5 6 7, 10 11 12 13 14, 17.
        (2027, 12, date(2028, 1, 17)),
    ],
)
def test_the_report_is_due_on_the_tenth_working_day(year: int, month: int, due: date) -> None:
    assert due_date(year, month) == due
    assert is_working_day(due)


def test_a_holiday_proclaimed_later_moves_the_due_date() -> None:
    # 14 December is no longer the tenth: the 15th is.
    assert due_date(2026, 11, extra=[date(2026, 12, 2)]) == date(2026, 12, 15)
    assert not is_working_day(date(2026, 12, 2), extra=[date(2026, 12, 2)])


def test_a_weekend_is_no_working_day() -> None:
    assert [is_working_day(date(2026, 11, day)) for day in range(20, 24)] == [True, False, False, True]
