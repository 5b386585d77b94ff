"""Two scenarios side by side on a terminal: policy by policy, the figures that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tmm_core.operations import terminal
from tmm_core.operations.simulate import Simulation
from tmm_core.operations.simulation.promises import checks
from tmm_core.operations.simulation.result import PolicyResult
from tmm_core.operations.simulation.scenario import POLICIES
from tmm_core.operations.simulation.summary import FIGURES, Row, about, finding, value_text
from tmm_core.operations.terminal import Paint, duration, number, paragraph, plain

__all__ = ["compare_lines", "differences", "names_of", "only"]

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
