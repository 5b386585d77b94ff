"""A worker is killed, and frozen, after every instruction of adopting a slab and of putting terms in force.

The engine's instructions are all stopped at; around them, in Python and the kernel, every system call (there locks
are taken and files written).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shared.stepping import EVERY, SECOND, START, SUPPORTED, Host, ended, started, trail_of
from tmm_core import Decision, MemoryLayoutError
from tmm_core.terms import terms_of

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="stepping needs Linux on x86-64 and a C compiler")


def answer_of(act: Callable[[], bool]) -> bool:
    """Let another worker act; returns whether it could, and answered yes."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            code = int(not act())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def points(trail: list[Any], every: int, few: int) -> list[int]:
    """All places, or a few of them with the first and the last."""
    step = 1 if every == 1 else max(len(trail) // few, 1)
    return sorted({*range(0, len(trail), step), len(trail) - 1})


@pytest.mark.parametrize("every", EVERY)
def test_a_worker_ends_while_it_puts_terms_in_force(
    stepper: Any, hosts: Callable[[str], Host], every: int, monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, Any], None],
) -> None:  # fmt: skip
    monkeypatch.setattr("tmm_core.memory.shared._CHANGES_WAIT_S", 0)
    host = hosts("none")
    mechanism, engine, block = host.mechanism, host.mechanism.engine, host.mechanism.block
    assert block is not None
    changed = replace(host.config, allocations={"Deep Ltd": 50.0, "Shallow Ltd": 10.0}, priority=["4.1.1"])
    snapshot = mechanism.snapshot(START)
    terms = terms_of(changed, snapshot.users, snapshot.srvs)
    user, generation, other = mechanism.user("Deep Ltd"), engine.generation, mechanism.srv("4.2")
    host.keep()

    def apply() -> None:
        with block.changing():
            engine.apply(*terms, START)

    def act() -> None:
        block.renew(engine)
        with block.changing():
            stepper.trap()
            engine.apply(*terms, START)
            stepper.trap()

    def seen() -> int:
        """Old terms or new ones, never some of each: decided by another process; says which."""
        new = engine.generation - generation
        assert new in (0, 1)
        assert mechanism.admit_at(user, host.srv, START) is (
            Decision.PRIORITY if new else Decision.WITHIN_ALLOCATION
        )
        interval, before = 128 * SECOND // (50 if new else 100), engine.words(user)[0]
        assert mechanism.admit_at(user, other, START) is Decision.WITHIN_ALLOCATION
        assert engine.words(user)[0] - before == interval
        mechanism.tick(START)
        mechanism.retry_after(user, START)
        return int(new)

    child = started(act, stepper)
    trail = trail_of(child, stepper)
    ended(child)
    assert engine.generation == generation + 1
    outcomes, stops = set(), points(trail, every, 25)
    for instruction in stops:
        host.put_back()
        child = started(act, stepper)
        assert stepper.arrive(child, *trail[instruction]) == 0, instruction
        # Frozen: decisions go on. Only another change of terms meets its lock, says so, and changes nothing.
        outcomes.add(seen())
        with pytest.raises(MemoryLayoutError, match="hangs or is stopped"):
            apply()
        frozen_at = engine.generation
        # Killed: the same terms as before, and the lock went with its owner: another applies the same, whole.
        ended(child)
        assert engine.generation == frozen_at
        seen()
        apply()
        assert engine.generation == frozen_at + 1
        assert mechanism.admit_at(user, host.srv, START) is Decision.PRIORITY
    assert outcomes == {0, 1}
    for fate in ("killed", "frozen"):
        record_property(f"instructions_{fate}_after", len(stops))


@pytest.mark.parametrize("every", EVERY)
def test_a_worker_ends_while_it_adopts(
    stepper: Any, hosts: Callable[[str], Host], every: int, record_property: Callable[[str, Any], None]
) -> None:
    host = hosts("none")
    mechanism, block = host.mechanism, host.mechanism.block
    assert block is not None
    user = mechanism.user("Deep Ltd")

    def counts_in(slab: int) -> Callable[[], bool]:
        """Seven more requests by a new worker, which must get this slab."""

        def act() -> bool:
            for _ in range(7):
                mechanism.admit_at(user, host.srv, START)
            return block.slabs == {slab}

        return act

    assert answer_of(counts_in(2))
    host.keep()
    whole = host.seen(user)
    assert whole[0].sum() == 7

    def act() -> None:
        slab = block.claim_first()
        stepper.trap()
        mechanism.engine.start_over(slab)
        stepper.trap()

    child = started(act, stepper)
    trail = trail_of(child, stepper)
    ended(child)
    stops = points(trail, every, 15)
    for instruction in stops:
        host.put_back()
        child = started(act, stepper)
        assert stepper.arrive(child, *trail[instruction]) == 0, instruction
        counts, units, words = host.seen(user)
        assert counts.tolist() == whole[0].tolist(), f"instruction {instruction}: adopting moves no count"
        assert units.tolist() == whole[1].tolist()
        assert words == whole[2]
        # Frozen: its slab is its own, so the next worker takes another, and the parent decides as before.
        assert answer_of(counts_in(3)), f"instruction {instruction}: a frozen adopter is in the way"
        mechanism.admit_at(user, host.srv, START)
        mechanism.tick(START)
        assert host.seen(user)[0].sum() == 15
        # Killed: the next one adopts it all the same.
        ended(child)
        assert host.seen(user)[0].sum() == 15, "its end takes nothing away"
        assert answer_of(counts_in(2)), f"instruction {instruction}: the slab is not adopted"
        assert host.seen(user)[0].sum() == 22
    for fate in ("killed", "frozen"):
        record_property(f"instructions_{fate}_after", len(stops))


@pytest.mark.parametrize("every", EVERY)
def test_a_worker_ends_at_a_system_call_of_a_change(
    stepper: Any, hosts: Callable[[str], Host], every: int, record_property: Callable[[str, Any], None]
) -> None:
    """All of `apply` in a forked child: slab and lock taken, names written and removed, terms turned to."""
    host = hosts("none")
    mechanism = host.mechanism
    user = mechanism.user("Deep Ltd")
    allocations = [100.0, 50.0]

    def config(turn: int) -> Any:
        return replace(host.config, allocations={"Deep Ltd": allocations[turn % 2], "Shallow Ltd": 10.0})

    def act() -> None:
        stepper.trap()
        mechanism.apply(config(turn))
        stepper.trap()

    turn, stop, stops = 1, 0, 0
    while True:
        before = mechanism.snapshot(START)
        child = started(act, stepper)
        reached = stepper.calls(child, stop)
        assert reached >= 0
        # Frozen: decisions go on, and every version that can be seen is whole.
        assert mechanism.admit_at(user, host.srv, START) is Decision.WITHIN_ALLOCATION
        after = mechanism.snapshot(START)
        assert after.version in (before.version, config(turn).version)
        ended(child)
        # Killed: another process applies the same, as if nothing had been.
        mechanism.apply(config(turn))
        now = mechanism.snapshot(START)
        assert now.version == config(turn).version
        assert now.generation == before.generation + 1, "in force once, whoever did it"
        assert mechanism.config.allocations == config(turn).allocations
        assert now.counts.sum() == before.counts.sum() + 1
        turn, stop, stops = turn + 1, stop + (1 if every == 1 else 11), stops + 1
        if reached < stop - (1 if every == 1 else 11):
            break  # it had come to its end
    assert stops > 5
    record_property("system_call_stops", stops)
