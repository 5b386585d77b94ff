"""Working Days of England and Wales, and the day by which a month's report is due.

A Working Day is any day but Saturdays, Sundays and bank holidays. These are computed by rule, with
their substitute days; those that were proclaimed or moved once are listed. One proclaimed after this version
was made is passed in.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta

DUE_WORKING_DAY = 10
"""The report on a month is due by this Working Day after the month's end (SEC H3.24)."""

#: Proclaimed once (royal occasions).
_PROCLAIMED = {date(2011, 4, 29), date(2012, 6, 5), date(2022, 6, 3), date(2022, 9, 19), date(2023, 5, 8)}
#: Moved once: where the rule puts it, and where it was.
_MOVED = {
    date(2012, 5, 28): date(2012, 6, 4),
    date(2020, 5, 4): date(2020, 5, 8),
    date(2022, 5, 30): date(2022, 6, 2),
}
_DAY = timedelta(days=1)


def easter(year: int) -> date:
    """Return Easter Sunday of a Gregorian year (the anonymous algorithm, Nature, 20 April 1876).

    Examples
    --------
    >>> easter(2026)
    datetime.date(2026, 4, 5)
    """
    golden = year % 19
    century, of_century = divmod(year, 100)
    leap_centuries, century_rest = divmod(century, 4)
    correction = (century - (century + 8) // 25 + 1) // 3
    epact = (19 * golden + century - leap_centuries - correction + 15) % 30
    leaps, leap_rest = divmod(of_century, 4)
    to_sunday = (32 + 2 * century_rest + 2 * leaps - epact - leap_rest) % 7
    late = (golden + 11 * epact + 22 * to_sunday) // 451
    month, day = divmod(epact + to_sunday - 7 * late + 114, 31)
    return date(year, month, day + 1)


def bank_holidays(year: int) -> frozenset[date]:
    """Return the bank holidays of England and Wales in a year, substitute days instead of those on a weekend.

    Examples
    --------
    >>> max(bank_holidays(2026))  # 26 December is a Saturday
    datetime.date(2026, 12, 28)
    """
    sunday = easter(year)
    by_rule = {
        sunday - 2 * _DAY,
        sunday + _DAY,
        _monday_from(date(year, 5, 1)),
        _monday_from(date(year, 5, 25)),
        _monday_from(date(year, 8, 25)),
    }
    found = {_MOVED.get(day, day) for day in by_rule}
    fixed = (date(year, 1, 1), date(year, 12, 25), date(year, 12, 26))
    found.update(day for day in fixed if day.weekday() < 5)
    for day in fixed:
        if day.weekday() >= 5:
            while day.weekday() >= 5 or day in found:
                day += _DAY
            found.add(day)
    return frozenset(found | {day for day in _PROCLAIMED if day.year == year})


def is_working_day(day: date, extra: Collection[date] = ()) -> bool:
    """Tell whether a day is a Working Day; `extra` holds bank holidays that no rule gives."""
    return day.weekday() < 5 and day not in extra and day not in bank_holidays(day.year)


def due_date(year: int, month: int, extra: Collection[date] = ()) -> date:
    """Return the 10th Working Day after the end of a month.

    Examples
    --------
    >>> due_date(2026, 11)
    datetime.date(2026, 12, 14)
    """
    day = date(year + month // 12, month % 12 + 1, 1) - _DAY
    working = 0
    while working < DUE_WORKING_DAY:
        day += _DAY
        working += is_working_day(day, extra)
    return day


def _monday_from(day: date) -> date:
    """Return the first Monday on or after a day."""
    return day + (-day.weekday() % 7) * _DAY
