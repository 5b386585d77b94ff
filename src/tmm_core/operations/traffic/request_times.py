"""The times of a request log: how they are written, and its Service Requests in the order of time.

They are ISO 8601 with an offset, or seconds, ms, us or ns since 1970; detected once. A time is cut in two, whole
seconds and the rest; each half is worked out once and then looked up, because the next line mostly has the same
second, and its fraction has been seen before. Where all times of a block are laid out alike, their fractions are
read at once.

Gateways with several workers write lines a little out of order. Lines wait until no line within the window
can come before them; one that is further behind than the window is counted, and left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tmm_core.errors import TMMError
from tmm_core.operations.traffic import Decisions, Ints, Srvs, Users
from tmm_core.operations.traffic.drive import NS, STEP_NS, TrafficSecond
from tmm_core.policy.validation import shown

if TYPE_CHECKING:
    from tmm_core.operations.traffic.request_log import LogNotes

_MOST_REMEMBERED = 200_000
_ISO_HEAD = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)", re.ASCII)
_ISO_TAIL = re.compile(r"(?:[.,](\d{1,9}))?(?: ?([Zz]|[+-]\d\d(?::?\d\d)?))?", re.ASCII)
_EPOCH = re.compile(r"\d{10}(?P<more>\d{3}|\d{6}|\d{9})?(?:\.(?P<fraction>\d{1,9}))?", re.ASCII)
# The digits of the second half that differ from line to line; a point inside them is left to the slower way.
_FRACTION = re.compile(r"[.,]?(\d+)(?!\.)(?![0-9])", re.ASCII)
_UNITS = {0: "seconds", 3: "milliseconds", 6: "microseconds", 9: "nanoseconds"}
_ISO_LENGTH, _EPOCH_LENGTH = 19, 10
_LATEST_YEAR = 2200  # nanoseconds since 1970 fill 64 bits in 2262


class FaultError(Exception):
    """What is wrong with a line; caught by who reads it."""


class _Halves(dict[str, int]):
    """Halves of times to nanoseconds, each worked out once."""

    def __missing__(self, half: str) -> int:
        value = self.nanoseconds(half)
        if len(self) >= _MOST_REMEMBERED:
            self.clear()
        self[half] = value
        return value

    def nanoseconds(self, half: str) -> int:
        raise NotImplementedError


class _Seconds(_Halves):
    """The first half of a time to nanoseconds since 1970, still without its offset."""

    def nanoseconds(self, head: str) -> int:
        if len(head) == _EPOCH_LENGTH:
            if not (head.isascii() and head.isdigit()):
                raise FaultError("not digits")
            return int(head) * NS
        found = _ISO_HEAD.fullmatch(head)
        if found is None:
            raise FaultError(f"time {shown(head)} must be like 2026-12-01T18:30:00.250Z")
        numbers = [int(group) for group in found.groups()]
        try:
            at = datetime(*numbers, tzinfo=UTC)  # type: ignore[misc, arg-type]
        except ValueError as error:
            raise FaultError(f"time {shown(head)}: {error}") from None
        if not 1970 <= at.year < _LATEST_YEAR:
            raise FaultError(f"time {shown(head)} must be from 1970 to {_LATEST_YEAR - 1}")
        return int(at.timestamp()) * NS


class _Rests(_Halves):
    """The second half of a time to nanoseconds: its fraction, less its offset."""

    def __init__(self, digits: int | None, assume_utc: bool) -> None:
        self._digits, self._assume_utc = digits, assume_utc

    def nanoseconds(self, rest: str) -> int:
        return self._iso(rest) if self._digits is None else self._epoch(rest, self._digits)

    def _iso(self, rest: str) -> int:
        found = _ISO_TAIL.fullmatch(rest)
        if found is None:
            raise FaultError(
                f"time must end in Z or an offset like +01:00, found {shown(rest)} after the seconds"
            )
        fraction, offset = found.groups()
        if offset is None and not self._assume_utc:
            raise FaultError("time has no offset, expected Z or one like +01:00 (--utc takes it as UTC)")
        return _fraction(fraction) - _offset_s(offset or "Z") * NS

    def _epoch(self, rest: str, digits: int) -> int:
        more, dot, fraction = rest[:digits], rest[digits : digits + 1], rest[digits + 1 :]
        fits = len(more) == digits and (more == "" or more.isdigit())
        if not rest.isascii() or not fits or (dot and (dot != "." or not fraction.isdigit())):
            raise FaultError(f"not {_UNITS[digits]}")
        return int((more + fraction + "000000000")[:9])


class TimeFormat:
    """The format of the times of one log, taken from the first time that can be read.

    Parameters
    ----------
    assume_utc : bool
        A time without an offset is UTC, not a fault.

    Attributes
    ----------
    name : str
        For people; empty before the first time.
    cut : int
        Characters of the first half.
    seconds, rests : mapping of str to int
        From each half to nanoseconds: their sum is the time. What is no half of a time raises `FaultError`.

    Examples
    --------
    >>> times = TimeFormat()
    >>> times.read("2026-12-01T00:00:00.250+01:00"), times.name
    (1796079600250000000, 'ISO 8601')
    """

    def __init__(self, assume_utc: bool = False) -> None:
        self._assume_utc = assume_utc
        self.name = ""
        self.cut = 0
        self.seconds: dict[str, int] = _Seconds()
        self.rests: dict[str, int] = {}

    def detect(self, text: str) -> None:
        """Take the format from a time, unless it is known.

        Raises
        ------
        FaultError
            It is in none of the formats.
        """
        if self.name:
            return
        epoch = _EPOCH.fullmatch(text)
        if epoch is not None:
            digits = len(epoch["more"] or "")
            self.name, self.cut = f"{_UNITS[digits]} since 1970", _EPOCH_LENGTH
            self.rests = _Rests(digits, False)
        elif _ISO_HEAD.match(text):
            rests = _Rests(None, self._assume_utc)
            self.seconds[text[:_ISO_LENGTH]] + rests[text[_ISO_LENGTH:]]  # raises before anything is settled
            self.name, self.cut, self.rests = "ISO 8601", _ISO_LENGTH, rests
        else:
            raise FaultError(
                f"time {shown(text)} must be ISO 8601 with an offset (2026-12-01T18:30:00.250Z), or seconds "
                "or milliseconds since 1970"
            )

    def read(self, text: str) -> int:
        """Return nanoseconds since 1970.

        Raises
        ------
        FaultError
            It is not a time, or in another format than the first one.
        """
        self.detect(text)
        if self.cut == _EPOCH_LENGTH:
            try:
                return self.seconds[text[: self.cut]] + self.rests[text[self.cut :]]
            except FaultError:
                fault = f"time {shown(text)} must be {self.name}, like the first one of the file"
                raise FaultError(fault) from None
        if len(text) < self.cut:
            raise FaultError(f"time {shown(text)} must be like 2026-12-01T18:30:00.250Z")
        return self.seconds[text[: self.cut]] + self.rests[text[self.cut :]]

    def read_many(self, texts: Sequence[str]) -> Ints:
        """Return the times of many texts; raises `FaultError` at the first that is none."""
        self.detect(texts[0])
        cut, seconds, rests = self.cut, self.seconds, self.rests
        return np.fromiter([seconds[text[:cut]] + rests[text[cut:]] for text in texts], np.int64, len(texts))

    def read_alike(
        self,
        codes: Decisions,
        starts: Ints,
        ends: Ints,
        first: str,
    ) -> Ints | None:
        """Return the times from `starts` to `ends` in a text, if all are laid out like the first; None if not.

        Parameters
        ----------
        codes : ndarray of uint8
            The whole text.
        starts, ends : ndarray of int64, shape (n,)
        first : str
            The first of the times.

        Raises
        ------
        FaultError
            The first is no time, or the whole seconds of another one are none.
        """
        self.detect(first)
        cut, length = self.cut, len(first)
        if length < cut or (ends - starts != length).any():
            return None
        table = np.lib.stride_tricks.sliding_window_view(codes, length)[starts]
        base = self.rests[first[cut:]]
        tail = np.frombuffer(first[cut:].encode("ascii", "replace"), dtype=np.uint8)
        fraction = _FRACTION.match(first[cut:])
        begin, end = fraction.span(1) if fraction is not None else (0, 0)
        fixed = np.ones(tail.size, dtype=bool)
        fixed[begin:end] = False
        digits = table[:, cut + begin : cut + end] - np.uint8(ord("0"))  # wraps round below "0"
        if (table[:, cut:][:, fixed] != tail[fixed]).any() or (digits > 9).any():
            return None
        powers = 10 ** np.arange(8, 8 - (end - begin), -1, dtype=np.int64)
        changes = np.flatnonzero((table[1:, :cut] != table[:-1, :cut]).any(axis=1)) + 1
        begins = np.concatenate([[0], changes])
        heads = [self.seconds[table[row, :cut].tobytes().decode("latin-1")] for row in begins.tolist()]
        seconds = np.repeat(np.array(heads, dtype=np.int64), np.diff(begins, append=len(table)))
        fractions = digits.astype(np.int64) @ powers
        times: Ints = seconds + fractions + (base - int(fractions[0]))
        return times


def _fraction(digits: str | None) -> int:
    return int((digits or "").ljust(9, "0"))


def _offset_s(text: str) -> int:
    if text in "Zz":
        return 0
    hours, minutes = int(text[1:3]), int(text[-2:]) if len(text) > 3 else 0
    if hours > 23 or minutes > 59:
        raise FaultError(f"offset {text} must be below 24 h")
    seconds = hours * 3600 + minutes * 60
    return -seconds if text[0] == "-" else seconds


class Block(NamedTuple):
    """Service Requests in the order of the file.

    Attributes
    ----------
    times : ndarray of int64, shape (n,)
        Nanoseconds since 1970.
    users : ndarray of uint32, shape (n,)
    srvs : ndarray of uint16, shape (n,)
    lines : ndarray of int64, shape (n,)
    """

    times: Ints
    users: Users
    srvs: Srvs
    lines: Ints


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
    seconds = _BySecond(notes, step_ns)
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
        joined = Block._make(map(np.concatenate, zip(*blocks, strict=True)))
    if (joined.times[1:] >= joined.times[:-1]).all():
        return joined
    # Not by the position: what waited comes first in the block, but may come later in the file.
    return _taken(joined, np.lexsort((joined.lines, joined.times)))


def _split(block: Block, before: int) -> tuple[Block, Block]:
    """Return what is before a time, and the rest."""
    place = int(np.searchsorted(block.times, before, side="left"))
    return _taken(block, slice(None, place)), _taken(block, slice(place, None))


def _taken(block: Block, which: slice | np.ndarray[Any, Any]) -> Block:
    return Block._make(each[which] for each in block)


class _BySecond:
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
