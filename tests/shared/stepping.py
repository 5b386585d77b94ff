"""Stepping: a block whose state can be put back, and a worker that stops after the instruction one wants."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tmm_core import Config, Mechanism
from tmm_core.engines import layout, native

SUPPORTED = sys.platform == "linux" and platform.machine() == "x86_64" and shutil.which("cc") is not None

START = 10**12
SECOND = 10**9
EVERYWHERE = (0, 2**63)
#: Every so many instructions: each of them in the long run.
EVERY = [
    pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(1800)], id="each"),
    pytest.param(9, id="some"),
]


def built(folder: Path) -> Any:
    """The stepper, compiled."""
    made = folder / "stepper.so"
    source = Path(__file__).with_name("stepper.h")
    subprocess.run(
        ["cc", "-x", "c", "-O1", "-shared", "-fPIC", "-o", str(made), str(source)], check=True, timeout=50
    )
    library = ctypes.CDLL(str(made))
    library.step.restype = ctypes.c_long
    library.step.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_uint64, ctypes.c_uint64]
    library.trail.restype = ctypes.c_long
    library.trail.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_long]
    library.arrive.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_long]
    library.calls.restype = ctypes.c_long
    library.calls.argtypes = [ctypes.c_int, ctypes.c_long]
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
        ranges = layout().base_ranges(header.user_slots, header.srv_slots, 4)
        for slab in range(5):
            ranges += layout().slab_ranges(header.user_slots, header.srv_slots, slab, 4)
        memory = self.mechanism.block.memory  # type: ignore[union-attr]
        self.kept = [(begin, memory[begin : begin + n].copy()) for begin, n in ranges]

    def put_back(self) -> None:
        memory = self.mechanism.block.memory  # type: ignore[union-attr]
        for begin, content in self.kept:
            memory[begin : begin + len(content)] = content

    def seen(self, user: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
        engine = self.mechanism.engine
        return engine.counts()[user].sum(axis=0), engine.units()[user], engine.words(user)


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


def engine_code(pid: int) -> tuple[int, int]:
    """Where the engine's own instructions are in a process."""
    name = Path(native.__file__).name
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith(name) and " r-xp " in line:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            return begin, end
    raise AssertionError("the engine is not mapped")


def trail_of(child: int, stepper: Any) -> list[tuple[int, int]]:
    """Every instruction of the engine up to the second breakpoint: its address, and for which time it comes."""
    addresses = np.zeros(1_000_000, dtype=np.uint64)
    found = stepper.trail(child, *engine_code(child), addresses.ctypes.data, len(addresses))
    assert found > 0, f"no instruction, or more than {len(addresses):,}"
    times: dict[int, int] = {}
    trail = []
    for address in addresses[:found].tolist():
        times[address] = times.get(address, 0) + 1
        trail.append((address, times[address]))
    return trail
