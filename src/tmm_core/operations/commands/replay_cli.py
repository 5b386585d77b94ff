"""`tmm replay`: the main job on a gateway's own request log."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tmm_core.operations import terminal

if TYPE_CHECKING:
    from tmm_core.operations.replay import Replay
    from tmm_core.operations.traffic.request_log import LogNotes

__all__ = ["add_parser", "run"]

_EPILOG = """\
The log is CSV (or CSV.gz) with a header that names three columns: time, the User's identifier, and SRV:

  time,user_id,srv
  2026-12-01T18:30:00.250Z,90-B3-D5-1F-30-01-00-00,4.1.1

Times are ISO 8601 with Z or an offset, or seconds, milliseconds, microseconds or nanoseconds since 1970.
A line that cannot be read is counted, and the first ones are shown with their number. Throttled requests are
not sent again: retries that a User would have sent are not in the log.

examples:
  tmm replay requests.csv -c tmm.toml           files in ./tmm-replay
  zcat requests-*.gz | tmm replay - -c tmm.toml  one after the other, with one header
  tmm replay requests.csv.gz -c tmm.toml --json | jq .throttled

exit status: 0 the log was replayed, 1 a file is wrong (with --strict: or a line), 2 the command is wrong
"""
_MOST_SHOWN = 5


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "replay",
        help="show what the Mechanism would have done to a request log",
        description="Play a gateway's request log through the real engine, on the log's own clock, and show "
        "what the configuration would have throttled, and for whom.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("log", metavar="LOG", help="request log, CSV or CSV.gz; - is standard input")
    add("-c", "--config", type=Path, default=Path("tmm.toml"), metavar="FILE", help="default tmm.toml")
    add(
        "--out",
        type=Path,
        default=Path("tmm-replay"),
        metavar="DIR",
        help="folder for the files (default tmm-replay)",
    )
    add(
        "--window",
        type=_window,
        default=5.0,
        metavar="S",
        help="seconds a line may be behind an earlier one (default 5, at most 3600); others are left out",
    )
    add("--utc", action="store_true", help="take times without an offset as UTC")
    for name, what in (("time", "the time"), ("user", "the User's identifier"), ("srv", "the SRV")):
        add(f"--{name}-column", metavar="NAME", help=f"column of {what}, where it has no usual name")
    add("--strict", action="store_true", help="exit status 1 if any line was left out")
    add("--all-users", action="store_true", help="list every User")
    add("--json", action="store_true", help="write the figures to stdout as JSON")
    add("--quiet", action="store_true", help="show no progress and no summary; only write the files")
    return parser


def run(args: argparse.Namespace) -> int:
    """Replay the log and show the summary."""
    from tmm_core.operations.replay import run_replay, time_at
    from tmm_core.operations.traffic.request_log import RequestLog
    from tmm_core.operations.traffic.summary import summary
    from tmm_core.policy.config import Config

    began = perf_counter()
    config = Config.load(args.config)
    source = None if args.log == "-" else Path(args.log)
    columns = {
        "time_column": args.time_column,
        "user_column": args.user_column,
        "srv_column": args.srv_column,
    }
    with (
        RequestLog(source, assume_utc=args.utc, **columns) as log,
        terminal.progress("Replaying", log.size, quiet=args.quiet) as progress,
    ):
        keep = (args.config,) if source is None else (args.config, source)
        replay = run_replay(log, config, args.out, window_s=args.window, keep=keep, progress=progress)
    took_s = perf_counter() - began
    notes = replay.notes
    if args.json:
        first, last = time_at(replay.start), time_at(replay.start + replay.outcome.seconds - 1)
        about = {"first_second": first, "last_second": last, "log": dataclasses.asdict(notes)}
        terminal.print_json({**about, **summary(replay.outcome, replay.config)})
    elif not args.quiet:
        for line in _lines(args, replay, config.mode, log.name, took_s):
            print(line)
    if notes.bad or notes.late:
        # For whoever sends stdout elsewhere.
        left_out = f"{notes.bad:,} bad, {notes.late:,} late: left out of {notes.lines:,} lines"
        print(f"tmm: {terminal.plain(log.name)}: {left_out}", file=sys.stderr)
    return int(args.strict and bool(notes.bad or notes.late))


def _lines(args: argparse.Namespace, replay: Replay, mode: str, name: str, took_s: float) -> Iterator[str]:
    from tmm_core.operations.replay import time_at
    from tmm_core.operations.traffic.summary import summary_lines

    outcome, number = replay.outcome, terminal.number
    paint = terminal.Paint.of(sys.stdout)
    yield paint.bold(f"tmm replay: {terminal.plain(name, 120)}")
    observed = " It says observe; shown is what enforce would have throttled." if mode == "observe" else ""
    yield from terminal.paragraph(
        f"{number(outcome.requests)} Service Requests from {time_at(replay.start)} to "
        f"{time_at(replay.start + outcome.seconds - 1)}; times are {replay.notes.time_format}. Configuration "
        f"{terminal.plain(str(args.config), 200)}, version {replay.config.version}.{observed} Throttled requests "
        "are not sent again."
    )
    yield from _notes(replay.notes, args.window, paint)
    if not outcome.counts[1:].any():
        yield paint.red("  No User of the configuration is in the log: are these its identifiers?")
    yield ""
    yield from summary_lines(
        outcome,
        replay.config,
        paint,
        lambda second: time_at(replay.start + int(second)),
        all_users=args.all_users,
    )
    yield ""
    yield from terminal.finished(outcome.requests, outcome.decided_s, took_s, replay.files)


def _notes(notes: LogNotes, window_s: float, paint: terminal.Paint) -> Iterator[str]:
    """Yield what a reader must know about the log."""
    number = terminal.number
    if notes.bad:
        yield paint.red(f"  Lines that could not be read: {number(notes.bad)} of {number(notes.lines)}")
        yield from _examples([str(bad) for bad in notes.first_bad], notes.bad)
    if notes.late:
        yield paint.red(
            f"  Lines too far out of order, left out: {number(notes.late)} of {number(notes.lines)}"
        )
        yield from _examples([str(late) for late in notes.first_late], notes.late)
        yield "    Sort the log by time, or name a larger --window."
    if notes.out_of_order > notes.late:
        yield from terminal.paragraph(
            f"Lines out of order within the window of {window_s:g} s, put in order: "
            f"{number(notes.out_of_order - notes.late)}."
        )
    if notes.whole_seconds:
        yield from terminal.paragraph(
            "The times have no fractions: where a second has several requests, they are spread evenly over it "
            f"(seconds: {number(notes.whole_seconds)})."
        )
    for what, names in (("identifiers", notes.unknown_users), ("SRVs", notes.unknown_srvs)):
        if names:
            shown = ", ".join(terminal.plain(name, 40) for name in names[:_MOST_SHOWN])
            more = ", ..." if len(names) > _MOST_SHOWN else ""
            yield from terminal.paragraph(f"Unknown {what}: {shown}{more}")


def _examples(texts: list[str], count: int) -> Iterator[str]:
    for text in texts[:_MOST_SHOWN]:
        yield "    " + terminal.plain(text, 120)
    if count > _MOST_SHOWN:
        yield f"    and {terminal.number(count - _MOST_SHOWN)} more"


def _window(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return seconds
