"""`tmm demo`: the main job on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from tmm_core.operations import terminal

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
The day has the published shape of smart-meter traffic at full roll-out: an ordinary daily-read peak, one
runaway User, and a burst of freak weather. It is played faster than it would last, at the rates per second
of a real day; --requests 240000000 plays all 24 hours. Throttled requests are not sent again. All Users are
invented.

examples:
  tmm demo                          about ten million Service Requests, files in ./tmm-demo
  tmm demo --seed 7 --out /tmp/d    other traffic, another folder
  tmm demo --json | jq .events      figures for programs

The same seed gives the same bytes in demo.csv, users.csv and demo.svg.
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
    parser.add_argument("--all-users", action="store_true", help="list every User")
    parser.add_argument("--json", action="store_true", help="write the figures to stdout as JSON")
    parser.add_argument(
        "--quiet", action="store_true", help="show no progress and no summary; only write the files"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Play the day and show the summary."""
    from tmm_core.operations.demo import REQUESTS_PER_S, run_demo, time_of_day
    from tmm_core.operations.traffic.summary import summary, summary_lines

    began = perf_counter()
    total = max(1, round(args.requests / REQUESTS_PER_S))
    with terminal.progress("Playing the day", total, quiet=args.quiet) as progress:
        demo = run_demo(args.out, seed=args.seed, requests=args.requests, progress=progress)
    took_s = perf_counter() - began
    day, outcome = demo.day, demo.outcome
    if args.json:
        figures = {"seed": day.seed, "simulated_seconds": day.seconds, "speed": day.speed}
        terminal.print_json({**figures, **summary(outcome, demo.config)})
        return 0
    if args.quiet:
        return 0
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
        f"{number(outcome.requests)} Service Requests from {len(demo.config.users)} invented Users and "
        "one unknown "
        f"identifier, seed {day.seed}. {pace} Throttled requests are not sent again."
    ):
        print(line)
    print()

    def clock(second: float) -> str:
        return time_of_day(day, second)

    for line in summary_lines(outcome, demo.config, paint, clock, all_users=args.all_users):
        print(line)
    print()
    for line in terminal.finished(outcome.requests, outcome.decided_s, took_s, demo.files):
        print(line)
    return 0


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
