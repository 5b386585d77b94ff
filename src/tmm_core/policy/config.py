"""The configuration: what is in force, as a value that is either right as a whole or refused as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, FrozenInstanceError, dataclass, field, fields
from datetime import date
from functools import cached_property
from os import PathLike
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, dataclass_transform

from tmm_core.errors import ConfigError, Mistake
from tmm_core.policy import validation as check
from tmm_core.policy.service_requests import expand

__all__ = ["Config", "PriorityList"]

#: Release threshold as a share of the operating threshold, where none is configured.
DEFAULT_RELEASE = 0.95
# Allocations are decimal fractions rounded to binary: three thirds of a threshold may add up to an ulp more.
_ROUNDING = 1e-9
_NOTHING: Mapping[str, Any] = MappingProxyType({})


_V = TypeVar("_V", bound="_Value")


class _Value:
    """What a frozen dataclass writes for a class, but for its ``__init__``: that one calls `_begin`.

    It is written here once, instead of as source that is compiled at every start.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def _begin(self, given: dict[str, Any]) -> None:
        """Set the fields; `given` holds their values by name, and may hold more."""
        for each in fields(self):
            object.__setattr__(self, each.name, given[each.name])

    def _content(self) -> tuple[object, ...]:
        return tuple(getattr(self, each.name) for each in fields(self))

    def __setattr__(self, name: str, given: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Value) or other.__class__ is not self.__class__:
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def __repr__(self) -> str:
        shown = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
        return f"{self.__class__.__qualname__}({', '.join(shown)})"


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def _frozen_value(cls: type[_V]) -> type[_V]:
    """Make a dataclass of a subclass of `_Value`: `dataclasses.fields` and `replace` know it."""
    return dataclass(init=False, repr=False, eq=False)(cls)


@_frozen_value
class PriorityList(_Value):
    """The Priority Service Request List: SRVs that are never throttled (SECMP0067; managed by the Panel).

    Attributes
    ----------
    srvs : tuple of str
        SRVs (``"4.4.4"``) and Service References (``"4.4"``: all its variants), as listed.
    version : str
    effective_from : date or None
        First day in force.
    approved_by : str
        Who approved this version.
    source : str
        Where the list comes from.

    Raises
    ------
    ConfigError
        Entries that are not in the catalogue or are listed twice, all of them at once.

    Examples
    --------
    >>> sorted(PriorityList(("2.2", "4.8")).expanded)
    ['2.2', '4.8.1', '4.8.2', '4.8.3']
    """

    srvs: tuple[str, ...]
    version: str
    effective_from: date | None
    approved_by: str
    source: str

    def __init__(
        self,
        srvs: Sequence[str],
        version: str = "",
        effective_from: date | None = None,
        approved_by: str = "",
        source: str = "",
    ) -> None:
        self._begin(locals())
        found: list[Mistake] = []
        object.__setattr__(self, "srvs", check.srvs_of(self.srvs, "srvs", found))
        for name in ("version", "approved_by", "source"):
            value = getattr(self, name)
            if not isinstance(value, str) or check.hidden_in(value):
                fault = f"{name} {check.shown(value)} must be a text on one line"
                found.append(Mistake(fault, field=name))
        if self.effective_from is not None and type(self.effective_from) is not date:
            fault = (
                f"effective_from {check.shown(self.effective_from)} must be a date, for example 2026-12-01"
            )
            found.append(Mistake(fault, field="effective_from"))
        if found:
            raise ConfigError(found)

    @property
    def expanded(self) -> frozenset[str]:
        """The SRVs on the list, each Service Reference replaced by its variants."""
        return expand(self.srvs)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> PriorityList:
        """Read a priority list in TOML.

        Raises
        ------
        ConfigError
            All mistakes of the file, with line, column and field.
        """
        from tmm_core.policy.config_files import load_priority_list

        return load_priority_list(path)


