"""`tmm check`: read a configuration, show what is in force, and warn."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tmm_core.errors import ConfigError
from tmm_core.operations import terminal
from tmm_core.operations.terminal import Paint, number, percent, plain
from tmm_core.policy.allocation_files import dated_files
from tmm_core.policy.check import describe, warnings
from tmm_core.policy.config import Config

__all__ = ["add_parser", "day", "run"]

_MOST_USERS = 40

_EPILOG = """\
Nothing is changed and nothing is started: a gateway that runs is not touched.

examples:
  tmm check tmm.toml                      what is in force today (UTC)
  tmm check tmm.toml --on 2026-12-01      what will be in force on a day to come
  tmm check tmm.toml --json | jq .warnings

exit status: 0 good, with warnings or without; 1 the files are wrong, and every mistake is on stderr as
file:line: what was found and expected; 2 the command is wrong
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add the command and its options."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "check",
        help="read a configuration, show what is in force, and warn",
        description="Read tmm.toml and the files it names. Tell every mistake, or show what is in force and what "
        "of it is probably not meant.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="tmm.toml", help="the configuration")
    parser.add_argument(
        "--on", type=day, metavar="DATE", help="the day to look at, as 2026-12-01 (default today, UTC)"
    )
    parser.add_argument("--all-users", action="store_true", help="list every User")
    parser.add_argument("--json", action="store_true", help="write what is in force to stdout as JSON")
    return parser


def day(text: str) -> date:
    """Return the day an option names."""
    try:
        if len(text) != 10:
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day, expected a form like 2026-12-01") from None


def run(args: argparse.Namespace) -> int:
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
