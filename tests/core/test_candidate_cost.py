"""What a candidate allocation costs, in instructions: the same number on a busy machine and on an idle one.

Counted by valgrind in a loop in C over one User, with the engine built as it is shipped, and beside it one from which
the candidate was taken out. Nanoseconds are in bench/test_candidate_bench.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from extensions import build_extensions
from seeded import ROOT, Change, Copy, put_in

pytest.importorskip("Cython", reason="building a copy of the engine needs Cython and a compiler")

N = 10_000
EXTENSIONS = "extensions"
DECIDE, PLAN = "_core/decide.pxd", "_core/plan.pxd"
ASKED = (
    "    tell(plan, user, srv, outcome, cost)\n"
    "    if plan.candidate and outcome == WITHIN_ALLOCATION and not agreed_at_once(plan, user, cost, now):\n"
    "        compare(plan.door, plan.slab, user, srv, outcome, now, clock_is_ours, plan.shared)\n"
)
REFUSED = (
    "        outcome = decide_fully(plan, user, srv, now, False)\n"
    "    if plan.candidate and outcome != PRIORITY:\n"
    "        compare(plan.door, plan.slab, user, srv, <int>outcome, now, clock_is_ours, plan.shared)\n"
)
WITHOUT: list[Change] = [
    (PLAN, "        plan.candidate = read(&settings.candidate)\n", ""),
    (PLAN, "    plan.short_since = NEVER if plan.candidate else since\n", "    plan.short_since = since\n"),
    (DECIDE, ASKED, ASKED[: ASKED.index("\n") + 1]),
    (DECIDE, REFUSED, REFUSED[: REFUSED.index("\n") + 1]),
]

#: Everything is inside the allocation, and inside the candidate where there is one.
PROGRAM = """
import sys
from from_c import storm
from tmm_core import Config, Mechanism

n, srv, tried = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "tried"
rates = {"A": 100_000.0}
config = Config(1e6, 1e6, allocations=rates, candidate_allocations=rates if tried else None, priority=["7.4"])
mechanism = Mechanism(config, start=10**15)
assert storm(mechanism.lane(), mechanism.user("A"), mechanism.srv(srv), 10**15 + 10**9, n) == n
counts = mechanism.snapshot(10**15 + 10**9).counts.sum(axis=(0, 1)).tolist()
assert counts == ([0, 0, 0, n] if srv == "7.4" else [0, 0, n, 0]), counts
"""


def counted(copy: Copy, srv: str, candidate: str) -> float:
    """Return instructions a decision."""
    program = copy.folder / "count.py"
    program.write_text(PROGRAM, encoding="utf-8")
    found = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=storm", sys.executable,
         str(program), str(N), srv, candidate],
        env={**os.environ, "PYTHONPATH": f"{copy.folder / 'src'}:{copy.folder / EXTENSIONS}", "PYTHONHASHSEED": "0"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-3000:]
    collected = re.search(r"Collected : (\d+)", found.stderr)
    assert collected is not None, found.stderr[-3000:]
    return int(collected[1]) / N


def test_what_is_taken_out_has_its_place() -> None:
    put_in(ROOT, WITHOUT)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts the instructions")
def test_instructions_of_a_candidate(tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
    copy = Copy(tmp_path, optimised=True)
    copy.build()
    (tmp_path / EXTENSIONS).mkdir()
    build_extensions(tmp_path / EXTENSIONS)
    unused, used = counted(copy, "4.1.1", "none"), counted(copy, "4.1.1", "tried")
    listed, listed_used = counted(copy, "7.4", "none"), counted(copy, "7.4", "tried")
    with copy.changed(WITHOUT):
        copy.build()
        without = counted(copy, "4.1.1", "none")
    figures = {
        "without": without,
        "unused": unused,
        "used": used,
        "priority": listed,
        "priority_used": listed_used,
    }
    for name, value in figures.items():
        print(f"{name:14} {value:6.1f} instructions a decision")
        record_property(name, round(value, 1))
    assert without > 50, "too few to be a decision"
    # Nothing on the short way asks for it; the compiler may lay that out otherwise by an instruction or two.
    assert abs(unused - without) <= 3
    # One more bucket and its terms. Asking it of everybody, or twice, would be as much again.
    assert 30 <= used - unused <= 140
    # What is on the priority list is no matter of a candidate: no bucket is asked, only the short way is not taken.
    assert listed_used - listed <= 100
