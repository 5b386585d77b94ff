"""`tmm status`, `tmm apply` and `tmm explain` over the block of running gateways."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tmm_core import Config, Mechanism
from tmm_core.operations.cli import main
from tmm_core.operations.commands.arguments import block_of
from tmm_core.operations.commands.look_cli import status_lines
from tmm_core.operations.terminal import Paint
from tmm_core.operations.watch import Watcher

from .larger import lets_go

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a shared block needs Linux or macOS")

TOML = """\
[capacity]
system_capacity = 25000
operating_threshold = 20000
[files]
allocations = "allocations.csv"
[state]
shared = "./block"
"""
CSV = "user,category,user_ids,allocation\n"


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    (tmp_path / "allocations.csv").write_text(
        CSV + "Northern Energy,large-supplier,90-B3-D5-1F-30-01-00-00,10\n", encoding="utf-8"
    )
    (tmp_path / "tmm.toml").write_text(TOML, encoding="utf-8")
    return tmp_path / "tmm.toml"


def status(toml: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["status", "-c", str(toml), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_status_without_gateways_says_so(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-c", str(toml)]) == 1
    assert "found no block: no gateway with this block has started" in capsys.readouterr().err


def test_gateways_are_seen_while_their_configuration_has_a_mistake(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Mechanism.open(toml) as gateway:
        toml.write_text(TOML.replace("20000", "30000"), encoding="utf-8")
        assert main(["check", str(toml)]) == 1
        assert status(toml, capsys)["version"] == gateway.config.version
        assert block_of(toml) == str(toml.parent / "block"), "what watch and serve look at"


@lets_go
def test_status_reads_load_state_users_and_workers(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Mechanism.open(toml) as one, Mechanism.open(toml) as two:
        user, srv = one.user("Northern Energy"), one.srv("4.1.1")
        start = one.engine.state()["tick_at"]
        # 100 a second for two seconds, at an allocation of 10: 90 above it.
        for number in range(200):
            (one, two)[number % 2].admit_at(user, srv, start + number * 10_000_000)
        found = status(toml, capsys)
        assert found["active"] is False
        assert found["operating_threshold"] == 20000
        assert found["version"] == one.config.version
        assert found["generation"] == 1
        assert found["workers"] == {"alive": [os.getpid()], "slabs_alive": 2, "slabs_dead": 0, "adopted": 0}
        counts = found["counts"]
        assert isinstance(counts, dict)
        assert sum(counts.values()) == 200
        over = found["users_over_allocation"]
        assert isinstance(over, list)
        assert [each["user"] for each in over] == ["Northern Energy"]
        assert 80 < over[0]["above"] < 95
        two.close()
        assert status(toml, capsys)["workers"] == {
            "alive": [os.getpid()], "slabs_alive": 1, "slabs_dead": 1, "adopted": 0,
        }  # fmt: skip
        assert main(["status", "-c", str(toml)]) == 0
        shown = capsys.readouterr().out
        assert "1 alive" in shown
        assert "Northern Energy" in shown
        assert "level unlimited" in shown


def test_status_and_explain_fit_a_terminal_of_80_columns(
    toml: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(toml.parent)
    with Mechanism.open("tmm.toml") as mechanism:
        user, srv = mechanism.user("Northern Energy"), mechanism.srv("4.1.1")
        start = mechanism.engine.state()["tick_at"]
        for number in range(60_000):
            mechanism.admit_at(user, srv, start + number * 20_000)
        for command in (["status"], ["explain", "Northern Energy", "4.1.1"]):
            assert main([*command, "-c", "tmm.toml"]) == 0
            shown = capsys.readouterr().out.splitlines()
            assert len(shown) > 7
            # The path of the block is shown whole: it is one word, and may be of any length.
            assert [line for line in shown if len(line) > 80 and str(toml.parent) not in line] == []


def test_looking_changes_nothing_and_may_not_decide(toml: Path) -> None:
    with Mechanism.open(toml) as gateway:
        assert gateway.block is not None
        path = Path(gateway.block.path)

        def written() -> bytes:
            with path.open("rb") as file:  # a page of header, and what is common to all Users
                return file.read(65_536)

        before = written()
        with Mechanism.look(str(toml.parent / "block")) as eye:
            eye.snapshot()
            eye.explain("Northern Energy", "4.1.1")
            for call in (
                lambda: eye.admit(0, 0),
                lambda: eye.tick(),
                lambda: eye.apply(Config(2, 1)),
            ):
                with pytest.raises(ValueError, match="may only be looked at"):
                    call()
        assert written() == before


def test_apply_is_seen_by_running_gateways(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Mechanism.open(toml) as gateway:
        (toml.parent / "allocations.csv").write_text(
            CSV + "Northern Energy,large-supplier,90-B3-D5-1F-30-01-00-00,30\nHydra Ltd,other,,5\n",
            encoding="utf-8",
        )
        assert main(["apply", str(toml), "--dry-run"]) == 0
        assert gateway.config.allocations == {"Northern Energy": 10}
        assert main(["apply", str(toml)]) == 0
        out = capsys.readouterr().out
        assert "Northern Energy: 10 -> 30 units per second" in out
        assert "Hydra Ltd: new, 5 units per second" in out
        assert gateway.config.allocations == {"Northern Energy": 30, "Hydra Ltd": 5}
        assert gateway.user("Hydra Ltd") == 2
        assert main(["apply", str(toml)]) == 0
        assert "in force already (generation 2)" in capsys.readouterr().out
        (toml.parent / "allocations.csv").write_text(
            CSV + "Northern Energy,large-supplier,,-3\n", encoding="utf-8"
        )
        assert main(["apply", str(toml)]) == 1
        assert gateway.snapshot().generation == 2, "a file with a mistake changes nothing"


@pytest.mark.parametrize(("users", "shown"), [(51, 51), (52, 50), (400, 50)])
def test_apply_of_many_users_is_a_screenful_and_json_names_them_all(
    toml: Path, capsys: pytest.CaptureFixture[str], users: int, shown: int
) -> None:
    rows = "".join(f"User {number},other,,0.01\n" for number in range(users))
    with Mechanism.open(toml):
        table = "Northern Energy,large-supplier,90-B3-D5-1F-30-01-00-00,10\n"
        (toml.parent / "allocations.csv").write_text(CSV + table + rows, encoding="utf-8")
        assert main(["apply", str(toml), "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert out.count(": new, 0.01 units per second") == shown
        more = f"... and {users - shown:,} more Users that are new (--json names them all)"
        assert (more in out) is (users > shown)
        assert main(["apply", str(toml), "--dry-run", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["users_added"]) == users


def test_what_apply_refuses_is_a_fault_in_the_gateways_event_log_and_the_last_good_one_stays(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml.write_text(TOML.replace("[state]", 'event_log = "events.db"\n[state]'), encoding="utf-8")
    allocations, log = toml.parent / "allocations.csv", toml.parent / "events.db"
    good = allocations.read_text(encoding="utf-8")

    def refused(*arguments: str) -> list[str]:
        assert main(["apply", *arguments]) == 1
        watcher.step()
        capsys.readouterr()
        assert main(["events", str(log), "--kind", "fault", "--json"]) == 0
        faults = [json.loads(line)["data"] for line in capsys.readouterr().out.splitlines()]
        assert gateway.config.version == version
        assert {each["kind"] for each in faults} <= {"configuration-refused"}
        return [each["detail"] for each in faults]

    with Mechanism.open(toml) as gateway:
        version = gateway.config.version
        watcher = Watcher(gateway)
        try:
            watcher.step()
            watcher.flush()
            allocations.write_text(CSV + "Northern Energy,other,,-3\nHydra Ltd,others,,5\n", encoding="utf-8")
            begin = f"the configuration is refused, {version} stays in force: "
            first = f"{begin}{allocations}:2:24: allocation -3 must be 0 or more (and 1 more)"
            assert refused(str(toml), "--dry-run") == []
            assert refused(str(toml)) == [first]
            # More Users than the block has slots for is found when it is applied.
            rows = "".join(f"User {number},other,,0.01\n" for number in range(gateway.engine.user_slots + 1))
            allocations.write_text(CSV + rows, encoding="utf-8")
            assert len(refused(str(toml))) == 2
            # A tmm.toml that is none names neither: the block in force knows its log.
            allocations.write_text(good, encoding="utf-8")
            toml.write_text("[capacity", encoding="utf-8")
            assert refused(str(toml), "--block", str(toml.parent / "block"))[2].startswith(
                f"{begin}{toml}:1:"
            )
        finally:
            watcher.close()


def test_apply_of_a_bad_file_without_gateways_leaves_nothing_behind(toml: Path) -> None:
    toml.write_text(TOML.replace("[state]", 'event_log = "events.db"\n[state]'), encoding="utf-8")
    (toml.parent / "allocations.csv").write_text(CSV + "Northern Energy,other,,-3\n", encoding="utf-8")
    assert main(["apply", str(toml)]) == 1
    assert sorted(path.name for path in toml.parent.iterdir()) == ["allocations.csv", "tmm.toml"]


def test_apply_says_that_only_the_candidate_changes(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> str:
        assert main(["apply", str(toml), *arguments]) == 0
        return capsys.readouterr().out

    draft = toml.parent / "next.csv"
    draft.write_text(CSV + "Northern Energy,large-supplier,,4\n", encoding="utf-8")
    with Mechanism.open(toml) as gateway:
        first = f"Version {gateway.config.version} was in force already (generation {{}}).\n"
        toml.write_text(
            TOML.replace("[state]", 'candidate_allocations = "next.csv"\n[state]'), encoding="utf-8"
        )
        four = Config.load(toml).candidate_version
        dry = told("--dry-run")
        assert dry == first.format(1) + f"  candidate allocations {four}: would be tried, without effect\n"
        assert gateway.snapshot().candidate is None
        applied = json.loads(told("--json"))
        assert (applied["applied"], applied["candidate"]) == (True, [None, four])
        assert gateway.config.candidate_version == four
        assert told() == first.format(2)
        draft.write_text(CSV + "Northern Energy,large-supplier,,5\n", encoding="utf-8")
        five = Config.load(toml).candidate_version
        assert told() == (
            first.format(3)
            + f"  candidate allocations {five}: are tried, without effect, instead of {four}\n"
        )
        toml.write_text(TOML, encoding="utf-8")
        assert told() == first.format(4) + f"  candidate allocations {five}: are tried no longer\n"


def test_explain_tells_of_the_candidate_where_there_is_one(
    toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["explain", "Northern Energy", "4.1.1", "-c", str(toml)]
    with Mechanism.open(toml) as gateway:
        assert main(asked) == 0
        assert "candidate" not in capsys.readouterr().out
        assert main([*asked, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["candidate"] is None
        gateway.apply(replace(gateway.config, candidate_allocations={"Northern Energy": 4.0}))
        # At once: of eleven inside an allocation of 10 units per second, five are inside one of 4.
        user, srv = gateway.user("Northern Energy"), gateway.srv("4.1.1")
        for _ in range(11):
            gateway.admit_at(user, srv, 10**15)
        units = gateway.snapshot().candidate.units[user].tolist()  # type: ignore[union-attr]
        assert main([*asked, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["candidate"]
        assert (told["allocation"], told["over"]) == (4.0, 6)
        assert main(asked) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert (
            f"a candidate allocation of 4 units per second is tried without effect: so far {units[0]} units"
            in text
        )


def test_explain_asks_the_gateways_block(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A unit in 100 s: its bucket stays full while the command runs.
    (toml.parent / "allocations.csv").write_text(
        CSV + "Northern Energy,large-supplier,,0.01\n", encoding="utf-8"
    )
    with Mechanism.open(toml) as gateway:
        user, srv = gateway.user("Northern Energy"), gateway.srv("4.1.1")
        while gateway.admit(user, srv) == 2:
            pass
        assert main(["explain", "Northern Energy", "4.1.1", "-c", str(toml), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["asked"].startswith("the gateways' block")
        assert told["decision"] == "SPARE_CAPACITY"
    assert "inactive" in told["sentence"]


def test_status_shows_what_a_candidate_would_have_decided(
    toml: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (toml.parent / "next.csv").write_text(CSV + "Northern Energy,large-supplier,,4\n", encoding="utf-8")
    toml.write_text(TOML.replace("[state]", 'candidate_allocations = "next.csv"\n[state]'), encoding="utf-8")
    with Mechanism.open(toml) as one, Mechanism.open(toml) as two:
        user, srv = one.user("Northern Energy"), one.srv("4.1.1")
        assert status(toml, capsys)["candidate"]["users"] == []  # type: ignore[index]
        # A burst at once: 1 s of 10 units per second and one more are inside, of 4 units per second 5.
        for _ in range(11):
            one.admit_at(user, srv, 10**15)
        candidate = status(toml, capsys)["candidate"]
        assert candidate["version"] == one.config.candidate_version  # type: ignore[index]
        assert candidate["users"] == [  # type: ignore[index]
            {
                "user": "Northern Energy", "allocation": 10.0, "candidate": 4.0,
                "over": 6, "over_while_active": 0, "within": 0, "admitted": 0,
            }
        ]  # fmt: skip
        assert main(["status", "-c", str(toml)]) == 0
        shown = capsys.readouterr().out
        assert (
            f"candidate allocations {one.config.candidate_version}, without effect; Users decided otherwise: 1"
            in shown
        )
        # The widest there is: names are shortened, figures never.
        told = {
            "version": "0" * 12, "file": None,
            "users": [
                {"user": "A Service User of a very long name indeed, limited", "allocation": 1234.5, "candidate": 0.001,
                 "over": 1_234_567, "over_while_active": 234_567, "within": 7_654_321, "admitted": 654_321}
            ],
        }  # fmt: skip
        for width in (80, 120):
            monkeypatch.setenv("COLUMNS", str(width))
            lines = status_lines({**status(toml, capsys), "candidate": told}, Paint())
            assert max(len(line) for line in lines) <= width, "\n".join(lines)
            assert "7,654,321" in "\n".join(lines)
        # Another candidate in another process: counts begin at nothing, in all of them.
        two.apply(replace(two.config, candidate_allocations={"Northern Energy": 5.0}))
        assert status(toml, capsys)["candidate"]["users"] == []  # type: ignore[index]
        assert one.snapshot().candidate is not None
        assert one.snapshot().candidate.version == two.config.candidate_version  # type: ignore[union-attr]
        two.apply(replace(two.config, candidate_allocations=None))
        assert status(toml, capsys)["candidate"] is None


def test_status_live_follows_the_block_until_it_is_interrupted(toml: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tmm_core",
        "status",
        "-c",
        str(toml),
        "--live",
        "--json",
        "--every",
        "0.05",
    ]
    with (
        Mechanism.open(toml) as gateway,
        # Begun in the background of a shell, these tests ignore Ctrl-C, and so would what they start.
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as live,
    ):
        ends = threading.Timer(30, live.kill)
        ends.start()
        try:
            assert live.stdout is not None
            first = json.loads(live.stdout.readline())
            assert (first["generation"], sum(first["counts"].values())) == (1, 0)
            for _ in range(3):
                gateway.admit(gateway.user("Northern Energy"), gateway.srv("4.1.1"))
            gateway.apply(replace(gateway.config, operating_threshold=19_500))
            later = first
            while (later["generation"], sum(later["counts"].values())) != (2, 3):
                later = json.loads(live.stdout.readline())
            assert later["operating_threshold"] == 19_500
            live.send_signal(signal.SIGINT)
            assert live.wait(20) == 130
        finally:
            ends.cancel()
            live.kill()
