"""The figures of the monthly report, worked by hand from small logs; events are counted once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from operations.report_logs import HARBOUR, NORTHERN, WORKS, Host, config, figures, ms, november, read
from tmm_core.errors import EventLogError, TMMError
from tmm_core.operations.report.changes import versions_of
from tmm_core.operations.report.compute import events_of
from tmm_core.operations.report.figures import Counts
from tmm_core.operations.report.page import answer, attention
from tmm_core.operations.report.record import Activation, Applied, Month
from tmm_core.policy.portfolio import Portfolio, UserPortfolio


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The logs of `november`, to be read only."""
    return november(tmp_path_factory.mktemp("logs"))


# --- Figures of the month


def test_counts_of_all_hosts_are_added_up(logs: Path) -> None:
    found = figures(logs)
    # Each host: 1500 + 60 throttled; 3 + 300 + 30 spare; 1200 + 150 + 60 + 6 + 1800 + 120 within; 20 + 240 priority.
    assert found.counts == Counts(2 * 1560, 2 * 333, 2 * 3336, 2 * 260)
    assert found.counts.offered == 10_978
    # 4.8.1 costs 4 units: 360 of its requests add 3 units each on each host.
    assert found.units_offered == 10_978 + 2 * 3 * (150 + 210)
    assert found.hosts == ("alpha", "beta")


def test_a_user_is_measured_against_its_allocation(logs: Path) -> None:
    found = {user.user: user for user in figures(logs).users}
    northern, harbour = found[NORTHERN], found[HARBOUR]
    # 60 for 14 days and 66 for 16 of 30 days.
    assert (northern.allocation, northern.allocation_at_end) == (63.2, 66.0)
    # (1500 + 300 + 1800 + 240) requests on each of two hosts in one minute.
    assert northern.busiest_minute == 128.0
    assert northern.busiest_at == datetime(2026, 11, 10, 17, 0, tzinfo=UTC)
    # (60 + 30 + 120) of 4 units on two hosts: 28 a second.
    assert harbour.busiest_minute == 28.0
    # Within: (150 + 120) * 4 units on two hosts, of 20 a second for 30 days.
    assert harbour.allocation_used == pytest.approx(2 * 270 * 4 / (20 * 30 * 86_400))
    assert {srv.srv: srv.counts.offered for srv in harbour.srvs} == {"4.8.1": 720}
    # Refused in the same two seconds on both hosts: two seconds, not four.
    assert (northern.throttled_s, harbour.throttled_s, found[WORKS].throttled_s) == (2, 1, 0)
    assert [user.user for user in figures(logs).users if user.is_unknown] == ["(unknown)"]


def test_the_load_is_measured_against_the_threshold(logs: Path) -> None:
    load = figures(logs).load
    # Both hosts: 3600 + 240 + 210 * 4 = 4680 units offered, 1500 + 60 * 4 = 1740 of them throttled.
    assert (load.highest_offered, load.highest_admitted) == (2 * 4680 / 60, 2 * 2940 / 60)
    assert load.highest_offered_at == datetime(2026, 11, 10, 17, 0, tzinfo=UTC)
    assert (load.minutes_offered_above, load.minutes_at_threshold) == (1, 0)
    # 17:00:21: 25 + 30 + 1 + 2 offered on each host; 17:00:20: 80, and 40 admitted.
    assert (load.highest_second_offered, load.highest_second_admitted) == (160, 80)
    assert load.hourly[9 * 24 + 17] == (156.0, 98.0)
    assert len(load.hourly) == 720
    assert not load.units_equal_requests


def test_days_and_hours_hold_all_of_the_month(logs: Path) -> None:
    found = figures(logs)
    assert [day.day for day in found.days] == [date(2026, 11, day) for day in range(1, 31)]
    assert sum(day.counts.offered for day in found.days) == found.counts.offered
    assert sum(day.active_s for day in found.days) == found.active_s == 200.5
    assert sum(hour.active_s for hour in found.hours) == pytest.approx(200.5)
    assert found.hours[17].active_s == 170.5


