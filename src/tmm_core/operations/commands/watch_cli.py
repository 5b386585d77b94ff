"""`tmm watch`: keep the event log of this host, and tell Users what concerns them."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from tmm_core.errors import MemoryLayoutError
from tmm_core.operations.commands.arguments import (
    REPLACED_S,
    block_of,
    event_log_of,
    is_replaced,
    look_when_there,
    say,
    stop_when_told,
)
from tmm_core.operations.notices import Templates
from tmm_core.operations.notify import start_notifiers
from tmm_core.operations.senders import load_senders
from tmm_core.operations.watch import Watcher, WatchSettings

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
examples:
  tmm watch tmm.toml                             until SIGTERM or Ctrl-C; all is flushed then
  tmm watch tmm.toml --notify notify.toml        and tell Users (file drop, webhook, mail)

It looks once a second at the block that the workers of this host share ([state] shared) and writes what changed.
Several may run: one writes, the others stand by. A gateway with one process can do it in a thread of its own:
tmm_core.operations.watch.start(mechanism).
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "watch",
        help="keep the event log of this host",
        description="Watch the Mechanism of this host and keep its event log, off the decision path.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="TMM.TOML", help="the configuration")
    parser.add_argument("--log", type=Path, metavar="FILE", help="event log (default: [files] event_log)")
    parser.add_argument("--notify", type=Path, metavar="FILE", help="who is told, and how: a TOML file")
    parser.add_argument(
        "--templates", type=Path, metavar="DIR", help="texts of one's own: began.txt, ended.txt"
    )
    parser.add_argument(
        "--keep-months",
        type=_months,
        default=84,
        metavar="N",
        help="delete files after N months (default 84; 0: never)",
    )
    parser.add_argument(
        "--detail-months",
        type=_months,
        default=3,
        metavar="N",
        help="delete seconds and minutes, and keep days, after N months (default 3; 0: never)",
    )
    parser.add_argument("--host", metavar="NAME", help="name of this host in the log (default: the system's)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    shared, log = block_of(args.config), args.log or event_log_of(args.config)
    senders = load_senders(args.notify) if args.notify else []
    templates = Templates.load(args.templates) if args.templates else Templates()
    settings = WatchSettings(keep_months=args.keep_months, detail_months=args.detail_months, host=args.host)
    logging.basicConfig(stream=sys.stderr, format="tmm: %(message)s", level=logging.WARNING)
    stop = stop_when_told()
    while not stop.is_set():
        mechanism = look_when_there(shared, stop.wait)
        if mechanism is None:
            break
        watcher = Watcher(mechanism, log, settings=settings)
        say(f"watching {shared}, event log {watcher.path}")
        watcher.start()
        notifiers = start_notifiers(watcher.path, senders, watcher.put, templates=templates, elected=watcher)
        try:
            while not stop.wait(REPLACED_S):
                try:
                    if is_replaced(mechanism, shared):
                        say("the block was made anew: going on with the new one")
                        break
                except MemoryLayoutError as error:
                    say(str(error))
        finally:
            for notifier in notifiers:
                notifier.stop()
            watcher.stop()
            mechanism.close()
    say("all is flushed")
    return 0


def _months(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of months, 0 (never) or more")
    return int(text)
