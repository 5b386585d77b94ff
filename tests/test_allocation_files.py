"""Allocations in CSV: which file is in force, and what is wrong in one."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest
from config_folder import CSV, HEAD, ON, TOML, mistakes, write
from hypothesis import given
from hypothesis import strategies as st

from tmm_core import Config, ConfigError
from tmm_core.errors import Mistake
from tmm_core.policy.allocation_files import read_allocations

CATEGORIES = "large-supplier, small-supplier, electricity-network, gas-network, other"
NO_NUMBER = "allocations.csv:2:10: allocation '{}' must be a number, units per second"
COLUMNS = "user,category,user_ids,allocation"
ID, ID2 = "90-B3-D5-1F-30-01-00-00", "90-B3-D5-1F-30-02-00-00"

#: What stands in the file after the header, what is told.
WRONG_ROWS: list[tuple[str | bytes, list[str]]] = [
    ("A,other,,-3\n", ["allocations.csv:2:10: allocation -3 must be 0 or more"]),
    ("A,other,,nan\nB,other,,inf\nC,other,,-Infinity\n", [
        "allocations.csv:2:10: allocation nan must be a finite number, 0 or more",
        "allocations.csv:3:10: allocation inf must be a finite number, 0 or more",
        "allocations.csv:4:10: allocation -Infinity must be a finite number, 0 or more",
    ]),
    ("A,other,,1e999\n", ["allocations.csv:2:10: allocation inf must be a finite number, 0 or more"]),
    ("A,other,,\n", ["allocations.csv:2:10: allocation is empty, it must be a number, units per second"]),
    ("A,other,,ten\n", [NO_NUMBER.format("ten")]),
    ("A,other,, 10\n", [NO_NUMBER.format(" 10")]),
    ("A,other,,0x10\n", [NO_NUMBER.format("0x10")]),
    ("A,other,,1_0\n", [NO_NUMBER.format("1_0")]),
    ("A,other,,٣\n", [NO_NUMBER.format("٣")]),
    ('A,other,,"1,000"\n', [
        f"{NO_NUMBER.replace('10', '11').format('1,000')} (write it without separators of thousands)",
    ]),
    ("A,other,,1e-9\n", ["allocations.csv:2:10: allocation 1e-09 must be 0, or from 1e-05 to 1e+06 units per second"]),
    ("A,other,,1e7\n", [
        "allocations.csv:2:10: allocation 10000000 must be 0, or from 1e-05 to 1e+06 units per second",
    ]),
    ("A,othr,,1\n", [
        f"allocations.csv:2:3: category 'othr' must be one of {CATEGORIES} (did you mean 'other'?)",
    ]),
    ("A,,,1\n", [
        f"allocations.csv:2:3: category '' must be one of {CATEGORIES}",
    ]),
    (",other,,1\n", ["allocations.csv:2:1: user: name must not be empty"]),
    (" A,other,,1\n", ["allocations.csv:2:1: user: name ' A' must not begin or end with white space"]),
    ("A\u200bB,other,,1\n", [
        "allocations.csv:2:1: user: name 'A\\u200bB' has the invisible character U+200B in it",
    ]),
    ("A\x1b[31mB,other,,1\n", [
        "allocations.csv:2:1: user: name 'A\\x1b[31mB' has the invisible character U+001B in it",
    ]),
    ("A" * 201 + ",other,,1\n", [
        f"allocations.csv:2:1: user: name '{'A' * 76}... has 201 characters, at most 200 are allowed",
    ]),
    ("A,other,,1\nB,other,,1\nA,other,,1\n", ["allocations.csv:4:1: User 'A' is listed twice, first in line 2"]),
    ("Fenland,other,,1\nFENLAND,other,,1\n", [
        "allocations.csv:3:1: User 'FENLAND' is listed twice, as 'Fenland', first in line 2",
    ]),
    (f"A,other,{ID},1\nB,other,{ID.lower()},1\n", [
        f"allocations.csv:3:9: user_ids: {ID} is owned by 'A' of line 2 already",
    ]),
    (f"A,other,{ID} {ID},1\n", [f"allocations.csv:2:33: user_ids: {ID} is listed twice"]),
    ("A,other,90-B3,1\n", [
        "allocations.csv:2:9: user_ids: '90-B3' must be an EUI-64: eight hexadecimal octets joined by '-'",
    ]),
    (f"A,other,{ID};{ID2},1\n", [
        f"allocations.csv:2:9: user_ids: '{ID};{ID2}' must be an EUI-64: eight hexadecimal octets joined by '-'",
    ]),
    (f"{ID},other,,1\nB,other,{ID},1\n", [
        f"allocations.csv:3:9: {ID} of 'B' is the name of another User",
    ]),
    ("A,other,1\nB,other,,1,\n", [
        "allocations.csv:2:9: 3 cells, expected 4",
        "allocations.csv:3:12: 5 cells, expected 4",
    ]),
    ("A;other;;1\n", ["allocations.csv:2:1: 1 cell, expected 4 (separated by semicolons: expected commas)"]),
    ("A,other,,1\n\nB,other,,1\n", ["allocations.csv:3:1: an empty line, expected a User"]),
    ('"A,other,,1\n', ["allocations.csv:2:1: a quotation mark is not closed in its line"]),
    ('"A"B,other,,1\n', ["allocations.csv:2:4: 'B' after a closing quotation mark, expected a comma"]),
    ('"A\nB",other,,1\n', [
        "allocations.csv:2:1: a quotation mark is not closed in its line",
        "allocations.csv:3:2: a quotation mark inside a cell that does not begin with one",
    ]),
    (b"A\0,other,,1\n", ["allocations.csv:2:2: a NUL byte, expected text"]),
    (b"Zo\xeb,other,,1\nB,other,,-1\n", [
        "allocations.csv:2:3: byte 0xeb is not UTF-8",
        "allocations.csv:3:10: allocation -1 must be 0 or more",
    ]),
    ("A,other,,300\nB,other,,100\nC,other,,1\n", [
        "allocations.csv:4:10: allocations add up to 401 units per second, above operating_threshold 400",
    ]),
    ("", ["allocations.csv:1:1: no Users after the header, expected at least one"]),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "told"), WRONG_ROWS, ids=[str(number) for number in range(len(WRONG_ROWS))])
def test_what_is_wrong_in_a_row_is_told(rows: str | bytes, told: list[str], tmp_path: Path) -> None:
    data = COLUMNS.encode() + b"\n" + (rows if isinstance(rows, bytes) else rows.encode())
    assert mistakes(write(tmp_path, csv=data)) == told


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("", "1:1: the file is empty, expected the header user,category,user_ids,allocation"),
        (
            "user;category;user_ids;allocation",
            "1:1: the columns are separated by semicolons, expected commas",
        ),
        ("user\tcategory\tuser_ids\tallocation", "1:1: the columns are separated by tabs, expected commas"),
        (
            "user,category,allocation",
            "1:15: the header has 'allocation', expected 'user_ids' (the header is user,category,user_ids,allocation)",
        ),
        (
            "User,category,user_ids,allocation",
            "1:1: the header has 'User', expected 'user' (the header is user,category,user_ids,allocation)",
        ),
        (
            "user,category,user_ids",
            "1:24: the header has nothing, expected 'allocation' (the header is user,category,user_ids,allocation)",
        ),
        (
            "user,category,user_ids,allocation,note",
            "1:35: the header has 'note', expected nothing (the header is user,category,user_ids,allocation)",
        ),
        (
            "A,other,,1",
            "1:1: the header has 'A', expected 'user' (the header is user,category,user_ids,allocation)",
        ),
    ],
)
def test_a_wrong_header_is_told(header: str, told: str, tmp_path: Path) -> None:
    rows = "" if not header else "\nA,other,,1\n"
    assert mistakes(write(tmp_path, csv=header + rows)) == [f"allocations.csv:{told}"]


def test_of_very_many_mistakes_a_thousand_are_told(tmp_path: Path) -> None:
    found = mistakes(write(tmp_path, csv=f"{COLUMNS}\n" + "A,other,,x\n" * 3000))
    # The first row has one mistake, every other one two: User A again, and its allocation. 1 + 2 * 500 are over 1000.
    assert len(found) == 1002
    assert found[-1] == "allocations.csv:503:1: 1000 mistakes so far: not read any further"


def test_a_table_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tmm_core.policy.allocation_files.LARGEST_TABLE", 2 << 20)
    rows = "".join(f"User {number},other,,0\n" for number in range(150_000))
    assert mistakes(write(tmp_path, csv=f"{COLUMNS}\n{rows}")) == [
        "allocations.csv: more than 2 MiB, expected an allocations file"
    ]


def test_a_name_that_looks_like_a_formula_is_a_name(tmp_path: Path) -> None:
    """It is data: a spreadsheet must be kept from running it where a file is written, not where one is read."""
    names = ["=1+1", "@SUM(A1)", "-2+3", "+44", "=cmd|' /C calc'!A0"]
    config = Config.load(
        write(tmp_path, csv=f"{COLUMNS}\n" + "".join(f"{name},other,,1\n" for name in names)), on=ON
    )
    assert list(config.users) == names


def test_cells_may_be_quoted(tmp_path: Path) -> None:
    rows = '"Smith, Jones ""and"" Co",other,"",1\nÉnergie du Nord,"other",,2.50\nLast,other,,1e2\n'
    config = Config.load(write(tmp_path, csv=f"{COLUMNS}\n{rows}"), on=ON)
    assert dict(config.allocations) == {'Smith, Jones "and" Co': 1.0, "Énergie du Nord": 2.5, "Last": 100.0}


def test_allocations_may_fill_the_threshold_to_the_last_unit(tmp_path: Path) -> None:
    # 0.1 + 0.2 + 399.7 is 400 in decimal, and a little more in binary
    config = Config.load(
        write(tmp_path, csv=f"{COLUMNS}\nA,other,,0.1\nB,other,,0.2\nC,other,,399.7\n"), on=ON
    )
    assert len(config.users) == 3


def test_the_dearest_service_request_must_be_payable(tmp_path: Path) -> None:
    toml = TOML + '[costs]\n"4.8.1" = 1000\n'
    # 1000 units at 1e-4 units per second take 1e7 s, 116 days
    assert mistakes(write(tmp_path, toml=toml, csv=CSV.replace("20.5", "1e-4"))) == [
        "allocations.csv:3:49: allocation 0.0001 needs 116 days for a cost of 1000, at most 100 are allowed"
    ]


CELLS = ["A", "B", "other", "othr", ID, f"{ID} {ID2}", f"{ID2}  90-B3", "1", "-1", "1,5", "", " x", "é"]


@given(st.lists(st.tuples(*[st.tuples(st.sampled_from(CELLS), st.booleans())] * 4), min_size=1, max_size=5))
def test_the_column_of_a_mistake_is_that_of_its_cell(rows: list[tuple[tuple[str, bool], ...]]) -> None:
    """Quoted or not; of identifiers, where the one begins that is wrong."""
    rows = [tuple((text, quoted or "," in text) for text, quoted in row) for row in rows]
    lines = [",".join(f'"{text}"' if quoted else text for text, quoted in row) for row in rows]
    found: list[Mistake] = []
    read_allocations("\n".join([COLUMNS, *lines, ""]).encode(), "a.csv", found)
    for mistake in found:
        assert mistake.line is not None
        assert mistake.column is not None
        place = COLUMNS.split(",").index(mistake.field or "")
        cell, quoted = rows[mistake.line - 2][place]
        rest = lines[mistake.line - 2][mistake.column - 1 :]
        words = cell.split(" ") if mistake.field == "user_ids" else [cell]
        end = '"' if quoted else ("" if place == 3 else ",")
        assert any(rest.startswith((word + end, word + " ")) for word in words if word or not cell)


# --- A folder of dated files


def _dated(folder: Path, *names: str) -> Path:
    path = write(folder, toml=TOML.replace("allocations.csv", "monthly"), csv=None)
    (folder / "monthly").mkdir()
    for number, name in enumerate(names, start=1):
        (folder / "monthly" / name).write_text(f"{COLUMNS}\nA,other,,{number}\n", encoding="utf-8")
    return path


def test_the_last_file_that_has_begun_is_in_force(tmp_path: Path) -> None:
    path = _dated(
        tmp_path, "2026-10-01.csv", "2026-11-01.csv", "2026-12-01.csv", "notes.txt", ".2027-01-01.csv"
    )
    for on, allocation, begins in [
        (date(2026, 10, 1), 1, date(2026, 10, 1)),
        (date(2026, 10, 31), 1, date(2026, 10, 1)),
        (date(2026, 11, 1), 2, date(2026, 11, 1)),
        (date(2026, 12, 1), 3, date(2026, 12, 1)),
        (date(2030, 1, 1), 3, date(2026, 12, 1)),
    ]:
        config = Config.load(path, on=on)
        assert (config.allocations["A"], config.effective_from) == (allocation, begins)


def test_without_a_file_in_force_nothing_is(tmp_path: Path) -> None:
    path = _dated(tmp_path, "2026-12-01.csv", "2027-01-01.csv")
    assert mistakes(path, on=date(2026, 11, 30)) == [
        "monthly: no allocations in force on 2026-11-30: the first file, 2026-12-01.csv, begins on 2026-12-01"
    ]


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    assert mistakes(_dated(tmp_path)) == [
        "monthly: no allocations: no file named by its first day in force, for example 2026-12-01.csv"
    ]


def test_a_csv_file_whose_name_is_no_day_is_a_mistake(tmp_path: Path) -> None:
    """It would stay out of force without a word."""
    path = _dated(
        tmp_path, "2026-11-01.csv", "2026-12-1.csv", "2026-02-30.csv", "december.CSV", "20261201.csv"
    )
    assert mistakes(path) == [
        f"monthly/{name}: the name must be the first day in force, for example 2026-12-01.csv"
        for name in ("2026-02-30.csv", "2026-12-1.csv", "20261201.csv", "december.CSV")
    ]


def test_a_file_named_itself_is_in_force_whatever_its_name(tmp_path: Path) -> None:
    path = _dated(tmp_path, "2026-12-01.csv")
    write(tmp_path, toml=TOML.replace("allocations.csv", "monthly/2026-12-01.csv"), csv=None)
    config = Config.load(path, on=date(2026, 11, 1))
    assert (config.allocations["A"], config.effective_from) == (1.0, date(2026, 12, 1))


def test_the_day_is_today_in_utc_unless_one_is_named(tmp_path: Path) -> None:
    assert Config.load(_dated(tmp_path, "2020-01-01.csv", "2999-01-01.csv")).effective_from == date(
        2020, 1, 1
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user that is refused")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "allocations.csv").chmod(0)
    assert mistakes(path) == ["allocations.csv: cannot be read: Permission denied"]


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, toml=HEAD + "[files]\nallocations = '/dev/null'\npriority_list = '.'", csv=None)
    assert mistakes(path) == [
        "/dev/null: is a device or socket, expected a file",
        "priority-list.toml: the name must be the first day in force, for example 2026-12-01.toml",
        "tmm.toml: the name must be the first day in force, for example 2026-12-01.toml",
    ]
    with pytest.raises(ConfigError, match=r": cannot be read: No such file or directory$"):
        Config.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r": is a folder, expected a file$"):
        Config.load(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read: "):
        Config.load("a\0b")


def test_a_path_of_thousands_of_characters_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, toml=HEAD + f"[files]\nallocations = '{'9' * 5000}'", csv=None)
    assert mistakes(path) == [f"{'9' * 5000}: cannot be read: File name too long"]
