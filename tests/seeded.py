"""A copy of the package that a test may break: changed, built, and tried with the tests that must fail on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: File below ``src/tmm_core``, what stands there exactly once, what is put in its place.
Change = tuple[str, str, str]


def put_in(folder: Path, changes: Sequence[Change]) -> dict[Path, str]:
    """The files with a defect, and their texts; each place of it must be there once."""
    texts: dict[Path, str] = {}
    for name, there, instead in changes:
        file = folder / "src" / "tmm_core" / name
        text = texts.get(file) or file.read_text("utf-8")
        assert text.count(there) == 1, f"{name} has changed: {there!r} is there {text.count(there)} times"
        texts[file] = text.replace(there, instead)
    return texts


class Copy:
    """Sources and tests in a folder of their own; the engine is built without optimisation, that is quicker.

    Parameters
    ----------
    folder : Path
    optimised : bool
        Build it as it is shipped, to measure it.
    """

    def __init__(self, folder: Path, *, optimised: bool = False) -> None:
        self.folder = folder
        self.optimised = optimised
        left_out = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "build")
        for part in ("src", "tests", "docs"):
            shutil.copytree(ROOT / part, folder / part, ignore=left_out)
        for part in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            if (ROOT / part).exists():
                shutil.copy(ROOT / part, folder / part)

    @contextmanager
    def changed(self, changes: Sequence[Change]) -> Iterator[None]:
        """Put a defect in, and the sources back afterwards."""
        defective = put_in(self.folder, changes)
        before = {file: file.read_text("utf-8") for file in defective}
        try:
            for file, text in defective.items():
                file.write_text(text, encoding="utf-8")
            yield
        finally:
            for file, text in before.items():
                file.write_text(text, encoding="utf-8")

    def build(self) -> None:
        """Build the engine as the sources are now."""
        status, told = self._run("setup.py", "build_ext", "--inplace", "--force", timeout_s=240)
        assert status == 0, told

    def test(self, *tests: str, timeout_s: int = 280) -> tuple[int, str]:
        """Run tests, named from the folder of the tests on, until one fails; returns exit status and output."""
        named = [f"tests/{test}" for test in tests]
        return self._run(
            "-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", "--timeout=60", *named,
            timeout_s=timeout_s,
        )  # fmt: skip

    def _run(self, *command: str, timeout_s: int) -> tuple[int, str]:
        # One seed, so that whether a defect is found does not depend on the day.
        own = {
            "PYTHONPATH": str(self.folder / "src"), "TMM_DEBUG": "1", "TMM_HYPOTHESIS_PROFILE": "seeded",
            "TMM_TEST_SEED": "1", "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        if self.optimised:
            del own["TMM_DEBUG"]
        process = subprocess.Popen(
            [sys.executable, *command], cwd=self.folder, env={**os.environ, **own},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            told = process.communicate(timeout=timeout_s)[0]
        except subprocess.TimeoutExpired:
            # What it has forked goes with it.
            os.killpg(process.pid, signal.SIGKILL)
            return 1, process.communicate()[0] + "\nHANGS"
        return process.returncode, told
