"""`tmm priority-list`: show versions of the Priority Service Request List, compare them, and make a new one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmm_core.errors import ConfigError, Mistake, TMMError
from tmm_core.operations import terminal
from tmm_core.operations.commands.arguments import about, day, logs_of, place
from tmm_core.operations.terminal import Paint, percent, plain
from tmm_core.policy import priority_changes as versions
from tmm_core.policy.allocation_files import dated_files
from tmm_core.policy.catalogue import by_srv_code
from tmm_core.policy.config import PriorityList
from tmm_core.policy.config_files import load_priority_list, priority_list_on
from tmm_core.policy.service_requests import srv_codes, variants_of

if TYPE_CHECKING:
    from tmm_core.operations.traffic.logged_traffic import Traffic


_EMPTY = "nothing would be on the list: every SRV could be throttled, top-ups of prepayment meters included."
_EXAMPLES = """\
LIST is a file, or a folder of files named by their first day in force: 2026-12-01.toml.
A version is never edited: 'add' and 'remove' write a new file and leave the old one as it was.

examples:
  tmm priority-list show priority-lists
  tmm priority-list show priority-lists --on 2026-12-01 --traffic events.db --month 2026-11
  tmm priority-list diff priority-lists/2026-11-01.toml priority-lists/2026-12-01.toml
  tmm priority-list add priority-lists 4.1.1 --version 3 --from 2026-12-01 --approved-by "SEC Panel, 18 November"
