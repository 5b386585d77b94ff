"""The README is true: its code runs, its links lead somewhere, its sentence is the one of the package."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import tmm_core
from tmm_core._core import engine
from tmm_core.operations.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/**/*.md")])


def test_the_first_example_runs_and_admits() -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    said, names = io.StringIO(), dict[str, Any]()
    with redirect_stdout(said):
        exec(code, names)
    assert said.getvalue() == "on to the DSP\n"
    assert names["decisions"].tolist() == [tmm_core.Decision.WITHIN_ALLOCATION] * 2
    assert len([line for line in code.splitlines() if line]) <= 15, "short enough to be read"


def test_the_sentence_is_the_same_everywhere() -> None:
    sentence = " ".join(
        (
            "A Service Request is throttled only if it is not on the priority list, its Service User is over its",
            "allocation, the Mechanism is active, and there is no spare capacity left for that User; every other",
            "Service Request is admitted.",
        )
    )
    for text in (README.replace("\n> ", " "), tmm_core.__doc__, tmm_core.Mechanism.__doc__):
        assert sentence in " ".join(str(text).split())


def test_every_command_it_names_exists() -> None:
    known = {command.name for command in COMMANDS}
    named = set(re.findall(r"`tmm ([a-z-]+)", README))
    assert {"demo", "check", "replay"} <= named <= known
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) - {"it"} <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name}: {target} does not exist"


def test_the_reference_finds_all_it_names() -> None:
    text = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    named = re.findall(r"\.\. auto(?:module|class):: ([\w.]+)\n   :members: ([\w, ]+)", text)
    assert len(named) >= 3
    for module, members in named:
        # Sphinx documents what `dir` has, and so does a reader's completion.
        place = import_module(module) if module != "Gate" else engine.Gate
        assert set(members.split(", ")) <= set(dir(place)), module
    public = {name for name in vars(tmm_core.Mechanism) if not name.startswith("_")}
    decisions = set(re.findall(r"automethod:: Engine\.(\w+)\(", text))
    assert decisions == {name for name in public if hasattr(engine.Engine, name)} - {
        "apply", "close", "gate", "lane", "tick", "engine",
    }  # fmt: skip
    assert set(tmm_core.__all__) <= set(dir(tmm_core))
