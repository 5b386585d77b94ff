"""What the report's files hold: the same bytes each time, no name that does harm, nothing of other Users."""

from __future__ import annotations

import csv
import html
import itertools
import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from operations.report_logs import HARBOUR, NORTHERN, WORKS, figures, november, read
from tmm_core.errors import TMMError
from tmm_core.operations import cli
from tmm_core.operations.report.compute import figures_of
from tmm_core.operations.report.files import as_json, file_names, write_pdf, write_report
from tmm_core.operations.report.record import anonymised
from tmm_core.policy.portfolio import Portfolio, UserPortfolio

pytest.importorskip("jinja2", reason="Jinja2 is not installed (extra: report)")

GOLDEN = Path(__file__).with_name("golden")
PORTFOLIO = Portfolio(
    "2026-11",
    (
        UserPortfolio(NORTHERN, "large-supplier", forecast=9_000),
        UserPortfolio(HARBOUR, "small-supplier", forecast=800),
    ),
)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


class Page(HTMLParser):
    """Elements with their attributes, headings, and text, of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[str, str]] = []
        self.text = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open in ("h1", "h2", "h3", "h4"):
            tag, before = self.headings[-1]
            self.headings[-1] = (tag, before + data)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The logs of `november`, to be read only."""
    return november(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def report(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden report, to be read only."""
    folder = tmp_path_factory.mktemp("report")
    write_report(figures(logs, portfolio=PORTFOLIO, hosts=("delta",)), folder)
    return folder


# --- The golden report


def test_the_report_of_a_fixed_log_is_the_golden_one(report: Path) -> None:
    made = contents(report)
    if os.environ.get("TMM_WRITE_GOLDEN"):  # look at the difference before you commit it
        for name, data in made.items():
            (GOLDEN / name).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / name).write_bytes(data)
    golden = contents(GOLDEN)
    assert made.keys() == golden.keys()
    for name, data in golden.items():
        assert made[name].decode() == data.decode(), (
            f"{name}: TMM_WRITE_GOLDEN=1 writes the golden report again"
        )


def test_the_same_logs_give_the_same_bytes_in_any_order_and_twice(logs: Path, tmp_path: Path) -> None:
    files = sorted(str(file) for file in logs.glob("*.db"))
    out = tmp_path / "report"
    assert cli.main(["report", "2026-11", "-o", str(out), "--quiet", "--log", *files]) == 0
    first = contents(out)
    copies = tmp_path / "backup"
    shutil.copytree(logs, copies)
    for again in ([*reversed(files)], [*files, *reversed(files)], [*files, str(copies)]):
        assert cli.main(["report", "2026-11", "-o", str(out), "--quiet", "--log", *again]) == 0
        assert contents(out) == first


def test_sections_are_those_of_the_requirement_in_order(report: Path) -> None:
    page = Page((report / "report.html").read_text(encoding="utf-8"))
    headings = [text for tag, text in page.headings if tag == "h2"]
    assert headings == [
        "Summary", "System Configuration", "System Capacity", "Users", "Trends", "Data quality", "Glossary",
    ]  # fmt: skip
    parts = [text for _, text in page.headings]
    assert {"Frequency and duration of activations", "Priority list", "Allocations"} <= set(parts)
    # No level is skipped.
    levels = [int(tag[1]) for tag, _ in page.headings]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_report_is_one_page_without_script_or_network(report: Path) -> None:
    for file in report.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        page = Page(text)
        tags = {tag for tag, _ in page.elements}
        assert not tags & {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "form",
            "base",
            "audio",
            "video",
        }
        for tag, attributes in page.elements:
            assert not any(name.startswith("on") for name in attributes), (tag, attributes)
            href = attributes.get("href")
            assert href is None or href.startswith("#") or re.fullmatch(r"csv/[a-z-]+\.csv", href), href
        assert "url(" not in text and "@import" not in text
        # SVG's own name is the only address in it, and nobody fetches that.
        assert set(re.findall(r"https?://[^\"' <]+", text)) <= {"http://www.w3.org/2000/svg"}
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))


def test_every_chart_has_a_table_and_a_csv_with_the_same_figures(report: Path) -> None:
    text = (report / "report.html").read_text(encoding="utf-8")
    charts = text.count("<figure>")
    assert charts >= 5
    assert text.count("<svg ") == 2 * charts  # wide and narrow
    assert text.count('role="img"') == 2 * charts
    assert text.count("<details") == charts
    linked = set(re.findall(r'href="(csv/[^"]+)"', text))
    assert linked == {f"csv/{file.name}" for file in (report / "csv").iterdir()}
    with (report / "csv/load-by-day.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert rows[9]["day"] == "2026-11-10"
    assert rows[9]["busiest_minute_offered_per_s"] == "156"
    assert sum(int(row["throttled"]) for row in rows) == 3120
    assert "3,120 of 10,978 Service Requests (28.4 %)" in html.unescape(text)


def test_the_json_holds_all_figures(logs: Path) -> None:
    found = json.loads(as_json(figures(logs)))
    assert found["month"] == "2026-11"
    assert found["due"] == "2026-12-14"
    assert (found["counts"]["offered"], found["counts"]["throttled"]) == (10_978, 3_120)
    assert [event["began_at"] for event in found["events"]] == [
        "2026-11-10T17:00:00Z",
        "2026-11-30T23:59:30Z",
    ]
    assert found["events"][0]["duration_s"] == 170.5
    assert {user["user"] for user in found["users"]} == {NORTHERN, HARBOUR, WORKS, "(unknown)"}


# --- Names that would do harm

NASTY = (
    '<script>alert("x")</script>',
    '=HYPERLINK("http://evil","x")',
    "A\u202egro\u0007 & \x1b[31mred\u2066'\"",
)


@pytest.mark.parametrize("shift", range(3))
def test_names_do_no_harm_in_any_file(tmp_path: Path, shift: int, capsys: pytest.CaptureFixture[str]) -> None:
    names = NASTY[shift:] + NASTY[:shift]
    found = figures_with_names(tmp_path / "logs", names)
    write_report(found, tmp_path / "report")
    for name, data in contents(tmp_path / "report").items():
        text = data.decode("utf-8")
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", text), (
            name
        )
        if name.endswith(".html"):
            page = Page(text)
            assert "script" not in {tag for tag, _ in page.elements}
            assert '<script>alert("x")</script>' not in text
        elif name.endswith(".csv"):
            for row in csv.reader(text.splitlines()):
                for cell in row:
                    assert not re.match(r"[=+@\t\r]|-(?![0-9.])", cell), (name, cell)
        assert re.fullmatch(r"(report\.(html|json)|csv/[a-z-]+\.csv|statements/[a-z0-9-]+\.(html|csv))", name)
    page = Page((tmp_path / "report/report.html").read_text(encoding="utf-8"))
    assert '<script>alert("x")</script>' in page.text  # shown as text
    assert "\\u202e" in page.text
    # The charts were drawn with them too, and are still XML.
    from xml.etree import ElementTree

    for file in (tmp_path / "report").rglob("*.html"):
        for drawing in re.findall(r"<svg .*?</svg>", file.read_text(encoding="utf-8"), re.DOTALL):
            ElementTree.fromstring(drawing)


def figures_with_names(folder: Path, names: tuple[str, ...]) -> object:
    """A log whose Users have names that the configuration would refuse: the log was not written by us."""
    import sqlite3
    from contextlib import closing

    november(folder)
    for file in folder.glob("*.db"):
        with closing(sqlite3.connect(file)) as connection, connection:
            for old, new in zip((NORTHERN, HARBOUR, WORKS), names, strict=True):
                connection.execute("UPDATE users SET name = ? WHERE name = ?", (new, old))
                for rowid, text in connection.execute(
                    "SELECT from_ms, description FROM configurations"
                ).fetchall():
                    connection.execute(
                        "UPDATE configurations SET description = ? WHERE from_ms = ?",
                        (text.replace(json.dumps(old), json.dumps(new)), rowid),
                    )
    return figures(folder)


def test_file_names_are_safe_and_never_the_same() -> None:
    names = ["A/B", "a b", "A-B", "..", "con", "", "x" * 300, "\u202e", "Ünïted", "user"]
    found = file_names(names)
    assert len({name.lower() for name in found}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name) for name in found)
    assert found[:5] == ["a-b", "a-b-2", "a-b-3", "user", "user-con"]


# --- Statements


def test_a_statement_holds_the_users_own_figures_and_no_others(report: Path) -> None:
    folder = report / "statements"
    assert sorted(file.name for file in folder.iterdir()) == [
        f"{name}.{kind}"
        for name in ("harbour-gas", "meter-works", "northern-energy")
        for kind in ("csv", "html")
    ]
    own = {HARBOUR: "harbour-gas", WORKS: "meter-works", NORTHERN: "northern-energy"}
    for user, name in own.items():
        for kind in ("html", "csv"):
            text = (folder / f"{name}.{kind}").read_text(encoding="utf-8")
            assert user in text
            for other in set(own) - {user}:
                assert other not in text
            # Nor what only the whole month or another User has: 10,978 and 3,120 of all, 10,080 of Northern.
            strange = {"10,978", "10978", "3,120", "3120"} | (
                {"10,080", "10080"} if user != NORTHERN else set()
            )
            assert not strange & set(re.findall(r"[0-9][0-9,]*[0-9]", text))


def test_removing_all_other_users_leaves_a_statement_as_it_is(logs: Path) -> None:
    from dataclasses import replace

    from tmm_core.operations.page import render_html, write_csv
    from tmm_core.operations.report.statement import statement_page, statement_table

    found = figures(logs, portfolio=PORTFOLIO)
    for user in found.users:
        alone = replace(
            found,
            users=(user,),
            counts=user.counts,
            events=tuple(
                replace(e, users=tuple(u for u in e.users if u.user == user.user)) for e in found.events
            ),
            allocation_changes=tuple(c for c in found.allocation_changes if c.user == user.user),
            srvs=user.srvs,
        )
        assert render_html(statement_page(alone, user)) == render_html(statement_page(found, user))
        assert write_csv(statement_table(alone, user)) == write_csv(statement_table(found, user))


# --- Pseudonyms


def test_an_anonymised_report_names_no_user_and_holds_no_key(logs: Path, tmp_path: Path) -> None:
    record, portfolio = anonymised(read(logs), PORTFOLIO)
    assert NORTHERN in repr(read(logs)) and NORTHERN not in repr((record, portfolio))
    assert "northern" not in repr((record, portfolio)).lower()
    found = figures_of(record, portfolio, anonymised=True)
    write_report(found, tmp_path / "report")
    made = contents(tmp_path / "report")
    assert not any(name.startswith("statements") for name in made)
    for name, data in made.items():
        text = data.decode()
        for user in (NORTHERN, HARBOUR, WORKS):
            assert not re.search(user.replace(" ", "[ -]"), text, re.IGNORECASE), name
            assert user.split()[0].lower() not in text.lower(), name
        assert "90-B3-D5" not in text
    assert {user.user for user in found.users} == {"User 1", "User 2", "User 3", "(unknown)"}
    by_volume = sorted((user.counts.offered, user.forecast) for user in found.users)
    assert by_volume == [(18, None), (160, None), (720, 800), (10_080, 9_000)]


def test_pseudonyms_are_the_same_each_time_and_follow_no_order_of_names_or_size(logs: Path) -> None:
    from dataclasses import replace

    import numpy as np

    record = read(logs)

    def order(record: object) -> list[int]:
        hidden, _ = anonymised(record)  # type: ignore[arg-type]
        return [int(hidden.user_days[place].sum()) for place in range(len(hidden.users))]

    assert order(record) == order(record)
    # Another month's counts give another order: with 30 of them not all can be alike (1 in 6^29).
    orders = {
        tuple(np.argsort(order(replace(record, user_busiest=record.user_busiest + number))))
        for number in range(30)
    }
    assert len(orders) > 1


# --- Files


def test_a_report_replaces_only_what_a_report_wrote(logs: Path, tmp_path: Path) -> None:
    found = figures(logs)
    out = tmp_path / "report"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    write_report(found, out)
    (out / "csv" / "old.csv").write_text("of an earlier report")
    write_report(found, out, statements=False)
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "csv" / "old.csv").exists()
    assert not (out / "statements").exists()
    (out / "csv" / "precious.xlsx").write_text("mine")
    with pytest.raises(TMMError, match=r"precious\.xlsx is not of a report"):
        write_report(found, out)
    assert (out / "csv" / "precious.xlsx").exists()
    assert not list(out.glob(".report-*"))


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_a_report_does_not_write_through_a_link(logs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "csv").symlink_to(elsewhere)
    with pytest.raises(TMMError, match="is a symbolic link"):
        write_report(figures(logs), tmp_path / "report")
    assert list(elsewhere.iterdir()) == []


def test_a_page_as_pdf_is_the_same_bytes_each_time(report: Path, tmp_path: Path) -> None:
    try:
        import weasyprint  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"WeasyPrint does not work here ({error}; extra: pdf)")
    text = (report / "statements/harbour-gas.html").read_text(encoding="utf-8")
    for name in ("one.pdf", "two.pdf"):
        write_pdf(text, tmp_path / name)
    data = (tmp_path / "one.pdf").read_bytes()
    assert data.startswith(b"%PDF-") and len(data) > 10_000
    assert (tmp_path / "two.pdf").read_bytes() == data


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_report_is_written_as_pdf_as_well(logs: Path, tmp_path: Path) -> None:
    pytest.importorskip("weasyprint", reason="WeasyPrint is not installed (extra: pdf)")
    write_report(figures(logs), tmp_path / "report", pdf=True)
    assert (tmp_path / "report/report.pdf").read_bytes().startswith(b"%PDF-")


def test_without_weasyprint_pdf_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(TMMError, match=r"pip install 'tmm-core\[pdf\]'"):
        write_pdf("<p>", tmp_path / "x.pdf")


# --- The command line


def test_the_command_says_the_answer_the_due_date_and_the_files(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "report")
    assert cli.main(["report", "2026-11", "-o", out, "-l", str(logs), "--holiday", "2026-12-02"]) == 0
    said = capsys.readouterr().out
    assert "The Mechanism was active twice in November 2026, for " in said
    assert "3,120 of 10,978 Service Requests (28.4 %), from 2 of 3 Users." in said
    assert "Due by Tuesday 15 December 2026." in said
    assert cli.main(["report", "2026-11", "-l", str(logs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["throttled"] == 3120


def test_the_command_reads_the_log_that_the_configuration_names(
    logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tmp_path / "tmm.toml"
    toml.write_text(f"[files]\nevent_log = {json.dumps(str(logs / 'alpha.db'))}\n")
    for option in ("-c", "-l"):
        assert cli.main(["report", "2026-11", option, str(toml), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["hosts"] == ["alpha"]


@pytest.mark.parametrize(
    ("arguments", "status", "fault"),
    [
        (["2026-13"], 1, "month '2026-13', expected a form like 2026-11"),
        (["2026-11", "-c", "none.toml"], 1, "none.toml: there is no such file, expected a configuration"),
        (["2026-11", "-l", "none.db"], 1, "none.db: there is no such event log"),
        (["2026-11", "--holiday", "soon"], 2, "'soon' is not a date like 2027-05-10"),
        ([], 2, "required: MONTH"),
    ],
)
def test_a_wrong_command_says_what_was_expected(
    arguments: list[str], status: int, fault: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", *arguments]) == status
    assert fault in capsys.readouterr().err


def test_a_damaged_log_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    november(tmp_path)
    file = tmp_path / "alpha-2026-11.db"
    data = bytearray(file.read_bytes())
    for page in range(3, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    file.write_bytes(data)
    assert cli.main(["report", "2026-11", "-l", str(file), "--json"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tmm: ") and said.err.count("\n") == 1
