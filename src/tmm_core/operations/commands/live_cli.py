"""`tmm watch` and `tmm serve`: what looks at the block of this host until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tmm_core.errors import MemoryLayoutError
from tmm_core.operations.commands.arguments import about, block_of, event_log_of

if TYPE_CHECKING:
    from tmm_core.mechanism import Mechanism


#: Seconds between looks whether another block is in the place of this.
_REPLACED_S = 5.0


# --- tmm watch

_WATCH_EXAMPLES = """\
examples:
  tmm watch tmm.toml                             until SIGTERM or Ctrl-C; all is flushed then
  tmm watch tmm.toml --notify notify.toml        and tell Users (file drop, webhook, mail)

It looks once a second at the block that the workers of this host share ([state] shared) and writes what changed.
Several may run: one writes, the others stand by. A gateway with one process can do it in a thread of its own:
tmm_core.operations.watch.start(mechanism).
"""


def add_watch(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm watch` takes."""
    about(
        parser,
        _watch,
        "Watch the Mechanism of this host and keep its event log, off the decision path.",
        _WATCH_EXAMPLES,
    )
    add = parser.add_argument
    add("config", type=Path, metavar="TMM.TOML", help="the configuration")
    add("--log", type=Path, metavar="FILE", help="event log (default: [files] event_log)")
    add("--notify", type=Path, metavar="FILE", help="who is told, and how: a TOML file")
    add("--templates", type=Path, metavar="DIR", help="texts of one's own: began.txt, ended.txt")
    add(
        "--keep-months",
        type=_months,
        default=84,
        metavar="N",
        help="delete files after N months (default 84; 0: never)",
    )
    add(
        "--detail-months",
        type=_months,
        default=3,
        metavar="N",
        help="delete seconds and minutes, and keep days, after N months (default 3; 0: never)",
    )
    add("--host", metavar="NAME", help="name of this host in the log (default: the system's)")


def _watch(args: argparse.Namespace) -> int:
    """Run the command."""
    from tmm_core.operations.notify import Templates, start_notifiers
    from tmm_core.operations.senders import load_senders
    from tmm_core.operations.watch import Watcher, WatchSettings

    shared, log = block_of(args.config), args.log or event_log_of(args.config)
    senders = load_senders(args.notify) if args.notify else []
    templates = Templates.load(args.templates) if args.templates else Templates()
    settings = WatchSettings(keep_months=args.keep_months, detail_months=args.detail_months, host=args.host)
    logging.basicConfig(stream=sys.stderr, format="tmm: %(message)s", level=logging.WARNING)
    stop = _stop_when_told()
    while not stop.is_set():
        mechanism = _look_when_there(shared, stop.wait)
        if mechanism is None:
            break
        watcher = Watcher(mechanism, log, settings=settings)
        _say(f"watching {shared}, event log {watcher.path}")
        watcher.start()
        notifiers = start_notifiers(watcher.path, senders, watcher.put, templates=templates, elected=watcher)
        try:
            while not stop.wait(_REPLACED_S):
                try:
                    if _is_replaced(mechanism, shared):
                        _say("the block was made anew: going on with the new one")
                        break
                except MemoryLayoutError as error:
                    _say(str(error))
        finally:
            for notifier in notifiers:
                notifier.stop()
            watcher.stop()
            mechanism.close()
    _say("all is flushed")
    return 0


def _months(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of months, 0 (never) or more")
    return int(text)


# --- tmm serve

_SERVE_EXAMPLES = """\
examples:
  tmm serve tmm.toml                                  http://127.0.0.1:8765/
  tmm serve tmm.toml --bind 10.0.0.5 --allow-host toc.example
                                                      for others, behind a proxy that asks who they are

The page is read-only and has no login of its own: whoever can reach it sees all Users.
"""


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm serve` takes."""
    from tmm_core.operations import serve

    about(
        parser,
        _serve,
        "Serve a live page: load against the operating threshold, activation, Users and throttling as it "
        "happens. Read-only, loopback by default, nothing loaded from elsewhere.",
        _SERVE_EXAMPLES,
    )
    add = parser.add_argument
    add("config", type=Path, metavar="TMM.TOML", help="the configuration")
    add("--bind", default="127.0.0.1", metavar="ADDRESS", help="address (default 127.0.0.1)")
    add(
        "--port",
        type=int,
        default=serve.DEFAULT_PORT,
        metavar="N",
        help=f"port (default {serve.DEFAULT_PORT}; 0: a free one)",
    )
    add(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name under which browsers may ask for the page; may be repeated",
    )


def _serve(args: argparse.Namespace) -> int:
    """Run the command."""
    from tmm_core.operations import serve

    shared = block_of(args.config)
    stop = _stop_when_told()
    while not stop.is_set():
        mechanism = _look_when_there(shared, stop.wait)
        if mechanism is None:
            break
        page = serve.start(mechanism, host=args.bind, port=args.port, allow_hosts=args.allow_host)
        _say(f"live page at {page.address}")
        try:
            while not stop.wait(_REPLACED_S) and not _is_replaced(mechanism, shared):
                pass
        finally:
            page.stop()
            mechanism.close()
    return 0


# --- both


def _stop_when_told() -> threading.Event:
    """Return what SIGTERM and Ctrl-C set from now on."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _say(text: str) -> None:
    """Tell who runs the command."""
    print(f"tmm: {text}", file=sys.stderr, flush=True)


def _look_when_there(
    shared: str, stopped: Callable[[float], bool], period_s: float = 1.0
) -> Mechanism | None:
    """Look at a shared block, as soon as a gateway has made it; says that it waits if there is none yet.

    `stopped` waits so many seconds and returns whether to give up: None then.
    """
    from tmm_core.mechanism import Mechanism  # who asks for help does not pay for it

    told = False
    while True:
        try:
            return Mechanism.look(shared)
        except FileNotFoundError:
            if not told:
                told = True
                _say("waiting for a gateway to make the block")
            if stopped(period_s):
                return None


def _is_replaced(mechanism: Mechanism, shared: str) -> bool:
    """Tell whether another block is in the place of the one that is looked at: gateways now count there."""
    block = mechanism.block
    try:
        now = type(mechanism).look(shared)
    except FileNotFoundError:
        return False  # the old one can still be read
    try:
        return block is None or now.block is None or now.block.header.block_id != block.header.block_id
    finally:
        now.close()