def test_changes_are_found(logs: Path) -> None:
    found = figures(logs)
    assert [version.before_month for version in found.versions] == [True, False]
    assert [(c.user, c.before, c.after, c.at_ms) for c in found.allocation_changes] == [
        (NORTHERN, 60.0, 66.0, ms("2026-11-15T00:00:00"))
    ]
    assert found.allocation_changes[0].change == pytest.approx(0.1)
    assert [(c.version, c.added, c.removed, c.approved_by) for c in found.list_changes] == [
        ("7", ("7.4",), (), "Panel")
    ]
    assert [(c.setting, c.before, c.after) for c in found.setting_changes] == [("hold_s", "10", "20")]


def test_months_are_compared(logs: Path) -> None:
    found = figures(logs)
    october, now = found.trends
    assert (october.month, now.month) == ("2026-10", "2026-11")
    # 910 on each host, all on the 24th; one event of 20 minutes on both.
    assert (october.counts.offered, october.busiest_day) == (1820, 1820)
    assert (october.activations, october.active_s) == (1, 1200)
    assert (now.activations, now.active_s, now.users_throttled) == (2, 200.5, 2)


def test_a_forecast_is_compared_with_what_was_sent(logs: Path) -> None:
    portfolio = Portfolio(
        "2026-11",
        (UserPortfolio(NORTHERN, "large-supplier", forecast=8_400), UserPortfolio("Never Seen", "other")),
    )
    found = {user.user: user for user in figures(logs, portfolio=portfolio).users}
    # 10,080 sent: 6,000 + 3,000 + 600 + 480.
    assert found[NORTHERN].counts.offered == 10_080
    assert found[NORTHERN].against_forecast == pytest.approx(0.2)
    assert found[HARBOUR].against_forecast is None


def test_a_user_that_sent_nothing_has_its_line(tmp_path: Path) -> None:
    host = Host(tmp_path).configure("2026-11-01T00:00:00", config())
    host.write("2026-11-30T23:59:59", {("2026-11-03T12:00:00", NORTHERN, "4.1.1"): (0, 0, 5, 0)}).close()
    found = {user.user: user.counts.offered for user in figures(tmp_path).users}
    assert found == {NORTHERN: 5, HARBOUR: 0, WORKS: 0}


# --- Events


def test_an_event_at_midnight_is_counted_once_and_split_between_the_days(tmp_path: Path) -> None:
    Host(tmp_path).event("2026-11-09T23:58:00", 300).write("2026-11-30T23:59:59").close()
    found = figures(tmp_path)
    assert (found.began, len(found.events), found.active_s) == (1, 1, 300)
    assert [day.active_s for day in found.days if day.active_s] == [120, 180]


def test_an_event_at_the_months_end_is_counted_in_the_month_it_began_in(logs: Path) -> None:
    now, then = figures(logs, "2026-11"), figures(logs, "2026-12")
    event, same = now.events[-1], then.events[0]
    assert event.duration_s == same.duration_s == 90
    assert event.began_in(now.month) and not same.began_in(then.month)
    assert (event.seconds_in(now.month), same.seconds_in(then.month)) == (30, 60)
    assert (then.began, then.active_s) == (0, 60)
    # Over the three months every event is counted once.
    assert [trend.activations for trend in then.trends] == [1, 2, 0]


def test_an_event_in_the_files_of_two_months_is_one(tmp_path: Path) -> None:
    host = Host(tmp_path, at="2026-11-30T23:00:00")
    host.event("2026-11-30T23:50:00", None)  # open at the month's end: copied into December's file
    host.write("2026-12-01T00:05:00")
    host.event_number -= 1
    host.event("2026-11-30T23:50:00", 1200).close()
    assert len(list(tmp_path.glob("alpha-2026-*.db"))) == 2
    now, then = figures(tmp_path, "2026-11"), figures(tmp_path, "2026-12")
    assert (now.began, now.active_s, now.quality.open_events) == (1, 600, ())
    assert (then.began, then.active_s) == (0, 600)


@pytest.mark.parametrize("step_s", [-3600, 0, 3600])
def test_a_clock_change_changes_neither_count_nor_duration(tmp_path: Path, step_s: int) -> None:
    # UK clocks went back at 01:00 UTC on 25 October 2026; a wall clock that was stepped makes no difference.
    Host(tmp_path, at="2026-10-01T00:00:00").event("2026-10-25T00:50:00", 1200, clock_step_s=step_s).write(
        "2026-10-31T23:59:59"
    ).close()
    found = figures(tmp_path, "2026-10")
    assert (found.began, found.active_s) == (1, 1200)
    assert [day.active_s for day in found.days if day.active_s] == [1200]
    assert sum(hour.active_s for hour in found.hours) == 1200


