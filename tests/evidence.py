"""Run the slow tests, and write what they have shown to docs/evidence.json: ``make evidence``.

Arguments choose tests, as for pytest. Of every slow test the last run is kept, with its commit and date: those not
chosen keep what they have shown before, those never run are listed as not run. Figures that a test records with
``record_property`` are kept too.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "evidence.json"
PYTEST = [sys.executable, "-m", "pytest", "-m", "slow", "-p", "no:cacheprovider"]


def told(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> dict[str, Any]:
    """Where this ran."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        named = [
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
        ]
        cpu = named[0].split(":", 1)[1].strip() if named else cpu
    return {
        "cpu": cpu, "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version(),
    }  # fmt: skip


def slow_tests() -> list[str]:
    """Every slow test there is."""
    listed = told(*PYTEST, "--collect-only", "-q", "--no-header", "-o", "addopts=--strict-markers", "tests")
    return [line for line in listed.splitlines() if line.startswith("tests/") and "::" in line]


def results(report: Path) -> dict[str, dict[str, Any]]:
    """Outcome, seconds and figures by test, from JUnit XML."""
    found = {}
    for case in Xml.parse(report).getroot().iter("testcase"):
        figures = {each.get("name"): plain(each.get("value") or "") for each in case.iter("property")}
        outcome, why = "passed", ""
        for kind, word in (("skipped", "skipped"), ("failure", "failed"), ("error", "failed")):
            part = case.find(kind)
            if part is not None:
                outcome, why = word, (part.get("message") or "").splitlines()[0][:200]
        file, owner = case.get("file") or "", case.get("classname") or ""
        inside = owner.removeprefix(file.removesuffix(".py").replace("/", ".")).lstrip(".")
        found["::".join(filter(None, (file, *inside.split("."), case.get("name"))))] = {
            "outcome": outcome, "seconds": round(float(case.get("time") or 0), 1),
            **({"why": why} if why else {}), **({"figures": figures} if figures else {}),
        }  # fmt: skip
    return found


def plain(value: str) -> Any:
    """A number where it is one."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def shown_before() -> dict[str, dict[str, Any]]:
    """What the last run of each test has shown."""
    if not TARGET.exists():
        return {}
    tests: dict[str, dict[str, Any]] = json.loads(TARGET.read_text(encoding="utf-8"))["tests"]
    return {name: test for name, test in tests.items() if "commit" in test}


def main(chosen: list[str]) -> int:
    """Run, and write; returns pytest's exit code."""
    run: dict[str, Any] = {
        "commit": told("git", "rev-parse", "HEAD"), "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    # What a run before this one wrote changes no test.
    if told("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/evidence.json"):
        run["uncommitted_changes"] = True
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # xunit1 names the file of each test, and allows properties.
        command = [*PYTEST, f"--junitxml={report}", "-o", "junit_family=xunit1", *(chosen or ["tests"])]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        shown = shown_before() | {name: {**test, **run} for name, test in results(report).items()}
    tests = {name: shown.get(name, {"outcome": "not run"}) for name in sorted(slow_tests())}
    outcomes = [test["outcome"] for test in tests.values()]
    evidence = {
        "command": "make evidence",
        "last_run": run,
        "hypothesis_profile": os.environ.get("TMM_HYPOTHESIS_PROFILE", "quick"),
        "machine": machine(),
        "outcomes": {word: outcomes.count(word) for word in ("passed", "failed", "skipped", "not run")},
        "figures": totals(tests),
        "tests": tests,
    }
    TARGET.write_text(json.dumps(evidence, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{TARGET}: {evidence['outcomes']}")
    return code


def totals(tests: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Figures that are whole numbers, added up over all tests that passed."""
    sums: dict[str, int] = {}
    for test in tests.values():
        for name, value in test.get("figures", {}).items():
            if test["outcome"] == "passed" and isinstance(value, int):
                sums[name] = sums.get(name, 0) + value
    return sums


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
