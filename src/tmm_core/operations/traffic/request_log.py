"""A gateway's request log: CSV with the time, the User and the SRV of each Service Request, read as a stream.

Memory does not grow with the file. A line that cannot be read is counted, its number and fault are kept (the
first few), and the next one is read: nothing is dropped silently. Whole blocks of lines are read at a time;
where one has a fault, it is halved until the lines with faults stand alone.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, cast

import numpy as np

from tmm_core.errors import TMMError
from tmm_core.operations.traffic import Ints
from tmm_core.operations.traffic.request_times import Block, FaultError, TimeFormat
from tmm_core.policy.tables import begins_of
from tmm_core.policy.validation import shown

_BLOCK = 1 << 20  # bytes read at a time
_LONGEST_LINE = 1 << 16  # bytes
_MOST_NAMES = 100_000  # names remembered with their slot; more are looked up each time
_MOST_EXAMPLES = 10
_NEWLINE = 10
_BEFORE = np.array([-1])  # where the newline before the first line would be
_SINGLY = 16  # lines: a block of so many with a fault is read line by line

_NAMES = {
    "time": (
        "time", "timestamp", "at", "ts", "datetime", "date_time", "received", "received_at", "request_time",
        "@timestamp",
    ),
    "user id": (
        "user", "user_id", "userid", "service_user", "service_user_id", "originator", "originator_id",
        "business_originator_id", "eui64", "eui_64",
    ),
    "SRV": ("srv", "srv_code", "service_reference_variant", "servicereferencevariant"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was not decided on, and why; `column`, from 1, where a cell of it is at fault."""

    line: int
    fault: str
    column: int | None = None

    def __str__(self) -> str:
        column = "" if self.column is None else f", column {self.column}"
        return f"line {self.line}{column}: {self.fault}"


@dataclass(slots=True)
class LogNotes:
    """What was noticed on the way.

    Attributes
    ----------
    start : int or None
        The first second of the log, seconds since 1970; None before there is one.
    lines : int
        Read so far, header and blank lines included.
    bad, blank : int
        Lines that could not be read; lines without anything.
    time_format : str
        As detected; empty before the first line with a time.
    unknown_users, unknown_srvs : list of str
        The first few names that no User has, and that are not in the catalogue.
    out_of_order : int
        Lines with a time before that of an earlier line.
    furthest_behind_s : float
        The most that one of them was behind, seconds.
    late : int
        Lines further behind than the window: not decided on.
    whole_seconds : int
        Seconds whose Service Requests all bore the whole second, and were spread over it evenly.
    """

    start: int | None = None
    lines: int = 0
    bad: int = 0
    blank: int = 0
    first_bad: list[BadLine] = field(default_factory=list)
    time_format: str = ""
    unknown_users: list[str] = field(default_factory=list)
    unknown_srvs: list[str] = field(default_factory=list)
    out_of_order: int = 0
    furthest_behind_s: float = 0.0
    late: int = 0
    first_late: list[BadLine] = field(default_factory=list)
    whole_seconds: int = 0

    def refuse(self, line: int, fault: str, column: int) -> None:
        """Count a line that cannot be read."""
        self.bad += 1
        if len(self.first_bad) < _MOST_EXAMPLES:
            self.first_bad.append(BadLine(line, fault, column))

    def too_late(self, line: int, behind_s: float, window_s: float) -> None:
        """Keep a line beyond the window as an example; `late` is counted by who calls."""
        if len(self.first_late) < _MOST_EXAMPLES:
            fault = f"{behind_s:.3f} s behind an earlier line, more than the window of {window_s:g} s"
            self.first_late.append(BadLine(line, fault))


class _LineFaultError(Exception):
    """What is wrong with a line, and its column there."""

    def __init__(self, fault: str, column: int) -> None:
        super().__init__(fault)
        self.column = column


class _Slots(dict[str, int]):
    """Names as they are written to slots, looked up once; bounded."""

    def __init__(self, what: str, slot_of: Callable[[str], int], unknown: list[str]) -> None:
        self._what, self._slot_of, self._unknown = what, slot_of, unknown

    def __missing__(self, text: str) -> int:
        name = text.strip()
        if not name:
            raise FaultError(f"{self._what} is empty")
        slot = self._slot_of(name)
        if slot == 0 and len(self._unknown) < _MOST_EXAMPLES and name not in self._unknown:
            self._unknown.append(name)
        if len(self) < _MOST_NAMES:
            self[text] = slot
        return slot


