"""Pages: what a report says, as values, and one way to show it as HTML, CSV and text.

A page is sections of blocks; a table holds raw values and is shown from the same values in HTML (for people)
and in CSV (for programs), so that the two cannot disagree. The HTML is one file without script or network;
all text is escaped, and characters that are invisible or turn the direction of writing are shown as codes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from tmm_core.errors import TMMError
from tmm_core.operations.charts import NARROW, WIDE, Drawing, visible
from tmm_core.operations.terminal import duration, number, percent

if TYPE_CHECKING:
    from jinja2 import Environment

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")

Kind = Literal["text", "count", "rate", "share", "duration", "moment", "day", "change"]
Cell = str | int | float | datetime | date | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, what its values are, and its name in CSV files.

    Attributes
    ----------
    kind : str
        ``text``; ``count`` (whole number); ``rate`` (units per second); ``share`` and ``change`` (fractions,
        shown in percent); ``duration`` (seconds); ``moment`` (aware datetime, UTC); ``day``.
    """

    heading: str
    kind: Kind
    name: str

    @property
    def is_number(self) -> bool:
        return self.kind in ("count", "rate", "share", "duration", "change")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values under columns. The first column is the heading of its row.

    Attributes
    ----------
    caption : str
        What the table holds.
    csv : str
        Path of the CSV file with the same rows, relative to the page; empty: none.
    nothing : str
        What to say where there are no rows.
    total : sequence of Cell, optional
        The last row.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    csv: str = ""
    nothing: str = "None."
    total: Sequence[Cell] | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart under the finding it shows, with the table of its figures.

    Attributes
    ----------
    finding : str
        The headline: what is seen, in a sentence.
    drawing : callable
        Draws the chart for a width, without name clashes between charts.
    note : str
        How to read it.
    more : str
        CSV file with finer figures than the table, relative to the page; empty: none.
    opened : bool
        Show the table at once.
    """

    finding: str
    drawing: Drawing
    table: Table
    note: str = ""
    more: str = ""
    opened: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure with its name and a word on it."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tiles:
    """The few figures to see first."""

    tiles: Sequence[Tile]


@dataclass(frozen=True, slots=True)
class Terms:
    """Words and what they mean."""

    terms: Sequence[tuple[str, str]]


Block = Table | Figure | Text | Bullets | Tiles | Terms


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page under its heading; `parts` are sections one level down."""

    heading: str
    blocks: Sequence[Block] = ()
    parts: Sequence[Section] = ()

    @property
    def anchor(self) -> str:
        """The heading as an identifier."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.heading.lower()).split())


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page.

    Attributes
    ----------
    lead : str
        One line under the title.
    facts : sequence of (str, str)
        What the page is about: name and value.
    foot : str
        Last line.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    foot: str = ""
    contents: bool = field(default=True)


def shown(value: Cell, kind: Kind = "text") -> str:
    """Return a value for people; an en dash for None.

    Examples
    --------
    >>> shown(1234567, "count"), shown(0.25, "share"), shown(-0.25, "change"), shown(None)
    ('1,234,567', '25.0 %', '−25.0 %', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return f"{value.day} {value:%b %Y %H:%M:%S}"
    if isinstance(value, date):
        return f"{value:%a} {value.day} {value:%b %Y}"
    if isinstance(value, str):
        return visible(value)
    if kind == "share":
        return percent(value, 1) if value else "0 %"
    if kind == "change":
        return f"{'+' if value > 0 else '−' if value < 0 else '±'}{abs(100 * value):,.1f} %"
    if kind == "duration":
        return duration(value)
    if kind == "rate":
        places = 3 if abs(value) < 1 else 1 if abs(value) < 1000 else 0
        return number(round(value, places))
    return number(value)


def in_csv(text: str) -> str:
    """Return text as a CSV cell that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_csv(table: Table) -> str:
    """Return a table as CSV: raw values under names, and no cell that a spreadsheet takes for a formula."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow([column.name for column in table.columns])
    for row in table.rows:
        rows.writerow([_raw(value, column.kind) for value, column in zip(row, table.columns, strict=True)])
    return out.getvalue()


def _raw(value: Cell, kind: Kind) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S}Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        # A negative number is a number, not a formula.
        return value if _NUMBER.fullmatch(value) else in_csv(visible(value))
    if kind == "count":
        return str(int(value))
    places = 6 if kind in ("share", "change") else 3
    return f"{value:.{places}f}".rstrip("0").rstrip(".") or "0"


def render_html(page: Page) -> str:
    """Return a page as one HTML document.

    Raises
    ------
    TMMError
        Jinja2 is not installed.
    """
    return str(_environment().get_template("page.html").render(page=page, wide=WIDE, narrow=NARROW))


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined, pass_eval_context
        from markupsafe import Markup
    except ImportError:
        raise TMMError(
            "found no Jinja2, which pages are made with: pip install 'tmm-core[report]', or take --json"
        ) from None

    @pass_eval_context
    def drawn(_: Any, drawing: Drawing, width: int) -> Markup:
        # Charts escape what they are given: see charts.py.
        return Markup(drawing(width))

    environment = Environment(
        loader=PackageLoader("tmm_core.operations"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_final,
    )
    environment.filters["shown"] = shown
    environment.filters["drawn"] = drawn
    environment.filters["file_name"] = lambda path: PurePosixPath(path).name
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.tests["figure"] = lambda block: isinstance(block, Figure)
    environment.tests["text"] = lambda block: isinstance(block, Text)
    environment.tests["bullets"] = lambda block: isinstance(block, Bullets)
    environment.tests["tiles"] = lambda block: isinstance(block, Tiles)
    environment.tests["terms"] = lambda block: isinstance(block, Terms)
    return environment


def _final(value: object) -> object:
    """Make every text visible on its way into the page; markup is already escaped."""
    return visible(value) if type(value) is str else value
