"""The portfolio file: read whole or refused whole, every mistake with its place."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from damage import damaged, rows_of, tables
from hypothesis import event, example, given
from hypothesis import strategies as st

from tmm_core.errors import ConfigError
from tmm_core.policy import portfolio as module
from tmm_core.policy.portfolio import METER_KINDS, Portfolio, UserPortfolio
from tmm_core.policy.tables import MOST_MISTAKES

HEADER = (
    "user,category,user_ids,electricity_credit,electricity_prepayment,gas_credit,gas_prepayment,other_devices,"
    "forecast,actual"
)
GOOD = f"{HEADER}\nNorthern Energy,large-supplier,90-B3-D5-1F-30-01-00-00 90-b3-d5-1f-30-01-00-01,4,3,2,1,0,100,\n"


def read(text: str | bytes) -> Portfolio:
    return Portfolio.read(text.encode() if isinstance(text, str) else text, "2026-12", file="p.csv")


def told(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value).splitlines()


def test_a_row_is_read_as_it_stands() -> None:
    [row] = read(GOOD).users
    assert row == UserPortfolio(
        "Northern Energy",
        "large-supplier",
        ("90-B3-D5-1F-30-01-00-00", "90-B3-D5-1F-30-01-00-01"),  # in upper case, sorted
        electricity_credit=4,
        electricity_prepayment=3,
        gas_credit=2,
        gas_prepayment=1,
        other_devices=0,
        forecast=100,
        actual=None,  # nothing is not the same as 0
    )


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
        "\ufeff" + GOOD.replace("\n", "\r\n"),
        GOOD.rstrip("\n"),
        GOOD.replace("Northern Energy", '"Northern Energy"'),
    ],
)
def test_what_spreadsheets_write_is_read_alike(text: str) -> None:
    assert read(text) == read(GOOD)


def test_a_quoted_name_may_hold_a_comma_and_quotation_marks() -> None:
    [row] = read(GOOD.replace("Northern Energy", '"Energy, ""Northern"""')).users
    assert row.user == 'Energy, "Northern"'


