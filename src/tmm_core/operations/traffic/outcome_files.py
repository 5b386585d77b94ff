"""The files of `tmm demo` and `tmm replay`: a row per second, a row per User, a chart.

Written beside their names first and moved into place when all is done: an interrupted run leaves no half
file that could be taken for a whole one.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from tmm_core.errors import TMMError
from tmm_core.mechanism import Decision
from tmm_core.operations.traffic.outcome import Outcome, Row
from tmm_core.policy.config import Config

__all__ = ["OutcomeFiles", "in_csv"]

SECONDS_HEADER = (
    "time", "second", "offered", "admitted", "priority", "within_allocation", "spare_capacity", "throttled",
    "offered_units", "admitted_units", "active", "level", "backlog_without_units",
)  # fmt: skip
USERS_HEADER = (
    "user", "category", "allocation", "offered", "admitted", "priority", "within_allocation",
    "spare_capacity", "throttled", "seconds_throttled", "highest_offered_second",
)  # fmt: skip


def in_csv(text: str) -> str:
    """Return text as a CSV cell that no spreadsheet takes for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


class OutcomeFiles:
    """Writes ``NAME.csv``, ``users.csv`` and ``NAME.svg`` into a folder; a context manager.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    name : str
    time_of : callable
        Text of the column ``time`` for a second of the traffic.
    keep : sequence of Path
        Files that were read: refused as a place to write to.
    users : str
        Name of the file of Users.

    Raises
    ------
    TMMError
        A file that was read would be overwritten.
    OSError
        The folder cannot be made or written to.
    """

    def __init__(
        self, folder: Path, name: str, time_of: Callable[[int], str], keep: tuple[Path, ...] = (), *,
        users: str = "users.csv",
    ) -> None:  # fmt: skip
        self.seconds = folder / f"{name}.csv"
        self.users = folder / users
        self.chart = folder / f"{name}.svg"
        self._time_of = time_of
        self._done: list[Path] = []
        self._stack = ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        for path in self.paths:
            if any(path.exists() and kept.exists() and path.samefile(kept) for kept in keep):
                raise TMMError(f"{path} was read, and would be overwritten: choose another folder with --out")
        self._file = self._open(self.seconds)
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(SECONDS_HEADER)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in place after `finish`."""
        return self.seconds, self.users, self.chart

    def row(self, row: Row) -> None:
        """Write one second."""
        counts = row.counts
        self._rows.writerow(
            (
                self._time_of(row.second), row.second, row.offered, row.admitted, counts[Decision.PRIORITY],
                counts[Decision.WITHIN_ALLOCATION], counts[Decision.SPARE_CAPACITY],
                counts[Decision.THROTTLED], row.offered_units, row.admitted_units, int(row.active),
                "" if row.level is None else f"{row.level:.4f}", f"{row.backlog_without:.0f}",
            )
        )  # fmt: skip

    def finish(self, outcome: Outcome, config: Config, chart: str) -> None:
        """Write the Users and the chart, and put all the files in place."""
        with self._open(self.users) as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(USERS_HEADER)
            for slot, user in enumerate(outcome.users):
                counts = outcome.counts[slot].tolist()
                allocation = config.unknown_allocation if slot == 0 else config.allocations.get(user, 0.0)
                rows.writerow(
                    (
                        in_csv(user), config.categories.get(user, ""), f"{allocation:.15g}", sum(counts),
                        sum(counts) - counts[Decision.THROTTLED], counts[Decision.PRIORITY],
                        counts[Decision.WITHIN_ALLOCATION], counts[Decision.SPARE_CAPACITY],
                        counts[Decision.THROTTLED], int(outcome.seconds_throttled[slot]),
                        int(outcome.highest_offered[slot]),
                    )
                )  # fmt: skip
        with self._open(self.chart) as file:
            file.write(chart)
        self._file.close()
        for path in self._done:
            os.replace(_part(path), path)
        self._done.clear()

    def _open(self, path: Path) -> TextIO:
        file = self._stack.enter_context(_part(path).open("w", encoding="utf-8", newline=""))
        self._done.append(path)
        return file

    def __enter__(self) -> OutcomeFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for path in self._done:
            _part(path).unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
