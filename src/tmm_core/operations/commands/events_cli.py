"""`tmm events`: what happened, and what happens."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from tmm_core.errors import EventLogError
from tmm_core.operations.commands.arguments import add_log_arguments, logs_of
from tmm_core.operations.event_log.files import LogSet
from tmm_core.operations.event_log.happenings import (
    KINDS,
    Happening,
    as_cloud_event,
    as_json,
    as_text,
    happenings,
)

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
examples:
  tmm events tmm.toml --since 24h                 what happened since yesterday
  tmm events events.db --kind began --kind ended  traffic management events only
  tmm events host-*/events.db --json              of several hosts, as JSON Lines
  tmm events events.db --follow --cloudevents     as it happens, CloudEvents 1.0

Times are UTC. Numbers of Users named in a line are units per second offered, and allocated.
"""
_WRITERS = {"text": as_text, "json": as_json, "cloudevents": as_cloud_event}
_LOOK_BACK_MS = 600_000  # what is written late is still found


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "events",
        help="list or follow traffic management events, faults and changes",
        description="List what the event log holds in order of time: traffic management events, configurations put "
        "in force, faults, priority traffic above its plan, losses, notifications.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    return parser


def run(args: argparse.Namespace) -> int:
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
