"""`tmm check` and `tmm apply`: read a configuration, and put it in force while gateways run."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tmm_core.errors import ConfigError, TMMError
from tmm_core.operations import terminal
from tmm_core.operations.commands.arguments import about, add_block_options, day, look_at
from tmm_core.operations.terminal import Paint, number, percent, plain
from tmm_core.policy.allocation_files import dated_files
from tmm_core.policy.check import describe, warnings
from tmm_core.policy.config import Config
from tmm_core.policy.config_files import block_named
from tmm_core.policy.toml_places import load_toml

# --- tmm check

_MOST_USERS = 40

_CHECK_EXAMPLES = """\
Nothing is changed and nothing is started: a gateway that runs is not touched.

examples:
  tmm check tmm.toml                      what is in force today (UTC)
  tmm check tmm.toml --on 2026-12-01      what will be in force on a day to come
  tmm check tmm.toml --json | jq .warnings

exit status: 0 good, with warnings or without; 1 the files are wrong, and every mistake is on stderr as
file:line: what was found and expected; 2 the command is wrong
"""


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm check` takes."""
    about(
        parser,
        _check,
        "Read tmm.toml and the files it names. Tell every mistake, or show what is in force and what "
        "of it is probably not meant.",
        _CHECK_EXAMPLES,
    )
    add = parser.add_argument
    add("config", type=Path, metavar="tmm.toml", help="the configuration")
    add("--on", type=day, metavar="DATE", help="the day to look at, as 2026-12-01 (default today, UTC)")
    add("--all-users", action="store_true", help="list every User")
    add("--json", action="store_true", help="write what is in force to stdout as JSON")


def _check(args: argparse.Namespace) -> int:
    """Read, show, warn."""
    on = args.on or datetime.now(UTC).date()
    config = Config.load(args.config, on=on)
    files = _later_files(config, args.config)
    found = [*warnings(config, on=on), *_later_faults(files, args.config, on)]
    if args.json:
        terminal.print_json(
            {
                "on": on.isoformat(),
                "warnings": found,
                "allocation_files": [
                    {"file": str(file), "effective_from": begins.isoformat(), "in_force": file_in_force}
                    for begins, file, file_in_force in files
                ],
                "in_force": describe(config),
            }
        )
        return 0
    for line in _lines(describe(config), files, found, on, Paint.of(sys.stdout), all_users=args.all_users):
        print(line)
    return 0


_Files = list[tuple[date, Path, bool]]


def _later_files(config: Config, path: Path) -> _Files:
    """Return the dated files beside the one in force: first day, file, whether it is in force."""
    if config.allocations_file is None or config.effective_from is None:
        return []
    current = Path(config.allocations_file)
    return [(begins, file, file == current) for begins, file in dated_files(current.parent, [])]


def _later_faults(files: _Files, path: Path, on: date) -> Iterator[str]:
    """Yield a sentence for each file that is wrong and not in force yet: there is time to mend it."""
    for begins, _, _ in files:
        if begins > on:
            try:
                Config.load(path, on=begins)
            except ConfigError as error:
                more = f" ({len(error.mistakes)} mistakes in all)" if len(error.mistakes) > 1 else ""
                first = plain(str(error.mistakes[0]), 200)
                yield f"From {begins} on this configuration would be refused{more}: {first}."


def _lines(
    shown: dict[str, Any], files: _Files, found: list[str], on: date, paint: Paint, *, all_users: bool
) -> Iterator[str]:
    """Yield what people read."""
    width = min(terminal.columns(), 120)
    yield paint.bold(f"In force on {on}: version {shown['version']}, mode {shown['mode']}")
    yield ""
    yield from _capacity(shown, paint)
    yield ""
    yield from _rules(shown, paint)
    yield ""
    yield from _files(shown, files, on, paint)
    yield ""
    yield from _users(shown, paint, width, all_users)
    yield ""
    yield from _priority(shown, paint, width)
    if shown["costs"]:
        yield ""
        yield paint.bold("Costs, in units; every other SRV costs 1")
        for each in shown["costs"]:
            yield f"  {each['srv']:<7} {each['cost']:>4}  {each['name']}"
    yield ""
    if not found:
        yield paint.bold("No warnings.")
        return
    yield paint.bold("1 warning" if len(found) == 1 else f"{len(found)} warnings")
    for warning in found:
        yield from textwrap.wrap(
            plain(warning, 1000), width - 2, initial_indent="  - ", subsequent_indent="    "
        )


