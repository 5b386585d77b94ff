"""`tmm replay`: the main job on a gateway's own request log, or on the Mechanism's event log."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tmm_core.operations import terminal
from tmm_core.operations.commands.arguments import (
    about,
    add_config,
    add_files_arguments,
    logs_of,
    moment,
    number_between,
)

if TYPE_CHECKING:
    from tmm_core.operations.replay import Replay, Source
    from tmm_core.operations.traffic.logged_traffic import LoggedNotes
    from tmm_core.operations.traffic.request_log import LogNotes


_EXAMPLES = """\
A request log is CSV (or CSV.gz) with a header that names three columns: time, the User's identifier, and SRV:

  time,user_id,srv
  2026-12-01T18:30:00.250Z,90-B3-D5-1F-30-01-00-00,4.1.1

Times are ISO 8601 with Z or an offset, or seconds, milliseconds, microseconds or nanoseconds since 1970.
A line that cannot be read is counted, and the first ones are shown with their number. Throttled requests are
not sent again: retries that a User would have sent are not in the log.

An event log (events.db for all its months, one file of it, a folder of several hosts' files, or the tmm.toml
that names it) has counts by the minute, and by the second while the Mechanism was active. They are spread evenly.

examples:
  tmm replay requests.csv -c tmm.toml           files in ./tmm-replay
  zcat requests-*.gz | tmm replay - -c tmm.toml  one after the other, with one header
  tmm replay requests.csv.gz -c tmm.toml --threshold 18000 --allocations next.csv
                                                 two configurations, side by side
  tmm replay events.db -c tmm.toml --since 7d --threshold 18000
  tmm replay requests.csv.gz -c tmm.toml --json | jq .throttled

exit status: 0 the log was replayed, 1 a file is wrong (with --strict: or a line), 2 the command is wrong
"""
_MOST_SHOWN = 5


def add_replay(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm replay` takes."""
    about(
        parser,
        _run,
        "Play a gateway's request log, or an event log, through the real engine, on the log's own "
        "clock, and show what the configuration would have throttled, and for whom; with --threshold or "
        "--allocations, what a changed one would have done beside it.",
        _EXAMPLES,
    )
    parser.allow_abbrev = False
    add = parser.add_argument
    add("log", metavar="LOG", help="request log, CSV or CSV.gz, - is standard input; or an event log")
    add_config(parser)
    add("--threshold", type=_threshold, metavar="X", help="what if: another operating threshold, units/s")
    add("--allocations", type=Path, metavar="FILE", help="what if: other allocations, a CSV file")
    add("--since", type=moment, metavar="TIME", help="event log: from 2026-11-25, or 90min, 24h, 7d ago")
    add("--until", type=moment, metavar="TIME", help="event log: the same; not included")
    add(
        "--window",
        type=number_between(0, 3600, "a number of seconds"),
        default=5.0,
        metavar="S",
        help="seconds a line may be behind an earlier one (default 5, at most 3600); others are left out",
    )
    add("--utc", action="store_true", help="take times without an offset as UTC")
    for name, what in (("time", "the time"), ("user", "the User's identifier"), ("srv", "the SRV")):
        add(f"--{name}-column", metavar="NAME", help=f"column of {what}, where it has no usual name")
    add("--strict", action="store_true", help="exit status 1 if any line was left out")
    add("--all-users", action="store_true", help="list every User")
    add_files_arguments(parser, "tmm-replay")


def _run(args: argparse.Namespace) -> int:
    """Replay the log and show the summary."""
    from tmm_core.operations.replay import run_replay
    from tmm_core.operations.traffic.summary import what_if
    from tmm_core.policy.config import Config

    began = perf_counter()
    config = Config.load(args.config)
    beside = None
    if args.threshold is not None or args.allocations is not None:
        beside = what_if(config, threshold=args.threshold, allocations=args.allocations)
    logs = _event_logs(args.log)
    if not logs and (args.since is not None or args.until is not None):
        print("tmm replay: --since and --until are for event logs: cut a request log itself", file=sys.stderr)
        return 2
    keep = tuple(path for path in (args.config, args.allocations, *logs) if path is not None)
    with ExitStack() as stack:
        source, size = _opened(args, logs, stack)
        progress = stack.enter_context(terminal.progress("Replaying", size, quiet=args.quiet))
        if not logs and args.log != "-":
            keep += (Path(args.log),)
        replay = run_replay(source, config, args.out, beside=beside, keep=keep, progress=progress)
    took_s = perf_counter() - began
    if args.json:
        terminal.print_json(_figures(replay))
    elif not args.quiet:
        for line in _lines(args, replay, config.mode, source.name, took_s):
            print(line)
    left_out = _left_out(replay.notes)
    if left_out:
        # For whoever sends stdout elsewhere.
        print(f"tmm: {terminal.plain(source.name)}: {left_out}", file=sys.stderr)
    return int(args.strict and bool(left_out))


def _event_logs(log: str) -> list[Path]:
    """Return the event logs that the argument names; nothing where it is a request log."""
    from tmm_core.operations.traffic.logged_traffic import names_event_log

    path = Path(log)
    if log == "-":
        return []
    if path.suffix == ".toml":
        return logs_of([path])
    return [path] if names_event_log(path) else []


