"""Small event logs for the report's tests, written by the log's own writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tmm_core import Config, PriorityList
from tmm_core.operations.event_log.event_records import (
    Batch,
    ConfigurationApplied,
    Event,
    EventUser,
    Fault,
    Loss,
    Notification,
    PriorityExcess,
    Source,
    config_record,
)
from tmm_core.operations.event_log.files import LogSet
from tmm_core.operations.events import EventLog
from tmm_core.operations.report.compute import figures_of
from tmm_core.operations.report.figures import Figures
from tmm_core.operations.report.log import read_month
from tmm_core.operations.report.record import Month, Record
from tmm_core.policy.portfolio import Portfolio

NORTHERN, HARBOUR, WORKS = "Northern Energy", "Harbour Gas", "Meter Works"
#: Throttled, spare, within, priority: in the order of Decision.
Amounts = tuple[int, int, int, int]


def ms(text: str) -> int:
    """Milliseconds of a UTC time such as ``2026-11-10T17:00:00``."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def config(northern: float = 60.0, priority: tuple[str, ...] = ("2.2", "7.4"), version: str = "7") -> Config:
    return Config(
        120, 100, allocations={NORTHERN: northern, HARBOUR: 20.0, WORKS: 5.0}, unknown_allocation=1.0,
        categories={NORTHERN: "large-supplier", HARBOUR: "small-supplier", WORKS: "other"},
        user_ids={"90-B3-D5-1F-30-01-00-00": NORTHERN},
        priority=PriorityList(priority, version=version, approved_by="Panel", source="minutes 12"),
        costs={"4.8.1": 4},
    )  # fmt: skip


