"""`tmm serve`: the live page for the operations room."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from tmm_core.operations import serve
from tmm_core.operations.commands.attach import is_replaced, look_when_there
from tmm_core.operations.commands.named import block_of

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
examples:
  tmm serve tmm.toml                                  http://127.0.0.1:8765/
  tmm serve tmm.toml --bind 10.0.0.5 --allow-host toc.example
                                                      for others, behind a proxy that asks who they are

The page is read-only and has no login of its own: whoever can reach it sees all Users.
"""
_REPLACED_S = 5.0


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="serve a live page of this host for the operations room",
        description="Serve a live page: load against the operating threshold, activation, Users and throttling as it "
        "happens. Read-only, loopback by default, nothing loaded from elsewhere.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="TMM.TOML", help="the configuration")
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="address (default 127.0.0.1)")
    parser.add_argument(
        "--port",
        type=int,
        default=serve.DEFAULT_PORT,
        metavar="N",
        help=f"port (default {serve.DEFAULT_PORT}; 0: a free one)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name under which browsers may ask for the page; may be repeated",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    shared = block_of(args.config)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.is_set():
        mechanism = look_when_there(
            shared, lambda: _say("waiting for a gateway to make the block"), stop.wait
        )
        if mechanism is None:
            break
        page = serve.start(mechanism, host=args.bind, port=args.port, allow_hosts=args.allow_host)
        _say(f"live page at {page.address}")
        try:
            while not stop.wait(_REPLACED_S) and not is_replaced(mechanism, shared):
                pass
        finally:
            page.stop()
            mechanism.close()
    return 0


def _say(text: str) -> None:
    print(f"tmm: {text}", file=sys.stderr, flush=True)
