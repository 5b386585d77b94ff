"""Rooms and doors: who may import whom, and what only one file may do.

Each rule is a function of a package folder that returns its breaches, one line each; each is shown to find a
breach that is put into a copy of the package.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "tmm_core"

#: Room: the rooms it may import.
DOORS: dict[str, set[str]] = {
    "errors": set(),
    "_core": set(),
    "policy": {"errors"},
    "memory": {"errors"},
    # The hall, in seven files.
    "answers": set(),
    "snapshot": {"answers"},
    "terms": {"policy", "errors"},
    "engines": {"_core", "answers", "memory", "policy"},
    "in_force": {"engines", "memory", "policy", "terms", "errors"},
    "mechanism": {
        "_core",
        "answers",
        "engines",
        "in_force",
        "memory",
        "policy",
        "snapshot",
        "terms",
        "errors",
    },
    "reload": {"mechanism", "policy", "errors"},
    "gateway": {"engines", "mechanism", "reload", "errors"},
    "operations": {"mechanism", "reload", "snapshot", "policy", "errors"},
    "__init__": {"mechanism", "policy", "memory", "snapshot", "errors"},
    "__main__": {"operations"},
}
#: The one door that is open inside a function only: file, room.
LAZY = {("operations/cli.py", "gateway")}

#: What Cython may import in the core, beside its own files.
CYTHON_IMPORTS = re.compile(r"cython|numpy|libc\.(stdint|stdlib|string|limits)|cpython\.\w+")
LONGEST_FILE = 500

Rule = Callable[[Path], list[str]]


def room_of(file: Path, package: Path) -> str:
    """Return the room a file is in: its folder, or its own name at the top."""
    inside = file.relative_to(package)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


# --- Python imports


def _absolute(node: ast.ImportFrom, file: Path, package: Path) -> str:
    """Return the absolute name of the module a ``from`` statement names."""
    if not node.level:
        return node.module or ""
    folder = ["tmm_core", *file.relative_to(package).parent.parts]
    base = folder[: len(folder) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _imports(file: Path, package: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield line, module of tmm_core and whether it is inside a function, for each import of ourselves."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    lazy = {
        id(inner)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(function)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, file, package)
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "tmm_core" else [module]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func)
            if called in {"import_module", "importlib.import_module", "__import__"}:
                names = [str(node.args[0].value)]
        for name in names:
            if name.split(".")[0] == "tmm_core":
                yield node.lineno, name, id(node) in lazy


def python_imports_use_open_doors(package: Path) -> list[str]:
    """Only the imports of DOORS; a room is imported by its own name, not through the front door."""
    breaches = []
    for file in sorted(package.rglob("*.py")):
        room, name = room_of(file, package), file.relative_to(package).as_posix()
        for line, module, lazy in _imports(file, package):
            parts = module.split(".")
            target = parts[1] if len(parts) > 1 else "__init__"
            if target == "__version__" or target == room or target in DOORS.get(room, set()):
                continue
            if lazy and (name, target) in LAZY:
                continue
            known = target in DOORS and target != "__init__"
            breaches.append(
                f"{name}:{line}: {room} imports {target}"
                if known
                else f"{name}:{line}: {module}: import it from the room it is in"
            )
    return breaches


def every_file_is_in_a_room(package: Path) -> list[str]:
    """No new room without a line in DOORS."""
    files = [file for file in package.rglob("*.py") if "__pycache__" not in file.parts]
    return [
        f"{file.relative_to(package).as_posix()}: no room {room_of(file, package)}"
        for file in sorted(files)
        if room_of(file, package) not in DOORS
    ]


# --- The core: Cython and C

_VERBATIM_C = re.compile(r'cdef\s+extern\s+from[^\n]*:\s*"""(.*?)"""', re.DOTALL)
_LITERALS = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|/\*.*?\*/|#[^\n]*',
    re.DOTALL,
)


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n") or " "


def code_of(file: Path) -> str:
    """Return the code of a Cython or C file, line by line: no comments and no strings, but its verbatim C."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".h":
        return re.sub(r"/\*.*?\*/|//[^\n]*", _blank, text, flags=re.DOTALL)
    pieces, end = [], 0
    for match in _VERBATIM_C.finditer(text):
        pieces.append(_LITERALS.sub(_blank, text[end : match.start(1) - 3]))
        pieces.append(re.sub(r"/\*.*?\*/|//[^\n]*", _blank, match[1], flags=re.DOTALL))
        end = match.end(1) + 3
    pieces.append(_LITERALS.sub(_blank, text[end:]))
    return "".join(pieces)


