"""`tmm simulate`: policies side by side on the same traffic."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmm_core.operations import terminal

if TYPE_CHECKING:
    from tmm_core.operations.simulate import Simulation

__all__ = ["add_parser", "html_of", "run"]

_EXAMPLES = """\
The Mechanism's decisions are those of the real engine; the DSP, the network and the clients are models. All Users
are invented. A scenario is a shipped one or a TOML file of your own; the shipped ones are in the package's folder
tmm_core/operations/simulation/scenarios, to copy from.

examples:
  tmm simulate --list                               the scenarios that come with it
  tmm simulate beast-from-the-east                  all policies; files in ./tmm-simulation
  tmm simulate runaway-user --policies none,fair    two of them: a third of the time
  tmm simulate my.toml --scale 0.1 --seed 7         a tenth of all loads and thresholds
  tmm simulate runaway-user --policies fair --open-loop   nobody sends again: the Mechanism alone, in a few seconds
  tmm simulate --compare a.toml b.toml              two scenarios side by side

The same scenario and seed give the same bytes in every file.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "simulate",
        help="compare policies on invented traffic: outage or not, who is hit, for how long",
        description="Run a scenario under several policies, on the same Service Requests: no protection, the "
        "network's 503 to everybody, hard allocations, first come first served, the Mechanism, and the "
        "Alternative Solution of the Modification Report.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "scenario", nargs="?", metavar="SCENARIO", help="name of a shipped scenario, or a TOML file"
    )
    parser.add_argument("--list", action="store_true", help="list the shipped scenarios")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two scenarios side by side")
    parser.add_argument(
        "--policies",
        type=_policies,
        metavar="P,P",
        help="some of: none, network-503, hard, first-come, fair, alternative",
    )
    parser.add_argument(
        "--open-loop", action="store_true", help="no client sends anything again; several times faster"
    )
    parser.add_argument("--seed", type=_seed, metavar="N", help="another seed than the scenario's")
    parser.add_argument(
        "--scale",
        type=_scale,
        default=1.0,
        metavar="X",
        help="multiply all loads and thresholds, 0.001 to 10",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("tmm-simulation"),
        metavar="DIR",
        help="folder for the files (default tmm-simulation)",
    )
    parser.add_argument("--json", action="store_true", help="write the figures to stdout as JSON")
    parser.add_argument(
        "--quiet", action="store_true", help="show no progress and no summary; only write the files"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the scenarios asked for."""
    from dataclasses import replace

    from tmm_core.operations.simulate import simulate
    from tmm_core.operations.simulation.compare import compare_lines
    from tmm_core.operations.simulation.scenario_files import load_scenario
    from tmm_core.operations.simulation.summary import summary, write_files

    if args.list:
        return _list(args)
    names = args.compare or ([args.scenario] if args.scenario else [])
    if not names or (args.compare and args.scenario):
        print(
            "tmm simulate: name a scenario, or two with --compare; see tmm simulate --list", file=sys.stderr
        )
        return 2
    simulations = []
    scenarios = [load_scenario(name) for name in names]
    args.out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be there is no news for after minutes
    for scenario in scenarios:
        if args.seed is not None:
            scenario = replace(scenario, seed=args.seed)
        if args.scale != 1:
            scenario = scenario.scaled(args.scale)
        if args.open_loop:
            scenario = scenario.without_clients()
        policies = args.policies or scenario.policies
        label = f"Simulating {scenario.name}, {len(policies)} policies"
        with terminal.progress(label, scenario.seconds, quiet=args.quiet) as progress:
            simulations.append(simulate(scenario, policies, progress=progress))
    files = write_files(args.out, simulations, html_of(simulations))
    if args.json:
        found = [summary(each) for each in simulations]
        terminal.print_json(found[0] if len(found) == 1 else found)
    elif not args.quiet:
        paint = terminal.Paint.of(sys.stdout)
        for line in compare_lines(simulations, paint) if args.compare else _lines(simulations[0], paint):
            print(line)
        print()
        took = sum(each.took_s for each in simulations)
        done = sum(each.scenario.seconds * len(each.results) for each in simulations)
        print(f"  {took:.1f} s on this machine: each policy {done / took:.0f} times faster than real time.")
        for line in terminal.paragraph(
            "Written: " + ", ".join(terminal.plain(str(file), 200) for file in files)
        ):
            print(line)
    return 0


def _lines(simulation: Simulation, paint: terminal.Paint) -> Iterator[str]:
    from tmm_core.operations.simulation.summary import lines

    yield paint.bold(f"tmm simulate: {terminal.plain(simulation.scenario.title, 120)}")
    yield from lines(simulation, paint)


def html_of(simulations: Sequence[Any]) -> str | None:
    """Return the page; None, and a word on stderr, without Jinja2."""
    from tmm_core.errors import TMMError
    from tmm_core.operations.page import render_html
    from tmm_core.operations.simulation.page import simulation_page

    try:
        return render_html(simulation_page(simulations))
    except TMMError as error:  # all the rest is written without Jinja2
        print(f"tmm: no page: {error}", file=sys.stderr)
        return None


def _list(args: argparse.Namespace) -> int:
    from tmm_core.operations.simulation.scenario_files import load_scenario, shipped_scenarios

    scenarios = [load_scenario(name) for name in shipped_scenarios()]
    if args.json:
        terminal.print_json(
            [{"name": s.name, "title": s.title, "about": s.about, "source": s.source, "seconds": s.seconds}
             for s in scenarios]
        )  # fmt: skip
        return 0
    paint = terminal.Paint.of(sys.stdout)
    for scenario in scenarios:
        print(f"{paint.bold(scenario.name)}  {scenario.title}, {terminal.duration(scenario.seconds)}")
        for line in terminal.paragraph(scenario.about):
            print(line)
        for line in terminal.paragraph(scenario.source):
            print(paint.faint(line))
    return 0


def _policies(text: str) -> tuple[str, ...]:
    from tmm_core.operations.simulation.scenario import POLICIES

    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in POLICIES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(POLICIES)}")
    return names


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**63 - 1}")
    return int(text)


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.001 to 10")
    return value
