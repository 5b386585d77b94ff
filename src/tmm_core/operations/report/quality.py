"""How far the report can be trusted: what of the month was logged, what was lost, and what does not fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tmm_core.operations.report.changes import Version
from tmm_core.operations.report.events import Event
from tmm_core.operations.report.record import Month, Record

__all__ = ["FaultSum", "Gap", "HostCoverage", "LossSum", "Quality", "quality_of"]

#: Shorter interruptions of the log are counted in the coverage and not listed.
LEAST_GAP_MS = 1_000
#: Hosts may put a new configuration in force this much apart.
LONGEST_SPREAD_MS = 60_000


@dataclass(frozen=True, slots=True)
class Gap:
    """A time that nobody logged on a host."""

    host: str
    from_ms: int
    to_ms: int

    @property
    def seconds(self) -> float:
        return (self.to_ms - self.from_ms) / 1000


@dataclass(frozen=True, slots=True)
class HostCoverage:
    """How much of the month a host's log covers; `expected` and without a file: it is missing."""

    host: str
    files: int
    seconds: float
    share: float
    gaps: int
    missing_commits: int


@dataclass(frozen=True, slots=True)
class LossSum:
    """Records of one kind that a host could not write."""

    host: str
    what: str
    records: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class FaultSum:
    """Faults of one kind on a host."""

    host: str
    kind: str
    times: int
    count: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Quality:
    """What is known about the data.

    Attributes
    ----------
    coverage : float
        Share of the month that was logged, all hosts together.
    open_events : tuple of int
        Numbers of the events whose end is not logged.
    late_hosts : tuple of (str, float)
        Versions that the hosts put in force more than a minute apart, and seconds between first and last.
    disagreements : tuple of str
        Figures that are logged twice and differ.
    """

    coverage: float
    hosts: tuple[HostCoverage, ...]
    gaps: tuple[Gap, ...]
    missing_hosts: tuple[str, ...]
    losses: tuple[LossSum, ...]
    faults: tuple[FaultSum, ...]
    open_events: tuple[int, ...]
    late_hosts: tuple[tuple[str, float], ...]
    disagreements: tuple[str, ...]

    @property
    def lost_records(self) -> int:
        return sum(loss.records for loss in self.losses)

    @property
    def is_complete(self) -> bool:
        """Nothing is missing that would change a figure."""
        return not (
            self.gaps
            or self.missing_hosts
            or self.losses
            or self.open_events
            or self.disagreements
            or any(host.missing_commits for host in self.hosts)
        )


def quality_of(record: Record, events: Sequence[Event], versions: Sequence[Version]) -> Quality:
    """Return what is known about the data of a month."""
    month = record.month
    gaps = tuple(gap for host in record.hosts for gap in _gaps(host.host, host.spans, month))
    hosts = tuple(
        HostCoverage(
            host.host,
            host.files,
            seconds := sum(end - begin for begin, end in host.spans) / 1000,
            seconds / month.seconds,
            sum(1 for gap in gaps if gap.host == host.host),
            host.missing,
        )
        for host in record.hosts
    )
    known = {host.host for host in hosts if host.files}
    missing = tuple(sorted((set(record.hosts_expected) | {host.host for host in hosts}) - known))
    named = len(set(record.hosts_expected) | {host.host for host in hosts})
    return Quality(
        coverage=sum(host.seconds for host in hosts) / (named * month.seconds),
        hosts=hosts,
        gaps=tuple(gap for gap in gaps if gap.host in known),
        missing_hosts=missing,
        losses=_losses(record),
        faults=_faults(record),
        open_events=tuple(event.number for event in events if event.open),
        late_hosts=tuple(
            (version.version, version.spread_ms / 1000)
            for version in versions
            if version.spread_ms > LONGEST_SPREAD_MS and not version.before_month
        ),
        disagreements=_disagreements(record),
    )


def _gaps(host: str, spans: Sequence[tuple[int, int]], month: Month) -> list[Gap]:
    ends = [month.start_ms, *[end for _, end in spans]]
    begins = [*[begin for begin, _ in spans], month.end_ms]
    return [
        Gap(host, end, begin) for end, begin in zip(ends, begins, strict=True) if begin - end >= LEAST_GAP_MS
    ]


def _losses(record: Record) -> tuple[LossSum, ...]:
    found: dict[tuple[str, str], LossSum] = {}
    for loss in record.losses:
        key = loss.host, loss.what
        before = found.get(key, LossSum(*key, 0, loss.first_ms, loss.last_ms))
        found[key] = LossSum(
            *key,
            before.records + loss.records,
            min(before.first_ms, loss.first_ms),
            max(before.last_ms, loss.last_ms),
        )
    return tuple(found[key] for key in sorted(found))


def _faults(record: Record) -> tuple[FaultSum, ...]:
    found: dict[tuple[str, str], FaultSum] = {}
    for fault in record.faults:
        key = fault.kind, fault.host
        before = found.get(key, FaultSum(fault.host, fault.kind, 0, 0, fault.at_ms, fault.at_ms))
        found[key] = FaultSum(
            fault.host,
            fault.kind,
            before.times + 1,
            before.count + fault.count,
            min(before.first_ms, fault.at_ms),
            max(before.last_ms, fault.at_ms),
        )
    return tuple(found[key] for key in sorted(found))


def _disagreements(record: Record) -> tuple[str, ...]:
    """Compare what is logged twice: by day, by minute, and by SRV."""
    found = []
    by_day, by_srv = record.user_days.sum(axis=(0, 1)), record.user_srvs.sum(axis=(0, 1))
    if by_day.tolist() != by_srv.tolist():
        found.append(f"Service Requests by SRV add up to {by_srv.sum():,}, by day to {by_day.sum():,}")
    units, minutes = record.user_day_units.sum(axis=(0, 1)), record.minute_units.sum(axis=0)
    if minutes.tolist() != [units.sum(), units[0]]:
        found.append(f"units by minute add up to {minutes[0]:,}, by day to {units.sum():,}")
    return tuple(found)
