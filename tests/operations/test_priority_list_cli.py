"""`tmm priority-list`: a change is a new version with who approved it, and the old one stays as it was."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmm_core import PriorityList
from tmm_core.errors import ConfigError
from tmm_core.operations.cli import main
from tmm_core.policy.config_files import load_priority_list
from tmm_core.policy.priority_changes import added, differ, digest_of, doubts, removed, to_toml
from tmm_core.policy.service_requests import srv_codes

from .world import NORTH, World

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "config" / "priority-list.toml"
DAY = date(2026, 12, 1)
OLD = PriorityList(("2.2", "4.4", "7.4"), "1", date(2026, 11, 1), "SEC Panel", "minutes")
PANEL = ("--version", "2", "--from", "2026-12-01", "--approved-by", "SEC Panel, 18 November")

Tmm = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tmm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tmm:
    """Run `tmm priority-list`; returns status, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        status = main(["priority-list", *map(str, arguments)])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of priority lists with the shipped example in it, in force from its day."""
    lists = tmp_path / "lists"
    lists.mkdir()
    shutil.copy(EXAMPLE, lists / "2026-11-01.toml")
    return lists


def test_a_change_writes_a_new_version_and_leaves_the_old_one(tmm: Tmm, folder: Path) -> None:
    old = (folder / "2026-11-01.toml").read_bytes()
    status, out, err = tmm("add", folder, "4.1.1", *PANEL)
    assert (status, err) == (0, "")
    assert "+ 4.1.1    Read Instantaneous Import Registers" in out
    assert (folder / "2026-11-01.toml").read_bytes() == old
    new = load_priority_list(folder / "2026-12-01.toml")
    assert new.version == "2"
    assert new.effective_from == DAY
    assert new.approved_by == "SEC Panel, 18 November"
    assert set(new.expanded) == set(load_priority_list(EXAMPLE).expanded) | {"4.1.1"}
    assert digest_of(new) in out


def test_a_version_is_never_written_over(tmm: Tmm, folder: Path) -> None:
    tmm("add", folder, "4.1.1", *PANEL)
    before = (folder / "2026-12-01.toml").read_bytes()
    other = ("--version", "3", *PANEL[2:])
    status, _, err = tmm("remove", folder, "7.4", *other)
    assert status == 1
    assert "2026-12-01.toml is there already, with other content: a version is never edited" in err
    assert (folder / "2026-12-01.toml").read_bytes() == before
    status, _, err = tmm("add", EXAMPLE, "4.1.1", *PANEL, "-o", EXAMPLE)
    assert status == 1
    assert "a version is never edited" in err


def test_a_name_that_another_version_of_the_folder_has_is_refused(tmm: Tmm, folder: Path) -> None:
    assert tmm("add", folder, "4.1.1", *PANEL)[0] == 0
    back = ("--version", "illustrative-1", "--from", "2027-01-01", "--approved-by", "SEC Panel, 16 December")
    status, _, err = tmm("remove", folder, "4.1.1", *back)
    assert status == 1
    assert err == "tmm: version 'illustrative-1' is that of 2026-11-01.toml already, expected a new one\n"
    assert len(list(folder.iterdir())) == 2


def test_a_list_that_is_a_file_gets_a_file_beside_it(tmm: Tmm, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path / "priority-list.toml")
    status, out, _ = tmm("remove", tmp_path / "priority-list.toml", "7.4", *PANEL)
    assert status == 0
    assert "7.4" not in load_priority_list(tmp_path / "priority-list-2026-12-01.toml").expanded
    assert "It is in force when tmm.toml names it" in out


def test_without_who_approved_it_there_is_no_change(tmm: Tmm, folder: Path) -> None:
    assert tmm("add", folder, "4.1.1", "--version", "2", "--from", "2026-12-01")[0] == 2
    status, _, err = tmm(
        "add", folder, "4.1.1", "--version", "2", "--from", "2026-12-01", "--approved-by", " "
    )
    assert status == 1
    assert err == "tmm: approved_by is empty, expected who approved the change\n"
    assert len(list(folder.iterdir())) == 1


def test_a_list_with_nothing_on_it_is_only_written_if_that_is_meant(tmm: Tmm, folder: Path) -> None:
    every = load_priority_list(EXAMPLE).srvs
    status, out, err = tmm("remove", folder, *every, *PANEL)
    assert (status, out) == (1, "")
    assert err == (
        "tmm: nothing would be on the list: every SRV could be throttled, top-ups of prepayment meters "
        "included. --allow-empty if that is meant\n"
    )
    assert len(list(folder.iterdir())) == 1
    status, out, _ = tmm("remove", folder, *every, *PANEL, "--allow-empty")
    assert status == 0
    assert "warning: nothing would be on the list: every SRV could be throttled" in " ".join(out.split())
    assert not load_priority_list(folder / "2026-12-01.toml").expanded
    # Whoever compares it is told, too; and from nothing it can be filled again.
    assert "nothing would be on the list" in tmm("diff", EXAMPLE, folder / "2026-12-01.toml")[1]
    back = ("--version", "3", "--from", "2027-01-01", "--approved-by", "SEC Panel, 16 December")
    assert tmm("add", folder, "2.2", *back)[0] == 0


def test_all_mistakes_of_a_change_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        added(OLD, ["7.4", "4.4.4", "9.9", "4.1.1"], "1", "", date(2026, 10, 1), "")
    assert [mistake.message.split(",")[0].split(" (")[0] for mistake in caught.value.mistakes] == [
        "version '1' must be a new one: the list is at '1'",
        "approved_by is empty",
        "'7.4' is on the list already",
        "'4.4.4' is on the list already",  # through 4.4
        "'9.9' is not an SRV or a Service Reference of the catalogue",
        "effective_from 2026-10-01 is before that of the version it changes",
    ]
    with pytest.raises(ConfigError, match=r"'4\.1\.1' is not on the list"):
        removed(OLD, ["4.1.1"], "2", "SEC Panel", DAY, "")


def test_a_variant_that_goes_leaves_the_others_of_its_reference() -> None:
    new = removed(OLD, ["4.4.4"], "2", "SEC Panel", DAY, "")
    assert new.srvs == ("2.2", "4.4.2", "4.4.3", "4.4.5", "7.4")
    assert differ(OLD, new).removed == ("4.4.4",)
    again = added(new, ["4.4"], "3", "SEC Panel", DAY, "")
    assert again.srvs == OLD.srvs
    assert again.source == "minutes"


def test_the_criteria_discussed_are_told_where_a_change_leaves_them() -> None:
    assert [line.split(" (")[0] for line in doubts(["8.1.1", "8.3", "4.8.1", "4.1.1", "7.4"])] == [
        "8.1.1",
        "8.3",
        "4.8.1",
    ]


def test_the_shipped_list_follows_the_criteria_and_says_it_is_illustrative() -> None:
    priority = load_priority_list(EXAMPLE)
    assert doubts(priority.expanded) == []
    assert "7.4" in priority.expanded  # Read Supply Status, for outages
    assert {"2.2", "2.5"} <= priority.expanded  # prepayment
    assert "illustrative" in priority.version


codes = st.lists(st.sampled_from(srv_codes()), unique=True, max_size=12)


@given(codes, codes, st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp")), max_size=20))
def test_a_version_that_is_written_is_read_alike(listed: list[str], more: list[str], words: str) -> None:
    old = PriorityList(tuple(listed), "1", date(2026, 11, 1), "SEC Panel", "minutes")
    new = [code for code in more if code not in listed]
    if not new:
        return
    made = added(old, new, "2" + words, "Panel " + words, DAY, words)
    assert set(made.srvs) == {*listed, *new}
    text = to_toml(made, old=old)
    assert to_toml(made, old=old) == text
    values = tomllib.loads(text)
    assert PriorityList(**values) == PriorityList(made.srvs, made.version, DAY, made.approved_by, made.source)


def test_history_is_shown_with_digests_and_who_approved(tmm: Tmm, folder: Path) -> None:
    tmm("add", folder, "4.1.1", *PANEL)
    tmm(
        "remove",
        folder,
        "7.1",
        "4.1.1",
        "--version",
        "3",
        "--from",
        "2026-12-10",
        "--approved-by",
        "Ops Group",
    )
    status, out, _ = tmm("show", folder, "--on", "2026-12-02")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "priority list 2, in force from 2026-12-01, 17 SRVs"
    digest = digest_of(load_priority_list(folder / "2026-12-01.toml"))
    assert lines[1] == f"  digest {digest}, approved by SEC Panel, 18 November"
    history = lines[lines.index("  Versions in this folder") + 2 :]
    assert [line.split()[0] for line in history] == ["2026-11-01", "*", "2026-12-10"]
    assert history[1].endswith("+4.1.1")
    assert history[2].endswith("-4.1.1 -7.1")
    # Ten SRVs at once do not fit.
    assert (
        tmm("add", folder, "6.2", "--version", "4", "--from", "2026-12-11", "--approved-by", "Ops Group")[0]
        == 0
    )
    lines = tmm("show", folder)[1].splitlines()
    assert lines[-1].endswith("9 on, 0 off")
    assert all(len(line) <= 80 for line in lines)


def test_a_change_before_a_later_version_is_warned_of(tmm: Tmm, folder: Path) -> None:
    tmm("add", folder, "4.1.1", "--version", "3", "--from", "2026-12-10", "--approved-by", "Panel")
    status, _, err = tmm("remove", folder, "7.1", *PANEL)
    assert status == 0
    assert err == "tmm: warning: 2026-12-10.toml begins later and does not have this change\n"


def test_traffic_tells_what_was_priority_and_what_a_change_would_do(
    world: World, tmm: Tmm, folder: Path
) -> None:
    watcher = world.watch()
    world.traffic(10, {(NORTH, "4.1.1"): 50, (NORTH, "7.4"): 25, (NORTH, "2.2"): 25}, watcher)
    watcher.flush()
    # World's own list has 7.4 alone: 250 of 1,000 were priority. The example has 2.2 as well: 500 would be.
    status, out, _ = tmm("add", folder, "4.1.1", *PANEL, "--traffic", world.path, "--month", "2026-11")
    text = " ".join(out.split())
    assert status == 0
    assert (
        "Of 1,000 Service Requests from 2026-11-25 to 2026-11-25 (UTC), 250 (25.0 %) were admitted as priority"
        in text
    )
    assert "by this list 500 (50.0 %) are." in text
    assert "By the new list 1,000 (100.0 %) would have been: 500 more, 0 fewer." in text
    assert "+ 4.1.1: 500 (50.0 %)" in text
    status, out, _ = tmm("show", folder, "--on", "2026-11-30", "--traffic", world.path, "--json")
    assert json.loads(out)["traffic"]["was_priority"] == 250
    assert "No Service Requests" in tmm("show", folder, "--traffic", world.path, "--month", "2026-10")[1]
    assert tmm("show", folder, "--traffic", world.path, "--month", "2026-1")[0] == 1


def test_diff_is_by_srv_and_not_by_how_it_is_written(tmm: Tmm, tmp_path: Path) -> None:
    one, two = tmp_path / "1.toml", tmp_path / "2.toml"
    one.write_text("version = '1'\nsrvs = ['4.4', '7.4']\n")
    two.write_text("version = '2'\nsrvs = ['7.4', '4.4.5', '4.4.4', '4.4.3', '4.4.2']\n")
    status, out, _ = tmm("diff", one, two)
    assert status == 0
    assert "The same SRVs are on both." in out
    figures = json.loads(tmm("diff", one, EXAMPLE, "--json")[1])
    assert "2.2" in figures["added"]
    assert figures["removed"] == ["4.4.2", "4.4.3"]
