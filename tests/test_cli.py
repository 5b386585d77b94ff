"""The command line: the registry, exit statuses, and the commands ``check`` and ``explain``."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from config_folder import CSV, HEAD, TOML, write

from tmm_core import TMMError
from tmm_core.operations import cli
from tmm_core.operations.cli import COMMANDS, main

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "config" / "tmm.toml"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m tmm_core`` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "tmm_core", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=50,
    )


# --- The registry


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(f"  {command.name}" in shown.err for command in COMMANDS)
    assert "tmm check tmm.toml" in shown.err


def test_help_lists_every_command_and_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{command.name} {command.help}" in shown for command in COMMANDS)


def test_names_of_commands_are_not_there_twice() -> None:
    assert len({command.name for command in COMMANDS}) == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=[command.name for command in COMMANDS])
def test_every_command_has_help_with_examples(
    command: cli.Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([command.name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: tmm {command.name}")
    assert f"  tmm {command.name}" in shown, "an example"
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize("command", COMMANDS, ids=[command.name for command in COMMANDS])
def test_a_command_refuses_an_option_it_does_not_know(
    command: cli.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command.name, "--no-such-option"]) == 2
    assert "usage: tmm" in capsys.readouterr().err


def test_only_the_command_that_is_asked_for_is_read() -> None:
    code = (
        "import sys; from tmm_core.operations.cli import main; main(['check', '--help']); "
        "print(sorted(name for name in sys.modules if name.endswith('_cli')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.stderr.strip() == "['tmm_core.operations.commands.config_cli']"


def test_an_unknown_command_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explode"]) == 2
    assert "invalid choice: 'explode'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("reprt", "report"),
        ("check tmm.toml --josn", "--json"),
        ("priority-list shw", "show"),
        ("simulate --sed=2", "--seed"),
        ("--versoin", "--version"),
    ],
)
def test_what_was_probably_meant_is_said(
    arguments: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    assert capsys.readouterr().err.endswith(f" (did you mean {meant!r}?)\n")


def test_an_option_that_is_like_none_gets_no_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "tmm.toml", "--qqqqqq"]) == 2
    assert capsys.readouterr().err.endswith("tmm check: error: unrecognized arguments: --qqqqqq\n")


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"tmm-core \d+\.\d+\.\d+\n", capsys.readouterr().out)


# --- Exit statuses


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A command ``try`` that does what the test puts into ``does``."""
    holder = SimpleNamespace(does=lambda: 0)
    module = ModuleType("try_cli")
    module.add_try = lambda parser: parser.set_defaults(run=lambda args: holder.does())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tmm_core.operations.commands.try_cli", module)
    monkeypatch.setattr(cli, "COMMANDS", (cli.Command("try", "try_cli", "try it"),))
    return holder


def _raises(error: BaseException) -> object:
    def does() -> int:
        raise error

    return does


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (TMMError("one\ntwo"), 1, "tmm: one\ntmm: two\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x.toml"),
            1,
            "tmm: x.toml: No such file or directory\n",
        ),
        (OSError("the disk is full"), 1, "tmm: the disk is full\n"),
        (KeyboardInterrupt(), 130, "tmm: stopped\n"),
    ],
)
def test_an_error_is_told_in_lines_and_not_in_a_traceback(
    command: SimpleNamespace, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, told: str
) -> None:
    command.does = _raises(error)
    assert main(["try"]) == status
    assert capsys.readouterr().err == told


def test_the_status_is_the_commands_own(command: SimpleNamespace) -> None:
    for status in (0, 1):
        command.does = lambda status=status: status
        assert main(["try"]) == status


def test_a_defect_of_ours_is_not_hidden(command: SimpleNamespace) -> None:
    command.does = _raises(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["try"])


