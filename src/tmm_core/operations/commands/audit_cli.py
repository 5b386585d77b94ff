"""`tmm audit`: was every throttled request throttled rightly?"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from tmm_core.operations.audit import audit
from tmm_core.operations.commands.arguments import add_log_arguments, logs_of
from tmm_core.operations.terminal import number, percent, plain, print_json

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
examples:
  tmm audit tmm.toml                       all throttle records of this host
  tmm audit host-*/events.db --since 7d    of several hosts, last week
  tmm audit events.db --json               for programs

exit status: 0 all records agree, 1 one does not, or cannot be decided again
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "audit",
        help="decide recorded throttled requests again, and compare",
        description="Decide every throttle record of the event log again, from the words of the buckets and the "
        "configuration in force, by exact fractions and with none of the engine's code; report what does not agree.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_log_arguments(parser)
    parser.add_argument("--json", action="store_true", help="write the result to stdout as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command."""
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
