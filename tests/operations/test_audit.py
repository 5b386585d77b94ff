"""Each throttled request can be decided again from its record, and then it is throttled again."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tmm_core import Config, Decision, Mechanism, terms
from tmm_core.gateway.desk import Desk
from tmm_core.operations import audit as audit_module
from tmm_core.operations.audit import audit, decide_again
from tmm_core.operations.cli import main
from tmm_core.operations.event_log.event_records import ThrottleRecord, config_record
from tmm_core.operations.event_log.files import file_of
from tmm_core.operations.event_log.records import Recorder

from .world import NORTH, SECOND, SOUTH, World, small_config

SHARINGS = ("fair", "first-come", "none")


def replay(
    config: Config, seed: int, *, every: int = 1, requests: int = 4000
) -> tuple[Mechanism, list[ThrottleRecord], Recorder]:
    """Random traffic around twice the threshold, on a simulated clock."""
    rng = random.Random(seed)
    now = 10**15
    mechanism = Mechanism(config, start=now)
    records: list[ThrottleRecord] = []
    recorder = Recorder(mechanism, records.append, every=every, at_ms=lambda: now // 1_000_000)
    users = [mechanism.user(name) for name in (NORTH, SOUTH, "nobody")]
    srvs = [mechanism.srv(code) for code in ("4.1.1", "4.8.1", "7.4", "9.9")]
    for _ in range(requests):
        now += rng.randrange(2 * SECOND // 200)
        recorder.admit(rng.choices(users, (8, 1, 2))[0], rng.choice(srvs), now)
    return mechanism, records, recorder


@pytest.mark.parametrize("sharing", SHARINGS)
def test_every_record_decides_the_same_again(sharing: str, seed: int) -> None:
    config = small_config(sharing=sharing)
    mechanism, records, recorder = replay(config, seed)
    throttled = int(mechanism.snapshot().counts[:, :, 0].sum())
    assert len(records) == throttled > 300 and recorder.unrecorded == 0
    description = json.loads(json.dumps(config_record(config)))
    assert {decide_again(record, description) for record in records} == {Decision.THROTTLED}


@pytest.mark.parametrize("sharing", SHARINGS)
def test_recording_changes_no_decision(sharing: str, seed: int) -> None:
    """The same traffic with and without records gives the same counts."""
    with_records, _, _ = replay(small_config(sharing=sharing), seed, every=1)
    without, _, _ = replay(small_config(sharing=sharing), seed, every=10**9)
    assert (with_records.snapshot().counts == without.snapshot().counts).all()
    assert (with_records.engine.units() == without.engine.units()).all()


def test_a_sample_is_of_all_requests_alike(seed: int) -> None:
    mechanism, records, _ = replay(small_config(), seed, every=10, requests=20_000)
    throttled = int(mechanism.snapshot().counts[:, :, 0].sum())
    # A tenth of some thousand: 5 standard deviations are less than a quarter of it.
    assert 0.075 * throttled < len(records) < 0.125 * throttled


#: A record of a User whose own bucket is 3 s ahead of now, its spare bucket 1 s, while there is no spare capacity.
GROUNDS: dict[str, Any] = {
    "at_ms": 0, "now_ns": 10**15, "version": "v", "user": NORTH, "srv": "4.1.1", "tat": (10**15 + 3 * SECOND) * 128,
    "spare_tat": (10**15 + SECOND) * 128, "backlog": 0, "level": 65_536, "active": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "WITHIN_ALLOCATION"),  # 3 s ahead is more than a charge could have made: healed to a full bucket
        ({"tat": (10**15 + 1 * SECOND) * 128}, "WITHIN_ALLOCATION"),  # exactly the burst
        ({"tat": (10**15 + 1 * SECOND) * 128 + 1}, "THROTTLED"),  # 1/128 ns more
        ({"tat": (10**15 + 1 * SECOND) * 128 + 1, "srv": "7.4"}, "PRIORITY"),
        ({"tat": (10**15 + 1 * SECOND) * 128 + 1, "active": False}, "SPARE_CAPACITY"),
        ({"tat": (10**15 + 1 * SECOND) * 128 + 1, "spare_tat": (10**15 + SECOND // 4) * 128}, "SPARE_CAPACITY"),
        ({"tat": (10**15 + 1 * SECOND) * 128 + 1, "spare_tat": 0, "level": 0}, "THROTTLED"),
        # The brake: 0.05 s of backlog, to the stamp.
        ({"tat": (10**15 + 1 * SECOND) * 128 + 1, "spare_tat": 0, "backlog": SECOND * 128 // 20}, "SPARE_CAPACITY"),
        ({"tat": (10**15 + 1 * SECOND) * 128 + 1, "spare_tat": 0, "backlog": SECOND * 128 // 20 + 1}, "THROTTLED"),
        ({"user": "no longer named", "spare_tat": (10**15 + SECOND // 2) * 128}, "THROTTLED"),
        # The past, across the wrap of the word.
        ({"now_ns": 1, "tat": -(1 << 40)}, "WITHIN_ALLOCATION"),
    ],
)  # fmt: skip
def test_the_slow_rule_on_worked_examples(changes: dict[str, Any], expected: str) -> None:
    # Allocation 30 units/s, dearest SRV 4 units: a charge is at most 4/30 s, so 1 + 0.13 + 1 s is the most.
    description = config_record(small_config())
    assert decide_again(ThrottleRecord(**{**GROUNDS, **changes}), description).name == expected


def test_the_constants_written_down_twice_are_the_same() -> None:
    assert audit_module._STAMPS == terms.SECOND
    assert audit_module._BRAKE * terms._BRAKES == 1
    assert audit_module._SPARE_BURST == terms._SPARE_BURST_S
    assert (audit_module._LEVEL, audit_module._RATE) == (terms.LEVEL, terms.RATE)
    assert audit_module._LEAST_WEIGHT == terms._LEAST_WEIGHT
    assert Fraction(1 << 61, audit_module._STAMPS) == audit_module._WRAPPED


def logged(world: World, seconds: float = 5) -> None:
    watcher = world.watch()
    recorder = Recorder(world.mechanism, watcher.put, every=1, at_ms=world.at_ms)
    watcher.step()
    user, srv = world.mechanism.user(NORTH), world.mechanism.srv("4.1.1")
    for i in range(round(seconds * 300)):
        world.now += SECOND // 300
        recorder.admit(user, srv, world.now)
        if i % 300 == 299:
            watcher.step()
    watcher.flush()
    watcher.close()


def test_the_audit_of_a_log_agrees_with_every_record(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    logged(world)
    result = audit([world.path])
    throttled = int(world.mechanism.snapshot(world.now).counts[:, :, 0].sum())
    assert result.records == result.agree == result.throttled == throttled > 500
    assert main(["audit", str(world.path)]) == 0
    assert f"{throttled} of {throttled} records decide the same again" in capsys.readouterr().out.replace(
        ",", ""
    )


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE throttle_records SET tat = now_ns * 128 WHERE id = 7",
        "UPDATE throttle_records SET version = 'another' WHERE id = 7",
        "UPDATE throttle_records SET active = 0 WHERE id = 7",
        "UPDATE throttle_records SET decision = 1 WHERE id = 7",
    ],
)
def test_the_audit_finds_a_record_that_is_wrong(
    world: World, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logged(world)
    with sqlite3.connect(file_of(world.path, "2026-11")) as connection:
        connection.execute(damage)
    result = audit([world.path])
    assert (result.records - result.agree, len(result.findings)) == (1, 1)
    assert main(["audit", str(world.path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["user"] == NORTH


def test_records_that_could_not_be_written_are_told(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tmm_core.operations.event_log.records._MOST", 100)
    logged(world)
    result = audit([world.path])
    assert result.agree == result.records and result.lost > 0
    assert result.records + result.lost == result.throttled
    assert main(["audit", str(world.path)]) == 0
    assert "records could not be written" in capsys.readouterr().out


def test_threads_and_a_change_of_configuration_are_recorded_rightly() -> None:
    """Real threads on the real clock, a configuration put in force meanwhile: no record lies."""
    configs = [small_config(), small_config(allocations={NORTH: 10.0, SOUTH: 40.0}, burst_s=0.2)]
    mechanism = Mechanism(configs[0])
    records: list[ThrottleRecord] = []
    recorder = Recorder(mechanism, records.append, every=1)
    stop = threading.Event()

    def decide() -> None:
        user, srv = mechanism.user(NORTH), mechanism.srv("4.1.1")
        while not stop.is_set():
            recorder.admit(user, srv)

    threads = [threading.Thread(target=decide) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(8):
            goal = len(records) + 50
            while len(records) < goal:
                stop.wait(0.001)
            mechanism.apply(configs[turn % 2])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    known = {config.version: config_record(config) for config in configs}
    assert len({record.version for record in records}) == 2
    assert [r for r in records if decide_again(r, known[r.version]) is not Decision.THROTTLED] == []
    throttled = int(mechanism.snapshot().counts[:, :, 0].sum())
    assert len(records) + recorder.unrecorded == throttled
    assert recorder.unrecorded < throttled / 10


def test_a_sample_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="every 0 must be 1 or more"):
        Recorder(Mechanism(small_config(), start=0), print, every=0)


def test_the_audit_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(tmp_path / "events.db")]) == 1
    assert "there is no such event log" in capsys.readouterr().err


def test_a_configuration_that_is_in_force_but_not_yet_named_makes_no_record() -> None:
    """Between the two, the version of the old one would be written beside words the new one decided on."""
    old, new = small_config(), small_config(burst_s=0.2)
    mechanism = Mechanism(old, start=0)
    records: list[ThrottleRecord] = []
    recorder = Recorder(mechanism, records.append, every=1)
    user, srv = mechanism.user(NORTH), mechanism.srv("4.1.1")
    while len(records) < 3:
        recorder.admit(user, srv, SECOND)
    snapshot = mechanism.snapshot()
    settings, rules, services = terms.terms_of(new, snapshot.users, snapshot.srvs)
    mechanism.engine.apply(settings, rules, services, SECOND)
    while recorder.unrecorded < 3:
        recorder.admit(user, srv, SECOND)
    assert len(records) == 3 and {record.version for record in records} == {old.version}
    mechanism.apply(new, now=SECOND)
    while len(records) < 6:
        recorder.admit(user, srv, SECOND)
    assert {record.version for record in records[3:]} == {new.version}


def test_a_gateway_records_through_the_recorders_front() -> None:
    mechanism = Mechanism(small_config())
    records: list[ThrottleRecord] = []
    desk = Desk(Recorder(mechanism, records.append, every=1).front)
    waits = [desk.decide(NORTH, "4.1.1") for _ in range(2000)]
    throttled = sum(wait is not None for wait in waits)
    assert len(records) == throttled > 100 and desk.counts.fail_open == 0
    assert {(record.user, record.srv) for record in records} == {(NORTH, "4.1.1")}
    description = config_record(mechanism.config)
    assert {decide_again(record, description) for record in records} == {Decision.THROTTLED}
