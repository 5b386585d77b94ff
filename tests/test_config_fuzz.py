"""Any bytes as any of the files: a configuration that is right as a whole, or `ConfigError`; nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from config_folder import CSV, ON, PRIORITY, TOML, write
from damage import damaged, rows_of, tables
from hypothesis import event, example, given
from hypothesis import strategies as st

from tmm_core import Config, ConfigError, Decision, Mechanism, PriorityList
from tmm_core.errors import Mistake
from tmm_core.policy.service_requests import srv_codes
from tmm_core.policy.toml_places import toml_of


def _loaded(path: Path) -> Config | ConfigError:
    try:
        return Config.load(path, on=ON)
    except ConfigError as error:
        return error


HEADER = CSV.split("\n", 1)[0]
TRIED = TOML + 'candidate_allocations = "candidate.csv"\n'
#: A file of Users, sound or with one slip, or damaged.
USERS = st.one_of(tables(HEADER, 1), tables(HEADER, 1), damaged(CSV))
LISTS = [
    PRIORITY.replace('"7.4"', '"7.4", "4.4", "4.1.1"'), PRIORITY.replace('  "2.2",\n', "").replace("\n", "\r\n"),
    PRIORITY.replace('"2.2"', '"2.2", "99.9"'), PRIORITY.replace("2026-11-01", "'soon'"),
]  # fmt: skip

ANY_LIST = st.one_of(st.sampled_from([PRIORITY, *LISTS]).map(str.encode), damaged(PRIORITY))


def _srvs_of(listed: list[str]) -> set[str]:
    """The SRVs that a list stands for; each of its codes stands for some."""
    found = {one: {code for code in srv_codes() if f"{code}.".startswith(f"{one}.")} for one in listed}
    assert all(found.values()), found
    return set().union(*found.values())


def _assert_whole(config: Config, folder: Path) -> None:
    """Whatever the files say is in the configuration, as the standard library reads them, and nothing else."""
    told = tomllib.loads((folder / "tmm.toml").read_bytes().decode("utf-8-sig"))
    for section, values in told.items():
        for key, value in values.items():
            if section in ("capacity", "mechanism"):
                assert getattr(config, key) == value, key
    assert {code: config.cost_of(code) for code in told.get("costs", {})} == told.get("costs", {})
    for key in ("allocations", "candidate_allocations"):
        named = told.get("files", {}).get(key)
        rows = rows_of((folder / named).read_bytes()) if named else []
        held = getattr(config, key)
        if held is None:
            assert not named
            continue
        assert held == {row["user"]: float(row["allocation"]) for row in rows}
        if key == "allocations":
            assert config.user_ids == {
                each.upper(): row["user"] for row in rows for each in row["user_ids"].split()
            }
            assert config.categories == {row["user"]: row["category"] for row in rows}
    named = told.get("files", {}).get("priority_list")
    data = tomllib.loads((folder / named).read_bytes().decode("utf-8-sig")) if named else {}
    assert config.priority_srvs == _srvs_of(data.get("srvs", []))


def _assert_in_force(mechanism: Mechanism, config: Config) -> None:
    """The engine decides by it: a burst of each User that is inside its allocation, and the priority list."""
    snapshot = mechanism.snapshot(0)
    assert (snapshot.version, mechanism.config) == (config.version, config)
    assert (snapshot.candidate is not None) == (config.candidate_allocations is not None)
    for code in ("7.4", "4.1.1", "2.2"):
        decided = mechanism.admit_at(0, mechanism.srv(code), 0)
        assert (decided is Decision.PRIORITY) == (code in config.priority_srvs)
    plain = next(code for code in ("6.2.4", "8.1.1") if code not in config.priority_srvs)
    cost = config.cost_of(plain)
    for user, rate in config.allocations.items():
        tries = [mechanism.admit_at(mechanism.user(user), mechanism.srv(plain), 0) for _ in range(70)]
        inside = tries.count(Decision.WITHIN_ALLOCATION)
        # At once: the burst and one more, in whole Service Requests; all of 70 where it is larger.
        expected = 0 if rate == 0 else int(rate * config.burst_s / cost + 1e-9) + 1
        assert abs(inside - min(expected, 70)) <= (cost > 1), (user, rate, inside)


@st.composite
def four_files(draw: st.DrawFn) -> dict[str, bytes]:
    """The files of a configuration, of which most often one is another than the good one, and now and then all."""
    one = draw(st.sampled_from(["toml", "csv", "csv", "priority", "candidate", "candidate", "all"]))
    toml = TRIED if one == "candidate" or draw(st.booleans()) else TOML
    good = {"toml": toml, "csv": CSV, "priority": PRIORITY, "candidate": CSV}
    others = {"toml": damaged(toml), "csv": USERS, "priority": ANY_LIST, "candidate": USERS}
    return {key: draw(others[key]) if one in (key, "all") else good[key].encode() for key in good}


@given(four_files())
@example(
    {"toml": TRIED.encode(), "csv": CSV.encode(), "priority": PRIORITY.encode(), "candidate": CSV.encode()}
)
def test_any_files_are_applied_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    """Lesson 12: a bad file keeps the last good configuration, whole."""
    candidate = files.pop("candidate")
    path = write(tmp_path_factory.mktemp("fuzz"), **files)  # type: ignore[arg-type]
    (path.parent / "candidate.csv").write_bytes(candidate)
    before = Config(500, 400, allocations={"Before": 7.0}, priority=["7.4"])
    with Mechanism(before, start=0) as mechanism:
        after = _loaded(path)
        if isinstance(after, ConfigError):
            event("refused")
            assert after.mistakes
            assert all(str(path.parent) in (each.file or "") for each in after.mistakes), str(after)
            _assert_in_force(mechanism, before)
            return
        event("applied")
        _assert_whole(after, path.parent)
        mechanism.apply(after, now=0)
        assert set(after.users) <= set(mechanism.snapshot(0).users)
        _assert_in_force(mechanism, after)
        assert Config.load(path, on=ON).version == after.version


@given(ANY_LIST)
def test_any_bytes_are_a_priority_list_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path: Path = tmp_path_factory.mktemp("fuzz") / "list.toml"
    path.write_bytes(data)
    priority: PriorityList | ConfigError
    try:
        priority = PriorityList.load(path)
    except ConfigError as error:
        priority = error
    if isinstance(priority, ConfigError):
        assert {each.file for each in priority.mistakes} == {str(path)}
        return
    told = tomllib.loads(data.decode("utf-8-sig"))
    assert set(priority.expanded) == _srvs_of(told["srvs"])
    for key in ("version", "effective_from", "approved_by", "source"):
        assert getattr(priority, key) == told.get(key, getattr(PriorityList(()), key)), key


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, (*path, key))]
    if isinstance(value, list):
        return [leaf for index, inner in enumerate(value) for leaf in _leaves(inner, (*path, index))]
    return [path]


@given(st.one_of(damaged(TOML + "[mechanism]\nhold_s = 3\n"), damaged(PRIORITY)))
def test_what_tomllib_reads_is_read_alike_and_what_it_refuses_is_refused(data: bytes) -> None:
    """And every value has the place of its own text."""
    found: list[Mistake] = []
    toml = toml_of(data, "x.toml", found)
    try:
        text = data.decode("utf-8-sig")
        values = tomllib.loads(text)
    except ValueError:
        assert found
        return
    if "\0" not in text:
        assert toml is not None
        assert not found
        # repr, as nan is not equal to itself
        assert repr(toml.values) == repr(values)
        lines = text.replace("\r\n", "\n").split("\n")
        for path in _leaves(values):
            line, column = toml.places[path]
            assert 1 <= line <= len(lines)
            rest = lines[line - 1][column - 1 :]
            assert rest
            assert rest[0] not in " \t=,]}#"


STATEMENTS = [
    "[a]", "[b]", "[a.b]", "x = 1", "x = 2", "y.z = 1", "y = 1", "# x", "", "z = [\n1,\n2]", "z = '''\n[b]\n'''",
]  # fmt: skip


@given(st.lists(st.sampled_from(STATEMENTS), max_size=12))
def test_what_is_set_twice_is_told_with_both_lines(lines: list[str]) -> None:
    """A model of one line a statement: its keys, its section, and where each was first."""
    text = "\n".join(lines) + "\n"
    expected, first, section, line, skipped = [], {}, "", 1, False
    for statement in lines:
        if statement.startswith("["):
            section, skipped = statement, statement in first
            if skipped:
                expected.append(
                    f"x.toml:{line}:1: section {statement} is set twice, first in line {first[statement]}"
                )
            first.setdefault(statement, line)
        elif "=" in statement and not skipped:
            key = statement.partition(" =")[0]
            if (section, key) in first:
                expected.append(
                    f"x.toml:{line}:1: key {key!r} is set twice, first in line {first[section, key]}"
                )
            first.setdefault((section, key), line)
        line += 1 + statement.count("\n")
    found: list[Mistake] = []
    if toml_of(text.encode(), "x.toml", found) is not None:
        assert [str(mistake) for mistake in found] == expected
    else:  # beyond that it is no TOML: [a.b] and then a dotted key into it, y and then y.z
        assert "is not TOML" in str(found[-1])
