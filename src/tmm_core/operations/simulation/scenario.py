"""What a simulation is told: Users and their clients, traffic, the DSP, faults and changes.

A scenario is a TOML file; `scenario_files` reads it. Everything in it is invented or derived unless it says
otherwise: DCC publishes neither the capacity of the DSP nor any peak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from tmm_core.policy.config import Config

POLICIES: Mapping[str, str] = {
    "none": "no protection",
    "network-503": "the network's 503 to everybody",
    "hard": "hard allocations",
    "first-come": "first come, first served",
    "fair": "the Mechanism",
    "alternative": "hold and release later",
}
"""Policies to compare, and what to call them."""
ENGINES = ("hard", "first-come", "fair")
"""Those whose answers are the engine's own decisions."""

CLIENT_KINDS = ("no-retry", "fixed", "exponential", "retry-after", "hostile")
TRAFFIC_KINDS = ("steady", "diurnal", "burst", "on-off", "mmpp", "replay")
FAULT_KINDS = ("outage", "slow", "store-lost")

PRIORITY_SRVS = (
    "1.5", "1.6", "2.1", "2.2", "2.3", "2.5", "4.3", "4.4.4", "4.4.5", "4.13", "4.14", "4.18",
    "7.1", "7.2", "7.3", "7.4",
)  # fmt: skip
"""Illustrative: prepayment and supply; no install, commission or decommission. Not the Panel's list."""

MIXES: Mapping[str, Mapping[str, int]] = {
    # Everyday business of a supplier; about a quarter of it prepayment.
    "supplier": {
        "4.1.1": 60, "4.6.1": 80, "4.8.1": 110, "4.17": 30, "2.2": 120, "4.18": 50, "4.3": 30, "4.14": 20,
        "2.3": 10, "1.1.1": 40, "1.2.1": 50, "3.1": 30, "6.13": 60, "8.2": 70, "6.2.4": 40, "6.8": 20,
        "6.11": 30, "7.4": 30, "7.1": 8, "7.2": 8, "8.1.1": 30, "8.4": 20, "6.23": 15, "11.2": 20, "12.2": 18,
        "(unknown)": 1,
    },
    "network": {"4.10": 300, "6.13": 200, "4.8.1": 220, "7.4": 120, "8.2": 100, "6.5": 20, "4.2": 40},
    "other": {"4.8.1": 350, "4.17": 250, "8.2": 250, "6.2.4": 60, "12.1": 60, "9.1": 30},
    "daily reads": {"4.8.1": 450, "4.6.1": 330, "4.17": 100, "4.1.1": 90, "4.14": 30},
    # People without power, and people who look at what they use: reads, messages, top-ups, supply status.
    "supplier in bad weather": {
        "4.1.1": 330, "4.8.1": 180, "8.2": 130, "6.13": 130, "3.1": 100, "2.2": 70, "7.4": 40, "4.18": 20,
    },
    "network in bad weather": {"4.10": 350, "6.13": 250, "4.1.1": 200, "7.4": 200},
    "runaway": {"8.2": 1000},
}  # fmt: skip
"""Weights of SRVs by kind of business; all invented."""


@dataclass(frozen=True, slots=True)
class Client:
    """How a User's software behaves when a Service Request is refused or not answered in time.

    Attributes
    ----------
    kind : str
        ``no-retry``; ``fixed``: after `base_s`; ``exponential``: after `base_s`, `factor` times longer each
        time, at most `cap_s`, less a random part of up to `jitter`; ``retry-after``: when the answer says, and as
        ``exponential`` where it does not; ``hostile``: after `base_s`, whatever the answer says.
    base_s, cap_s : float
        Seconds.
    jitter : float
        0 to 1.
    attempts : int
        After so many attempts it gives up.
    patience_s : float
        Nothing is sent later than this after the first attempt; seconds.
    """

    name: str
    kind: str
    base_s: float = 1.0
    factor: float = 2.0
    cap_s: float = 60.0
    jitter: float = 1.0
    attempts: int = 8
    patience_s: float = 600.0


@dataclass(frozen=True, slots=True)
class SimUser:
    """One invented Service User.

    Attributes
    ----------
    portfolio : float
        Smart meters and Devices; its traffic is split by it.
    allocation : float
        Units per second.
    """

    name: str
    category: str
    portfolio: float
    allocation: float
    client: Client


