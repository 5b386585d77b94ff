"""`tmm simulate` and `tmm demo`: invented traffic, under several policies or through the engine alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tmm_core.operations import terminal
from tmm_core.operations.commands.arguments import about, add_files_arguments, number_between

if TYPE_CHECKING:
    from tmm_core.operations.simulate import Demo, Simulation


# --- tmm simulate

_SIMULATE_EXAMPLES = """\
The Mechanism's decisions are those of the real engine; the DSP, the network and the clients are models. All Users
are invented. A scenario is a shipped one or a TOML file of your own; the shipped ones are in the package's folder
tmm_core/operations/scenarios, to copy from.

examples:
  tmm simulate --list                               the scenarios that come with it
  tmm simulate beast-from-the-east                  all policies; files in ./tmm-simulation
  tmm simulate runaway-user --policies none,fair    two of them: a third of the time
  tmm simulate my.toml --scale 0.1 --seed 7         a tenth of all loads and thresholds
  tmm simulate runaway-user --policies fair --open-loop   nobody sends again: the Mechanism alone, in a few seconds
  tmm simulate --compare a.toml b.toml              two scenarios side by side

The same scenario and seed give the same bytes in every file.
"""


def add_simulate(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm simulate` takes."""
    about(
        parser,
        _simulate,
        "Run a scenario under several policies, on the same Service Requests: no protection, the "
        "network's 503 to everybody, hard allocations, first come first served, the Mechanism, and the "
        "Alternative Solution of the Modification Report.",
        _SIMULATE_EXAMPLES,
    )
    add = parser.add_argument
    add("scenario", nargs="?", metavar="SCENARIO", help="name of a shipped scenario, or a TOML file")
    add("--list", action="store_true", help="list the shipped scenarios")
    add("--compare", nargs=2, metavar=("A", "B"), help="two scenarios side by side")
    add(
        "--policies",
        type=_policies,
        metavar="P,P",
        help="some of: none, network-503, hard, first-come, fair, alternative",
    )
    add("--open-loop", action="store_true", help="no client sends anything again; several times faster")
    add("--seed", type=_seed, metavar="N", help="another seed than the scenario's")
    add(
        "--scale",
        type=number_between(0.001, 10, "a number"),
        default=1.0,
        metavar="X",
        help="multiply all loads and thresholds, 0.001 to 10",
    )
    add_files_arguments(parser, "tmm-simulation")


def _simulate(args: argparse.Namespace) -> int:
    """Run the scenarios asked for."""
    from dataclasses import replace

    from tmm_core.operations.simulate import simulate
    from tmm_core.operations.simulation.scenario_files import load_scenario
    from tmm_core.operations.simulation.summary import compare_lines, summary, write_files

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
    files = write_files(args.out, simulations, _html_of(simulations))
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


def _html_of(simulations: Sequence[Any]) -> str | None:
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


# --- tmm demo

