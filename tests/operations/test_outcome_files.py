"""The files are whole or not there, and safe to open."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tmm_core.errors import TMMError
from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.page import in_csv
from tmm_core.operations.traffic.drive import Drive, Outcome, TrafficSecond
from tmm_core.operations.traffic.summary import OutcomeFiles
from tmm_core.policy.config import Config

EVIL = ("=HYPERLINK(A1)", "+1", "-1", "@SUM(1)", 'a "quoted, name"', "<b>bold</b>", "plain")


def config() -> Config:
    return Config(150, 100, allocations=dict.fromkeys(EVIL, 10.0), categories={"plain": "other"})


def write(folder: Path, *, finish: bool = True, keep: tuple[Path, ...] = ()) -> Outcome:
    with (
        OutcomeFiles(folder, "run", lambda second: f"t{second}", keep) as files,
        Mechanism(config(), start=0) as m,
    ):
        drive = Drive(m, on_row=files.row)
        users = np.array([m.user(name) for name in EVIL for _ in range(12)], dtype=np.uint32)
        drive.feed(TrafficSecond(3, users, np.ones(users.size, np.uint16), np.zeros(users.size, np.int64)))
        outcome = drive.finish()
        if not finish:
            raise KeyboardInterrupt
        files.finish(outcome, config(), "<svg/>")
    return outcome


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_rows_hold_what_was_decided(tmp_path: Path) -> None:
    outcome = write(tmp_path)
    (row,) = table(tmp_path / "run.csv")
    # 84 at once on a threshold of 100 a second: the Mechanism becomes active at the 26th; each User has 10
    # within its allocation (and one more at the bucket's edge), what is above is throttled from then on.
    assert (row["time"], row["second"], row["offered"], row["active"]) == ("t3", "3", "84", "1")
    assert int(row["throttled"]) == outcome.of(Decision.THROTTLED) > 0
    assert int(row["admitted"]) + int(row["throttled"]) == 84
    names = ("priority", "within_allocation", "spare_capacity", "throttled")
    assert sum(int(row[name]) for name in names) == 84
    users = table(tmp_path / "users.csv")
    assert [user["user"].removeprefix("'") for user in users] == ["(unknown)", *EVIL]
    for slot, user in enumerate(users):
        assert int(user["throttled"]) == outcome.counts[slot, Decision.THROTTLED]
        assert int(user["offered"]) == outcome.counts[slot].sum()
    assert users[-1]["category"] == "other" and users[-1]["allocation"] == "10"


def test_a_name_is_never_a_formula(tmp_path: Path) -> None:
    write(tmp_path)
    for user in table(tmp_path / "users.csv"):
        assert user["user"][0] not in "=+-@\t\r"
    assert [in_csv(text) for text in ("\t=1", "\r=1", "a=1", "")] == ["'\t=1", "'\r=1", "a=1", ""]


def test_an_interrupted_run_leaves_no_file_and_the_old_ones_as_they_were(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "new", finish=False)
    assert list((tmp_path / "new").iterdir()) == []
    write(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, finish=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert set(before) == {"run.csv", "users.csv", "run.svg"}


def test_what_was_read_is_not_overwritten(tmp_path: Path) -> None:
    log = tmp_path / "run.csv"
    log.write_text("time,user,srv\n", encoding="utf-8")
    with pytest.raises(
        TMMError, match="was read, and would be overwritten: choose another folder with --out"
    ):
        write(tmp_path, keep=(log,))
    assert log.read_text(encoding="utf-8") == "time,user,srv\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run.csv"]


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="x"):
        write(tmp_path / "x")
