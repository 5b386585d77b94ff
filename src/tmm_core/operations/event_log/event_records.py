"""What is written to the event log in one commit: plain values, added up until they are written.

Service Users and SRVs are named, never numbered: the dictionaries are the log's own business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tmm_core.policy.config import Config, PriorityList
from tmm_core.snapshot import NO_LIMIT

#: User and SRV of a cell; a time in front of them where there is one.
Cells = dict[tuple[Any, ...], list[int]]


def iso(at_ms: int) -> str:
    """Return a time in milliseconds since 1970 as ISO 8601, UTC, to the millisecond.

    Examples
    --------
    >>> iso(1764547200123)
    '2025-12-01T00:00:00.123Z'
    """
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


def add_to(cells: Cells, key: tuple[Any, ...], amounts: list[int]) -> None:
    """Add amounts to a row of a table that is being added up."""
    row = cells.get(key)
    if row is None:
        cells[key] = list(amounts)
    else:
        for place, amount in enumerate(amounts):
            row[place] += amount


@dataclass(frozen=True, slots=True)
class Source:
    """One life of a block of counters: `kind` is ``private`` or ``shared``."""

    source_id: str
    kind: str
    began_ms: int
    pid: int


@dataclass(slots=True)
class SystemMinute:
    """The system in one minute: units per second, summed over the polls; backlog in seconds."""

    polls: int = 0
    active_polls: int = 0
    load_sum: float = 0.0
    load_max: float = 0.0
    offered_sum: float = 0.0
    offered_max: float = 0.0
    backlog_max_s: float = 0.0
    level_min: float = NO_LIMIT


@dataclass(frozen=True, slots=True)
class ConfigurationApplied:
    """A configuration put in force; `description` as from `config_record`."""

    from_ms: int
    version: str
    description: Mapping[str, Any]


@dataclass(slots=True)
class Event:
    """One traffic management event; see the table ``traffic_management_events``."""

    event: str
    number: int
    began_ms: int
    began_mono_ns: int
    began_exact: bool
    mode: str
    version: str
    operating_threshold: float
    release_threshold: float
    began_load: float
    began_offered_load: float
    began_backlog_s: float
    load_max: float
    offered_max: float
    backlog_max_s: float
    level_min: float
    ended_ms: int | None = None
    ended_mono_ns: int | None = None
    ended_exact: bool | None = None
    duration_ms: int | None = None


@dataclass(slots=True)
class EventUser:
    """A User in an event: `outcomes` are requests, then units, by Decision, since the last commit."""

    allocation: float
    began_offered: float
    over_at_beginning: bool
    outcomes: list[int] = field(default_factory=lambda: [0] * 8)
    throttled_seconds: int = 0
    first_throttled_ms: int | None = None
    last_throttled_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it should be; `kind` is one of ``event_log.schema.FAULTS``."""

    at_ms: int
    mono_ns: int
    kind: str
    detail: str
    count: int = 1
    user: str | None = None


@dataclass(slots=True)
class PriorityExcess:
    """Priority traffic above its plan in one minute, units per second: highest rate, and seconds above."""

    priority_rate: float
    plan: float
    seconds: int


@dataclass(frozen=True, slots=True)
class ThrottleRecord:
    """One throttled request, with all that is needed to decide it again: stamps as in ``_core/gcra.pxd``."""

    at_ms: int
    now_ns: int
    version: str
    user: str
    srv: str
    tat: int
    spare_tat: int
    backlog: int
    level: int
    active: bool
    decision: int = 0


@dataclass(frozen=True, slots=True)
class Loss:
    """Records that could not be written; `what` is one of ``event_log.schema.LOSSES``."""

    what: str
    records: int
    first_ms: int
    last_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Notification:
    """What became of telling one User about one event."""

    event: str
    user: str
    notice: str
    sender: str
    state: str
    attempts: int
    at_ms: int
    detail: str


