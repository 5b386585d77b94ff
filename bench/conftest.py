"""The floors built as another project would build them, limits asserted, and the table of a run.

``--write-table`` puts the table into bench/README.md, with machine and date.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measure import FLOORS

import tmm_core
from tmm_core import Config, Mechanism

HERE = Path(__file__).parent
#: The tables of a run: where, between which marks, and which lines of floors.toml (all where None). A table is written
#: where its lines, or those of the front page, were measured.
FRONT = (
    "scalar_admit", "gate_admit", "lane_now", "refusal", "batch_65536", "dsp_peak_throughput", "dsp_peak_share",
    "faster_than_limits", "faster_than_throttled", "faster_than_rust",
)  # fmt: skip
SIMULATOR = ("simulator_open", "simulator_open_throttling", "simulator_closed", "simulator_closed_throttling")
TABLES = (
    (HERE / "README.md", "table", None),
    (HERE.parent / "README.md", "speed", FRONT),
    (HERE.parent / "docs" / "simulation.md", "speed", SIMULATOR),
)

SETUP = """
import numpy, sys
from setuptools import Extension, setup
from Cython.Build import cythonize
import tmm_core

extension = Extension("floors", [sys.argv.pop()], include_dirs=[tmm_core.get_include(), numpy.get_include()],
                      extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-std=gnu11"])
setup(name="floors", ext_modules=cythonize([extension], build_dir="."))
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: what was measured, how it compares, what the limit is."""

    name: str
    what: str
    ours: str
    compared: str
    limit: str
    target: str
    kept: bool


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that keeps the table."""
    parser.addoption(
        "--write-table", action="store_true", help="write the table of this run into bench/README.md"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin with an empty table."""
    config.stash[LINES] = []


LINES = pytest.StashKey[list[Line]]()


@pytest.fixture(scope="session")
def floors(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Build bench/floors.pyx against the installed package and import it."""
    folder = tmp_path_factory.mktemp("floors")
    (folder / "setup.py").write_text(SETUP, encoding="utf-8")
    built = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", ".", str(HERE / "floors.pyx")],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(Path(tmm_core.__file__).parents[1])},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert built.returncode == 0, f"{built.stdout}\n{built.stderr}"
    sys.path.insert(0, str(folder))
    return import_module("floors")


@pytest.fixture
def judge(request: pytest.FixtureRequest, benchmark: Any) -> Callable[..., None]:
    """Return a function that compares a figure with its limit in floors.toml and keeps a line of the table."""

    def judge_it(name: str, what: str, figure: float, ours: str, compared: str) -> None:
        floor = FLOORS[name]
        limit, least = (floor.get("at_most"), False) if "at_most" in floor else (floor["at_least"], True)
        kept = figure >= limit if least else figure <= limit
        unit = floor.get("unit", "times")
        sign = "at least" if least else "at most"
        benchmark.extra_info.update({name: figure, "limit": limit})
        aim = floor.get("target", limit)
        reached = "reached" if (figure >= aim if least else figure <= aim) else f"not reached: {aim:g}"
        line = Line(name, what, ours, compared, f"{sign} {limit:g} {unit}", reached, kept)
        request.config.stash[LINES].append(line)
        assert kept, (
            f"{what}: {ours}; {compared}; expected {sign} {limit:g} {unit} ({floor['of']}: {floor['why']})"
        )

    return judge_it


@pytest.fixture
def mechanism() -> Iterator[Mechanism]:
    """A Mechanism with everything switched on, whose Users stay inside their allocations."""
    with Mechanism(config_of(300)) as made:
        yield made


def config_of(users: int) -> Config:
    """Return a configuration in which nobody is ever over its allocation: the common case, all tests made."""
    return Config(
        system_capacity=1e9, operating_threshold=9e8, allocations={f"User {n}": 100.0 for n in range(1, users + 1)},
        priority=["2.2", "7.4"], costs={"4.8.1": 4}, burst_s=3600, unknown_allocation=1.0, max_users=users,
    )  # fmt: skip


def traffic(mechanism: Mechanism, n: int, users: int, *, seed: int = 1) -> tuple[Any, Any, Any]:
    """Return arrays for a batch: Users drawn evenly, SRVs of every kind, room for the answers."""
    random = np.random.default_rng(seed)
    srvs = np.array(
        [mechanism.srv(code) for code in ("4.1.1", "4.6.1", "2.2", "6.13", "8.2")], dtype=np.uint16
    )
    return (
        random.integers(1, users + 1, n).astype(np.uint32),
        srvs[random.integers(0, len(srvs), n)],
        np.empty(n, dtype=np.uint8),
    )


def machine() -> str:
    """Return what the figures were measured on."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()}; CPython {platform.python_version()}, "
        f"NumPy {np.__version__}, tmm-core {tmm_core.__version__}"
    )


def table(lines: list[Line]) -> str:
    """Return the table in Markdown."""
    rows = ["| what | here | compared with | limit | target |", "|---|---|---|---|---|"]
    rows += [
        f"| {line.what} | {line.ours} | {line.compared} | {line.limit}{'' if line.kept else ' **missed**'} "
        f"| {line.target} |"
        for line in lines
    ]
    return "\n".join(rows)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show the table, and keep it where asked."""
    lines = config.stash[LINES]
    if not lines:
        return
    terminalreporter.section("ratios, each measured in this run")
    for line in lines:
        terminalreporter.write_line(
            f"{'ok  ' if line.kept else 'MISS'} {line.what}: {line.ours}; {line.compared}; {line.limit}; "
            f"target {line.target}"
        )
    if config.getoption("--write-table"):
        measured = {line.name for line in lines}
        for file, mark, names in TABLES:
            if measured.issuperset(names or FRONT):
                of_it = [line for line in lines if names is None or line.name in names]
                write_table(file, mark, of_it, names is None)


def write_table(file: Path, mark: str, lines: list[Line], limits: bool) -> None:
    """Put a table between the marks of a page, with machine and date."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    before, _, rest = file.read_text(encoding="utf-8").partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{file} has no {begin} ... {end}"
    today = datetime.now(UTC).date().isoformat()
    rows = table(lines) if limits else short_table(lines)
    made = f"Made by `make bench-table` on {today}: {machine()}."
    file.write_text(f"{before}{begin}\n{made}\n\n{rows}\n{end}{after}", encoding="utf-8")


def short_table(lines: list[Line]) -> str:
    """Return the table without limits and targets."""
    rows = ["| what | here | compared with |", "|---|---|---|"]
    return "\n".join([*rows, *(f"| {line.what} | {line.ours} | {line.compared} |" for line in lines)])
