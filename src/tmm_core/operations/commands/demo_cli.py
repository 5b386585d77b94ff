"""`tmm demo`: the main job on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tmm_core.operations import terminal

if TYPE_CHECKING:
    from tmm_core.operations.demo import Demo
    from tmm_core.operations.simulate import Simulation

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
Two parts. The day has the published shape of smart-meter traffic at full roll-out: an ordinary daily-read peak, one
runaway User, and a burst of freak weather. It is played faster than it would last, at the rates per second
of a real day; --requests 240000000 plays all 24 hours. Its throttled requests are not sent again. Then the Beast
from the East is played by the simulator at a tenth of its volume, without protection and under the Mechanism, with
clients that send again what was refused or not answered: tmm simulate has all six policies. All Users are invented.

examples:
  tmm demo                          about ten million Service Requests, files in ./tmm-demo
  tmm demo --seed 7 --out /tmp/d    other traffic, another folder
  tmm demo --day                    only the day: a few seconds
  tmm demo --json | jq .events      figures for programs

The same seed gives the same bytes in every file. The page needs Jinja2; all the rest only NumPy.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        help="play a day of traffic at DSP peak volume through the engine",
        description="Play a day of invented traffic at DSP peak volume (20,000 Service Requests per "
        "second and more) through the real engine on a simulated clock, and show what it "
        "throttles, and for whom.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=_seed, default=1, metavar="N", help="seed of the traffic (default 1)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("tmm-demo"),
        metavar="DIR",
        help="folder for the files (default tmm-demo)",
    )
    parser.add_argument(
        "--requests",
        type=_requests,
        default=10_000_000,
        metavar="N",
        help="about how many Service Requests, 100000 to 1000000000 (default 10000000)",
    )
    parser.add_argument("--day", action="store_true", help="only the day, without the storm and its page")
    parser.add_argument("--all-users", action="store_true", help="list every User")
    parser.add_argument("--json", action="store_true", help="write the figures to stdout as JSON")
    parser.add_argument(
        "--quiet", action="store_true", help="show no progress and no summary; only write the files"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Play the day and the storm, and show what came of them."""
    from tmm_core.operations.demo import REQUESTS_PER_S, run_demo
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
    from tmm_core.operations.commands.simulate_cli import html_of
    from tmm_core.operations.demo import STORM, run_storm
    from tmm_core.operations.simulation.scenario_files import load_scenario
    from tmm_core.operations.simulation.summary import lines, write_files

    seconds = load_scenario(STORM).seconds
    with terminal.progress("Playing the storm", seconds, quiet=args.quiet) as progress:
        storm = run_storm(seed=args.seed, progress=progress)
    html = html_of([storm])
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
    from tmm_core.operations.demo import time_of_day
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


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**63 - 1}")
    return int(text)


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