@pytest.mark.skipif(sys.platform == "win32", reason="no such pipe there")
def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tmm_core", "check", str(EXAMPLE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(50) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device there")
@pytest.mark.parametrize("command", [["check"], ["explain", "a", "4.1.1", "-c"]])
def test_an_output_that_is_full_is_one_line(command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tmm_core", *command, str(EXAMPLE)],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=50,
        )
    assert done.returncode == 1
    assert re.fullmatch(rb"tmm: (standard output: )?No space left on device\n", done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device there")
@pytest.mark.parametrize("command", [["demo", "--help"], ["--help"], ["--version"]], ids=" ".join)
def test_help_that_cannot_be_written_is_an_error(command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tmm_core", *command], stdout=full, stderr=subprocess.PIPE, timeout=50
        )
    assert done.returncode == 1
    assert re.fullmatch(rb"tmm: (standard output: )?No space left on device\n", done.stderr)


@pytest.mark.parametrize("way", ["-m tmm_core", "-c 'from tmm_core.__main__ import main; exit(main())'"])
def test_ctrl_c_while_numpy_loads_ends_it_quietly(way: str, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, *shlex.split(way), "explain", "a", "4.1.1", "-c", str(EXAMPLE)],
        capture_output=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"tmm: stopped\n")


def test_the_command_is_the_one_that_is_ended_quietly() -> None:
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["scripts"] == {"tmm": "tmm_core.__main__:main"}


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes them")
@pytest.mark.parametrize(
    ("command", "status"),
    [("check $0 >&-", 0), ("check $0 2>&-", 0), ("replay - -c $0 <&-", 1), ("check no <&- >&- 2>&-", 1)],
)
def test_a_stream_that_is_closed_is_no_traceback(command: str, status: int) -> None:
    shell = f'exec "{sys.executable}" -m tmm_core {command}'
    done = subprocess.run(["sh", "-c", shell, str(EXAMPLE)], capture_output=True, timeout=50)
    assert done.returncode == status
    assert b"Traceback" not in done.stderr


def test_a_name_the_terminal_cannot_show_does_not_end_it(tmp_path: Path) -> None:
    path = write(tmp_path, csv=CSV.replace("Northern Energy", "Énergie du Nord"))
    done = subprocess.run(
        [sys.executable, "-m", "tmm_core", "check", str(path)],
        capture_output=True,
        timeout=50,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert b"\\xc9nergie du Nord" in done.stdout


# --- tmm check


def test_check_shows_what_is_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(EXAMPLE), "--on", "2026-11-25"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert re.search(r"In force on 2026-11-25: version [0-9a-f]{12}, mode enforce", shown.out)
    for line in (
        "  system capacity      25,000",
        "  operating threshold  20,000  80.0 % of the system capacity",
        "  release threshold    19,000  95.0 % of the operating threshold",
        "  activation_s       0.25  seconds of backlog (5,000 units) begin it",
        f"  allocations    {EXAMPLE.parent / 'allocations' / '2026-11-01.csv'}, in force from 2026-11-01",
        f"                 {EXAMPLE.parent / 'allocations' / '2026-12-01.csv'}, from 2026-12-01",
        "  7.4     Read Supply Status",
        "  4.8.1      4  Read Active Import Profile Data",
        "No warnings.",
    ):
        assert line in shown.out, line
    # 25 units per second with a burst of 1 s: 25 and the one at rest at once, floor(1.1 * 25) + 1 in 100 ms
    assert re.search(r"  Harbour Analytics +other +1 +25 +26 +28\n", shown.out)
    assert re.search(r"  all +15,095.5\n  75.5 % of the operating threshold\n", shown.out)


def test_check_looks_at_the_day_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(EXAMPLE), "--on", "2026-12-31", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["in_force"]["files"]["allocations_effective_from"] == "2026-12-01"
    assert [each["in_force"] for each in shown["allocation_files"]] == [False, True]
    assert shown["in_force"]["users"][0]["allocation"] == 6550
    assert shown["warnings"] == []


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "arguments", [("check", "--all-users"), ("explain", "A", "7.4", "-c"), ("explain", "B", "4.1.1", "-c")]
)
def test_what_is_shown_fits_the_terminal(
    columns: int,
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(EXAMPLE.parent)
    assert main([*arguments, "tmm.toml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > columns] == []


def test_check_tells_all_mistakes_and_shows_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, toml=HEAD + "[mechanism]\nhold = 1\ntick_s = nan\n")
    done = run("check", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"tmm: {path}:5:1: unknown key 'hold' in [mechanism] (did you mean 'hold_s'?)\n"
        f"tmm: {path}:6:10: tick_s nan must be a finite number from 0.001 to 1\n"
    )


def test_check_warns_of_a_file_that_is_wrong_and_not_in_force_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, toml=TOML.replace("allocations.csv", "monthly"), csv=None)
    (tmp_path / "monthly").mkdir()
    (tmp_path / "monthly" / "2026-11-01.csv").write_text(CSV)
    (tmp_path / "monthly" / "2026-12-01.csv").write_text(CSV.replace(",200", ",-200").replace("20.5", "x"))
    assert main(["check", str(path), "--on", "2026-11-25", "--json"]) == 0
    assert (
        "From 2026-12-01 on this configuration would be refused (2 mistakes in all): "
        f"{tmp_path}/monthly/2026-12-01.csv:2:80: allocation -200 must be 0 or more."
    ) in json.loads(capsys.readouterr().out)["warnings"]
    assert main(["check", str(path), "--on", "2026-12-01"]) == 1


def test_check_shows_few_users_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"User {number},other,,1\n" for number in range(100))
    path = write(tmp_path, csv=CSV + rows)
    assert main(["check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("  User ") == 38
    # 102 Users, of whom 40 are listed
    assert re.search(r"  62 other Users \(--all-users\) +62\n", shown)
    assert main(["check", str(path), "--all-users"]) == 0
    assert capsys.readouterr().out.count("  User ") == 100


def test_check_hides_the_password_of_the_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, toml=TOML + '[cluster]\nurl = "redis://tmm:hunter2@store:6379/0"\n')
    for arguments in (["check", str(path)], ["check", str(path), "--json"]):
        assert main(arguments) == 0
        shown = capsys.readouterr()
        assert "hunter2" not in shown.out + shown.err
        assert "redis://tmm:***@store:6379/0" in shown.out


@pytest.mark.parametrize("text", ["2026-13-01", "tomorrow", "20261201", "2026-1-1", ""])
def test_a_day_that_is_none_is_a_wrong_command(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(EXAMPLE), "--on", text]) == 2
    assert f"{text!r} is not a day, expected a form like 2026-12-01" in capsys.readouterr().err


