"""`tmm replay`: a log of the demonstration gives what the demonstration gave; nothing is lost on the way."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tmm_core.errors import TMMError
from tmm_core.mechanism import Decision, Mechanism
from tmm_core.operations.cli import main
from tmm_core.operations.replay import Replay, Requests, run_replay, time_at
from tmm_core.operations.simulate import day_of, run_demo, traffic_of
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.traffic.request_log import RequestLog
from tmm_core.policy.config import Config

START = 1796083200  # 2026-12-01 00:00:00 UTC
HEADER = "time,user_id,srv"
CONFIG = Config(
    150, 100, allocations={"Alpha": 60.0, "Beta": 20.0}, priority=["7.4"], unknown_allocation=10.0, hold_s=2,
    user_ids={"90-B3-D5-1F-30-01-00-00": "Alpha"},
)  # fmt: skip


def replay(text: str | bytes, folder: Path, config: Config = CONFIG, **options: Any) -> Replay:
    path = folder / "requests.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with RequestLog(path) as log:
        return run_replay(Requests(log), config, folder / "out", keep=(path,), **options)


def demo_log(day: Scenario, time_of: Callable[[int, int], str]) -> list[str]:
    """Write the demonstration's requests as a gateway would log them."""
    with Mechanism(day.config, start=0) as mechanism:
        users, srvs = mechanism.snapshot().users, mechanism.snapshot().srvs
        users[0] = "90-B3-D5-1F-30-FF-FF-FF"
        return [
            f"{time_of(each.second, step * day.step_ms)},{users[user]},{srvs[srv]}"
            for each in traffic_of(day, mechanism)
            for user, srv, step in zip(
                each.users.tolist(), each.srvs.tolist(), each.steps.tolist(), strict=True
            )
        ]


def iso(second: int, ms: int) -> str:
    return f"{datetime.fromtimestamp(START + second, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


FORMATS: dict[str, Callable[[int, int], str]] = {
    "iso": iso,
    "seconds": lambda second, ms: f"{START + second}.{ms:03d}",
    "milliseconds": lambda second, ms: f"{START + second}{ms:03d}",
}


