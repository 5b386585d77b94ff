"""What is in force, as values for programs, and what of it is allowed but probably not meant."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

from tmm_core.policy.catalogue import by_srv_code
from tmm_core.policy.config import Config, PriorityList
from tmm_core.policy.service_requests import srv_codes
from tmm_core.policy.validation import is_eui64

__all__ = ["BURST_WINDOW_S", "burst_at_once", "burst_in", "describe", "warnings", "without_password"]

#: Seconds in which bursts are told.
BURST_WINDOW_S = 0.1
# A batch of fewer Service Requests than this is no burst: warn where it would be throttled.
_SMALL_BATCH = 10
_NAMED = 3  # Users a warning names
_PASSWORD = re.compile(r"(://[^/@]*?:)[^/]*@")
_MONTH_DAYS = 31
_YEAR_DAYS = 366


def burst_in(config: Config, allocation: float, window_s: float) -> int:
    """Return how many units a User at rest can send in a time and be inside its allocation with all of them.

    ``floor((burst_s + window_s) * allocation) + 1``: the bucket's tolerance, what flows in meanwhile, and
    the unit that a bucket at rest always admits (GCRA); 0 for an allocation of 0.

    Parameters
    ----------
    config : Config
    allocation : float
        Units per second.
    window_s : float
        Seconds from the first to the last; 0 is all at once.

    Notes
    -----
    *Thread-safe.* Exact for Service Requests that cost one unit.

    Examples
    --------
    >>> burst_in(Config(500, 400, burst_s=1.0), 20.0, 0.1)
    23
    """
    if not allocation:
        return 0
    times = Fraction(repr(config.burst_s)) + Fraction(repr(float(window_s)))
    return math.floor(times * Fraction(repr(allocation))) + 1


def burst_at_once(config: Config, allocation: float) -> int:
    """Return how many units a User at rest can send at one moment inside its allocation. *Thread-safe.*"""
    return burst_in(config, allocation, 0.0)


def describe(config: Config) -> dict[str, Any]:
    """Return everything in force, ready for JSON; a password in the cluster's address is left out.

    *Thread-safe.*
    """
    names = by_srv_code()
    priority = _priority_of(config)
    total = math.fsum(config.allocations.values())
    identifiers: dict[str, list[str]] = {user: [] for user in config.users}
    for user_id, user in config.user_ids.items():
        identifiers[user].append(user_id)
    return {
        "version": config.version,
        "mode": config.mode,
        "sharing": config.sharing,
        "capacity": {
            "unit": "units per second",
            "system_capacity": config.system_capacity,
            "operating_threshold": config.operating_threshold,
            "release_threshold": config.release_threshold,
        },
        "mechanism": {
            "activation_s": config.activation_s,
            "hold_s": config.hold_s,
            "burst_s": config.burst_s,
            "tick_s": config.tick_s,
            "max_retry_after_s": config.max_retry_after_s,
            "spare_weight": config.spare_weight,
        },
        "files": {
            "configuration": config.source,
            "allocations": config.allocations_file,
            "allocations_digest": config.allocations_digest,
            "allocations_effective_from": _iso(config.effective_from),
            "candidate_allocations": config.candidate_file,
            "event_log": config.event_log,
        },
        "state": {"shared": config.shared, "max_users": config.max_users},
        "cluster": {"url": without_password(config.cluster_url)},
        "allocations": {
            "users": len(config.users),
            "total": total,
            "unknown_users": config.unknown_allocation,
            "share_of_operating_threshold": (total + config.unknown_allocation) / config.operating_threshold,
        },
        "candidate": _candidate(config),
        "priority_list": {
            "version": priority.version,
            "effective_from": _iso(priority.effective_from),
            "approved_by": priority.approved_by,
            "source": priority.source,
            "listed": list(priority.srvs),
            "srvs": [
                {"srv": code, "name": names[code].name}
                for code in srv_codes()
                if code in config.priority_srvs
            ],
        },
        "costs": [
            {"srv": code, "name": names[code].name, "cost": cost} for code, cost in config.costs.items()
        ],
        "users": [
            {
                "user": user,
                "category": config.categories.get(user, ""),
                "user_ids": identifiers[user],
                "allocation": allocation,
                "burst_at_once": burst_at_once(config, allocation),
                "burst_in_100_ms": burst_in(config, allocation, BURST_WINDOW_S),
            }
            for user, allocation in config.allocations.items()
        ],
    }


def _candidate(config: Config) -> dict[str, Any] | None:
    if config.candidate_allocations is None:
        return None
    rates = config.candidate_allocations
    return {
        "version": config.candidate_version,
        "file": config.candidate_file,
        "total": math.fsum(rates.values()),
        "changed": [
            {"user": user, "allocation": config.allocations.get(user), "candidate": rates.get(user)}
            for user in dict.fromkeys((*config.users, *rates))
            if config.allocations.get(user) != rates.get(user)
        ],
    }


def without_password(url: str | None) -> str | None:
    """Return an address without the password in it.

    Examples
    --------
    >>> without_password("redis://tmm:secret@127.0.0.1:6379/0")
    'redis://tmm:***@127.0.0.1:6379/0'
    """
    return None if url is None else _PASSWORD.sub(r"\1***@", url)


def warnings(config: Config, *, on: date | None = None) -> list[str]:
    """Return what is allowed but probably not meant, one sentence each.

    Parameters
    ----------
    config : Config
    on : date, optional
        The day to judge dates by; today (UTC) by default.

    Notes
    -----
    *Thread-safe.*
    """
    day = on or datetime.now(UTC).date()
    return [
        *_rules(config),
        *_allocations(config, day),
        *_candidates(config),
        *_users(config),
        *_priority(config, day),
    ]


def _rules(config: Config) -> Iterator[str]:
    threshold, release = config.operating_threshold, config.release_threshold or 0.0
    if config.mode == "observe":
        yield 'mode is "observe": decisions are counted and logged, and nothing is refused.'
    if config.cluster_url is not None:
        yield (
            "[cluster] url is kept but not used: hosts do not share a state yet, so each host gives every User the "
            "whole of its allocation; divide allocations and thresholds by the number of hosts."
        )
    if threshold == config.system_capacity:
        yield (
            "operating_threshold is equal to system_capacity: there is no room for what is admitted while the "
            "Mechanism becomes active."
        )
    if release > 0.99 * threshold:
        yield (
            f"release_threshold {release:g} is within 1 % of operating_threshold {threshold:g}: one overload may "
            "become several activations."
        )
    elif release < 0.5 * threshold:
        yield (
            f"release_threshold {release:g} is below half of operating_threshold {threshold:g}: the Mechanism may "
            "stay active long after an overload."
        )
    if config.hold_s < 1:
        yield f"hold_s {config.hold_s:g} is below 1 second: one overload may become several activations."
    elif config.hold_s > 600:
        yield f"hold_s {config.hold_s:g} keeps the Mechanism active over ten minutes after each overload."
    if config.activation_s > 2:
        yield (
            f"activation_s {config.activation_s:g} lets a backlog of {config.activation_s * threshold:,.0f} units "
            "build up before the Mechanism becomes active."
        )
    if config.event_log is None:
        yield "No event_log is named: activations and throttling are not recorded."


def _allocations(config: Config, day: date) -> Iterator[str]:
    if not config.users:
        yield "No allocations are named: all Service Users share the pool of the unknown ones."
        return
    begins = config.effective_from
    if begins is not None and begins > day:
        yield f"The allocations begin on {begins}, after {day}, but are in force: they are named as a file."
    elif begins is not None and (age := (day - begins).days) > _MONTH_DAYS:
        yield f"The allocations are those of {begins}, {age} days old: they are to be updated monthly."
    total = math.fsum((*config.allocations.values(), config.unknown_allocation))
    share = total / config.operating_threshold
    if share < 0.25:
        yield (
            f"The allocations add up to {total:,.6g} units per second, {100 * share:.2g} % of the "
            "operating_threshold: most of what it allows is shared as spare capacity."
        )
    elif share > 0.95:
        yield (
            f"The allocations add up to {total:,.6g} units per second, {100 * share:.4g} % of the "
            "operating_threshold: priority requests, which come on top, may lift the load above it."
        )
    if config.max_users == len(config.users):
        yield f"max_users {config.max_users} leaves no slot for a new User: one would need a restart."


def _candidates(config: Config) -> Iterator[str]:
    rates = config.candidate_allocations
    if rates is None:
        return
    if dict(rates) == dict(config.allocations):
        yield "The candidate allocations are those in force: there is nothing to try."
    without = [user for user in config.users if user not in rates]
    if without:
        verb = "is" if len(without) == 1 else "are"
        yield f"{_names(without)} {verb} not in the candidate allocations: tried with 0."
    new = [user for user in rates if user not in config.allocations]
    if new:
        whose = "has no identifiers" if len(new) == 1 else "have no identifiers"
        yield (
            f"{_names(new)} {whose} in the allocations in force: their Service Requests are those of unknown "
            "Users, and the candidate is not tried on them."
        )


def _users(config: Config) -> Iterator[str]:
    small = sorted(
        (burst_in(config, allocation, BURST_WINDOW_S), place, user)
        for place, (user, allocation) in enumerate(config.allocations.items())
        if allocation
    )
    small = [each for each in small if each[0] < _SMALL_BATCH]
    if small:
        least, _, user = small[0]
        others = _count(len(small) - 1, "other User")
        yield (
            f"A burst of {least + 1} in 100 ms from {user} would be throttled once active: its allocation is "
            f"{config.allocations[user]:g} units per second with burst_s {config.burst_s:g}"
            + (f"; so would one of {_SMALL_BATCH} from {others}." if small[1:] else ".")
        )
    owners = set(config.user_ids.values())
    # A User named by its EUI-64 is known by it.
    nameless = [user for user in config.users if user not in owners and not is_eui64(user)]
    if nameless:
        verb = "has" if len(nameless) == 1 else "have"
        yield f"{_names(nameless)} {verb} no EUI-64: only a gateway that passes the name can tell them."
    suspended = [user for user, allocation in config.allocations.items() if not allocation]
    if suspended:
        verb = "has" if len(suspended) == 1 else "have"
        yield f"{_names(suspended)} {verb} an allocation of 0: while active, spare capacity only."
    if config.users and not config.unknown_allocation:
        yield (
            "[unknown_users] allocation is 0: while active, Users that are not in the allocations get spare "
            "capacity only."
        )


def _priority(config: Config, day: date) -> Iterator[str]:
    priority = _priority_of(config)
    if not priority.srvs:
        yield "The priority list is empty: every Service Request may be throttled."
        return
    which = f"The priority list {priority.version}" if priority.version else "The priority list"
    if not priority.approved_by.strip():
        yield f"{which} does not say who approved it."
    begins = priority.effective_from
    if begins is not None and begins > day:
        yield f"{which} begins on {begins}, after {day}, but it is in force."
    elif begins is not None and (day - begins).days > _YEAR_DAYS:
        yield f"{which} is that of {begins}, more than a year before {day}: it may be out of date."
    elif begins is None and config.source is not None:
        yield f"{which} does not say since when it is in force."
    listed, known = len(config.priority_srvs), len(srv_codes())
    if listed > known // 2:
        yield f"{which} names {listed} of the {known} SRVs: what is on it is never throttled."


def _priority_of(config: Config) -> PriorityList:
    assert isinstance(config.priority, PriorityList), "Config makes one of a sequence"
    return config.priority


def _names(users: Sequence[str]) -> str:
    if len(users) <= _NAMED:
        return " and ".join(", ".join(users).rsplit(", ", 1)) if len(users) > 1 else users[0]
    return f"{', '.join(users[:_NAMED])} and {_count(len(users) - _NAMED, 'other User')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()
