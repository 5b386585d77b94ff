"""`tmm demo`: the same seed, the same bytes; a story that is true; nothing half written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import process_time
from xml.etree import ElementTree

import pytest

from tmm_core.mechanism import Decision
from tmm_core.operations import page, simulate
from tmm_core.operations.cli import main
from tmm_core.operations.commands import simulate_cli
from tmm_core.operations.simulate import STORM, day_of, run_demo, run_storm, time_of_day
from tmm_core.operations.simulation import scenario_files
from tmm_core.operations.simulation.arrivals import Arrivals, Fresh
from tmm_core.operations.simulation.promises import checks

SMALL = ["--requests", "150000", "--day"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "tmm_core", "demo", "--out", str(folder), *SMALL, *arguments]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, timeout=50)


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    first = run(tmp_path / "a", "--seed", "7", PYTHONHASHSEED="1", COLUMNS="80", TZ="Asia/Tokyo")
    again = run(tmp_path / "b", "--seed", "7", PYTHONHASHSEED="2", COLUMNS="120", TZ="UTC", NO_COLOR="1")
    other = run(tmp_path / "c", "--seed", "8")
    assert (first.returncode, again.returncode, other.returncode) == (0, 0, 0), first.stderr
    assert set(files(tmp_path / "a")) == {"demo.csv", "users.csv", "demo.svg"}
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["demo.csv"] != files(tmp_path / "c")["demo.csv"]


def test_json_is_the_same_bytes_too_and_nothing_else_is_said(tmp_path: Path) -> None:
    first, again = (run(tmp_path / name, "--json") for name in "ab")
    assert first.stdout == again.stdout
    assert (first.stderr, again.stderr) == (b"", b"")
    figures = json.loads(first.stdout)
    assert figures["offered"] == figures["service_requests"] > 100_000
    assert figures["seed"] == 1


def test_no_colour_and_no_progress_where_there_is_no_terminal(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert b"\x1b" not in done.stdout
    assert done.stderr == b""
    assert done.stdout.startswith(b"tmm demo: ")
    assert b"throttled" in done.stdout and str(tmp_path / "demo.svg").encode() in done.stdout


def test_quiet_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--quiet", "--out", str(tmp_path), *SMALL]) == 0
    assert capsys.readouterr() == ("", "")
    assert len(files(tmp_path)) == 3


def test_the_story_told_is_true(tmp_path: Path) -> None:
    """One tenth of the length: the shortest in which both events are apart and settle."""
    done = run_demo(tmp_path, requests=1_000_000)
    outcome, config = done.outcome, done.day.config
    assert outcome.activations == 2
    night, storm = outcome.events
    assert time_of_day(done.day, night.began_s).startswith("00:3")  # the runaway User, on top of the reads
    assert time_of_day(done.day, storm.began_s).startswith("17:")  # the weather
    # F4, F5: who stays inside its allocation is never throttled, nor is what is on the priority list.
    runaway = outcome.users.index("Large Supplier 11")
    throttled = outcome.counts[:, Decision.THROTTLED]
    assert throttled[runaway] == throttled.max()
    assert outcome.of(Decision.PRIORITY) > 0
    # Protected: held at the threshold, but for the bursts that Users' buckets still had. Without the Mechanism
    # beyond the capacity, with a growing backlog.
    assert outcome.highest_while_active <= 1.1 * config.operating_threshold
    assert outcome.admitted.highest <= config.system_capacity
    assert outcome.admitted.highest_backlog == 0
    assert outcome.offered.highest > 1.2 * config.system_capacity
    assert outcome.offered.longest_wait_s > 1
    # Work-conserving: the admitted load of a settled second is not far below the threshold either.
    with (tmp_path / "demo.csv").open(encoding="utf-8") as file:
        busy = [row for row in csv.DictReader(file) if int(row["offered"]) > 28_000 and row["level"]]
    assert len(busy) > 5
    assert min(int(row["admitted"]) for row in busy[3:]) >= 0.9 * config.operating_threshold


def test_the_files_add_up_to_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--json", "--out", str(tmp_path), *SMALL]) == 0
    figures = json.loads(capsys.readouterr().out)
    with (tmp_path / "demo.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "users.csv").open(encoding="utf-8") as file:
        users = list(csv.DictReader(file))
    for name in ("offered", "admitted", "priority", "within_allocation", "spare_capacity", "throttled"):
        assert sum(int(row[name]) for row in rows) == figures[name] == sum(int(user[name]) for user in users)
    ElementTree.parse(tmp_path / "demo.svg")


def test_an_interrupted_run_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Arrivals.seconds

    def interrupted(self: Arrivals, first: int, number: int = 1) -> Fresh:
        if first == 20:
            raise KeyboardInterrupt
        return real(self, first, number)

    monkeypatch.setattr(Arrivals, "seconds", interrupted)
    assert main(["demo", "--out", str(tmp_path), *SMALL]) == 130
    assert capsys.readouterr().err == "tmm: stopped\n"
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    "arguments",
    [["--seed", "-1"], ["--seed", "x"], ["--seed", str(2**63)], ["--requests", "99"], ["--sed", "1"]],
)
def test_a_wrong_command_is_refused_before_anything_is_done(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path / "x"), *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").write_text("", encoding="utf-8")
    assert main(["demo", "--out", str(tmp_path / "x" / "y"), *SMALL]) == 1
    said = capsys.readouterr().err
    assert said.startswith("tmm: ") and said.count("\n") == 1


def test_a_second_of_the_demonstration_is_a_time_of_the_day() -> None:
    day = day_of(1, 3600)
    assert [time_of_day(day, second) for second in (0, 1, 1800, 3599.99)] == [
        "00:00:00",
        "00:00:24",
        "12:00:00",
        "23:59:59",
    ]


def test_requests_are_written_as_people_write_them() -> None:
    assert [simulate_cli._requests(text) for text in ("1000000", "1_000_000", "1,000,000")] == [1_000_000] * 3


def test_the_storm_is_played_written_and_its_page_named_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = scenario_files.load_scenario(STORM)
    monkeypatch.setattr(simulate, "load_scenario", lambda name: replace(full, seconds=40))
    arguments = ["demo", "--requests", "150000", "--seed", "3", "--out"]
    assert main([*arguments, str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"  Open: {tmp_path / 'a' / STORM / 'simulation.html'}"
    assert said.startswith("tmm demo: a day") and "The Beast from the East, at a tenth" in said
    assert main([*arguments, str(tmp_path / "b"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["storm"]
    assert figures["seed"] == 3 and set(figures["policies"]) == {"none", "fair"}
    assert figures["configuration"]["operating_threshold"] == 2000
    first, again = (files(tmp_path / name / STORM) for name in "ab")
    assert first == again and {"simulation.html", "figures.csv", "seconds.csv"} < set(first)
    assert set(tmp_path.joinpath("a").iterdir()) == {
        tmp_path / "a" / name for name in ("demo.csv", "users.csv", "demo.svg", STORM)
    }


def test_without_jinja2_all_but_the_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = scenario_files.load_scenario(STORM)
    monkeypatch.setattr(simulate, "load_scenario", lambda name: replace(full, seconds=20))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    page._environment.cache_clear()
    assert main(["demo", "--requests", "100000", "--out", str(tmp_path)]) == 0
    said, errors = capsys.readouterr()
    assert "Open:" not in said and "tmm: no page" in errors
    assert "simulation.html" not in files(tmp_path / STORM) and len(files(tmp_path / STORM)) == 4


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_million_requests_and_the_storm_take_less_than_thirty_seconds(tmp_path: Path) -> None:
    """Of processor time: the clock on the wall tells what else the machine does."""
    began = process_time()
    done = run_demo(tmp_path)
    storm = run_storm()
    assert process_time() - began < 30
    assert 9_500_000 < done.outcome.requests < 10_500_000
    assert done.outcome.offered.highest > 20_000
    none, fair = storm.results
    assert none.outage_s > 0 == fair.outage_s
    assert [each.name for each in checks(fair) if each.holds is False] == []


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_documentation_shows_what_the_demonstration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["demo", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    day, storm = said.partition("\n  Decided at")[0].rstrip(), said[said.index("The Beast from") :]
    storm = storm[: storm.index(" s on this machine")].rpartition("\n")[0].rstrip()
    text = (Path(__file__).parents[2] / "docs" / "demo-and-replay.md").read_text(encoding="utf-8")
    assert f"$ tmm demo\n{day}\n```" in text
    assert f"```text\n{storm}\n```" in text