ROW = "A,other,,1,1,1,1,1,,"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("A,Other,,1,1,1,1,1,,", "2:3: category 'Other' is unknown, expected one of large-supplier, small-supplier, "),
        ("A,other,,-1,1,1,1,1,,", "2:10: electricity_credit is '-1', expected digits only, 0 to 1000000000"),
        ("A,other,,1,1.5,1,1,1,,", "2:12: electricity_prepayment is '1.5', expected digits only"),
        ("A,other,,1,1,1e3,1,1,,", "2:14: gas_credit is '1e3', expected digits only"),
        ("A,other,,1,1,1,,1,,", "2:16: gas_prepayment is nothing, expected digits only"),
        ("A,other,,1,1,1,1,٣,,", "2:18: other_devices is '٣', expected digits only"),
        ("A,other,,1000000001,1,1,1,1,,", "2:10: electricity_credit 1000000001 is absurd, expected at most 1000000000"),
        (f"A,other,,1,1,1,1,1,{'9' * 400},", f"2:20: forecast {'9' * 40} is absurd, expected at most 1000000000000"),
        ("A,other,,1,1,1,1,1,,=1+1", "2:21: actual is '=1+1', expected digits only"),
        ("=cmd|1!A0,other,,1,1,1,1,1,,", "2:1: the User's name '=cmd|1!A0' begins with a character that makes"),
        ("+A,other,,1,1,1,1,1,,", "2:1: the User's name '+A' begins with a character that makes spreadsheets run it"),
        ("＝A,other,,1,1,1,1,1,,", "2:1: the User's name '＝A' begins with a character that makes spreadsheets run it"),
        (",other,,1,1,1,1,1,,", "2:1: the User's name '' is empty, expected a name"),
        (" A,other,,1,1,1,1,1,,", "2:1: the User's name ' A' begins or ends with a space"),
        ("A\u202eB,other,,1,1,1,1,1,,", "2:1: the User's name 'A\\u202eB' holds control or invisible characters"),
        ("A\0,other,,1,1,1,1,1,,", "2:2: a NUL byte, expected text"),
        ("e\u0301,other,,1,1,1,1,1,,", "2:1: the User's name 'e\u0301' is not in Unicode form NFC"),
        (f"{'A' * 101},other,,1,1,1,1,1,,", "2:1: the User's name 'AAAA"),
        ("90-b3-d5-1f-30-01-00-00,other,,1,1,1,1,1,,", "2:1: the User's name '90-b3-d5-1f-30-01-00-00' is an EUI-64"),
        ("A,other,90-B3,1,1,1,1,1,,", "2:9: '90-B3' is not an EUI-64, expected eight octets like 90-B3-D5-1F-30-01"),
        ("A,other,1,1,1,1,1,,", "2:20: 9 cells, expected 10"),
        ("A;other;;1;1;1;1;1;;", "2:1: 1 cell, expected 10 (separated by semicolons: expected commas)"),
        ('"A,other,,1,1,1,1,1,,', "2:1: a quotation mark is not closed in its line"),
        ('"A"B,other,,1,1,1,1,1,,', "2:4: 'B' after a closing quotation mark, expected a comma"),
        ("", "2:1: an empty line, expected a User"),
    ],
)  # fmt: skip
def test_a_mistake_of_a_row_is_told_with_line_column_found_and_expected(row: str, expected: str) -> None:
    assert any(line.startswith(f"p.csv:{expected}") for line in told(f"{HEADER}\n{row}\n{ROW}\n")), told(
        f"{HEADER}\n{row}\n{ROW}\n"
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "1:1: the file is empty, expected the header user,category,"),
        (b"\xef\xbb\xbf", "1:1: the file is empty, expected the header user,category,"),
        (f"{HEADER}\n".encode(), "1:1: no Users after the header, expected at least one"),
        (HEADER.replace(",", ";").encode(), "1:1: the columns are separated by semicolons, expected commas"),
        (HEADER.replace(",", "\t").encode(), "1:1: the columns are separated by tabs, expected commas"),
        (HEADER.replace("gas_credit", "gas").encode(), "1:66: the header has 'gas', expected 'gas_credit'"),
        (HEADER.removesuffix(",actual").encode(), "1:115: the header has nothing, expected 'actual'"),
        ((HEADER + ",more").encode(), "1:122: the header has 'more', expected nothing"),
        (ROW.encode(), "1:1: the header has 'A', expected 'user'"),
        (GOOD.encode("utf-16"), "1:1: encoded in UTF-16, expected UTF-8"),
        (f"{HEADER}\nCafé,other,,1,1,1,1,1,,\n".encode("latin-1"), "2:4: byte 0xe9 is not UTF-8"),
        (f"{HEADER}\nCafé,other,,1,1,1,1,1,,\n".encode() + "É,".encode("cp1252"), "3:1: byte 0xc9 is not UTF-8"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told(data: bytes, expected: str) -> None:
    assert any(line.startswith(f"p.csv:{expected}") for line in told(data)), told(data)


def test_duplicates_name_the_line_they_repeat() -> None:
    eui = "90-B3-D5-1F-30-01-00-00"
    lines = told(f"{HEADER}\nNorth,other,{eui},1,1,1,1,1,,\nＮＯＲＴＨ,other,{eui.lower()},1,1,1,1,1,,\n")
    assert lines == [
        "p.csv:3:1: User 'ＮＯＲＴＨ' is already in line 2, expected one line a User",
        f"p.csv:3:13: {eui} already belongs to 'North' in line 2, expected one owner",
    ]


def test_all_mistakes_come_at_once() -> None:
    lines = told(f"{HEADER}\nA,others,,x,1,1,1,1,,\nA,other,1,1,1,1,1,1,y,\n")
    assert [line.split(": ")[0] for line in lines] == [
        "p.csv:2:3",
        "p.csv:2:11",
        "p.csv:3:1",
        "p.csv:3:9",
        "p.csv:3:21",
    ]


def test_a_file_of_nothing_but_mistakes_does_not_fill_the_memory() -> None:
    lines = told(HEADER + "\nx" * 5000)
    assert len(lines) == MOST_MISTAKES + 1
    assert lines[-1] == "p.csv:1002:1: 1000 mistakes so far: not read any further"


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "LARGEST_FILE", 1 << 20)
    path = tmp_path / "2026-12.csv"
    path.write_text(GOOD + "#" * (1 << 20))
    with pytest.raises(ConfigError, match=r"2026-12\.csv: more than 1 MiB, expected a portfolio file"):
        Portfolio.load(path)


