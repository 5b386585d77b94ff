"""What goes to a terminal: numbers people read, no colour that is not welcome, no control characters."""

from __future__ import annotations

import io
import sys

import pytest

from tmm_core.operations import terminal


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1,234,567"), (0.5, "0.5"), (1976.25, "1,976.25"), (1 / 3, "0.333"), (10.0, "10")],
)
def test_a_number_has_thousands_separators(value: float, text: str) -> None:
    assert terminal.number(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "-"),
        (0, 10, "0.0 %"),
        (1, 8, "12.5 %"),
        (1, 100_000, "<0.1 %"),
        (99_999, 100_000, ">99.9 %"),
        (8, 8, "100.0 %"),
        (5, 4, "125.0 %"),
    ],
)
def test_a_share_is_never_rounded_to_nothing_or_all(part: float, whole: float, text: str) -> None:
    assert terminal.percent(part, whole) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.04, "<0.1 s"),
        (12.54, "12.5 s"),
        (119.94, "119.9 s"),
        (119.96, "2 min"),
        (150, "2 min 30 s"),
        (3599.6, "60 min"),
        (7199.6, "2 h"),
        (7500, "2 h 05 min"),
        (48 * 3600, "2 days"),
        (130_000 * 24, "36.1 days"),
    ],
)
def test_a_duration_carries_what_it_rounds(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_names_are_shown_without_what_moves_the_cursor() -> None:
    shown = terminal.plain("a\x1b[2J\rb\u202ec\nd")
    assert shown == "a\\u001b[2J\\u000db\\u202ec\\u000ad"
    assert terminal.plain("x" * 100, 10) == "xxxxxxx..."


@pytest.mark.parametrize(
    ("environment", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_is_only_where_it_is_welcome(
    environment: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b" in terminal.Paint.of(Screen()).red("x")) is colour
    assert terminal.Paint.of(io.StringIO()).red("x") == "x"


def test_a_table_is_aligned() -> None:
    lines = terminal.table(["name", "n"], [["a", "1,000"], ["long name", "5"]], terminal.Paint())
    assert lines == ["  name           n", "  a          1,000", "  long name      5"]


def test_a_paragraph_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    lines = terminal.paragraph("word " * 40)
    assert all(len(line) <= 50 and line.startswith("  ") for line in lines)
    assert " ".join(lines).split() == ["word"] * 40


def test_a_figure_is_not_parted_from_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for width in range(12):
        lines = terminal.paragraph("x" * (20 + width) + " lasted 2 min 30 s, or 12.5 % of it, not less")
        assert not any(line.endswith((" 2", " 30", " 12.5")) for line in lines), lines


def test_a_table_moves_together_where_the_terminal_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    head, rows = ["name", "n", "m"], [["a" * 30, "1" * 20, "2" * 20]]
    monkeypatch.setenv("COLUMNS", "76")
    assert terminal.table_width(head, rows) == 76
    assert [len(line) for line in terminal.table(head, rows, terminal.Paint())][1] == 76
    monkeypatch.setenv("COLUMNS", "75")
    assert [len(line) for line in terminal.table(head, rows, terminal.Paint())][1] == 74


def test_progress_without_a_terminal_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress("Working", 10) as progress:
        progress(5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("with_rich", [True, False])
@pytest.mark.parametrize("total", [10.0, None])
def test_progress_is_shown_on_a_terminal_and_gone_afterwards(
    with_rich: bool, total: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if with_rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with terminal.progress("Working", total) as progress:
        progress(5)
    assert "Working" in screen.getvalue()
    # The last thing said wipes the line.
    assert not screen.getvalue().rsplit("\r", 1)[-1].strip(" \n").replace("\x1b[2K", "").strip("\x1b[?25h1AK")


def test_json_is_ascii_and_has_no_infinities(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"a": "é\x1b"})
    assert capsys.readouterr().out == '{\n  "a": "\\u00e9\\u001b"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        terminal.print_json({"a": float("inf")})
