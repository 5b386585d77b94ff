"""`tmm explain`: say what would be decided for one User and SRV, and why."""

from __future__ import annotations

import argparse
import textwrap
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tmm_core.mechanism import UNKNOWN, Mechanism
from tmm_core.operations import terminal
from tmm_core.operations.commands.check_cli import day
from tmm_core.operations.terminal import number, plain
from tmm_core.policy.catalogue import by_srv_code
from tmm_core.policy.check import burst_at_once
from tmm_core.policy.config import Config
from tmm_core.policy.service_requests import fault_of
from tmm_core.policy.validation import did_you_mean
from tmm_core.snapshot import Difference, Snapshot

__all__ = ["add_parser", "mechanism_of", "run"]

_EPILOG = """\
Nothing is charged and nothing is counted.

examples:
  tmm explain 90-B3-D5-1F-30-01-00-00 4.1.1 -c tmm.toml
  tmm explain "Northern Energy" 7.4 -c tmm.toml --json

exit status: 0 good, whatever would be decided; 1 the files are wrong; 2 the command is wrong
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "explain",
        help="say what would be decided for one User and SRV, and why",
        description="Say what would be decided for a Service Request of one User and SRV, and why.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("user", metavar="USER", help="a Service User's EUI-64 or name")
    parser.add_argument("srv", metavar="SRV", help="a Service Reference Variant, as 4.1.1")
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=Path("tmm.toml"),
        metavar="FILE",
        help="the configuration (default tmm.toml)",
    )
    parser.add_argument(
        "--on", type=day, metavar="DATE", help="the day whose allocations count (default today, UTC)"
    )
    parser.add_argument("--json", action="store_true", help="write the answer to stdout as JSON")
    return parser


def mechanism_of(config: Config) -> tuple[Mechanism, str]:
    """Return the Mechanism to ask, and where it is: the one place that chooses it.

    The one the gateways of this host share, if there is one; else a fresh one, of this process alone.
    """
    if config.shared is not None:
        with suppress(FileNotFoundError):
            mechanism = Mechanism.look(config.shared)
            assert mechanism.block is not None
            return mechanism, f"the gateways' block {mechanism.block.path}"
    return Mechanism(replace(config, shared=None)), "a Mechanism at rest, as after a start"


def run(args: argparse.Namespace) -> int:
    """Ask and answer."""
    config = Config.load(args.config, on=args.on)
    mechanism, source = mechanism_of(config)
    with mechanism:
        explanation = mechanism.explain(args.user, args.srv)
        snapshot = mechanism.snapshot()
        active = snapshot.active
        if mechanism.block is not None:
            config = mechanism.config  # the one in force, whatever the file says by now
    facts = _facts(config, explanation.user, explanation.srv)
    candidate = _candidate(config, snapshot, explanation.user)
    hints = _hints(config, args.user, args.srv, explanation.user, explanation.srv)
    if args.json:
        terminal.print_json(
            {
                "decision": explanation.decision.name,
                "sentence": explanation.sentence,
                "user": explanation.user,
                "srv": explanation.srv,
                "asked": source,
                "active": active,
                "version": config.version,
                **facts,
                "candidate": candidate,
                "notes": hints,
            }
        )
        return 0
    for line in textwrap.wrap(plain(explanation.sentence, 1000), min(terminal.columns(), 120)):
        print(line)
    print()
    listed = "on the priority list" if facts["priority"] else "not on the priority list"
    name = f", {facts['srv_name']}" if facts["srv_name"] else ""
    burst = number(facts["burst_at_once"])
    told = [
        ("asked", f"{source}; the Mechanism is {'active' if active else 'inactive'}"),
        ("version", f"{config.version}, mode {config.mode}"),
        ("User", plain(explanation.user, 200) + _category(facts["category"])),
        ("allocation", f"{number(facts['allocation'])} units per second; {burst} at once from rest"),
        ("SRV", plain(explanation.srv) + name),
        ("", f"{listed}, cost {facts['cost']}"),
        ("at worst", facts["at_worst"]),
        *([("candidate", candidate["sentence"])] if candidate is not None else []),
        *(("note", hint) for hint in hints),
    ]  # fmt: skip
    for label, text in told:
        for line in terminal.fact(label, text):
            print(line)
    return 0


def _facts(config: Config, user: str, srv: str) -> dict[str, Any]:
    """Return what decides about this User and SRV."""
    allocation = config.unknown_allocation if user == UNKNOWN else config.allocations.get(user, 0.0)
    request = by_srv_code().get(srv)
    priority = srv in config.priority_srvs
    if priority:
        at_worst = "never throttled"
    elif config.mode == "observe":
        at_worst = "counted as throttled, and admitted: over its allocation, no spare capacity"
    else:
        at_worst = "throttled: over its allocation, active, no spare capacity left"
    return {
        "category": config.categories.get(user, ""),
        "allocation": allocation,
        "burst_at_once": burst_at_once(config, allocation),
        "srv_name": request.name if request is not None else "",
        "priority": priority,
        "cost": config.cost_of(srv),
        "at_worst": at_worst,
    }


def _candidate(config: Config, snapshot: Snapshot, user: str) -> dict[str, Any] | None:
    """Return what a candidate allocation would have decided otherwise for a User; None where none is tried."""
    rates, tried = config.candidate_allocations, snapshot.candidate
    if rates is None or tried is None or user == UNKNOWN or user not in snapshot.users:
        return None
    units = tried.units[snapshot.users.index(user)].tolist()
    rate = rates.get(user, 0.0)
    return {
        "version": tried.version,
        "allocation": rate,
        **{each.name.lower(): units[each] for each in Difference},
        "sentence": f"a candidate allocation of {number(rate)} units per second is tried without effect: so far "
        f"{number(units[Difference.OVER])} units would have been over it alone, at most "
        f"{number(units[Difference.OVER_WHILE_ACTIVE])} of them throttled, and "
        f"{number(units[Difference.ADMITTED])} that were throttled would have been admitted",
    }


def _hints(config: Config, user_id: str, srv_code: str, user: str, srv: str) -> list[str]:
    """Return what the asker may have got wrong."""
    hints = []
    if user == UNKNOWN:
        near = did_you_mean(user_id, config.users) if len(config.users) <= 1000 else ""
        hints.append(f"{user_id!r} is not in the allocations: all unknown Users share one pool{near}")
    if srv == UNKNOWN:
        fault = fault_of(srv_code) or f"{srv_code!r} is a Service Reference: ask for one of its variants"
        hints.append(f"{fault}: unknown SRVs are ordinary requests")
    return hints


def _category(category: str) -> str:
    return f" ({category})" if category else ""
