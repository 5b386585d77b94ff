"""What SECMP0067 and SEC H3.24 ask of reporting, each in its own words, from the engine to the page."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from operations.report_logs import HARBOUR, NORTHERN, figures, november
from operations.world import NORTH, SOUTH, World
from tmm_core import Decision
from tmm_core.operations.report.files import write_report
from tmm_core.operations.report.working_days import DUE_WORKING_DAY, is_working_day
from tmm_core.policy.portfolio import Portfolio, UserPortfolio

pytest.importorskip("jinja2", reason="Jinja2 is not installed (extra: report)")


class Headings(HTMLParser):
    """The texts of the second- and third-level headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._open = tag in ("h2", "h3")

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.found.append(data)
        self._open = False


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return november(tmp_path_factory.mktemp("logs"))


def test_f11_events_are_logged_and_a_user_is_told_their_frequency_and_duration(
    world: World, tmp_path: Path
) -> None:
    watcher = world.watch()
    world.quiet(3, watcher)
    world.overload(6, watcher)
    world.quiet(5, watcher)
    world.overload(4, watcher)
    world.quiet(5, watcher)
    watcher.flush()
    found = figures(tmp_path)
    assert found.began == world.mechanism.snapshot(world.now).activations == 2
    write_report(found, tmp_path / "report")
    with (tmp_path / "report/statements/northern-energy.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["part"], row["item"], row["measure"]): row["value"] for row in csv.DictReader(file)}
    # Each event with its time, its length and what was throttled of this User in it.
    throttled = [int(rows["event", number, "throttled"]) for number in ("1", "2")]
    assert sum(throttled) == int(rows["total", "", "throttled"]) > 0
    assert [float(rows["event", number, "duration_s"]) for number in ("1", "2")] == [
        event.duration_s for event in found.events
    ]
    # The overload lasts 6 and 4 s; it is noticed within a second, and held for one after it.
    assert 5 < found.events[0].duration_s < 9
    assert 3 < found.events[1].duration_s < 7
    text = (tmp_path / "report/statements/northern-energy.html").read_text(encoding="utf-8")
    assert "Frequency and duration of throttling" in Headings(text).found
    assert "Throttled twice" in text


def test_f12_the_report_covers_configuration_capacity_users_and_trends(logs: Path, tmp_path: Path) -> None:
    write_report(figures(logs), tmp_path)
    found = Headings((tmp_path / "report.html").read_text(encoding="utf-8")).found
    wanted = ["Summary", "System Configuration", "System Capacity", "Users", "Trends"]
    assert [heading for heading in found if heading in wanted] == wanted
    assert "Frequency and duration of activations" in found


def test_f12_the_figures_of_the_report_are_those_of_the_engine(world: World, tmp_path: Path) -> None:
    watcher = world.watch()
    world.quiet(3, watcher)
    world.overload(8, watcher)
    world.quiet(8, watcher)
    watcher.flush()
    snapshot = world.mechanism.snapshot(world.now)
    found = figures(tmp_path)
    counts = snapshot.counts.sum(axis=(0, 1))
    assert [
        found.counts.throttled,
        found.counts.spare_capacity,
        found.counts.within_allocation,
        found.counts.priority,
    ] == counts.tolist()
    assert found.counts.throttled > 0
    for user in found.users:
        own = snapshot.counts[snapshot.users.index(user.user)]
        assert user.counts.offered == own.sum()
        assert user.counts.throttled == own[:, Decision.THROTTLED].sum()
        by_srv = {srv.srv: srv.counts.throttled for srv in user.srvs}
        assert by_srv == {
            snapshot.srvs[place]: int(own[place, Decision.THROTTLED])
            for place in np.nonzero(own.sum(axis=1))[0]
        }
    # 2 requests of 4 units a second from the one, and units are what the threshold is measured in.
    assert found.units_offered == int(world.mechanism.engine.units().sum())
    assert {user.user for user in found.users} == {NORTH, SOUTH}


def test_h3_24_each_user_is_given_what_it_sent_in_total_and_per_service_against_its_forecast(
    logs: Path, tmp_path: Path
) -> None:
    portfolio = Portfolio("2026-11", (UserPortfolio(HARBOUR, "small-supplier", forecast=800),))
    write_report(figures(logs, portfolio=portfolio), tmp_path)
    with (tmp_path / "statements/harbour-gas.csv").open(encoding="utf-8", newline="") as file:
        rows = {(row["part"], row["item"], row["measure"]): row["value"] for row in csv.DictReader(file)}
    # 150 + 210 requests of 4.8.1 on each of two hosts, against a forecast of 800: a tenth below it.
    assert rows["total", "", "offered"] == "720"
    assert rows["total", "", "forecast"] == "800"
    assert float(rows["total", "", "against_forecast"]) == pytest.approx(-0.1)
    per_service = {key[1]: value for key, value in rows.items() if key[0] == "srv" and key[2] == "offered"}
    assert per_service == {"4.8.1": "720"}
    text = (tmp_path / "statements/harbour-gas.html").read_text(encoding="utf-8")
    assert "Forecast for the month" in text and "−10.0 %" in text
    assert NORTHERN not in text


def test_h3_24_the_report_and_the_statements_say_when_they_are_due(logs: Path, tmp_path: Path) -> None:
    found = figures(logs)
    write_report(found, tmp_path)
    # 1 December 2026 is a Tuesday; the tenth Working Day is Monday 14.
    assert (DUE_WORKING_DAY, found.due.isoformat()) == (10, "2026-12-14")
    assert is_working_day(found.due)
    for page in (tmp_path / "report.html", tmp_path / "statements/harbour-gas.html"):
        assert "Monday 14 December 2026, the 10th Working Day" in page.read_text(encoding="utf-8")