@pytest.mark.parametrize(
    ("month", "days", "before"),
    [("2026-12", 31, 30), ("2027-01", 31, 31), ("2028-03", 31, 29), ("2026-02", 28, 31)],
)
def test_the_days_are_those_of_the_month_and_of_the_one_before(month: str, days: int, before: int) -> None:
    portfolio = Portfolio.read(GOOD.encode(), month)
    assert (portfolio.days, portfolio.days_of_previous_month) == (days, before)


def test_the_month_is_that_of_the_file_name(tmp_path: Path) -> None:
    path = tmp_path / "2026-12.csv"
    path.write_text(GOOD, encoding="utf-8")
    assert Portfolio.load(path).month == "2026-12"
    assert Portfolio.load(path, "2027-01").month == "2027-01"
    other = path.rename(tmp_path / "portfolio.csv")
    with pytest.raises(
        ConfigError, match=r"the month is 'portfolio', expected a file name like 2026-12\.csv"
    ):
        Portfolio.load(other)
    with pytest.raises(ConfigError, match=r"none\.csv: cannot be read: No such file"):
        Portfolio.load(tmp_path / "none.csv")


def test_a_portfolio_made_in_memory_is_checked_as_well() -> None:
    with pytest.raises(ConfigError) as caught:
        Portfolio(
            "2026-13",
            (
                UserPortfolio("A", "others", electricity_credit=-1),
                UserPortfolio("A", "other", gas_credit=True, forecast=10**13),
            ),
        )
    assert [mistake.message.split(",")[0] for mistake in caught.value.mistakes] == [
        "month '2026-13'",
        "User 'A': category 'others' is unknown",
        "User 'A': electricity_credit -1",
        "User 'A' is listed twice",
        "User 'A': gas_credit True",
        "User 'A': forecast 10000000000000",
    ]


@given(st.one_of(tables(HEADER, 7), tables(HEADER, 7), damaged(GOOD)))
@example(GOOD.encode())
def test_any_file_is_read_whole_or_refused_whole(data: bytes) -> None:
    """And what is read is what the standard library reads in it, cell by cell."""
    try:
        portfolio = Portfolio.read(data, "2026-12", file="p.csv")
    except ConfigError as error:
        found = error.mistakes
    else:
        found = ()
        for row, cells in zip(portfolio.users, rows_of(data), strict=True):
            assert (row.user, row.category) == (cells["user"], cells["category"])
            assert row.user_ids == tuple(sorted(cells["user_ids"].upper().split()))
            for kind in METER_KINDS:
                assert getattr(row, kind) == int(cells[kind]), kind
            for kind in ("forecast", "actual"):
                assert getattr(row, kind) == (int(cells[kind]) if cells[kind] else None), kind
    assert all(each.file == "p.csv" for each in found)
    event("refused" if found else "read")


@given(st.binary(max_size=200))
def test_any_bytes_after_the_header_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        Portfolio.read(f"{HEADER}\n".encode() + data, "2026-12")
