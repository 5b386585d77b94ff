"""Lines out of order are put in order within the window; beyond it they are counted, and left out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmm_core.errors import TMMError
from tmm_core.operations.traffic import request_times
from tmm_core.operations.traffic.request_log import Block, LogNotes
from tmm_core.operations.traffic.request_times import by_second

NS = 1_000_000_000
MS = 1_000_000


def blocks(times_ns: list[int], size: int) -> Iterator[Block]:
    """Cut times into blocks; the SRV number says which line it was."""
    lines = np.arange(len(times_ns), dtype=np.int64)
    times = np.array(times_ns, dtype=np.int64)
    for begin in range(0, len(times_ns), size):
        part = slice(begin, begin + size)
        yield Block(
            times[part], np.ones(times[part].size, np.uint32), lines[part].astype(np.uint16), lines[part]
        )


def play(
    times_ns: list[int], window_s: float = 5.0, size: int = 1000
) -> tuple[list[tuple[int, int, int]], LogNotes]:
    """Return second, step and line of each request in the order they come out."""
    notes = LogNotes()
    out = []
    for each in by_second(blocks(times_ns, size), window_s, notes):
        out += [
            (each.second, step, line)
            for step, line in zip(each.steps.tolist(), each.srvs.tolist(), strict=True)
        ]
    return out, notes


def test_requests_come_out_by_second_and_step() -> None:
    out, notes = play([7 * NS + 1, 7 * NS + 4 * MS, 7 * NS + 5 * MS, 9 * NS + 999 * MS])
    # Steps of 5 ms: 0, 0, 1, and 199 two seconds later.
    assert out == [(0, 0, 0), (0, 0, 1), (0, 1, 2), (2, 199, 3)]
    assert notes.start == 7
    assert notes.out_of_order == notes.late == notes.whole_seconds == 0


def test_lines_out_of_order_within_the_window_are_put_in_order_and_counted() -> None:
    out, notes = play([10 * NS + 1, 13 * NS + 1, 11 * NS + 1, 12 * NS + 1, 14 * NS + 1])
    assert [(second, line) for second, _, line in out] == [(0, 0), (1, 2), (2, 3), (3, 1), (4, 4)]
    assert (notes.out_of_order, notes.late) == (2, 0)
    assert notes.furthest_behind_s == 2.0


def test_equal_times_keep_the_order_of_the_file() -> None:
    out, _ = play([5, 9, 5, 5, 9, 7])
    assert [line for _, _, line in out] == [0, 2, 3, 5, 1, 4]


def test_a_line_further_behind_than_the_window_is_counted_and_left_out() -> None:
    out, notes = play([20 * NS + 1, 14 * NS + 1, 15 * NS + 1, 16 * NS + 1, 21 * NS + 1])
    # The window of 5 s reaches from second 20 back to 15, whole seconds: 14 is late, 15 is not.
    assert [line for _, _, line in out] == [2, 3, 0, 4]
    assert (notes.out_of_order, notes.late) == (3, 1)
    assert [bad.line for bad in notes.first_late] == [1]
    assert str(notes.first_late[0]) == "line 1: 6.000 s behind an earlier line, more than the window of 5 s"
    assert notes.start == 15


def test_requests_that_only_bear_the_second_are_spread_over_it() -> None:
    out, notes = play([3 * NS] * 4 + [4 * NS] * 3 + [5 * NS])
    # Four: every 50 steps of 200; three: every 66 2/3; one alone stays where it is.
    assert [step for _, step, _ in out] == [0, 50, 100, 150, 0, 66, 133, 0]
    assert notes.whole_seconds == 2


def test_requests_of_a_log_with_fractions_are_never_moved() -> None:
    out, notes = play([3 * NS + 10 * MS] + [4 * NS] * 3)
    assert [step for _, step, _ in out] == [2, 0, 0, 0]
    assert notes.whole_seconds == 0


TIMES = st.lists(st.integers(0, 40 * NS), min_size=1, max_size=60)


@given(TIMES, st.sampled_from([0.0, 0.5, 5.0, 100.0]), st.integers(1, 70))
def test_it_is_a_stable_sort_of_what_is_not_late_however_the_blocks_are_cut(
    times: list[int], window_s: float, size: int
) -> None:
    window, top, kept, behind = round(window_s * NS), times[0], [], 0
    for line, time in enumerate(times):
        top = max(top, time)
        behind += time < top
        if time >= (top - window) // NS * NS:
            kept.append((time, line))
    kept.sort()
    start = kept[0][0] // NS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_times, "_AT_ONCE", size)
        out, notes = play(times, window_s, size)
    assert [(second, line) for second, _, line in out] == [(time // NS - start, line) for time, line in kept]
    assert notes.out_of_order == behind
    assert notes.late == len(times) - len(kept)
    # One second is never yielded twice, so that a Drive sees it whole.
    notes = LogNotes()
    seconds = [each.second for each in by_second(blocks(times, size), window_s, notes)]
    assert seconds == sorted(set(seconds))


def test_too_many_lines_within_one_window_are_an_error_not_all_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_times, "MOST_WAITING", 500)
    monkeypatch.setattr(request_times, "_AT_ONCE", 100)
    with pytest.raises(
        TMMError, match=r"more than 500 lines within 5 s, to line \d+: name a smaller --window"
    ):
        play([NS] * 2000, size=100)


def test_what_waits_is_bounded_by_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_times, "_AT_ONCE", 10)
    taken, most = 0, 0

    def counted() -> Iterator[Block]:
        nonlocal taken
        for block in blocks([number * NS // 10 for number in range(5000)], 10):
            taken += 10
            yield block

    given_out = 0
    for each in by_second(counted(), 5.0, LogNotes()):
        given_out += each.users.size
        most = max(most, taken - given_out)
    assert given_out == 5000
    # Ten lines a second: 6 s of them wait, as many again are gathered before they are sorted.
    assert most <= 2 * 70


def test_no_line_is_no_second() -> None:
    notes = LogNotes()
    assert list(by_second(iter(()), 5.0, notes)) == []
    assert notes.start is None
