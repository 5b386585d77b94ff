"""What candidate allocations would have decided otherwise, by day and User: looked at, written, read again.

Where none is tried nothing is looked at and no row is written. The tables came after the first logs of this schema:
whoever writes a log adds them, and a reader takes a log without them as one in which none was tried.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.event_log.event_records import Batch, add_to
from tmm_core.operations.event_log.schema import CANDIDATE_TABLES, adding
from tmm_core.snapshot import Snapshot

__all__ = ["COLUMNS", "Trial", "has_candidates", "prepare", "totals", "write"]

_DIFFERENCES = (
    "over_units",
    "over_active_units",
    "within_units",
    "admitted_units",
)  # in the order of Difference
COLUMNS = ("offered_units", "throttled_units", *_DIFFERENCES)
_DAY_MS = 86_400_000

_Ints = np.ndarray[Any, np.dtype[np.int64]]


class Trial:
    """Turn looks at what a candidate would have done into rows of a batch.

    Parameters
    ----------
    mechanism : Mechanism
    users : list of str
        Names by slot.
    known : mapping of str to list of int
        What of the differences is in the log, by User.
    version : str
        The candidate last logged; empty where there was none.

    Notes
    -----
    *Not thread-safe.* What was offered and throttled in the look in which a candidate began is booked with it.
    """

    __slots__ = ("_known", "_mechanism", "_version")

    def __init__(
        self, mechanism: Mechanism, users: list[str], known: Mapping[str, list[int]], version: str
    ) -> None:
        self._mechanism = mechanism
        self._version = version
        self._known: _Ints = np.array([known.get(user, [0] * 4) for user in users], np.int64)

    def look(self) -> _Ints | None:
        """Return all differences counted so far, before a snapshot is taken; None where none is tried."""
        if not (self._version or self._mechanism.config.candidate_version):
            return None
        return self._mechanism.engine.differences()

    def book(self, batch: Batch, looked: _Ints | None, snapshot: Snapshot, units: _Ints, at_ms: int) -> None:
        """Add what came since the last look; `units` by User and Decision came since then too."""
        if looked is None:
            return
        users, candidate = snapshot.users, snapshot.candidate
        grown = looked[: len(users)].copy()
        grown[: len(self._known)] -= self._known[: len(users)]
        self._known = looked[: len(users)]
        now = np.zeros_like(grown) if candidate is None else np.minimum(grown, candidate.units)
        for slot in np.nonzero(grown.any(axis=1))[0].tolist():
            add_to(batch.candidate_totals, (users[slot],), grown[slot].tolist())
        day = at_ms // _DAY_MS * (_DAY_MS // 1000)
        if self._version and (candidate is None or candidate.version != self._version):
            # It ended since the last look: what the new one has not counted was its own.
            _add(batch, day, self._version, users, np.zeros_like(units), grown - now)
        if candidate is not None:
            _add(batch, day, candidate.version, users, units, now)
        self._version = "" if candidate is None else candidate.version


def _add(batch: Batch, day: int, version: str, users: list[str], units: _Ints, differences: _Ints) -> None:
    rows = np.column_stack((units.sum(axis=1), units[:, Decision.THROTTLED], differences))
    rows[0] = 0  # the pool of unknown Users: no candidate is tried on it
    for slot in np.nonzero(rows.any(axis=1))[0].tolist():
        add_to(batch.candidate_days, (day, version, users[slot]), rows[slot].tolist())


def prepare(connection: sqlite3.Connection) -> None:
    """Add the tables to a log that was begun without them."""
    for statement in CANDIDATE_TABLES:
        connection.execute(statement)


def has_candidates(connection: sqlite3.Connection) -> bool:
    """Return whether a log has the tables."""
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'candidate_days'").fetchone()[
        0
    ]
    return bool(found)


def write(connection: sqlite3.Connection, source: int, batch: Batch, number_of: Callable[[str], int]) -> None:
    """Write the rows of a batch."""
    days = [
        (day, version, number_of(user), *row) for (day, version, user), row in batch.candidate_days.items()
    ]
    connection.executemany(adding("candidate_days", ("day", "candidate", "user"), COLUMNS), days)
    sums = [(source, number_of(user), *row) for (user,), row in batch.candidate_totals.items()]
    connection.executemany(adding("candidate_totals", ("source", "user"), _DIFFERENCES), sums)


def totals(connection: sqlite3.Connection, source_id: str) -> dict[str, list[int]]:
    """Return what of a source's differences is in the log, by User."""
    rows = connection.execute(
        f"SELECT name, {', '.join(_DIFFERENCES)} FROM candidate_totals JOIN sources USING (source)"
        " JOIN users USING (user) WHERE source_id = ?",
        (source_id,),
    )
    return {row[0]: list(row[1:]) for row in rows}