def test_an_overload_seen_by_two_hosts_is_one_event(tmp_path: Path) -> None:
    for name, began, seconds in (
        ("alpha", "17:00:00", 60),
        ("beta", "17:00:02", 90),
        ("gamma", "17:01:33", 10),
    ):
        host = Host(tmp_path, name)
        host.event(f"2026-11-10T{began}", seconds, {NORTHERN: (10, 0, 5, 0)}).write(
            "2026-11-30T23:59:59"
        ).close()
    found = figures(tmp_path)
    # alpha and beta overlap: 17:00:00 to 17:01:32; gamma begins a second after that: joined as well.
    assert (found.began, found.active_s) == (1, 103)
    assert found.events[0].hosts == ("alpha", "beta", "gamma")
    assert found.events[0].throttled == 30
    assert found.events[0].users_throttled == 1


def test_activations_two_seconds_apart_are_two_events() -> None:
    def one(host: str, began_ms: int, until_ms: int) -> Activation:
        return Activation(
            f"{host}/{began_ms}", host, began_ms, until_ms, False, True, "enforce", 100, 120, 0.3
        )

    assert len(events_of([one("a", 0, 10_000), one("b", 12_000, 20_000)])) == 2
    # A long one covers the short ones inside it.
    assert len(events_of([one("a", 0, 90_000), one("b", 5_000, 6_000), one("b", 50_000, 51_000)])) == 1


def test_an_event_without_an_end_is_reported_open(tmp_path: Path) -> None:
    Host(tmp_path).event("2026-11-10T17:00:00", None).write("2026-11-10T17:30:00").close()
    found = figures(tmp_path)
    assert found.quality.open_events == (1,)
    # As long as its host was heard of.
    assert found.active_s == 1800
    assert not found.quality.is_complete


