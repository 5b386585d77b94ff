"""Files as strict text and strict tables: nothing is guessed, and every mistake is told with its place.

A record is a line: no cell holds a line break, so that a line number means the same to the reader, to the
editor and to whoever is rung up at night. Mistakes are appended to a list, and reading goes on.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import NamedTuple

from tmm_core.errors import ConfigError, Mistake

__all__ = [
    "LARGEST_TABLE", "MOST_MISTAKES", "Row", "RowReader", "begins_of", "likeness", "lines_of", "read_file", "row_of",
    "table_of",
]  # fmt: skip

LARGEST_TABLE = 64 << 20
"""Bytes of a table; a million Users take about 60 MB."""

MOST_MISTAKES = 1000
"""Mistakes told of one file: it is then not the file that was meant."""

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Row(NamedTuple):
    """Line, from 1, the cells by the name of their column, and where their texts begin if any is quoted."""

    line: int
    cells: Mapping[str, str]
    begins: Sequence[int] | None

    def column(self, name: str, at: int = 0) -> int:
        """Return the column in its line, from 1, of a cell's character `at`."""
        place = list(self.cells).index(name)
        if self.begins is not None:
            return self.begins[place] + at
        # Only a mistake asks: to keep it for every cell would take longer than to read them.
        return 1 + at + sum(len(text) + 1 for text in list(self.cells.values())[:place])

    def words(self, name: str) -> Iterator[tuple[str, int]]:
        """Yield the words of a cell, which spaces separate, and how far into it each begins."""
        begin = 0
        for word in self.cells[name].split(" "):
            if word:
                yield word, begin
            begin += len(word) + 1


class RowReader:
    """Reads the rows of one file about Users; mistakes go to `found`."""

    def __init__(self, file: str, found: list[Mistake]) -> None:
        self.file = file
        self.found = found

    def wrong(self, fault: str, row: Row, field: str, at: int = 0) -> None:
        """Note a mistake in a cell, so many characters into it."""
        column = row.column(field, at)
        self.found.append(Mistake(fault, file=self.file, line=row.line, column=column, field=field))


