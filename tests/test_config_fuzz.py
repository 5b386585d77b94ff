"""Any bytes as any of the files: a configuration that is right as a whole, or `ConfigError`; nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from config_folder import CSV, ON, PRIORITY, TOML, write
from hypothesis import example, given
from hypothesis import strategies as st

from tmm_core import Config, ConfigError, Mechanism, PriorityList
from tmm_core.errors import Mistake
from tmm_core.policy.service_requests import srv_codes
from tmm_core.policy.toml_places import toml_of

#: Pieces that mean something in one of the files.
PIECES = [
    b"\n", b"\r\n", b"\r", b",", b";", b'"', b"'", b'"""', b"=", b"[", b"]", b"[[", b"{", b"}", b"#", b".", b" ", b"\t",
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\\u202e", b"\\", b"nan", b"-inf", b"1e999", b"-1", b"0",
    b"9" * 5000, b"true", b"2026-12-01", b"2026-13-01", b"[capacity]\n", b"[files]\n", b"hold_s = 1\n", b"hold_s = 2\n",
    b"system_capacity = 1\n", b"a.b.c = 1\n", b"srvs = []\n", b'"7.4"', b"4.8.1 = 4\n", b"[costs]\n", b"[state]\n",
    b"Northern Energy,other,,1\n", b"=1+1,other,,5\n", b"90-B3-D5-1F-30-01-00-00",
    "é\u200b".encode(), "é".encode("latin-1"),
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """A good file with pieces cut out, put in or doubled; or bytes at random."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.binary(max_size=200))
    data = text.encode()
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 30)))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4), st.just(data[begin:end])))
        data = data[:begin] + piece + (data[begin:] if draw(st.booleans()) else data[end:])
    return data


def _loaded(path: Path) -> Config | ConfigError:
    try:
        return Config.load(path, on=ON)
    except ConfigError as error:
        return error


@given(toml=damaged(TOML), csv=damaged(CSV), priority=damaged(PRIORITY))
@example(toml=TOML.encode(), csv=CSV.encode(), priority=PRIORITY.encode())
def test_any_files_are_applied_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, toml: bytes, csv: bytes, priority: bytes
) -> None:
    """Lesson 12: a bad file keeps the last good configuration, whole."""
    path = write(tmp_path_factory.mktemp("fuzz"), toml=toml, csv=csv, priority=priority)
    before = Config(500, 400, allocations={"Before": 7.0})
    with Mechanism(before, start=0) as mechanism:
        after = _loaded(path)
        if isinstance(after, ConfigError):
            assert after.mistakes
            assert all(str(path.parent) in (each.file or "") for each in after.mistakes), str(after)
            assert (mechanism.config, mechanism.snapshot(0).version) == (before, before.version)
            return
        mechanism.apply(after, now=0)
        snapshot = mechanism.snapshot(0)
        assert snapshot.version == after.version
        assert set(after.users) <= set(snapshot.users)
        assert Config.load(path, on=ON).version == after.version


@given(damaged(PRIORITY))
def test_any_bytes_are_a_priority_list_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path: Path = tmp_path_factory.mktemp("fuzz") / "list.toml"
    path.write_bytes(data)
    try:
        priority = PriorityList.load(path)
    except ConfigError as error:
        told = [each.file for each in error.mistakes]
    else:
        told = [str(path)] if set(priority.expanded) <= set(srv_codes()) else []
    assert set(told) == {str(path)}


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
                    f"x.toml:{line}: section {statement} is set twice, first in line {first[statement]}"
                )
            first.setdefault(statement, line)
        elif "=" in statement and not skipped:
            key = statement.partition(" =")[0]
            if (section, key) in first:
                expected.append(
                    f"x.toml:{line}: key {key!r} is set twice, first in line {first[section, key]}"
                )
            first.setdefault((section, key), line)
        line += 1 + statement.count("\n")
    found: list[Mistake] = []
    if toml_of(text.encode(), "x.toml", found) is not None:
        assert [str(mistake) for mistake in found] == expected
    else:  # beyond that it is no TOML: [a.b] and then a dotted key into it, y and then y.z
        assert "is not TOML" in str(found[-1])