def _capacity(shown: dict[str, Any], paint: Paint) -> Iterator[str]:
    capacity = shown["capacity"]
    system, threshold, release = (
        capacity[key] for key in ("system_capacity", "operating_threshold", "release_threshold")
    )
    yield paint.bold("Capacity, units per second")
    rows = [
        ["system capacity", number(system), ""],
        ["operating threshold", number(threshold), f"{percent(threshold, system)} of the system capacity"],
        ["release threshold", number(release), f"{percent(release, threshold)} of the operating threshold"],
    ]
    yield from _aligned(rows)


def _rules(shown: dict[str, Any], paint: Paint) -> Iterator[str]:
    rules = shown["mechanism"]
    sharing = {
        "fair": "spare capacity is shared by weight",
        "first-come": "spare capacity goes to who comes first",
        "none": "spare capacity is not given away",
    }
    backlog = number(round(rules["activation_s"] * shown["capacity"]["operating_threshold"]))
    yield paint.bold("Rules")
    rows = [
        ["sharing", shown["sharing"], sharing[shown["sharing"]]],
        ["activation_s", number(rules["activation_s"]), f"seconds of backlog ({backlog} units) begin it"],
        ["hold_s", number(rules["hold_s"]), "seconds below the release threshold end it"],
        ["burst_s", number(rules["burst_s"]), "seconds of allocation a User may send at once"],
        ["max_retry_after_s", number(rules["max_retry_after_s"]), "seconds, the longest Retry-After"],
        ["tick_s", number(rules["tick_s"]), "seconds from one look at the load to the next"],
        ["spare_weight", number(rules["spare_weight"]), "weight in sharing of Users of allocation 0"],
    ]
    yield from _aligned(rows)


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    names, values = (max(len(row[place]) for row in rows) for place in (0, 1))
    for name, value, meaning in rows:
        yield f"  {name:<{names}}  {value:>{values}}  {meaning}".rstrip()


def _files(shown: dict[str, Any], files: _Files, on: date, paint: Paint) -> Iterator[str]:
    named, state = shown["files"], shown["state"]
    yield paint.bold("Files and state")
    yield f"  configuration  {_path(named['configuration'])}"
    begins = named["allocations_effective_from"]
    since = f", in force from {begins}" if begins else ""
    yield f"  allocations    {_path(named['allocations'])}{since}"
    if named["allocations_digest"] is not None:
        yield f"                 digest {named['allocations_digest']}"
    for day_, file, _ in files:
        if day_ > on:
            yield f"                 {_path(str(file))}, from {day_}"
    if shown["candidate"] is not None:
        candidate = shown["candidate"]
        changed = f"{len(candidate['changed'])} Users differ" if candidate["changed"] else "no User differs"
        yield (
            f"  candidate      {_path(candidate['file'])}, version {candidate['version']}, without effect: {changed}"
        )
    yield f"  event log      {_path(named['event_log'])}"
    if state["shared"] is not None:
        yield f"  shared block   {_path(state['shared'])}: one for the workers of this host"
    else:
        yield "  shared block   none: each process decides by itself"
    if state["max_users"]:
        yield f"  max_users      {number(state['max_users'])} slots"
    if shown["cluster"]["url"] is not None:
        yield f"  cluster        {_path(shown['cluster']['url'])}"


def _path(path: str | None) -> str:
    return "none" if path is None else plain(path, 200)


