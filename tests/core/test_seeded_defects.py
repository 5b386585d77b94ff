"""Every test can fail: each defect, put into a copy of the engine, is found by the test that is there for it.

What only a killed or a stopped worker shows (counts before buckets, counts folded together while they are adopted,
a lock in the block) is in tests/shared/test_seeded_defects.py.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from seeded import ROOT, Change, Copy, put_in

pytest.importorskip("Cython", reason="building a copy of the engine needs Cython and a compiler")
P = "test_properties.py::test_"
LESSON = "test_lessons.py::test_lesson_"
THREADS = "core/test_threads.py::test_"
ORACLE = "core/test_oracle.py::test_engine_and_oracle_decide_alike"

DECIDE, BATCH, GCRA = "_core/decide.pxd", "_core/batch.pxd", "_core/gcra.pxd"
BUCKET, ATOMIC = "_core/bucket.pxd", "_core/atomic.pxd"
TICK, RETRY, TERMS, ENGINE = "_core/tick.pxd", "_core/retry.pxd", "_core/terms.pxd", "_core/engine.pyx"
BRAKED = "if terms.sharing == HARD or backlog_at(door, slab, &terms.queue, now) > terms.brake:"
TAKEN = "        if swap_if(word, &tat, plus(now, base + cost * interval)):\n"
TAKEN_AT_ONCE = "        if likely(swap_if(word, &tat, plus(now, base + cost * interval))):\n"
WRITTEN = "        write(word, plus(now, base + cost * interval))\n        if True:\n"
IMPORTED = "from .atomic cimport add, likely, read, swap_if, unlikely\n"
WRITES = ("_core/bucket.pxd", IMPORTED, IMPORTED.replace("unlikely", "unlikely, write"))
ASKED = "longest_cost * interval)\n        if base > tolerance:\n"
ASKED_AT_ONCE = "<int64_t>0)\n        if unlikely(base > tolerance):\n"
OWN_AT_ONCE = "    if unlikely(interval == 0) or unlikely(not take_at_once("
LISTED = "        return told(plan, place.listed,"
CHARGED = "        charge_load(plan, &plan.queue, cost, now)\n"
HELD = "read(&plan.slab.pending) + cost\n    if unlikely"
HELD_LATE = "read(&plan.slab.pending) + cost\n    if due"
RECHECKED = "    if unlikely(recheck(&plan.control.generation) != place.generation):\n"
OWN_FIRST = "    elif terms.rule.interval and take("
PUBLISHED = "    publish(&control.generation, generation)\n"

#: Defect: the changes that make it, and the test that must fail on them.
DEFECTS: dict[str, tuple[list[Change], str]] = {
    # -- who is admitted
    "the clock is not read again before a refusal": (
        [(DECIDE, "            now = clock_exact()\n", "")],
        P + "p1_holds_with_the_real_clock_read_late",
    ),
    "spare capacity is asked before the own bucket": (
        [
            (DECIDE, OWN_AT_ONCE, "    if active(plan.control):\n        return ~0\n" + OWN_AT_ONCE),
            (
                DECIDE,
                OWN_FIRST,
                "    elif active(door.control) and spare_for(door, slab, user, &terms, cost, stamp):\n"
                "        outcome = SPARE_CAPACITY\n" + OWN_FIRST,
            ),
        ],
        "test_mechanism.py::test_the_own_bucket_is_asked_before_spare_capacity",
    ),
    "a refusal writes": (
        [(BUCKET, ASKED, ASKED + "            write(word, plus(now, base + interval))\n"), WRITES],
        LESSON + "7_a_refusal_writes_nothing_to_the_bucket",
    ),
    "one unit more than the tolerance": (
        [
            (BUCKET, ASKED, ASKED.replace("tolerance:", "tolerance + interval:")),
            (BUCKET, ASKED_AT_ONCE, ASKED_AT_ONCE.replace("tolerance:", "tolerance + interval:")),
        ],
        LESSON + "8_tolerance_is_not_burst_plus_one_more",
    ),
    "the interval is rounded against the User": (
        [("terms.py", "SECOND * per // units if", "-(-SECOND * per // units) if")],
        "core/test_gcra.py::test_a_saturated_bucket_is_within_one_in_a_million_over_a_long_time",
    ),
    "priority is charged to the allocation": (
        [
            (
                DECIDE,
                LISTED,
                "        if interval:\n            take_at_once(place.word, interval, tolerance, cost,"
                " stamp_of(now))\n" + LISTED,
            )
        ],
        "core/test_gcra.py::test_a_request_on_the_priority_list_is_not_charged_to_the_allocation",
    ),
    "observe mode refuses": (
        [(DECIDE, "SPARE_CAPACITY if outcome == THROTTLED and plan.observe else <int>outcome", "<int>outcome")],
        LESSON + "15_a_dry_run_counts_what_it_would_refuse_and_refuses_nothing",
    ),
    "impossible words are believed": (
        [(GCRA, "    if lead > tolerance + longest + SKEW:\n", "    if False:\n")],
        P + "p10_any_word_in_the_block_heals",
    ),
    "the words of Users are never looked at": (
        [(TICK, "        if since >> WORDS_SHIFT != now >> WORDS_SHIFT:\n", "        if False:\n")],
        LESSON + "9_years_of_idling_overflow_nothing",
    ),
    "every tick fetches the lines of all Users": (
        [(TICK, "        if since >> WORDS_SHIFT != now >> WORDS_SHIFT:\n", "        if True:\n")],
        "core/test_healed.py::test_a_tick_leaves_the_words_of_users_alone_but_for_one_in_73_minutes",
    ),
    "an idle word wraps round to the future": (
        [(TICK, "    if idle or lead < -WRAPPED or lead > WRAPPED:\n", "    if False:\n")],
        LESSON + "9_years_of_idling_overflow_nothing",
    ),
    "every caller is told the same instant": (
        [(RETRY, "if swap_if(word, &found, plus(now, place)):\n            break", "break")],
        LESSON + "18_callers_are_told_different_instants",
    ),
    "the candidate is asked at a later time than the allocation": (
        [(DECIDE, "            clock_is_ours = False\n", "")],
        "core/test_candidate.py::test_by_the_clock_too_a_candidate_that_is_the_allocation_never_differs",
    ),
    # -- the load, activation and spare capacity
    "priority is not charged to the backlog": (
        [
            (DECIDE, HELD, HELD.replace("cost", "(cost if outcome != PRIORITY else 0)")),
            (DECIDE, HELD_LATE, HELD_LATE.replace("cost", "(cost if outcome != PRIORITY else 0)")),
            (DECIDE, CHARGED, CHARGED.replace("        charge", "        if outcome != PRIORITY:\n            charge")),
        ],
        P + "p2_a_flood_on_the_priority_list_is_load_like_any_other",
    ),
    "a worker that saw room for one block takes two": (
        [(TICK, "            look_again(plan)\n", "")],
        "core/test_oracle.py::test_it_is_active_at_the_very_unit_wherever_a_tick_or_a_change_comes",
    ),
    "activation waits for the ticker": (
        [
            (DECIDE, "    if unlikely(backlog > queue.activation) and", "    if False and"),
            (
                TICK,
                "        calm_down(control, settings, quiet_us, now)\n",
                ("        if not read(&control.state) & 1 and "
                "ahead(read(&control.backlog), stamp_of(now)) > settings.activation:\n"
                "            write(&control.state, read(&control.state) + 3)\n"
                "        calm_down(control, settings, quiet_us, now)\n"),
            ),
        ],
        P + "p4_the_load_of_every_window_is_within_the_derived_bound",
    ),
    "deactivation looks at the admitted load": (
        [(TICK, "    if read(&control.offered) >= settings.", "    if read(&control.load) >= settings.")],
        P + "p7_it_stays_active_while_refused_load_is_still_offered",
    ),
    "no hold": (
        [(TICK, " or read(&control.quiet_us) < settings.hold_us or ", " or ")],
        P + "p7_it_stays_active_for_the_hold_once_the_load_is_low",
    ),
    "no brake": (
        [(DECIDE, BRAKED, "if terms.sharing == HARD:"), (BATCH, BRAKED, "if terms.sharing == HARD:")],
        P + "p4_holds_for_any_traffic_and_tighter_while_active",
    ),
    "the level does not look at the backlog": (
        [(TICK, "        spare = given(settings, spare, ", "        given(settings, spare, ")],
        P + "p6_holds_for_who_asks_for_twice_its_share_while_the_rest_moves",
    ),
    "the level is solved without the weights": (
        [(TICK, "= aside.weight[half]\n", "= 1024\n")],
        ORACLE,
    ),
    "everybody gets an equal part of the spare capacity": (
        [("terms.py", "tolerance, SECOND * RATE // weight, weight,", "tolerance, SECOND, RATE,")],
        P + "p6_spare_capacity_is_shared_by_weight",
    ),
    # -- batches
    "a batch grants one too many": (
        [(GCRA, "return (tolerance - base) // interval + 1", "return (tolerance - base) // interval + 2")],
        "core/test_oracle.py::test_admit_many_leaves_the_words_a_loop_of_admit_at_leaves",
    ),
    "what is left in a histogram is counted as admitted": (
        [("_core/histogram.pxd", "outcome = one.rest if", "outcome = 2 if")],
        "core/test_oracle.py::test_admit_many_leaves_the_words_a_loop_of_admit_at_leaves",
    ),
    "a batch does not ask whether the terms have changed": (
        [(BATCH, "        if recheck(&door.control.generation) == generation:\n", "        if True:\n")],
        THREADS + "a_batch_charges_by_one_version_of_the_terms",
    ),
    # -- threads
    "a bucket is read, then written": (
        [(BUCKET, TAKEN, WRITTEN), (BUCKET, TAKEN_AT_ONCE, WRITTEN), WRITES],
        THREADS + "lanes_admit_exactly_what_one_thread_would",
    ),
    "a batch swaps without comparing": (
        [
            (
                BATCH,
                "        if swap_if(word, &tat, plus(now, base + given * interval)):\n",
                "        tat = read(word)\n        if swap_if(word, &tat, plus(now, base + given * interval)):\n",
            )
        ],
        THREADS + "batches_of_many_users_charge_every_bucket_for_what_they_admit",
    ),
    "a common counter is read, then written": (
        [(ATOMIC, "    if shared:\n        add(cell, amount)\n", "    if False:\n        add(cell, amount)\n")],
        THREADS + "lanes_that_count_in_one_slab_lose_no_count",
    ),
    "terms are read without asking whether they have changed": (
        [(DECIDE, RECHECKED, "    if False:\n")],
        THREADS + "a_lane_charges_by_one_version_of_the_terms",
    ),
    "new terms are in force before they are written": (
        [
            (TERMS, "    begin_writing()\n", PUBLISHED + "    begin_writing()\n"),
            (TERMS, PUBLISHED + "\n\ncdef inline void begin_block", "\n\ncdef inline void begin_block"),
        ],
        THREADS + "a_lane_charges_by_one_version_of_the_terms",
    ),
    "a gate keeps a slot of the terms before": (
        [(DECIDE, "plan.generation if plan.generation == generation else NO_SHORT_WAY", "plan.generation")],
        "core/test_gate.py::test_terms_that_change_while_a_gate_looks_for_its_user_are_followed",
    ),
    "a gate follows once": (
        [("_core/handles.pxi", "FOLLOWED_AT_MOST = 8", "FOLLOWED_AT_MOST = 1")],
        "core/test_gate.py::test_terms_that_change_while_a_gate_follows_are_followed_too",
    ),
    "a gate counts in the slab of its parent": (
        [("_core/handles.pxi", "\n                    or self.life != self.engine.life)", ")")],
        "shared/test_processes.py::test_no_call_of_a_forked_child_writes_to_its_parents_slab",
    ),
    "a clock put before the library's is passed by": (
        [(ENGINE, "    if address and library and library == library_clock():\n", "    if address:\n")],
        "core/test_clock.py::test_a_clock_put_before_the_librarys_is_the_engines_too",
    ),
    "a tick gives the GIL away": (
        [
            (
                ENGINE,
                "        return ticked(self, at)\n",
                ("        cdef bint ran\n        with nogil:\n"
                "            ran = tick(&self.plan, at)\n"
                "        return ran\n"),
            )
        ],
        THREADS + "no_scalar_call_runs_beside_a_tick",
    ),
    "a fork leaves the tick taken": (
        [(ENGINE, "        self.scratch.busy = 0\n", "")],
        THREADS + "a_child_forked_in_the_middle_of_a_tick_ticks",
    ),
    "a reader folds the counts": (
        [
            (
                TERMS,
                "            total[(first + i) * step] += read(part + i)\n",
                ("            total[(first + i) * step] += read(part + i)\n"
                "            if slab != slab_at(door, 0) and step == 1:\n"
                "                part[i] = 0\n"),
            ),
            (
                TERMS,
                "                sum_of += users\n",
                ("                sum_of += users\n"
                "        if index + 1 == read(&door.control.slabs_used):\n"
                "            for srv in range(OUTCOMES * door.srv_slots * users):\n"
                "                sum_of = units_of(door, slab_at(door, 0), srv % users,\n"
                "                                  srv // users // door.srv_slots)\n"
                "                sum_of[(1 + srv // users % door.srv_slots) * door.column] = total[srv]\n"),
            ),
        ],
        "core/test_engine_errors.py::test_looking_writes_nothing",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("copy"))


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="one of the tests forks")
def test_an_unchanged_copy_passes_what_finds_the_defects(
    copy: Copy, record_property: Callable[[str, Any], None]
) -> None:
    copy.build()
    named = sorted({test for _, test in DEFECTS.values()})
    status, told = copy.test(*named, timeout_s=600)
    assert status == 0, told
    record_property("tests", int(re.findall(r"(\d+) passed", told)[-1]))


@pytest.mark.parametrize("name", DEFECTS)
def test_a_seeded_defect_has_its_place(name: str) -> None:
    put_in(ROOT, DEFECTS[name][0])


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize("name", DEFECTS)
def test_a_seeded_defect_is_found(copy: Copy, name: str, record_property: Callable[[str, Any], None]) -> None:
    changes, named = DEFECTS[name]
    with copy.changed(changes):
        copy.build()
        begun = time.monotonic()
        status, told = copy.test(named)
        assert status == 1, f"not found: {name}\n{told[-3000:]}"
        assert re.search(rf"^FAILED tests/{re.escape(named)}", told, re.MULTILINE), told[-3000:]
        assert "Timeout" not in told and "HANGS" not in told, told[-3000:]
        record_property("defects_found", 1)
        record_property("found_by", named)
        record_property("found_in_s", round(time.monotonic() - begun, 1))
