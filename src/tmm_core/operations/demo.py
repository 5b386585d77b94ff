"""The main job: a day of traffic at DSP peak volume, and a storm with clients that send again.

Both are scenarios of the simulator. Every Service Request of the day is decided once and accounted for as `tmm
replay` does with a log: what it takes to show DSP peak volume. The storm is ``beast-from-the-east`` at a tenth of
its volume: what closes the loop, the answers that bring requests back and the DSP that fails, takes far longer for
each request. Decision 0044 says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from tmm_core.mechanism import Mechanism
from tmm_core.operations.figures import Panel, clock_label, outcome_chart
from tmm_core.operations.simulate import Simulation, simulate
from tmm_core.operations.simulation.arrivals import Arrivals
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.simulation.scenario_files import demo_day, load_scenario
from tmm_core.operations.simulation.words import born_of, srvs_of, users_of
from tmm_core.operations.terminal import duration
from tmm_core.operations.traffic.drive import Drive, TrafficSecond
from tmm_core.operations.traffic.outcome import Outcome
from tmm_core.operations.traffic.outcome_files import OutcomeFiles

__all__ = ["REQUESTS_PER_S", "STORM", "Demo", "day_of", "run_demo", "run_storm", "time_of_day", "traffic_of"]

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
    seed : int
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
