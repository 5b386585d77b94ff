"""The proofs can fail: each defect, put into a copy of the engine, is found by the test that is there for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLD = """
        for index in range(self.door.srv_slots * OUTCOMES * 3):
            add(count_of(&self.door, slab_at(&self.door, 0), index % 3, (index // 3) % OUTCOMES, index // 12),
                read(count_of(&self.door, slab_at(&self.door, slab), index % 3, (index // 3) % OUTCOMES, index // 12)))
        for index in range(self.door.srv_slots * OUTCOMES * 3):
            write(count_of(&self.door, slab_at(&self.door, slab), index % 3, (index // 3) % OUTCOMES, index // 12), 0)
"""
TAKEN = "    if unlikely(interval == 0) or unlikely(not take_at_once("
COUNTED_FIRST = """\
    count(place.inside + (1 + <int64_t>srv) * plan.column, 1, False)
    count(place.inside, cost, False)
"""
LOCKED = """\
    while not swap_if(&plan.control.padding_2[0], &unlocked, 1):
        unlocked = 0
"""
UNLOCKED = "    write(&plan.control.padding_2[0], 0)\n"
OWNED = "    if self.host is not None and slab:\n"
COUNTED = """\
    count(units + (1 + <int64_t>srv) * plan.column, 1, False)
    count(units, cost, False)
"""
TOLD = "    tell(plan, user, srv, outcome, cost)\n    if plan.candidate"

#: Defect: file of the core, replacements, the tests that must fail, and what they must say.
DEFECTS: dict[str, tuple[str, list[tuple[str, str]], str, str]] = {
    "counter-before-bucket": (
        "decide.pxd",
        [
            (TAKEN, COUNTED_FIRST + TAKEN),
            (COUNTED, "    if outcome == PRIORITY:\n" + COUNTED.replace("    count", "        count")),
            (TOLD, TOLD.replace("    tell(", "    if outcome == PRIORITY:\n        tell(", 1)),
        ],
        "test_step.py::test_a_worker_ends_after_any_instruction_of_a_decision[admit-killed-some]",
        "counted before it was charged",
    ),
    "fold-and-reset": (
        "slabs.pxi",
        [
            (OWNED, "    cdef int64_t index\n" + OWNED.rstrip() + FOLD),
        ],
        "test_step_changes.py::test_a_worker_ends_while_it_adopts[some]",
        "adopting moves no count",
    ),
    "a-lock-in-the-block": (
        "decide.pxd",
        [
            (", cost = service >> 1\n    if unlikely", ", cost = service >> 1, unlocked = 0\n    if unlikely"),
            (TAKEN, LOCKED + TAKEN),
            (COUNTED, COUNTED + UNLOCKED),
            (TOLD, UNLOCKED + TOLD),
        ],
        "test_step.py::test_a_worker_ends_after_any_instruction_of_a_decision[admit-frozen-some]",
        "HANGS",
    ),
}  # fmt: skip


def run(folder: Path, *command: str, timeout_s: int) -> tuple[int, str]:
    """Run Python in the copy; returns its exit status and what it has said."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder / "src")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        told = process.communicate(timeout=timeout_s)[0]
    except subprocess.TimeoutExpired:
        # Spinning in C it hears no signal of pytest's: its children as well are ended by their session.
        os.killpg(process.pid, signal.SIGKILL)
        return 1, process.communicate()[0] + "\nHANGS"
    return process.returncode, told


def defective(core: Path, defect: str) -> tuple[Path, str]:
    """The file with the defect, and its text; each place of it must be there once."""
    name, changes, _, _ = DEFECTS[defect]
    text = (core / name).read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, f"{name} has changed: {old!r}"
        text = text.replace(old, new)
    return core / name, text


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_seeded_defect_has_its_place(defect: str) -> None:
    defective(ROOT / "src" / "tmm_core" / "_core", defect)


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_seeded_defect_is_found(
    defect: str, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    _, _, test, says = DEFECTS[defect]
    left_out = shutil.ignore_patterns("*.so", "__pycache__", "build")
    for part in ("src", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=left_out)
    for part in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / part).exists():
            shutil.copy(ROOT / part, tmp_path / part)
    file, text = defective(tmp_path / "src" / "tmm_core" / "_core", defect)
    file.write_text(text, encoding="utf-8")
    status, told = run(tmp_path, "setup.py", "build_ext", "--inplace", timeout_s=240)
    assert status == 0, told
    status, told = run(
        tmp_path, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/shared/{test}",
        timeout_s=60,
    )  # fmt: skip
    assert status == 1, told
    assert says in told, told
    record_property("defects_found", 1)
