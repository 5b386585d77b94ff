"""The figures of a simulation: one list of rows for the terminal, the page, the CSV and the JSON alike.

Also two scenarios side by side, policy by policy, and the files of `tmm simulate`: figures, seconds and Users as CSV,
everything as JSON, a page for people.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tmm_core.mechanism import Decision
from tmm_core.operations import terminal
from tmm_core.operations.page import in_csv
from tmm_core.operations.simulate import Simulation
from tmm_core.operations.simulation.promises import checks
from tmm_core.operations.simulation.result import PolicyResult
from tmm_core.operations.simulation.scenario import POLICIES
from tmm_core.operations.terminal import Paint, duration, number, paragraph, percent, plain

NEVER = "not seen"

_SECONDS = (
    "fresh", "offered", "through", "admitted", "attempts", "again", "refused", "failed", "answered", "lost",
    "waiting", "holding",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A figure: its name in files, its label, its kind, and how to get it from a result.

    Kinds are ``text``, ``count``, ``rate``, ``share``, ``duration``, ``ratio``.
    """

    key: str
    label: str
    kind: str
    of: Callable[[Simulation, PolicyResult], Any]


def _inside(simulation: Simulation, result: PolicyResult) -> list[int]:
    names = set(simulation.inside)
    return [slot for slot, user in enumerate(result.users) if user in names]


def _above(result: PolicyResult) -> int:
    return result.refused(Decision.SPARE_CAPACITY) + result.refused(Decision.THROTTLED)


def _refused_inside(result: PolicyResult) -> int:
    """What was refused inside an allocation: of the engine's own decisions, what the independent bucket objects to."""
    if result.audit is not None:
        return result.audit.within_throttled
    return result.refused(Decision.WITHIN_ALLOCATION)


def _refused_priority(result: PolicyResult) -> int:
    return result.refused(Decision.PRIORITY) if result.audit is None else result.audit.priority_throttled


FIGURES: Sequence[Row] = (
    Row("outage_s", "outage of the DSP", "duration", lambda _, r: r.outage_s),
    Row("goodput", "answered/s under pressure", "rate", lambda _, r: r.goodput),
    Row("answered", "answered in time, of all", "share", lambda _, r: r.answered_total / max(1, r.requests)),
    Row("refused_inside", "refused inside allocation", "count", lambda _, r: _refused_inside(r)),
    Row("refused_above", "refused above allocation", "count", lambda _, r: _above(r)),
    Row("refused_priority", "priority refused", "count", lambda _, r: _refused_priority(r)),
    Row("priority_lost", "priority never answered", "count", lambda _, r: r.priority_lost),
    Row(
        "inside_users_lost", "Users inside: never answered", "count",
        lambda s, r: int((r.fresh - r.answered)[_inside(s, r)].sum()),
    ),
    Row("wait_median_s", "wait to the answer, median", "duration", lambda _, r: r.wait_s(0.5)),
    Row("wait_p99_s", "wait, 99 of 100 within", "duration", lambda _, r: r.wait_s(0.99)),
    Row("attempts_per_request", "attempts per request", "ratio", lambda _, r: r.attempts_per_request),
    Row("jain", "fairness (Jain) of spare", "ratio", lambda _, r: r.fairness),
    Row("activations", "activations", "count", lambda _, r: len(r.activations)),
    Row("active_s", "active for", "duration", lambda _, r: r.active_s),
    Row("highest", "highest second at the DSP", "rate", lambda _, r: r.highest),
    Row("recovery_s", "back to normal after", "duration", lambda _, r: r.recovery_s),
)  # fmt: skip


def value_text(row: Row, value: Any) -> str:
    """Return a figure for people."""
    if value is None:
        return NEVER if row.key == "recovery_s" else "-"
    if row.kind == "share":
        return percent(value, 1)
    if row.kind == "duration":
        return duration(value)
    if row.kind == "ratio":
        return f"{value:.3f}"
    return number(round(value))


def figures_of(simulation: Simulation, result: PolicyResult) -> dict[str, Any]:
    """Return the figures of one policy."""
    return {row.key: row.of(simulation, result) for row in FIGURES}


