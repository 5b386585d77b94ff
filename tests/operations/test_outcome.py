"""The DSP's queue, the series of a chart: worked by hand."""

from __future__ import annotations

import pytest

from tmm_core.operations.traffic.drive import Queue, Row, Series


def row(second: int, offered: int, admitted: int, *, active: bool = False) -> Row:
    counts = (offered - admitted, 0, admitted, 0)
    return Row(second, counts, offered, admitted, active, None, 0.0)


def test_what_is_above_the_capacity_waits_and_is_worked_off_second_by_second() -> None:
    queue = Queue(capacity=10, threshold=8)
    seen = []
    for second, units in enumerate([5, 25, 12, 4, 0, 9]):
        queue.add(second, units, 0)
        seen.append(queue.backlog)
    # 5 fits; 25 leaves 15; 15+12-10 = 17; 17+4-10 = 11; 11-10 = 1; 1+9-10 = 0.
    assert seen == [0, 15, 17, 11, 1, 0]
    assert (queue.highest, queue.highest_second) == (25, 1)
    assert (queue.highest_backlog, queue.highest_backlog_second) == (17, 2)
    assert queue.longest_wait_s == 1.7  # 17 units at 10 a second
    assert queue.seconds_with_backlog == 4  # at the end of seconds 1 to 4
    assert queue.seconds_above_capacity == 2  # 25 and 12
    assert queue.seconds_above_threshold == 3  # 25, 12 and 9


@pytest.mark.parametrize("idle", [1, 2, 3, 4, 100])
def test_idle_seconds_left_out_are_the_same_as_idle_seconds_told_one_by_one(idle: int) -> None:
    told, left_out = Queue(10, 8), Queue(10, 8)
    for queue in (told, left_out):
        queue.add(0, 35, 0)  # 25 waiting: 15, 5, 0 at the end of the next three seconds
    for second in range(1, idle + 1):
        told.add(second, 0, 0)
    told.add(idle + 1, 3, 0)
    left_out.add(idle + 1, 3, idle)
    assert told == left_out


def test_a_series_keeps_the_highest_second_of_each_bin() -> None:
    series = Series(0, limit=4)
    for second, offered in enumerate([1, 7, 3, 2, 9]):
        series.add(row(second, offered, min(offered, 5), active=offered > 5))
    # The fifth second does not fit into four bins of one second: 1 7 | 3 2 | 9.
    assert series.width == 2
    assert series.offered == [7, 3, 9]
    assert series.admitted == [5, 3, 5]
    assert series.active == [True, False, True]


def test_a_series_with_years_of_silence_stays_small() -> None:
    series = Series(100, limit=600)
    series.add(row(100, 4, 4))
    series.add(row(100 + 10 * 365 * 86_400, 6, 6))
    assert len(series.offered) <= 600
    assert series.offered[0] == 4 and series.offered[-1] == 6
    assert sum(series.offered) == 10


def test_a_row_adds_up() -> None:
    each = Row(0, (4, 3, 2, 1), 10, 6, True, 1.5, 0.0)
    assert each.offered == 10
    assert each.admitted == 6
