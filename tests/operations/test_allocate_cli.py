"""`tmm allocate`: shows, checks, explains, writes once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import date
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tmm_core import Config
from tmm_core.errors import TMMError
from tmm_core.operations.allocations import Change, file_before
from tmm_core.operations.cli import main
from tmm_core.operations.commands.arguments import place
from tmm_core.operations.event_log.files import LogSet
from tmm_core.operations.traffic.logged_traffic import over_allocation
from tmm_core.policy.parameters import NOTICE

from .world import NORTH, SOUTH, World

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "allocation"
PORTFOLIO, PARAMETERS = str(EXAMPLE / "portfolio.csv"), str(EXAMPLE / "parameters.toml")
NOVEMBER, DECEMBER = EXAMPLE / "allocations" / "2026-11-01.csv", EXAMPLE / "allocations" / "2026-12-01.csv"

Tmm = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tmm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tmm:
    """Run `tmm allocate` on the example; returns status, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        status = main(["allocate", PORTFOLIO, "-p", PARAMETERS, *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of allocations with that of November in it."""
    shutil.copy(NOVEMBER, tmp_path)
    return tmp_path


def test_the_shipped_december_is_what_the_command_writes(tmm: Tmm, folder: Path) -> None:
    output = folder / "2026-12-01.csv"
    status, _, err = tmm("-o", output, "--accept-changes")
    assert (status, err) == (0, "")
    assert output.read_bytes() == DECEMBER.read_bytes()


def test_what_is_written_is_a_configuration(tmm: Tmm, folder: Path) -> None:
    tmm("-o", folder / "2026-12-01.csv", "--accept-changes")
    (folder / "tmm.toml").write_text(
        "[capacity]\nsystem_capacity = 25000\noperating_threshold = 20000\n[files]\nallocations = '.'\n"
        "[unknown_users]\nallocation = 50\n"
    )
    config = Config.load(folder / "tmm.toml", on=date(2026, 12, 1))
    assert config.allocations["Northern Energy"] == 4849.288
    assert config.user_ids["90-B3-D5-1F-30-01-00-01"] == "Northern Energy"
    assert Config.load(folder / "tmm.toml", on=date(2026, 11, 30)).allocations["Wharfside Power"] == 5.366


def test_a_change_above_the_limit_is_flagged_and_needs_to_be_accepted(tmm: Tmm, folder: Path) -> None:
    output = folder / "2026-12-01.csv"
    status, out, err = tmm("-o", output)
    assert status == 1
    assert not output.exists()
    assert err == (
        "tmm: not written: the allocations of Elm Street Energy, Wharfside Power change by more than 50 %; "
        "--accept-changes if that is meant\n"
    )
    assert "+90.6 %!" in out
    assert "gone: Wharfside Power, with 5.366 before" in out
    # 20,000 less a tenth for priority traffic and 50 for unknown Users, of 25,000 in all
    assert (
        "The allocations add up to 17,950.000: 89.8 % of the operating threshold, 71.8 % of the system capacity."
        in " ".join(out.split())
    )
    assert (
        tmm("-o", output, "--limit", "100")[0] == 0
    )  # 90.6 and the -100 of Wharfside Power are not above it
    assert output.read_bytes() == DECEMBER.read_bytes()


@pytest.mark.parametrize(
    ("before", "after", "limit", "above"),
    [
        (100, 150, "1/2", False),  # exactly the limit is not above it
        (100, "150.001", "1/2", True),
        (100, 50, "1/2", False),
        (100, "49.999", "1/2", True),
        (100, None, "1/2", True),  # gone
        (100, None, "1", False),
        (None, 100, "1/2", False),  # new
        (0, 1, "100", True),  # from nothing
        (0, 0, "1/2", False),
        (0, None, "1/2", False),
    ],
)
def test_what_is_a_change_above_the_limit(
    before: int | None, after: str | int | None, limit: str, above: bool
) -> None:
    def fraction(value: str | int | None) -> Fraction | None:
        return None if value is None else Fraction(value)

    assert Change("A", fraction(before), fraction(after)).is_above(Fraction(limit)) is above


def test_another_file_of_that_name_is_never_overwritten_silently(tmm: Tmm, folder: Path) -> None:
    output = folder / "2026-12-01.csv"
    output.write_text("mine")
    status, _, err = tmm("-o", output, "--accept-changes")
    assert status == 1
    assert err == f"tmm: {output} is there already, with other content: choose another name, or --replace\n"
    assert output.read_text() == "mine"
    status, out, _ = tmm("-o", output, "--accept-changes", "--replace")
    assert status == 0
    assert "Written: " in out
    assert "Was there already: " in tmm("-o", output, "--accept-changes")[1]
    assert sorted(path.name for path in folder.iterdir()) == [
        "2026-11-01.csv",
        "2026-12-01.csv",
    ]  # no .part left


def test_a_file_is_placed_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        place(tmp_path / "a.csv", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_placed_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*paths: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", fail)
    assert place(tmp_path / "a.csv", "text")
    with pytest.raises(TMMError, match="is there already, with other content"):
        place(tmp_path / "a.csv", "other")
    assert (tmp_path / "a.csv").read_text() == "text"


def test_sums_stand_against_threshold_and_capacity(tmm: Tmm) -> None:
    status, out, _ = tmm("--month", "2026-12")
    assert status == 0
    assert NOTICE in out
    bars = out[out.index("Units per second") :].splitlines()
    figures = {" ".join(line.split()[:-4]): line.split()[-4] for line in bars[1:] if "%" in line}
    assert figures["kept for priority"] == "2,000.000"
    assert figures["operating threshold"] == "20,000.000"
    assert figures["system capacity"] == "25,000.000"
    # everything above the line adds up to the operating threshold
    names = list(figures)[: list(figures).index("operating threshold")]
    assert sum(float(figures[name].replace(",", "")) for name in names) == 20_000


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(tmm: Tmm, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = tmm("--month", "2026-12", "--before", NOVEMBER)
    wide = [line for line in out.splitlines() if len(line) > width and "Compared with" not in line]
    assert wide == []


def test_a_user_is_explained_in_sentences(tmm: Tmm) -> None:
    _, out, _ = tmm("--month", "2026-12", "--explain", "Northern Energy", "--before", NOVEMBER)
    text = " ".join(out.split())
    assert "is sure of 4,849.288 units per second, 24.2 % of the operating threshold." in text
    assert (
        "7,800,000 electricity and 6,396,000 gas meters, 1,541,000 of them in prepayment mode (weight 1.5)"
        in text
    )
    assert "It forecasts 787,930,000 for the 31 days of 2026-12: 25,417,096.774 a day." in text
    assert "Blended (50 % portfolio, 30 % forecast, 20 % actual), 25,691,180.699 a day are expected" in text
    assert "the 22 Users above their minimum, who share 17,850.000 units per second" in text
    assert "In the month before it was" in text
    assert text.endswith(NOTICE)


def test_an_identifier_is_as_good_as_the_name_and_the_minimum_is_explained(tmm: Tmm) -> None:
    _, out, _ = tmm("--month", "2026-12", "--explain", "90-b3-d5-1f-30-17-00-00")
    text = " ".join(out.split())
    assert text.startswith("Data Insight (other) is sure of 20.000")
    assert "not above its guaranteed minimum of 20.000: the minimum decides." in text


def test_a_user_nobody_knows_is_refused_with_a_suggestion(tmm: Tmm) -> None:
    status, _, err = tmm("--month", "2026-12", "--explain", "Northern Energies")
    assert status == 1
    assert err == f"tmm: {PORTFOLIO}: no User 'Northern Energies' (did you mean 'Northern Energy'?)\n"


def test_json_has_every_figure(tmm: Tmm, folder: Path) -> None:
    status, out, _ = tmm("-o", folder / "2026-12-01.csv", "--accept-changes", "--json")
    figures = json.loads(out)
    assert status == 0
    assert figures["notice"] == NOTICE
    assert figures["written"] is True
    assert figures["compared_with"] == str(folder / "2026-11-01.csv")
    assert figures["above_limit"] == ["Elm Street Energy", "Wharfside Power"]
    assert figures["gone"] == ["Wharfside Power"]
    assert figures["total"] == figures["distributable"] == 17_950.0
    assert len(figures["digest"]) == 12
    north = next(row for row in figures["users"] if row["user"] == "Northern Energy")
    assert north["allocation"] == 4849.288
    assert north["portfolio_per_day"] == 25_755_050.0


def test_the_file_before_is_the_last_one_that_begins_earlier(tmp_path: Path) -> None:
    for name in ("2026-09-01.csv", "2026-10-01.csv", "2026-12-01.csv", "2027-01-01.csv", "notes.txt"):
        (tmp_path / name).touch()
    assert file_before(tmp_path / "2026-12-01.csv") == tmp_path / "2026-10-01.csv"
    assert file_before(tmp_path / "2026-09-01.csv") is None
    assert file_before(tmp_path / "december.csv") is None
    assert file_before(tmp_path / "none" / "2026-12-01.csv") is None


@pytest.mark.parametrize("limit", ["-1", "x", "nan", "1e9", "1/0"])
def test_a_limit_that_is_none_is_a_wrong_command(tmm: Tmm, limit: str) -> None:
    assert tmm("--month", "2026-12", f"--limit={limit}")[0] == 2


def test_mistakes_of_any_file_end_it_with_status_1(tmm: Tmm, tmp_path: Path) -> None:
    assert tmm("--month", "2026-13")[0] == 1
    bad = tmp_path / "bad.csv"
    bad.write_text("user,category,user_ids,allocation\nA,other,,-1\nB,others,,x\n")
    status, out, err = tmm("--month", "2026-12", "--before", bad)
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 3


def test_mistakes_of_all_files_come_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    portfolio, parameters, before = (tmp_path / name for name in ("p.csv", "p.toml", "b.csv"))
    portfolio.write_text(Path(PORTFOLIO).read_text("utf-8").replace("large-supplier", "large", 1), "utf-8")
    parameters.write_text(Path(PARAMETERS).read_text("utf-8").replace("= 25000", "= nan"), "utf-8")
    before.write_text("user,category,user_ids,allocation\nA,other,,-1\n", "utf-8")
    asked = ["allocate", str(portfolio), "-p", str(parameters), "--before", str(before), "--month", "2026-12"]
    assert main(asked) == 1
    told = [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()]
    assert told == [f"{parameters}:7:23", f"{portfolio}:2:17", f"{before}:2:10"]


def test_a_month_that_contradicts_a_name_is_refused(
    tmm: Tmm, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = folder / "2026-12-01.csv"
    assert tmm("-o", output, "--month", "2026-11")[2] == (
        f"tmm: {output}: its name says 2026-12, but --month says 2026-11\n"
    )
    # Last month's portfolio, for December's allocations.
    old = folder.parent / "2026-11.csv"
    shutil.copy(PORTFOLIO, old)
    asked = ["allocate", str(old), "-p", PARAMETERS, "-o", str(output), "--accept-changes"]
    assert main(asked) == 1
    assert capsys.readouterr().err == (
        f"tmm: {old}: its name says 2026-11, that of the output 2026-12; --month 2026-12 if that is meant\n"
    )
    assert not output.exists()
    assert main([*asked, "--month", "2026-12"]) == 0
    assert output.read_bytes() == DECEMBER.read_bytes()


def test_a_name_that_would_spoil_the_folder_is_refused(tmm: Tmm, folder: Path) -> None:
    status, _, err = tmm("-o", folder / "december.csv", "--month", "2026-12")
    assert status == 1
    assert err.startswith(
        f"tmm: {folder / 'december.csv'}: the other files of its folder are named by their first"
    )
    assert [path.name for path in folder.iterdir()] == ["2026-11-01.csv"]
    assert tmm("-o", folder / "elsewhere" / "december.csv", "--month", "2026-12")[0] == 0


def test_the_digest_is_shown_without_writing_too(tmm: Tmm) -> None:
    digest = hashlib.sha256(DECEMBER.read_bytes()).hexdigest()[:12]
    head = f"tmm allocate: allocations for 2026-12, 27 Users, digest {digest}"
    assert tmm("--month", "2026-12")[1].splitlines()[0] == head


def test_recorded_traffic_is_compared_with_new_allocations(world: World, tmm: Tmm) -> None:
    watcher = world.watch()
    # A minute in which NORTH offers 50 a second, SOUTH 20; the threshold is 100, so nothing is active.
    world.traffic(60, {(NORTH, "4.1.1"): 50, (SOUTH, "4.1.1"): 20, (NORTH, "7.4"): 5}, watcher)
    watcher.flush()
    with LogSet([world.path]) as logs:
        recorded = over_allocation(logs, {NORTH: 40.0}, 30.0)
    users = {over.user: over for over in recorded.users}
    assert recorded.without_allocation == (SOUTH,)  # unknown under the new allocations
    north = users[NORTH]
    assert north.units == 3000  # 50 * 60; the priority list's 7.4 is not part of it
    assert north.minutes_over == north.minutes == 1
    assert north.units_over == 600  # 50 * 60 - 40 * 60
    assert north.highest == 50
    unknown = users["(unknown)"]
    assert (unknown.units, unknown.minutes_over, unknown.allocation) == (1200, 0, 30.0)
    status, out, _ = tmm("--month", "2026-12", "--against", world.path)
    assert status == 0
    assert "Counted as unknown, as they have no new allocation: Southern Energy" in out
    assert "Recorded traffic, 2026-11-25 12:00 to 2026-11-25 12:00 UTC" in out
    assert max(map(len, out.splitlines())) <= 80
    # A configuration names its log.
    toml = world.path.with_name("tmm.toml")
    toml.write_text(
        f"[capacity]\nsystem_capacity = 2\noperating_threshold = 1\n[files]\nevent_log = '{world.path}'\n"
    )
    assert tmm("--month", "2026-12", "--against", toml)[1] == out


def test_seconds_over_are_counted_while_the_mechanism_is_active(world: World) -> None:
    watcher = world.watch()
    world.traffic(10, {(NORTH, "4.1.1"): 300, (SOUTH, "4.1.1"): 10}, watcher)
    watcher.flush()
    with LogSet([world.path]) as logs:
        recorded = over_allocation(logs, {NORTH: 250.0, SOUTH: 20.0}, 0.0)
    users = {over.user: over for over in recorded.users}
    assert 0 < recorded.active_seconds <= 10
    assert 0 < users[NORTH].seconds_over <= recorded.active_seconds
    assert users[SOUTH].seconds_over == 0


def test_minimums_above_what_there_is_are_told_with_the_file_that_has_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The example keeps 17,950 units per second for allocations and 20 for each Other SEC Party.
    rows = "".join(f"User {number},other,,0,0,0,0,0,,\n" for number in range(898))
    portfolio = tmp_path / "2026-12.csv"
    portfolio.write_text(
        (EXAMPLE / "portfolio.csv").read_text("utf-8").splitlines()[0] + "\n" + rows, "utf-8"
    )
    assert main(["allocate", str(portfolio), "-p", PARAMETERS]) == 1
    assert capsys.readouterr().err == (
        f"tmm: {PARAMETERS}: the minimums of 898 Users add up to 17960.000 units per second, expected at most the "
        "distributable 17950.000\n"
    )


def test_a_log_that_is_not_there_is_told(tmm: Tmm, tmp_path: Path) -> None:
    status, _, err = tmm("--month", "2026-12", "--against", tmp_path / "none.db")
    assert status == 1
    assert "there is no such event log" in err


def test_the_chart_has_the_figures_of_the_terminal(tmm: Tmm, folder: Path) -> None:
    output, chart = folder / "2026-12-01.csv", folder / "2026-12.svg"
    status, out, err = tmm("-o", output, "--chart", chart)
    assert status == 1 and not chart.exists(), "what is not accepted is not drawn"
    status, out, err = tmm("-o", output, "--accept-changes", "--chart", chart)
    assert (status, err) == (0, "")
    root = ElementTree.fromstring(chart.read_bytes())
    drawn = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    # The bars of the terminal: name, figure, share, bar.
    told = re.findall(
        r"^  (\S.*?) {2,}([0-9.,]+) +([0-9.]+ %) ", out.split("Units per second\n")[1], flags=re.MULTILINE
    )
    told = [(name, value.replace(",", ""), share) for name, value, share in told]
    assert len(told) == 9 and told[-2][0] == "operating threshold"
    for name, value, share in told:
        place = drawn.index(name)
        assert drawn[place + 1] == f"{float(value):,.10g} ({share})", name
    widths = [float(each.get("width", 0)) for each in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    values = [float(value) for _, value, _ in told]
    # All on one scale; there is room for the figure at the end of the longest in the 540 units of the chart.
    assert 300 < widths[-1] < 540 - 14 - 7 * len(drawn[-1])
    assert widths == pytest.approx([max(widths[-1] * value / max(values), 1) for value in values], abs=0.06)
    assert NOTICE.split(".")[0] in " ".join(drawn) and "<script" not in chart.read_text("utf-8")
    first = chart.read_bytes()
    tmm("-o", output, "--accept-changes", "--chart", chart)
    assert chart.read_bytes() == first, "the same input gives the same bytes"
