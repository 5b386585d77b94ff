"""`tmm serve`: the live page for the operations room."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tmm_core.operations import serve
from tmm_core.operations.commands.arguments import (
    REPLACED_S,
    block_of,
    is_replaced,
    look_when_there,
    say,
    stop_when_told,
)

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
examples:
  tmm serve tmm.toml                                  http://127.0.0.1:8765/
  tmm serve tmm.toml --bind 10.0.0.5 --allow-host toc.example
                                                      for others, behind a proxy that asks who they are

The page is read-only and has no login of its own: whoever can reach it sees all Users.
"""


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
    stop = stop_when_told()
    while not stop.is_set():
        mechanism = look_when_there(shared, stop.wait)
        if mechanism is None:
            break
        page = serve.start(mechanism, host=args.bind, port=args.port, allow_hosts=args.allow_host)
        say(f"live page at {page.address}")
        try:
            while not stop.wait(REPLACED_S) and not is_replaced(mechanism, shared):
                pass
        finally:
            page.stop()
            mechanism.close()
    return 0
