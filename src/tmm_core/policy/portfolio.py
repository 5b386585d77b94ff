"""The portfolio: the monthly inputs of the allocation formula, one row per User, from a strict CSV file.

Nothing is guessed: a file with any mistake is refused whole, with every mistake and its place.
"""

from __future__ import annotations

import re
import unicodedata
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from pathlib import Path

from tmm_core.errors import ConfigError, Mistake
from tmm_core.policy.tables import Row, RowReader, likeness, read_file, table_of
from tmm_core.policy.validation import CATEGORIES, shown

__all__ = ["CATEGORIES", "COLUMNS", "METER_KINDS", "Portfolio", "UserPortfolio"]

METER_KINDS = (
    "electricity_credit",
    "electricity_prepayment",
    "gas_credit",
    "gas_prepayment",
    "other_devices",
)
"""Columns that count smart meters and other Devices."""

COLUMNS = ("user", "category", "user_ids", *METER_KINDS, "forecast", "actual")
"""Header of the portfolio CSV."""

MOST_DEVICES = 1_000_000_000
"""Full roll-out in Great Britain is about 60 million meters: a count above this is a slip."""

MOST_REQUESTS = 1_000_000_000_000
"""Service Requests a month; 12.1 billion messages went over the whole system in the year 2022."""

LONGEST_NAME = 100
LARGEST_FILE = 64 << 20

