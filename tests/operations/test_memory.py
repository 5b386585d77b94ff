"""Memory does not grow with the traffic: simulations, replays of either log, two configurations side by side.

Each is run on some traffic and on several times as much; what NumPy and Python hold at most is compared.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tmm_core.operations.replay import Requests, Source, run_replay
from tmm_core.operations.simulate import run_demo, simulate
from tmm_core.operations.simulation.scenario import Client, Scenario
from tmm_core.operations.simulation.scenario_files import load_scenario
from tmm_core.operations.traffic.logged_traffic import LoggedTraffic
from tmm_core.operations.traffic.request_log import RequestLog

from .report_logs import HARBOUR, NORTHERN, WORKS, Host, config

MB = 1 << 20


def peak(run: Callable[[], int]) -> tuple[int, int]:
    """Return how many Service Requests a run had, and the bytes it held at most."""
    tracemalloc.start()
    try:
        requests = run()
        return requests, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def grows_by(run: Callable[[int], int], few: int, many: int, least: float) -> float:
    """Return how many bytes more `many` take than `few`, with at least so many times the Service Requests."""
    run(few)  # what is imported and kept for good
    (small, first), (large, second) = peak(lambda: run(few)), peak(lambda: run(many))
    assert large >= least * small > 0
    return second - first


def steady(scenario: Scenario) -> Scenario:
    """Return it with as much traffic in every second, a third above the threshold."""
    traffic = tuple(replace(each, kind="steady", at_s=0.0, lasts_s=0.0) for each in scenario.traffic)
    return replace(scenario, traffic=traffic, step_ms=50)


@pytest.mark.parametrize("clients", [False, True])
def test_a_longer_simulation_takes_a_few_hundred_bytes_a_second_more(clients: bool) -> None:
    """A row for each second is kept, and the waiting requests of clients, none beyond its sender's patience."""
    scenario = steady(load_scenario("same-hour").scaled(0.01)).without_clients()
    if clients:
        polite = Client("polite", "retry-after", attempts=3, patience_s=20)
        scenario = replace(scenario, users=tuple(replace(each, client=polite) for each in scenario.users))

    def run(seconds: int) -> int:
        (fair,) = simulate(replace(scenario, seconds=seconds), ["fair"]).results
        assert fair.activations
        return fair.requests

    assert grows_by(run, 50, 250, 4.9) < 200 * 1000


def test_a_larger_volume_takes_what_one_second_of_it_takes() -> None:
    def run(percent: int) -> int:
        scenario = steady(load_scenario("same-hour").scaled(percent / 100)).without_clients()
        return simulate(replace(scenario, seconds=20), ["fair"]).results[0].requests

    # 500 a second against 10,000: twenty seconds are drawn at once, of 9,500 words of 4 or 8 bytes, in some copies.
    assert grows_by(run, 2, 40, 15) < 8 * MB


def test_a_longer_day_of_the_demonstration_takes_no_more(tmp_path: Path) -> None:
    def run(requests: int) -> int:
        return run_demo(tmp_path, requests=requests).outcome.requests

    assert grows_by(run, 150_000, 450_000, 2.8) < 0.5 * MB


def replayed(source: Source, folder: Path) -> int:
    """Replay under two configurations."""
    beside = replace(config(), operating_threshold=110.0)
    return run_replay(source, config(), folder, beside=beside).outcome.requests


@pytest.mark.slow
def test_a_longer_request_log_takes_no_more(tmp_path: Path) -> None:
    lines = "".join(
        f"{1796083200 + second}.{place:03d},{user},4.1.1\n"
        for second in range(750)
        for place, user in enumerate((NORTHERN, HARBOUR, WORKS, "x") * 120)
    )

    def run(seconds: int) -> int:
        with (tmp_path / "requests.csv").open("w", encoding="utf-8") as file:
            file.write("time,user_id,srv\n")
            file.write(lines[: len(lines) // 750 * seconds])
        with RequestLog(tmp_path / "requests.csv") as log:
            return replayed(Requests(log), tmp_path / "out")

    # 240,000 lines more, 8.6 MB of text.
    assert grows_by(run, 250, 750, 2.9) < MB


def test_a_longer_event_log_takes_no_more(tmp_path: Path) -> None:
    def run(minutes: int) -> int:
        folder = tmp_path / str(minutes)
        if not folder.exists():
            counts = {
                (f"2026-11-10T{at // 60:02d}:{at % 60:02d}", user, "4.1.1"): (0, 0, 3600, 0)
                for at in range(minutes)
                for user in (NORTHERN, HARBOUR, WORKS)
            }
            Host(folder, at="2026-11-10T00:00:00").write("2026-11-10T12:00:00", counts).close()
        with LoggedTraffic([folder]) as traffic:
            return replayed(traffic, tmp_path / "out")

    run(8)  # writing a log is not reading it
    assert grows_by(run, 2, 8, 3.9) < 194_400  # 3 bytes for each Service Request more
