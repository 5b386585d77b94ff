"""Times in a request log: ISO 8601 with an offset, or seconds, ms, us or ns since 1970; detected once.

A time is cut in two, whole seconds and the rest; each half is worked out once and then looked up, because the
next line mostly has the same second, and its fraction has been seen before. Where all times of a block are laid
out alike, their fractions are read at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from tmm_core.operations.traffic import Decisions, Ints
from tmm_core.policy.validation import shown

__all__ = ["FaultError", "TimeFormat"]

_NS = 1_000_000_000
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


class _Seconds(dict[str, int]):
    """The first half of a time to nanoseconds since 1970, still without its offset."""

    def __missing__(self, head: str) -> int:
        if len(head) == _EPOCH_LENGTH:
            if not (head.isascii() and head.isdigit()):
                raise FaultError("not digits")
            value = int(head) * _NS
        else:
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
            value = int(at.timestamp()) * _NS
        if len(self) >= _MOST_REMEMBERED:
            self.clear()
        self[head] = value
        return value


class _Rests(dict[str, int]):
    """The second half of a time to nanoseconds: its fraction, less its offset."""

    def __init__(self, digits: int | None, assume_utc: bool) -> None:
        self._digits, self._assume_utc = digits, assume_utc

    def __missing__(self, rest: str) -> int:
        value = self._iso(rest) if self._digits is None else self._epoch(rest, self._digits)
        if len(self) >= _MOST_REMEMBERED:
            self.clear()
        self[rest] = value
        return value

    def _iso(self, rest: str) -> int:
        found = _ISO_TAIL.fullmatch(rest)
        if found is None:
            raise FaultError(
                f"time must end in Z or an offset like +01:00, found {shown(rest)} after the seconds"
            )
        fraction, offset = found.groups()
        if offset is None and not self._assume_utc:
            raise FaultError("time has no offset, expected Z or one like +01:00 (--utc takes it as UTC)")
        return _fraction(fraction) - _offset_s(offset or "Z") * _NS

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
