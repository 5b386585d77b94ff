"""A worker is killed, and frozen, after every instruction of a decision: the others go on, and nothing is wrong."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tmm_core import Config, Decision, Mechanism
from tmm_core.engines import LAYOUT, native
from tmm_core.terms import terms_of

if sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which("cc") is None:
    pytest.skip("stepping needs Linux on x86-64 and a C compiler", allow_module_level=True)

START = 10**12
SECOND = 10**9
EVERYWHERE = (0, 2**63)
#: Every so many instructions: each of them in the long run.
EVERY = [
    pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(1800)], id="each"),
    pytest.param(9, id="some"),
]


@pytest.fixture(scope="module")
def stepper(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = tmp_path_factory.mktemp("stepper") / "stepper.so"
    source = Path(__file__).with_name("stepper.h")
    subprocess.run(
        ["cc", "-x", "c", "-O1", "-shared", "-fPIC", "-o", str(made), str(source)], check=True, timeout=50
    )
    library = ctypes.CDLL(str(made))
    library.step.restype = ctypes.c_long
    library.step.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_uint64, ctypes.c_uint64]
    library.decide.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_int64,
    ]  # fmt: skip
    return library


def capsule(value: object, name: bytes) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    pointer: int = get(value, name)
    return pointer


class Host:
    """A block whose state can be put back, and the parent that goes on deciding in it."""

    def __init__(self, path: Path, sharing: str) -> None:
        config = Config(
            2000, 1000, allocations={"Deep Ltd": 100.0, "Shallow Ltd": 10.0}, priority=["7.4"], sharing=sharing,
            activation_s=0.25, shared=str(path / "block"),
        )  # fmt: skip
        self.mechanism = Mechanism.open(config, start=START)
        self.config = config
        self.srv = self.mechanism.srv("4.1.1")
        self.now = START

    def activate(self, later: int) -> None:
        """Offer a second's worth at once: active. Then let time pass: the backlog is gone, the level is known."""
        shallow = self.mechanism.user("Shallow Ltd")
        for _ in range(1000):
            self.mechanism.admit_at(shallow, self.srv, START)
        assert self.mechanism.snapshot(START).active
        self.now = START + later
        for _ in range(30):
            self.mechanism.admit_at(shallow, self.srv, self.now)

    def keep(self) -> None:
        header = self.mechanism.block.header  # type: ignore[union-attr]
        ranges = LAYOUT.base_ranges(header.user_slots, header.srv_slots, 4)
        for slab in range(5):
            ranges += LAYOUT.slab_ranges(header.user_slots, header.srv_slots, slab, 4)
        memory = self.mechanism.block.memory  # type: ignore[union-attr]
        self.kept = [(begin, memory[begin : begin + n].copy()) for begin, n in ranges]

    def put_back(self) -> None:
        memory = self.mechanism.block.memory  # type: ignore[union-attr]
        for begin, content in self.kept:
            memory[begin : begin + len(content)] = content

    def seen(self, user: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
        engine = self.mechanism.engine
        return engine.counts()[user].sum(axis=0), engine.units()[user], engine.words(user)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    made: list[Host] = []

    def make(sharing: str) -> Host:
        made.append(Host(tmp_path, sharing))
        return made[-1]

    yield make
    for host in made:
        host.mechanism.close()


def started(act: Callable[[], None], stepper: Any) -> int:
    """Fork a worker that stops at its first breakpoint."""
    child = os.fork()
    if child == 0:
        try:
            stepper.trace_me()
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSTOPPED(status), status
    assert os.WSTOPSIG(status) == signal.SIGTRAP
    return child


def ended(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


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
    stepper: Any,
    hosts: Callable[[str], Host],
    case: str,
    fate: str,
    every: int,
    record_property: Callable[[str, Any], None],
) -> None:
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


def engine_code(pid: int) -> tuple[int, int]:
    """Where the engine's own instructions are in a process."""
    name = Path(native.__file__).name
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith(name) and " r-xp " in line:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            return begin, end
    raise AssertionError("the engine is not mapped")


@pytest.mark.parametrize("every", EVERY)
def test_a_worker_is_killed_while_it_puts_terms_in_force(
    stepper: Any, hosts: Callable[[str], Host], every: int
) -> None:
    host = hosts("none")
    mechanism, engine = host.mechanism, host.mechanism.engine
    changed = replace(host.config, allocations={"Deep Ltd": 50.0, "Shallow Ltd": 10.0}, priority=["4.1.1"])
    snapshot = mechanism.snapshot(START)
    terms = terms_of(changed, snapshot.users, snapshot.srvs)
    user, generation = mechanism.user("Deep Ltd"), engine.generation
    host.keep()

    def act() -> None:
        mechanism.block.renew(engine)  # type: ignore[union-attr]
        stepper.trap()
        engine.apply(*terms, START)
        stepper.trap()

    child = started(act, stepper)
    code = engine_code(child)
    length = stepper.step(child, 10**7, *code)
    ended(child)
    assert engine.generation == generation + 1
    assert length > 500
    outcomes = set()
    for instruction in range(0, length, 1 if every == 1 else length // 25):
        host.put_back()
        child = started(act, stepper)
        assert stepper.step(child, instruction, *code) == instruction
        ended(child)
        new = engine.generation - generation
        assert new in (0, 1)
        # Old terms or new ones, never some of each.
        decision = mechanism.admit_at(user, host.srv, START)
        assert decision is (Decision.PRIORITY if new else Decision.WITHIN_ALLOCATION), instruction
        interval = 128 * SECOND // (50 if new else 100)
        mechanism.admit_at(user, mechanism.srv("4.2"), START)
        assert (engine.words(user)[0] - START * 128) % interval == 0, instruction
        outcomes.add(new)
        # The lock for changes went with its owner: another process applies the same, whole.
        engine.apply(*terms, START)
        assert mechanism.admit_at(user, host.srv, START) is Decision.PRIORITY
    assert outcomes == {0, 1}


@pytest.mark.parametrize("every", EVERY)
def test_a_worker_is_killed_while_it_adopts(stepper: Any, hosts: Callable[[str], Host], every: int) -> None:
    host = hosts("none")
    mechanism = host.mechanism
    user = mechanism.user("Deep Ltd")

    def leave() -> None:
        for _ in range(7):
            mechanism.admit_at(user, host.srv, START)

    child = os.fork()
    if child == 0:
        leave()
        os._exit(0)
    os.waitpid(child, 0)
    host.keep()
    whole = host.seen(user)
    assert whole[0].sum() == 7

    def act() -> None:
        slab = mechanism.block.claim_first()  # type: ignore[union-attr]
        stepper.trap()
        mechanism.engine.start_over(slab)
        stepper.trap()

    child = started(act, stepper)
    code = engine_code(child)
    length = stepper.step(child, 10**7, *code)
    ended(child)
    assert length > 100
    for instruction in range(0, length, 1 if every == 1 else length // 15):
        host.put_back()
        child = started(act, stepper)
        assert stepper.step(child, instruction, *code) == instruction
        ended(child)
        counts, units, words = host.seen(user)
        assert counts.tolist() == whole[0].tolist(), f"instruction {instruction}: adopting moves no count"
        assert units.tolist() == whole[1].tolist()
        assert words == whole[2]
        child = os.fork()  # the next one adopts it all the same
        if child == 0:
            leave()
            os._exit(mechanism.block.slabs != {2})  # type: ignore[union-attr]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert host.seen(user)[0].sum() == 14
