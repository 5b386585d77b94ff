"""Reading a request log: every line is read, or counted with its number and fault."""

from __future__ import annotations

import csv
import gzip
import io
import random
import sys
import tracemalloc
import types
from pathlib import Path

import pytest

from tmm_core.errors import TMMError
from tmm_core.operations.traffic import request_log
from tmm_core.operations.traffic.request_log import Block, LogNotes, RequestLog

USERS = {"alpha": 1, "beta": 2, "gämma": 3}
SRVS = {"4.1.1": 1, "7.4": 2}
HEADER = "time,user_id,srv"
GOOD = "1796083200.5,alpha,4.1.1"

Line = tuple[int, float, int, int]  # number, time in seconds, slot, SRV number


def read(source: bytes | str, path: Path, **options: object) -> tuple[list[Line], LogNotes]:
    data = source.encode() if isinstance(source, str) else source
    (path / "log.csv").write_bytes(data)
    with RequestLog(path / "log.csv", **options) as log:  # type: ignore[arg-type]
        return lines(log), log.notes


def lines(log: RequestLog) -> list[Line]:
    found: list[Line] = []
    for block in log.blocks(lambda name: USERS.get(name, 0), lambda code: SRVS.get(code, 0)):
        assert isinstance(block, Block)
        found += zip(
            block.lines.tolist(),
            [time // 10**6 / 1000 for time in block.times.tolist()],
            block.users.tolist(),
            block.srvs.tolist(),
            strict=True,
        )
    return found


def test_a_log_is_read_line_by_line(tmp_path: Path) -> None:
    text = f"{HEADER}\n1796083200,alpha,4.1.1\n1796083201.25,beta,7.4\n1796083201.5,nobody,9.9\n"
    found, notes = read(text, tmp_path)
    assert found == [(2, 1796083200, 1, 1), (3, 1796083201.25, 2, 2), (4, 1796083201.5, 0, 0)]
    assert (notes.lines, notes.bad, notes.time_format) == (4, 0, "seconds since 1970")
    assert (notes.unknown_users, notes.unknown_srvs) == (["nobody"], ["9.9"])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_line_ends_a_mark_and_the_delimiter_make_no_difference(
    end: str, last: bool, mark: str, delimiter: str, tmp_path: Path
) -> None:
    text = mark + end.join([HEADER, GOOD, GOOD.replace("alpha", "beta")]) + (end if last else "")
    found, notes = read(text.replace(",", delimiter), tmp_path)
    assert [line[0] for line in found] == [2, 3]
    assert [line[2:] for line in found] == [(1, 1), (2, 1)]
    assert notes.bad == 0


@pytest.mark.parametrize(
    "header",
    [
        "Timestamp,User ID,Service Reference Variant",
        "@timestamp,originator-id,SRV",
        "received_at,EUI-64,srv_code",
        '"time","user","srv"',
        " time , user_id , srv ",
    ],
)
def test_usual_names_of_columns_are_known(header: str, tmp_path: Path) -> None:
    found, _ = read(f"{header}\n{GOOD}\n", tmp_path)
    assert found == [(2, 1796083200.5, 1, 1)]


def test_columns_may_come_in_any_order_among_others(tmp_path: Path) -> None:
    found, _ = read("status,srv,path,user,time\n200,7.4,/x,beta,1796083200\n", tmp_path)
    assert found == [(2, 1796083200, 2, 2)]


def test_columns_may_be_named(tmp_path: Path) -> None:
    options = {"time_column": "Wann", "user_column": "wer", "srv_column": "was"}
    found, _ = read("time,wann,wer,was\nx,1796083200,beta,7.4\n", tmp_path, **options)
    assert found == [(2, 1796083200, 2, 2)]


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("", "log.csv:1:1: the file is empty, expected a header like time,user_id,srv"),
        ("\n", "log.csv:1:1: no column for the time"),
        (GOOD, "no column for the time among '1796083200.5', 'alpha', '4.1.1': expected time or timestamp"),
        ("time,user_id", "no column for the SRV among 'time', 'user_id'"),
        (
            "time,timestamp,user,srv",
            "several columns for the time: 'time' and 'timestamp': name one (--time-column)",
        ),
        (
            "time,user,user_id,srv",
            "several columns for the user id: 'user' and 'user_id': name one (--user-column)",
        ),
        (b"\xff\xfetime", "log.csv:1:1: the header is not UTF-8"),
        (b"\xef\xbb\xbfa\xc3\xa9\xc3\xa9\xff", "log.csv:1:4: the header is not UTF-8"),
        ("t\0i\0m\0e\0", "log.csv:1:2: the file is not UTF-8 text (UTF-16?)"),
        ("time,user,srv\r1,a,7.4\r", "log.csv:1:14: a line end of CR alone, expected LF or CRLF"),
    ],
)
def test_a_header_that_does_not_say_where_what_is_is_refused(
    header: str | bytes, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(TMMError) as found:
        read(header, tmp_path)
    assert fault in str(found.value)


def test_a_header_with_a_column_too_long_for_csv_is_refused(tmp_path: Path) -> None:
    before = csv.field_size_limit(100)
    try:
        with pytest.raises(TMMError, match=r"log\.csv:1:1: the header is not CSV: field larger than"):
            read("time,user,srv," + "x" * 200, tmp_path)
    finally:
        csv.field_size_limit(before)


BAD = [
    ("1796083200,alpha", 17, "number of fields 2, expected 3 as in the header"),
    ("1796083200,alpha,4.1.1,more", 24, "number of fields 4, expected 3 as in the header"),
    ("now,alpha,4.1.1", 1, "time 'now' must be"),
    (
        "2026-12-01T00:00:00Z,alpha,4.1.1",
        1,
        "time '2026-12-01T00:00:00Z' must be seconds since 1970, like the first",
    ),
    ("1796083200123,alpha,4.1.1", 1, "time '1796083200123' must be seconds since 1970"),
    ("17960832,alpha,4.1.1", 1, "must be seconds since 1970"),
    ("1796083200,,4.1.1", 12, "user id is empty"),
    ("1796083200,alpha,  ", 18, "SRV is empty"),
    ('1796083200,"alpha, ""x""",  ', 27, "SRV is empty"),
    ('1796083200,"alpha,4.1.1', 12, "not CSV: unexpected end of data"),
    ('1796083200,"al"pha,4.1.1', 12, "not CSV: ',' expected after '\"'"),
    ("1796083200,é".encode() + b"al\xffpha,4.1.1", 15, "not UTF-8: byte 0xff"),
    ("1796083200," + "x" * 70_000 + ",4.1.1", 1, "longer than 65,536 bytes"),
    ("1796083200," + "x" * 3_000_000 + ",4.1.1", 1, "longer than 65,536 bytes"),
]


@pytest.mark.parametrize(("line", "column", "fault"), BAD, ids=[fault[:30] for *_, fault in BAD])
@pytest.mark.parametrize("around", [1, 40])
def test_a_bad_line_is_counted_with_its_place_and_the_others_are_read(
    line: str | bytes, column: int, fault: str, around: int, tmp_path: Path
) -> None:
    data = line.encode() if isinstance(line, str) else line
    good = [GOOD.encode()] * around
    found, notes = read(b"\n".join([HEADER.encode(), *good, data, *good, b""]), tmp_path)
    expected = [*range(2, around + 2), *range(around + 3, 2 * around + 3)]
    assert [each[0] for each in found] == expected
    assert all(each[1:] == (1796083200.5, 1, 1) for each in found)
    assert notes.bad == 1
    (bad,) = notes.first_bad
    assert (bad.line, bad.column) == (around + 2, column)
    assert fault in bad.fault
    assert notes.lines == 2 * around + 2


def test_every_kind_of_bad_line_at_once_is_counted_and_the_first_ten_are_kept(tmp_path: Path) -> None:
    rows = [HEADER.encode(), GOOD.encode()]
    for line, *_ in BAD * 30:
        rows += [line.encode() if isinstance(line, str) else line] if len(line) < 100 else []
        rows.append(GOOD.encode())
    n = sum(len(line) < 100 for line, *_ in BAD) * 30
    found, notes = read(b"\n".join(rows), tmp_path)
    assert notes.bad == n
    assert len(found) == 1 + len(BAD) * 30
    assert len(notes.first_bad) == 10
    assert [bad.line for bad in notes.first_bad] == sorted(bad.line for bad in notes.first_bad)
    assert notes.lines == len(rows)


def test_lines_with_quotes_are_csv(tmp_path: Path) -> None:
    found, notes = read(f'{HEADER}\n"1796083200","alpha","4.1.1"\n1796083200,"be""ta",7.4\n', tmp_path)
    assert found == [(2, 1796083200, 1, 1), (3, 1796083200, 0, 2)]
    assert notes.unknown_users == ['be"ta']


def test_an_open_quote_does_not_swallow_the_lines_that_follow(tmp_path: Path) -> None:
    found, notes = read(f'{HEADER}\n{GOOD}\n1,"a,b\n{GOOD}\n1,c",d\n{GOOD}\n', tmp_path)
    assert [line[0] for line in found] == [2, 4, 6]
    assert notes.bad == 2


def test_a_field_too_few_and_one_too_many_do_not_make_two_lines(tmp_path: Path) -> None:
    # Cell by cell this reads as two whole lines.
    found, notes = read(f"{HEADER}\n1796083200,alpha\n4.1.1,1796083201,beta,7.4\n{GOOD}\n", tmp_path)
    assert [line[0] for line in found] == [4]
    assert [bad.line for bad in notes.first_bad] == [2, 3]


def test_a_line_without_end_costs_no_memory(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(
        f"{HEADER}\n{GOOD}\n".encode() + b"x" * 40_000_000 + f"\n{GOOD}\n".encode()
    )
    tracemalloc.start()
    try:
        with RequestLog(tmp_path / "log.csv") as log:
            assert [line[0] for line in lines(log)] == [2, 4]
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_blank_lines_are_no_fault(tmp_path: Path) -> None:
    found, notes = read(f"{HEADER}\n\n{GOOD}\n   \n\r\n{GOOD}\n\n", tmp_path)
    assert [line[0] for line in found] == [3, 6]
    assert (notes.bad, notes.blank) == (0, 4)


def test_blank_lines_do_not_make_a_log_be_read_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That took 50 times as long: blocks were halved until each blank line stood alone."""
    tried: list[object] = []
    block = RequestLog._block
    monkeypatch.setattr(RequestLog, "_block", lambda *given: tried.append(given) or block(*given))
    found, notes = read(f"{HEADER}\n" + f"{GOOD}\n\n \r\n" * 1000, tmp_path)
    assert [each[0] for each in found] == list(range(2, 3002, 3))
    assert (notes.bad, notes.blank, len(tried)) == (0, 2000, 2)


def test_white_space_around_a_cell_is_no_fault(tmp_path: Path) -> None:
    found, notes = read(f"{HEADER}\n 1796083200 , alpha , 4.1.1 \n", tmp_path)
    assert found == [(2, 1796083200, 1, 1)]
    assert notes.bad == 0


def test_names_that_look_odd_are_unknown_users_and_nothing_else(tmp_path: Path) -> None:
    odd = ["=1+1", "<script>", "\x1b[2J", "\u202e", "x" * 60_000, "gämma"]
    found, notes = read("\n".join([HEADER, *(f"1796083200,{name},4.1.1" for name in odd)]), tmp_path)
    assert [line[2] for line in found] == [0, 0, 0, 0, 0, 3]
    assert notes.unknown_users == odd[:5]


def test_a_header_and_nothing_else_is_no_line(tmp_path: Path) -> None:
    for text in (HEADER, HEADER + "\n", HEADER + "\r\n\r\n"):
        found, notes = read(text, tmp_path)
        assert (found, notes.bad) == ([], 0)


def test_blocks_may_be_cut_anywhere(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    rows: list[bytes] = [HEADER.encode()]
    for number in range(300):
        rows.append(f"{1796083200 + number}.{number:03d},{chance.choice(list(USERS))},7.4".encode())
        if chance.random() < 0.1:
            rows.append(
                chance.choice(
                    [line for line, *_ in BAD if len(line) < 100 and isinstance(line, str)]
                ).encode()
            )
        if chance.random() < 0.1:
            rows.append(b"")
    data = chance.choice([b"\n", b"\r\n"]).join(rows)
    expected = read(data, tmp_path)
    assert len(expected[0]) == 300
    monkeypatch.setattr(request_log, "_LONGEST_LINE", 300)
    for size in (1, 2, 3, 7, 64, 1000):
        monkeypatch.setattr(request_log, "_BLOCK", size)
        assert read(data, tmp_path) == expected


def test_a_line_that_is_too_long_is_found_wherever_blocks_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "_LONGEST_LINE", 50)
    data = "\n".join([HEADER, GOOD, "y" * 51, GOOD, "x" * 200, GOOD, "z" * 120])
    for size in (1, 5, 30, 60, 100, 1000):
        monkeypatch.setattr(request_log, "_BLOCK", size)
        found, notes = read(data, tmp_path)
        assert [line[0] for line in found] == [2, 4, 6], size
        assert [bad.line for bad in notes.first_bad] == [3, 5, 7], size
        assert {bad.fault for bad in notes.first_bad} == {"longer than 50 bytes"}
        assert (notes.bad, notes.lines) == (3, 7)


def test_gzip_is_known_by_its_first_bytes_not_by_its_name(tmp_path: Path) -> None:
    found, _ = read(gzip.compress(f"{HEADER}\n{GOOD}\n".encode()), tmp_path)
    assert found == [(2, 1796083200.5, 1, 1)]


def test_several_gzip_files_one_after_the_other_are_one(tmp_path: Path) -> None:
    parts = [f"{HEADER}\n{GOOD}\n", f"{GOOD}\n"]
    found, _ = read(b"".join(gzip.compress(part.encode()) for part in parts), tmp_path)
    assert [line[0] for line in found] == [2, 3]


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_a_gzip_file_that_ends_early_is_an_error_not_a_shorter_log(kept: float, tmp_path: Path) -> None:
    chance = random.Random(1)
    text = "\n".join([HEADER, *(f"179608{chance.randrange(10**4):04d},alpha,4.1.1" for _ in range(200_000))])
    data = gzip.compress(text.encode())
    with pytest.raises(
        TMMError, match=r"log\.csv: the compressed file is damaged or ends early, after line \d+"
    ):
        read(data[: int(len(data) * kept)], tmp_path)


def test_a_damaged_gzip_file_is_an_error(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(f"{HEADER}\n{GOOD}\n".encode() * 1000))
    data[-6] ^= 0xFF
    with pytest.raises(TMMError, match="damaged or ends early"):
        read(bytes(data), tmp_path)


def test_standard_input_is_read_and_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (f"{HEADER}\n{GOOD}\n".encode(), gzip.compress(f"{HEADER}\n{GOOD}\n".encode())):
        buffer = io.BufferedReader(io.BytesIO(data))  # type: ignore[arg-type]
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=buffer))
        with RequestLog(None) as log:
            assert lines(log) == [(2, 1796083200.5, 1, 1)]
            assert (log.name, log.size, log.done()) == ("standard input", None, 2)
        assert not buffer.closed


def test_progress_is_in_bytes_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("\n".join([HEADER, *[GOOD] * 1000]), encoding="utf-8")
    with RequestLog(tmp_path / "log.csv") as log:
        lines(log)
        assert log.done() == log.size == (tmp_path / "log.csv").stat().st_size


def test_times_without_an_offset_are_bad_lines_unless_taken_as_utc(tmp_path: Path) -> None:
    text = f"{HEADER}\n2026-12-01T00:00:00,alpha,4.1.1\n"
    found, notes = read(text, tmp_path)
    assert found == [] and "no offset" in notes.first_bad[0].fault and notes.time_format == ""
    found, notes = read(text, tmp_path, assume_utc=True)
    assert found == [(2, 1796083200, 1, 1)]


def test_names_that_are_never_the_same_cost_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_log, "_MOST_NAMES", 100)
    rows = [f"1796083200,user {number},4.1.1" for number in range(5000)]
    (tmp_path / "log.csv").write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    with RequestLog(tmp_path / "log.csv") as log:
        assert len(lines(log)) == 5000
        assert len(log._users) == 100
        assert len(log.notes.unknown_users) == 10
