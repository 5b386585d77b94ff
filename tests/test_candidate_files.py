"""`[files] candidate_allocations`: read and checked as allocations are, and known by a version of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from config_folder import CSV, ON, TOML, mistakes, write

from tmm_core import Config, ConfigError
from tmm_core.policy.check import describe, warnings

NAMED = TOML.replace("[files]\n", '[files]\ncandidate_allocations = "next.csv"\n')


def folder(path: Path, candidate: str | None, toml: str = NAMED) -> Path:
    if candidate is not None:
        (path / "next.csv").write_text(candidate, encoding="utf-8")
    return write(path, toml=toml)


def test_a_candidate_is_read_beside_the_allocations(tmp_path: Path) -> None:
    path = folder(tmp_path, CSV.replace(",200", ",300"))
    config = Config.load(path, on=ON)
    assert config.allocations["Northern Energy"] == 200.0
    assert config.candidate_allocations == {"Northern Energy": 300.0, "Harbour Analytics": 20.5}
    assert config.candidate_file == str(tmp_path / "next.csv")


def test_it_has_a_version_of_its_own_and_leaves_that_of_what_decides(tmp_path: Path) -> None:
    config = Config.load(folder(tmp_path, CSV.replace(",200", ",300")), on=ON)
    without = replace(config, candidate_allocations=None)
    assert config.version == without.version
    assert without.candidate_version == ""
    assert len(config.candidate_version) == 12
    # The order of the rows names the same candidate, another figure another.
    rates = dict(reversed((config.candidate_allocations or {}).items()))
    assert replace(config, candidate_allocations=rates).candidate_version == config.candidate_version
    other = replace(config, candidate_allocations={**rates, "Northern Energy": 301.0})
    assert other.candidate_version != config.candidate_version


@pytest.mark.parametrize(
    ("candidate", "told"),
    [
        (CSV.replace(",200", ",-3"), "next.csv:2:80: allocation -3 must be 0 or more"),
        (CSV.replace(",200", ",lots"), "next.csv:2:80: allocation 'lots' must be a number, units per second"),
        (
            CSV.replace(",20.5", ",201"),
            "next.csv:3:49: candidate allocations add up to 401 units per second, above operating_threshold 400",
        ),
        (CSV.replace("large-supplier", "huge"), "next.csv:2:17: category 'huge'"),
        (CSV.replace("user,category", "name,category"), "next.csv:1:1: the header has 'name'"),
        ("", "next.csv"),
        (None, "next.csv: cannot be read: No such file or directory"),
    ],
)
def test_a_bad_candidate_is_refused_with_file_line_and_field(
    tmp_path: Path, candidate: str | None, told: str
) -> None:
    found = mistakes(folder(tmp_path, candidate))
    assert any(each.startswith(told) for each in found), found


def test_mistakes_of_both_files_come_at_once(tmp_path: Path) -> None:
    path = folder(tmp_path, CSV.replace(",20.5", ",x"))
    (tmp_path / "allocations.csv").write_text(CSV.replace(",200", ",y"), encoding="utf-8")
    found = mistakes(path)
    assert [each.split(":")[0] for each in found] == ["allocations.csv", "next.csv"]


def test_a_cost_is_payable_by_the_candidate_too(tmp_path: Path) -> None:
    # 4 units at 1e-5 units per second take 4.6 days, 1000 take 1157: 100 are allowed.
    path = folder(tmp_path, CSV.replace(",20.5", ",0.00001"), NAMED + '[costs]\n"4.8.1" = 1000\n')
    assert "next.csv:3" in mistakes(path)[0]


def test_a_candidate_in_memory_is_checked_as_one() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(500, 400, allocations={"A": 1.0}, candidate_allocations={"A": -1.0, "B": 1e9})
    assert [each.field for each in caught.value.mistakes][:2] == [
        "candidate_allocations['A']", "candidate_allocations['B']",
    ]  # fmt: skip


def test_what_is_tried_is_described_and_what_is_odd_is_warned_of(tmp_path: Path) -> None:
    csv = CSV.replace(",200", ",300").replace("Harbour Analytics", "Newcomer")
    config = Config.load(folder(tmp_path, csv), on=ON)
    shown = describe(config)["candidate"]
    assert shown["version"] == config.candidate_version
    assert shown["changed"] == [
        {"user": "Northern Energy", "allocation": 200.0, "candidate": 300.0},
        {"user": "Harbour Analytics", "allocation": 20.5, "candidate": None},
        {"user": "Newcomer", "allocation": None, "candidate": 20.5},
    ]
    told = " ".join(warnings(config, on=ON))
    assert "Harbour Analytics is not in the candidate allocations: tried with 0." in told
    assert "Newcomer has no identifiers in the allocations in force" in told
    same = replace(config, candidate_allocations=dict(config.allocations))
    assert "The candidate allocations are those in force" in " ".join(warnings(same, on=ON))
    assert describe(replace(config, candidate_allocations=None))["candidate"] is None
