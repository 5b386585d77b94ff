"""The requests of a log in the order of time, second by second.

Gateways with several workers write lines a little out of order. Lines wait until no line within the window
can come before them; one that is further behind than the window is counted, and left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from tmm_core.errors import TMMError
from tmm_core.operations.traffic.drive import NS, STEP_NS, TrafficSecond
from tmm_core.operations.traffic.request_log import Block, LogNotes

__all__ = ["MOST_WAITING", "by_second"]

MOST_WAITING = 8_000_000
"""Lines that may wait for earlier ones: far above what a window holds at any load a gateway has."""


_AT_ONCE = 50_000  # lines gathered before they are sorted


def by_second(
    blocks: Iterable[Block], window_s: float, notes: LogNotes, *, step_ns: int = STEP_NS
) -> Iterator[TrafficSecond]:
    """Sort the requests within a window, and yield them by the second.

    Parameters
    ----------
    blocks : iterable of Block
        In the order of the file.
    window_s : float
        Seconds that a line may be behind an earlier one.
    notes : LogNotes
        Told what is out of order, what is left out, and what is spread.
    step_ns : int
        As of the `Drive`.

    Yields
    ------
    TrafficSecond
        Counted from the first second of the log, `notes.start`.

    Raises
    ------
    TMMError
        More than `MOST_WAITING` lines are within one window.
    """
    seconds = _Seconds(notes, step_ns)
    window = round(window_s * NS)
    waiting: list[Block] = []
    kept = fresh = 0
    top: int | None = None
    for block in blocks:
        if top is None:
            top = int(block.times[0])
        block, top = _within(block, top, window, window_s, notes)
        waiting.append(block)
        fresh += block.times.size
        if fresh < max(kept, _AT_ONCE):
            continue
        ready, rest = _split(_sorted(waiting), (top - window) // NS * NS)
        yield from seconds.of(ready)
        waiting, kept, fresh = [rest], rest.times.size, 0
        if kept > MOST_WAITING:
            raise TMMError(
                f"more than {MOST_WAITING:,} lines within {window_s:g} s, to line {int(rest.lines.max())}: "
                "name a smaller --window, or the right column for the time"
            )
    if waiting:
        yield from seconds.of(_sorted(waiting))


def _within(block: Block, top: int, window: int, window_s: float, notes: LogNotes) -> tuple[Block, int]:
    """Return the lines that are not too late, and the latest time so far."""
    latest = np.maximum.accumulate(np.maximum(block.times, top))
    behind = latest - block.times
    n = int(np.count_nonzero(behind))
    if not n:
        return block, int(latest[-1])
    notes.out_of_order += n
    notes.furthest_behind_s = max(notes.furthest_behind_s, int(behind.max()) / NS)
    # Whole seconds are released: what is not late has not been overtaken.
    late = block.times < (latest - window) // NS * NS
    for place in np.flatnonzero(late)[:10].tolist():
        notes.too_late(int(block.lines[place]), int(behind[place]) / NS, window_s)
    notes.late += int(np.count_nonzero(late))
    return _taken(block, ~late), int(latest[-1])


def _sorted(blocks: list[Block]) -> Block:
    """Return one block of all, in the order of time, and of the file where times are equal."""
    joined = blocks[0]
    if len(blocks) > 1:
        joined = Block(
            np.concatenate([block.times for block in blocks]),
            np.concatenate([block.users for block in blocks]),
            np.concatenate([block.srvs for block in blocks]),
            np.concatenate([block.lines for block in blocks]),
        )
    if (joined.times[1:] >= joined.times[:-1]).all():
        return joined
    # Not by the position: what waited comes first in the block, but may come later in the file.
    return _taken(joined, np.lexsort((joined.lines, joined.times)))


def _split(block: Block, before: int) -> tuple[Block, Block]:
    """Return what is before a time, and the rest."""
    place = int(np.searchsorted(block.times, before, side="left"))
    return _taken(block, slice(None, place)), _taken(block, slice(place, None))


def _taken(block: Block, which: slice | np.ndarray[Any, Any]) -> Block:
    return Block(block.times[which], block.users[which], block.srvs[which], block.lines[which])


class _Seconds:
    """Cuts sorted requests into seconds and steps, and notes where the log began."""

    def __init__(self, notes: LogNotes, step_ns: int) -> None:
        self._notes = notes
        self._step_ns = step_ns
        self._fractions = False  # whether any time so far had one

    def of(self, block: Block) -> Iterator[TrafficSecond]:
        if not block.times.size:
            return
        seconds = block.times // NS
        inside = block.times - seconds * NS
        steps = inside // self._step_ns
        edges = [0, *(np.flatnonzero(seconds[1:] != seconds[:-1]) + 1).tolist(), seconds.size]
        start = self._notes.start
        if start is None:
            start = self._notes.start = int(seconds[0])
        for begin, end in pairwise(edges):
            part = slice(begin, end)
            if inside[end - 1]:  # sorted: the last is the largest
                self._fractions = True
            elif end - begin > 1 and not self._fractions:
                # All at once would look like a burst that nobody sent.
                steps[part] = np.arange(end - begin) * (NS // self._step_ns) // (end - begin)
                self._notes.whole_seconds += 1
            second = int(seconds[begin]) - start
            yield TrafficSecond(second, block.users[part], block.srvs[part], steps[part])
