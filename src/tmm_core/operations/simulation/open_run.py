"""One policy run through a scenario whose clients send nothing again: whole arrays instead of single steps.

Nothing that is decided changes what is asked next. So the Service Requests of a second are decided one after
the other and only then given to the DSP, and the tallies are made once for the whole second.

While the Mechanism sleeps nothing is refused, and an instant a little early makes no difference to anybody. So in a
second in which the load stays below the threshold, `QUIET_MS` are decided at one instant, their beginning. In any
other, and while the Mechanism is active, each step is. Decision 0045 says what that changes in the result.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from tmm_core.mechanism import Decision
from tmm_core.operations.simulation.arrivals import Fresh, Requests
from tmm_core.operations.simulation.policies import NS
from tmm_core.operations.simulation.result import Second
from tmm_core.operations.simulation.run import Run
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.simulation.shares import WINDOWS
from tmm_core.operations.simulation.words import Words, srvs_of, users_of

__all__ = ["QUIET_MS", "OpenRun", "run_of"]

QUIET_MS = 100
"""Decided at one instant while the Mechanism sleeps, in milliseconds."""

_POLICIES = ("none", "hard", "first-come", "fair")
_BELOW = 0.95  # of the operating threshold: a load that leaves no backlog behind
_STAMP = NS << 7  # what the engine's `state` counts a second of backlog in

_Counts = np.ndarray[Any, np.dtype[np.int64]]
_Bools = np.ndarray[Any, np.dtype[np.bool_]]
_Decisions = np.ndarray[Any, np.dtype[np.uint8]]


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
        # A backlog a tenth of the way, and the load of every instant below the threshold.
        self._far_s = config.activation_s / 10
        self._most_in_a_step = _BELOW * config.operating_threshold * scenario.step_ms / 1000

    def second(self, second: int, fresh: Fresh) -> None:
        """Run one second; called for each in turn with the same new Service Requests for all policies."""
        quiet = self._is_quiet(second, fresh)
        # Where nothing is refused, only the Users' own order counts, and one unit is like another.
        asked = fresh.grouped if quiet else Requests(users_of(fresh.words), srvs_of(fresh.words))
        cuts = list(range(0, self._steps, self._quiet_steps if quiet else 1))
        edges = [*(fresh.edges[cut] for cut in cuts), asked.users.size]
        instants = self._instants(second, [*cuts, self._steps])
        decisions = self._decide(asked, edges, instants)
        counts, units = self._tables(*asked, decisions, np.array(edges))
        in_all = counts.sum(axis=0)
        refused = int(in_all[:, Decision.THROTTLED].sum()) if self._policy.acts else 0
        if self._audit is not None:
            throttled = asked.srvs[decisions == Decision.THROTTLED] if refused else asked.srvs[:0]
            self._check(counts, units, instants, throttled)
        table = np.zeros((self._users, 4, 2), dtype=np.int64)
        table[:, :, 1] = in_all
        if self._policy.acts:
            table[:, Decision.THROTTLED] = table[:, Decision.THROTTLED, ::-1]
        row = Second()
        row.fresh = row.offered = float(units.sum())
        row.refused = row.lost = refused
        self.result.priority_fresh += int(in_all[:, Decision.PRIORITY].sum())
        through = decisions != Decision.THROTTLED if refused else None
        if not self._serve_quietly(second, fresh, through, table[:, :, 1], row):
            self._serve_each_step(second, fresh, through, row)
        self._close(
            second, row, self._windows(counts, cuts) if refused else table[np.newaxis], in_all.sum(axis=1)
        )

    def _windows(self, counts: _Counts, cuts: list[int]) -> _Counts:
        """Return the attempts of a second with refusals, in equal parts of it, by User, `Decision` and answer."""
        number = np.array(cuts) * WINDOWS // self._steps
        windows = np.zeros((WINDOWS, self._users, 4, 2), dtype=np.int64)
        for part in range(WINDOWS):
            windows[part, :, :, 1] = counts[number == part].sum(axis=0)
        windows[:, :, Decision.THROTTLED] = windows[:, :, Decision.THROTTLED, ::-1]
        return windows

    # --- decisions

    def _is_quiet(self, second: int, fresh: Fresh) -> bool:
        """Tell whether the Mechanism sleeps, and no instant of this second takes the backlog near to waking it."""
        begin = second * NS
        if self._quiet_steps == 1 or self._costs is not None:
            return False
        if self._changes and self._changes[0].at_s < second + 1:
            return False
        state = self._mechanism.engine.state(begin)
        if state["active"]:
            return False
        if state["backlog"] > self._far_s * _STAMP:
            return False
        edges, most = fresh.edges, self._most_in_a_step
        cuts = [*range(0, self._steps, self._quiet_steps), self._steps]
        return all(edges[end] - edges[cut] <= most * (end - cut) for cut, end in pairwise(cuts))

    def _instants(self, second: int, cuts: list[int]) -> list[int]:
        """Return the instant of each run of steps: its beginning."""
        zero, step_ns = second * self._steps, self._step_ns
        return [(zero + cut) * step_ns for cut in cuts[:-1]]

    def _decide(self, asked: Requests, edges: list[int], instants: list[int]) -> _Decisions:
        """Decide on all, as many at each instant as there are between two edges."""
        decisions = np.empty(asked.users.size, dtype=np.uint8)
        (users, srvs), engine = asked, self._mechanism.engine
        for (begin, end), now in zip(pairwise(edges), instants, strict=True):
            self._change(now)
            if end > begin:
                engine.admit_many(users[begin:end], srvs[begin:end], decisions[begin:end], now)
            else:
                engine.tick(now)
        return decisions

    # --- the DSP

    def _serve_quietly(
        self, second: int, fresh: Fresh, through: _Bools | None, table: _Counts, row: Second
    ) -> bool:
        """Let the DSP answer all of a second; False, and nothing is done, where that takes a closer look."""
        first = second * self._steps
        if self._costs is not None or any(
            fault.at_s < second + 1 and second < fault.at_s + fault.lasts_s for fault in self._scenario.faults
        ):
            return False
        before = self._dsp.queued()
        edges = np.array(fresh.edges)
        if through is not None:
            edges = np.concatenate(([0], np.cumsum(through)))[edges]
        sizes = edges[1:] - edges[:-1]
        served = self._dsp.second(
            first, sizes, lambda: fresh.words if through is None else fresh.words[through]
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

    def _serve_each_step(self, second: int, fresh: Fresh, through: _Bools | None, row: Second) -> None:
        """Let the DSP work step by step."""
        answers: list[Words] = []
        for step in range(self._steps):
            at = second * self._steps + step
            part = slice(fresh.edges[step], fresh.edges[step + 1])
            words = fresh.words[part] if through is None else fresh.words[part][through[part]]
            row.lost += self._serve(at, words, self._faults(at), row, answers).size
        self._answered(answers, row)
