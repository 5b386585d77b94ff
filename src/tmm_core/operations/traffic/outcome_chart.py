"""The chart of an outcome: the whole traffic, and below it the activation that throttled most."""

from __future__ import annotations

from collections.abc import Callable

from tmm_core.mechanism import Decision
from tmm_core.operations.figures import Panel, elapsed_label, load_chart
from tmm_core.operations.terminal import number
from tmm_core.operations.traffic.outcome import Outcome
from tmm_core.policy.config import Config

__all__ = ["finding", "outcome_chart"]


def outcome_chart(
    outcome: Outcome, config: Config, whole: Panel, subtitle: str, began: Callable[[float], str]
) -> str:
    """Draw the whole traffic, and the activation that throttled most, if there was one.

    Parameters
    ----------
    outcome : Outcome
    config : Config
    whole : Panel
        The first plot.
    subtitle : str
        What traffic it was, and when.
    began : callable
        Text for the beginning of the activation, from seconds since the start of the traffic.
    """
    panels = [whole]
    if outcome.closest is not None:
        heading = f"Most throttled activation, {began(outcome.closest_began_s)}"
        panels.append(Panel(heading, outcome.closest, elapsed_label, zero=outcome.closest_began_s))
    uniform = all(cost == 1 for cost in config.costs.values())
    unit = "Service Requests per second" if uniform else "Units per second"
    highest = "" if whole.series.width == 1 else f" (highest of each {number(whole.series.width)} s)"
    description = (
        "Offered and admitted load against the operating threshold of "
        f"{number(config.operating_threshold)} and the "
        f"system capacity of {number(config.system_capacity)} {unit.lower()}. "
        f"{number(outcome.requests)} Service "
        f"Requests offered, {number(outcome.of(Decision.THROTTLED))} throttled, "
        f"{number(outcome.activations)} "
        f"activations. Highest second offered {number(outcome.offered.highest)}, admitted "
        f"{number(outcome.admitted.highest)}."
    )
    return load_chart(
        finding(outcome, config),
        description,
        panels,
        operating_threshold=config.operating_threshold,
        system_capacity=config.system_capacity,
        subtitle=subtitle,
        unit=unit + highest,
    )


def finding(outcome: Outcome, config: Config) -> str:
    """Say in one sentence what was found."""
    if not outcome.activations:
        return f"Never active, nothing throttled: {number(outcome.offered.highest)} offered in the "
        "highest second"
    return (
        f"Of up to {number(outcome.offered.highest)} offered per second, at most "
        f"{number(outcome.highest_while_active)} were admitted while the Mechanism was active"
    )
