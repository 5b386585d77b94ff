"""Play the shipped scenarios at a tenth of DSP peak volume, and write docs/simulation/results.md and its charts.

The same code and seeds give the same bytes. Two processes; about half an hour, most of it for the day at the threshold.
Names of scenarios as arguments play those alone: their parts of the page and their charts are replaced, or written
into the folder that --out names, to compare with what is there.
"""

from __future__ import annotations

import argparse
import re
from functools import partial
from multiprocessing import Pool
from pathlib import Path

from tmm_core.operations.charts import WIDE
from tmm_core.operations.simulate import Simulation, simulate
from tmm_core.operations.simulation.page import load_figure, wait_figure
from tmm_core.operations.simulation.promises import checks
from tmm_core.operations.simulation.scenario import POLICIES
from tmm_core.operations.simulation.scenario_files import load_scenario, shipped_scenarios
from tmm_core.operations.simulation.summary import FIGURES, finding, value_text

SCALE = 0.1
LONGEST = "at-the-threshold"  # begins first
FOLDER = Path(__file__).parent / "simulation"
HEAD = "<!-- Written by `make simulation`; do not edit. -->\n\n# Simulated scenarios\n\n"
ORDER = (
    "ordinary-day", "beast-from-the-east", "same-hour", "runaway-user", "denial-of-service", "prepayment-surge",
    "retry-storm", "maintenance-window", "at-the-threshold", "month-change", "store-lost",
)  # fmt: skip


def main() -> None:
    """Write everything, or some scenarios into another folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    assert set(ORDER) == set(shipped_scenarios()), "a scenario without a place on the page"
    names = args.names or ORDER
    args.out.mkdir(exist_ok=True)
    began = sorted(names, key=lambda name: name != LONGEST)
    with Pool(2) as pool:
        made = pool.map(partial(part_of, folder=args.out), began, chunksize=1)
    parts = dict(zip(began, made, strict=True))
    page = args.out / "results.md"
    parts = {**parts_of(page), **parts}
    text = HEAD + "\n".join(parts[name] for name in ORDER if name in parts)
    page.write_text(text, encoding="utf-8", newline="\n")


def parts_of(page: Path) -> dict[str, str]:
    """Return the parts of a page by scenario; nothing of a page that is not there."""
    if not page.exists():
        return {}
    found = page.read_text(encoding="utf-8").removeprefix(HEAD).split("\n## ")
    parts = [found[0], *(f"## {part}" for part in found[1:])]
    return {re.findall(r"\]\(([a-z-]+)-load\.svg\)", part)[0]: part for part in parts}


def part_of(name: str, folder: Path) -> str:
    """Play one scenario, write its charts, and return its part of the page."""
    simulation = simulate(load_scenario(name).scaled(SCALE))
    scenario = simulation.scenario
    text = [f"## {scenario.title}", "", scenario.about, "", f"**{finding(simulation)}.**", ""]
    fair = simulation.of("fair")
    figures = {"wait": wait_figure(simulation)} if len(simulation.results) > 1 else {}
    if fair is not None:
        figures["load"] = load_figure(fair)
    for kind, figure in figures.items():
        file = f"{name}-{kind}.svg"
        (folder / file).write_text(figure.drawing(WIDE) + "\n", encoding="utf-8", newline="\n")
        text += [f"![{figure.finding}.]({file})", ""]
    return "\n".join([*text, *table_of(simulation), *kept(simulation), ""])


def table_of(simulation: Simulation) -> list[str]:
    """Return the figures as a Markdown table, a column for each policy."""
    results = simulation.results
    lines = ["| | " + " | ".join(POLICIES[each.name] for each in results) + " |"]
    lines.append("|---|" + "---:|" * len(results))
    for row in FIGURES:
        values = [value_text(row, row.of(simulation, each)) for each in results]
        lines.append(f"| {row.label} | " + " | ".join(values) + " |")
    return [*lines, ""]


def kept(simulation: Simulation) -> list[str]:
    """Say what of P1 to P7 was put to the test under the Mechanism, and whether it held."""
    fair = simulation.of("fair")
    if fair is None:
        return []
    found = checks(fair)
    words = {True: "holds", False: "BROKEN", None: "not put to the test here"}
    rows = [f"| {each.name} | {each.promise} | {words[each.holds]} | {each.found} |" for each in found]
    return ["Under the Mechanism:", "", "| | promise | | found |", "|---|---|---|---|", *rows]


if __name__ == "__main__":
    main()
