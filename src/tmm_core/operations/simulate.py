"""Simulations: policies side by side on the same new Service Requests, with the real engine on a simulated clock.

The new Service Requests are the same for every policy; what is sent again depends on the answers, and so on
the policy. The same scenario and seed give the same result, to the last byte of its files.

`tmm demo` plays two scenarios. Every Service Request of a day at DSP peak volume is decided once and accounted for as
`tmm replay` does with a log. ``beast-from-the-east`` is at a tenth of its volume: what closes the loop, the answers
that bring requests back and the DSP that fails, takes far longer for each request. Decision 0044 says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.figures import Panel, clock_label, outcome_chart
from tmm_core.operations.simulation import born_of, srvs_of, users_of
from tmm_core.operations.simulation.arrivals import Arrivals, Fresh
from tmm_core.operations.simulation.open_run import OpenRun, run_of
from tmm_core.operations.simulation.policies import NS
from tmm_core.operations.simulation.result import PolicyResult
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.simulation.scenario_files import demo_day, load_scenario
from tmm_core.operations.terminal import duration
from tmm_core.operations.traffic import Ints
from tmm_core.operations.traffic.drive import Drive, Outcome, TrafficSecond
from tmm_core.operations.traffic.summary import OutcomeFiles

_KEPT = 8 << 20  # bytes
_TOGETHER_S = 20  # seconds that are drawn and run at once where nothing is sent again


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """A finished simulation.

    Attributes
    ----------
    results : tuple of PolicyResult
        In the order asked for.
    inside : list of str
        Users whose new Service Requests never went above their allocation.
    took_s : float
        Seconds of this machine's time; not reproducible, never in a file.
    """

    scenario: Scenario
    results: tuple[PolicyResult, ...]
    inside: list[str]
    took_s: float

    def of(self, policy: str) -> PolicyResult | None:
        """Return the result of a policy, if it was asked for."""
        return next((each for each in self.results if each.name == policy), None)


def simulate(
    scenario: Scenario,
    policies: Sequence[str] | None = None,
    *,
    progress: Callable[[float], None] = lambda second: None,
) -> Simulation:
    """Run a scenario under each policy.

    Parameters
    ----------
    policies : sequence of str, optional
        Names in `POLICIES`; those of the scenario by default.
    progress : callable
        Told the number of simulated seconds done.

    Raises
    ------
    TMMError
        A file to replay cannot be used.
    """
    began = perf_counter()
    _keep_memory()
    runs = [run_of(name, scenario) for name in (policies or scenario.policies)]
    # Told by the User's own bucket alone, fed with new Service Requests only.
    demand = Mechanism(scenario.config, start=0)
    above = np.zeros(len(scenario.users) + 1, dtype=np.int64)
    # Where nothing is sent again and allocations stay, an open run asks the same of the same buckets.
    told = next((run for run in runs if isinstance(run, OpenRun) and not scenario.changes), None)
    with demand, closing(Arrivals(scenario, demand.user, demand.srv)) as arrivals:
        together = _TOGETHER_S if scenario.is_open else 1
        for first in range(0, scenario.seconds, together):
            fresh = arrivals.seconds(first, min(together, scenario.seconds - first))
            if told is None:
                above += _above(demand, fresh, scenario)
            for run in runs:
                run.seconds(fresh)
            progress(first + fresh.seconds)
    if told is not None:
        above = told.result.table[:, : Decision.WITHIN_ALLOCATION].sum(axis=(1, 2))
    inside = [user.name for place, user in enumerate(scenario.users, 1) if not above[place]]
    return Simulation(scenario, tuple(run.finish() for run in runs), inside, perf_counter() - began)


@cache
def _keep_memory() -> None:
    """Let the C library keep the memory of arrays that are gone for those that come.

    glibc keeps up to twice the largest block that was ever given back. Without one of this size the system takes
    some MB back, clears them and hands them out again in every twenty seconds that are simulated.
    """
    np.empty(_KEPT, dtype=np.uint8)  # never touched, so never there


def _above(demand: Mechanism, fresh: Fresh, scenario: Scenario) -> Ints:
    """Return how many of some new Service Requests are above the allocation, by User."""
    step_ns = scenario.step_ms * 1_000_000
    above = np.zeros(len(scenario.users) + 1, dtype=np.int64)
    for place in range(fresh.seconds):
        words, edges = fresh.in_time(place)
        users, srvs = users_of(words), srvs_of(words)
        decided = np.empty(users.size, dtype=np.uint8)
        for step, (begin, end) in enumerate(pairwise(edges)):
            if end > begin:
                now = (fresh.first + place) * NS + step * step_ns
                demand.admit_many(users[begin:end], srvs[begin:end], out=decided[begin:end], now=now)
        above += np.bincount(users[decided < Decision.WITHIN_ALLOCATION], minlength=above.size)
    return above


_DAY_S = 86_400

REQUESTS_PER_S = 10_000_000 / 3600
"""Service Requests in a mean second of the demonstration's day, about."""