_DEMO_EXAMPLES = """\
Two parts. The day has the published shape of smart-meter traffic at full roll-out: an ordinary daily-read peak, one
runaway User, and a burst of freak weather. It is played faster than it would last, at the rates per second
of a real day; --requests 240000000 plays all 24 hours. Its throttled requests are not sent again. Then the Beast
from the East is played by the simulator at a tenth of its volume, without protection and under the Mechanism, with
clients that send again what was refused or not answered: tmm simulate has all six policies. All Users are invented.

examples:
  tmm demo                          about ten million Service Requests, files in ./tmm-demo
  tmm demo --seed 7 --out other     other traffic, another folder
  tmm demo --day                    only the day: a few seconds
  tmm demo --json | jq .events      figures for programs

The same seed gives the same bytes in every file. The page needs Jinja2; all the rest only NumPy.
"""


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm demo` takes."""
    about(
        parser,
        _demo,
        "Play a day of invented traffic at DSP peak volume (20,000 Service Requests per "
        "second and more) through the real engine on a simulated clock, and show what it "
        "throttles, and for whom.",
        _DEMO_EXAMPLES,
    )
    add = parser.add_argument
    add("--seed", type=_seed, default=1, metavar="N", help="seed of the traffic (default 1)")
    add(
        "--requests",
        type=_requests,
        default=10_000_000,
        metavar="N",
        help="about how many Service Requests, 100000 to 1000000000 (default 10000000)",
    )
    add("--day", action="store_true", help="only the day, without the storm and its page")
    add("--all-users", action="store_true", help="list every User")
    add_files_arguments(parser, "tmm-demo")


def _demo(args: argparse.Namespace) -> int:
    """Play the day and the storm, and show what came of them."""
    from tmm_core.operations.simulate import REQUESTS_PER_S, run_demo
    from tmm_core.operations.simulation.summary import summary as storm_summary
    from tmm_core.operations.traffic.summary import summary

    began = perf_counter()
    total = max(1, round(args.requests / REQUESTS_PER_S))
    with terminal.progress("Playing the day", total, quiet=args.quiet) as progress:
        demo = run_demo(args.out, seed=args.seed, requests=args.requests, progress=progress)
    took_s = perf_counter() - began
    day, outcome = demo.day, demo.outcome
    if not args.json and not args.quiet:
        _say_day(args, demo, took_s)
    storm = None if args.day else _storm(args)
    if args.json:
        figures: dict[str, Any] = {"seed": day.seed, "simulated_seconds": day.seconds, "speed": day.speed}
        figures |= summary(outcome, day.config)
        if storm is not None:
            figures["storm"] = storm_summary(storm)
        terminal.print_json(figures)
    return 0


def _storm(args: argparse.Namespace) -> Simulation:
    """Play the storm, write its files, and say what came of it."""
    from tmm_core.operations.simulate import STORM, run_storm
    from tmm_core.operations.simulation.scenario_files import load_scenario
    from tmm_core.operations.simulation.summary import lines, write_files

    seconds = load_scenario(STORM).seconds
    with terminal.progress("Playing the storm", seconds, quiet=args.quiet) as progress:
        storm = run_storm(seed=args.seed, progress=progress)
    html = _html_of([storm])
    files = write_files(args.out / STORM, [storm], html)
    if args.json or args.quiet:
        return storm
    paint = terminal.Paint.of(sys.stdout)
    print()
    print(paint.bold(f"{storm.scenario.title}, at a tenth of its volume, with clients that send again"))
    for line in lines(storm, paint):
        print(line)
    print()
    for line in terminal.paragraph(
        f"{storm.took_s:.1f} s on this machine. Written: {terminal.plain(str(args.out / STORM), 200)}: "
        + ", ".join(file.name for file in files)
    ):
        print(line)
    if html is not None:
        print(f"  Open: {terminal.plain(str(files[0]), 300)}")
    return storm


def _say_day(args: argparse.Namespace, demo: Demo, took_s: float) -> None:
    from tmm_core.operations.simulate import time_of_day
    from tmm_core.operations.traffic.summary import summary_lines

    day, outcome = demo.day, demo.outcome
    paint = terminal.Paint.of(sys.stdout)
    number, duration = terminal.number, terminal.duration
    print(paint.bold("tmm demo: a day of traffic at DSP peak volume, decided by the engine"))
    pace = "24 h of traffic on a simulated clock."
    if day.speed > 1:
        pace = (
            f"24 h are played in {duration(day.seconds)} of a simulated clock: rates per second are "
            "those of the day; "
            f"what would last an hour lasts {duration(3600 / day.speed)}, and so events, backlogs and "
            "waits are "
            f"{number(round(day.speed, 1))} times shorter than they would be."
        )
    for line in terminal.paragraph(
        f"{number(outcome.requests)} Service Requests from {len(day.config.users)} invented Users and "
        "one unknown "
        f"identifier, seed {day.seed}. {pace} Throttled requests are not sent again."
    ):
        print(line)
    print()

    def clock(second: float) -> str:
        return time_of_day(day, second)

    for line in summary_lines(outcome, day.config, paint, clock, all_users=args.all_users):
        print(line)
    print()
    for line in terminal.finished(outcome.requests, outcome.decided_s, took_s, demo.files):
        print(line)


def _requests(text: str) -> int:
    digits = text.replace("_", "").replace(",", "")
    if (
        not digits.isascii()
        or not digits.isdigit()
        or len(digits) > 10
        or not 100_000 <= int(digits) <= 10**9
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 100000 to 1000000000")
    return int(digits)
