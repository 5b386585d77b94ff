"""The policies that are compared: who is let through to the DSP, decided by the real engine or by a model.

Each gets the attempts of one step and returns what becomes of them. Beside the policy's own answer every
attempt has a `Decision` from a real engine: whether it was on the priority list, and whether the User's own
bucket conformed. So "inside the allocation" means the same in every row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import NamedTuple, Protocol

import numpy as np

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.simulation import NOTHING, Words, srvs_of, users_of
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.traffic import Bools, Decisions, Floats, Raw, Srvs, Users
from tmm_core.policy.config import Config

NS = 1_000_000_000
_WINDOW_S = 1.0  # of the Alternative Solution; the report names none
_HOLD_S = 300.0  # seconds of the operating threshold it may hold
_ON_S, _OFF_S = 1.0, 0.1  # work waiting at the DSP at which the network refuses, and no longer refuses

_THROTTLED = int(Decision.THROTTLED)

_NOBODY: Raw = np.empty(0, dtype=np.uint64)


class Attempts(NamedTuple):
    """Attempts made in one step: words, and their User slots and SRV numbers."""

    words: Words
    users: Users
    srvs: Srvs

    @classmethod
    def of(cls, words: Words) -> Attempts:
        return cls(words, users_of(words), srvs_of(words))

    def taken(self, which: Bools) -> Attempts:
        """Return some of them."""
        return Attempts(self.words[which], self.users[which], self.srvs[which])


class Load(NamedTuple):
    """What a policy may know of the DSP: seconds of work waiting, and whether the hosts' store is lost."""

    wait_s: float
    store_lost: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What becomes of the attempts of one step.

    Attributes
    ----------
    decisions : ndarray of uint8
        `Decision` of each attempt by a real engine.
    refused : ndarray of bool
        Of each attempt.
    retry_after_s : ndarray of float64 or None
        Seconds, for each refused attempt; None: the answer does not say.
    held : ndarray of bool or None
        Attempts that are held rather than refused.
    released : ndarray of int64
        Words that were held and go to the DSP now.
    by : ndarray of uint64
        Which of several Mechanisms decided on each attempt; empty of one.
    """

    decisions: Decisions
    refused: Bools
    retry_after_s: Floats | None = None
    held: Bools | None = None
    released: Words = field(default_factory=lambda: NOTHING)
    by: Raw = field(default_factory=lambda: _NOBODY)


class Policy(Protocol):
    """One policy."""

    mechanisms: list[Mechanism]
    parts: Sequence[Callable[[Config], Config]]  # of several Mechanisms: what each has of a configuration
    acts: bool  # the engine's decisions are the policy's own

    def decide(self, attempts: Attempts, now: int, load: Load) -> Verdict:
        """Decide on the attempts of one step; called for each step, with nothing to decide too."""

    def apply(self, config: Config, now: int) -> None:
        """Put new allocations in force."""

    @property
    def holding(self) -> int:
        """Service Requests held back for later."""


def make_policy(name: str, scenario: Scenario) -> Policy:
    """Return a policy by its name in `POLICIES`."""
    config = scenario.config
    if name == "none":
        return _Open(config, network=False)
    if name == "network-503":
        return _Open(config, network=True)
    if name == "alternative":
        return _Held(config, round(_WINDOW_S * scenario.steps_per_s))
    sharing = {"hard": "none", "first-come": "first-come", "fair": "fair"}[name]
    config = replace(config, sharing=sharing)
    return _Hosts(config, scenario.hosts, scenario.seed) if scenario.hosts > 1 else _Acting(config)


def _admit(mechanism: Mechanism, attempts: Attempts, now: int) -> Decisions:
    mechanism.tick(now)
    if not attempts.words.size:
        return np.empty(0, dtype=np.uint8)
    return mechanism.admit_many(attempts.users, attempts.srvs, now=now)


def _slots(mechanism: Mechanism, users: Users, now: int) -> Floats:
    slots = map(mechanism.retry_after, users.tolist(), repeat(now))
    return np.fromiter(slots, dtype=np.float64, count=users.size)


class _Open:
    """Everything goes to the DSP; with the network's 503, nothing while too much waits there."""

    acts = False
    parts: Sequence[Callable[[Config], Config]] = ()
    holding = 0

    def __init__(self, config: Config, *, network: bool) -> None:
        self.mechanisms = [Mechanism(config, start=0)]  # only tells inside from above
        self._network = network
        self._refuses = False

    def decide(self, attempts: Attempts, now: int, load: Load) -> Verdict:
        if self._network:
            self._refuses = load.wait_s > (_OFF_S if self._refuses else _ON_S)
        decisions = _admit(self.mechanisms[0], attempts, now)
        return Verdict(decisions, np.full(attempts.words.size, self._refuses))

    def apply(self, config: Config, now: int) -> None:
        self.mechanisms[0].apply(config, now=now)