def test_check_without_a_file_is_a_wrong_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 2
    assert main(["check", "none.toml"]) == 1
    assert capsys.readouterr().err.endswith("tmm: none.toml: cannot be read: No such file or directory\n")


def test_check_starts_nothing(tmp_path: Path) -> None:
    """Neither a block nor an event log: a gateway that runs is not touched."""
    path = write(tmp_path, toml=TOML + 'event_log = "events.db"\n[state]\nshared = "./block"\n')
    before = sorted(each.name for each in tmp_path.iterdir())
    assert run("check", str(path)).returncode == 0
    assert run("explain", "Northern Energy", "7.4", "-c", str(path)).returncode == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == before


# --- tmm explain

POOL = "is not in the allocations: all unknown Users share one pool"


def test_explain_says_what_would_be_decided_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    """Lesson 16: would this be limited? Without counting it."""
    config = ["-c", str(EXAMPLE), "--on", "2026-11-25"]
    assert main(["explain", "90-b3-d5-1f-30-08-00-00", "4.1.1", *config]) == 0
    shown = capsys.readouterr().out
    assert " ".join(shown.split("\n\n")[0].split()) == (
        "4.1.1 from 90-b3-d5-1f-30-08-00-00 would be admitted (WITHIN_ALLOCATION): Harbour Analytics is inside its "
        "allocation of 25 units per second."
    )
    assert "  SRV         4.1.1, Read Instantaneous Import Registers\n" in shown
    assert "              not on the priority list, cost 1\n" in shown
    assert main(["explain", "Harbour Analytics", "7.4", *config, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["decision"], answer["user"], answer["priority"]) == ("PRIORITY", "Harbour Analytics", True)
    assert (answer["allocation"], answer["burst_at_once"], answer["cost"]) == (25.0, 26, 1)


def test_explain_tells_what_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "Norther Energy", "4.8", "-c", str(EXAMPLE), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["user"], answer["srv"]) == ("(unknown)", "(unknown)")
    assert answer["notes"] == [
        f"'Norther Energy' {POOL} (did you mean 'Northern Energy'?)",
        "'4.8' is a Service Reference: ask for one of its variants: unknown SRVs are ordinary requests",
    ]


def test_explain_writes_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "\x1b[2J", "\x07", "-c", str(EXAMPLE)]) == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", capsys.readouterr().out)
