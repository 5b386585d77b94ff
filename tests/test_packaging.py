"""What is packaged, and how: metadata, workflows, preflight; marked slow: the two distributions themselves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LARGEST_WHEEL = 500_000  # bytes (docs/decisions/0062)
LARGEST_ANYWHERE = 512_000  # which the workflow publishes: other systems' linkers may lay out more
#: What another extension, a type checker and the engine need at run time.
IN_WHEEL = {
    "tmm_core/py.typed",
    "tmm_core/policy/service_requests.csv",
    "tmm_core/_core/tmm_core.h",
    "tmm_core/_core/engine.pxd",
    "tmm_core/_core/engine.pyi",
}
ONE_DECISION = """
import tmm_core._core.engine as engine
from tmm_core import Config, Decision, Mechanism

mechanism = Mechanism(Config(system_capacity=25, operating_threshold=20, allocations={"A": 1.0}), start=0)
decision = mechanism.admit_at(mechanism.user("A"), mechanism.srv("4.1.1"), 1)
assert decision == Decision.WITHIN_ALLOCATION, decision
print(engine.__file__)
"""
GENERATED = (".c", ".cpp", ".so", ".pyd", ".pyc", ".o", ".log")


def needed_to_cimport(door: str) -> set[str]:
    """Return a .pxd of the package and all that it cimports."""
    text = (ROOT / "src" / door).read_text(encoding="utf-8")
    folder = door.rpartition("/")[0]
    found = {door}
    for name in re.findall(r"^from (\.\w+|tmm_core[\w.]*) cimport", text, re.MULTILINE):
        path = f"{folder}/{name[1:]}.pxd" if name.startswith(".") else f"{name.replace('.', '/')}.pxd"
        found |= needed_to_cimport(path)
    return found


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it said, with both outputs in one."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )


# --- Metadata


def test_numpy_is_the_only_dependency() -> None:
    assert [re.split(r"[<>=! ]", need)[0] for need in PROJECT["project"]["dependencies"]] == ["numpy"]


def test_all_names_every_other_extra() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(extras) == {"prometheus", "otel", "envoy", "report", "pdf", "cli", "all"}
    (everything,) = extras["all"]
    assert set(re.findall(r"\w+", everything.partition("[")[2])) == set(extras) - {"all"}


def test_the_build_group_is_what_a_build_requires() -> None:
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


def test_version_is_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in changelog or f"## [{version}]" in changelog


def test_every_python_of_the_classifiers_is_tested_and_built() -> None:
    versions = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if ":: 3." in line]
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    for version in versions:
        assert f'"{version}"' in workflow
        assert f"cp{version.replace('.', '')}-*" in PROJECT["tool"]["cibuildwheel"]["build"]


# --- Workflows


def unpinned(text: str) -> list[str]:
    """Return the uses of an action that name no commit, or do not say which release it is."""
    uses = re.findall(r"uses:\s*(\S.*)", text)
    return [use for use in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}\s+# v\d+\.\d+\.\d+", use)]


def test_there_are_the_four_workflows() -> None:
    assert [file.stem for file in WORKFLOWS] == ["bench", "ci", "nightly", "wheels"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_actions_are_pinned_by_commit_and_nothing_is_permitted_by_default(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert unpinned(text) == []
    assert "\npermissions: {}\n" in text
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")


def test_one_action_is_pinned_at_one_commit() -> None:
    pins = {
        match
        for file in WORKFLOWS
        for match in re.findall(r"uses:\s*([\w./-]+)@([0-9a-f]{40})", file.read_text(encoding="utf-8"))
    }
    assert len(pins) == len({name for name, _ in pins}), sorted(pins)


@pytest.mark.parametrize(
    "use",
    [
        "actions/checkout@v6",
        "actions/checkout@main  # v6.0.2",
        "a/b@" + "0" * 40,
        "a/b@" + "0" * 40 + " # v6",
    ],
)
def test_an_unpinned_action_is_found(use: str) -> None:
    assert unpinned(f"      - uses: {use}\n") == [use]


def test_workflows_are_yaml_and_every_job_ends_by_itself() -> None:
    yaml = pytest.importorskip("yaml")
    for file in WORKFLOWS:
        jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
        assert jobs
        assert all(job["timeout-minutes"] <= 360 for job in jobs.values())


def test_only_the_publishing_job_may_write() -> None:
    yaml = pytest.importorskip("yaml")
    may_write = {
        f"{file.stem}/{name}"
        for file in WORKFLOWS
        for name, job in yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"].items()
        if "write" in job["permissions"].values()
    }
    assert may_write == {"wheels/publish"}


# --- Preflight: one line for what a machine lacks


posix = pytest.mark.skipif(os.name == "nt", reason="Windows: setuptools finds MSVC by itself")


def preflight(**environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, ROOT / ".ci" / "preflight.py", **environment)


@posix
@pytest.mark.parametrize(
    ("compiler", "fault"),
    [("no-such-compiler", "found no C compiler 'no-such-compiler'"), ("false", "finds no C library")],
)
def test_a_missing_compiler_is_said_in_one_line(compiler: str, fault: str) -> None:
    said = preflight(CC=compiler)
    assert said.returncode == 1
    assert said.stdout.count("\n") == 1
    assert said.stdout.startswith("tmm-core: ")
    assert fault in said.stdout
    assert "apt-get install build-essential" in said.stdout


@posix
@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_missing_venv_is_said_in_one_line(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text("raise ImportError\n", encoding="utf-8")
    said = preflight(PYTHONPATH=str(tmp_path))
    assert (said.returncode, said.stdout.count("\n")) == (1, 1)
    assert "apt-get install python3-venv" in said.stdout


@posix
def test_missing_headers_are_said_in_one_line(tmp_path: Path) -> None:
    # A sitecustomize stands in for a Python without its -dev package: the include folder is an empty one.
    (tmp_path / "sitecustomize.py").write_text(
        f"import sysconfig\nfound = sysconfig.get_path\n"
        f"sysconfig.get_path = lambda name, *rest: {str(tmp_path)!r} if name == 'include' else found(name, *rest)\n",
        encoding="utf-8",
    )
    said = preflight(PYTHONPATH=str(tmp_path), CC="true")
    assert (said.returncode, said.stdout.count("\n")) == (1, 1)
    assert f"found no Python.h in {tmp_path}" in said.stdout
    assert "apt-get install python3-dev" in said.stdout


@posix
def test_an_old_python_is_said_in_one_line() -> None:
    text = (
        (ROOT / ".ci" / "preflight.py")
        .read_text(encoding="utf-8")
        .replace("OLDEST = (3, 11)", "OLDEST = (9, 0)")
    )
    said = run(sys.executable, "-c", text)
    assert (said.returncode, said.stdout.count("\n")) == (1, 1)
    assert "expected 3.11 or newer" in said.stdout


@posix
@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_says_that_there_is_no_python(target: str, tmp_path: Path) -> None:
    said = run("make", "-s", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}", target)
    assert said.returncode == 2
    assert said.stdout.startswith("tmm-core: found no 'no-such-python': install Python 3.11 or newer")
    assert not (tmp_path / "venv").exists()


# --- The packages themselves


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build a source distribution of this tree, and a wheel from it as it is published; return both."""
    for module in ("build", "zopfli"):
        pytest.importorskip(module, reason="install the group 'package': make package")
    out = tmp_path_factory.mktemp("dist")
    # Without --wheel and --sdist, build makes the wheel from the unpacked source distribution, as pip does.
    said = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    assert said.returncode == 0, said.stdout[-4000:]
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    said = run(sys.executable, ROOT / ".ci" / "recompress.py", wheel)
    assert said.returncode == 0, said.stdout[-4000:]
    return sdist, wheel


