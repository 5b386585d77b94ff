"""One policy run through a scenario: the loop of attempts, answers and retries, and its tallies.

Who is active and when; and each of several hosts judged by its own terms, its part of every allocation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.simulation import Words, born_of, srvs_of, users_of
from tmm_core.operations.simulation.arrivals import Fresh, InTime
from tmm_core.operations.simulation.models import Clients, Dsp
from tmm_core.operations.simulation.policies import NS, Attempts, Load, make_policy
from tmm_core.operations.simulation.promises import Audit
from tmm_core.operations.simulation.result import WINDOWS, Activation, PolicyResult, Second
from tmm_core.operations.simulation.scenario import ENGINES, Client, Fault, Scenario
from tmm_core.operations.traffic import Decisions, Floats, Ints, Srvs, Users
from tmm_core.policy.config import Config

_MIX = 0x9E3779B97F4A7C1  # odd: the highest bits of the product depend on all bits of a word


class Run:
    """Runs one policy, second by second. *Not thread-safe.*

    `name` is that of the policy.
    """

    def __init__(self, name: str, scenario: Scenario) -> None:
        self.name = name
        self._scenario = scenario
        self._steps = scenario.steps_per_s
        self._step_ns = scenario.step_ms * 1_000_000
        step_s = scenario.step_ms / 1000
        config = scenario.config
        self._policy = make_policy(name, scenario)
        snapshot = self._policy.mechanisms[0].snapshot()
        costs = np.array([config.cost_of(code) for code in snapshot.srvs], dtype=np.float64)
        self._costs = None if (costs == 1).all() else costs
        self._priority = np.array([code in config.priority_srvs for code in snapshot.srvs])
        self._dsp = Dsp(scenario.dsp, config.system_capacity, step_s, self._costs)
        kinds = [Client("unknown", "no-retry", attempts=1), *[user.client for user in scenario.users]]
        self._clients = Clients(kinds, step_s, scenario.seed)
        self._users = len(snapshot.users)
        self._config = config
        self._changes = list(scenario.changes)
        self._changed: list[tuple[int, Config]] = []  # in this second, from which instant on
        audits = name in ENGINES
        self._audit = Audit(config, self._users, self._costs, self._priority) if audits else None
        self.result = PolicyResult(name, snapshot.users, scenario)
        self._watch = Watch(self._policy.mechanisms, self.result.activations)
        self._hosts = (
            [
                Host(part, self._policy.mechanisms[place], name, scenario, self._costs, self._priority)
                for place, part in enumerate(self._policy.parts)
            ]
            if audits
            else []
        )
        self.result.hosts = [host.result for host in self._hosts]

    def seconds(self, fresh: Fresh) -> None:
        """Run some seconds; called for one after the other with the same new Service Requests for all policies."""
        for place in range(fresh.seconds):
            self._second(fresh.first + place, fresh.in_time(place))

    def _second(self, second: int, fresh: InTime) -> None:
        row = Second()
        asked_of, decided, let, lost, by = [], [], [], [], []
        answers: list[Words] = []
        for step in range(self._steps):
            at = second * self._steps + step
            now = at * self._step_ns
            self._change(now)
            faults = self._faults(at)
            attempts = fresh.words[fresh.edges[step] : fresh.edges[step + 1]]
            again = self._clients.due(at)
            if again.size:
                row.again += again.size
                attempts = np.concatenate((attempts, again))
                # Neither the old nor the new ones come first.
                attempts = attempts[np.argsort(attempts * _MIX, kind="stable")]
            asked = Attempts.of(attempts)
            load = Load(self._dsp.wait_s, any(fault.kind == "store-lost" for fault in faults))
            verdict = self._policy.decide(asked, now, load)
            through = ~verdict.refused if verdict.held is None else ~(verdict.refused | verdict.held)
            accepted = attempts[through]
            if verdict.released.size:
                accepted = np.concatenate((verdict.released, accepted))
            row.offered += self._units(attempts)
            row.refused += int(np.count_nonzero(verdict.refused))
            gone = self._clients.failed(attempts[verdict.refused], at, verdict.retry_after_s)
            failed = self._serve(at, accepted, faults, row, answers)
            if failed.size:
                gone = np.concatenate((gone, self._clients.failed(failed, at)))
            if gone.size:
                lost.append(gone)
            asked_of.append(asked)
            decided.append(verdict.decisions)
            let.append(through)
            by.append(verdict.by)
        row.waiting = self._clients.waiting
        users, srvs = (np.concatenate([each[place] for each in asked_of]) for place in (1, 2))
        decisions = np.concatenate(decided)
        sizes = np.array([each.size for each in decided])
        if self._audit is not None:
            edges = np.concatenate(([0], np.cumsum(sizes)))
            counts, units = self._tables(users, srvs, decisions, edges)
            begin = second * self._steps
            instants = [at * self._step_ns for at in range(begin, begin + self._steps)]
            throttled = decisions == Decision.THROTTLED
            self._audit.second(counts, units, instants, srvs[throttled], self._changed)
            steps = np.repeat(np.arange(self._steps), sizes)
            for place, host in enumerate(self._hosts):
                mine = np.concatenate(by) == place
                edges = np.searchsorted(steps[mine], np.arange(self._steps + 1))
                counts, units = self._tables(users[mine], srvs[mine], decisions[mine], edges)
                host.second(counts, units, instants, srvs[mine & throttled], self._changed)
        window = np.arange(self._steps) * WINDOWS // self._steps * (self._users * 8)
        keys = np.repeat(window, sizes) + (users << 3) + (decisions << 1) + np.concatenate(let)
        windows = np.bincount(keys, minlength=WINDOWS * self._users * 8)
        fresh_of = np.bincount(users_of(fresh.words), minlength=self._users)
        row.fresh, row.lost = self._units(fresh.words), sum(each.size for each in lost)
        self.result.priority_fresh += int(self._priority[srvs_of(fresh.words)].sum())
        self._answered(answers, row)
        self._look((second + 1) * NS - 1, row)
        self._close(row, windows.reshape(WINDOWS, self._users, 4, 2), fresh_of)

    def _change(self, now: int) -> None:
        """Put the changes that are due in force."""
        while self._changes and self._changes[0].at_s * NS <= now:
            self._config = self._scenario.changed(self._changes.pop(0), self._config)
            self._policy.apply(self._config, now)
            self._changed.append((now, self._config))

    def _tables(
        self,
        users: Users,
        srvs: Srvs,
        decisions: Decisions,
        edges: Ints,
    ) -> tuple[Ints, np.ndarray[Any, Any]]:
        """Return Service Requests and units by instant, User and `Decision`; an instant's are between two edges."""
        size = self._users * 4
        in_all = (edges.size - 1) * size
        keys = np.repeat(np.arange(0, in_all, size, dtype=np.uint32), edges[1:] - edges[:-1])
        keys += users << 2
        keys += decisions
        counts = np.bincount(keys, minlength=in_all).reshape(-1, self._users, 4)
        if self._costs is None:
            return counts, counts
        units = np.bincount(keys, self._costs[srvs], in_all)
        return counts, units.reshape(-1, self._users, 4)

    def _faults(self, at: int) -> list[Fault]:
        """Return the faults of a step."""
        found = self._scenario.faults
        return [fault for fault in found if fault.covers(at / self._steps)] if found else []

    def _serve(
        self, at: int, accepted: Words, faults: list[Fault], row: Second, answers: list[Words]
    ) -> Words:
        """Let the DSP work for one step; returns what fails."""
        out = any(fault.kind == "outage" for fault in faults)
        factor = min([fault.factor for fault in faults if fault.kind == "slow"], default=1.0)
        units = self._units(accepted)
        row.through += units
        row.admitted += 0.0 if out or self._dsp.is_down(at) else units
        served = self._dsp.step(at, accepted, factor=factor, out=out)
        row.failed += served.failed.size
        if served.answered.size:
            answers.append(served.answered)
            self.result.waits.add(at + 1 - born_of(served.answered))
        row.down |= self._dsp.is_down(at)
        row.wait_s = max(row.wait_s, self._dsp.wait_s)
        return served.failed

    def _units(self, words: Words) -> float:
        return float(words.size) if self._costs is None else float(self._costs[srvs_of(words)].sum())

    def _answered(self, answers: list[Words], row: Second) -> None:
        """Count what was answered."""
        words = np.concatenate(answers) if answers else np.empty(0, dtype=np.int64)
        row.answered = words.size
        self.result.answered += np.bincount(users_of(words), minlength=self._users)
        self.result.priority_answered += int(self._priority[srvs_of(words)].sum())

    def _close(self, row: Second, windows: Ints, fresh: Ints) -> None:
        """Add a second: its attempts by part, User, decision and answer, and the new Service Requests by User."""
        for _, config in self._changed:
            self.result.shares.apply(config)
        self._changed.clear()
        row.attempts = int(windows.sum())
        row.holding = self._policy.holding
        self.result.fresh += fresh
        self.result.add(row, windows)

    def _look(self, now: int, row: Second) -> None:
        """Note beginnings and ends of activations."""
        if self._policy.acts:
            self._watch.look(now, row)

    def finish(self) -> PolicyResult:
        """Close the tallies.

        Raises
        ------
        RuntimeError
            They differ from the engine's own counts, or Service Requests were lost from the books: a defect.
        """
        result = self.result
        result.open = self._clients.waiting + self._dsp.unanswered() + self._policy.holding
        result.failures, result.wasted = self._dsp.failures, self._dsp.wasted
        if self._audit is not None:
            result.audit = self._audit.found
        for host in self._hosts:
            host.finish()
        counts = sum(each.snapshot().counts.sum(axis=1) for each in self._policy.mechanisms)
        # What the Alternative Solution held has asked the engine more than once.
        if self.name != "alternative" and not np.array_equal(counts, result.table.sum(axis=2)):
            raise RuntimeError("the tallies differ from the engine's own counts: please report this")
        if result.requests != result.answered_total + result.lost_total + result.open:
            raise RuntimeError("Service Requests are missing from the books: please report this")
        for mechanism in self._policy.mechanisms:
            mechanism.close()
        return result