def _opened(args: argparse.Namespace, logs: list[Path], stack: ExitStack) -> tuple[Source, float | None]:
    """Open the log; returns how much there is to read as well."""
    from tmm_core.operations.replay import Requests
    from tmm_core.operations.traffic.logged_traffic import LoggedTraffic
    from tmm_core.operations.traffic.request_log import RequestLog

    if logs:
        until = {} if args.until is None else {"until_s": args.until // 1000}
        traffic = stack.enter_context(LoggedTraffic(logs, since_s=(args.since or 0) // 1000, **until))
        return traffic, traffic.size
    columns = {
        "time_column": args.time_column,
        "user_column": args.user_column,
        "srv_column": args.srv_column,
    }
    path = None if args.log == "-" else Path(args.log)
    log = stack.enter_context(RequestLog(path, assume_utc=args.utc, **columns))
    return Requests(log, args.window), log.size


def _figures(replay: Replay) -> dict[str, Any]:
    """Return everything, ready for JSON."""
    from tmm_core.operations.replay import time_at
    from tmm_core.operations.traffic.summary import side_by_side, summary

    about = {
        "first_second": time_at(replay.start),
        "last_second": time_at(replay.start + replay.outcome.seconds - 1),
        "log": dataclasses.asdict(replay.notes),
    }
    figures = {**about, **summary(replay.outcome, replay.config)}
    if len(replay.tried) > 1:
        other = replay.tried[1]
        figures["what_if"] = summary(other.outcome, other.config)
        figures["side_by_side"] = side_by_side([(each.config, each.outcome) for each in replay.tried])
    return figures


def _left_out(notes: LogNotes | LoggedNotes) -> str:
    from tmm_core.operations.traffic.logged_traffic import LoggedNotes

    if isinstance(notes, LoggedNotes):
        return f"{notes.bad:,} bad: left out of {notes.rows:,} rows" if notes.bad else ""
    if not notes.bad and not notes.late:
        return ""
    return f"{notes.bad:,} bad, {notes.late:,} late: left out of {notes.lines:,} lines"


def _lines(args: argparse.Namespace, replay: Replay, mode: str, name: str, took_s: float) -> Iterator[str]:
    from tmm_core.operations.replay import time_at
    from tmm_core.operations.traffic.logged_traffic import LoggedNotes
    from tmm_core.operations.traffic.summary import side_by_side_lines, summary_lines

    outcome, number, notes = replay.outcome, terminal.number, replay.notes
    paint = terminal.Paint.of(sys.stdout)
    yield paint.bold(f"tmm replay: {terminal.plain(name, 120)}")
    observed = " It says observe; shown is what enforce would have throttled." if mode == "observe" else ""
    times = "" if isinstance(notes, LoggedNotes) else f"; times are {notes.time_format}"
    yield from terminal.paragraph(
        f"{number(outcome.requests)} Service Requests from {time_at(replay.start)} to "
        f"{time_at(replay.start + outcome.seconds - 1)}{times}. Configuration "
        f"{terminal.plain(str(args.config), 200)}, version {replay.config.version}.{observed} Throttled requests "
        "are not sent again."
    )
    if isinstance(notes, LoggedNotes):
        yield from _logged_notes(notes, paint)
    else:
        yield from _notes(notes, args.window, paint)
    if not any(each.outcome.counts[1:].any() for each in replay.tried):
        yield paint.red("  No User of the configuration is in the log: are these its identifiers?")
    yield ""
    if len(replay.tried) > 1:
        sides = [(each.config, each.outcome) for each in replay.tried]
        yield from side_by_side_lines(sides, paint, all_users=args.all_users)
    else:
        yield from summary_lines(
            outcome,
            replay.config,
            paint,
            lambda second: time_at(replay.start + int(second)),
            all_users=args.all_users,
        )
    yield ""
    decided_s = sum(each.outcome.decided_s for each in replay.tried)
    yield from terminal.finished(outcome.requests * len(replay.tried), decided_s, took_s, replay.files)


def _logged_notes(notes: LoggedNotes, paint: terminal.Paint) -> Iterator[str]:
    """Yield what a reader must know about an event log's counts."""
    number = terminal.number
    all_of_it = notes.by_second + notes.by_minute
    if notes.bad:
        yield paint.red(f"  Rows that could not be used: {number(notes.bad)} of {number(notes.rows)}")
        yield from _examples(notes.first_bad, notes.bad)
    if notes.lost:
        yield paint.red(f"  The log itself says that counts were lost: {number(notes.lost)} records")
    yield from terminal.paragraph(
        f"The event log of {number(notes.hosts)} host{'s' if notes.hosts != 1 else ''} has counts, not requests: by "
        f"the second {number(notes.by_second)} ({terminal.percent(notes.by_second, all_of_it)}), while the Mechanism "
        f"was active; by the minute {number(notes.by_minute)}. They are spread evenly over it, so bursts shorter "
        "than a minute do not show: what is throttled there is the least that would have been. Retries that Users "
        "sent at the time are among the counts."
    )
    yield from _unknown(notes)


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
    yield from _unknown(notes)


def _unknown(notes: LogNotes | LoggedNotes) -> Iterator[str]:
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


def _threshold(text: str) -> float:
    try:
        threshold = float(text)
    except ValueError:
        threshold = 0.0
    if not 0 < threshold <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of units per second above 0")
    return threshold
