"""`tmm events`: what happened, once each, in order, and harmless to whoever reads it."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from tmm_core.operations.cli import main
from tmm_core.operations.commands import arguments, log_cli
from tmm_core.operations.event_log.event_records import Notification
from tmm_core.operations.event_log.files import LogSet
from tmm_core.operations.event_log.happenings import KINDS, happenings

from .conftest import MakeWorld
from .world import NOON, NORTH, SOUTH, World, ms


def all_kinds(world: World) -> None:
    watcher = world.watch()
    watcher.step()
    watcher.fault("fail-open", "no decision", count=3)
    watcher.put(Notification("block-1/1", NORTH, "began", "file", "sent", 1, world.at_ms(), ""))
    world.overload(5, watcher)
    world.traffic(20, {(SOUTH, "7.4"): 50.0}, watcher)
    watcher._observer.lose("counts", 2, world.at_ms(), "a test")  # type: ignore[union-attr]
    watcher.flush()
    watcher.close()


def test_every_kind_is_listed_in_order_of_time(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    all_kinds(world)
    assert main(["events", str(world.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == sorted(lines, key=lambda line: line[:24])
    assert {line.split("  ")[2].strip() for line in lines} == set(KINDS)
    began = next(line for line in lines if "  began" in line)
    assert "event 1: offered" in began and f"over allocation: {NORTH} (" in began and "of 30)" in began
    ended = next(line for line in lines if "  ended" in line)
    throttled = int(world.mechanism.snapshot(world.now).counts[:, :, 0].sum())
    assert f"{throttled} Service Requests of 1 Users throttled" in ended.replace(",", "")


@pytest.mark.parametrize("form", ["--json", "--cloudevents"])
def test_programs_get_one_object_a_line(world: World, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    all_kinds(world)
    assert main(["events", str(world.path), form]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len({each["id"] for each in found}) == len(found)
    if form == "--cloudevents":
        for each in found:
            # CloudEvents 1.0, 3.1: the required attributes, and an RFC 3339 time.
            assert (
                each["specversion"] == "1.0"
                and each["type"].startswith("tmm.")
                and each["source"].startswith("/tmm/")
            )
            assert datetime.fromisoformat(each["time"]).tzinfo is not None
            assert each["datacontenttype"] == "application/json"
        assert {each["type"] for each in found} == {f"tmm.{kind}" for kind in KINDS}


def test_time_and_kind_choose(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    all_kinds(world)
    assert main(["events", str(world.path), "--kind", "began", "--kind", "fault"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert (
        main(["events", str(world.path), "--since", "2026-11-25T12:00:01", "--until", "2026-11-25T12:00:02"])
        == 0
    )
    assert all("T12:00:01" in line for line in capsys.readouterr().out.splitlines())
    assert main(["events", str(world.path), "--since", "2027-01-01"]) == 0
    out = capsys.readouterr()
    assert out.out == "" and "nothing happened" in out.err
    assert main(["events", str(world.path), "--since", "yesterday"]) == 2
    assert "is no time" in capsys.readouterr().err


def test_an_event_over_a_months_end_is_listed_once(make_world: MakeWorld) -> None:
    world = make_world(at_ms=ms("2026-12-01T00:00:00") - 3000)
    watcher = world.watch()
    watcher.step()
    world.overload(6, watcher)
    world.quiet(20, watcher)
    watcher.flush()
    with LogSet([world.path]) as logs:
        assert len(logs.files) == 2
        found = happenings(logs)
    kinds = [each.kind for each in found if each.kind in ("began", "ended", "configuration")]
    assert kinds == ["configuration", "began", "ended"]
    over = next(each for each in found if each.kind == "began").data["over_allocation"]
    assert [each["user"] for each in over] == [NORTH]


def test_following_shows_each_thing_once(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = world.watch()
    turns = iter(
        [
            lambda: world.overload(3, watcher),
            lambda: world.overload(3, watcher),
            lambda: (world.quiet(20, watcher), watcher.flush()),
        ]
    )

    def sleep(seconds: float) -> None:
        turn = next(turns, None)
        if turn is None:
            raise KeyboardInterrupt
        turn()

    monkeypatch.setattr(log_cli.time, "sleep", sleep)
    monkeypatch.setattr(log_cli.time, "time", lambda: world.at_ms() / 1000)
    assert main(["events", str(world.path), "--follow", "--json"]) == 130
    kinds = [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()]
    assert kinds.count("began") == 1 and kinds.count("ended") == 1 and kinds.count("configuration") == 1


def test_a_name_cannot_write_to_the_terminal(
    make_world: MakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names with control characters are refused by the configuration, but a log may come from anywhere."""
    evil = "\x1b[2J\u202eevil\nbegan"
    world = make_world()
    watcher = world.watch()
    watcher.step()
    watcher.fault("fail-open", evil, user=evil)
    watcher.step()
    watcher.flush()
    assert main(["events", str(world.path), "--kind", "fault"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1
    assert not {"\x1b", "\u202e"} & set(out)
    for form in ("--json", "--cloudevents"):
        assert main(["events", str(world.path), "--kind", "fault", form]) == 0
        out = capsys.readouterr().out
        assert out.isascii() and len(out.splitlines()) == 1
        assert json.loads(out)["data"]["user"] == evil


@pytest.mark.parametrize("command", ["events", "audit"])
def test_a_configuration_file_names_the_log_whatever_else_is_wrong_in_it(
    world: World, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    all_kinds(world)
    toml = world.path.with_name("tmm.toml")
    toml.write_text('[mechanism]\nhold_s = -1\n[files]\nallocations = "gone.csv"\nevent_log = "events.db"\n')
    assert arguments.logs_of([toml, world.path]) == [world.path, world.path]
    assert main([command, str(toml)]) == 0
    for text, fault in [
        ("[capacity]\n", "names no event log: [files] event_log"),
        ("[files]\nevent_log = 7\n", "tmm.toml:2:13: event_log 7 must be a text"),
        ("[files\n", "tmm.toml:1:7: is not TOML"),
    ]:
        toml.write_text(text)
        capsys.readouterr()
        assert main([command, str(toml)]) == 1
        assert fault in capsys.readouterr().err


def test_times_are_utc() -> None:
    assert arguments.moment("2026-11-25T12:00:00") == NOON
    assert arguments.moment("2026-11-25T13:00:00+01:00") == NOON
    assert arguments.moment("1h") < arguments.moment("59min")
