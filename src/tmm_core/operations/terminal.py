"""What goes to a terminal: tables, numbers, colour where it is welcome, progress on long work.

Colour and progress only appear on a terminal and never with ``NO_COLOR`` (https://no-color.org) or
``TERM=dumb``. Names that came from a file are shown without their control characters, so that a request log
cannot write to the screen by itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tmm_core.policy.validation import escaped, uncovered

_REDRAW_S = 0.1
_SHORTEST_NAME, _LONGEST_NAME = 12, 40
_FIGURE = re.compile(r"(\d) (%|s|ms|min|h|days|million)(?!\w)")


def plain(text: str, width: int = 60) -> str:
    """Return text that is safe to print: control and invisible characters escaped, shortened to `width`."""
    text = uncovered(text, escaped)
    return text if len(text) <= width else text[: width - 3] + "..."


def number(value: float) -> str:
    """Return a number with thousands separators; decimals only where there are any, at most three."""
    text = f"{value:,.3f}"
    return text.rstrip("0").rstrip(".")


def percent(part: float, whole: float) -> str:
    """Return a share, for example ``12.3 %``; a dash of nothing; never 0.0 of something, 100.0 of less."""
    if not whole:
        return "-"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<0.1 %"
    if 99.9 < share < 100:
        return ">99.9 %"
    return f"{share:.1f} %"


def duration(seconds: float) -> str:
    """Return a length of time, for example ``2 h 05 min`` or ``12.5 s``."""
    if 0 < seconds < 0.05:
        return "<0.1 s"
    if seconds < 119.95:
        return f"{number(round(seconds, 1))} s"
    whole = round(seconds)
    if whole < 7200:
        return f"{whole // 60} min" + (f" {whole % 60:02d} s" if whole % 60 else "")
    hours, minutes = divmod(round(whole / 60), 60)
    if hours < 48:
        return f"{hours} h" + (f" {minutes:02d} min" if minutes else "")
    return f"{number(round(whole / 86_400, 1))} days"


@dataclass(frozen=True, slots=True)
class Paint:
    """Colour, or none of it."""

    on: bool = False

    @classmethod
    def of(cls, stream: TextIO) -> Paint:
        """Return the paint that suits a stream."""
        return cls(is_terminal(stream) and not os.environ.get("NO_COLOR"))

    def bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self.on else text

    def red(self, text: str) -> str:
        return f"\x1b[31m{text}\x1b[0m" if self.on else text

    def faint(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self.on else text


def is_terminal(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that understands more than lines."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def columns() -> int:
    """Return the width to write for; 100 where there is no terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def paragraph(text: str, indent: str = "  ") -> list[str]:
    """Return text as lines that fit the terminal; a figure stays with its unit."""
    width = max(40, min(columns(), 116))
    text = _FIGURE.sub("\\1\0\\2", text)
    lines = textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return [line.replace("\0", " ") for line in lines]


def fact(name: str, text: str, width: int = 11) -> list[str]:
    """Return a named fact as lines that fit the terminal, its text in a column of its own."""
    begin = f"  {name:<{width}} "
    return textwrap.wrap(
        plain(text, 1000), min(columns(), 120), initial_indent=begin, subsequent_indent=" " * len(begin)
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], paint: Paint, *, left: int = 1) -> list[str]:
    """Return the lines of a table, closer together where the terminal is narrow.

    The first `left` columns are aligned left, the others right.
    """
    widths = _widths(head, rows)
    gap = "  " if _line_width(widths, 2) <= columns() else " "
    # One format for all lines: there may be 10,000 of them.
    form = "  " + gap.join(f"%{'-' if place < left else ''}{width}s" for place, width in enumerate(widths))
    return [paint.bold((form % tuple(head)).rstrip()), *[(form % tuple(row)).rstrip() for row in rows]]


def table_of_names(
    head: Sequence[str], names: Sequence[str], figures: Sequence[Sequence[str]], paint: Paint
) -> list[str]:
    """Return the lines of a table of names with figures: names are shortened to fit the terminal, figures never."""
    room = columns() - table_width(head[1:], figures, gap=1) - 1
    longest = min(max(room, _SHORTEST_NAME), _LONGEST_NAME)
    rows = [[plain(name, longest), *row] for name, row in zip(names, figures, strict=True)]
    return table(head, rows, paint)


def table_width(head: Sequence[str], rows: Sequence[Sequence[str]], gap: int = 2) -> int:
    """Return how many columns of a terminal a table takes."""
    return _line_width(_widths(head, rows), gap)


def _widths(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]


def _line_width(widths: Sequence[int], gap: int) -> int:
    return 2 + sum(widths) + gap * (len(widths) - 1)


def finished(requests: int, decided_s: float, took_s: float, files: Sequence[Path]) -> Iterator[str]:
    """Yield the last lines of a run: how fast it was on this machine, and where the files are."""
    if decided_s > 0:
        rate = requests / decided_s
        speed = f"{rate / 1e6:.1f} million" if rate >= 1e6 else number(round(rate))
        yield from paragraph(
            f"Decided at {speed} Service Requests per second, in steps of 5 ms from Python; "
            f"{took_s:.1f} s in all "
            "on this machine."
        )
    yield from paragraph("Written: " + ", ".join(plain(str(file), 200) for file in files))


def print_json(value: object) -> None:
    """Print a value as JSON for programs: ASCII only, keys in the order given."""
    print(json.dumps(value, indent=2, allow_nan=False))


Progress = Callable[[float], None]
"""Told how much of long work is done, in the unit of the total; cheap to tell often."""


@contextmanager
def progress(label: str, total: float | None, *, quiet: bool = False) -> Iterator[Progress]:
    """Show progress on stderr while the body runs; nothing unless stderr is a terminal.

    Parameters
    ----------
    total : float or None
        None where it is not known.
    quiet : bool
        Show nothing.
    """
    if quiet or not is_terminal(sys.stderr):
        yield lambda done: None
        return
    try:
        from rich.console import Console
        from rich.progress import Progress as Bars
        from rich.progress import TimeElapsedColumn
    except ImportError:
        yield from _plain_progress(label, total)
        return
    shown = [
        *Bars.get_default_columns(),
        TimeElapsedColumn(),
    ]  # with the time that is left, and that has gone
    with Bars(*shown, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=total)
        due = 0.0

        def update(done: float) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + _REDRAW_S
                bars.update(task, completed=done)

        yield update


def _plain_progress(label: str, total: float | None) -> Iterator[Progress]:
    due, began = 0.0, time.monotonic()

    def update(done: float) -> None:
        nonlocal due
        now = time.monotonic()
        if now < due:
            return
        due = now + _REDRAW_S
        far = f"{100 * done / total:3.0f} %" if total else f"{number(done)}"
        sys.stderr.write(f"\r{label}  {far}  {now - began:.0f} s ")
        sys.stderr.flush()

    try:
        yield update
    finally:
        sys.stderr.write("\r" + " " * (len(label) + 24) + "\r")
        sys.stderr.flush()
