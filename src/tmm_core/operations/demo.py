"""The main job: a day of traffic at DSP peak volume, decided by the real engine on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.drive import Drive
from tmm_core.operations.figures import Panel, clock_label, elapsed_label, load_chart
from tmm_core.operations.outcome import Outcome, Series
from tmm_core.operations.outcome_files import OutcomeFiles
from tmm_core.operations.terminal import number
from tmm_core.operations.traffic import DAY_S, STEPS_PER_S, Day, demo_config
from tmm_core.policy.config import Config

__all__ = ["Demo", "REQUESTS_PER_S", "outcome_chart", "run_demo", "time_of_day"]

REQUESTS_PER_S = 10_000_000 / 3600
"""Service Requests in a mean second of the demonstration's day, about."""


@dataclass(frozen=True, slots=True, eq=False)
class Demo:
    """A finished demonstration: what was played, under which configuration, and what became of it."""

    day: Day
    config: Config
    outcome: Outcome


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
    day = Day(seed, max(1, round(requests / REQUESTS_PER_S)))
    config = demo_config()
    with (
        OutcomeFiles(folder, "demo", lambda second: time_of_day(day, second)) as files,
        Mechanism(config, start=0) as mechanism,
    ):
        drive = Drive(mechanism, step_ns=1_000_000_000 // STEPS_PER_S, on_row=files.row)
        for each in day.traffic(mechanism.user, mechanism.srv):
            drive.feed(each.second, each.users, each.srvs, each.steps)
            progress(each.second)
        outcome = drive.finish()
        whole = Panel("The day (time of day)", outcome.series, clock_label, speed=day.speed)
        chart = outcome_chart(
            f"tmm demo: a day at DSP peak volume, seed {seed}", outcome, config, whole,
            lambda second: f"from {time_of_day(day, second)}",
        )  # fmt: skip
        files.finish(outcome, config, chart)
    return Demo(day, config, outcome)


def outcome_chart(
    title: str, outcome: Outcome, config: Config, whole: Panel, began: Callable[[float], str]
) -> str:
    """Draw the whole traffic, and the activation that throttled most, if there was one.

    Parameters
    ----------
    title : str
    outcome : Outcome
    config : Config
    whole : Panel
        The first plot.
    began : callable
        Text for the beginning of the activation, from seconds since the start of the traffic.
    """
    panels = [whole]
    closest: Series | None = outcome.closest
    if closest is not None:
        heading = f"The activation that throttled most, {began(outcome.closest_began_s)}"
        panels.append(Panel(heading, closest, elapsed_label, zero=outcome.closest_began_s))
    uniform = all(cost == 1 for cost in config.costs.values())
    unit = "Service Requests per second" if uniform else "units per second"
    highest = "" if whole.series.width == 1 else f"; highest of each {number(whole.series.width)} s"
    description = (
        f"Offered and admitted load against the operating threshold of {number(config.operating_threshold)} and the "
        f"system capacity of {number(config.system_capacity)} {unit}. {number(outcome.requests)} Service Requests "
        f"offered, {number(outcome.of(Decision.THROTTLED))} throttled, {number(outcome.activations)} activations. "
        f"Highest second offered {number(outcome.offered.highest)}, admitted {number(outcome.admitted.highest)}."
    )
    return load_chart(
        title,
        description,
        panels,
        operating_threshold=config.operating_threshold,
        system_capacity=config.system_capacity,
        unit=unit + highest,
    )


def time_of_day(day: Day, second: float) -> str:
    """Return the time of the day, ``HH:MM:SS``, of a simulated second."""
    at = int(second * day.speed) % DAY_S
    return f"{at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}"
