"""The machine arithmetic, for all 64-bit values at once (z3): no overflow, no lock-out, no unit too many.

The terms are those a configuration can have: tolerance up to an hour, one charge up to 2**59 stamps (52 days).
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from block import LAYOUT, Block

from tmm_core import Config

z3 = pytest.importorskip("z3", reason="the lemmas need z3-solver (dependency group 'prove')")

SKEW = 128_000_000_000
WRAPPED = 1 << 61
HOUR = 3600 * SKEW
CHARGE_MAX = 1 << 59


def word(name: str) -> Any:
    return z3.BitVec(name, 64)


def base_of(tat: Any, now: Any, tolerance: Any, longest: Any) -> Any:
    """`gcra.base_of`, statement by statement, in wrapping 64-bit arithmetic."""
    lead = tat - now
    return z3.If(
        z3.Or(lead <= 0, lead > WRAPPED),
        z3.BitVecVal(0, 64),
        z3.If(lead > tolerance + longest + SKEW, tolerance, lead),
    )


def legal(tolerance: Any, longest: Any) -> Any:
    return z3.And(tolerance >= 0, tolerance <= HOUR, longest >= 1, longest <= CHARGE_MAX)


def proved(claim: Any, *assumptions: Any, seconds: int = 200) -> None:
    solver = z3.Solver()
    solver.set("timeout", seconds * 1000)
    solver.add(*assumptions, z3.Not(claim))
    found = solver.check()
    assert found == z3.unsat, solver.model() if found == z3.sat else "z3 gave up"


def test_the_lemmas_are_about_the_constants_of_the_engine() -> None:
    text = LAYOUT.with_name("gcra.pxd").read_text("utf-8")
    assert re.search(r"TMM_SKEW INT64_C\((\d+)\)", text)[1] == str(SKEW)  # type: ignore[index]
    assert "TMM_WRAPPED (INT64_C(1) << 61)" in text
    assert "if lead <= 0 or lead > WRAPPED:" in text
    assert "if lead > tolerance + longest + SKEW:" in text


def test_a_false_lemma_is_found_out() -> None:
    tat, now, tolerance, longest = map(word, ("tat", "now", "tolerance", "longest"))
    with pytest.raises(AssertionError, match="tat"):
        proved(base_of(tat, now, tolerance, longest) <= tolerance, legal(tolerance, longest))


def test_no_word_and_no_clock_make_the_base_negative_or_unbounded() -> None:
    tat, now, tolerance, longest = map(word, ("tat", "now", "tolerance", "longest"))
    base = base_of(tat, now, tolerance, longest)
    proved(z3.And(base >= 0, base <= tolerance + longest + SKEW), legal(tolerance, longest))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_word_locks_a_user_out_for_longer_than_a_charge_and_a_second() -> None:
    """Whatever the word holds, it conforms after the longest charge and one second more."""
    tat, now, tolerance, longest, later = map(word, ("tat", "now", "tolerance", "longest", "later"))
    proved(
        base_of(tat, now + later, tolerance, longest) <= tolerance,
        legal(tolerance, longest), later == longest + SKEW, (tat - now) <= tolerance + longest + SKEW,
    )  # fmt: skip
    proved(
        base_of(tat, now, tolerance, longest) <= tolerance,
        legal(tolerance, longest), (tat - now) > tolerance + longest + SKEW,
    )  # fmt: skip


def test_an_admission_always_changes_the_word_and_the_next_base_is_what_was_charged() -> None:
    """Lesson 2: a compare-and-swap whose new value is the old one would succeed for everybody."""
    tat, now, tolerance, longest, charge = map(word, ("tat", "now", "tolerance", "longest", "charge"))
    base = base_of(tat, now, tolerance, longest)
    new = now + base + charge
    conforms = [legal(tolerance, longest), base <= tolerance, charge >= 1, charge <= longest]
    healed = z3.And((tat - now) > tolerance + longest + SKEW)
    proved(new != tat, *conforms, z3.Not(healed))
    proved(base_of(new, now, tolerance, longest) == base + charge, *conforms)
    # A healed word lies further ahead than any charge reaches.
    proved(new != tat, *conforms, healed)


def test_an_earlier_clock_is_only_stricter() -> None:
    """Lesson 3: a stale `now` never conforms where the true one does not (both sane, a second apart at most)."""
    tat, now, tolerance, longest, late = map(word, ("tat", "now", "tolerance", "longest", "late"))
    proved(
        z3.Implies(
            base_of(tat, now - late, tolerance, longest) <= tolerance,
            base_of(tat, now, tolerance, longest) <= tolerance,
        ),
        legal(tolerance, longest), late >= 0, late <= SKEW,
        (tat - now) <= tolerance + longest, (tat - now) >= -WRAPPED,
    )  # fmt: skip


def test_room_in_is_the_number_of_units_admitted_one_by_one() -> None:
    """floor((tolerance - base) / interval) + 1 = n: the n-th unit conforms, the one after it does not."""
    base, tolerance, interval, room = z3.Ints("base tolerance interval room")
    proved(
        z3.And(base + (room - 1) * interval <= tolerance, base + room * interval > tolerance),
        interval >= 1, base >= 0, base <= tolerance, room >= 1,
        (tolerance - base) - (room - 1) * interval >= 0, (tolerance - base) - (room - 1) * interval < interval,
    )  # fmt: skip


def test_the_engine_agrees_with_room_in_over_a_grid() -> None:
    for rate in (1.0, 3.0, 999.0):
        for burst in (0.0, 0.5, 1.0):
            block = Block(
                Config(4000, 2000, allocations={"Northern Energy": rate}, burst_s=burst, sharing="none")
            )
            block.set("state", 3)
            interval = int(10**9 * 128 / rate)
            admitted = sum(bool(block.engine.admit_at(1, 0, 0)) for _ in range(2000))
            assert admitted == int(burst * 10**9) * 128 // interval + 1


def test_seconds_are_never_fewer_than_the_nanoseconds_they_stand_for() -> None:
    """`retry_after` in seconds, read back as nanoseconds, is at least the place that was taken."""
    config = Config(4000, 2000, allocations={"Northern Energy": 7.0}, max_retry_after_s=86_400)
    block = Block(config)
    for _ in range(30):
        block.engine.admit_at(1, 0, 0)
    for _ in range(20_000):
        seconds = block.engine.retry_after(1, 0)
        place = (block.engine.words(1)[2] + 127) // 128
        assert place <= int(seconds * 1e9) <= place + 1