def _core_files(package: Path) -> list[Path]:
    return sorted(file for end in ("pyx", "pxi", "pxd", "h") for file in package.rglob(f"*.{end}"))


def _found(package: Path, pattern: str, fault: str, *, but: frozenset[str] = frozenset()) -> list[str]:
    return [
        f"{file.relative_to(package).as_posix()}:{number}: {match[0].strip()}: {fault}"
        for file in _core_files(package)
        if file.name not in but
        for number, line in enumerate(code_of(file).splitlines(), 1)
        for match in re.finditer(pattern, line)
    ]


def only_atomic_names_memory_orders(package: Path) -> list[str]:
    """atomic.pxd chooses the order; atomics.h only spells it for each compiler."""
    pattern = (
        r"\b(TMM_(RELAXED|ACQUIRE|RELEASE|ACQ_REL|SEQ_CST)|tmm_atomic_\w+|__ATOMIC_\w+|__atomic_\w+|__sync_\w+|"
        r"memory_order\w*|atomic_\w+_explicit|_Interlocked\w+|MemoryBarrier|libcpp\.atomic|stdatomic)\b"
    )
    return _found(
        package, pattern, "only atomic.pxd names a memory order", but=frozenset({"atomic.pxd", "atomics.h"})
    )


def only_clock_reads_a_clock(package: Path) -> list[str]:
    """clock.pxd reads the monotonic clock; all else is handed the time."""
    pattern = (
        r"\b(clock_get\w+|gettimeofday|timespec_get|CLOCK_[A-Z]\w+|QueryPerformance\w+|GetTickCount\w*|rdtscp?|"
        r"__rdtscp?|mach_absolute_time|PyTime_\w+|monotonic(_ns)?|perf_counter(_ns)?|time_ns|time\.h|"
        r"(c?import|from)\s+(time|posix\.time|libc\.time))\b"
    )
    return _found(package, pattern, "only clock.pxd reads a clock", but=frozenset({"clock.pxd"}))


def the_core_imports_nothing(package: Path) -> list[str]:
    """The core's Cython imports itself, libc, the Python C-API and NumPy, and nothing of the other rooms."""
    breaches = []
    for file in _core_files(package):
        inside = file.relative_to(package).as_posix()
        own = {other.stem for other in file.parent.iterdir()}
        for number, line in enumerate(code_of(file).splitlines(), 1):
            match = re.match(r"\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))\b", line)
            name = (match[1] or match[2]) if match else ""
            if not name or CYTHON_IMPORTS.fullmatch(name):
                continue
            if name.startswith("tmm_core._core") or (
                name.startswith(".") and name.lstrip(".").split(".")[0] in own
            ):
                continue
            breaches.append(f"{inside}:{number}: imports {name}: the core imports nothing")
    return breaches


def the_core_opens_parses_names_and_logs_nothing(package: Path) -> list[str]:
    """Integers and memory only: no file, no text, no log. A name may pass through as an object, unread."""
    opens = r"open|fopen|openat|shm_open|mmap|munmap|socket|connect|getenv|read_bytes|fread|fwrite|system"
    parses = r"sscanf|strtol+|strtod|atoi|atol|atof|json|tomllib|csv|xml|split|strip|encode|decode|format"
    names = r"srv_codes?|eui64|user_names?"
    logs = r"print|printf|fprintf|perror|logging|logger|getLogger|warnings|warn|syslog"
    pattern = rf"\b({opens}|{parses}|{names}|{logs})\b(?=\s*[(.\[=,):]|\s+\w)"
    return _found(package, pattern, "the core opens, parses, names and logs nothing")


