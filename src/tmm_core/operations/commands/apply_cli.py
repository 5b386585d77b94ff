"""`tmm apply`: put a configuration in force in all gateways of this host, while they run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tmm_core.errors import ConfigError, TMMError
from tmm_core.mechanism import Mechanism
from tmm_core.operations import terminal
from tmm_core.operations.commands.status_cli import add_block_options, look_at
from tmm_core.operations.event_log.event_records import Fault
from tmm_core.operations.event_log.inbox import Inbox
from tmm_core.operations.terminal import number, plain
from tmm_core.operations.watch import SystemClock
from tmm_core.policy.config import Config
from tmm_core.policy.config_files import block_named
from tmm_core.policy.toml_places import load_toml
from tmm_core.reload import refusal

__all__ = ["add_parser", "changes_of", "run"]

_EPILOG = """\
All gateways of the block see the new terms at one moment, whole; buckets and counts survive. Files with a
mistake change nothing: the last good configuration stays in force, and the gateways' event log has it as a
fault (configuration-refused). The same configuration once more changes nothing either.

examples:
  tmm apply tmm.toml              put it in force
  tmm apply tmm.toml --dry-run    show what would change

exit status: 0 good; 1 the files are wrong, or there is no block; 2 the command is wrong
"""
_SHOWN = 50  # Users of a kind of change, on a terminal
_TERMS = (
    "system_capacity", "operating_threshold", "release_threshold", "mode", "sharing", "burst_s", "activation_s",
    "hold_s", "tick_s", "max_retry_after_s", "unknown_allocation", "spare_weight",
)  # fmt: skip


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "apply",
        help="put a configuration in force in all gateways of this host, while they run",
        description="Put a configuration in force in all gateways of this host that share its block.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="the configuration (default that of --config)"
    )
    add_block_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    parser.add_argument("--json", action="store_true", help="write the changes to stdout as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    """Read, apply, and say what has changed."""
    if args.file is not None:
        args.config = args.file
    try:
        config = Config.load(args.config)
        args.block = args.block or config.shared
        with look_at(args, change=not args.dry_run) as mechanism:
            before = mechanism.config
            if not args.dry_run:
                mechanism.apply(config)
            snapshot = mechanism.snapshot()
    except TMMError as error:
        if not args.dry_run:
            _book(args, error if isinstance(error, ConfigError) else ConfigError(str(error)))
        raise
    changes = changes_of(before, config)
    if args.json:
        terminal.print_json(
            {"before": before.version, "version": config.version, "generation": snapshot.generation,
             "applied": not args.dry_run and _names(before) != _names(config), **changes}
        )  # fmt: skip
        return 0
    generation = f"(generation {snapshot.generation})"
    if before.version == config.version:
        print(f"Version {config.version} was in force already {generation}.")
    else:
        done = "would replace" if args.dry_run else "is in force in all gateways of this host, in place of"
        print(f"Version {config.version} {done} {before.version} {generation}.")
    for line in _lines(changes):
        print(f"  {line}")
    if changes["candidate"] is not None:
        print(f"  {_candidate_line(*changes['candidate'], dry_run=args.dry_run)}")
    return 0


def _book(args: argparse.Namespace, error: ConfigError) -> None:
    """Tell the event log of the block's gateways what was refused, as a `Reloader` in one of them would."""
    path = Path(args.config)
    try:
        sections = load_toml(path).values
    except ConfigError:
        sections = {}
    files, state = (
        values if isinstance(values, dict) else {} for values in map(sections.get, ("files", "state"))
    )
    shared, log = args.block or state.get("shared"), files.get("event_log")
    if not isinstance(shared, str):
        return
    try:
        with Mechanism.look(args.block or block_named(shared, path)) as mechanism:
            config = mechanism.config
    except (TMMError, OSError):
        return  # nothing is in force, and nobody keeps a log
    if config.event_log is None:
        return
    place = Path(config.event_log)
    if not place.is_absolute():  # it is named from the gateways' working directory, which may be another one
        if not isinstance(log, str):
            return
        place = path.parent / log
    clock, inbox = SystemClock(), Inbox(place)
    told = refusal(error, config.version)
    inbox.put(Fault(clock.at_ms(), clock.mono_ns(), "configuration-refused", told))
    inbox.post()
    where = plain(str(place), 200)
    print(f"tmm: told the event log {where}: {config.version} stays in force", file=sys.stderr)


def _names(config: Config) -> tuple[str, str]:
    return config.version, config.candidate_version


def changes_of(before: Config, after: Config) -> dict[str, Any]:
    """Return what differs between two configurations, ready for JSON."""
    old, new = before.allocations, after.allocations
    return {
        "terms": {
            name: [getattr(before, name), getattr(after, name)]
            for name in _TERMS
            if getattr(before, name) != getattr(after, name)
        },
        "users_added": {user: rate for user, rate in new.items() if user not in old},
        "users_removed": [user for user in old if user not in new],
        "allocations": {
            user: [old[user], rate] for user, rate in new.items() if user in old and old[user] != rate
        },
        "priority_added": sorted(after.priority_srvs - before.priority_srvs),
        "priority_removed": sorted(before.priority_srvs - after.priority_srvs),
        "identifiers_changed": len(set(before.user_ids.items()) ^ set(after.user_ids.items())),
        "costs_changed": sorted(
            code for code in {*before.costs, *after.costs} if before.cost_of(code) != after.cost_of(code)
        ),
        "candidate": None
        if before.candidate_version == after.candidate_version
        else [before.candidate_version or None, after.candidate_version or None],
    }


def _candidate_line(before: str | None, after: str | None, *, dry_run: bool) -> str:
    if after is None:
        return f"candidate allocations {before}: {'would be' if dry_run else 'are'} tried no longer"
    instead = f", instead of {before}" if before else ""
    return f"candidate allocations {after}: {'would be' if dry_run else 'are'} tried, without effect{instead}"


def _lines(changes: dict[str, Any]) -> Iterator[str]:
    for name, (old, new) in changes["terms"].items():
        yield f"{name}: {_shown(old)} -> {_shown(new)}"
    users = {
        "that are new": [
            f"{plain(user)}: new, {number(rate)} units per second"
            for user, rate in changes["users_added"].items()
        ],
        "no longer named": [
            f"{plain(user)}: no longer named; its requests count as those of unknown Users"
            for user in changes["users_removed"]
        ],
        "with another allocation": [
            f"{plain(user)}: {number(old)} -> {number(new)} units per second"
            for user, (old, new) in changes["allocations"].items()
        ],
    }
    for kind, lines in users.items():
        # One more line says no less than the User it would be about.
        shown = lines if len(lines) <= _SHOWN + 1 else lines[:_SHOWN]
        yield from shown
        if len(lines) > len(shown):
            yield f"... and {len(lines) - len(shown):,} more Users {kind} (--json names them all)"
    for verb in ("added", "removed"):
        if changes[f"priority_{verb}"]:
            yield f"priority list, {verb}: {', '.join(changes[f'priority_{verb}'])}"
    if changes["costs_changed"]:
        yield f"costs: {', '.join(changes['costs_changed'])}"
    if changes["identifiers_changed"]:
        yield f"identifiers: {changes['identifiers_changed']} added or removed"


def _shown(value: object) -> str:
    return number(value) if isinstance(value, int | float) else str(value)