STORM = "beast-from-the-east"
_STORM_SCALE, _STORM_STEP_MS, _STORM_POLICIES = 0.1, 20, ("none", "fair")


@dataclass(frozen=True, slots=True, eq=False)
class Demo:
    """A finished demonstration: what was played, what became of it, and where it is written."""

    day: Scenario
    outcome: Outcome
    files: tuple[Path, ...]


def day_of(seed: int, seconds: int) -> Scenario:
    """Return the day, played in so many seconds: rates per second stay, durations shrink."""
    day = demo_day()
    shorter = seconds / day.seconds
    traffic = tuple(replace(each, spread_s=each.spread_s * shorter) for each in day.traffic)
    return replace(day, seed=seed, seconds=seconds, speed=_DAY_S / seconds, traffic=traffic)


def traffic_of(scenario: Scenario, mechanism: Mechanism) -> Iterator[TrafficSecond]:
    """Yield the new Service Requests of a scenario second by second, in the order of time."""
    steps = scenario.steps_per_s
    with closing(Arrivals(scenario, mechanism.user, mechanism.srv)) as arrivals:
        for second in range(scenario.seconds):
            words, _ = arrivals.seconds(second).in_time(0)
            yield TrafficSecond(second, users_of(words), srvs_of(words), born_of(words) - second * steps)


def run_demo(
    folder: Path,
    *,
    seed: int = 1,
    requests: int = 10_000_000,
    progress: Callable[[float], None] = lambda second: None,
) -> Demo:
    """Play the day, and write ``demo.csv``, ``users.csv`` and ``demo.svg``.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    seed : int
        The same seed gives the same bytes in all the files.
    requests : int
        About how many Service Requests: how many seconds the day is played in follows from it.
    progress : callable
        Told the number of seconds played.

    Raises
    ------
    OSError
        The folder cannot be made or written to.
    """
    day = day_of(seed, max(1, round(requests / REQUESTS_PER_S)))
    config = day.config
    with (
        OutcomeFiles(folder, "demo", lambda second: time_of_day(day, second)) as files,
        Mechanism(config, start=0) as mechanism,
    ):
        drive = Drive(mechanism, step_ns=day.step_ms * 1_000_000, on_row=files.row)
        for each in traffic_of(day, mechanism):
            drive.feed(each)
            progress(each.second)
        outcome = drive.finish()
        chart = outcome_chart(
            outcome, config, Panel("The day (time of day)", outcome.series, clock_label, speed=day.speed),
            f"tmm demo: a day of invented traffic played in {duration(day.seconds)}, seed {seed}",
            lambda second: f"from {time_of_day(day, second)}",
        )  # fmt: skip
        files.finish(outcome, config, chart)
    return Demo(day, outcome, files.paths)


def run_storm(*, seed: int = 1, progress: Callable[[float], None] = lambda second: None) -> Simulation:
    """Play the Beast from the East without protection and under the Mechanism, with clients that send again.

    Parameters
    ----------
    progress : callable
        Told the number of simulated seconds done, of `Scenario.seconds`.
    """
    scenario = load_scenario(STORM).scaled(_STORM_SCALE)
    scenario = replace(scenario, seed=seed, step_ms=_STORM_STEP_MS)
    return simulate(scenario, _STORM_POLICIES, progress=progress)


def time_of_day(day: Scenario, second: float) -> str:
    """Return the time of the day, ``HH:MM:SS``, of a simulated second."""
    at = int(second * day.speed) % _DAY_S
    return f"{at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}"