def no_file_is_longer_than_it_should_be(package: Path) -> list[str]:
    """One concept a file, and at most 500 lines."""
    breaches = []
    for file in sorted(package.rglob("*")):
        if file.suffix not in {".py", ".pyi", ".pyx", ".pxi", ".pxd", ".h"} or "__pycache__" in file.parts:
            continue
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE:
            breaches.append(
                f"{file.relative_to(package).as_posix()}: {lines} lines, expected at most {LONGEST_FILE}"
            )
    return breaches


# --- The rules hold


def _holds(rule: Rule, folder: Path = PACKAGE) -> None:
    breaches = rule(folder)
    assert not breaches, "\n".join([f"{rule.__name__}:", *breaches])


def test_every_room_imports_only_through_its_doors() -> None:
    _holds(python_imports_use_open_doors)


def test_every_file_is_in_a_known_room() -> None:
    _holds(every_file_is_in_a_room)


def test_only_atomic_pxd_names_a_memory_order() -> None:
    assert re.search(r"TMM_ACQ_REL", code_of(PACKAGE / "_core" / "atomic.pxd")), (
        "the rule looks for the right words"
    )
    _holds(only_atomic_names_memory_orders)


def test_only_clock_pxd_reads_a_clock() -> None:
    assert re.search(r"clock_gettime", code_of(PACKAGE / "_core" / "clock.pxd")), (
        "the rule looks for the right words"
    )
    _holds(only_clock_reads_a_clock)


def test_the_core_imports_nothing() -> None:
    _holds(the_core_imports_nothing)


def test_the_core_opens_parses_names_and_logs_nothing() -> None:
    _holds(the_core_opens_parses_names_and_logs_nothing)


@pytest.mark.parametrize("folder", ["src/tmm_core", "tests", "bench", "examples", ".ci"])
def test_no_file_is_longer_than_500_lines(folder: str) -> None:
    _holds(no_file_is_longer_than_it_should_be, ROOT / folder)


# --- The rules can fail

C = 'cdef extern from *:\n    """\n    {}\n    """'
#: For each rule: file, text put at its end, what is found.
SEEDS: dict[Rule, list[tuple[str, str, str]]] = {
    python_imports_use_open_doors: [
        ("errors.py", "import tmm_core.policy.config", "errors imports policy"),
        ("policy/config.py", "from tmm_core import mechanism", "policy imports mechanism"),
        ("policy/config.py", "from tmm_core._core import engine", "policy imports _core"),
        ("policy/config.py", "from .. import memory", "policy imports memory"),
        ("policy/config.py", "from ..gateway import asgi", "policy imports gateway"),
        (
            "policy/config.py",
            "import importlib\nimportlib.import_module('tmm_core.operations')",
            "imports operations",
        ),
        ("memory/shared.py", "from .. import _core", "memory imports _core"),
        ("_core/__init__.py", "from tmm_core import errors", "_core imports errors"),
        ("gateway/__init__.py", "from ..policy import config", "gateway imports policy"),
        ("operations/cli.py", "import tmm_core.gateway", "operations imports gateway"),
        ("operations/report.py", "def f():\n    import tmm_core.gateway", "operations imports gateway"),
        ("operations/report.py", "from tmm_core import Config", "the room it is in"),
    ],
    every_file_is_in_a_room: [("helpers/text.py", "", "no room helpers")],
    only_atomic_names_memory_orders: [
        ("_core/gcra.pxd", "    tmm_atomic_load(w, 0)", "tmm_atomic_load"),
        ("_core/gcra.pxd", "from libcpp.atomic cimport atomic", "libcpp.atomic"),
        ("_core/gcra.pxd", C.format("__atomic_thread_fence(__ATOMIC_SEQ_CST);"), "__ATOMIC_SEQ_CST"),
    ],
    only_clock_reads_a_clock: [
        ("_core/engine.pyx", "from libc.time cimport time", "libc.time"),
        ("_core/engine.pyx", "import time", "import time"),
        ("_core/gcra.pxd", C.format("clock_gettime(0, &t);"), "clock_gettime"),
        ("_core/atomics.h", "#include <time.h>", "time.h"),
    ],
    the_core_imports_nothing: [
        ("_core/engine.pyx", "import os", "imports os"),
        ("_core/engine.pyx", "from tmm_core.policy.config import Config", "imports tmm_core.policy"),
        ("_core/gcra.pxd", "from ..memory import private_block", "imports ..memory"),
    ],
    the_core_opens_parses_names_and_logs_nothing: [
        ("_core/engine.pyx", "x = open('f')", "open"),
        ("_core/engine.pyx", "y = x.split(',')", "split"),
        ("_core/engine.pyx", "def f(srv_code): pass", "srv_code"),
        ("_core/engine.pyx", "print('deciding')", "print"),
        ("_core/gcra.pxd", C.format('fprintf(stderr, "x");'), "fprintf"),
    ],
    no_file_is_longer_than_it_should_be: [("errors.py", "x = 1\n" * 500, "lines, expected at most 500")],
}


