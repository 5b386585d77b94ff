"""Files for the property tests: sound ones that differ, damaged ones, and what others read in them.

What is in force after a file was taken is compared with the readers of the standard library, not with our own.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from hypothesis import strategies as st

#: Pieces that mean something in one of the files.
PIECES = [
    b"\n", b"\r\n", b"\r", b",", b";", b'"', b"'", b'"""', b"=", b"[", b"]", b"[[", b"{", b"}", b"#", b".", b" ", b"\t",
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\\u202e", b"\\", b"nan", b"-inf", b"1e999", b"-1", b"0",
    b"9" * 5000, b"true", b"2026-12-01", b"2026-13-01", b"[capacity]\n", b"[files]\n", b"hold_s = 1\n", b"hold_s = 2\n",
    b"system_capacity = 1\n", b"a.b.c = 1\n", b"srvs = []\n", b'"7.4"', b"4.8.1 = 4\n", b"[costs]\n", b"[state]\n",
    b"Northern Energy,other,,1\n", b"=1+1,other,,5\n", b"90-B3-D5-1F-30-01-00-00",
    "\u00e9\u200b".encode(), "\u00e9".encode("latin-1"),
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


_NAMES = ("Northern Energy", "Gas, North", 'The "Best"', "\u00c9nergie", "A", "b c", "7.4", "-5")
#: What no cell of a number and no category may be; some of it may be a name.
_SLIPS = ("", "-1", "nan", "1,5", "1e999", "others", "x\u200b", "=1+1", " A", "1_0", "\u0663")
_CATEGORIES = ("large-supplier", "small-supplier", "electricity-network", "gas-network", "other")


@st.composite
def tables(draw: st.DrawFn, header: str, numbers: int) -> bytes:
    """A CSV file of Users as spreadsheets write it: sound, or with one slip in one cell.

    Parameters
    ----------
    header : str
        It begins with user, category and user_ids.
    numbers : int
        Cells after those, each a number that both files of Users allow.
    """
    ends = draw(st.sampled_from(["\n", "\r\n"]))
    names = draw(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=5, unique=True))
    rows = [
        [name, draw(st.sampled_from(_CATEGORIES)), f"90-B3-D5-1F-30-0{place}-00-00", *["1"] * numbers]
        for place, name in enumerate(names)
    ]
    for row in rows:
        row[3:] = [str(draw(st.integers(0, 60))) for _ in row[3:]]
        row[2] = draw(st.sampled_from(["", row[2], row[2].lower(), f"{row[2]} {row[2][:-1]}1"]))
    slip = draw(st.sampled_from(["none", "none", "cell", "cell", "twice"]))
    if slip == "twice":
        rows.append([rows[0][0], rows[0][1], "", *["59"] * numbers])
    if slip == "cell":
        row = draw(st.sampled_from(rows))
        cell = draw(st.sampled_from([0, 1, 2, *range(3, len(row)), len(row) - 1]))
        row[cell] = draw(st.sampled_from(("90-B3", rows[0][2] or "x", "A") if cell == 2 else _SLIPS))
    text = io.StringIO()
    text.write(header + ends)
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    csv.writer(text, lineterminator=ends, quoting=quoting).writerows(rows)
    return (b"\xef\xbb\xbf" if draw(st.booleans()) else b"") + text.getvalue().encode()


def rows_of(data: bytes) -> list[dict[str, Any]]:
    """Return the rows of a sound CSV file as the standard library reads them."""
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