def _users(shown: dict[str, Any], paint: Paint, width: int, all_users: bool) -> Iterator[str]:
    totals, users = shown["allocations"], shown["users"]
    threshold = shown["capacity"]["operating_threshold"]
    yield paint.bold("Allocations, units per second, and the burst that is inside them")
    order = sorted(users, key=lambda each: -each["allocation"])
    listed = order if all_users or len(order) <= _MOST_USERS + 1 else order[:_MOST_USERS]
    wide = width >= 100
    names = 44 if wide else 28
    rows = [
        [
            plain(each["user"], names),
            each["category"] or "-",
            str(len(each["user_ids"])),
            number(each["allocation"]),
            number(each["burst_at_once"]),
            number(each["burst_in_100_ms"]),
        ]
        for each in listed
    ]
    rest = order[len(listed) :]
    if rest:
        total = sum(each["allocation"] for each in rest)
        rows.append([f"{len(rest):,} other Users (--all-users)", "", "", number(total), "", ""])
    rows.append(["unknown Users, together", "", "", number(totals["unknown_users"]), "", ""])
    whole = totals["total"] + totals["unknown_users"]
    rows.append(["all", "", "", number(whole), "", ""])
    head = ["Service User", "category", "EUI-64", "allocation", "at once", "in 100 ms" if wide else "100 ms"]
    if not wide:  # the identifiers are in the file as well
        head, rows = [*head[:2], *head[3:]], [[*row[:2], *row[3:]] for row in rows]
    yield from terminal.table(head, rows, paint, left=2)
    yield paint.faint(f"  {percent(whole, threshold)} of the operating threshold")


def _priority(shown: dict[str, Any], paint: Paint, width: int) -> Iterator[str]:
    priority = shown["priority_list"]
    if not priority["srvs"]:
        yield paint.bold("Priority list: empty")
        return
    version = f" {plain(priority['version'])}" if priority["version"] else ""
    yield paint.bold(f"Priority list{version}: {len(priority['srvs'])} SRVs that are never throttled")
    about = [
        f"from {priority['effective_from']}" if priority["effective_from"] else "no first day",
        f"approved by {plain(priority['approved_by'] or 'nobody', 200)}",
    ]
    if priority["source"]:
        about.append(f"source: {plain(priority['source'], 200)}")
    for line in textwrap.wrap("; ".join(about), width - 2, initial_indent="  ", subsequent_indent="  "):
        yield paint.faint(line)
    for each in priority["srvs"]:
        yield f"  {each['srv']:<7} {each['name']}"


# --- tmm apply

_APPLY_EXAMPLES = """\
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


def add_apply(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm apply` takes."""
    about(
        parser,
        _apply,
        "Put a configuration in force in all gateways of this host that share its block.",
        _APPLY_EXAMPLES,
    )
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="the configuration (default that of --config)")
    add_block_options(parser)
    add("--dry-run", action="store_true", help="show what would change, and change nothing")
    add("--json", action="store_true", help="write the changes to stdout as JSON")


def _apply(args: argparse.Namespace) -> int:
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
    changes = _changes_of(before, config)
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
    for line in _change_lines(changes):
        print(f"  {line}")
    if changes["candidate"] is not None:
        print(f"  {_candidate_line(*changes['candidate'], dry_run=args.dry_run)}")
    return 0


def _book(args: argparse.Namespace, error: ConfigError) -> None:
    """Tell the event log of the block's gateways what was refused, as a `Reloader` in one of them would."""
    from tmm_core.mechanism import Mechanism  # 'tmm check' needs none of it
    from tmm_core.operations.event_log.event_records import Fault
    from tmm_core.operations.event_log.records import Inbox
    from tmm_core.operations.watch import SystemClock
    from tmm_core.reload import refusal

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


def _changes_of(before: Config, after: Config) -> dict[str, Any]:
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


def _change_lines(changes: dict[str, Any]) -> Iterator[str]:
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