@pytest.fixture(scope="module")
def sdist(packages: tuple[Path, Path]) -> Path:
    return packages[0]


@pytest.fixture(scope="module")
def wheel(packages: tuple[Path, Path]) -> Path:
    return packages[1]


def test_all_that_the_doors_for_cython_cimport_is_shipped() -> None:
    package = ROOT / "src" / "tmm_core"
    shipped = {
        file.relative_to(package.parent).as_posix()
        for pattern in PROJECT["tool"]["setuptools"]["package-data"]["tmm_core"]
        for file in package.glob(pattern)
    }
    assert sorted(needed_to_cimport("tmm_core/__init__.pxd") - shipped) == []


def test_the_workflow_holds_a_limit_of_a_wheel() -> None:
    text = (ROOT / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8")
    assert re.findall(r"-name '\*\.whl' -size \+(\d+)c", text) == [str(LARGEST_ANYWHERE)]
    assert f"over {LARGEST_ANYWHERE:,} bytes" in text


def _wheel(path: Path) -> list[zipfile.ZipInfo]:
    """Write an archive like a wheel; return its entries."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, mode in (
            ("a/é.py", b"x = 1\n" * 200, 0o644),
            ("a/b.so", bytes(range(256)) * 9, 0o755),
            ("c", b"", 0o600),
        ):
            entry = zipfile.ZipInfo(name, (2026, 11, 28, 23, 59, 58))
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
        return archive.infolist()


def test_a_wheel_compressed_again_is_the_same_and_smaller(tmp_path: Path) -> None:
    pytest.importorskip("zopfli")
    path = tmp_path / "a.whl"
    entries = _wheel(path)
    before = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        contents = [archive.read(entry) for entry in entries]
    said = run(sys.executable, ROOT / ".ci" / "recompress.py", path)
    assert said.returncode == 0, said.stdout
    assert path.stat().st_size < before
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert [archive.read(name) for name in archive.namelist()] == contents
        kept = [(each.filename, each.date_time, each.external_attr) for each in entries]
        assert [(each.filename, each.date_time, each.external_attr) for each in archive.infolist()] == kept


def test_a_wheel_that_would_change_is_left_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("zopfli")
    path = tmp_path / "a.whl"
    _wheel(path)
    before = path.read_bytes()
    # A compressor that loses a byte: the check must see it.
    (tmp_path / "zopfli").mkdir()
    (tmp_path / "zopfli" / "__init__.py").write_text("")
    (tmp_path / "zopfli" / "zlib.py").write_text(
        "import zlib\n\ndef compress(data):\n    return zlib.compress(data[1:])\n"
    )
    said = run(sys.executable, ROOT / ".ci" / "recompress.py", path, PYTHONPATH=str(tmp_path))
    assert said.returncode != 0
    assert path.read_bytes() == before


slow = [pytest.mark.slow, pytest.mark.timeout(300)]


class TestPackages:
    pytestmark = slow

    def test_the_sdist_holds_sources_tests_and_workflows_and_nothing_generated(self, sdist: Path) -> None:
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        assert [name for name in names if name.endswith(GENERATED) or "__pycache__" in name] == []
        tracked = run("git", "ls-files")
        if tracked.returncode == 0:  # in a clone: all that is tracked and needed is there
            needed = {name for name in tracked.stdout.splitlines() if (ROOT / name).exists()}
            assert sorted(needed - names) == []
        assert {"src/tmm_core/_core/engine.pyx", "tests/test_packaging.py", ".ci/run"} <= names

    def test_the_wheel_holds_the_doors_for_cython_and_types_and_no_source_of_the_engine(
        self, wheel: Path
    ) -> None:
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
        assert sorted(IN_WHEEL - names) == []
        assert sorted(needed_to_cimport("tmm_core/__init__.pxd") - names) == []
        assert [name for name in names if name.endswith((".c", ".cpp", ".pyx", ".pxi", ".log", ".pyc"))] == []
        assert len([name for name in names if name.endswith((".so", ".pyd"))]) == 1
        assert {name.partition("/")[0].partition("-")[0] for name in names} == {"tmm_core"}

    def test_the_wheel_is_small(self, wheel: Path) -> None:
        assert wheel.stat().st_size < LARGEST_WHEEL

    def test_the_metadata_say_licence_and_python(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            metadata = archive.read(name).decode()
            licences = [name for name in archive.namelist() if "/licenses/" in name]
        assert "License-Expression: MIT" in metadata
        assert "Requires-Python: >=3.11" in metadata
        assert [
            line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line
        ] == ["Requires-Dist: numpy>=1.26"]
        assert len(licences) == 1

    def test_twine_accepts_both(self, sdist: Path, wheel: Path) -> None:
        pytest.importorskip("twine")
        said = run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
        assert said.returncode == 0, said.stdout

    def test_check_wheel_contents_accepts_the_wheel(self, wheel: Path) -> None:
        pytest.importorskip("check_wheel_contents")
        said = run(sys.executable, "-m", "check_wheel_contents", wheel)
        assert said.returncode == 0, said.stdout

    @pytest.mark.skipif(sys.platform != "linux", reason="auditwheel is for Linux")
    def test_auditwheel_finds_it_fit_for_manylinux_2_28(self, wheel: Path) -> None:
        pytest.importorskip("auditwheel")
        said = run(sys.executable, "-m", "auditwheel", "show", wheel)
        assert said.returncode == 0, said.stdout
        found = re.search(r"manylinux_2_(\d+)_\w+", " ".join(said.stdout.split()))
        assert found, said.stdout
        assert int(found[1]) <= 28, said.stdout

    def test_the_installed_wheel_decides(self, wheel: Path, tmp_path: Path) -> None:
        # Unpacked where nothing of this tree is on the path: what is missing in the wheel shows here.
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path)
        said = run(sys.executable, "-P", "-c", ONE_DECISION, cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert said.returncode == 0, said.stdout
        assert said.stdout.startswith(str(tmp_path))
