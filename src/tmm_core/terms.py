"""A configuration by name, in the core's integers, and as text that another process of the host can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import date
from types import MappingProxyType
from typing import Any

import numpy as np

from tmm_core.errors import MemoryLayoutError, TMMError
from tmm_core.policy.config import Config, PriorityList

__all__ = [
    "LEVEL",
    "RATE",
    "SECOND",
    "View",
    "named_from",
    "own_files",
    "slot_of",
    "terms_of",
    "text_of",
    "unknown",
]

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
_SPARE_BURST_S = 0.25
_BRAKES = 5  # activation_s is so many times the backlog above which no spare capacity is given
_CEILING = 10  # the backlog that counts at most, in activation_s


class View:
    """What this process knows of the terms in force; replaced as a whole, never changed.

    Attributes
    ----------
    slots : dict of str to int
        By name, also of Users that are no longer named.
    ids : dict of str to int
        Slots by name and identifier.
    differences : list of list of int
        By slot, when the candidate allocations were first tried.
    """

    __slots__ = ("config", "differences", "generation", "ids", "slots")

    def __init__(
        self, config: Config, users: Iterable[str], generation: int, differences: list[list[int]]
    ) -> None:
        self.config = config
        self.slots = {name: slot for slot, name in enumerate(users)}
        self.ids = {name: self.slots[name] for name in config.users}
        self.ids.update((user_id, self.slots[owner]) for user_id, owner in config.user_ids.items())
        self.generation = generation
        self.differences = differences


def slot_of(ids: Mapping[str, int], user_id: str) -> int:
    """Return the slot of an identifier, an EUI-64 in any case; 0, that of the unknown ones, for any other text."""
    unknown("user_id", user_id)
    slot = ids.get(user_id)
    return ids.get(user_id.upper(), 0) if slot is None else slot


def unknown(what: str, text: object) -> int:
    """Return the number kept for unknown texts, 0; raise TypeError for what is no text."""
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a str, found {text!r:.80}") from None
    return 0


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
    threshold, per = _exact(config.operating_threshold)
    activation = _times(config.activation_s, SECOND)
    costs = [config.cost_of(code) for code in srvs]
    settings = {
        "unit": min(-(-SECOND * per // threshold), _LONGEST_UNIT),
        "activation": activation,
        "brake": activation // _BRAKES,
        "ceiling": activation * _CEILING,
        "charge_block": min(
            max(_times(config.activation_s, threshold) // (per * _CHARGE_BLOCK), 1), _CHARGE_BLOCK
        ),
        "longest_cost": max(costs),
        # A number for each: the core need only tell one from another, and none.
        "candidate": int(config.candidate_version, 16) + 1 if config.candidate_version else 0,
        "sharing": _SHARINGS[config.sharing],
        "spare_tolerance": int(_SPARE_BURST_S * SECOND),
        "tick_ns": max(_times(config.tick_s, 1_000_000_000), _TICK_NS_PER_USER * len(users)),
        "hold_us": _times(config.hold_s, 1_000_000),
        "release_rate": _times(config.release_threshold or 0, RATE),
        "threshold_rate": _times(config.operating_threshold, RATE),
        "retry_cap": _times(config.max_retry_after_s, SECOND),
        "uniform": int(max(costs) == 1),
        "observe": int(config.mode == "observe"),
    }
    tolerance = _times(config.burst_s, SECOND)
    candidates = config.candidate_allocations
    # Many Users have the same allocation.
    terms: dict[tuple[float, float], tuple[int, int, int, int, int]] = {}
    rows = []
    for slot, name in enumerate(users):
        allocation = config.allocations.get(name, 0.0) if slot else config.unknown_allocation
        candidate = allocation if candidates is None or not slot else candidates.get(name, 0.0)
        key = (allocation if slot else -1.0, candidate)
        row = terms.get(key)
        if row is None:
            weighed = allocation if slot and allocation else config.spare_weight
            weight = max(_times(weighed, RATE), _LEAST_WEIGHT)
            row = (_interval(allocation), tolerance, SECOND * RATE // weight, weight, _interval(candidate))
            terms[key] = row
        rows.append(row)
    services = [cost * 2 + (code in config.priority_srvs) for code, cost in zip(srvs, costs, strict=True)]
    return settings, np.array(rows, dtype=np.int64), np.array(services, dtype=np.uint32)


def _interval(rate: float) -> int:
    units, per = _exact(rate)
    return SECOND * per // units if units else 0


def _times(value: float, by: int) -> int:
    """Return `value`, 0 or more, times `by`, rounded down."""
    number, per = _exact(value)
    return number * by // per


def _exact(value: float) -> tuple[int, int]:
    """Return the decimal number that was meant as a ratio: 1 to 10 for 0.1, not the binary fraction next to it."""
    # By hand: fractions and decimal would be a tenth of the time of importing the package.
    digits, _, exponent = repr(float(value)).partition("e")
    whole, _, part = digits.partition(".")
    power = int(exponent or 0) - len(part)
    return int(whole + part) * 10 ** max(power, 0), 10 ** max(-power, 0)


# What differs between processes and decides nothing, and what others need not know.
_OWN_FIELDS = ("source", "allocations_file", "candidate_file", "shared", "cluster_url")


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


def named_from(text: bytes, block_id: str, path: str) -> tuple[Config, list[str], list[str], list[list[int]]]:
    """Read what `text_of` has written, and check it as if it were somebody's file.

    Returns
    -------
    config : Config
    users, srvs : list of str
    differences : list of list of int

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
        return Config(**values), users, srvs, differences
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