class Watch:
    """Notes when the first of some Mechanisms becomes active, and when none is any more. *Not thread-safe.*

    Parameters
    ----------
    found : list of Activation
        Where they go.
    """

    def __init__(self, mechanisms: Sequence[Mechanism], found: list[Activation]) -> None:
        self._mechanisms, self._found = mechanisms, found
        self._activations = 0
        self._was_active = False

    def look(self, now: int, row: Second) -> None:
        """Note beginnings and ends of activations; of several hosts, from the first to the last."""
        states = []
        for mechanism in self._mechanisms:
            mechanism.tick(now)
            states.append(mechanism.engine.state(now))
        acting = [state["changed_at"] / NS for state in states if state["active"]]
        activations = states[0]["activations"] if len(states) == 1 else 0
        began_again = self._was_active and activations > self._activations
        if began_again or (self._was_active and not acting):
            self._found[-1].ended_s = max(state["changed_at"] for state in states) / NS
        if acting and (began_again or not self._was_active):
            self._found.append(Activation(min(acting)))
        self._activations = activations
        row.active = bool(acting)
        row.active_throughout = row.active and self._was_active and not began_again
        row.inactive_throughout = not row.active and not self._was_active
        self._was_active = row.active


class Host:
    """What one Mechanism of several decides, as a result of its own. *Not thread-safe.*

    It is held to the terms it has: what is promised of one Mechanism is promised of it, with its part of the threshold
    and of every allocation in the place of the whole.

    Parameters
    ----------
    part : callable
        Returns its part of a configuration.
    scenario : Scenario
        Of all hosts.
    costs, priority : ndarray
        As for `Audit`.
    """

    def __init__(
        self,
        part: Callable[[Config], Config],
        mechanism: Mechanism,
        name: str,
        scenario: Scenario,
        costs: Floats | None,
        priority: np.ndarray[Any, Any],
    ) -> None:
        self._part = part
        users, config = mechanism.snapshot().users, part(scenario.config)
        self.result = PolicyResult(name, users, replace(scenario, config=config, hosts=1))
        self._audit = Audit(config, len(users), costs, priority)
        self._watch = Watch([mechanism], self.result.activations)

    def second(
        self,
        counts: Ints,
        units: np.ndarray[Any, Any],
        instants: list[int],
        throttled: Srvs,
        changed: list[tuple[int, Config]],
    ) -> None:
        """Judge a second: what it decided by instant, User and `Decision`, as for `Audit.second`."""
        mine = [(now, self._part(config)) for now, config in changed]
        self._audit.second(counts, units, instants, throttled, mine)
        row = Second(offered=float(units.sum()), attempts=int(counts.sum()), refused=throttled.size)
        row.through = row.offered - float(units[:, :, Decision.THROTTLED].sum())
        self._watch.look(instants[0] // NS * NS + NS - 1, row)
        windows = windowed(counts, np.arange(len(counts)) * WINDOWS // len(counts))
        for _, config in mine:
            self.result.shares.apply(config)
        self.result.add(row, windows)

    def finish(self) -> None:
        """Close the tallies."""
        self.result.audit = self._audit.found


def windowed(counts: Ints, windows: Ints) -> Ints:
    """Return attempts by window, User, `Decision` and whether they were let through, of those by instant.

    Parameters
    ----------
    counts : ndarray of int64, shape (instants, users, 4)
    windows : ndarray of int64, shape (instants,)
        Which of `WINDOWS` each instant is in.
    """
    found = np.zeros((WINDOWS, *counts.shape[1:], 2), dtype=np.int64)
    for window in range(WINDOWS):
        found[window, :, :, 1] = counts[windows == window].sum(axis=0)
    found[:, :, Decision.THROTTLED] = found[:, :, Decision.THROTTLED, ::-1]
    return found