@pytest.mark.parametrize("written", list(FORMATS))
def test_a_log_of_the_demonstration_gives_what_the_demonstration_gave(written: str, tmp_path: Path) -> None:
    demo = run_demo(tmp_path / "demo", requests=100_000)
    log = "\n".join([HEADER, *demo_log(demo.day, FORMATS[written])])
    found = replay(gzip.compress(log.encode(), 1), tmp_path, demo.day.config)
    outcome = found.outcome
    assert outcome.of(Decision.THROTTLED) > 1000  # else this proves little
    assert (outcome.counts == demo.outcome.counts).all()
    assert (outcome.offered, outcome.admitted) == (demo.outcome.offered, demo.outcome.admitted)
    assert outcome.events == demo.outcome.events
    assert outcome.unknown_srv == demo.outcome.unknown_srv
    assert outcome.requests + 1 == found.notes.lines
    assert (tmp_path / "out" / "users.csv").read_bytes() == (tmp_path / "demo" / "users.csv").read_bytes()
    with (tmp_path / "out" / "replay.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["time"] for row in rows[:2]] == ["2026-12-01T00:00:00Z", "2026-12-01T00:00:01Z"]
    ElementTree.parse(tmp_path / "out" / "replay.svg")


def test_a_log_a_little_out_of_order_gives_the_same(tmp_path: Path, seed: int) -> None:
    day = day_of(3, 30)
    lines = demo_log(day, iso)
    # Requests of one step are decided in the order of the file: shuffle whole steps, each up to 3 s late.
    chance = np.random.default_rng(seed)
    steps = {line[:23]: chance.uniform(0, 3) for line in lines}
    when = {text: (datetime.fromisoformat(text + "Z").timestamp() + delay) for text, delay in steps.items()}
    shuffled = sorted(lines, key=lambda line: when[line[:23]])
    assert shuffled != lines
    straight = replay("\n".join([HEADER, *lines]), tmp_path, day.config)
    mixed = replay("\n".join([HEADER, *shuffled]), tmp_path, day.config)
    assert mixed.notes.out_of_order > 1000 and mixed.notes.late == 0
    assert mixed.notes.furthest_behind_s <= 3
    assert (mixed.outcome.counts == straight.outcome.counts).all()
    assert mixed.outcome.events == straight.outcome.events


def burst(second: int, user: str, srv: str, n: int) -> list[str]:
    """Requests of one instant, a tenth into the second: a log without fractions would be spread."""
    return [f"{START + second}.1,{user},{srv}"] * n


def test_what_is_found_is_worked_by_hand(tmp_path: Path) -> None:
    lines = [*burst(0, "Beta", "4.1.1", 200), *burst(1, "90-b3-d5-1f-30-01-00-00", "7.4", 5)]
    found = replay("\n".join([HEADER, *lines, "rubbish"]), tmp_path)
    outcome = found.outcome
    # Beta: 20 and the one at the bucket's edge within; 5 more until the backlog passes 0.25 s of 100 a second.
    assert outcome.counts[2].tolist() == [174, 5, 21, 0]
    assert outcome.counts[1].tolist() == [0, 0, 0, 5]  # an EUI-64 in lower case is the same User
    assert [event.began_s for event in outcome.events] == [0.1]
    assert found.start == START
    assert (found.notes.bad, found.notes.first_bad[0].line) == (1, 207)


def test_a_configuration_that_only_observes_shows_what_enforce_would_throttle(tmp_path: Path) -> None:
    log = "\n".join([HEADER, *burst(0, "Beta", "4.1.1", 200)])
    found = replay(log, tmp_path, replace(CONFIG, mode="observe"))
    assert found.outcome.of(Decision.THROTTLED) == 174


def test_times_without_fractions_are_no_burst(tmp_path: Path) -> None:
    # 90 a second, evenly, never reach 100 a second; 90 at one instant would be 0.9 s of it.
    lines = [f"{START + second},Alpha,4.1.1" for second in range(20) for _ in range(90)]
    found = replay("\n".join([HEADER, *lines]), tmp_path)
    assert found.outcome.activations == 0
    assert found.notes.whole_seconds == 20


def test_one_request_is_a_log(tmp_path: Path) -> None:
    found = replay(f"{HEADER}\n{START},Alpha,4.1.1\n", tmp_path)
    assert (found.outcome.requests, found.outcome.seconds) == (1, 1)
    ElementTree.parse(tmp_path / "out" / "replay.svg")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the file is empty, expected a header"),
        (HEADER, "no Service Request after the header"),
        (f"{HEADER}\n\n\n", "no Service Request after the header"),
        (
            f"{HEADER}\nx,Alpha,4.1.1\ny\n",
            "none of 2 lines after the header can be read\n.*line 2, column 1: time 'x' must be",
        ),
    ],
)
def test_a_log_without_a_request_is_an_error_and_leaves_no_file(
    text: str, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(TMMError, match=fault):
        replay(text, tmp_path)
    assert not list(tmp_path.glob("out/*"))


def test_a_log_that_ends_early_leaves_no_file_that_poses_as_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = [
        f"{START + number // 50}.{part:03d},Alpha,4.1.1"
        for number, part in enumerate(rng.integers(0, 1000, 60_000))
    ]
    data = gzip.compress("\n".join([HEADER, *lines]).encode())
    with pytest.raises(TMMError, match="damaged or ends early"):
        replay(data[: len(data) * 9 // 10], tmp_path)
    assert not list(tmp_path.glob("out/*"))


def test_a_second_as_text() -> None:
    assert time_at(START) == "2026-12-01T00:00:00Z"
    assert time_at(0) == "1970-01-01T00:00:00Z"


# ---- The command


@pytest.fixture
def tmm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run ``tmm replay`` in a folder, with `CONFIG` as files."""
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "tmm.toml").write_text(
        "[capacity]\nsystem_capacity = 150\noperating_threshold = 100\n"
        "[mechanism]\nhold_s = 2\n"
        '[files]\nallocations = "allocations.csv"\npriority_list = "priority-list.toml"\n'
        "[unknown_users]\nallocation = 10\n",
        encoding="utf-8",
    )
    (tmp_path / "allocations.csv").write_text(
        "user,category,user_ids,allocation\n"
        "Alpha,large-supplier,90-B3-D5-1F-30-01-00-00,60\n"
        "Beta,small-supplier,,20\n",
        encoding="utf-8",
    )
    (tmp_path / "priority-list.toml").write_text(
        'version = "1"\neffective_from = 2026-01-01\napproved_by = "nobody"\nsource = "test"\nsrvs = ["7.4"]\n',
        encoding="utf-8",
    )

    def run(text: str | None, *arguments: str) -> int:
        log = tmp_path / "requests.csv"
        if text is not None:
            log.write_text(text, encoding="utf-8", newline="")
        source = [str(log)] if text is not None else []
        files = ["-c", str(tmp_path / "tmm.toml"), "--out", str(tmp_path / "out")]
        return main(["replay", *source, *files, *arguments])

    return run


LOG = "\n".join([HEADER, *burst(0, "Beta", "4.1.1", 200), *burst(1, "nobody", "9.9", 3)]) + "\n"


def test_the_summary_says_what_happened(tmm: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert tmm(LOG) == 0
    said, errors = capsys.readouterr()
    assert "203 Service Requests from 2026-12-01T00:00:00Z to 2026-12-01T00:00:01Z" in " ".join(said.split())
    assert "times are seconds since 1970" in " ".join(said.split())
    assert "Unknown identifiers: nobody" in said and "Unknown SRVs: 9.9" in said
    assert "174" in said and "87.0 %" in said
    # Paths are as long as they are.
    assert max(len(line) for line in said.splitlines() if "/" not in line) <= 100
    assert errors == ""


def test_bad_lines_are_shown_with_their_number_and_told_on_stderr(
    tmm: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    log = LOG + "x\n" * 7 + f"{START - 100},Beta,4.1.1\n"
    assert tmm(log) == 0
    said, errors = capsys.readouterr()
    assert "Lines that could not be read: 7 of 212" in said
    assert "line 205, column 2: number of fields 1, expected 3 as in the header" in said
    assert "and 2 more" in said
    assert "Lines too far out of order, left out: 1 of 212" in said and "line 212: 101.1" in said
    assert "7 bad, 1 late: left out of 212 lines" in errors
    assert tmm(log, "--strict") == 1
    assert tmm(LOG, "--strict") == 0


def test_json_holds_the_figures_and_the_notes(
    tmm: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tmm(LOG + "x\n", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["throttled"] == 174
    assert figures["log"]["bad"] == 1
    assert figures["log"]["first_bad"] == [
        {"line": 205, "fault": "number of fields 1, expected 3 as in the header", "column": 2}
    ]
    assert figures["first_second"] == "2026-12-01T00:00:00Z"


def test_standard_input_is_a_log(
    tmm: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BufferedReader(io.BytesIO(LOG.encode()))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=buffer))
    assert tmm(None, "-", "--json") == 0
    assert json.loads(capsys.readouterr().out)["offered"] == 203


def test_a_log_of_other_identifiers_is_pointed_out(
    tmm: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tmm("\n".join([HEADER, *burst(0, "nobody", "4.1.1", 3)])) == 0
    assert "No User of the configuration is in the log" in capsys.readouterr().out


def test_names_in_the_log_do_no_harm_on_the_screen_or_in_the_files(
    tmm: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{START}.1,{name},{name}" for name in ("=cmd()", "\x1b[2J", "<script>", "\u202e")]
    assert tmm("\n".join([HEADER, *rows, "\x1b[31mbad,x,y"])) == 0
    said, errors = capsys.readouterr()
    assert not {"\x1b", "\u202e"} & set(said + errors)
    for path in (tmp_path / "out").iterdir():
        text = path.read_text(encoding="utf-8")
        assert "<script" not in text and "\x1b" not in text and "=cmd" not in text


def test_a_log_is_not_overwritten_by_its_own_replay(
    tmm: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "replay.csv").write_text(LOG, encoding="utf-8")
    assert tmm(None, str(tmp_path / "replay.csv"), "--out", str(tmp_path)) == 1
    assert "would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "replay.csv").read_text(encoding="utf-8") == LOG


@pytest.mark.parametrize("arguments", [["--window", "-1"], ["--window", "nan"], ["--window", "x"], []])
def test_a_wrong_command_is_refused(
    arguments: list[str], tmm: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tmm(None, *arguments) == 2
    assert "usage:" in capsys.readouterr().err


def test_a_wrong_configuration_is_told_before_the_log_is_read(
    tmm: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tmp_path / "tmm.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace("150", "50"), encoding="utf-8")
    assert tmm(LOG) == 1
    assert "operating_threshold 100 is above system_capacity 50" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_log_that_is_not_there_is_an_error_of_one_line(
    tmm: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tmm(None, "/nowhere/requests.csv") == 1
    assert capsys.readouterr().err == "tmm: /nowhere/requests.csv: No such file or directory\n"
