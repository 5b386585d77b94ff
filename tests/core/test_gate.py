"""A gate keeps where its User's words are: what moves them, and what it then does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tmm_core import Config, Decision, Mechanism

ID = "90-B3-D5-1F-30-01-00-00"


def config(owner: str) -> Config:
    users = {"Northern Energy": 100.0, "Avon Power": 200.0}
    return Config(500, 400, allocations=users, user_ids={ID: owner}, priority=["7.4"])


def asking_gate(mechanism: Mechanism, *, moves_in: int = 0) -> tuple[Any, list[str]]:
    """A gate, and whom it has asked for; in one look-up the identifier moves on after it was looked up."""
    asked: list[str] = []

    def resolve(user_id: str) -> tuple[int, int]:
        found = mechanism.user(user_id), mechanism.engine.generation
        asked.append(user_id)
        if len(asked) == moves_in:
            mechanism.apply(config("Avon Power"), now=0)
        return found

    return mechanism.engine.gate(ID, resolve), asked


def test_terms_that_change_while_a_gate_looks_for_its_user_are_followed() -> None:
    """It had found a slot of the old terms, and would keep it as one of the new ones."""
    mechanism = Mechanism(config("Northern Energy"), start=0)
    gate, asked = asking_gate(mechanism, moves_in=1)
    assert gate.admit_at(mechanism.srv("4.1.1"), 0) is Decision.WITHIN_ALLOCATION
    assert asked == [ID, ID]
    counts = mechanism.engine.counts()
    assert counts[mechanism.user("Avon Power")].sum() == 1
    assert counts.sum() == 1


def test_a_gate_asks_whose_it_is_once_for_each_change_of_terms() -> None:
    mechanism = Mechanism(config("Northern Energy"), start=0)
    srv, (gate, asked) = mechanism.srv("7.4"), asking_gate(mechanism)
    for _ in range(3):
        for _ in range(100):
            assert gate.admit_at(srv, 0) is Decision.PRIORITY
        mechanism.apply(config("Northern Energy"), now=0)
    gate.admit_at(srv, 0)
    assert len(asked) == 4
    assert mechanism.engine.counts().sum() == 301


def test_terms_that_change_while_a_gate_follows_are_followed_too() -> None:
    """It followed once, and decided for the User before by the terms after."""
    mechanism = Mechanism(config("Northern Energy"), start=0)
    gate, asked = asking_gate(mechanism, moves_in=2)
    mechanism.apply(config("Northern Energy"), now=0)
    assert gate.admit_at(mechanism.srv("4.1.1"), 0) is Decision.WITHIN_ALLOCATION
    assert len(asked) == 3
    assert mechanism.engine.counts()[mechanism.user("Avon Power")].sum() == 1


def test_a_gate_that_never_finds_the_terms_in_force_decides_all_the_same() -> None:
    mechanism = Mechanism(config("Northern Energy"), start=0)
    gate = mechanism.engine.gate(ID, lambda user_id: (mechanism.user(user_id), 0))
    assert gate.admit_at(mechanism.srv("4.1.1"), 0) is Decision.WITHIN_ALLOCATION
    assert mechanism.engine.counts().sum() == 1


@pytest.mark.parametrize("change", [False, True])
def test_a_gate_of_who_only_looks_refuses(tmp_path: Path, change: bool) -> None:
    shared = replace(config("Northern Energy"), shared=str(tmp_path / "block"))
    with Mechanism.open(shared), Mechanism.look(str(tmp_path / "block"), change=change) as looking:
        gate = looking.gate(ID)
        with pytest.raises(ValueError, match="the block may only be looked at"):
            gate.admit(looking.srv("4.1.1"))
        assert gate.slot == 1