class _Acting:
    """The engine decides, with the sharing rule of its configuration."""

    acts = True
    parts: Sequence[Callable[[Config], Config]] = ()
    holding = 0

    def __init__(self, config: Config) -> None:
        self.mechanisms = [Mechanism(config, start=0)]

    def decide(self, attempts: Attempts, now: int, load: Load) -> Verdict:
        mechanism = self.mechanisms[0]
        decisions = _admit(mechanism, attempts, now)
        refused = decisions == _THROTTLED
        return Verdict(decisions, refused, _slots(mechanism, attempts.users[refused], now))

    def apply(self, config: Config, now: int) -> None:
        sharing = self.mechanisms[0].config.sharing
        self.mechanisms[0].apply(replace(config, sharing=sharing), now=now)


class _Held(_Acting):
    """The Alternative Solution, as we model it: what the engine does not let through is held, not refused.

    At the start of each window the oldest, at most one window's worth, ask again before anybody else. The
    sender is told, and waits. When the place to hold them is full, the rest is refused.
    """

    def __init__(self, config: Config, window_steps: int) -> None:
        super().__init__(config)
        self._window_steps = window_steps
        self._room = int(config.operating_threshold * _HOLD_S)
        self._most = int(config.operating_threshold * _WINDOW_S)
        self._held: deque[Words] = deque()
        self._count = 0
        self._step = 0

    @property
    def holding(self) -> int:  # type: ignore[override]
        return self._count

    def decide(self, attempts: Attempts, now: int, load: Load) -> Verdict:
        released = self._release(now) if self._step % self._window_steps == 0 and self._held else NOTHING
        self._step += 1
        mechanism = self.mechanisms[0]
        decisions = _admit(mechanism, attempts, now)
        throttled = decisions == _THROTTLED
        held = throttled & (np.cumsum(throttled) <= self._room - self._count)
        if held.any():
            self._held.append(attempts.words[held])
            self._count += int(np.count_nonzero(held))
        refused = throttled & ~held
        return Verdict(decisions, refused, _slots(mechanism, attempts.users[refused], now), held, released)

    def _release(self, now: int) -> Words:
        taken: list[Words] = []
        room = self._most
        while self._held and room > 0:
            words = self._held.popleft()
            if words.size > room:
                self._held.appendleft(words[room:])
                words = words[:room]
            taken.append(words)
            room -= words.size
        words = np.concatenate(taken)
        through = _admit(self.mechanisms[0], Attempts.of(words), now) != _THROTTLED
        if not through.all():
            self._held.appendleft(words[~through])
        self._count -= int(np.count_nonzero(through))
        released: Words = words[through]
        return released


class _Hosts:
    """A model of several hosts: one Mechanism as long as they hear of each other, and each on its own after that.

    A host on its own has an equal share of the threshold and of every allocation. A load balancer spreads the
    attempts over the hosts at random.
    """

    acts = True
    holding = 0

    def __init__(self, config: Config, hosts: int, seed: int) -> None:
        self._hosts = hosts
        self._random = np.random.PCG64([seed, 0x686F737473])
        self.mechanisms = [Mechanism(config, start=0)]
        self.mechanisms += [Mechanism(self._share(config), start=0) for _ in range(hosts)]
        self.parts: Sequence[Callable[[Config], Config]] = [lambda config: config, *[self._share] * hosts]

    def _share(self, config: Config) -> Config:
        part = 1 / self._hosts
        return replace(
            config,
            system_capacity=config.system_capacity * part,
            operating_threshold=config.operating_threshold * part,
            release_threshold=(config.release_threshold or 0) * part,
            allocations={user: rate * part for user, rate in config.allocations.items()},
            unknown_allocation=config.unknown_allocation * part,
        )

    def decide(self, attempts: Attempts, now: int, load: Load) -> Verdict:
        size = attempts.words.size
        host = self._random.random_raw(size) % np.uint64(self._hosts) + np.uint64(1)
        if not load.store_lost:
            host = np.zeros(size, dtype=np.uint64)
        decisions = np.empty(size, dtype=np.uint8)
        wait = np.zeros(size)
        for number, mechanism in enumerate(self.mechanisms):
            here = host == number
            mine = attempts.taken(here)
            decisions[here] = decided = _admit(mechanism, mine, now)
            throttled = decided == _THROTTLED
            if throttled.any():
                place = np.flatnonzero(here)[throttled]
                wait[place] = _slots(mechanism, mine.users[throttled], now)
        refused = decisions == _THROTTLED
        return Verdict(decisions, refused, wait[refused], by=host)

    def apply(self, config: Config, now: int) -> None:
        sharing = self.mechanisms[0].config.sharing
        config = replace(config, sharing=sharing)
        self.mechanisms[0].apply(config, now=now)
        for mechanism in self.mechanisms[1:]:
            mechanism.apply(self._share(config), now=now)