def about(simulation: Simulation) -> str:
    """Say what was simulated."""
    scenario, config = simulation.scenario, simulation.scenario.config
    users, inside = len(config.users), len(simulation.inside)
    who = "User" if users == 1 else "Users"
    if not any(traffic.file for traffic in scenario.traffic):
        who = f"invented {who}"
    stay = "Users stay inside their allocations by their"
    if inside == 1:
        stay = "User stays inside its allocation by its"
    return (
        f"{number(simulation.results[0].requests)} Service Requests from {number(users)} {who} in "
        f"{duration(scenario.seconds)}, seed {scenario.seed}; operating threshold "
        f"{number(config.operating_threshold)}, system capacity {number(config.system_capacity)} units per second. "
        f"{number(inside)} {stay} own doing."
    )


def finding(simulation: Simulation) -> str:
    """Say in a sentence what was found."""
    none, fair = simulation.of("none"), simulation.of("fair")
    if fair is None or (none is None and len(simulation.results) > 1):
        return f"{len(simulation.results)} policies on the same Service Requests"
    threw = "nothing was throttled"
    if refused := _above(fair):
        those = _refused_inside(fair) + _refused_priority(fair)
        kind = "inside an allocation or on the priority list"
        threw = f"{number(refused)} attempts were throttled, {number(those)} of them {kind}"
    out = f"is out for {duration(fair.outage_s)}" if fair.outage_s else "stays up"
    if none is None:
        return f"With the Mechanism the DSP {out}: {threw}"
    without = (
        f"Without protection the DSP is out for {duration(none.outage_s)}"
        if none.outage_s
        else "The DSP copes without protection"
    )
    return f"{without}; with the Mechanism it {out}: {threw}"


def summary(simulation: Simulation) -> dict[str, Any]:
    """Return all figures, ready for JSON; nothing depends on the machine."""
    scenario = simulation.scenario
    config = scenario.config
    return {
        "format": 1,
        "scenario": scenario.name,
        "title": scenario.title,
        "about": scenario.about,
        "source": scenario.source,
        "seconds": scenario.seconds,
        "seed": scenario.seed,
        "configuration": {
            "version": config.version,
            "system_capacity": config.system_capacity,
            "operating_threshold": config.operating_threshold,
            "users": len(config.users),
        },
        "service_requests": simulation.results[0].requests,
        "users_inside": len(simulation.inside),
        "finding": finding(simulation),
        "policies": {
            result.name: {
                "name": POLICIES[result.name],
                **{key: _rounded(value) for key, value in figures_of(simulation, result).items()},
                "attempts": result.attempts,
                "given_up": result.lost_total,
                "open_at_the_end": result.open,
                "dsp_failures": result.failures,
                "dsp_work_for_nobody": result.wasted,
                "events": [{"began_s": each.began_s, "ended_s": each.ended_s} for each in result.activations],
                "checks": [
                    {"name": each.name, "promise": each.promise, "found": each.found, "holds": each.holds}
                    for each in checks(result)
                ],
            }
            for result in simulation.results
        },
    }


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def lines(simulation: Simulation, paint: Paint) -> Iterator[str]:
    """Yield the summary for people."""
    results = simulation.results
    yield from paragraph(simulation.scenario.about)
    yield from paragraph(about(simulation))
    yield ""
    for line in paragraph(finding(simulation) + ".", ""):
        yield paint.bold(line)
    yield ""
    rows = [[row.label, *[value_text(row, row.of(simulation, each)) for each in results]] for row in FIGURES]
    head = ["", *[result.name for result in results]]
    parts = _parts(head, rows)
    for place, part in enumerate(parts):
        if place:
            yield ""
        yield from terminal.table(*_part(head, rows, part), paint)
    for result in results:
        if found := checks(result):
            yield ""
            yield paint.bold(f"What is promised, under {result.name} ({POLICIES[result.name]})")
            for each in found:
                word = {True: "holds", False: "BROKEN", None: "not tested"}[each.holds]
                for line in paragraph(f"{each.name} {word}. {each.promise}: {each.found}."):
                    yield paint.red(line) if each.holds is False else line


