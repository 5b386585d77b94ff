"""The hall: names to numbers, configuration to the core, snapshots from the core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from tmm_core.errors import ConfigError, Mistake
from tmm_core.memory import private_block
from tmm_core.policy.config import Config
from tmm_core.policy.service_requests import srv_codes

try:
    from tmm_core._core import engine as _engine
except ImportError as error:  # pragma: no cover - only without the extension
    raise ImportError(
        f"tmm_core has no working native engine ({error}): install a wheel of tmm-core for this Python, or a C "
        "compiler and 'pip install --no-binary tmm-core tmm-core'; there is no slow substitute"
    ) from error

if TYPE_CHECKING:
    from tmm_core._core.engine import Engine, Gate, Lane

__all__ = ["UNKNOWN", "Decision", "Explanation", "Mechanism", "Snapshot", "terms_of"]

#: Name of the slot that all unknown Users share, and of the number all unknown SRVs share.
UNKNOWN = "(unknown)"

_STAMP = 128  # stamps per nanosecond: see _core/gcra.pxd
_SECOND = 1_000_000_000 * _STAMP
_RATE = 1024  # rates in the core are in 1/1024 units per second
_LEVEL = 65_536
_CHARGE_BLOCK = 16  # units: the most a worker holds back before it charges the backlog
_LONGEST_UNIT = 1 << 50  # stamps, two hours: a threshold below 1e-4 units per second counts as that
_LEAST_WEIGHT = 10  # 1/1024 units per second
_TICK_NS_PER_USER = 2_000  # a tick looks at every User: it must not come round faster than that
_SPARE_SLOTS = 1024
_WORKER_SLABS = 4  # threads that decide without the GIL at one time, beside those that hold it
_MANY_USERS = 20_000  # with more, counters are the memory: fewer slabs
_SHARINGS = {"fair": 0, "first-come": 1, "none": 2}
# Seconds of a User's share of the spare capacity it may use at once; see docs/decisions.
_SPARE_BURST_S = Fraction(1, 4)
# The backlog above which no spare capacity is given, and the one that counts at most; of activation_s.
_BRAKE = Fraction(1, 5)
_CEILING = 10


class Decision(IntEnum):
    """What the Mechanism answers to a Service Request; false only for THROTTLED."""

    THROTTLED = 0
    SPARE_CAPACITY = 1
    WITHIN_ALLOCATION = 2
    PRIORITY = 3


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The state of the Mechanism at one moment; out of date at once.

    Attributes
    ----------
    active : bool
    load, offered_load : float
        Units per second admitted, and admitted or throttled; averages over about a second.
    level : float
        A User may use `level` times its allocation in all; 1 where there is no spare capacity, 1048577 where
        everybody has all it asks for.
    activations : int
        Traffic management events since the start.
    backlog_s : float
        Seconds of work that a DSP of the operating threshold's capacity would have waiting.
    version : str
        Of the configuration in force.
    users, srvs : list of str
        Names by slot; the first of each is ``"(unknown)"``.
    counts : ndarray of int64, shape (users, srvs, 4)
        Service Requests decided since the start; the last axis is indexed by `Decision`.
    ticks : int
        Control ticks since the start.
    healed : int
        Impossible words met and healed (clocks set back, damaged memory).
    """

    active: bool
    load: float
    offered_load: float
    level: float
    activations: int
    backlog_s: float
    version: str
    users: list[str] = field(repr=False)
    srvs: list[str] = field(repr=False)
    counts: np.ndarray[Any, np.dtype[np.int64]] = field(repr=False)
    ticks: int = 0
    healed: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would be decided, and why; ``str()`` is one sentence."""

    decision: Decision
    user: str
    srv: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


class Mechanism:
    """The Traffic Management Mechanism of SECMP0067.

    A Service Request is throttled only if it is not on the priority list, its Service User is over its
    allocation, the Mechanism is active, and there is no spare capacity left for that User; every other Service
    Request is admitted.

    Parameters
    ----------
    config : Config
    start : int, optional
        Nanoseconds, monotonic: drive the Mechanism on a clock of your own from here on, giving `now` to every
        call. By default it reads the monotonic clock itself.

    Raises
    ------
    MemoryLayoutError
        There is no memory for so many Users.

    Notes
    -----
    *Thread-safe.* `admit`, `admit_at`, `admit_many` and `retry_after` are the engine's own methods.

    Examples
    --------
    >>> mechanism = Mechanism(Config(500, 400, allocations={"Northern Energy": 300.0}), start=0)
    >>> mechanism.admit_at(mechanism.user("Northern Energy"), mechanism.srv("4.1.1"), 0)
    <Decision.WITHIN_ALLOCATION: 2>
    """

    __slots__ = (
        "__weakref__", "_config", "_engine", "_lock", "_names", "_slots", "_srvs", "_start",
        "admit", "admit_at", "admit_many", "retry_after",
    )  # fmt: skip

    admit: Callable[[int, int], Decision]
    admit_at: Callable[[int, int, int], Decision]
    admit_many: Callable[..., np.ndarray[Any, np.dtype[np.uint8]]]
    retry_after: Callable[..., float]

    def __init__(self, config: Config, *, start: int | None = None) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._slots = {UNKNOWN: 0}
        self._srvs = {UNKNOWN: 0, **{code: number for number, code in enumerate(srv_codes(), 1)}}
        self._engine = _private_engine(config, len(self._srvs), self._now(start))
        for name in ("admit", "admit_at", "admit_many", "retry_after"):
            setattr(self, name, getattr(self._engine, name))
        self._put_in_force(config, self._now(start))

    @classmethod
    def open(cls, path: str | PathLike[str], *, start: int | None = None) -> Mechanism:
        """Read ``tmm.toml`` and the files it names, and start.

        Raises
        ------
        ConfigError
            All mistakes of the files at once.
        """
        return cls(Config.load(path), start=start)

    def user(self, user_id: str) -> int:
        """Return the slot of a Service User by its EUI-64 or its name; the shared slot of the unknown ones, 0.

        *Thread-safe.* EUI-64 identifiers are compared without regard to case.
        """
        ids = self._names[0]
        slot = ids.get(user_id)
        if slot is None:
            slot = ids.get(user_id.upper(), 0)
        return slot

    def srv(self, srv_code: str) -> int:
        """Return the number of an SRV; the number kept for unknown ones, 0. *Thread-safe.*"""
        return self._srvs.get(srv_code, 0)

    def gate(self, user_id: str) -> Gate:
        """Return a User's own light handle, one per connection or thread.

        It follows the configuration: when `user_id` moves to another User, so does the gate.
        """
        return self._engine.gate(user_id, self._resolve)

    def lane(self) -> Lane:
        """Return a handle for a thread of Cython or C code that decides without the GIL (``tmm_core.h``).

        Raises
        ------
        RuntimeError
            All lanes are taken.
        """
        return self._engine.lane()

    def tick(self, now: int | None = None) -> bool:
        """Run a control tick if one is due; returns whether it ran.

        Decisions do so by themselves. Call it where none come for a while and the state should stay current.
        *Thread-safe.*
        """
        return self._engine.tick(now)

    def apply(self, config: Config, *, now: int | None = None) -> None:
        """Put a new configuration in force: seen whole or not at all by every decision. *Thread-safe.*

        Buckets and counts survive. Users keep their slots; one that is no longer named keeps its slot with
        an allocation of 0, and its identifiers count as unknown.

        Raises
        ------
        ConfigError
            There are more new Users than slots; the configuration in force stays.
        """
        with self._lock:
            self._put_in_force(config, self._now(now))

    def snapshot(self, now: int | None = None) -> Snapshot:
        """Return the state and the counts. *Thread-safe; out of date at once.*

        Parameters
        ----------
        now : int, optional
            Nanoseconds, monotonic; the clock by default, or the last control tick if the Mechanism is driven
            on a clock of its own.
        """
        if now is not None or self._start is None:
            self._engine.tick(now)
        config = self._config
        state = self._engine.state(now if now is not None or self._start is not None else _engine.clock())
        names = list(self._slots)
        counts = self._engine.counts()
        return Snapshot(
            active=bool(state["active"]),
            load=state["load"] / _RATE,
            offered_load=state["offered"] / _RATE,
            level=1 + state["level"] / _LEVEL,
            activations=state["activations"],
            backlog_s=state["backlog"] / _SECOND,
            version=config.version,
            users=names[: counts.shape[0]],
            srvs=list(self._srvs),
            counts=counts,
            ticks=state["ticks"],
            healed=state["healed"],
        )

    def explain(self, user_id: str, srv_code: str, *, now: int | None = None) -> Explanation:
        """Say what would be decided now, and why, in one sentence; charges nothing. *Thread-safe.*"""
        slot, number = self.user(user_id), self.srv(srv_code)
        found = self._engine.peek(slot, number, self._now(now, last=True))
        decision = Decision(found["outcome"])
        user = list(self._slots)[slot]
        allocation = self._config.allocations.get(user, self._config.unknown_allocation if slot == 0 else 0.0)
        why = _reason(found, user, srv_code if number else f"{srv_code} (unknown)", allocation)
        verb = "be throttled" if decision is Decision.THROTTLED else "be admitted"
        if decision is Decision.THROTTLED and self._config.mode == "observe":
            verb = "be counted as throttled, and admitted because the Mechanism only observes"
        sentence = f"{srv_code} from {user_id} would {verb} ({decision.name}): {why}."
        return Explanation(decision, user, srv_code if number else UNKNOWN, sentence)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    @property
    def engine(self) -> Engine:
        """The engine, for who wants to look at its words and counters."""
        return self._engine

    def close(self) -> None:
        """End: every further decision raises ValueError. Harmless when repeated."""
        self._engine.close()

    def __enter__(self) -> Mechanism:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        config = self._config
        return (
            f"<Mechanism {config.mode} at {config.operating_threshold:g} units per second, "
            f"{len(config.users)} Users, version {config.version}>"
        )

    def _now(self, now: int | None, *, last: bool = False) -> int:
        if now is not None:
            return now
        if last and self._start is not None:
            return self._engine.state()["tick_at"]
        return _engine.clock()

    def _resolve(self, user_id: str) -> tuple[int, int]:
        ids, generation = self._names
        slot = ids.get(user_id)
        return (ids.get(user_id.upper(), 0) if slot is None else slot), generation

    def _put_in_force(self, config: Config, now: int) -> None:
        slots = dict(self._slots)
        for name in config.users:
            slots.setdefault(name, len(slots))
        if len(slots) > self._engine.user_slots:
            raise ConfigError(
                Mistake(
                    f"{len(slots) - 1} Users have been named since the start, but there are slots for "
                    f"{self._engine.user_slots - 1}: start again, or configure max_users",
                    field="allocations",
                )
            )
        settings, rules, services = terms_of(config, list(slots), list(self._srvs))
        self._engine.apply(settings, rules, services, now)
        self._slots = slots
        self._config = config
        # Last, and in one store: a gate that looks in between sees the old generation and looks again.
        ids = {name: slots[name] for name in config.users}
        ids.update((user_id, slots[owner]) for user_id, owner in config.user_ids.items())
        self._names = (ids, self._engine.generation)


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
    rules : ndarray of int64, shape (users, 4)
        Interval, tolerance and share interval in stamps, weight in 1/1024 units per second.
    services : ndarray of uint32, shape (srvs,)
        cost * 2 + priority.

    Notes
    -----
    Intervals are rounded down: rounding never costs a User a unit of its allocation.
    """
    threshold = _exact(config.operating_threshold)
    activation = int(_exact(config.activation_s) * _SECOND)
    costs = [config.cost_of(code) for code in srvs]
    settings = {
        "unit": min(-(-_SECOND // threshold), _LONGEST_UNIT),
        "activation": activation,
        "brake": int(activation * _BRAKE),
        "ceiling": activation * _CEILING,
        "charge_block": min(
            max(int(threshold * _exact(config.activation_s) / _CHARGE_BLOCK), 1), _CHARGE_BLOCK
        ),
        "longest_cost": max(costs),
        "sharing": _SHARINGS[config.sharing],
        "spare_tolerance": int(_SPARE_BURST_S * _SECOND),
        "tick_ns": max(int(_exact(config.tick_s) * 1_000_000_000), _TICK_NS_PER_USER * len(users)),
        "hold_us": int(_exact(config.hold_s) * 1_000_000),
        "release_rate": int(_exact(config.release_threshold or 0) * _RATE),
        "threshold_rate": int(threshold * _RATE),
        "retry_cap": int(_exact(config.max_retry_after_s) * _SECOND),
        "uniform": int(max(costs) == 1),
        "observe": int(config.mode == "observe"),
    }
    tolerance = int(_exact(config.burst_s) * _SECOND)
    spare_weight = _exact(config.spare_weight)
    terms: dict[float, tuple[int, int, int, int]] = {}  # many Users have the same allocation
    rows = []
    for slot, name in enumerate(users):
        allocation = config.allocations.get(name, 0.0) if slot else config.unknown_allocation
        key = allocation if slot else -1.0
        row = terms.get(key)
        if row is None:
            rate = _exact(allocation)
            weight = max(int((rate if slot and rate else spare_weight) * _RATE), _LEAST_WEIGHT)
            row = (int(_SECOND / rate) if rate else 0, tolerance, _SECOND * _RATE // weight, weight)
            terms[key] = row
        rows.append(row)
    services = [cost * 2 + (code in config.priority_srvs) for code, cost in zip(srvs, costs, strict=True)]
    return settings, np.array(rows, dtype=np.int64), np.array(services, dtype=np.uint32)


def _exact(value: float) -> Fraction:
    """The decimal number that was meant: 0.1, not the binary fraction next to it."""
    return Fraction(repr(float(value)))


def _private_engine(config: Config, srvs: int, now: int) -> Engine:
    users = (config.max_users or max(_SPARE_SLOTS, 4 * len(config.users))) + 1
    slabs = 1 + (_WORKER_SLABS if users <= _MANY_USERS else 1)
    block = private_block(_engine.block_nbytes(users, srvs, slabs))
    return _engine.Engine(block, users, srvs, slabs, tuple(Decision), 0, slabs, now)


def _reason(found: dict[str, int], user: str, srv: str, allocation: float) -> str:
    whose = "the pool of unknown Users" if user == UNKNOWN else user
    if found["priority"]:
        return f"{srv} is on the priority list"
    if found["own"]:
        return f"{whose} is inside its allocation of {allocation:g} units per second"
    over = f"{whose} is over its allocation of {allocation:g} units per second"
    if not found["active"]:
        return f"{over}, but the Mechanism is inactive"
    if found["spare"]:
        return f"{over} and the Mechanism is active, but there is spare capacity left for it"
    if found["sharing"] == _SHARINGS["none"]:
        left = "spare capacity is not shared"
    elif found["brake"]:
        left = "there is no spare capacity left at all"
    else:
        left = "there is no spare capacity left for it"
    wait = (
        f"; its own allocation admits again in {found['own_wait_ns'] / 1e9:.3g} s"
        if found["allocated"]
        else ""
    )
    return f"{over}, the Mechanism is active, and {left}{wait}"
