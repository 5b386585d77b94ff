"""The interface that is relied on from outside, line by line."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import pydoc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tmm_core
from tmm_core import Config, ConfigError, Decision, DuisError, Mechanism, Snapshot, get_include
from tmm_core.errors import Mistake

EUI = "90-B3-D5-1F-30-01-00-00"


def config(**terms: object) -> Config:
    given: dict[str, object] = {
        "allocations": {"Northern Energy": 400.0, "Avon Power": 10.0}, "user_ids": {EUI: "Northern Energy"},
        "priority": ["2.2", "7.4"], "costs": {"4.8.1": 4}, **terms,
    }  # fmt: skip
    return Config(system_capacity=25000, operating_threshold=20000, release_threshold=19000, **given)  # type: ignore[arg-type]


def test_what_is_exported_is_there() -> None:
    for name in ("Mechanism", "Config", "Decision", "PriorityList", "Snapshot", "allocate", "get_include"):
        assert hasattr(tmm_core, name)
    assert Path(get_include(), "tmm_core.h").exists()


def test_every_module_exports_what_it_says() -> None:
    for found in pkgutil.walk_packages(tmm_core.__path__, "tmm_core."):
        if found.name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(found.name)
        except ModuleNotFoundError as error:  # of an extra that is not installed
            if str(error.name).startswith("tmm_core"):
                raise
            continue
        missing = [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)]
        assert missing == [], found.name


def test_what_is_told_survives_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(DuisError("found no header", 7)))
    assert (str(error), error.offset) == ("byte 7: found no header", 7)
    wrong = pickle.loads(pickle.dumps(ConfigError(Mistake("no", file="tmm.toml", line=3, field="mode"))))
    assert (str(wrong), wrong.file, wrong.line, wrong.field) == ("tmm.toml:3: no", "tmm.toml", 3, "mode")
    mechanism = Mechanism(config(), start=0)
    assert pickle.loads(pickle.dumps(mechanism.explain(EUI, "4.1.1"))) == mechanism.explain(EUI, "4.1.1")
    assert pickle.loads(pickle.dumps(mechanism.snapshot())).users == mechanism.snapshot().users


def test_a_path_in_place_of_a_configuration_is_told_as_such() -> None:
    with pytest.raises(TypeError, match=r"must be a Config, found 'tmm.toml': Config.load reads"):
        Mechanism("tmm.toml")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a Config"):
        Mechanism(config(), start=0).apply({"mode": "observe"})  # type: ignore[arg-type]


def test_names_become_numbers_and_unknown_ones_the_pool() -> None:
    mechanism = Mechanism(config(), start=0)
    assert mechanism.user(EUI) == mechanism.user(EUI.lower()) == mechanism.user("Northern Energy") == 1
    assert mechanism.user("90-B3-D5-1F-30-01-00-99") == mechanism.user("") == 0
    assert mechanism.srv("4.1.1") > 0
    assert mechanism.srv("99.9") == mechanism.srv("") == 0


@pytest.mark.parametrize("wrong", [EUI.encode(), None, 1, ["4.1.1"]], ids=repr)
def test_a_name_that_is_no_text_is_told_as_such(wrong: Any) -> None:
    mechanism = Mechanism(config(), start=0)
    told = re.escape(f"found {wrong!r}")
    for call in (mechanism.user, mechanism.gate, lambda user_id: mechanism.explain(user_id, "4.1.1")):
        with pytest.raises(TypeError, match=f"^user_id must be a str, {told}$"):
            call(wrong)
    for call in (mechanism.srv, lambda srv_code: mechanism.explain(EUI, srv_code)):
        with pytest.raises(TypeError, match=f"^srv_code must be a str, {told}$"):
            call(wrong)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_mechanism_is_not_copied(way: Callable[[Mechanism], object]) -> None:
    with pytest.raises(TypeError, match=r"^a Mechanism cannot be copied or pickled: open it again"):
        way(Mechanism(config(), start=0))


def test_help_tells_shapes_units_and_errors_of_the_calls_that_decide() -> None:
    told = pydoc.plain(pydoc.render_doc(Mechanism))
    for name in ("admit", "admit_at", "admit_many", "retry_after"):
        assert inspect.getdoc(getattr(Mechanism, name)), name
    for words in (
        "admit(user, srv) -> Decision",
        "users : ndarray of uint32, shape (n,)",
        "nanoseconds on a monotonic clock",
        "A slot that does not exist; nothing has been decided.",
        "Seconds from now until the slot",
    ):
        assert words in told


def test_decisions_are_decisions_and_only_throttled_is_false() -> None:
    mechanism = Mechanism(config(), start=0)
    user, srv = mechanism.user(EUI), mechanism.srv("4.1.1")
    assert mechanism.admit_at(user, srv, 0) is Decision.WITHIN_ALLOCATION
    assert mechanism.admit(user, mechanism.srv("7.4")) is Decision.PRIORITY
    assert [int(one) for one in Decision] == [0, 1, 2, 3]
    assert [bool(one) for one in Decision] == [False, True, True, True]
    out = np.empty(2, dtype=np.uint8)
    users, srvs = np.array([user, 0], dtype=np.uint32), np.array([srv, srv], dtype=np.uint16)
    assert mechanism.admit_many(users, srvs).dtype == np.uint8
    assert mechanism.admit_many(users, srvs, out=out, now=5) is out
    fresh = Mechanism(config(), start=0)
    assert fresh.retry_after(user, now=5) == 0.0, "nobody has to wait"
    assert fresh.retry_after(user, now=5) == pytest.approx(1 / 400), "the next place"
    assert isinstance(mechanism.tick(10**9), bool)


def test_the_own_bucket_is_asked_before_spare_capacity() -> None:
    """Also while the Mechanism is active and there is spare capacity for whoever asks."""
    second = 10**9
    with Mechanism(config(hold_s=60), start=0) as mechanism:
        within, over, srv = (
            mechanism.user("Northern Energy"),
            mechanism.user("Avon Power"),
            mechanism.srv("4.1.1"),
        )
        for _ in range(8_000):
            mechanism.admit_at(over, srv, 0)
        for tick in range(1, 201):
            mechanism.tick(tick * second // 100)
        now = 2 * second
        snapshot = mechanism.snapshot(now)
        assert snapshot.active, "its backlog is gone, its hold is not over"
        assert snapshot.level > 1, "there is spare capacity"
        own, spare, _ = mechanism.engine.words(within)
        assert mechanism.admit_at(within, srv, now) is Decision.WITHIN_ALLOCATION
        assert mechanism.engine.words(within)[0] > own, "charged to its own bucket"
        assert mechanism.engine.words(within)[1] == spare
        assert [mechanism.admit_at(over, srv, now) for _ in range(12)][-1] is Decision.SPARE_CAPACITY


def test_the_hot_path_is_the_engines_own_method() -> None:
    mechanism = Mechanism(config(), start=0)
    for name in ("admit", "admit_at", "admit_many", "retry_after"):
        assert inspect.isbuiltin(getattr(mechanism, name))


def test_a_gate_follows_its_identifier_to_another_user() -> None:
    mechanism = Mechanism(config(), start=0)
    gate, srv = mechanism.gate(EUI.lower()), mechanism.srv("4.1.1")
    assert gate.admit_at(srv, 0) is Decision.WITHIN_ALLOCATION
    assert gate.slot == 1
    mechanism.apply(config(user_ids={EUI: "Avon Power"}), now=0)
    assert gate.admit(srv)
    assert gate.slot == mechanism.user("Avon Power") == 2
    mechanism.apply(config(user_ids={}), now=0)
    assert gate.slot == 0
    assert gate.retry_after() >= 0


def test_a_snapshot_holds_what_it_says() -> None:
    mechanism = Mechanism(config(), start=0)
    for turn in range(2000):
        mechanism.admit_at(1, 1, turn * 10**6)
    seen = mechanism.snapshot(2 * 10**9)
    assert isinstance(seen, Snapshot)
    assert (seen.active, seen.activations, seen.version) == (False, 0, mechanism.config.version)
    assert 800 < seen.load == seen.offered_load < 1001
    assert seen.level >= 1
    assert seen.backlog_s >= 0
    assert seen.users == ["(unknown)", "Northern Energy", "Avon Power"]
    assert seen.counts.shape == (3, len(seen.srvs), 4)
    assert seen.counts.sum() == seen.counts[1, 1].sum() == 2000
    assert (seen.healed, seen.ticks > 100) == (0, True)


def test_explain_charges_nothing_and_says_why() -> None:
    mechanism = Mechanism(config(), start=0)
    before = mechanism.engine.words(1)
    told = mechanism.explain(EUI, "7.4")
    assert (
        str(told)
        == told.sentence
        == f"7.4 from {EUI} would be admitted (PRIORITY): 7.4 is on the priority list."
    )
    assert "the pool of unknown Users" in str(mechanism.explain("nobody", "99.9"))
    assert mechanism.engine.words(1) == before


def test_users_keep_their_slots_and_one_without_an_allocation_has_none() -> None:
    mechanism = Mechanism(config(), start=0)
    mechanism.apply(config(allocations={"Tees Gas": 5.0, "Avon Power": 9.0}, user_ids={}), now=0)
    assert [mechanism.user(name) for name in ("Avon Power", "Tees Gas", "Northern Energy")] == [2, 3, 0]
    assert mechanism.admit_at(1, 1, 0) is Decision.SPARE_CAPACITY


def test_it_closes_and_shows_itself() -> None:
    with Mechanism(config(), start=0) as mechanism:
        version = mechanism.config.version
        assert repr(mechanism) == f"<Mechanism enforce at 20000 units per second, 2 Users, version {version}>"
    mechanism.close()
    with pytest.raises(ValueError, match="the Mechanism is closed"):
        mechanism.admit(1, 1)