"""


def add_priority_list(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm priority-list` takes."""
    about(
        parser,
        _run,
        "Show versions of the Priority Service Request List, compare them, and make a new one.",
        _EXAMPLES,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    show = actions.add_parser("show", help="show the version in force, and those before and after it")
    show.add_argument("list", type=Path, metavar="LIST", help="a file, or a folder of dated files")
    show.add_argument("--on", type=day, metavar="DATE", help="the day to look at (default today, UTC)")
    diff = actions.add_parser("diff", help="show what a version changes against another")
    diff.add_argument("old", type=Path, metavar="OLD", help="a file")
    diff.add_argument("new", type=Path, metavar="NEW", help="a file")
    for name, what in (("add", "SRVs to put on the list"), ("remove", "SRVs to take off the list")):
        change = actions.add_parser(name, help=f"write a new version: {what}")
        change.add_argument("list", type=Path, metavar="LIST", help="a file, or a folder of dated files")
        change.add_argument(
            "srvs", nargs="+", metavar="SRV", help="SRVs (4.1.1) or Service References (4.4: all of it)"
        )
        change.add_argument("--version", required=True, metavar="TEXT", help="name of the new version")
        change.add_argument(
            "--from", dest="begins", type=day, required=True, metavar="DATE", help="first day in force"
        )
        change.set_defaults(allow_empty=False)
        if name == "remove":
            change.add_argument(
                "--allow-empty", action="store_true", help="write it also if nothing is left on the list"
            )
        change.add_argument("--approved-by", required=True, metavar="WHO", help="who approved it, and when")
        change.add_argument(
            "--source", default="", metavar="TEXT", help="where it comes from (default as before)"
        )
        change.add_argument(
            "-o",
            "--output",
            type=Path,
            metavar="TOML",
            help="file to write (default named by --from, beside the list)",
        )
    for action in actions.choices.values():
        action.add_argument(
            "--traffic",
            type=Path,
            nargs="+",
            metavar="LOG",
            help="event logs, or a tmm.toml that names one: how much of it was priority",
        )
        action.add_argument("--month", metavar="YYYY-MM", help="of the traffic (default all there is)")
        action.add_argument("--json", action="store_true", help="write it to stdout as JSON")


def _run(args: argparse.Namespace) -> int:
    """Show, compare or change."""
    traffic = None
    if args.traffic:
        from tmm_core.operations.event_log.files import LogSet
        from tmm_core.operations.traffic.logged_traffic import traffic_of

        with LogSet(logs_of(args.traffic)) as logs:
            traffic = traffic_of(logs, args.month)
    if args.action == "show":
        _show(args, traffic)
    elif args.action == "diff":
        _tell(args, load_priority_list(args.old), load_priority_list(args.new), traffic, None)
    else:
        _change(args, traffic)
    return 0


def _change(args: argparse.Namespace, traffic: Traffic | None) -> None:
    old = _in_force(args.list, args.begins)
    make = versions.added if args.action == "add" else versions.removed
    new = make(old, args.srvs, args.version, args.approved_by, args.begins, args.source)
    if not new.expanded and not args.allow_empty:
        raise TMMError(f"{_EMPTY} --allow-empty if that is meant")
    history = _history(args.list)
    for _, path in history:
        if load_priority_list(path).version == new.version:
            fault = f"version {new.version!r} is that of {path.name} already, expected a new one"
            raise ConfigError(Mistake(fault, field="version"))
    output = args.output or _default_output(args.list, args.begins)
    written = place(
        output, versions.to_toml(new, old=old), hint="a version is never edited, choose another name"
    )
    _tell(args, old, new, traffic, output)
    later = [path.name for begins, path in history if begins > args.begins]
    if later:
        verbs = "begins later and does" if len(later) == 1 else "begin later and do"
        print(f"tmm: warning: {', '.join(later)} {verbs} not have this change", file=sys.stderr)
    if not args.json:
        name = plain(str(output), 200)
        print(f"  {'Written' if written else 'Was there already'}: {name}, digest {versions.digest_of(new)}")
        if not args.list.is_dir():
            print("  It is in force when tmm.toml names it, or the folder it is in: [files] priority_list")


def _default_output(path: Path, begins: date) -> Path:
    if path.is_dir():
        return path / f"{begins.isoformat()}.toml"
    return path.with_name(f"{path.stem}-{begins.isoformat()}.toml")


def _in_force(path: Path, on: date) -> PriorityList:
    found: list[Mistake] = []
    priority = priority_list_on(path, on, found)
    if priority is None or found:
        raise ConfigError(found)
    return priority


def _history(path: Path) -> list[tuple[date, Path]]:
    return dated_files(path, [], suffix=".toml") if path.is_dir() else []


def _show(args: argparse.Namespace, traffic: Traffic | None) -> None:
    on = args.on or datetime.now(UTC).date()
    priority = _in_force(args.list, on)
    history = [(begins, load_priority_list(path)) for begins, path in _history(args.list)]
    if args.json:
        terminal.print_json(
            {
                **_figures(priority),
                "traffic": _traffic_figures(traffic, priority, None),
                "history": [_figures(each) for _, each in history],
            }
        )
        return
    paint = Paint.of(sys.stdout)
    for line in _heading(priority, paint):
        print(line)
    print()
    for line in _srv_table(priority, sorted(priority.expanded, key=srv_codes().index), traffic, paint):
        print(line)
    if len(history) > 1:
        print()
        print(paint.bold("  Versions in this folder"))
        for line in _history_table(history, priority, paint):
            print(line)
    _print_traffic(traffic, priority, None)


def _tell(
    args: argparse.Namespace,
    old: PriorityList,
    new: PriorityList,
    traffic: Traffic | None,
    output: Path | None,
) -> None:
    change = versions.differ(old, new)
    doubts = versions.doubts(change.added) + ([] if new.expanded else [_EMPTY])
    if args.json:
        terminal.print_json(
            {
                "old": _figures(old),
                "new": _figures(new),
                "added": list(change.added),
                "removed": list(change.removed),
                "doubts": doubts,
                "traffic": _traffic_figures(traffic, old, new),
                "file": None if output is None else str(output),
            }
        )
        return
    paint = Paint.of(sys.stdout)
    for line in [*_heading(old, paint, "old: "), *_heading(new, paint, "new: ")]:
        print(line)
    print()
    for sign, codes in (("+", change.added), ("-", change.removed)):
        for code in codes:
            print(f"  {sign} {code:8} {by_srv_code()[code].name}")
    if not change.added and not change.removed:
        print("  The same SRVs are on both.")
    for doubt in doubts:
        for line in terminal.paragraph(f"warning: {doubt}"):
            print(paint.red(line))
    _print_traffic(traffic, old, new)


def _heading(priority: PriorityList, paint: Paint, label: str = "") -> Iterator[str]:
    begins = priority.effective_from
    when = f"in force from {begins}" if begins is not None else "without a first day"
    title = f"{label}priority list {plain(priority.version) or '(no version)'}"
    yield paint.bold(f"{title}, {when}, {len(priority.expanded)} SRVs")
    approved = plain(priority.approved_by, 100) or "(nobody named)"
    yield from terminal.paragraph(f"digest {versions.digest_of(priority)}, approved by {approved}")
    if priority.source:
        yield from terminal.paragraph(f"source: {plain(priority.source, 400)}")


def _history_table(
    history: Sequence[tuple[date, PriorityList]], shown: PriorityList, paint: Paint
) -> list[str]:
    head = ("  from", "version", "digest", "approved by", "change")
    facts = [
        (
            f"{'*' if each == shown else ' '} {begins}", plain(each.version, 16), versions.digest_of(each),
            plain(each.approved_by, 24),
        )
        for begins, each in history
    ]  # fmt: skip
    room = terminal.columns() - terminal.table_width(head[:-1], facts, gap=1) - 1
    changes = [f"{len(history[0][1].expanded)} SRVs"]
    changes += [_signs(old, new, room) for (_, old), (_, new) in pairwise(history)]
    rows = [(*row, change) for row, change in zip(facts, changes, strict=True)]
    return terminal.table(head, rows, paint, left=5)


def _signs(old: PriorityList, new: PriorityList, room: int) -> str:
    """Return what a version changes, in so many characters."""
    change = versions.differ(old, new)
    signs = [*(f"+{code}" for code in change.added), *(f"-{code}" for code in change.removed)]
    if not signs:
        return "the same"
    for many in range(len(signs), 0, -1):
        more = f" and {len(signs) - many} more" if many < len(signs) else ""
        text = " ".join(signs[:many]) + more
        if len(text) <= room:
            return text
    return f"{len(change.added)} on, {len(change.removed)} off"


def _srv_table(
    priority: PriorityList, codes: Sequence[str], traffic: Traffic | None, paint: Paint
) -> Iterator[str]:
    through = {code: next(each for each in priority.srvs if code in variants_of(each)) for code in codes}
    by_reference = any(code != each for code, each in through.items())
    head = ("SRV", "name", *(("listed as",) if by_reference else ()), *(("requests",) if traffic else ()))
    room = max(terminal.columns() - (34 if by_reference or traffic else 10), 20)
    rows = []
    for code in codes:
        listed = (through[code] if through[code] != code else "",) if by_reference else ()
        sent = (f"{traffic.by_srv.get(code, 0):,}",) if traffic else ()
        rows.append((code, plain(by_srv_code()[code].name, room), *listed, *sent))
    yield from terminal.table(head, rows, paint, left=3 if by_reference else 2)


def _print_traffic(traffic: Traffic | None, old: PriorityList, new: PriorityList | None) -> None:
    if traffic is None:
        return
    print()
    for sentence in _traffic_sentences(traffic, old, new):
        for line in terminal.paragraph(sentence):
            print(line)


def _traffic_sentences(traffic: Traffic, old: PriorityList, new: PriorityList | None) -> Iterator[str]:
    total = traffic.total
    if not total:
        yield "No Service Requests are recorded for this time."
        return
    yield (
        f"Of {total:,} Service Requests from {traffic.first} to {traffic.last} (UTC), {traffic.priority:,} "
        f"({percent(traffic.priority, total)}) were admitted as priority; by this list {traffic.on(old.expanded):,} "
        f"({percent(traffic.on(old.expanded), total)}) are."
    )
    if new is None:
        return
    change = versions.differ(old, new)
    yield (
        f"By the new list {traffic.on(new.expanded):,} ({percent(traffic.on(new.expanded), total)}) would have been: "
        f"{traffic.on(change.added):,} more, {traffic.on(change.removed):,} fewer."
    )
    for sign, codes in (("+", change.added), ("-", change.removed)):
        for code in codes:
            sent = traffic.by_srv.get(code, 0)
            yield f"{sign} {code}: {sent:,} ({percent(sent, total)})"


def _figures(priority: PriorityList) -> dict[str, Any]:
    begins = priority.effective_from
    return {
        "version": priority.version,
        "effective_from": None if begins is None else begins.isoformat(),
        "approved_by": priority.approved_by,
        "source": priority.source,
        "digest": versions.digest_of(priority),
        "srvs": list(priority.srvs),
        "expanded": sorted(priority.expanded),
    }


def _traffic_figures(
    traffic: Traffic | None, old: PriorityList, new: PriorityList | None
) -> dict[str, Any] | None:
    if traffic is None:
        return None
    return {
        "first": None if traffic.first is None else traffic.first.isoformat(),
        "last": None if traffic.last is None else traffic.last.isoformat(),
        "requests": traffic.total,
        "was_priority": traffic.priority,
        "by_this_list": traffic.on(old.expanded),
        "by_new_list": None if new is None else traffic.on(new.expanded),
        "by_srv": traffic.by_srv,
    }
