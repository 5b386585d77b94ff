"""A Mechanism, its clocks and its watcher, all driven by hand."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tmm_core import Config, Mechanism, PriorityList
from tmm_core.operations.event_log.event_records import Source
from tmm_core.operations.event_log.files import LogSet
from tmm_core.operations.watch import Watcher, WatchSettings

SECOND = 1_000_000_000
NORTH, SOUTH = "Northern Energy", "Southern Energy"


def ms(text: str) -> int:
    """Return a UTC time in milliseconds since 1970."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOON = ms("2026-11-25T12:00:00")


def small_config(**changes: Any) -> Config:
    """Return a configuration that a hundred requests overload: a threshold of 100 units per second."""
    values: dict[str, Any] = {
        "system_capacity": 120,
        "operating_threshold": 100,
        "allocations": {NORTH: 30.0, SOUTH: 20.0},
        "priority": PriorityList(("7.4",), "3", None, "SEC Panel", "minutes of the Panel"),
        "costs": {"4.8.1": 4},
        "unknown_allocation": 10.0,
        "hold_s": 1.0,
    }
    return Config(**{**values, **changes})


class World:
    """Time, traffic and a watcher; nothing sleeps."""

    def __init__(self, folder: Path, config: Config | None = None, *, at_ms: int = NOON) -> None:
        self.path = folder / "events.db"
        self.now = 1000 * SECOND
        self.offset_ms = at_ms - self.now // 1_000_000
        self.mechanism = Mechanism(config or small_config(), start=self.now)
        self.source = Source("block-1", "shared", at_ms, os.getpid())
        self.watchers: list[Watcher] = []

    # the clocks
    def at_ms(self) -> int:
        return self.now // 1_000_000 + self.offset_ms

    def mono_ns(self) -> int:
        return self.now

    def watch(self, *, private: bool = False, **options: Any) -> Watcher:
        options.setdefault("settings", WatchSettings())
        watcher = Watcher(
            self.mechanism, self.path, clock=self, source=None if private else self.source, **options
        )
        self.watchers.append(watcher)
        return watcher

    def traffic(
        self, seconds: float, rates: dict[tuple[str, str], float], watcher: Watcher | None = None
    ) -> None:
        """Send requests evenly in ticks of 10 ms; a watcher looks once a second."""
        owed = dict.fromkeys(rates, 0.0)
        for _ in range(round(seconds * 100)):
            self.now += SECOND // 100
            self.mechanism.tick(self.now)
            for (user, srv), rate in rates.items():
                owed[user, srv] += rate / 100
                n = int(owed[user, srv])
                owed[user, srv] -= n
                if n:
                    users = np.full(n, self.mechanism.user(user), dtype=np.uint32)
                    srvs = np.full(n, self.mechanism.srv(srv), dtype=np.uint16)
                    self.mechanism.admit_many(users, srvs, now=self.now)
            if watcher is not None and self.now % SECOND == 0:
                watcher.step()

    def overload(self, seconds: float, watcher: Watcher | None = None) -> None:
        """Twice the threshold from one User, and a little from another."""
        self.traffic(seconds, {(NORTH, "4.1.1"): 200.0, (SOUTH, "4.8.1"): 2.0}, watcher)

    def quiet(self, seconds: float, watcher: Watcher | None = None) -> None:
        """One request a second from each."""
        self.traffic(seconds, {(NORTH, "4.1.1"): 1.0, (SOUTH, "7.4"): 1.0}, watcher)

    def close(self) -> None:
        for watcher in self.watchers:
            watcher.close()
        self.mechanism.close()

    # the log
    def rows(self, query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        with LogSet([self.path]) as logs:
            return [tuple(row) for _, row in logs.rows(query, tuple(values))]

    def events(self) -> list[dict[str, Any]]:
        with LogSet([self.path]) as logs:
            return logs.events()

    def assert_log_equals_engine(self) -> None:
        """Every count of the engine is in the log, to the unit, in each of the tables."""
        snapshot = self.mechanism.snapshot(self.now)
        counted = {
            (user, srv): row
            for i, user in enumerate(snapshot.users)
            for j, srv in enumerate(snapshot.srvs)
            if any(row := snapshot.counts[i, j].tolist())
        }
        units = {
            user: row
            for user, row in zip(snapshot.users, self.mechanism.engine.units().tolist(), strict=False)
            if any(row)
        }
        for table in ("minute_counts", "day_counts"):
            assert self._sums(table, 4) == counted, table
        for table in ("user_minutes", "user_days"):
            by_user = {user: row[4:] for (user,), row in self._sums(table, 8, srv=False).items()}
            assert by_user == units, table
        throttled = sum(row[0] for row in counted.values())
        assert sum(row[0] for row in self._sums("second_counts", 4).values()) == throttled
        with LogSet([self.path]) as logs:
            # The last file knows the whole of an event that lasted into it.
            last: dict[tuple[str, int], tuple[int, int]] = {}
            for _, row in logs.rows("SELECT event, user, throttled, throttled_units FROM event_users"):
                last[row["event"], row["user"]] = (row["throttled"], row["throttled_units"])
        assert sum(found[0] for found in last.values()) == throttled

    def _sums(self, table: str, columns: int, *, srv: bool = True) -> dict[tuple[str, ...], list[int]]:
        names = ["throttled", "spare", "within", "priority"]
        names += [f"{name}_units" for name in names] if columns == 8 else []
        sums = ", ".join(f"sum({name})" for name in names)
        keys = "name, code" if srv else "name"
        joins = "JOIN users USING (user)" + (" JOIN srvs USING (srv)" if srv else "")
        found: dict[tuple[str, ...], list[int]] = {}
        width = 2 if srv else 1
        for row in self.rows(f"SELECT {keys}, {sums} FROM {table} {joins} GROUP BY {keys}"):
            total = found.setdefault(row[:width], [0] * columns)
            found[row[:width]] = [a + b for a, b in zip(total, row[width:], strict=True)]
        return found
