"""Candidate allocations and digests, from the engine through the event log to the monthly report."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from operations.report_logs import figures, read
from operations.world import NORTH, SOUTH, World, small_config
from tmm_core import Config
from tmm_core.operations.cli import main
from tmm_core.operations.event_log.files import LogSet
from tmm_core.operations.report.compute import figures_of
from tmm_core.operations.report.files import as_json, write_report
from tmm_core.operations.report.record import anonymised
from tmm_core.snapshot import Difference

TRIED = {NORTH: 60.0, SOUTH: 1.0}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def tried(config: Config, rates: dict[str, float] = TRIED) -> Config:
    return replace(config, candidate_allocations=rates)


def logged(world: World) -> dict[tuple[str, str], list[int]]:
    rows = world.rows(
        "SELECT candidate, name, sum(over_units), sum(over_active_units), sum(within_units), sum(admitted_units)"
        " FROM candidate_days JOIN users USING (user) GROUP BY candidate, name"
    )
    found: dict[tuple[str, str], list[int]] = {}
    for version, user, *row in rows:  # a row of each month's file
        before = found.get((version, user), [0] * 4)
        found[version, user] = [a + b for a, b in zip(before, row, strict=True)]
    return {key: row for key, row in found.items() if any(row)}


def counted(world: World) -> dict[tuple[str, str], list[int]]:
    snapshot = world.mechanism.snapshot(world.now)
    assert snapshot.candidate is not None
    units = snapshot.candidate.units.tolist()
    return {
        (snapshot.candidate.version, user): row
        for user, row in zip(snapshot.users, units, strict=True)
        if any(row)
    }


def test_nothing_is_written_where_no_candidate_is_tried(world: World) -> None:
    watcher = world.watch()
    world.overload(5, watcher)
    watcher.flush()
    assert world.rows("SELECT * FROM candidate_days") == world.rows("SELECT * FROM candidate_totals") == []


def test_the_log_has_the_differences_to_the_unit_over_a_restart(world: World) -> None:
    world.mechanism.apply(tried(world.mechanism.config), now=world.now)
    watcher = world.watch()
    world.overload(5, watcher)
    watcher.flush()
    watcher.close()
    world.overload(2)  # nobody watches: the block counts on
    again = world.watch()
    world.overload(3, again)
    again.flush()
    found = logged(world)
    assert found == counted(world)
    version = world.mechanism.config.candidate_version
    assert found[version, NORTH][Difference.ADMITTED] > 0, "twice the allocation would have been admitted"
    assert found[version, SOUTH][Difference.OVER] > 0, "less than it sends"


def test_each_candidate_has_what_it_counted_itself(world: World) -> None:
    watcher = world.watch()
    first, second = tried(world.mechanism.config), tried(world.mechanism.config, {NORTH: 5.0, SOUTH: 40.0})
    world.mechanism.apply(first, now=world.now)
    world.overload(3.5, watcher)  # the change is between two looks
    of_first = counted(world)
    world.mechanism.apply(second, now=world.now)
    world.overload(3.5, watcher)
    of_second = counted(world)
    world.mechanism.apply(replace(second, candidate_allocations=None), now=world.now)
    world.overload(2, watcher)
    watcher.flush()
    assert logged(world) == {**of_first, **of_second}


def test_a_log_begun_without_the_tables_is_read_and_gets_them(world: World) -> None:
    watcher = world.watch()
    world.quiet(3, watcher)
    watcher.flush()
    watcher.close()
    with LogSet([world.path]) as logs:
        file = logs.files[0].path
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DROP TABLE candidate_days")
        connection.execute("DROP TABLE candidate_totals")
    assert figures(world.path.parent).candidates == ()
    world.mechanism.apply(tried(world.mechanism.config), now=world.now)
    again = world.watch()
    world.overload(3, again)
    again.flush()
    assert logged(world) == counted(world) != {}


def test_the_counts_go_on_in_the_next_month(tmp_path: Path) -> None:
    world = World(tmp_path, tried(small_config()), at_ms=1_764_547_195_000)  # 2025-11-30 23:59:55
    watcher = world.watch()
    world.overload(4, watcher)
    before = counted(world)
    world.overload(4, watcher)
    watcher.flush()
    watcher.close()
    again = world.watch()
    world.overload(2, again)
    again.flush()
    assert logged(world) == counted(world)
    november = figures(tmp_path, "2025-11").candidates[0]
    december = figures(tmp_path, "2025-12").candidates[0]
    assert november.version == december.version
    assert sum(each.over_units for each in november.users) >= sum(row[0] for row in before.values()) > 0
    assert sum(each.over_units for each in december.users) > 0
    world.close()


def test_the_report_compares_each_user_and_says_nothing_without_a_candidate(
    world: World, tmp_path: Path
) -> None:
    watcher = world.watch()
    world.overload(2, watcher)
    watcher.flush()
    without = figures(tmp_path)
    assert "candidates" not in json.loads(as_json(without))
    write_report(without, tmp_path / "without", statements=False)
    assert "Candidate Allocations" not in (tmp_path / "without" / "report.html").read_text()
    assert not list((tmp_path / "without" / "csv").glob("candidate*"))

    throttled_before = world.mechanism.engine.units().copy()
    world.mechanism.apply(tried(world.mechanism.config), now=world.now)
    world.overload(5, watcher)
    watcher.flush()
    found = figures(tmp_path)
    (candidate,) = found.candidates
    units = world.mechanism.engine.units() - throttled_before
    slots = {name: slot for slot, name in enumerate(world.mechanism.snapshot(world.now).users)}
    differences = counted(world)
    assert {user.user for user in candidate.users} == {NORTH, SOUTH}
    for user in candidate.users:
        row = differences[candidate.version, user.user]
        throttled = int(units[slots[user.user], 0])
        assert (user.allocation, user.candidate) == (
            small_config().allocations[user.user], TRIED[user.user],
        )  # fmt: skip
        assert user.offered_units == int(np.asarray(units[slots[user.user]]).sum())
        assert user.throttled_units == throttled
        assert (
            user.candidate_throttled_units
            == throttled - row[Difference.ADMITTED] + row[Difference.OVER_WHILE_ACTIVE]
        )
        assert user.difference_units == user.candidate_throttled_units - throttled != 0
    write_report(found, tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text()
    assert "Candidate Allocations" in html
    # A User is told what became of its requests; a draft it might take for its allocation is not part of that.
    statements = [path.read_text() for path in (tmp_path / "report" / "statements").iterdir()]
    assert len(statements) == 4
    assert not [text for text in statements if "candidate" in text.lower() or candidate.version in text]
    assert f"Candidate {candidate.version} was tried without effect on Wed 25 Nov 2026" in html
    with (tmp_path / "report" / "csv" / "candidate-1.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["user"]: row for row in csv.DictReader(file)}
    listed = json.loads((tmp_path / "report" / "report.json").read_text())["candidates"][0]["users"]
    assert {row["user"]: str(row["difference_units"]) for row in listed} == {
        name: row["difference_units"] for name, row in rows.items()
    }


def test_an_anonymised_report_names_no_user_of_a_candidate(world: World, tmp_path: Path) -> None:
    watcher = world.watch()
    world.mechanism.apply(tried(world.mechanism.config, {**TRIED, "Newcomer": 3.0}), now=world.now)
    world.overload(3, watcher)
    watcher.flush()
    record, _ = anonymised(read(tmp_path))
    text = as_json(figures_of(record, anonymised=True))
    assert '"candidates"' in text
    for name in (NORTH, SOUTH, "Newcomer"):
        assert name not in text


def test_one_digest_from_the_file_to_events_and_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "allocations.csv").write_text(
        f"user,category,user_ids,allocation\n{NORTH},large-supplier,90-B3-D5-1F-30-01-00-00,30\n",
        encoding="utf-8",
    )
    (tmp_path / "tmm.toml").write_text(
        "[capacity]\nsystem_capacity = 120\noperating_threshold = 100\n[files]\nallocations = 'allocations.csv'\n",
        encoding="utf-8",
    )
    config = Config.load(tmp_path / "tmm.toml")
    digest = config.allocations_digest
    assert digest is not None
    assert len(digest) == 12
    world = World(tmp_path, config)
    watcher = world.watch()
    world.traffic(2, {(NORTH, "4.1.1"): 1.0}, watcher)
    watcher.flush()
    world.close()
    assert main(["events", str(tmp_path / "events.db")]) == 0
    assert digest in capsys.readouterr().out
    write_report(figures(tmp_path), tmp_path / "report", statements=False)
    assert digest in (tmp_path / "report" / "report.html").read_text()
    assert digest in (tmp_path / "report" / "csv" / "settings.csv").read_text()
    versions = json.loads((tmp_path / "report" / "report.json").read_text())["versions"]
    assert versions[-1]["description"]["allocations_digest"] == digest
    # The same twelve digits as of the file's bytes, which are all that is named.
    (tmp_path / "allocations.csv").write_text(
        f"user,category,user_ids,allocation\n{NORTH},large-supplier,90-B3-D5-1F-30-01-00-00,31\n",
        encoding="utf-8",
    )
    assert Config.load(tmp_path / "tmm.toml").allocations_digest != digest
