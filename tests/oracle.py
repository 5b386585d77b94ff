"""The whole Mechanism again: plain, slow and obviously right, to compare the engine with.

Whole numbers of any size and fractions only; one list per quantity; no atomics, no wrapping, no groups. What it
shares with the engine is what the documentation promises: times are counted in 1/128 ns, rates in 1/1024 units
per second, the level in 1/65536, and each is rounded the way the documentation says.
"""

from __future__ import annotations

import sysconfig
from collections import defaultdict
from fractions import Fraction
from functools import cache

from tmm_core import Config
from tmm_core.policy.service_requests import srv_codes

THROTTLED, SPARE, WITHIN, PRIORITY = range(4)
SECOND = 10**9 * 128  # in stamps of 1/128 ns
FAR = 2**61  # stamps, 208 days: a word further away than that is forgotten
#: Without a GIL every call counts in a slab that others count in too: nothing is held back.
HELD_BACK = not sysconfig.get_config_var("Py_GIL_DISABLED")
MOST = 2**36  # the level at which everybody has all it asks for


@cache
def exact(value: float | None) -> Fraction:
    return Fraction(repr(float(value or 0)))


class Oracle:
    """What the sentence says: decide on one Service Request after the other, at times in nanoseconds."""

    def __init__(self, config: Config, now: int) -> None:
        self.names = ["(unknown)"]
        self.srvs = ["(unknown)", *srv_codes()]
        self.own: list[int] = []  # theoretical arrival times
        self.tried: list[int] = []  # those of the candidate allocations
        self.trying = ""  # which candidate
        self.differences: defaultdict[tuple[int, int], int] = defaultdict(int)
        self.spare: list[int] = []
        self.last_place: list[int | None] = []  # of the retry slots given
        self.counts: defaultdict[tuple[int, int, int], int] = defaultdict(int)
        self.units: defaultdict[tuple[int, int], int] = defaultdict(int)
        self.active, self.activations, self.level = False, 0, 0
        self.empty_at, self.held = now * 128, 0  # the virtual queue; units not charged to it yet
        self.ticked, self.quiet_us, self.retries_until = now, 0, now * 128
        self.seen: defaultdict[object, int] = defaultdict(int)
        self.rates: defaultdict[object, int] = defaultdict(int)
        self.apply(config, now)

    def apply(self, config: Config, now: int) -> None:
        self.config = config
        self.names += [name for name in config.users if name not in self.names]
        for _ in self.names[len(self.own) :]:
            self.own.append(now * 128)
            self.tried.append(now * 128)
            self.spare.append(now * 128)
            self.last_place.append(None)
        if config.candidate_version and config.candidate_version != self.trying:
            self.tried = list(self.own)  # as if it were put in force now
        self.trying = config.candidate_version
        threshold, activation = exact(config.operating_threshold), exact(config.activation_s)
        self.unit = -(-SECOND // threshold)
        self.activation = int(activation * SECOND)
        self.brake = int(activation * SECOND) // 5
        self.ceiling = int(activation * SECOND) * 10
        self.block = min(max(int(threshold * activation / 16), 1), 16)
        self.tolerance = int(exact(config.burst_s) * SECOND)
        self.costs = [config.cost_of(code) for code in self.srvs]
        self.longest = max(self.costs)
        self.intervals = [self.interval_of(self.allocation(user)) for user in range(len(self.names))]
        self.weights = [self.weight_of(user, self.allocation(user)) for user in range(len(self.names))]
        self.candidates = [self.interval_of(self.candidate(user)) for user in range(len(self.names))]

    def candidate(self, user: int) -> Fraction:
        """The candidate's allocation; the pool of unknown Users has the same in both."""
        found = self.config.candidate_allocations or {}
        return exact(found.get(self.names[user], 0) if user else self.config.unknown_allocation)

    def allocation(self, user: int) -> Fraction:
        config = self.config
        return exact(config.allocations.get(self.names[user], 0) if user else config.unknown_allocation)

    def interval_of(self, allocation: Fraction) -> int:
        """Stamps a unit of the allocation takes, rounded in the User's favour; 0 where nothing is allocated."""
        return int(SECOND / allocation) if allocation else 0

    def weight_of(self, user: int, allocation: Fraction) -> int:
        """By its allocation; the pool and a User without one by a configured weight."""
        return max(int((allocation if user and allocation else exact(self.config.spare_weight)) * 1024), 10)

    # ---- deciding

    def admit(self, user: int, srv: int, now: int) -> int:
        self.tick(now)
        at, cost = now * 128, self.costs[srv]
        if self.srvs[srv] in self.config.priority_srvs:
            outcome = PRIORITY
        elif self.intervals[user] and self.take(
            self.own, user, self.intervals[user], self.tolerance, cost, at
        ):
            outcome = WITHIN
        elif not self.active or self.spare_left(user, cost, at):
            outcome = SPARE
        else:
            outcome = THROTTLED
        self.counts[user, srv, outcome] += 1
        self.units[user, outcome] += cost
        if outcome != THROTTLED:
            self.charge(cost, at)
        if self.trying and outcome != PRIORITY:
            self.compare(user, outcome, cost, at)
        return SPARE if outcome == THROTTLED and self.config.mode == "observe" else outcome

    def compare(self, user: int, outcome: int, cost: int, at: int) -> None:
        """Ask the candidate's bucket as the own one was asked, and note where it answers otherwise."""
        interval = self.candidates[user]
        within = bool(interval) and self.take(self.tried, user, interval, self.tolerance, cost, at)
        if outcome == WITHIN and not within:
            self.differences[user, 0] += cost
            self.differences[user, 1] += cost * self.active
        if outcome != WITHIN and within:
            self.differences[user, 2] += cost
            self.differences[user, 3] += cost * (outcome == THROTTLED)

    def ahead(self, tat: int, interval: int, tolerance: int, at: int) -> int:
        """How far a bucket is ahead of now; one that no charge can have put there is full, or long past."""
        lead = tat - at
        if lead > FAR or lead <= 0:
            return 0
        return tolerance if lead > tolerance + self.longest * interval + SECOND else lead

    def take(self, words: list[int], user: int, interval: int, tolerance: int, cost: int, at: int) -> bool:
        lead = self.ahead(words[user], interval, tolerance, at)
        if lead > tolerance:
            return False
        words[user] = at + lead + cost * interval
        return True

    def spare_left(self, user: int, cost: int, at: int) -> bool:
        if self.config.sharing == "none" or self.backlog(at) > self.brake:
            return False
        if self.config.sharing == "first-come":
            return True
        if self.level == 0:
            return False
        interval = ((SECOND * 1024 // self.weights[user]) * 65536) // self.level
        return self.take(self.spare, user, min(max(interval, 1), 2**48), SECOND // 4, cost, at)

    # ---- the load

    def waiting(self, at: int) -> int:
        lead = self.empty_at - at
        return lead if 0 < lead <= self.ceiling + SECOND else 0

    def backlog(self, at: int) -> int:
        return self.waiting(at) + self.held * self.unit

    def charge(self, units: int, at: int) -> None:
        self.held += units
        if self.held >= self.block or not HELD_BACK:
            self.flush(self.held // self.block * self.block if HELD_BACK else self.held, at)
        if not self.active and self.backlog(at) > self.activation:
            self.active, self.quiet_us = True, 0
            self.activations += 1

    def flush(self, units: int, at: int) -> None:
        before = self.waiting(at)
        self.empty_at = at + min(before + units * self.unit, max(self.ceiling, before))
        self.held -= units

    # ---- the control tick

    def tick(self, now: int) -> None:
        period = max(int(exact(self.config.tick_s) * 10**9), 2000 * len(self.names))
        since = now - self.ticked
        if -(10**9) <= since < period:
            return
        span = since // 1000 if since > 0 else 0
        self.ticked += span * 1000
        if not span:
            self.ticked = now
            return
        quiet, span = span, min(span, 10**9)
        at = now * 128
        self.forget(at, long=since // 1000 > FAR // 128 // 1000, users=(now - since) // 2**42 != now // 2**42)
        if HELD_BACK:
            self.flush(self.held, at)
        grown = {}
        for outcome in range(4):
            total = sum(self.units[user, outcome] for user in range(len(self.names)))
            grown[outcome] = self.smooth(outcome, total, span, 250_000)
        offered = sum(grown.values())
        self.seen["load"] = self.seen["offered"] = 0
        self.smooth("load", offered - grown[THROTTLED], span, 1_000_000)
        self.smooth("offered", offered, span, 1_000_000)
        for user in range(len(self.names)):
            above = self.units[user, SPARE] + self.units[user, THROTTLED]
            self.smooth(("user", user), above, span, 250_000)
        spare = int(exact(self.config.operating_threshold) * 1024) - self.rates[PRIORITY] - self.rates[WITHIN]
        self.level = self.solve(self.given(spare, at)) if spare > 0 else 0
        self.calm_down(quiet, at)

    def given(self, spare: int, at: int) -> int:
        """All that is spare with the backlog that is meant, half with twice as much, half as much again with none."""
        meant = self.brake // 2 + self.block * self.unit
        short = 3 * meant - min(self.waiting(at), 2 * meant)
        return spare * (short >> 17) // max(meant >> 16, 1)

    def smooth(self, what: object, total: int, span: int, tau: int) -> int:
        """Bring a rate (1/1024 units per second) up to date with a total; times in microseconds."""
        grown, self.seen[what] = total - self.seen[what], total
        self.rates[what] = (self.rates[what] * tau + grown * 1024 * 10**6) // (tau + span)
        return grown

    def forget(self, at: int, *, long: bool, users: bool) -> None:
        for user in range(len(self.names) if users else 0):
            for words in (self.own, self.spare, *([self.tried] if self.trying else [])):
                if long or abs(words[user] - at) > FAR:
                    words[user] = at
            place = self.last_place[user]
            if place is None or long or abs(place - at) > FAR:
                self.last_place[user] = None
        self.empty_at = at if long or abs(self.empty_at - at) > FAR else self.empty_at
        self.retries_until = at if long or abs(self.retries_until - at) > FAR else self.retries_until

    def solve(self, spare: int) -> int:
        """The largest level at which the shares of the Users in excess fit into `spare`."""
        users = [user for user in range(len(self.names)) if self.rates["user", user]]
        low, high = 0, MOST
        while low < high:
            middle = (low + high + 1) // 2
            used = sum(min(self.rates["user", user] * 65536, middle * self.weights[user]) for user in users)
            low, high = (middle, high) if used <= spare * 65536 else (low, middle - 1)
        return low

    def calm_down(self, span: int, at: int) -> None:
        if self.rates["offered"] >= int(exact(self.config.release_threshold) * 1024):
            self.quiet_us = 0
            return
        self.quiet_us += span
        owed = 0 < self.retries_until - at <= self.retry_cap() + SECOND
        if self.quiet_us >= int(exact(self.config.hold_s) * 10**6) and not owed:
            self.active = False

    # ---- retry slots

    def retry_cap(self) -> int:
        return int(exact(self.config.max_retry_after_s) * SECOND)

    def retry_after(self, user: int, now: int) -> int:
        """Nanoseconds until the User's next retry slot, rounded up."""
        at, interval, cap = now * 128, self.intervals[user], self.retry_cap()
        if interval:
            place = max(self.ahead(self.own[user], interval, self.tolerance, at) - self.tolerance, 0)
        else:
            place = interval = SECOND * 1024 // self.weights[user]
        last = self.last_place[user]
        if last is not None and -interval < last - at <= cap + SECOND:
            place = max(place, last - at + interval)
        place = min(place, cap)
        self.last_place[user] = at + place
        if at + place > self.retries_until or not 0 < self.retries_until - at <= cap + SECOND:
            self.retries_until = at + place
        return -(-place // 128)