def likeness(name: str) -> str:
    """Return what is the same of names that a reader cannot tell apart: they would be two Users by accident."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def read_file(path: str | PathLike[str], largest: int) -> bytes:
    """Return the bytes of a file, at most one more than `largest`.

    ConfigError if it cannot be read, or is no file (a folder, a device).
    """
    name = os.fspath(path)
    try:
        kind = os.stat(name).st_mode
        if stat.S_ISDIR(kind):
            raise ConfigError(Mistake("is a folder, expected a file", file=name))
        if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
            raise ConfigError(Mistake("is a device or socket, expected a file", file=name))
        with open(name, "rb") as file:
            return file.read(largest + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        if isinstance(error, ConfigError):
            raise
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(Mistake(f"cannot be read: {reason or error}", file=name)) from None


def lines_of(data: bytes, file: str, found: list[Mistake]) -> list[str] | None:
    """Decode a file of UTF-8, with or without byte order mark; lines end with LF or CRLF.

    Returns the lines, with U+FFFD for what cannot be read; None if nothing can.
    """
    if data.startswith(_UTF16):
        found.append(Mistake("encoded in UTF-16, expected UTF-8", file=file, line=1, column=1))
        return None
    text = _sound(data)
    if text is not None:
        return text
    begin = len(found)
    lines = []
    for number, raw in enumerate(data.removeprefix(_BOM).split(b"\n"), start=1):
        if len(found) - begin >= MOST_MISTAKES:
            found.append(_no_more(file, number))
            return None
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            column = len(raw[: error.start].decode("utf-8")) + 1
            fault = f"byte 0x{raw[error.start]:02x} is not UTF-8"
            found.append(Mistake(fault, file=file, line=number, column=column))
            line = raw.decode("utf-8", "replace")
        if "\0" in line:
            column = line.index("\0") + 1
            found.append(Mistake("a NUL byte, expected text", file=file, line=number, column=column))
            line = line.replace("\0", "\ufffd")
        lines.append(line.removesuffix("\r"))
    if lines[-1] == "":  # after the line break of the last line
        lines.pop()
    return lines


def _sound(data: bytes) -> list[str] | None:
    """Return the lines of a file of UTF-8 without a fault; None of any other."""
    try:
        text = data.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    lines = text.split("\n")
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
    if lines[-1] == "":  # after the line break of the last line
        lines.pop()
    return lines


def table_of(
    data: bytes,
    columns: Sequence[str],
    file: str,
    found: list[Mistake],
    *,
    kind: str,
    entry: str = "User",
    largest: int = LARGEST_TABLE,
) -> Iterator[Row]:
    """Yield the sound rows of a CSV file (RFC 4180, but no line break in a cell).

    Its header is `columns`, word for word. Mistakes go to `found`, also those the caller finds in a row; reading ends
    when there are too many. `kind` and `entry` are what the file and a row of it stand for, in the singular;
    `largest` are the bytes it may have.
    """
    if len(data) > largest:
        fault = f"more than {largest >> 20} MiB, expected {kind}"
        found.append(Mistake(fault, file=file))
        return
    begin = len(found)
    lines = lines_of(data, file, found)
    if lines is None:
        return
    if not lines:
        fault = f"the file is empty, expected the header {','.join(columns)}"
        found.append(Mistake(fault, file=file, line=1, column=1))
        return
    wrong = _header_fault(lines[0], columns, file)
    if wrong is not None:
        found.append(wrong)
        return
    if len(lines) == 1:
        fault = f"no {entry}s after the header, expected at least one"
        found.append(Mistake(fault, file=file, line=1, column=1))
    for number, line in enumerate(lines[1:], start=2):
        if len(found) - begin >= MOST_MISTAKES:
            found.append(_no_more(file, number))
            return
        texts = line.split(",")
        if len(texts) == len(columns) and '"' not in line:
            yield Row(number, dict(zip(columns, texts, strict=True)), None)
            continue
        cells = _cells(line, number, len(columns), file, entry)
        if isinstance(cells, Mistake):
            found.append(cells)
        else:
            texts, begins = cells
            yield Row(number, dict(zip(columns, texts, strict=True)), begins)


def begins_of(line: str, delimiter: str) -> list[int]:
    """Return the columns, from 1, of the cells of a line of CSV as others write it, to the first that is not sound.

    It need not keep the rules of `table_of`: a quotation mark may stand inside a cell that begins with none.
    """
    cell = re.compile(rf'(?:"(?:[^"]|"")*"|(?!")[^\r{delimiter}]*)(?:{delimiter}|$)')
    begins, at = [1], 0
    while (found := cell.match(line, at)) is not None and found.end() > at and found[0].endswith(delimiter):
        at = found.end()
        begins.append(at + 1)
    return begins


def row_of(raw: bytes, number: int, columns: Sequence[str]) -> Row:
    """Return once more a row that `table_of` has yielded, from the bytes of its line: a mistake asks for its place."""
    line = raw.decode("utf-8", "replace").removesuffix("\r")
    cells = _cells(line, number, len(columns), "", "")
    assert not isinstance(cells, Mistake), "it was sound before"
    texts, begins = cells
    return Row(number, dict(zip(columns, texts, strict=True)), begins)


def _no_more(file: str, line: int) -> Mistake:
    return Mistake(f"{MOST_MISTAKES} mistakes so far: not read any further", file=file, line=line, column=1)


def _header_fault(line: str, columns: Sequence[str], file: str) -> Mistake | None:
    if line == ",".join(columns):
        return None
    names = line.split(",")
    if len(names) == 1 and (";" in line or "\t" in line):
        separator = "semicolons" if ";" in line else "tabs"
        fault = f"the columns are separated by {separator}, expected commas"
        return Mistake(fault, file=file, line=1, column=1)
    column = 1
    for index in range(max(len(names), len(columns))):
        given = names[index] if index < len(names) else None
        name = columns[index] if index < len(columns) else None
        if given != name:
            fault = (
                f"the header has {'nothing' if given is None else repr(given[:60])}, expected "
                f"{'nothing' if name is None else repr(name)} (the header is {','.join(columns)})"
            )
            return Mistake(fault, file=file, line=1, column=column, field=name)
        column += len(name or "") + 1
    return None


_Cells = tuple[list[str], list[int] | None]
"""Texts of a line, and where they begin, behind their quotation mark, if any has one."""


def _cells(line: str, number: int, expected: int, file: str, entry: str) -> _Cells | Mistake:
    """Split one line; the mistake if it has no sound cells."""
    if not line:
        return Mistake(f"an empty line, expected a {entry}", file=file, line=number, column=1)
    cells = _quoted(line, number, file) if '"' in line else (line.split(","), None)
    if isinstance(cells, Mistake):
        return cells
    texts, begins = cells
    if len(texts) == expected:
        return cells
    hint = " (separated by semicolons: expected commas)" if len(texts) == 1 and ";" in line else ""
    plural = "cell" if len(texts) == 1 else "cells"
    fault = f"{len(texts)} {plural}, expected {expected}{hint}"
    column = line.rfind(",") + 2 if begins is None else begins[-1]
    return Mistake(fault, file=file, line=number, column=column)


def _quoted(line: str, number: int, file: str) -> _Cells | Mistake:
    texts: list[str] = []
    begins: list[int] = []
    at = 0
    while True:
        start = at
        begins.append(at + 1)
        if line.startswith('"', at):
            begins[-1] += 1
            parts = []
            while True:
                end = line.find('"', at + 1)
                if end < 0:
                    fault = "a quotation mark is not closed in its line"
                    return Mistake(fault, file=file, line=number, column=start + 1)
                parts.append(line[at + 1 : end])
                at = end + 1
                if not line.startswith('"', at):
                    break
            if at < len(line) and line[at] != ",":
                fault = f"{line[at]!r} after a closing quotation mark, expected a comma"
                return Mistake(fault, file=file, line=number, column=at + 1)
            texts.append('"'.join(parts))
        else:
            end = line.find(",", at)
            at = len(line) if end < 0 else end
            quote = line.find('"', start, at)
            if quote >= 0:
                fault = "a quotation mark inside a cell that does not begin with one"
                return Mistake(fault, file=file, line=number, column=quote + 1)
            texts.append(line[start:at])
        if at == len(line):
            return texts, begins
        at += 1