def test_what_was_only_observed_is_said_to_have_been_admitted(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write("2026-11-10T17:00:00", {("2026-11-10T16:59:00", NORTHERN, "4.1.1"): (10, 0, 5, 0)})
    host.event("2026-11-10T17:00:00", 60, {NORTHERN: (10, 0, 5, 0)}, mode="observe")
    host.write("2026-12-01T00:00:00").close()
    found = figures(tmp_path)
    assert "It would have throttled 10 of 15 Service Requests" in answer(found)
    assert next(attention(found)).startswith("The Mechanism only observed")


# --- Data quality


def test_gaps_losses_and_missing_hosts_are_data_quality(logs: Path) -> None:
    found = figures(logs, hosts=("alpha", "beta", "delta")).quality
    assert [(gap.host, gap.from_ms, gap.seconds) for gap in found.gaps] == [
        ("beta", ms("2026-11-05T08:00:00"), 7200)
    ]
    assert found.missing_hosts == ("delta",)
    # Two of three hosts, one of them without two of 720 hours.
    assert found.coverage == pytest.approx((1 + 718 / 720) / 3)
    assert [(loss.what, loss.records) for loss in found.losses] == [("throttle-record", 5)]
    assert [(fault.kind, fault.host, fault.count) for fault in found.faults] == [
        ("worker-died", "alpha", 1),
        ("worker-died", "beta", 1),
    ]
    assert not found.is_complete


def test_a_whole_log_is_complete(tmp_path: Path) -> None:
    Host(tmp_path).write("2026-11-30T23:59:59").write("2026-12-02T00:00:00").close()
    found = figures(tmp_path).quality
    assert found.is_complete
    assert (found.coverage, found.gaps, found.hosts[0].files) == (1.0, (), 1)


def test_a_host_whose_file_of_the_month_was_not_given_is_missing(tmp_path: Path) -> None:
    Host(tmp_path).write("2026-12-01T00:00:00").close()
    Host(tmp_path, "beta", "2026-10-01T00:00:00").write("2026-11-01T00:00:00").close()
    found = figures(tmp_path).quality
    assert found.missing_hosts == ("beta",)
    assert found.coverage == pytest.approx(0.5)


def test_a_file_missing_between_two_months_is_seen_by_its_numbers(tmp_path: Path) -> None:
    host = Host(tmp_path, at="2026-10-31T00:00:00")
    for until in ("11-01T00:00:00", "11-02T00:00:00", "11-03T00:00:00", "12-01T00:00:00", "12-02T00:00:00"):
        host.write(f"2026-{until}")
    host.close()
    Host(tmp_path, "beta").write("2026-12-01T00:00:00").close()
    (tmp_path / "alpha-2026-11.db").unlink()
    # The first commit is October's, the last December's; three were in the file that is gone.
    assert figures(tmp_path).quality.hosts[0].missing_commits == 3


def test_an_entry_missing_inside_a_file_is_seen_by_its_number(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for day in (5, 6, 7, 8):
        host.write(f"2026-11-0{day}T00:00:00")
    host.write("2026-12-01T00:00:00").close()
    with closing(sqlite3.connect(tmp_path / "alpha-2026-11.db")) as connection, connection:
        connection.execute("DELETE FROM commits WHERE seq IN (2, 3)")
    found = figures(tmp_path).quality
    assert found.hosts[0].missing_commits == 2
    # And the two days they covered were not logged.
    assert [(gap.from_ms, gap.seconds) for gap in found.gaps] == [(ms("2026-11-05T00:00:00"), 2 * 86_400)]


def test_figures_that_are_logged_twice_are_compared(tmp_path: Path) -> None:
    november(tmp_path)
    assert figures(tmp_path).quality.disagreements == ()
    with closing(sqlite3.connect(tmp_path / "alpha-2026-11.db")) as connection, connection:
        connection.execute("UPDATE user_days SET within = within + 1, within_units = within_units + 1")
    found = figures(tmp_path).quality.disagreements
    assert len(found) == 2
    assert found[0].startswith("Service Requests by SRV add up to 10,978, by day to 10,98")


# --- Reading


def test_a_month_is_read_whichever_file_its_rows_are_in(tmp_path: Path) -> None:
    host = Host(tmp_path, at="2026-11-30T23:59:00")
    host.write("2026-12-01T00:01:00", {
        ("2026-11-30T23:59:30", NORTHERN, "4.1.1"): (0, 0, 7, 0),
        ("2026-12-01T00:00:30", NORTHERN, "4.1.1"): (0, 0, 5, 0),
    }).close()  # fmt: skip
    # Both minutes were written in one commit, into one file.
    assert len(list(tmp_path.glob("*.db"))) == 1
    assert [read(tmp_path, month).user_days.sum() for month in ("2026-11", "2026-12")] == [7, 5]


def test_a_month_without_rows_is_refused(logs: Path) -> None:
    with pytest.raises(
        EventLogError, match="the logs hold nothing about 2027-03: they are of 2026-10, 2026-11"
    ):
        read(logs, "2027-03")


@pytest.mark.parametrize("text", ["2026-13", "2026-1", "november", "2026-11-01", "\u0662026-11"])
def test_a_wrong_month_is_refused(text: str) -> None:
    with pytest.raises(TMMError, match="expected a form like 2026-11"):
        Month.parse(text)


def test_the_busiest_minute_is_the_highest_of_all_hosts_together(tmp_path: Path) -> None:
    # alpha alone was busiest at 10:00, beta at 12:00, both together at 11:00.
    for name, counts in (("alpha", (100, 80, 0)), ("beta", (0, 70, 110))):
        host = Host(tmp_path, name)
        host.write("2026-11-30T23:59:59", {
            (f"2026-11-04T{10 + hour}:00:00", NORTHERN, "4.1.1"): (0, 0, count, 0)
            for hour, count in enumerate(counts) if count
        }).close()  # fmt: skip
    record = read(tmp_path)
    assert record.user_busiest.tolist() == [[150, (3 * 24 + 11) * 60]]
    assert np.count_nonzero(record.minute_units[:, 0]) == 3


def test_a_version_logged_again_for_its_candidate_is_not_a_late_host() -> None:
    month, hour = Month(2026, 11), 3_600_000
    at = month.start_ms + hour
    again = [
        Applied("alpha", at, "a1", {}),
        Applied("beta", at + 5, "a1", {}),
        Applied("alpha", at + 9 * hour, "a1", {}),
    ]
    (version,) = versions_of(again, month)
    assert (version.spread_ms, version.hosts) == (5, ("alpha", "beta"))
