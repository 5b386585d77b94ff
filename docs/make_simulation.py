"""Play the shipped scenarios at a tenth of DSP peak volume, and write docs/simulation/results.md and its charts.

The same code and seeds give the same bytes. Two processes; many minutes.
"""

from __future__ import annotations

from multiprocessing import Pool
from pathlib import Path

from tmm_core.operations.charts import WIDE
from tmm_core.operations.simulate import Simulation, simulate
from tmm_core.operations.simulation.checks import checks
from tmm_core.operations.simulation.page import load_figure, wait_figure
from tmm_core.operations.simulation.scenario import POLICIES
from tmm_core.operations.simulation.scenario_files import load_scenario, shipped_scenarios
from tmm_core.operations.simulation.summary import FIGURES, finding, value_text

SCALE = 0.1
FOLDER = Path(__file__).parent / "simulation"
ORDER = (
    "ordinary-day", "beast-from-the-east", "same-hour", "runaway-user", "denial-of-service", "prepayment-surge",
    "retry-storm", "maintenance-window", "at-the-threshold", "month-change", "store-lost",
)  # fmt: skip


def main() -> None:
    """Write everything."""
    assert set(ORDER) == set(shipped_scenarios()), "a scenario without a place on the page"
    FOLDER.mkdir(exist_ok=True)
    with Pool(2) as pool:
        parts = pool.map(part_of, ORDER, chunksize=1)
    head = "<!-- Written by `make simulation`; do not edit. -->\n\n"
    (FOLDER / "results.md").write_text(head + "\n".join(parts), encoding="utf-8", newline="\n")


def part_of(name: str) -> str:
    """Play one scenario, write its charts, and return its part of the page."""
    simulation = simulate(load_scenario(name).scaled(SCALE))
    scenario = simulation.scenario
    text = [f"### {scenario.title}", "", scenario.about, "", f"**{finding(simulation)}.**", ""]
    fair = simulation.of("fair")
    figures = {"wait": wait_figure(simulation)}
    if fair is not None:
        figures["load"] = load_figure(fair)
    for kind, figure in figures.items():
        file = f"{name}-{kind}.svg"
        (FOLDER / file).write_text(figure.drawing(WIDE) + "\n", encoding="utf-8", newline="\n")
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
    found = checks(fair) if fair is not None else []
    if not found:
        return ["P1 to P7 are not judged here: the hosts on their own are a model."]
    words = {True: "holds", False: "BROKEN", None: "not put to the test"}
    return ["Under the Mechanism: " + "; ".join(f"{each.name} {words[each.holds]}" for each in found) + "."]


if __name__ == "__main__":
    main()