@pytest.mark.parametrize(
    ("rule", "name", "text", "fault"),
    [
        pytest.param(rule, *seed, id=f"{rule.__name__}-{number}")
        for rule, seeds in SEEDS.items()
        for number, seed in enumerate(seeds)
    ],
)
def test_a_breach_is_found(rule: Rule, name: str, text: str, fault: str, tmp_path: Path) -> None:
    copy = tmp_path / "tmm_core"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    file = copy / name
    file.parent.mkdir(exist_ok=True)
    before = rule(copy)
    with file.open("a", encoding="utf-8") as out:
        out.write(f"\n\n{text}\n")
    new = [breach for breach in rule(copy) if breach not in before]
    assert new, f"{rule.__name__} does not see {text!r}"
    assert all(name in breach for breach in new)
    assert any(fault in breach for breach in new), new


def test_words_in_comments_and_strings_are_no_breach(tmp_path: Path) -> None:
    (tmp_path / "_core").mkdir()
    (tmp_path / "_core" / "engine.pyx").write_text(
        '"""Print and open: clock_gettime, import os."""\n'
        "# TMM_ACQUIRE, print(x), open(y)\n"
        'raise ValueError("open(x) with TMM_RELEASE: {user_id}")\n',
        encoding="utf-8",
    )
    for rule in (only_atomic_names_memory_orders, only_clock_reads_a_clock, the_core_imports_nothing):
        assert rule(tmp_path) == []
    assert the_core_opens_parses_names_and_logs_nothing(tmp_path) == []


def test_the_command_line_may_import_the_gateway_inside_a_function(tmp_path: Path) -> None:
    (tmp_path / "operations").mkdir()
    cli = tmp_path / "operations" / "cli.py"
    cli.write_text("def serve():\n    from tmm_core.gateway import asgi\n", encoding="utf-8")
    assert python_imports_use_open_doors(tmp_path) == []
    cli.write_text("from tmm_core.gateway import asgi\n", encoding="utf-8")
    assert python_imports_use_open_doors(tmp_path) == ["operations/cli.py:1: operations imports gateway"]


def test_the_import_loads_neither_shared_blocks_nor_operations_nor_gateways() -> None:
    """A worker starts often: what is loaded beyond NumPy is what one process needs to decide."""
    ours = "from tmm_core import Mechanism"
    code = f"import numpy, sys; before = set(sys.modules); {ours}; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert {"tmm_core.mechanism", "tmm_core._core.engine"} <= loaded
    late = {
        "csv",
        "decimal",
        "fractions",
        "hashlib",
        "json",
        "logging",
        "mmap",
        "pathlib",
        "tempfile",
        "urllib",
    }
    late |= {"tmm_core.memory.shared", "tmm_core.snapshot", "tmm_core.policy.catalogue"}
    rooms = ("tmm_core.gateway", "tmm_core.operations")
    assert sorted(loaded & late) + [name for name in loaded if name.startswith(rooms)] == []
