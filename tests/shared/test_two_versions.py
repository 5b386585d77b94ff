"""Two versions of the package on one block: the newcomer is refused, whichever it is, and nobody is disturbed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from seeded import ROOT, Copy

from tmm_core.engines import native

from .written import written

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="needs a shared block and holes in files"),
]
SAME = ROOT / "src"
VERSION = native.layout_words()["LAYOUT_VERSION"]
VERSION_IS = "    LAYOUT_VERSION = {}\n"

#: A gateway that does what it is told by lines: decide so often, and say what is counted in all.
WORKER = """
import logging, sys
from tmm_core import Config, Mechanism, MemoryLayoutError
logging.basicConfig(stream=sys.stderr)
config = Config(500, 400, allocations={"Northern Energy": 300.0}, shared=sys.argv[1])
try:
    mechanism = Mechanism.open(config, start=10**12, on_block_error=sys.argv[2])
except MemoryLayoutError as error:
    print("refused", error, flush=True)
    raise SystemExit(7)
print("private" if mechanism.block is None else "shared", mechanism.block_error, flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        mechanism.admit_at(mechanism.user("Northern Energy"), 5, 10**12)
    print(mechanism.snapshot(10**12).counts.sum(), flush=True)
"""


class Gateway:
    """A worker of one of the versions."""

    def __init__(self, source: Path, block: Path, on_block_error: str = "raise") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(block), on_block_error],
            env={**os.environ, "PYTHONPATH": str(source)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said = self.line()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def decide(self, n: int) -> int:
        """Decide, and return how many decisions are counted in all."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return int(self.line())

    def end(self) -> tuple[int, str]:
        """End it; returns its status and what it logged."""
        _, logged = self.process.communicate(timeout=30)
        return self.process.returncode, logged


@contextmanager
def gateways(*made: Any) -> Iterator[list[Gateway]]:
    started = [Gateway(*each) for each in made]
    try:
        yield started
    finally:
        for each in started:
            each.process.kill()
            each.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a version with another layout will be."""
    copy = Copy(tmp_path_factory.mktemp("other"))
    with copy.changed([("_core/layout.pxd", VERSION_IS.format(VERSION), VERSION_IS.format(VERSION + 1))]):
        copy.build()
    return copy.folder / "src"


@pytest.mark.parametrize("newer", [True, False], ids=["a-newer-one-comes", "an-older-one-comes"])
def test_another_version_is_refused_and_disturbs_nobody(tmp_path: Path, other: Path, newer: bool) -> None:
    block = tmp_path / "block"
    running, coming = (SAME, other) if newer else (other, SAME)
    found, expected = (VERSION, VERSION + 1) if newer else (VERSION + 1, VERSION)
    with gateways((running, block), (running, block)) as (one, two):
        assert [one.said, two.said] == ["shared None"] * 2
        assert one.decide(100) == 100
        assert two.decide(11) == 111
        before = written(block)
        refused = Gateway(coming, block)
        assert refused.end()[0] == 7
        assert refused.said.startswith(f"refused {block}: found a block of layout {found}, made by tmm-core ")
        assert f"expected layout {expected}: stop the processes that use it and remove it" in refused.said
        assert "or configure another name" in refused.said
        with gateways((coming, block, "private")) as (alone,):
            assert alone.said.startswith(
                f"private {block}: found a block of layout {found}, made by tmm-core "
            )
            assert alone.decide(1000) == 1000, "buckets and counts of its own"
            status, logged = alone.end()
            assert status == 0
            assert "ERROR:tmm_core:NOT SHARED: " in logged
        assert written(block) == before, "no byte of the block, no file beside it"
        assert one.decide(1) == 112
        assert two.decide(1) == 113
        # Another name: both run side by side.
        with gateways((coming, tmp_path / "next")) as (beside,):
            assert (beside.said, beside.decide(5), one.decide(0)) == ("shared None", 5, 113)
    # The documented way: stop the old ones, remove the block, start the new ones.
    for file in tmp_path.glob("block*"):
        file.unlink()
    with gateways((coming, block), (coming, block)) as (one, two):
        assert [one.said, two.said] == ["shared None"] * 2
        assert (one.decide(3), two.decide(4)) == (3, 7)