def _parts(head: list[str], rows: list[list[str]]) -> list[list[int]]:
    """Return the columns of as few tables as fit the terminal, each with about as many."""
    places = list(range(1, len(head)))
    for tables in range(1, len(places)):
        cuts = [len(places) * number // tables for number in range(tables + 1)]
        parts = [places[begin:end] for begin, end in pairwise(cuts)]
        if all(terminal.table_width(*_part(head, rows, part), 1) <= terminal.columns() for part in parts):
            return parts
    return [[place] for place in places]


def _part(head: list[str], rows: list[list[str]], places: list[int]) -> tuple[list[str], list[list[str]]]:
    return [head[0], *[head[at] for at in places]], [[row[0], *[row[at] for at in places]] for row in rows]


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
    for place, simulation in enumerate(simulations, 1):
        prefix = "" if alone else f"{place}-"
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


_NAME = 20


def compare_lines(simulations: Sequence[Simulation], paint: Paint) -> Iterator[str]:
    """Yield what two simulations found, what differs, and what does not hold."""
    one, two = simulations
    names = names_of(one, two)
    for name, simulation in zip(names, simulations, strict=True):
        yield paint.bold(f"{name}: {plain(simulation.scenario.title, 100)}")
        yield from paragraph(about(simulation))
        yield from paragraph(finding(simulation) + ".")
        yield ""
    for result in one.results:
        other = two.of(result.name)
        if other is None:
            continue
        yield from _policy(one, result, two, other, names, paint)
        yield ""
    for sentence in only(one, two):
        yield from paragraph(sentence)
    yield from _promises(simulations, names, paint)


def differences(
    one: Simulation, result: PolicyResult, two: Simulation, other: PolicyResult
) -> tuple[list[list[str]], list[str]]:
    """Return the figures of a policy that differ: label, both values and the difference; and sentences on the rest."""
    rows, same, none = [], [], []
    for row in FIGURES:
        first, second = row.of(one, result), row.of(two, other)
        texts = value_text(row, first), value_text(row, second)
        if texts[0] != texts[1]:
            rows.append([row.label, *texts, _difference(row, first, second)])
        elif first:
            same.append(f"{row.label} {texts[0]}")
        elif first == 0:
            none.append(row.label)
    rest = []
    if same:
        rest.append("The same in both: " + "; ".join(same) + ".")
    if none:
        rest.append("None in either: " + "; ".join(none) + ".")
    return rows, rest


def names_of(one: Simulation, two: Simulation) -> list[str]:
    """Return what to call both: their names, numbered where they are the same."""
    names = [plain(each.scenario.name, _NAME) for each in (one, two)]
    return names if names[0] != names[1] else [f"{number}. {name}" for number, name in enumerate(names, 1)]


def _policy(
    one: Simulation, result: PolicyResult, two: Simulation, other: PolicyResult, names: Sequence[str], paint: Paint
) -> Iterator[str]:  # fmt: skip
    rows, rest = differences(one, result, two, other)
    title = POLICIES[result.name]
    if not rows:
        yield from paragraph(f"{title}: all figures are the same.")
        return
    yield from terminal.table([title, *names, "difference"], rows, paint)
    for sentence in rest:
        yield from paragraph(sentence)


def _difference(row: Row, first: Any, second: Any) -> str:
    if first is None or second is None:
        return ""
    if row.kind == "share":
        more = round(100 * second, 1) - round(100 * first, 1)
        return f"{more:+.1f} points"
    if row.kind == "ratio":
        return f"{round(second, 3) - round(first, 3):+.3f}"
    if row.kind == "duration":
        return ("+" if second > first else "-") + duration(abs(second - first))
    more = round(second) - round(first)
    return ("+" if more > 0 else "-") + number(abs(more))


def only(one: Simulation, two: Simulation) -> Iterator[str]:
    """Yield a sentence for each with policies that the other does not have."""
    names = names_of(one, two)
    for name, simulation, other in ((names[0], one, two), (names[1], two, one)):
        alone = [POLICIES[each.name] for each in simulation.results if other.of(each.name) is None]
        if alone:
            yield f"Only in {name}: {', '.join(alone)}."


def _promises(simulations: Sequence[Simulation], names: Sequence[str], paint: Paint) -> Iterator[str]:
    """Yield what does not hold, or was not put to the test; the rest in a sentence."""
    kept = 0
    rest = []
    for name, simulation in zip(names, simulations, strict=True):
        for result in simulation.results:
            for each in checks(result):
                kept += each.holds is True
                if each.holds is not True:
                    word = "not tested" if each.holds is None else "BROKEN"
                    where = f"{name}, {POLICIES[result.name]}"
                    rest.append((each.holds, f"{where}: {each.name} {word}. {each.promise}: {each.found}."))
    if not kept and not rest:
        return
    yield paint.bold("What is promised")
    yield from paragraph(
        f"{number(kept)} checks of P1 to P7 hold{'.' if not rest else '; these do not, or were not tested:'}"
    )
    for holds, text in rest:
        for line in paragraph(text, "    "):
            yield paint.red(line) if holds is False else line
