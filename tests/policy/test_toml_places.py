"""Reading TOML with the place of every value."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmm_core.errors import ConfigError
from tmm_core.policy.toml_places import LARGEST_FILE, load_toml, read_toml

TEXT = '''\
# a comment with = and [brackets]
title = "a # that is no comment"   # one that is

[plain]
one = 1
"quoted \\" key" = 2
dotted.inner = 'C:\\'
"é" = 3

[ spaced . "table" ]
list = [
  "4.1.1",   # ] no end
  '7.4', [1, 2],
]
inline = { a = 1, b.c = [5] }
long = """
[not a table]
x = "" y""""
literal = \'\'\'it's
\'\'\'
when = 2026-12-01

[[many]]
n = 1
[[many]]
n = 2
[many.below]
n = 3
'''


def test_each_value_has_the_line_and_column_it_begins_at() -> None:
    toml = read_toml(TEXT.encode(), "x.toml")
    lines = TEXT.split("\n")

    def at(*path: str | int) -> str:
        line, column = toml.places[path]
        return lines[line - 1][column - 1 :]

    assert at("title").startswith('"a # that')
    assert at("plain") == "[plain]"
    assert at("plain", "one") == "1"
    assert at("plain", 'quoted " key') == "2"
    assert at("plain", "dotted", "inner") == "'C:\\'"
    assert at("plain", "é") == "3"
    assert at("spaced", "table").startswith("[ spaced")
    assert at("spaced", "table", "list", 0).startswith('"4.1.1"')
    assert at("spaced", "table", "list", 1).startswith("'7.4'")
    assert at("spaced", "table", "list", 2, 1).startswith("2]")
    assert at("spaced", "table", "inline", "a").startswith("1, b.c")
    assert at("spaced", "table", "inline", "b", "c", 0).startswith("5]")
    assert at("spaced", "table", "long") == '"""'
    assert at("spaced", "table", "literal").startswith("'''it's")
    assert at("spaced", "table", "when") == "2026-12-01"
    assert at("many", 1, "n") == "2"
    assert at("many", 1, "below", "n") == "3"
    assert toml.values["many"] == [{"n": 1}, {"n": 2, "below": {"n": 3}}]


def test_each_key_has_the_line_and_column_it_begins_at() -> None:
    toml = read_toml(TEXT.encode(), "x.toml")
    lines = TEXT.split("\n")

    def at(*path: str | int) -> str:
        line, column = toml.place_of_key(*path)
        assert line is not None
        assert column is not None
        return lines[line - 1][column - 1 :]

    assert at("title").startswith("title = ")
    assert at("plain") == "[plain]"
    assert at("plain", 'quoted " key') == '"quoted \\" key" = 2'
    assert at("plain", "dotted", "inner").startswith("dotted.inner")
    assert at("spaced", "table", "inline", "b", "c").startswith("b.c = [5]")
    assert at("many", 1, "below", "n") == "n = 3"
    assert at("many", 1, "below", "no such key") == "[many.below]"


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    else:
        yield path


def test_every_value_of_a_file_has_a_place() -> None:
    toml = read_toml(TEXT.encode(), "x.toml")
    assert [path for path in _leaves(toml.values) if path not in toml.places] == []


@given(st.text(alphabet="ab.\"'[]{}=,#\n\\ 1é", max_size=40))
def test_any_text_is_either_refused_or_has_a_place_for_every_value(text: str) -> None:
    try:
        toml = read_toml(text.encode(), "x.toml")
    except ConfigError:
        with pytest.raises(tomllib.TOMLDecodeError):
            tomllib.loads(text)
        return
    assert toml.values == tomllib.loads(text)
    lines = text.split("\n")
    for path in _leaves(toml.values):
        line, column = toml.places[path]
        assert 1 <= line <= len(lines)
        assert 1 <= column <= len(lines[line - 1])
    for line, column in toml.keys.values():
        assert re.match(r"""[A-Za-z0-9_"'-]""", lines[line - 1][column - 1 :])


def test_numbers_come_as_they_are_written() -> None:
    values = read_toml(b"x = 0.1\ny = 3\n", "x.toml").values
    assert values == {"x": Decimal("0.1"), "y": 3}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"x = 1\nx = 2\n", "x.toml:2:1: key 'x' is set twice, first in line 1"),
        (b"x = \n", r"x\.toml:1:5: is not TOML: .*"),
        (b"a = 1\nb = [1,\n", r"x\.toml:3:1: is not TOML: .*"),
        ("x = 'é\n".encode("latin-1"), "x.toml:1:6: byte 0xe9 is not UTF-8"),
        ("y = 1\nx = 'é".encode() + b"\xff'", "x.toml:2:7: byte 0xff is not UTF-8"),
        ("x = 1".encode("utf-16"), "x.toml:1:1: encoded in UTF-16, expected UTF-8"),
        (b"x = 1\r\ny = 2\r", r"x\.toml:2:6: is not TOML: .*"),
        (b"x = " + b"[" * 5000, "x.toml:1:22: nested more than 16 deep, expected sections, keys and values"),
        (b"\nx = " + b"9" * 5000, "x.toml:2:5: a number of thousands of digits, expected a number"),
        (b"#" * (LARGEST_FILE + 1), "x.toml: more than 1 MiB, expected a TOML file"),
    ],
)
def test_what_is_no_toml_is_told_with_its_place(data: bytes, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_toml(data, "x.toml")
    assert re.fullmatch(told, str(caught.value)), str(caught.value)


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake() -> None:
    toml = read_toml(b"\xef\xbb\xbfx = 1\r\ny = 2\r\n", "x.toml")
    assert toml.values == {"x": 1, "y": 2}
    assert toml.places[("y",)] == (2, 5)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_toml(tmp_path / "none.toml")
