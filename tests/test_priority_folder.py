"""A folder of priority lists, each named by its first day in force: the history is kept by itself."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tmm_core import Config, PriorityList
from tmm_core.errors import ConfigError


def write(folder: Path, **lists: str) -> Path:
    (folder / "lists").mkdir()
    for day, srvs in lists.items():
        name = day.removeprefix("d").replace("_", "-")
        text = f"version = '{name}'\neffective_from = {name}\nsrvs = [{srvs}]\n"
        (folder / "lists" / f"{name}.toml").write_text(text, encoding="utf-8")
    path = folder / "tmm.toml"
    path.write_text(
        "[capacity]\nsystem_capacity = 20\noperating_threshold = 10\n[files]\npriority_list = 'lists'\n",
        encoding="utf-8",
    )
    return path


def version_on(path: Path, day: str) -> str:
    priority = Config.load(path, on=date.fromisoformat(day)).priority
    assert isinstance(priority, PriorityList)
    return priority.version


def test_the_last_list_that_has_begun_is_in_force(tmp_path: Path) -> None:
    path = write(tmp_path, d2026_11_01="'7.4'", d2026_12_01="'7.4', '2.2'")
    assert version_on(path, "2026-11-30") == "2026-11-01"
    assert version_on(path, "2026-12-01") == "2026-12-01"
    with pytest.raises(
        ConfigError, match=r"lists: no priority list in force on 2026-10-31: the first file, 2026"
    ):
        Config.load(path, on=date(2026, 10, 31))


def test_the_name_of_the_file_and_the_day_in_it_must_agree(tmp_path: Path) -> None:
    path = write(tmp_path, d2026_11_01="'7.4'")
    (tmp_path / "lists" / "2026-11-01.toml").rename(tmp_path / "lists" / "2026-11-02.toml")
    with pytest.raises(
        ConfigError, match="effective_from 2026-11-01 must be the day of the file's name, 2026-11-02"
    ):
        Config.load(path, on=date(2026, 11, 30))


def test_a_slip_in_a_name_is_no_silent_gap(tmp_path: Path) -> None:
    path = write(tmp_path, d2026_11_01="'7.4'")
    (tmp_path / "lists" / "2026-12-1.toml").touch()
    with pytest.raises(ConfigError, match=r"2026-12-1\.toml: the name must be the first day in force"):
        Config.load(path, on=date(2026, 12, 1))