_EUI_64 = re.compile(r"[0-9A-F]{2}(-[0-9A-F]{2}){7}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 '&().]{0,20}[A-Za-z0-9.)])?")
"""Names that have nothing wrong: all ASCII, and too short for an EUI-64."""
_LONGEST_COUNT = 15  # digits
_LONGEST_ROW = _LONGEST_COUNT * len(METER_KINDS)
_TEXTS = itemgetter(*METER_KINDS)
_COUNTS = attrgetter(*METER_KINDS)
_MONTH = re.compile(r"(2[0-9]{3})-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class UserPortfolio:
    """What one User operates and expects in a month.

    Attributes
    ----------
    electricity_credit, electricity_prepayment, gas_credit, gas_prepayment : int
        Smart meters by fuel and payment mode.
    other_devices : int
        Other Devices.
    forecast : int or None
        Service Requests the User forecasts for the month.
    actual : int or None
        Service Requests the User sent in the month before.
    """

    user: str
    category: str
    user_ids: tuple[str, ...] = ()
    electricity_credit: int = 0
    electricity_prepayment: int = 0
    gas_credit: int = 0
    gas_prepayment: int = 0
    other_devices: int = 0
    forecast: int | None = None
    actual: int | None = None


@dataclass(frozen=True, slots=True)
class Portfolio:
    """The portfolios of all Users in one month, as ``2026-12``."""

    month: str
    users: tuple[UserPortfolio, ...]

    def __post_init__(self) -> None:
        mistakes = []
        if not _MONTH.fullmatch(self.month):
            mistakes.append(Mistake(f"month {self.month!r}, expected a form like 2026-12", field="month"))
        if not self.users:
            mistakes.append(Mistake("no Users, expected at least one", field="user"))
        names: set[str] = set()
        for row in self.users:
            if row.user in names:
                mistakes.append(Mistake(f"User {row.user!r} is listed twice", field="user"))
            names.add(row.user)
            if row.category not in CATEGORIES:
                mistakes.append(Mistake(f"User {row.user!r}: {_wrong_category(row.category)}"))
            for kind, count in zip(METER_KINDS, _COUNTS(row), strict=True):
                if type(count) is not int or not 0 <= count <= MOST_DEVICES:
                    mistakes.append(
                        Mistake(f"User {row.user!r}: {kind} {count!r}, expected an int of 0 or more")
                    )
            for kind, count in (("forecast", row.forecast), ("actual", row.actual)):
                if count is not None and (type(count) is not int or not 0 <= count <= MOST_REQUESTS):
                    mistakes.append(Mistake(f"User {row.user!r}: {kind} {count!r}, expected an int or None"))
        if mistakes:
            raise ConfigError(mistakes)

    @property
    def days(self) -> int:
        """Days of the month."""
        return monthrange(int(self.month[:4]), int(self.month[5:]))[1]

    @property
    def days_of_previous_month(self) -> int:
        """Days of the month before, to which ``UserPortfolio.actual`` refers."""
        year, month = int(self.month[:4]), int(self.month[5:])
        return monthrange(year - 1, 12)[1] if month == 1 else monthrange(year, month - 1)[1]

    @classmethod
    def load(cls, path: str | Path, month: str | None = None) -> Portfolio:
        """Read a portfolio file; the month is that of the file's name (``2026-12.csv``) if not given.

        Raises
        ------
        ConfigError
            With every mistake of the file.
        """
        return cls.read(read_file(path, LARGEST_FILE), month or Path(path).stem, file=str(path))

    @classmethod
    def read(cls, data: bytes, month: str, *, file: str = "portfolio.csv") -> Portfolio:
        """Read the bytes of a portfolio file; see `load`."""
        reader = _Reader(file)
        if not _MONTH.fullmatch(month):
            fault = (
                f"the month is {month!r}, expected a file name like 2026-12.csv or the month itself "
                "(--month 2026-12)"
            )
            reader.found.append(Mistake(fault, file=file))
        users = reader.rows(data)
        if reader.found:
            raise ConfigError(sorted(reader.found, key=lambda each: (each.line or 0, each.column or 0)))
        return cls(month, tuple(users))


class _Reader(RowReader):
    """Reads one file and remembers what must not come twice."""

    def __init__(self, file: str) -> None:
        super().__init__(file, [])
        self.names: dict[str, int] = {}
        self.owners: dict[str, tuple[str, int]] = {}

    def rows(self, data: bytes) -> list[UserPortfolio]:
        table = table_of(data, COLUMNS, self.file, self.found, kind="a portfolio file", largest=LARGEST_FILE)
        return [self._user(row) for row in table]

    def _user(self, row: Row) -> UserPortfolio:
        user = self._name(row)
        category = row.cells["category"]
        if category not in CATEGORIES:
            self.wrong(_wrong_category(category), row, "category")
        cells = row.cells
        credit, prepayment, gas_credit, gas_prepayment, others = self._counts(row)
        forecast = self._count(row, "forecast", MOST_REQUESTS) if cells["forecast"] else None
        actual = self._count(row, "actual", MOST_REQUESTS) if cells["actual"] else None
        user_ids = self._user_ids(user, row)
        return UserPortfolio(
            user, category, user_ids, credit, prepayment, gas_credit, gas_prepayment, others, forecast, actual
        )

    def _name(self, row: Row) -> str:
        name = row.cells["user"]
        if not _PLAIN_NAME.fullmatch(name):  # most are: a formality, but 10,000 times
            wrong = _wrong_name(name)
            if wrong:
                self.wrong(f"the User's name {shown(name)} {wrong}", row, "user")
        key = likeness(name)
        if key and key in self.names:
            first = self.names[key]
            fault = f"User {shown(name)} is already in line {first}, expected one line a User"
            self.wrong(fault, row, "user")
        self.names.setdefault(key, row.line)
        return name

    def _user_ids(self, user: str, row: Row) -> tuple[str, ...]:
        found = []
        for word, begin in row.words("user_ids"):
            user_id = word.upper()
            if not _EUI_64.fullmatch(user_id):
                fault = (
                    f"{shown(word)} is not an EUI-64, expected eight octets like 90-B3-D5-1F-30-01-00-00, "
                    "several separated by spaces"
                )
                self.wrong(fault, row, "user_ids", begin)
                continue
            if user_id in self.owners:
                owner, first = self.owners[user_id]
                fault = f"{user_id} already belongs to {shown(owner)} in line {first}, expected one owner"
                self.wrong(fault, row, "user_ids", begin)
            else:
                self.owners[user_id] = user, row.line
            found.append(user_id)
        return tuple(found) if len(found) < 2 else tuple(sorted(set(found)))

    def _counts(self, row: Row) -> list[int]:
        """Return the counts of meters and Devices; 0 for each that is wrong."""
        texts: tuple[str, ...] = _TEXTS(row.cells)
        digits = "".join(texts)
        # All at once, as hardly any is wrong.
        if digits.isascii() and digits.isdigit() and "" not in texts and len(digits) <= _LONGEST_ROW:
            counts = list(map(int, texts))
            if max(counts) <= MOST_DEVICES:
                return counts
        return [self._count(row, kind, MOST_DEVICES) or 0 for kind in METER_KINDS]

    def _count(self, row: Row, field: str, most: int) -> int | None:
        text = row.cells[field]
        if not (text.isascii() and text.isdigit()):
            what = shown(text) if text else "nothing"
            self.wrong(f"{field} is {what}, expected digits only, 0 to {most}", row, field)
            return None
        count = int(text) if len(text) <= _LONGEST_COUNT else None
        if count is None or count > most:
            self.wrong(f"{field} {text[:40]} is absurd, expected at most {most}", row, field)
            return None
        return count


def _wrong_category(category: str) -> str:
    return f"category {shown(category)} is unknown, expected one of {', '.join(CATEGORIES)}"


_NAME_RULES: tuple[tuple[Callable[[str], bool], str], ...] = (
    (lambda name: not name, "is empty, expected a name"),
    (lambda name: name != name.strip(), "begins or ends with a space"),
    (lambda name: len(name) > LONGEST_NAME, f"is longer than {LONGEST_NAME} characters"),
    (
        lambda name: unicodedata.normalize("NFKC", name)[:1] in tuple("=+-@"),
        "begins with a character that makes spreadsheets run it as a formula, expected a letter or digit",
    ),
    (
        lambda name: (
            not name.isprintable()
            and any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in name)
        ),
        "holds control or invisible characters",
    ),
    (lambda name: unicodedata.normalize("NFC", name) != name, "is not in Unicode form NFC"),
    (lambda name: _EUI_64.fullmatch(name.upper()) is not None, "is an EUI-64, expected a name"),
)


def _wrong_name(name: str) -> str:
    """Say what is wrong with a User's name, or nothing."""
    return next((message for is_wrong, message in _NAME_RULES if is_wrong(name)), "")
