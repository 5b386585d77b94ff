"""The files of `tmm simulate`: figures and seconds as CSV, everything as JSON, a page for people."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tmm_core.operations.simulate import Simulation
from tmm_core.operations.simulation.summary import FIGURES, figures_of, summary
from tmm_core.operations.traffic.outcome_files import in_csv

__all__ = ["figures_csv", "seconds_csv", "write_files"]

_SECONDS = (
    "fresh", "offered", "through", "admitted", "attempts", "again", "refused", "failed", "answered", "lost",
    "waiting", "holding",
)  # fmt: skip


def figures_csv(simulation: Simulation) -> str:
    """Return the figures: a row for each policy."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["policy", *[row.key for row in FIGURES]])
    for result in simulation.results:
        values = figures_of(simulation, result).values()
        rows.writerow([result.name, *["" if value is None else f"{value:.10g}" for value in values]])
    return out.getvalue()


def seconds_csv(simulation: Simulation) -> str:
    """Return the seconds: a row for each policy and second. Loads are in units, the rest in Service Requests."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["policy", "second", *_SECONDS, "dsp_wait_s", "dsp_down", "active"])
    for result in simulation.results:
        for second, row in enumerate(result.rows):
            values = [f"{getattr(row, name):.10g}" for name in _SECONDS]
            rows.writerow([result.name, second, *values, f"{row.wait_s:.3f}", int(row.down), int(row.active)])
    return out.getvalue()


def users_csv(simulation: Simulation) -> str:
    """Return the Users: a row for each policy and User."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(
        ["policy", "user", "category", "allocation", "requests", "answered", "attempts", "refused_inside",
         "refused_above", "refused_priority"]
    )  # fmt: skip
    config = simulation.scenario.config
    for result in simulation.results:
        for slot, user in enumerate(result.users):
            refused = result.table[slot, :, 0].tolist()
            allocation = config.allocations.get(user, config.unknown_allocation)
            rows.writerow(
                [result.name, in_csv(user), config.categories.get(user, ""), f"{allocation:.10g}",
                 int(result.fresh[slot]), int(result.answered[slot]), int(result.table[slot].sum()), refused[2],
                 refused[0] + refused[1], refused[3]]
            )  # fmt: skip
    return out.getvalue()


def write_files(folder: Path, simulations: Sequence[Simulation], html: str | None) -> list[Path]:
    """Write everything into a folder, and return the paths, the page first.

    Each file is put in place as a whole. With two simulations, names begin with 1- and 2-.

    Raises
    ------
    OSError
        The folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, str] = {} if html is None else {"simulation.html": html}
    alone = len(simulations) == 1
    for number, simulation in enumerate(simulations, 1):
        prefix = "" if alone else f"{number}-"
        texts[f"{prefix}simulation.json"] = json.dumps(summary(simulation), indent=1, allow_nan=False) + "\n"
        texts[f"{prefix}figures.csv"] = figures_csv(simulation)
        texts[f"{prefix}seconds.csv"] = seconds_csv(simulation)
        texts[f"{prefix}users.csv"] = users_csv(simulation)
    paths = []
    for name, text in texts.items():
        path = folder / name
        part = path.with_name(name + ".part")
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, path)
        paths.append(path)
    return paths
