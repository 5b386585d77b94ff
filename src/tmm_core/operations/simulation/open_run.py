"""One policy run through a scenario whose clients send nothing again: whole arrays instead of single steps.

Nothing that is decided changes what is asked next. So the Service Requests of a second are decided one after
the other and only then given to the DSP, and the tallies are made once for the whole second.

While the Mechanism sleeps nothing is refused, and an instant a little early makes no difference to anybody. So in a
second in which the load stays below the threshold, `QUIET_MS` are decided at one instant, their beginning. In any
other, and while the Mechanism is active, each step is. Decision 0045 says what that changes in the result.

Such seconds in which the DSP answers all in the step it comes in are calm. They are decided one after the other, but
checked and counted together: most of what a second costs beside its Service Requests is paid once for all of them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tmm_core.mechanism import Decision
from tmm_core.operations.simulation import Words, srvs_of, users_of
from tmm_core.operations.simulation.arrivals import Fresh
from tmm_core.operations.simulation.policies import NS
from tmm_core.operations.simulation.result import WINDOWS, Second
from tmm_core.operations.simulation.run import Run, windowed
from tmm_core.operations.simulation.scenario import ENGINES, Scenario
from tmm_core.operations.traffic import Bools, Decisions, Ints, Srvs, Users

QUIET_MS = 100
"""Decided at one instant while the Mechanism sleeps, in milliseconds."""

_POLICIES = ("none", *ENGINES)
_BELOW = 0.95  # of the operating threshold: a load that leaves no backlog behind
_STAMP = NS << 7  # what the engine's `state` counts a second of backlog in


class Requests(NamedTuple):
    """User slots and SRV numbers of Service Requests, in some order."""

    users: Users
    srvs: Srvs

    def part(self, begin: int, end: int) -> Requests:
        """Return those from one place to another."""
        return Requests(self.users[begin:end], self.srvs[begin:end])


class _Decided(NamedTuple):
    """A second that is decided: by instants, each the beginning of the steps from one cut to the next.

    `edges` says where each step begins in `asked`, and where the last one ends.
    """

    second: int
    fresh: Fresh
    asked: Requests
    edges: Ints
    cuts: list[int]
    instants: list[int]
    decisions: Decisions
    counts: Ints
    units: np.ndarray[Any, Any]
    row: Second

    @property
    def words(self) -> Words:
        """All, in the order of time."""
        return self.fresh.in_time(self.second - self.fresh.first).words


def run_of(name: str, scenario: Scenario) -> Run:
    """Return the run of a policy: an `OpenRun` where nothing comes back."""
    is_open = scenario.is_open and name in _POLICIES and scenario.hosts == 1
    return OpenRun(name, scenario) if is_open else Run(name, scenario)


class OpenRun(Run):
    """Runs one policy, second by second, where no client sends anything again. *Not thread-safe.*

    Nobody reads a Retry-After, and none is given: the Mechanism does not wait for those who never come back.
    """

    def __init__(self, name: str, scenario: Scenario, quiet_ms: int = QUIET_MS) -> None:
        super().__init__(name, scenario)
        self._mechanism = self._policy.mechanisms[0]
        config = scenario.config
        # All of an instant count as backlog at once: far less than what activates.
        quiet_ms = min(quiet_ms, int(config.activation_s * 1000 / 2))
        self._quiet_steps = max(1, quiet_ms // scenario.step_ms)
        self._cuts = list(range(0, self._steps, self._quiet_steps))  # of a quiet second
        # An SRV that is not on the priority list, and one that is.
        self._kinds = np.array([self._priority.argmin(), self._priority.argmax()], dtype=np.uint16)
        # A backlog a tenth of the way, and the load of every instant below the threshold.
        self._far_s = config.activation_s / 10
        self._most_in_a_step = _BELOW * config.operating_threshold * scenario.step_ms / 1000

    def seconds(self, fresh: Fresh) -> None:
        """Run some seconds; calm ones are counted together."""
        at = 0
        while at < fresh.seconds:
            quiet = self._quiet(fresh, at)
            calm = self._calm(fresh, at, quiet) if quiet else 0
            if calm:
                self._run_calm(fresh, at, at + calm)
            else:
                self._settle(self._decided(fresh, at, quiet > 0))
            at += calm or 1

    def _decided(self, fresh: Fresh, place: int, quiet: bool) -> _Decided:
        """Decide on a second."""
        second = fresh.first + place
        if quiet:
            asked = self._asked(fresh, place, place + 1)
            edges = self._edges(fresh, place, place + 1)[0]
        else:
            words, steps = fresh.in_time(place)
            asked, edges = Requests(users_of(words), srvs_of(words)), np.array(steps)
        cuts = self._cuts if quiet else list(range(self._steps))
        parts = edges[[*cuts, self._steps]]
        instants = self._instants(second, cuts)
        decisions = np.empty(asked.users.size, dtype=np.uint8)
        self._decide(asked, parts.tolist(), instants, decisions)
        row = Second()
        self._look((second + 1) * NS - 1, row)
        counts, units = self._tables(*asked, decisions, parts)
        return _Decided(second, fresh, asked, edges, cuts, instants, decisions, counts, units, row)

    def _edges(self, fresh: Fresh, begin: int, end: int) -> Ints:
        """Return how many come before each step of some seconds and before the next one, counted from the first."""
        edges = fresh.counted(self._quiet_steps, self._users).edges[begin:end]
        found: Ints = edges - edges[0, 0]
        return found

    def _asked(self, fresh: Fresh, begin: int, end: int) -> Requests:
        """Return what is asked in quiet seconds, from one place to another.

        Nothing is refused: of all SRVs on the priority list, and of all others, one stands for the rest.
        """
        alike = fresh.counted(self._quiet_steps, self._users).alike[begin:end]
        users = np.arange(self._users, dtype=np.uint32)
        of_kinds = alike.sum(axis=-1).ravel()
        return Requests(
            np.tile(users, of_kinds.size).repeat(alike.ravel()),
            np.tile(self._kinds, of_kinds.size // 2).repeat(of_kinds),
        )

    def _settle(self, decided: _Decided) -> None:
        """Check a second, let the DSP work, and count it."""
        asked, decisions, row = decided.asked, decided.decisions, decided.row
        in_all = decided.counts.sum(axis=0)
        refused = self._refused(in_all)
        if self._audit is not None:
            # Places, not a mask: which are throttled, no processor guesses.
            throttled = (
                asked.srvs[np.flatnonzero(decisions == Decision.THROTTLED)] if refused else asked.srvs[:0]
            )
            self._audit.second(decided.counts, decided.units, decided.instants, throttled, self._changed)
        table = self._by_answer(in_all)
        row.fresh = row.offered = float(decided.units.sum())
        row.refused = row.lost = refused
        self.result.priority_fresh += int(in_all[:, Decision.PRIORITY].sum())
        through = np.flatnonzero(decisions != Decision.THROTTLED) if refused else None
        if not self._serve_quietly(decided, through, table[:, :, 1]):
            self._serve_each_step(decided, through)
        windows = table[np.newaxis]
        if refused:
            windows = windowed(decided.counts, np.array(decided.cuts) * WINDOWS // self._steps)
        self._close(row, windows, in_all.sum(axis=1))

    def _run_calm(self, fresh: Fresh, begin: int, end: int) -> None:
        """Run calm seconds, from one place to another."""
        asked = self._asked(fresh, begin, end)
        edges = self._edges(fresh, begin, end)
        decisions = np.empty(asked.users.size, dtype=np.uint8)
        instants: list[int] = []
        rows: list[Second] = []
        parts = edges[:, [*self._cuts, self._steps]]
        for second, each in enumerate(parts.tolist(), fresh.first + begin):
            now = self._instants(second, self._cuts)
            self._decide(asked, each, now, decisions)
            instants += now
            rows.append(Second())
            self._look((second + 1) * NS - 1, rows[-1])
        counts = tallied(fresh.counted(self._quiet_steps, self._users).alike[begin:end], decisions)
        in_all = counts.sum(axis=0)
        if self._refused(in_all):  # a defect, for the checks to find
            for place, (row, mine) in enumerate(zip(rows, edges, strict=True)):
                these = slice(place * len(self._cuts), (place + 1) * len(self._cuts))
                counted, decided = counts[these], decisions[mine[0] : mine[-1]]
                self._settle(
                    _Decided(
                        fresh.first + begin + place, fresh, asked.part(mine[0], mine[-1]), mine - mine[0], self._cuts,
                        instants[these], decided, counted, counted, row,
                    )
                )  # fmt: skip
            return
        if self._audit is not None:
            self._audit.second(counts, counts, instants, asked.srvs[:0], self._changed)
        for row, size in zip(rows, (edges[:, -1] - edges[:, 0]).tolist(), strict=True):
            row.attempts = row.answered = size
            row.fresh = row.offered = row.through = row.admitted = float(size)
        result, fresh_of = self.result, in_all.sum(axis=1)
        result.fresh += fresh_of
        result.answered += fresh_of
        priority = int(in_all[:, Decision.PRIORITY].sum())
        result.priority_fresh += priority
        result.priority_answered += priority
        result.waits.add_counts(np.array([0, fresh_of.sum()]))  # within their step
        result.add_calm(rows, self._by_answer(in_all))

    def _refused(self, in_all: Ints) -> int:
        """Return how many were refused of what was asked, by User and `Decision`."""
        return int(in_all[:, Decision.THROTTLED].sum()) if self._policy.acts else 0

    def _by_answer(self, in_all: Ints) -> Ints:
        """Return attempts by User, `Decision` and whether they were let through."""
        table = np.zeros((self._users, 4, 2), dtype=np.int64)
        table[:, :, 1] = in_all
        if self._policy.acts:
            table[:, Decision.THROTTLED] = table[:, Decision.THROTTLED, ::-1]
        return table

    # --- decisions

    def _quiet(self, fresh: Fresh, begin: int) -> int:
        """Return in how many seconds from a place on the Mechanism sleeps, and no instant takes the backlog near to
        waking it.
        """
        if self._quiet_steps == 1 or self._costs is not None:
            return 0
        first = fresh.first + begin
        state = self._mechanism.engine.state(first * NS)
        if state["active"] or state["backlog"] > self._far_s * _STAMP:
            return 0
        # What stays below the threshold leaves less of a backlog than it found.
        cuts = np.array([*self._cuts, self._steps])
        most = self._most_in_a_step * (cuts[1:] - cuts[:-1])
        edges = self._edges(fresh, begin, fresh.seconds)[:, cuts]
        quiet = _leading((edges[:, 1:] - edges[:, :-1] <= most).all(axis=1))
        return min(quiet, max(0, int(self._changes[0].at_s) - first)) if self._changes else quiet

    def _calm(self, fresh: Fresh, begin: int, quiet: int) -> int:
        """Return how many of the quiet seconds from a place on are without a fault, and with no step too much for the
        DSP.
        """
        edges = self._edges(fresh, begin, begin + quiet)
        most = (edges[:, 1:] - edges[:, :-1]).max(axis=1).tolist()
        for calm, second in enumerate(range(fresh.first + begin, fresh.first + begin + quiet)):
            if self._is_faulty(second) or not self._dsp.is_idle(second * self._steps, most[calm]):
                return calm
        return quiet

    def _instants(self, second: int, cuts: list[int]) -> list[int]:
        """Return the instant of each run of steps: its beginning."""
        zero, step_ns = second * self._steps, self._step_ns
        return [(zero + cut) * step_ns for cut in cuts]

    def _decide(self, asked: Requests, edges: list[int], instants: list[int], decisions: Decisions) -> None:
        """Decide on as many at each instant as there are between two edges."""
        (users, srvs), engine, changes = asked, self._mechanism.engine, self._changes
        for (begin, end), now in zip(pairwise(edges), instants, strict=True):
            if changes:
                self._change(now)
            if end > begin:
                engine.admit_many(users[begin:end], srvs[begin:end], decisions[begin:end], now)
            else:
                engine.tick(now)

    # --- the DSP

    def _is_faulty(self, second: int) -> bool:
        """Tell whether the DSP has a fault in a second."""
        faults = self._scenario.faults
        return any(fault.at_s < second + 1 and second < fault.at_s + fault.lasts_s for fault in faults)

    def _serve_quietly(self, decided: _Decided, through: Ints | None, table: Ints) -> bool:
        """Let the DSP answer all of a second, or those at some places; False, and nothing is done, where that takes a
        closer look.
        """
        first, row, edges = decided.second * self._steps, decided.row, decided.edges
        if self._costs is not None or self._is_faulty(decided.second):
            return False
        before = self._dsp.queued()
        if through is not None:
            edges = through.searchsorted(edges)
        sizes = edges[1:] - edges[:-1]
        served = self._dsp.second(
            first, sizes, lambda: decided.words if through is None else decided.words[through]
        )
        if served is None:
            return False
        row.through = row.admitted = float(sizes.sum())
        row.answered, row.wait_s = served.answered, served.wait_s
        result = self.result
        result.waits.add_counts(served.waits)
        result.answered += table.sum(axis=1)
        result.priority_answered += int(table[:, Decision.PRIORITY].sum())
        for words, sign in ((before, 1), (self._dsp.queued(), -1)):
            if words.size:
                result.answered += sign * np.bincount(users_of(words), minlength=self._users)
                result.priority_answered += sign * int(self._priority[srvs_of(words)].sum())
        return True

    def _serve_each_step(self, decided: _Decided, through: Ints | None) -> None:
        """Let the DSP work step by step."""
        answers: list[Words] = []
        row, words, edges = decided.row, decided.words, decided.edges
        if through is not None:
            words, edges = words[through], through.searchsorted(edges)
        for step, (begin, end) in enumerate(pairwise(edges.tolist())):
            at = decided.second * self._steps + step
            row.lost += self._serve(at, words[begin:end], self._faults(at), row, answers).size
        self._answered(answers, row)


def tallied(alike: Ints, decisions: Decisions) -> Ints:
    """Return Service Requests by instant, User and `Decision`, where those that are alike are next to each other.

    Parameters
    ----------
    alike : ndarray of int64, shape (..., 2, users)
        How many they are.
    decisions : ndarray of uint8, shape (alike.sum(),)
    """
    users = alike.shape[-1]
    sizes, instants = alike.ravel(), alike.size // (2 * users)
    if not decisions.size:
        return np.zeros((instants, users, 4), dtype=np.int64)
    ends = sizes.cumsum()
    keys = np.arange(0, instants * users * 4, 4).reshape(instants, 1, users).repeat(2, axis=1).ravel()
    # All of a kind as the first of them; where the decision changes on the way, what is left goes over to the other.
    first = decisions.take(ends - sizes, mode="clip")
    at = np.flatnonzero(decisions[1:] != decisions[:-1]) + 1
    kind = ends.searchsorted(at, side="right")
    left = ends[kind] - at
    on_the_way = left < sizes[kind]
    at, kind, left = at[on_the_way], keys[kind[on_the_way]], left[on_the_way]
    # Whole numbers far below 2**53: their sums as floating point are exact.
    found = np.bincount(
        np.concatenate([keys + first, kind + decisions[at], kind + decisions[at - 1]]),
        np.concatenate([sizes, left, -left]),
        keys.size * 2,
    )
    return found.astype(np.int64).reshape(instants, users, 4)


def _leading(good: Bools) -> int:
    """Return how many are good before the first that is not."""
    return good.size if good.all() else int(good.argmin())
