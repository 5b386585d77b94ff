"""A worker is killed, and frozen, after every instruction of a decision: the others go on, and nothing is wrong.

Adopting a slab and putting terms in force are stepped in `test_step_changes.py`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from shared.stepping import EVERY, EVERYWHERE, SECOND, START, SUPPORTED, Host, capsule, ended, started
from tmm_core import Decision
from tmm_core.engines import native

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="stepping needs Linux on x86-64 and a C compiler")

CASES = {
    "admit": ("none", 0, "Deep Ltd", "4.1.1", Decision.WITHIN_ALLOCATION),
    "priority": ("none", 0, "Deep Ltd", "7.4", Decision.PRIORITY),
    "refuse": ("none", 1, "Shallow Ltd", "4.1.1", Decision.THROTTLED),
    "spare": ("fair", SECOND, "Shallow Ltd", "4.1.1", Decision.SPARE_CAPACITY),
    "first-come": ("first-come", SECOND, "Shallow Ltd", "4.1.1", Decision.SPARE_CAPACITY),
}


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("fate", ["killed", "frozen"])
@pytest.mark.parametrize("case", CASES)
def test_a_worker_ends_after_any_instruction_of_a_decision(
    stepper: Any, hosts: Callable[[str], Host], case: str, fate: str, every: int,
    record_property: Callable[[str, Any], None],
) -> None:  # fmt: skip
    sharing, later, name, code, expected = CASES[case]
    host = hosts(sharing)
    if later:
        host.activate(later)
    mechanism = host.mechanism
    user, srv, now = mechanism.user(name), mechanism.srv(code), host.now
    # Part of a charge block is held back already: the one decided goes on from there.
    api = capsule(native.C_API, b"tmm_core._core.engine.C_API")
    admit_at = ctypes.cast(api + 16, ctypes.POINTER(ctypes.c_void_p))[0]
    host.keep()

    def act() -> None:
        lane = mechanism.lane()
        stepper.decide(admit_at, capsule(lane.pointer, b"tmm_core.lane"), user, srv, now)

    child = started(act, stepper)
    before = host.seen(user)
    length = stepper.step(child, 100_000, *EVERYWHERE)
    assert 50 < length < 20_000
    after = host.seen(user)
    ended(child)
    grown = after[0] - before[0]
    assert grown.tolist() == [int(decision is expected) for decision in Decision], "the case is what it says"
    interval = 128 * SECOND // 100

    for instruction in range(0, length, every):
        host.put_back()
        child = started(act, stepper)
        before = host.seen(user)
        assert stepper.step(child, instruction, *EVERYWHERE) == instruction
        if fate == "killed":
            ended(child)
        counts, units, words = host.seen(user)
        counted, weighed = counts - before[0], units - before[1]
        assert counted.sum() in (0, 1), instruction
        assert counted.sum() == counted[expected], instruction
        assert weighed.sum() in (0, 1), instruction
        if expected is Decision.WITHIN_ALLOCATION:
            charged = words[0] != before[2][0]
            assert counted.sum() <= charged, f"instruction {instruction}: counted before it was charged"
            assert words[0] in (before[2][0], max(before[2][0], START * 128) + interval), instruction
        elif expected is Decision.THROTTLED:
            assert words == before[2], f"instruction {instruction}: a refusal writes to no bucket"
        # Another process goes on.
        decided = [mechanism.admit_at(user, srv, now + step) for step in range(3)]
        assert len(decided) == 3
        mechanism.tick(now + SECOND)
        mechanism.retry_after(user, now)
        if fate == "frozen":
            ended(child)
    record_property(f"instructions_{fate}_after", len(range(0, length, every)))