@dataclass
class Host:
    """Writes the log of one host, a batch at a time, each following on the one before."""

    folder: Path
    name: str = "alpha"
    at: str = "2026-11-01T00:00:00"
    mono_ns: int = 10**12
    event_number: int = 0
    cost: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.now = ms(self.at)
        self.source = Source(f"{self.name}-life", "shared", self.now, 1)
        self.log = EventLog(self.folder / f"{self.name}.db", at_ms=self.now, host=self.name)

    def write(
        self,
        until: str | int,
        minutes: Mapping[tuple[str, str, str], Amounts] | None = None,
        seconds: Mapping[tuple[str, str, str], Amounts] | None = None,
        **rows: Any,
    ) -> Host:
        """Write one batch that covers the time up to `until`; counts by (time, User, SRV)."""
        to_ms = until if isinstance(until, int) else ms(until)
        batch = Batch(
            self.source, self.now, to_ms, self.mono_ns + (to_ms - self.now) * 10**6, polls=1, **rows
        )
        for (at, user, srv), amounts in (minutes or {}).items():
            units = [self.cost.get(srv, 1) * each for each in amounts]
            minute = ms(at) // 60_000 * 60
            for cells, key, values in (
                (batch.counts, (user, srv), list(amounts)),
                (batch.units, (user,), units),
                (batch.minute_counts, (minute, user, srv), list(amounts)),
                (batch.user_minutes, (minute, user), [*amounts, *units]),
            ):
                row = cells.setdefault(key, [0] * len(values))
                cells[key] = [a + b for a, b in zip(row, values, strict=True)]
        for (at, user, srv), amounts in (seconds or {}).items():
            batch.second_counts[ms(at) // 1000, user, srv] = list(amounts)
        self.log.append(batch)
        self.now, self.mono_ns = to_ms, batch.mono_ns
        return self

    def configure(self, at: str, config: Config) -> Host:
        """Put a configuration in force."""
        applied = ConfigurationApplied(ms(at), config.version, config_record(config))
        return self.write(max(self.now, ms(at)), configurations=[applied])

    def event(
        self,
        began: str,
        seconds: float | None,
        users: Mapping[str, Amounts] | None = None,
        *,
        clock_step_s: float = 0,
        throttled_seconds: int = 0,
        mode: str = "enforce",
    ) -> Host:
        """Write a traffic management event; `seconds` None: it is open. The wall clock may step in it."""
        self.event_number += 1
        began_ms = ms(began)
        event = Event(
            f"{self.name}-life/{self.event_number}", self.event_number, began_ms, began_ms * 10**6, True,
            mode, "v", 100.0, 95.0, 100.0, 140.0, 0.26, 100.0, 150.0, 0.5, 1.0,
        )  # fmt: skip
        if seconds is not None:
            event.duration_ms = int(seconds * 1000)
            event.ended_ms = began_ms + int((seconds + clock_step_s) * 1000)
            event.ended_mono_ns = event.began_mono_ns + int(seconds * 1e9)
            event.ended_exact = True
        in_event = {
            (event.event, user): EventUser(
                60.0, 90.0, amounts[0] > 0, [*amounts, *amounts], throttled_seconds,
                began_ms + 1000 if amounts[0] else None, began_ms + 9000 if amounts[0] else None,
            )
            for user, amounts in (users or {}).items()
        }  # fmt: skip
        # Written when it began and once more when it ended, as the watcher does.
        until = max(self.now, began_ms if seconds is None else began_ms + int(seconds * 1000))
        return self.write(until, events={event.event: event}, event_users=in_event)

    def close(self) -> Path:
        self.log.close()
        return self.folder


def read(folder: Path, month: str = "2026-11", hosts: tuple[str, ...] = ()) -> Record:
    with LogSet([folder]) as logs:
        return read_month(logs, Month.parse(month), expected=hosts)


def figures(
    folder: Path, month: str = "2026-11", portfolio: Portfolio | None = None, hosts: tuple[str, ...] = ()
) -> Figures:
    return figures_of(read(folder, month, hosts), portfolio)


def november(folder: Path, names: tuple[str, str, str] = (NORTHERN, HARBOUR, WORKS)) -> Path:
    """A month of two hosts with everything in it: two events, changes, a gap, a loss, a fault."""
    one, two, three = names
    peak, costs = "2026-11-10T17:00:00", {"4.8.1": 4}
    allocations = {one: 60.0, two: 20.0, three: 5.0}
    first = Config(120, 100, allocations=allocations, priority=PriorityList(("2.2",), "6", approved_by="Panel"),
                   unknown_allocation=1.0, costs=costs, allocations_file=f"/etc/{one.lower()}.csv",
                   categories={one: "large-supplier", two: "small-supplier", three: "other"})  # fmt: skip
    second = Config(120, 100, allocations={**allocations, one: 66.0}, unknown_allocation=1.0, costs=costs,
                    allocations_file=f"/etc/{one.lower()}.csv",
                    priority=PriorityList(("2.2", "7.4"), "7", approved_by="Panel"), hold_s=20,
                    categories={one: "large-supplier", two: "small-supplier", three: "other"})  # fmt: skip
    for name in ("alpha", "beta"):
        host = Host(folder, name, "2026-10-20T00:00:00", cost=costs)
        host.configure("2026-10-20T00:00:00", first)
        host.write("2026-10-25T00:30:00", {("2026-10-24T10:00:00", one, "4.1.1"): (0, 10, 900, 0)})
        # Across the change of the clocks, at 01:00 UTC.
        host.event("2026-10-25T00:50:00", 1200, {one: (30, 0, 600, 0)})
        host.write("2026-11-05T08:00:00", {
            ("2026-11-02T09:30:00", one, "4.1.1"): (0, 0, 1200, 0),
            ("2026-11-02T09:30:00", two, "4.8.1"): (0, 0, 150, 0),
            ("2026-11-02T09:31:00", three, "7.4"): (0, 0, 60, 20),
            ("2026-11-02T09:31:00", "(unknown)", "(unknown)"): (0, 3, 6, 0),
        })  # fmt: skip
        if name == "beta":
            host.now = ms("2026-11-05T10:00:00")  # nobody watched for two hours
        host.write(
            peak, faults=[Fault(ms("2026-11-06T00:00:00"), 1, "worker-died", f"worker of {one}", 1, one)]
        )
        host.write("2026-11-10T17:03:00", {
            (peak, one, "4.1.1"): (1500, 300, 1800, 0), (peak, one, "2.2"): (0, 0, 0, 240),
            (peak, two, "4.8.1"): (60, 30, 120, 0),
        }, {("2026-11-10T17:00:20", one, "4.1.1"): (40, 10, 30, 0),
            ("2026-11-10T17:00:21", one, "4.1.1"): (25, 0, 30, 0),
            ("2026-11-10T17:00:21", two, "4.8.1"): (1, 0, 2, 0)})  # fmt: skip
        host.event(peak, 150 if name == "alpha" else 170.5, {one: (1500, 300, 1800, 240), two: (60, 30, 120, 0)},
                   throttled_seconds=2)  # fmt: skip
        host.configure("2026-11-15T00:00:00", second)
        host.write("2026-11-30T23:59:00", priority_excesses={
            (ms("2026-11-20T12:00:00") // 1000, None): PriorityExcess(33.0, 25.0, 12),
        }, losses=[Loss("throttle-record", 5, ms(peak), ms(peak) + 60_000, "disk full")] if name == "alpha" else [],
            notifications=[Notification("alpha-life/2", one, "began", "file", "sent", 1, ms(peak), "")])  # fmt: skip
        # Begins in November and ends in December; on one host only.
        if name == "alpha":
            host.event("2026-11-30T23:59:30", 90, {one: (12, 0, 40, 0)})
        host.write("2026-12-01T00:10:00")
        host.close()
    return folder
