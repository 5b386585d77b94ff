"""`tmm events`, `tmm audit` and `tmm report`: what the event logs hold."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

from tmm_core.errors import ConfigError, EventLogError, Mistake
from tmm_core.operations import terminal
from tmm_core.operations.commands.arguments import about, add_config, add_log_arguments, logs_of
from tmm_core.operations.event_log.files import LogSet
from tmm_core.operations.event_log.happenings import (
    KINDS,
    Happening,
    as_cloud_event,
    as_json,
    as_text,
    happenings,
)
from tmm_core.operations.terminal import number, percent, plain, print_json

# --- tmm events

_EVENTS_EXAMPLES = """\
examples:
  tmm events tmm.toml --since 24h                 what happened since yesterday
  tmm events events.db --kind began --kind ended  traffic management events only
  tmm events host-*/events.db --json              of several hosts, as JSON Lines
  tmm events events.db --follow --cloudevents     as it happens, CloudEvents 1.0

Times are UTC. Numbers of Users named in a line are units per second offered, and allocated.
"""
_WRITERS = {"text": as_text, "json": as_json, "cloudevents": as_cloud_event}
_LOOK_BACK_MS = 600_000  # what is written late is still found


def add_events(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm events` takes."""
    about(
        parser,
        _events,
        "List what the event log holds in order of time: traffic management events, configurations put "
        "in force, faults, priority traffic above its plan, losses, notifications.",
        _EVENTS_EXAMPLES,
    )
    add_log_arguments(parser)
    parser.add_argument(
        "--kind", action="append", choices=KINDS, metavar="KIND", help=f"only {', '.join(KINDS)}"
    )
    parser.add_argument("--follow", action="store_true", help="go on with what happens, until Ctrl-C")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="JSON Lines")
    form.add_argument(
        "--cloudevents",
        dest="form",
        action="store_const",
        const="cloudevents",
        help="CloudEvents 1.0, one a line",
    )
    parser.set_defaults(form="text")


def _events(args: argparse.Namespace) -> int:
    """Run the command."""
    write = _WRITERS[args.form]
    paths = logs_of(args.logs)
    kinds = set(args.kind or KINDS)
    seen: set[str] = set()
    since = args.since
    shown = 0
    while True:
        for each in _read(paths, since, args.until, wait=args.follow):
            if each.kind in kinds and each.id not in seen:
                print(write(each), flush=args.follow)
                shown += 1
            seen.add(each.id)
        if not args.follow:
            break
        since = max(args.since, int(time.time() * 1000) - _LOOK_BACK_MS)
        time.sleep(1)
    if not shown and args.form == "text":
        print("tmm: nothing happened in this time", file=sys.stderr)
    return 0


def _read(paths: list[Path], since_ms: int, until_ms: int, *, wait: bool) -> list[Happening]:
    try:
        with LogSet(paths) as logs:
            return happenings(logs, since_ms, until_ms)
    except EventLogError:
        if wait and not any(path.exists() for path in paths):
            return []  # it may still come
        raise


# --- tmm audit

_AUDIT_EXAMPLES = """\
examples:
  tmm audit tmm.toml                       all throttle records of this host
  tmm audit host-*/events.db --since 7d    of several hosts, last week
  tmm audit events.db --json               for programs

exit status: 0 all records agree, 1 one does not, or cannot be decided again
"""


def add_audit(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm audit` takes."""
    about(
        parser,
        _audit,
        "Decide every throttle record of the event log again, from the words of the buckets and the "
        "configuration in force, by exact fractions and with none of the engine's code; report what does not agree.",
        _AUDIT_EXAMPLES,
    )
    add_log_arguments(parser)
    parser.add_argument("--json", action="store_true", help="write the result to stdout as JSON")


def _audit(args: argparse.Namespace) -> int:
    """Run the command."""
    from tmm_core.operations.audit import audit

    result = audit(logs_of(args.logs), since_ms=args.since, until_ms=args.until)
    bad = result.records - result.agree
    if args.json:
        print_json(asdict(result))
        return 1 if bad else 0
    print(
        f"{number(result.throttled)} Service Requests were throttled; {number(result.records)} of them "
        f"({percent(result.records, result.throttled)}) have a record."
    )
    print(f"{number(result.agree)} of {number(result.records)} records decide the same again.")
    if result.lost:
        print(f"{number(result.lost)} records could not be written.")
    for finding in result.findings[:20]:
        print(f"  {plain(str(finding), 300)}")
    if len(result.findings) > 20:
        print(f"  and {number(bad - 20)} more (--json)")
    return 1 if bad else 0


# --- tmm report

_REPORT_EXAMPLES = """\
LOG is a file of an event log, a configured path such as events.db (all its months), or a folder of logs; give
those of every host. Without --log, the event_log of tmm.toml is read. Earlier months among them become trends.

examples:
  tmm report 2026-11 -o report/                       this host, as tmm.toml says
  tmm report 2026-11 -o report/ -l logs/ --host gw4     the logs of all hosts; gw4 should be among them
  tmm report 2026-11 -o report/ -l logs/ --portfolio portfolio/2026-11.csv
  tmm report 2026-11 -o public/ -l logs/ --anonymise     Users under pseudonyms, no statements

Written: report.html (open this), report.json, csv/, statements/, and report.pdf with --pdf.
"""


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm report` takes."""
    about(
        parser,
        _report,
        "Write the monthly report (System Configuration, System Capacity, Users, Trends) and a statement "
        "for each User, from the event logs of one or many hosts.",
        _REPORT_EXAMPLES,
    )
    add = parser.add_argument
    add("month", metavar="MONTH", help="for example 2026-11")
    add(
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
    add(
        "-o",
        "--out",
        type=Path,
        default=Path("report"),
        metavar="DIR",
        help="folder to write (default report)",
    )
    add_config(parser, "where event_log is, without LOG")
    add("--portfolio", type=Path, metavar="CSV", help="portfolio of the month, with the forecasts")
    add("--host", action="append", default=[], metavar="NAME", help="a host that should have logged; repeat")
    add(
        "--holiday", action="append", default=[], type=_day, metavar="DATE",
        help="a bank holiday proclaimed lately, as 2027-05-10; repeat",
    )  # fmt: skip
    add("--anonymise", action="store_true", help="pseudonyms for Users; no statements")
    add("--no-statements", action="store_true", help="only the report")
    add("--pdf", action="store_true", help="write report.pdf as well (extra: pdf)")
    add("--json", action="store_true", help="write the figures to stdout, and no files")
    add("--quiet", action="store_true", help="show no progress and no summary")


def _report(args: argparse.Namespace) -> int:
    """Read the logs, compute, and write."""
    from tmm_core.operations.report.compute import figures_of
    from tmm_core.operations.report.files import as_json as figures_as_json
    from tmm_core.operations.report.files import write_report
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
        sys.stdout.write(figures_as_json(figures))
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