class RequestLog:
    """Reads ``time,user_id,srv`` from a CSV or CSV.gz file or standard input; a context manager. *Not thread-safe.*

    Parameters
    ----------
    source : Path or None
        None is standard input. Gzip is recognised by its first bytes.
    time_column, user_column, srv_column : str, optional
        Names in the header, where they are none of the usual ones.
    assume_utc : bool
        Take a time without an offset as UTC; it is a fault otherwise.

    Raises
    ------
    TMMError
        There is no header, or it does not name each of the three columns once.
    OSError
        The file cannot be read.
    """

    def __init__(
        self,
        source: Path | None,
        *,
        time_column: str | None = None,
        user_column: str | None = None,
        srv_column: str | None = None,
        assume_utc: bool = False,
    ) -> None:
        self.name = "standard input" if source is None else str(source)
        self.notes = LogNotes()
        self._times = TimeFormat(assume_utc)
        self._raw = cast(io.BufferedReader, sys.stdin.buffer) if source is None else source.open("rb")
        self._file: Any = self._raw
        self._own = source is not None
        self.size: int | None = None
        try:
            if source is not None:
                found = os.fstat(self._raw.fileno())
                # A pipe or a device does not say how much is to come.
                self.size = found.st_size or None
            zipped = self._raw.peek(2)[:2] == b"\x1f\x8b"
            self._file = gzip.GzipFile(fileobj=self._raw) if zipped else self._raw
            self._batches = self._line_batches()
            self._first = next(self._batches, None)
            self._read_header((time_column, user_column, srv_column))
        except BaseException:
            self.close()
            raise

    def done(self) -> float:
        """Return how many bytes of the file have been read; of standard input, how many lines."""
        return self._raw.tell() if self.size is not None else self.notes.lines

    def blocks(self, slot_of: Callable[[str], int], number_of: Callable[[str], int]) -> Iterator[Block]:
        """Read the file; once.

        Parameters
        ----------
        slot_of, number_of : callable
            `Mechanism.user` and `Mechanism.srv`.

        Raises
        ------
        TMMError
            A compressed file is damaged or ends early.
        """
        self._users = _Slots("user id", slot_of, self.notes.unknown_users)
        self._srvs = _Slots("SRV", number_of, self.notes.unknown_srvs)
        batch, self._first = self._first, None
        while batch is not None:
            first, data = batch
            self.notes.lines = first + data.count(b"\n")
            yield from self._parsed(data, first)
            self.notes.time_format = self._times.name
            batch = next(self._batches, None)

    def close(self) -> None:
        """Close the file; harmless when repeated. Standard input stays open."""
        if self._own:
            self._raw.close()

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside

    def _line_batches(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number of the first line, and whole lines; of a line that is too long the beginning, alone."""
        number, rest, skipping = 1, b"", False
        while block := self._read(number):
            if skipping:
                end = block.find(b"\n")
                if end < 0:
                    continue
                block, skipping, number = block[end + 1 :], False, number + 1
            end = block.rfind(b"\n")
            if end >= 0:
                data, rest = rest + block[:end], block[end + 1 :]
                yield number, data
                number += data.count(b"\n") + 1
            else:
                rest += block
            if len(rest) > _LONGEST_LINE:
                yield number, rest[: _LONGEST_LINE + 1]
                rest, skipping = b"", True
        if rest:
            yield number, rest

    def _read(self, number: int) -> bytes:
        try:
            block: bytes = self._file.read(_BLOCK)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            fault = f"the compressed file is damaged or ends early, after line {number - 1} or later: {error}"
            raise TMMError(f"{self.name}: {fault}") from error
        return block

    def _read_header(self, named: tuple[str | None, ...]) -> None:
        if self._first is None:
            raise TMMError(f"{self.name}:1:1: the file is empty, expected a header like time,user_id,srv")
        first, data = self._first
        line, newline, rest = data.partition(b"\n")
        line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            text = line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            column = len(line[: error.start].decode("utf-8")) + 1
            raise TMMError(f"{self.name}:1:{column}: the header is not UTF-8: {error}") from None
        if "\0" in text:
            column = text.index("\0") + 1
            raise TMMError(f"{self.name}:1:{column}: the file is not UTF-8 text (UTF-16?)")
        self._delimiter = next((mark for mark in ",;\t" if mark in text), ",")
        if "\r" in text:
            column = text.index("\r") + 1
            raise TMMError(f"{self.name}:1:{column}: a line end of CR alone, expected LF or CRLF")
        try:
            header = [cell.strip() for cell in next(csv.reader([text], delimiter=self._delimiter), [])]
        except csv.Error as error:
            raise TMMError(f"{self.name}:1:1: the header is not CSV: {error}") from None
        self._width = len(header)
        begins = begins_of(text, self._delimiter)
        places = [_column(self.name, header, begins, *each) for each in zip(_NAMES, named, strict=True)]
        self._time_at, self._user_at, self._srv_at = places
        if newline:
            self._first = (first + 1, rest)
        else:
            self._first = next(self._batches, None)

    def _parsed(self, data: bytes, first: int) -> Iterator[Block]:
        """Parse lines."""
        numbers = np.arange(first, first + data.count(b"\n") + 1)
        try:
            yield self._block(data, numbers)
        except (FaultError, UnicodeDecodeError, csv.Error):
            # Blank lines are no fault, and without them there may be none.
            lines = data.split(b"\n")
            full = np.fromiter(map(bool, map(bytes.strip, lines)), bool, len(lines))
            lines = list(compress(lines, full))
            self.notes.blank += full.size - len(lines)
            yield from self._halved(lines, numbers[full])

    def _halved(self, lines: list[bytes], numbers: Ints) -> Iterator[Block]:
        """Parse lines that are not blank; halve what has a fault, until the faults stand alone."""
        if len(lines) > _SINGLY:
            try:
                yield self._block(b"\n".join(lines), numbers)
            except (FaultError, UnicodeDecodeError, csv.Error):
                middle = len(lines) // 2
                yield from self._halved(lines[:middle], numbers[:middle])
                yield from self._halved(lines[middle:], numbers[middle:])
            return
        good: list[tuple[int, int, int, int]] = []
        for number, line in zip(numbers.tolist(), lines, strict=True):
            try:
                good.append((*self._line(line), number))
            except _LineFaultError as fault:
                self.notes.refuse(number, str(fault), fault.column)
        if good:
            times, users, srvs, kept = zip(*good, strict=True)
            yield Block(
                np.array(times, dtype=np.int64),
                np.array(users, dtype=np.uint32),
                np.array(srvs, dtype=np.uint16),
                np.array(kept, dtype=np.int64),
            )

    def _block(self, data: bytes, numbers: Ints) -> Block:
        """Parse lines that have no fault; raises at the first that has, or that takes more care."""
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").removesuffix(b"\r")
        # Every line must have its delimiters where the header has them: only then is each cell in its column.
        codes = np.frombuffer(data + b"\n", dtype=np.uint8)
        marks = np.flatnonzero((codes == ord(self._delimiter)) | (codes == _NEWLINE))
        width, n = self._width, marks.size // self._width
        if b'"' in data or marks.size != n * width:
            raise FaultError("quoted, or another number of fields")
        ends = marks.reshape(n, width)
        if (codes[ends[:, -1]] != _NEWLINE).any() or (codes[ends[:, :-1]] == _NEWLINE).any():
            raise FaultError("another number of fields")
        if np.diff(ends[:, -1], prepend=-1).max() > _LONGEST_LINE:
            raise FaultError("a line is too long")
        cells = data.decode("utf-8").replace("\n", self._delimiter).split(self._delimiter)
        at = self._time_at
        texts = cells[at::width]
        starts = (ends[:, at - 1] if at else np.concatenate([_BEFORE, ends[:-1, -1]])) + 1
        times = self._times.read_alike(codes, starts, ends[:, at], texts[0])
        if times is None:
            times = self._times.read_many(texts)
        return Block(
            times,
            np.fromiter(map(self._users.__getitem__, cells[self._user_at :: width]), np.uint32, n),
            np.fromiter(map(self._srvs.__getitem__, cells[self._srv_at :: width]), np.uint16, n),
            numbers,
        )

    def _line(self, line: bytes) -> tuple[int, int, int]:
        """Parse one line, and say what is wrong with it."""
        if len(line) > _LONGEST_LINE:
            raise _LineFaultError(f"longer than {_LONGEST_LINE:,} bytes", 1)
        try:
            text = line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            column = len(line[: error.start].decode("utf-8")) + 1
            raise _LineFaultError(f"not UTF-8: byte {line[error.start]:#04x}", column) from None
        try:
            fields = next(csv.reader([text], delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            raise _LineFaultError(f"not CSV: {error}", begins_of(text, self._delimiter)[-1]) from None
        if len(fields) != self._width:
            fault = f"number of fields {len(fields)}, expected {self._width} as in the header"
            begins = begins_of(text, self._delimiter)
            raise _LineFaultError(fault, begins[self._width] if len(fields) > self._width else len(text) + 1)
        at = self._time_at
        try:
            time = self._times.read(fields[at].strip())
            at = self._user_at
            user = self._users[fields[at]]
            at = self._srv_at
            return time, user, self._srvs[fields[at]]
        except FaultError as fault_of_cell:
            column = begins_of(text, self._delimiter)[at]
            raise _LineFaultError(str(fault_of_cell), column) from None


def _column(file: str, header: Sequence[str], begins: Sequence[int], what: str, name: str | None) -> int:
    """Return where a column is."""
    expected = (name,) if name is not None else _NAMES[what]

    def plain(text: str) -> str:
        return text.casefold().replace(" ", "_").replace("-", "_")

    wanted = {plain(each) for each in expected}
    found = [place for place, cell in enumerate(header) if plain(cell) in wanted]
    if len(found) == 1:
        return found[0]
    option = f"--{what.split()[0].lower()}-column"
    if found:
        several = " and ".join(shown(header[place]) for place in found)
        place = f"{file}:1:{begins[found[1]]}"
        raise TMMError(f"{place}: several columns for the {what}: {several}: name one ({option})")
    columns = ", ".join(shown(cell) for cell in header[:20])
    hint = "" if name is not None else f", or name it ({option})"
    raise TMMError(
        f"{file}:1:1: no column for the {what} among {columns}: expected {' or '.join(expected[:4])}{hint}"
    )
