"""`tmm report`: the monthly report and the Users' statements, from the event logs."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from datetime import date
from pathlib import Path
from typing import Any

from tmm_core.operations import terminal

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
LOG is a file of an event log, a configured path such as events.db (all its months), or a folder of logs; give
those of every host. Without --log, the event_log of tmm.toml is read. Earlier months among them become trends.

examples:
  tmm report 2026-11 -o report/                       this host, as tmm.toml says
  tmm report 2026-11 -o report/ -l logs/ --host gw4     the logs of all hosts; gw4 should be among them
  tmm report 2026-11 -o report/ -l logs/ --portfolio portfolio/2026-11.csv
  tmm report 2026-11 -o public/ -l logs/ --anonymise     Users under pseudonyms, no statements

Written: report.html (open this), report.json, csv/, statements/, and report.pdf with --pdf.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "report",
        help="write the monthly report and the Users' statements",
        description="Write the monthly report (System Configuration, System Capacity, Users, Trends) and a statement "
        "for each User, from the event logs of one or many hosts.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("month", metavar="MONTH", help="for example 2026-11")
    parser.add_argument(
        "-l",
        "--log",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="LOG",
        dest="logs",
        help="event logs of all hosts, or a tmm.toml that names one",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("report"),
        metavar="DIR",
        help="folder to write (default report)",
    )
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=Path("tmm.toml"),
        metavar="FILE",
        help="where event_log is, without LOG",
    )
    parser.add_argument(
        "--portfolio", type=Path, metavar="CSV", help="portfolio of the month, with the forecasts"
    )
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="a host that should have logged; repeat"
    )
    parser.add_argument(
        "--holiday", action="append", default=[], type=_day, metavar="DATE",
        help="a bank holiday proclaimed lately, as 2027-05-10; repeat",
    )  # fmt: skip
    parser.add_argument("--anonymise", action="store_true", help="pseudonyms for Users; no statements")
    parser.add_argument("--no-statements", action="store_true", help="only the report")
    parser.add_argument("--pdf", action="store_true", help="write report.pdf as well (extra: pdf)")
    parser.add_argument("--json", action="store_true", help="write the figures to stdout, and no files")
    parser.add_argument("--quiet", action="store_true", help="show no progress and no summary")
    return parser


def run(args: argparse.Namespace) -> int:
    """Read the logs, compute, and write."""
    from tmm_core.errors import ConfigError, EventLogError, Mistake
    from tmm_core.operations.commands.arguments import logs_of
    from tmm_core.operations.event_log.files import LogSet
    from tmm_core.operations.report.compute import figures_of
    from tmm_core.operations.report.files import as_json, write_report
    from tmm_core.operations.report.log import read_month
    from tmm_core.operations.report.page import answer
    from tmm_core.operations.report.record import Month, anonymised
    from tmm_core.policy.portfolio import Portfolio

    month = Month.parse(args.month)
    portfolio = Portfolio.load(args.portfolio, str(month)) if args.portfolio else None
    if not args.logs and not args.config.exists():
        fault = "there is no such file, expected a configuration, or event logs with --log"
        raise ConfigError(Mistake(fault, file=str(args.config)))
    try:
        with (
            LogSet(logs_of(args.logs or [args.config])) as logs,
            terminal.progress(f"Reading {len(logs.files)} files", month.days, quiet=args.quiet) as progress,
        ):
            record = read_month(logs, month, progress, args.host)
    except sqlite3.Error as error:
        raise EventLogError(f"a log cannot be read: {error}") from error
    if args.anonymise:
        record, portfolio = anonymised(record, portfolio)
    figures = figures_of(record, portfolio, holidays=tuple(args.holiday), anonymised=args.anonymise)
    if args.json:
        sys.stdout.write(as_json(figures))
        return 0
    written = write_report(figures, args.out, statements=not args.no_statements, pdf=args.pdf)
    if not args.quiet:
        print(terminal.plain(answer(figures), 400))
        print(f"Due by {figures.due:%A} {figures.due.day} {figures.due:%B %Y}.")
        print("Written: " + ", ".join(terminal.plain(str(path), 200) for path in written))
    return 0


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2027-05-10") from None
