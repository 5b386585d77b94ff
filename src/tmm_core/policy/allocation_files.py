"""Allocations in CSV: which file is in force on a day, and what it says, row by row."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from tmm_core.errors import Mistake
from tmm_core.policy import validation as check
from tmm_core.policy.tables import LARGEST_TABLE, Row, RowReader, likeness, row_of, table_of

__all__ = ["COLUMNS", "AllocationTable", "dated_files", "file_in_force", "first_day_of", "read_allocations"]

COLUMNS = ("user", "category", "user_ids", "allocation")
"""Header of an allocations file."""

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_GROUPED = re.compile(r"[0-9]{1,3}(?:[, ][0-9]{3})+(?:\.[0-9]+)?")


Place = tuple[int | None, int | None]
"""Line and column, both from 1, as far as they are known."""


@dataclass(slots=True)
class AllocationTable:
    """What an allocations file says, as far as it is sound.

    Attributes
    ----------
    data : bytes
        The file: asked again for the place of what only is wrong beside other files.
    allocations : dict of str to float
        Units per second by User.
    user_ids : dict of str to str
        EUI-64, in upper case, to User.
    categories : dict of str to str
    lines : dict of str to int
        The line of each User.
    """

    file: str
    data: bytes = field(default=b"", repr=False)
    allocations: dict[str, float] = field(default_factory=dict)
    user_ids: dict[str, str] = field(default_factory=dict)
    categories: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    _raw: list[bytes] = field(default_factory=list, repr=False)

    def place_above(self, total: float) -> Place:
        """Return the place of the allocation with which they add up to more than `total`."""
        so_far = 0.0
        for user, allocation in self.allocations.items():
            so_far += allocation
            if so_far > total:
                return self.place_of(user, "allocation")
        return None, None

    def place_of(self, user: str, column: str, user_id: str = "") -> Place:
        """Return line and column of a cell in a User's row, or of an identifier in that cell."""
        if not self._raw:
            self._raw = self.data.split(b"\n")
        number = self.lines[user]
        row = row_of(self._raw[number - 1], number, COLUMNS)
        return number, row.column(column, max(0, row.cells[column].upper().find(user_id)))


def first_day_of(path: Path) -> date | None:
    """Return the first day in force that a file is named by; None if it is not named by a day."""
    if not _DAY.fullmatch(path.stem):
        return None
    try:
        return date.fromisoformat(path.stem)
    except ValueError:
        return None


def dated_files(folder: Path, found: list[Mistake], *, suffix: str = ".csv") -> list[tuple[date, Path]]:
    """Return the files of a folder with their first day in force, oldest first.

    Files with another suffix are let alone, but one of this suffix whose name is no day is a mistake: a slip in
    the name would otherwise keep it out of force without a word.
    """
    dated = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != suffix or path.name.startswith((".", "~")):
            continue
        day = first_day_of(path)
        if day is not None:
            dated.append((day, path))
        else:
            fault = f"the name must be the first day in force, for example 2026-12-01{suffix}"
            found.append(Mistake(fault, file=str(path)))
    return sorted(dated)


def file_in_force(
    path: Path, on: date, found: list[Mistake], *, suffix: str = ".csv", what: str = "allocations"
) -> tuple[Path, date | None] | None:
    """Return the file that is in force on a day, and its first day; None if mistakes were `found`.

    A file is in force itself, whatever it is named; in a folder it is the last one that has begun, of those with the
    `suffix` (in lower case). `what` they hold is what the mistakes call it.
    """
    if not os.path.isdir(path):  # never an error, however odd the name
        return path, first_day_of(path)
    before = len(found)
    try:
        files = dated_files(path, found, suffix=suffix)
    except OSError as error:
        found.append(Mistake(f"cannot be read: {error.strerror or error}", file=str(path)))
        return None
    begun = [(day, file) for day, file in files if day <= on]
    if begun:
        day, file = begun[-1]
        return file, day
    if files:
        day, file = files[0]
        fault = f"no {what} in force on {on}: the first file, {file.name}, begins on {day}"
        found.append(Mistake(fault, file=str(path), field=what.replace(" ", "_")))
    elif len(found) == before:
        fault = f"no {what}: no file named by its first day in force, for example 2026-12-01{suffix}"
        found.append(Mistake(fault, file=str(path), field=what.replace(" ", "_")))
    return None


def read_allocations(data: bytes, file: str, found: list[Mistake]) -> AllocationTable:
    """Read the bytes of an allocations file; what is wrong goes to `found`, row by row."""
    table = AllocationTable(file, data)
    reader = _Reader(table, found)
    for row in table_of(data, COLUMNS, file, found, kind="an allocations file", largest=LARGEST_TABLE):
        user = reader.user(row)
        category = row.cells["category"]
        if category not in check.CATEGORIES:
            reader.wrong(check.category_fault(category), row, "category")
        reader.user_ids(row, user)
        allocation = reader.allocation(row)
        if user is not None:
            table.allocations[user] = allocation
            table.lines[user] = row.line
            if category in check.CATEGORIES:
                table.categories[user] = category
    return table


class _Reader(RowReader):
    """Reads the cells of one file and remembers what must not come twice."""

    def __init__(self, table: AllocationTable, found: list[Mistake]) -> None:
        super().__init__(table.file, found)
        self.table = table
        self.likenesses: dict[str, tuple[str, int]] = {}
        self.owners: dict[str, tuple[str, int]] = {}

    def user(self, row: Row) -> str | None:
        """Return the User's name, as the configuration writes it; None if it has none of its own."""
        text = row.cells["user"]
        fault = check.name_fault(text)
        if fault is not None:
            self.wrong(f"user: {fault}", row, "user")
            return None
        name = check.canonical_id(text)
        key = likeness(name)
        if key in self.likenesses:
            other, first = self.likenesses[key]
            like = "" if other == name else f", as {other!r}"
            self.wrong(f"User {name!r} is listed twice{like}, first in line {first}", row, "user")
            return None
        self.likenesses[key] = (name, row.line)
        return name

    def user_ids(self, row: Row, user: str | None) -> None:
        """Note the identifiers of a User, separated by spaces."""
        owner = user if user is not None else ""
        for text, begin in row.words("user_ids"):
            fault = check.user_id_fault(text)
            if fault is not None:
                self.wrong(f"user_ids: {fault}", row, "user_ids", begin)
                continue
            user_id = text.upper()
            if user_id in self.owners:
                other, first = self.owners[user_id]
                if first == row.line:
                    fault = f"user_ids: {user_id} is listed twice"
                else:
                    whose = f"{other!r}" if other else "the User"
                    fault = f"user_ids: {user_id} is owned by {whose} of line {first} already"
                self.wrong(fault, row, "user_ids", begin)
                continue
            self.owners[user_id] = (owner, row.line)
            if user is not None:
                self.table.user_ids[user_id] = user

    def allocation(self, row: Row) -> float:
        """Return an allocation, units per second; 0 after a mistake."""
        text = row.cells["allocation"]
        if _NUMBER.fullmatch(text):
            value = float(text)
            fault = check.allocation_fault(value)
        elif _NOT_FINITE.fullmatch(text):
            value = math.nan
            fault = f"allocation {text} must be a finite number, 0 or more"
        else:
            value = math.nan
            given = check.shown(text) if text else "is empty, it"
            hint = " (write it without separators of thousands)" if _GROUPED.fullmatch(text) else ""
            fault = f"allocation {given} must be a number, units per second{hint}"
        if fault is None:
            return value
        self.wrong(fault, row, "allocation")
        return 0.0
