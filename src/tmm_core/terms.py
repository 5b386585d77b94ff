"""A configuration in the core's integers, and as text that another process of the host can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import date
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tmm_core.errors import MemoryLayoutError, TMMError
from tmm_core.policy.config import Config, PriorityList

__all__ = ["LEVEL", "RATE", "SECOND", "Named", "named_from", "own_files", "terms_of", "text_of"]

_STAMP = 128  # stamps per nanosecond: see _core/gcra.pxd
SECOND = 1_000_000_000 * _STAMP
RATE = 1024  # rates in the core are in 1/1024 units per second
LEVEL = 65_536
_CHARGE_BLOCK = 16  # units: the most a worker holds back before it charges the backlog
_LONGEST_UNIT = 1 << 50  # stamps, two hours: a threshold below 1e-4 units per second counts as that
_LEAST_WEIGHT = 10  # 1/1024 units per second
_TICK_NS_PER_USER = 2_000  # a tick looks at every User: it must not come round faster than that
_SHARINGS = {"fair": 0, "first-come": 1, "none": 2}
# Seconds of a User's share of the spare capacity it may use at once; see docs/decisions.
_SPARE_BURST_S = Fraction(1, 4)
# The backlog above which no spare capacity is given, and the one that counts at most; of activation_s.
_BRAKE = Fraction(1, 5)
_CEILING = 10


def terms_of(
    config: Config, users: Sequence[str], srvs: Sequence[str]
) -> tuple[dict[str, int], np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.uint32]]]:
    """Return a configuration in the core's integers.

    Parameters
    ----------
    config : Config
    users, srvs : sequence of str
        Names by slot; the first of each stands for the unknown ones.

    Returns
    -------
    settings : dict of str to int
    rules : ndarray of int64, shape (users, 5)
        Interval, tolerance and share interval in stamps, weight in 1/1024 units per second, interval of the
        candidate allocation in stamps.
    services : ndarray of uint32, shape (srvs,)
        cost * 2 + priority.

    Notes
    -----
    Intervals are rounded down: rounding never costs a User a unit of its allocation.
    """
    threshold = _exact(config.operating_threshold)
    activation = int(_exact(config.activation_s) * SECOND)
    costs = [config.cost_of(code) for code in srvs]
    settings = {
        "unit": min(-(-SECOND // threshold), _LONGEST_UNIT),
        "activation": activation,
        "brake": int(activation * _BRAKE),
        "ceiling": activation * _CEILING,
        "charge_block": min(
            max(int(threshold * _exact(config.activation_s) / _CHARGE_BLOCK), 1), _CHARGE_BLOCK
        ),
        "longest_cost": max(costs),
        # A number for each: the core need only tell one from another, and none.
        "candidate": int(config.candidate_version, 16) + 1 if config.candidate_version else 0,
        "sharing": _SHARINGS[config.sharing],
        "spare_tolerance": int(_SPARE_BURST_S * SECOND),
        "tick_ns": max(int(_exact(config.tick_s) * 1_000_000_000), _TICK_NS_PER_USER * len(users)),
        "hold_us": int(_exact(config.hold_s) * 1_000_000),
        "release_rate": int(_exact(config.release_threshold or 0) * RATE),
        "threshold_rate": int(threshold * RATE),
        "retry_cap": int(_exact(config.max_retry_after_s) * SECOND),
        "uniform": int(max(costs) == 1),
        "observe": int(config.mode == "observe"),
    }
    tolerance = int(_exact(config.burst_s) * SECOND)
    spare_weight = _exact(config.spare_weight)
    candidates = config.candidate_allocations
    terms: dict[
        tuple[float, float], tuple[int, int, int, int, int]
    ] = {}  # many Users have the same allocation
    rows = []
    for slot, name in enumerate(users):
        allocation = config.allocations.get(name, 0.0) if slot else config.unknown_allocation
        candidate = allocation if candidates is None or not slot else candidates.get(name, 0.0)
        key = (allocation if slot else -1.0, candidate)
        row = terms.get(key)
        if row is None:
            rate = _exact(allocation)
            weight = max(int((rate if slot and rate else spare_weight) * RATE), _LEAST_WEIGHT)
            row = (_interval(rate), tolerance, SECOND * RATE // weight, weight, _interval(_exact(candidate)))
            terms[key] = row
        rows.append(row)
    services = [cost * 2 + (code in config.priority_srvs) for code, cost in zip(srvs, costs, strict=True)]
    return settings, np.array(rows, dtype=np.int64), np.array(services, dtype=np.uint32)


def _interval(rate: Fraction) -> int:
    return int(SECOND / rate) if rate else 0


def _exact(value: float) -> Fraction:
    """The decimal number that was meant: 0.1, not the binary fraction next to it."""
    return Fraction(repr(float(value)))


# What differs between processes and decides nothing, and what others need not know.
_OWN_FIELDS = ("source", "allocations_file", "candidate_file", "shared", "cluster_url")


class Named(NamedTuple):
    """Terms with the names they are for."""

    config: Config
    users: list[str]
    srvs: list[str]
    differences: list[list[int]]


def text_of(
    config: Config,
    users: Sequence[str],
    srvs: Sequence[str],
    block_id: str,
    differences: Sequence[Sequence[int]] = (),
) -> bytes:
    """Return names and configuration as JSON: what `named_from` reads.

    Parameters
    ----------
    config : Config
    users, srvs : sequence of str
        Names by slot.
    block_id : str
        The block they are for.
    differences : sequence of sequence of int
        Of candidate allocations, by slot, when these were first tried.
    """
    import json

    values = {each.name: _plain(getattr(config, each.name)) for each in fields(config)}
    own = {name: values.pop(name) for name in _OWN_FIELDS}
    del own["cluster_url"]  # may hold a password
    content = {
        "block": block_id, "config": values, "files": own, "users": list(users), "srvs": list(srvs),
        "differences": [list(row) for row in differences],
    }  # fmt: skip
    return json.dumps(content, ensure_ascii=True, allow_nan=False).encode("ascii")


def named_from(text: bytes, block_id: str, path: str) -> Named:
    """Read what `text_of` has written, and check it as if it were somebody's file.

    Raises
    ------
    MemoryLayoutError
        It is damaged, of another block, or of a version that knows other settings.
    """
    import json

    try:
        content = json.loads(text)
        if content["block"] != block_id:
            raise ValueError(f"names of block {content['block']!r}, expected {block_id!r}")
        values = {**content["config"], **content["files"]}
        if values["priority"] is not None:
            listed = values["priority"]
            values["priority"] = PriorityList(
                tuple(listed["srvs"]), listed["version"], _day(listed["effective_from"]),
                listed["approved_by"], listed["source"],
            )  # fmt: skip
        values["effective_from"] = _day(values["effective_from"])
        users, srvs = content["users"], content["srvs"]
        if not all(isinstance(name, str) for name in (*users, *srvs)) or len(set(users)) != len(users):
            raise ValueError("names that are no distinct texts")
        differences = content["differences"]
        if not all(len(row) == 4 and all(type(cell) is int for cell in row) for row in differences):
            raise ValueError("differences that are no rows of four counts")
        return Named(Config(**values), users, srvs, differences)
    except (ValueError, TypeError, KeyError, AttributeError, TMMError) as error:
        raise MemoryLayoutError(f"{path}: found names that cannot be read: {error}") from None


def own_files(config: Config, own: Config) -> Config:
    """Return a configuration of another process with the files and the store this process was given."""
    return replace(config, **{name: getattr(own, name) for name in _OWN_FIELDS})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping | MappingProxyType):
        return dict(value)
    if isinstance(value, PriorityList):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, date):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def _day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)