@dataclass(slots=True)
class Batch:
    """Everything one commit writes.

    `counts` are requests by Decision by (User, SRV), and `units` by User, since the last commit; the rows by
    second, minute and event say when they were. Times of seconds and minutes are seconds since 1970.
    """

    source: Source
    from_ms: int
    to_ms: int
    mono_ns: int
    polls: int = 0
    requests: int = 0
    counts: Cells = field(default_factory=dict)
    units: Cells = field(default_factory=dict)
    minute_counts: Cells = field(default_factory=dict)
    second_counts: Cells = field(default_factory=dict)
    user_minutes: Cells = field(default_factory=dict)
    candidate_days: Cells = field(default_factory=dict)  # by (day, candidate, User)
    candidate_totals: Cells = field(default_factory=dict)  # by (User,)
    system_minutes: dict[int, SystemMinute] = field(default_factory=dict)
    system_seconds: dict[int, tuple[float, float, float, float]] = field(default_factory=dict)
    configurations: list[ConfigurationApplied] = field(default_factory=list)
    events: dict[str, Event] = field(default_factory=dict)
    event_users: dict[tuple[str, str], EventUser] = field(default_factory=dict)
    event_counts: Cells = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    priority_excesses: dict[tuple[int, str | None], PriorityExcess] = field(default_factory=dict)
    throttle_records: list[ThrottleRecord] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    notifications: list[Notification] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)
    activations: int = 0
    ended: bool = False


def config_record(config: Config) -> dict[str, Any]:
    """Return a configuration as the log keeps it: all that decides and is reported, no address or password.

    Returns
    -------
    dict
        ``system_capacity``, ``operating_threshold``, ``release_threshold``, ``unknown_allocation`` (units per
        second), ``rules`` (name to value), ``allocations`` (list of ``user``, ``category``, ``allocation``,
        ``user_ids``, in the order of the slots), ``allocations_effective_from``, ``allocations_file``,
        ``allocations_digest``, ``candidate`` (``version``, ``allocations``; None where none is tried),
        ``priority_list`` (``version``, ``effective_from``, ``approved_by``, ``source``, ``srvs``,
        ``expanded``), ``costs`` (SRV to units, those that are not 1).
    """
    listed = config.priority
    assert isinstance(listed, PriorityList)
    ids: dict[str, list[str]] = {}
    for user_id, owner in config.user_ids.items():
        ids.setdefault(owner, []).append(user_id)
    rules = (
        "mode", "sharing", "burst_s", "activation_s", "hold_s", "tick_s", "max_retry_after_s", "spare_weight",
    )  # fmt: skip
    return {
        "system_capacity": config.system_capacity,
        "operating_threshold": config.operating_threshold,
        "release_threshold": config.release_threshold,
        "unknown_allocation": config.unknown_allocation,
        "rules": {name: getattr(config, name) for name in rules},
        "allocations": [
            {
                "user": user,
                "category": config.categories.get(user),
                "allocation": allocation,
                "user_ids": sorted(ids.get(user, [])),
            }
            for user, allocation in config.allocations.items()
        ],
        "allocations_effective_from": config.effective_from and config.effective_from.isoformat(),
        "allocations_file": config.allocations_file,
        "allocations_digest": config.allocations_digest,
        "candidate": _candidate(config),
        "priority_list": {
            "version": listed.version,
            "effective_from": listed.effective_from and listed.effective_from.isoformat(),
            "approved_by": listed.approved_by,
            "source": listed.source,
            "srvs": list(listed.srvs),
            "expanded": sorted(config.priority_srvs),
        },
        "costs": {code: cost for code, cost in sorted(config.costs.items()) if cost != 1},
    }


def _candidate(config: Config) -> dict[str, Any] | None:
    if config.candidate_allocations is None:
        return None
    return {"version": config.candidate_version, "allocations": dict(config.candidate_allocations)}
