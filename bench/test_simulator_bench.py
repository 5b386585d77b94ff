"""The simulator: simulated seconds per second of processor time, on one core, everything included.

Drawing the Service Requests, deciding, the DSP, the clients and the tallies; not the files. 52 Users and an unknown
identifier, steps of 10 ms, the policy of the Mechanism alone. Of pieces of twenty simulated seconds, drawn and
run at once, the fastest counts, in the time of this process: other work on the machine only ever adds.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from time import process_time
from typing import Any

from tmm_core.operations.simulate import Simulation, simulate
from tmm_core.operations.simulation.scenario import Scenario, Traffic
from tmm_core.operations.simulation.scenario_files import load_scenario

PIECE_S = 20
USUAL_S = 60


def scenario_of(per_second: float, *, threshold: float = 20_000.0, seconds: int = USUAL_S) -> Scenario:
    """Return ordinary business of the Users of the shipped scenarios, at one volume throughout."""
    base = load_scenario("beast-from-the-east")
    shares = (
        ("* Supplier *", "supplier", 0.9), ("* Network *", "network", 0.08), ("Other SEC Party *", "other", 0.02),
    )  # fmt: skip
    traffic = [Traffic((users,), "steady", per_second * share, mix) for users, mix, share in shares]
    config = replace(
        base.config, operating_threshold=threshold, system_capacity=1.25 * threshold, release_threshold=None
    )
    return replace(base, config=config, traffic=tuple(traffic), seconds=seconds)


def speed(scenario: Scenario, benchmark: Any) -> tuple[float, Simulation]:
    """Return simulated seconds per second of processor time."""
    marks: list[float] = []

    def progress(second: float) -> None:
        if second % PIECE_S == 0:
            marks.append(process_time())

    gc.collect()
    gc.freeze()  # what pytest keeps is no part of a simulation, and not looked through again and again
    try:
        simulation = benchmark.pedantic(simulate, (scenario, ["fair"]), {"progress": progress}, rounds=1)
    finally:
        gc.unfreeze()
    pieces = [after - before for before, after in pairwise(marks)]
    return PIECE_S / min(pieces), simulation


def say(times: float, simulation: Simulation) -> tuple[float, str, str]:
    """Return the figure and how it reads."""
    (result,) = simulation.results
    attempts = result.attempts / simulation.scenario.seconds
    spent = 1e9 / (times * attempts)
    return (
        times,
        f"{times:,.0f} times real time",
        f"{attempts:,.0f} attempts a second, {spent:,.0f} ns for each",
    )


def test_simulator_without_clients(judge: Callable[..., None], benchmark: Any) -> None:
    """DSP peak volume below the threshold, nobody sends again: whole seconds are decided at once."""
    scenario = scenario_of(20_000, threshold=24_000, seconds=15 * PIECE_S).without_clients()
    times, simulation = speed(scenario, benchmark)
    assert not simulation.results[0].activations
    judge("simulator_open", "simulator without clients, 20,000/s", *say(times, simulation))


def test_simulator_without_clients_throttling(judge: Callable[..., None], benchmark: Any) -> None:
    """Half as much again as the threshold, nobody sends again: each step is decided on its own."""
    times, simulation = speed(scenario_of(30_000).without_clients(), benchmark)
    assert simulation.results[0].active_s > 0.9 * USUAL_S
    judge(
        "simulator_open_throttling", "simulator without clients, 30,000/s, a third throttled",
        *say(times, simulation),
    )  # fmt: skip


def test_simulator_with_clients(judge: Callable[..., None], benchmark: Any) -> None:
    """DSP peak volume below the threshold, with clients that would send again."""
    times, simulation = speed(scenario_of(20_000, threshold=24_000), benchmark)
    judge("simulator_closed", "simulator with clients, 20,000/s", *say(times, simulation))


def test_simulator_with_clients_throttling(judge: Callable[..., None], benchmark: Any) -> None:
    """A quarter more than the threshold for a minute, and all that comes back."""
    times, simulation = speed(scenario_of(25_000), benchmark)
    assert simulation.results[0].attempts_per_request > 1.2
    judge(
        "simulator_closed_throttling", "simulator with clients, 25,000/s new, throttled ones come back",
        *say(times, simulation),
    )  # fmt: skip
