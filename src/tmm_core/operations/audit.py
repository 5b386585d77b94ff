"""Decide throttled requests again from their records, slowly, in exact fractions; compare with what was decided.

The rules are written down here once more, from the sentence and design, sharing no code with the engine: two
that agree are better than one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from os import PathLike
from typing import Any

from tmm_core.mechanism import UNKNOWN, Decision
from tmm_core.operations.event_log.event_records import ThrottleRecord, iso
from tmm_core.operations.event_log.files import LogSet

_STAMPS = 128 * 1_000_000_000  # a stamp is 1/128 ns, counted modulo 2**64
_WORD = 1 << 64
# A word further ahead than 2**61 stamps (208 days) is a past one; one further ahead than any charge and a
# second could have put it was charged by another clock or another share, and counts as a full bucket.
_WRAPPED = Fraction(1 << 61, _STAMPS)
_SKEW = Fraction(1)
_LEVEL = 65_536
_SPARE_BURST = Fraction(1, 4)  # seconds of its share that a User may use at once
_BRAKE = Fraction(1, 5)  # of activation_s: a backlog above it stops spare admissions
_RATE = 1024  # weights are whole 1/1024 units per second, at least 10
_LEAST_WEIGHT = 10
_LONGEST_SPARE = Fraction(1 << 48, _STAMPS)  # seconds per unit: a smaller share counts as this


def decide_again(record: ThrottleRecord, configuration: Mapping[str, Any]) -> Decision:
    """Decide a recorded request again, in exact fractions of seconds.

    Parameters
    ----------
    configuration : mapping
        Of the record's version, as in the event log (`config_record`).
    """
    rules = configuration["rules"]
    if record.srv in configuration["priority_list"]["expanded"]:
        return Decision.PRIORITY
    costs = configuration["costs"]
    dearest = max([1, *costs.values()])
    allocation = _allocation(record.user, configuration)
    burst = _number(rules["burst_s"])
    if allocation > 0 and _ahead(record.tat, record.now_ns, burst, dearest / allocation) <= burst:
        return Decision.WITHIN_ALLOCATION
    if not record.active:
        return Decision.SPARE_CAPACITY
    braked = Fraction(record.backlog, _STAMPS) > _number(rules["activation_s"]) * _BRAKE
    if rules["sharing"] == "none" or braked:
        return Decision.THROTTLED
    if rules["sharing"] == "first-come":
        return Decision.SPARE_CAPACITY
    if record.level <= 0:
        return Decision.THROTTLED
    weight = allocation if record.user != UNKNOWN and allocation > 0 else _number(rules["spare_weight"])
    weight = Fraction(max(int(weight * _RATE), _LEAST_WEIGHT), _RATE)
    each = min(1 / (weight * Fraction(record.level, _LEVEL)), _LONGEST_SPARE)
    spare = _ahead(record.spare_tat, record.now_ns, _SPARE_BURST, dearest * each)
    return Decision.SPARE_CAPACITY if spare <= _SPARE_BURST else Decision.THROTTLED


def _number(value: float) -> Fraction:
    """The decimal number that was configured."""
    return Fraction(repr(float(value)))


def _allocation(user: str, configuration: Mapping[str, Any]) -> Fraction:
    if user == UNKNOWN:
        return _number(configuration["unknown_allocation"])
    for entry in configuration["allocations"]:
        if entry["user"] == user:
            return _number(entry["allocation"])
    return Fraction(0)  # no longer named


def _ahead(word: int, now_ns: int, tolerance: Fraction, longest: Fraction) -> Fraction:
    """By how many seconds a bucket is ahead of now: 0 at rest."""
    lead = (word - now_ns * 128) % _WORD
    if lead >= _WORD // 2:
        return Fraction(0)
    seconds = Fraction(lead, _STAMPS)
    if seconds > _WRAPPED:
        return Fraction(0)
    return tolerance if seconds > tolerance + longest + _SKEW else seconds


@dataclass(frozen=True, slots=True)
class Finding:
    """A record that does not agree, or cannot be decided again."""

    host: str
    at: str
    user: str
    srv: str
    version: str
    recorded: str
    again: str

    def __str__(self) -> str:
        return (
            f"{self.at} {self.host}: {self.srv} of {self.user}, version {self.version}: "
            f"recorded {self.recorded}, decided again {self.again}"
        )


@dataclass(slots=True)
class Audit:
    """The result: `records` looked at, of which `agree`; the others are `findings`.

    Attributes
    ----------
    throttled : int
        All throttled requests in the logs, recorded or not.
    lost : int
        Records that could not be written.
    """

    records: int = 0
    agree: int = 0
    throttled: int = 0
    lost: int = 0
    findings: list[Finding] = field(default_factory=list)


_RECORDS = (
    "SELECT at_ms, now_ns, version, name AS user, code AS srv, tat, spare_tat, backlog, level, active, decision"
    " FROM throttle_records"
    " JOIN users USING (user) JOIN srvs USING (srv) WHERE at_ms >= ? AND at_ms < ? ORDER BY id"
)


def audit(
    paths: Iterable[str | PathLike[str]], *, since_ms: int = 0, until_ms: int = 1 << 62, most: int = 1000
) -> Audit:
    """Decide every throttle record of some logs again.

    Parameters
    ----------
    paths : iterable of path
        As for `LogSet`.
    since_ms, until_ms : int
        UTC milliseconds since 1970; the end is not included.
    most : int
        Findings that are kept; all are counted.

    Raises
    ------
    EventLogError
        A log cannot be read.
    """
    result = Audit()
    with LogSet(paths) as logs:
        versions = {
            row["version"]: json.loads(row["description"])
            for _, row in logs.rows("SELECT version, description FROM configurations")
        }
        for file, row in logs.rows(_RECORDS, (since_ms, until_ms)):
            record = ThrottleRecord(**dict(row))
            known = versions.get(record.version)
            again = None if known is None else decide_again(record, known)
            result.records += 1
            if again is not None and int(again) == record.decision:
                result.agree += 1
            elif len(result.findings) < most:
                result.findings.append(
                    Finding(
                        file.host, iso(record.at_ms), record.user, record.srv, record.version,
                        Decision(record.decision).name,
                        "not possible: this version is in none of the logs" if again is None else again.name,
                    )
                )  # fmt: skip
        bounds = (since_ms // 60_000 * 60, min(until_ms // 1000, 1 << 62))
        counted = "SELECT ifnull(sum(throttled), 0) FROM user_minutes WHERE minute >= ? AND minute < ?"
        result.throttled = sum(row[0] for _, row in logs.rows(counted, bounds))
        missing = "SELECT ifnull(sum(records), 0) FROM losses WHERE what = 'throttle-record'"
        result.lost = sum(row[0] for _, row in logs.rows(missing))
    return result