@dataclass(frozen=True, slots=True)
class Traffic:
    """A stream of new Service Requests of some Users.

    Attributes
    ----------
    users : tuple of str
        Patterns of names, for example ``Large Supplier *``; ``(unknown)`` is an identifier nobody named.
    kind : str
        ``steady``; ``diurnal``: along `knots`, by hours of the day; ``burst``: from `at_s`, for `lasts_s`, rising and
        falling within `ramp_s`, each User up to `spread_s` later; ``on-off`` and ``mmpp``: the rate jumps between
        `factors`, each kept for `dwell_s` on average; ``replay``: what is in `file`.
    rate : float
        Service Requests per second of all its Users together, at factor 1.
    mix : str
        Name in `Scenario.mixes`.
    wander : float
        The rate of a second is drawn from within this share of the mean: 0.15 is 15 % each way.
    file : Path or None
        A CSV file with the columns ``second,user,srv``, or event logs as for `LoggedTraffic`.
    since_s, until_s : int or None
        Of an event log, this time of it: seconds since 1970, cut to whole minutes; the end is not included.
    """

    users: tuple[str, ...]
    kind: str
    rate: float = 0.0
    mix: str = "supplier"
    knots: tuple[tuple[float, float], ...] = ()
    at_s: float = 0.0
    lasts_s: float = 0.0
    ramp_s: float = 0.0
    spread_s: float = 0.0
    factors: tuple[float, ...] = ()
    dwell_s: tuple[float, ...] = ()
    wander: float = 0.15
    file: Path | None = None
    since_s: int | None = None
    until_s: int | None = None

    def is_from(self, user: str) -> bool:
        """Tell whether a User sends it."""
        return any(fnmatchcase(user, pattern) for pattern in self.users)


@dataclass(frozen=True, slots=True)
class DspTerms:
    """The model of the DSP: a queue, first in first out.

    Attributes
    ----------
    queue_s : float
        Seconds of its capacity that may wait. With more it fails: all that waits is lost, and nothing is accepted
        for `restart_s` seconds.
    timeout_s : float
        A Service Request not answered within so many seconds counts as failed for its sender; the DSP works on
        it all the same.
    strain_s, slowdown : float
        With more than `strain_s` seconds of work waiting, the capacity is divided by 1 + `slowdown` for each second
        more.
    """

    queue_s: float = 60.0
    timeout_s: float = 30.0
    strain_s: float = 2.0
    slowdown: float = 0.02
    restart_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Fault:
    """``outage``: nothing is accepted; ``slow``: the capacity is multiplied by `factor`; ``store-lost``: the hosts
    of the Mechanism no longer hear of each other. From `at_s`, for `lasts_s` seconds.
    """

    kind: str
    at_s: float
    lasts_s: float
    factor: float = 1.0

    def covers(self, at_s: float) -> bool:
        """Tell whether it lasts at a time in seconds."""
        return self.at_s <= at_s < self.at_s + self.lasts_s


@dataclass(frozen=True, slots=True)
class Change:
    """New allocations from `at_s` on: those of the Users named by patterns are multiplied by `factor`."""

    at_s: float
    users: tuple[str, ...]
    factor: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything a simulation is told.

    Attributes
    ----------
    name, title, about, source : str
        `source`: the part of the Modification Report, or the published fact, that motivates it.
    seconds : int
        Simulated.
    step_ms : int
        Service Requests of one step are decided at one instant; divides one second.
    begins_h, speed : float
        Hour of the day at the start, and seconds of the day in a simulated second, for ``diurnal`` traffic.
    mixes : mapping
        Weights of SRVs by name.
    overloads : int
        How often the demand rises above the operating threshold.
    policies : tuple of str
        Those compared unless others are asked for.
    hosts : int
        Hosts that share the Mechanism's work.
    """

    name: str
    title: str
    about: str
    source: str
    seconds: int
    config: Config
    users: tuple[SimUser, ...]
    traffic: tuple[Traffic, ...]
    mixes: Mapping[str, Mapping[str, int]]
    seed: int = 1
    step_ms: int = 10
    begins_h: float = 0.0
    speed: float = 1.0
    dsp: DspTerms = DspTerms()
    faults: tuple[Fault, ...] = ()
    changes: tuple[Change, ...] = ()
    overloads: int = 1
    policies: tuple[str, ...] = tuple(POLICIES)
    hosts: int = 1

    @property
    def steps_per_s(self) -> int:
        return 1000 // self.step_ms

    @property
    def is_open(self) -> bool:
        """Whether no client ever sends anything again."""
        return all(user.client.kind == "no-retry" or user.client.attempts <= 1 for user in self.users)

    def without_clients(self) -> Scenario:
        """Return it with Users that send nothing again."""
        silent = Client("no-retry", "no-retry", attempts=1)
        return replace(self, users=tuple(replace(user, client=silent) for user in self.users))

    def scaled(self, factor: float) -> Scenario:
        """Return it with all loads multiplied: traffic, allocations, thresholds and the DSP's capacity."""
        config = self.config
        return replace(
            self,
            config=replace(
                config,
                system_capacity=config.system_capacity * factor,
                operating_threshold=config.operating_threshold * factor,
                release_threshold=(config.release_threshold or 0) * factor,
                allocations={user: rate * factor for user, rate in config.allocations.items()},
                unknown_allocation=config.unknown_allocation * factor,
            ),
            users=tuple(replace(user, allocation=user.allocation * factor) for user in self.users),
            traffic=tuple(replace(each, rate=each.rate * factor) for each in self.traffic),
        )

    def changed(self, change: Change, config: Config) -> Config:
        """Return the configuration after a change of allocations."""
        allocations = {
            user: rate * (change.factor if any(fnmatchcase(user, each) for each in change.users) else 1)
            for user, rate in config.allocations.items()
        }
        return replace(config, allocations=allocations)