@_frozen_value
class Config(_Value):
    """Everything the Mechanism is told: thresholds, allocations, priority list, costs, rules.

    Units are units per second, where a Service Request is one unit unless `costs` says otherwise, and
    seconds. What the Modification Report leaves open has a default here; the defaults are this project's.

    Parameters
    ----------
    system_capacity, operating_threshold : float
        Units per second; the threshold is at most the capacity.
    release_threshold : float, optional
        Units per second, below the operating threshold; 0.95 of it by default.
    allocations : mapping of str to float
        Units per second by User; 0 (suspended: spare capacity and priority only) or 1e-5 to 1e6. With
        `unknown_allocation` they add up to no more than the operating threshold.
    user_ids : mapping of str to str
        EUI-64 identifier to User; a User's name is an identifier as well.
    priority : PriorityList or sequence of str
    costs : mapping of str to int
        Units by SRV, 1 to 1000; 1 where none is given.
    burst_s : float
        Tolerance of a User's bucket, in seconds of its allocation; 0 to 3600.
    activation_s : float
        Backlog at which the Mechanism becomes active, in seconds of the operating threshold; 0.01 to 10.
    hold_s : float
        Seconds of offered load below the release threshold before it is inactive again; 0 to 3600.
    tick_s : float
        Seconds between control ticks; 0.001 to 1.
    max_retry_after_s : float
        Longest Retry-After, seconds; 1 to 86400.
    sharing : {"fair", "first-come", "none"}
        Who gets the spare capacity.
    mode : {"enforce", "observe"}
        ``observe`` decides, counts and logs, and refuses nothing.
    unknown_allocation : float
        Units per second for all unknown Users together.
    spare_weight : float
        Weight, in units per second, by which a User of allocation 0 and the pool of unknown Users share in
        the spare capacity; 1e-3 to 1e6.
    categories : mapping of str to str
        Party category by User.
    max_users : int
        Slots kept for Users; 0 lets the Mechanism choose.
    shared, cluster_url, event_log : str, optional
        Name or path of the block shared by the host's processes; store shared by hosts; event log file.
    source, allocations_file : str, optional
        Files this configuration was read from.
    effective_from : date, optional
        First day of the allocations in force.
    allocations_digest : str, optional
        First twelve digits of the SHA-256 of the allocations file, as `tmm allocate` shows it.
    candidate_allocations : mapping of str to float, optional
        Allocations to try beside those in force, without effect: checked like `allocations`. A User that is
        not in them has 0 there; the pool of unknown Users keeps `unknown_allocation`.
    candidate_file : str, optional
        File the candidate was read from.

    Raises
    ------
    ConfigError
        All mistakes at once; nothing is made.

    Notes
    -----
    Immutable and *thread-safe*.

    Examples
    --------
    >>> config = Config(500, 400, allocations={"Northern Energy": 300.0}, priority=["7.4"])
    >>> config.release_threshold, config.users, config.cost_of("4.1.1")
    (380.0, ('Northern Energy',), 1)
    """

    system_capacity: float
    operating_threshold: float
    release_threshold: float | None
    allocations: Mapping[str, float]
    user_ids: Mapping[str, str]
    priority: PriorityList | Sequence[str]
    costs: Mapping[str, int]
    burst_s: float
    activation_s: float
    hold_s: float
    tick_s: float
    max_retry_after_s: float
    sharing: str
    mode: str
    unknown_allocation: float
    spare_weight: float
    categories: Mapping[str, str]
    max_users: int
    shared: str | None
    cluster_url: str | None = field(repr=False)  # may hold a password
    event_log: str | None
    source: str | None
    allocations_file: str | None
    effective_from: date | None
    allocations_digest: str | None
    candidate_allocations: Mapping[str, float] | None
    candidate_file: str | None

    def __init__(
        self,
        system_capacity: float,
        operating_threshold: float,
        release_threshold: float | None = None,
        allocations: Mapping[str, float] = _NOTHING,
        user_ids: Mapping[str, str] = _NOTHING,
        priority: PriorityList | Sequence[str] = (),
        costs: Mapping[str, int] = _NOTHING,
        burst_s: float = 1.0,
        activation_s: float = 0.25,
        hold_s: float = 10.0,
        tick_s: float = 0.01,
        max_retry_after_s: float = 300,
        sharing: str = "fair",
        mode: str = "enforce",
        unknown_allocation: float = 0.0,
        spare_weight: float = 1.0,
        categories: Mapping[str, str] = _NOTHING,
        max_users: int = 0,
        shared: str | None = None,
        cluster_url: str | None = None,
        event_log: str | None = None,
        source: str | None = None,
        allocations_file: str | None = None,
        effective_from: date | None = None,
        allocations_digest: str | None = None,
        candidate_allocations: Mapping[str, float] | None = None,
        candidate_file: str | None = None,
    ) -> None:
        self._begin(locals())
        found: list[Mistake] = []
        checked = {
            **self._checked_capacity(found),
            **self._checked_rules(found),
            **self._checked_users(found),
        }
        if found:
            raise ConfigError(found)
        for name, value in checked.items():
            if isinstance(value, dict):
                value = MappingProxyType(value)
            object.__setattr__(self, name, value)

    def _checked_capacity(self, found: list[Mistake]) -> dict[str, Any]:
        def threshold(name: str, value: object) -> float | None:
            return check.number(name, value, 0, check.MAX_THRESHOLD, found, above=True)

        capacity = threshold("system_capacity", self.system_capacity)
        operating = threshold("operating_threshold", self.operating_threshold)
        release = None
        if self.release_threshold is not None:
            release = threshold("release_threshold", self.release_threshold)
        elif operating is not None:
            release = DEFAULT_RELEASE * operating
        if operating is not None and capacity is not None and operating > capacity:
            fault = f"operating_threshold {operating:.15g} is above system_capacity {capacity:.15g}"
            found.append(Mistake(fault, field="operating_threshold"))
        if operating is not None and release is not None and release >= operating:
            fault = f"release_threshold {release:.15g} must be below operating_threshold {operating:.15g}"
            found.append(Mistake(fault, field="release_threshold"))
        return {"system_capacity": capacity, "operating_threshold": operating, "release_threshold": release}

    def _checked_rules(self, found: list[Mistake]) -> dict[str, Any]:
        limits = {
            "burst_s": (0, 3600),
            "activation_s": (0.01, 10),
            "hold_s": (0, 3600),
            "tick_s": (0.001, 1),
            "max_retry_after_s": (1, 86_400),
            "spare_weight": (1e-3, 1e6),
        }
        checked: dict[str, Any] = {
            name: check.number(name, getattr(self, name), low, high, found)
            for name, (low, high) in limits.items()
        }
        check.choice("sharing", self.sharing, check.SHARINGS, found)
        check.choice("mode", self.mode, check.MODES, found)
        for name in (
            "shared", "cluster_url", "event_log", "source", "allocations_file", "allocations_digest",
            "candidate_file",
        ):  # fmt: skip
            check.optional_text(name, getattr(self, name), found)
        if self.effective_from is not None and type(self.effective_from) is not date:
            fault = f"effective_from {check.shown(self.effective_from)} must be a date"
            found.append(Mistake(fault, field="effective_from"))
        return checked

    def _checked_users(self, found: list[Mistake]) -> dict[str, Any]:
        fault = check.allocation_fault(self.unknown_allocation, "unknown_allocation")
        if fault is not None:
            found.append(Mistake(fault, field="unknown_allocation"))
        unknown = check.as_number(self.unknown_allocation)
        allocations = check.allocations_of(self.allocations, found)
        costs = check.costs_of(self.costs, found)
        candidate = None
        if self.candidate_allocations is not None:
            candidate = check.allocations_of(self.candidate_allocations, found, "candidate_allocations")
        for field_name, rates in (("allocations", allocations), ("candidate_allocations", candidate)):
            if unknown is not None and rates is not None:
                self._check_sum(field_name, rates, unknown, found)
                self._check_charges(field_name, rates, unknown, max(costs.values(), default=1), found)
        users = check.whole("max_users", self.max_users, 0, check.MAX_USERS, found)
        if users and users < len(allocations):
            fault = f"max_users {users} is below the number of Users, {len(allocations)}"
            found.append(Mistake(fault, field="max_users"))
        return {
            "unknown_allocation": unknown,
            "allocations": allocations,
            "candidate_allocations": candidate,
            "user_ids": check.user_ids_of(self.user_ids, allocations, found),
            "categories": check.categories_of(self.categories, allocations, found),
            "costs": costs,
            "max_users": users,
            "priority": self._checked_priority(found),
        }

    def _check_sum(
        self, name: str, allocations: Mapping[str, float], unknown: float, found: list[Mistake]
    ) -> None:
        operating = check.as_number(self.operating_threshold)
        total = math.fsum(rate for rate in (*allocations.values(), unknown) if math.isfinite(rate))
        if operating is not None and 0 < operating * (1 + _ROUNDING) < total:
            fault = (
                f"{name.replace('_', ' ')} add up to {total:.15g} units per second"
                + (f" (unknown Users: {unknown:.15g})" if unknown else "")
                + f", above operating_threshold {operating:.15g}"
            )
            found.append(Mistake(fault, field=name))

    def _check_charges(
        self, name: str, allocations: Mapping[str, float], unknown: float, cost: int, found: list[Mistake]
    ) -> None:
        """One Service Request of the highest cost must be paid within 100 days of each allocation."""
        if cost == 1:
            return
        least = cost / check.MAX_CHARGE_S
        rates = {check.element(name, user): rate for user, rate in allocations.items()}
        if name == "allocations":
            rates["unknown_allocation"] = unknown
        for field_name, rate in rates.items():
            if 0 < rate < least:
                days = f"{cost / rate / 86_400:.0f} days"
                fault = f"{field_name}: allocation {rate:.15g} needs {days} for a cost of {cost},"
                found.append(Mistake(f"{fault} at most 100 are allowed", field=field_name))

    def _checked_priority(self, found: list[Mistake]) -> PriorityList | None:
        if isinstance(self.priority, PriorityList):
            return self.priority
        wrong: list[Mistake] = []
        srvs = check.srvs_of(self.priority, "priority", wrong)
        found += wrong
        return PriorityList(srvs)

    def __reduce__(self) -> tuple[object, ...]:
        # Read-only views of dictionaries cannot be pickled; a copy in another process is checked again.
        values = {
            each.name: dict(value) if isinstance(value, MappingProxyType) else value
            for each in fields(self)
            for value in [getattr(self, each.name)]
        }
        return _unpickled, (values,)

    def __hash__(self) -> int:
        return hash(self.version)

    @property
    def users(self) -> tuple[str, ...]:
        """Names of the Users, in the order of the file."""
        return tuple(self.allocations)

    @cached_property
    def priority_srvs(self) -> frozenset[str]:
        """SRVs on the priority list, each Service Reference replaced by its variants."""
        assert isinstance(self.priority, PriorityList)
        return self.priority.expanded

    def cost_of(self, srv_code: str) -> int:
        """Return the cost of an SRV in units; 1 where none is configured."""
        return self.costs.get(srv_code, 1)

    @cached_property
    def version(self) -> str:
        """Twelve hexadecimal digits that name the content that decides.

        The first digits of SHA-256 over thresholds, rules, Users in order, identifiers, costs and SRVs on
        the priority list: the same on every machine, whichever files it was read from. The order of the
        Users counts, as it fixes their slots.
        """
        import hashlib  # with json half the time of importing the package, and needed after the start
        import json

        names = (
            "system_capacity", "operating_threshold", "release_threshold", "burst_s", "activation_s",
            "hold_s", "tick_s", "max_retry_after_s", "sharing", "mode", "unknown_allocation", "spare_weight",
        )  # fmt: skip
        content = {
            "format": 1,
            **{name: getattr(self, name) for name in names},
            "allocations": list(self.allocations.items()),
            "user_ids": sorted(self.user_ids.items()),
            "costs": sorted((code, cost) for code, cost in self.costs.items() if cost != 1),
            "priority": sorted(self.priority_srvs),
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:12]

    @cached_property
    def candidate_version(self) -> str:
        """Twelve hexadecimal digits that name the candidate allocations; empty where there are none.

        They decide nothing, so `version` is the same with and without them.
        """
        if self.candidate_allocations is None:
            return ""
        import hashlib
        import json

        canonical = json.dumps(sorted(self.candidate_allocations.items()), allow_nan=False)
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:12]

    @classmethod
    def load(cls, path: str | PathLike[str], *, on: date | None = None) -> Config:
        """Read ``tmm.toml`` and the files it names.

        Parameters
        ----------
        path : path
            The ``tmm.toml``; paths in it are relative to its folder.
        on : date, optional
            In a folder of allocations, the last file dated on or before this day is in force; today (UTC)
            by default.

        Raises
        ------
        ConfigError
            All mistakes of all the files, each with file, line and field.
        """
        from tmm_core.policy.config_files import load_config

        return load_config(path, on=on)


def _unpickled(values: dict[str, Any]) -> Config:
    return Config(**values)
