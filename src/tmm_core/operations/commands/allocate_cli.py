"""`tmm allocate`: next month's allocations from the Users' portfolios."""

from __future__ import annotations

import argparse
import gc
import re
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tmm_core.errors import ConfigError, Mistake, TMMError
from tmm_core.operations import allocations as words
from tmm_core.operations import terminal
from tmm_core.operations.allocations import Change, changes, file_before, read_before
from tmm_core.operations.commands.arguments import about, logs_of, place
from tmm_core.policy.allocation import NOTICE, Allocations, allocate
from tmm_core.policy.allocation_files import AllocationTable, dated_files, first_day_of
from tmm_core.policy.config import Config
from tmm_core.policy.parameters import Parameters
from tmm_core.policy.portfolio import Portfolio

if TYPE_CHECKING:
    from tmm_core.operations.traffic.logged_traffic import Recorded


_NAMED = re.compile(r"(\d{4}-\d{2})(?!\d)")  # 2026-12, 2026-12-01, 2026-12-draft

_EXAMPLES = """\
examples:
  tmm allocate portfolio.csv -p parameters.toml -o allocations/2026-12-01.csv
  tmm allocate portfolio.csv -p parameters.toml --month 2026-12     show, write nothing
  tmm allocate portfolio.csv -p parameters.toml --month 2026-12 --explain "Northern Energy"
  tmm allocate portfolio.csv -p parameters.toml --month 2026-12 --against events.db

The formula is our own and illustrative: Annex C of SECMP0067 is not public.
docs/allocation.md derives it, and works one example by hand.

exit status: 1 also if a change is above --limit and not accepted; nothing is written then
"""


def add_allocate(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm allocate` takes."""
    about(
        parser,
        _run,
        "Work out the allocations of a month, show how they come about and what they change, and write "
        "them to a new file. A file that is there already is never overwritten without --replace.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("portfolio", type=Path, help="the Users' portfolios (CSV)")
    add("-p", "--parameters", type=Path, required=True, metavar="TOML", help="parameters of the formula")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="CSV",
        help="file to write, named by its first day: 2026-12-01.csv",
    )
    add("--month", metavar="YYYY-MM", help="the month; else that of the output's or portfolio's name")
    add(
        "--before",
        type=Path,
        metavar="CSV",
        help="allocations to compare with; else the last ones beside the output",
    )
    add(
        "--limit",
        type=_limit,
        default=Fraction(1, 2),
        metavar="PERCENT",
        help="change to be accepted (default 50)",
    )
    add("--accept-changes", action="store_true", help="write also with changes above the limit")
    add("--replace", action="store_true", help="put it in the place of another file of that name")
    add("--explain", metavar="USER", help="tell one User's figure in sentences, and write nothing")
    add(
        "--against",
        type=Path,
        nargs="+",
        metavar="LOG",
        help="event logs, or a tmm.toml that names one: how often would each User have been over its new allocation",
    )
    add("--chart", type=Path, metavar="SVG", help="draw what goes where into this file")
    add("--json", action="store_true", help="write the figures to stdout as JSON")


def _run(args: argparse.Namespace) -> int:
    """Work out, show, check and write."""
    # What is read and worked out is needed to the end: to search it for garbage, time and again, finds none.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _allocate(args)
    finally:
        if collects:
            gc.enable()


def _allocate(args: argparse.Namespace) -> int:
    month = _month(args)
    if args.output is not None:
        _check_name(args.output)
    before = args.before or (file_before(args.output) if args.output else None)
    parameters, portfolio, table = _read(args, month, before)
    try:
        allocations = allocate(portfolio, parameters)
    except ConfigError as error:  # of both files together: the parameters have the minimums
        raise ConfigError(Mistake(str(error), file=str(args.parameters), field="minimum")) from None
    _check(allocations)
    changed = changes(allocations, table) if table else {}
    if args.explain is not None:
        return _explain(args, allocations, changed)
    recorded = None
    if args.against:
        from tmm_core.operations.event_log.files import LogSet
        from tmm_core.operations.traffic.logged_traffic import over_allocation

        with LogSet(logs_of(args.against)) as logs:
            unknown = float(parameters.unknown_allocation)
            recorded = over_allocation(logs, allocations.units_per_second, unknown)
    above = [change for change in changed.values() if change.is_above(args.limit)]
    refused = bool(above) and not args.accept_changes and args.output is not None
    if not args.json:
        _show(args, allocations, changed, before, recorded)
    written = None
    if args.output is not None and not refused:
        hint = "choose another name, or --replace"
        written = place(args.output, allocations.to_csv(), replace=args.replace, hint=hint)
    if args.chart is not None and not refused:
        place(args.chart, words.allocation_chart(allocations), replace=True)
    if args.json:
        figures = words.figures(allocations, changed, args.limit, recorded)
        compared = None if before is None else str(before)
        terminal.print_json({**figures, "compared_with": compared, "written": written is True})
    elif written is not None:
        name = terminal.plain(str(args.output), 200)
        print(f"  {'Written' if written else 'Was there already'}: {name}, digest {allocations.digest}")
    if refused:
        names = ", ".join(terminal.plain(change.user) for change in above[:5])
        more = f" and {len(above) - 5} more" if len(above) > 5 else ""
        limit = f"{float(100 * args.limit):g} %"
        told = (
            f"tmm: not written: the allocations of {names}{more} change by more than {limit}; --accept-changes if "
            "that is meant"
        )
        lines = terminal.paragraph(told, indent="") if terminal.is_terminal(sys.stderr) else [told]
        print("\n".join(lines), file=sys.stderr)
    return 1 if refused else 0


def _month(args: argparse.Namespace) -> str | None:
    """Return the month that is meant; None where only the portfolio's name can tell.

    TMMError if the names of the files contradict it, or one another.
    """
    # A file that is named by a day is in force from that day; the portfolio's own name comes last.
    of_output = _month_of(args.output)
    if args.month is not None:
        if of_output not in (None, args.month):
            raise TMMError(f"{args.output}: its name says {of_output}, but --month says {args.month}")
        return str(args.month)
    of_portfolio = _month_of(args.portfolio)
    if of_output is not None and of_portfolio not in (None, of_output):
        raise TMMError(
            f"{args.portfolio}: its name says {of_portfolio}, that of the output {of_output}; "
            f"--month {of_output} if that is meant"
        )
    return of_output


def _month_of(path: Path | None) -> str | None:
    """Return the month that a file is named by, as 2026-12; None where it is named by none."""
    found = _NAMED.match(path.stem) if path is not None else None
    return found[1] if found else None


def _check_name(output: Path) -> None:
    """Refuse a name for which the configuration would refuse the whole folder."""
    if output.suffix.lower() != ".csv" or output.name.startswith((".", "~")) or first_day_of(output):
        return
    if output.parent.is_dir() and dated_files(output.parent, []):
        raise TMMError(
            f"{output}: the other files of its folder are named by their first day in force: expected a name "
            "like 2026-12-01.csv, or another folder"
        )


_Read = TypeVar("_Read")


def _read(
    args: argparse.Namespace, month: str | None, before: Path | None
) -> tuple[Parameters, Portfolio, AllocationTable | None]:
    """Read all files there are; the mistakes of all of them come at once."""
    found: list[Mistake] = []

    def read(load: Callable[[], _Read]) -> _Read | None:
        try:
            return load()
        except ConfigError as error:
            found.extend(error.mistakes)
            return None

    parameters = read(lambda: Parameters.load(args.parameters))
    portfolio = read(lambda: Portfolio.load(args.portfolio, month))
    table = None if before is None else read(lambda: read_before(before))
    if parameters is None or portfolio is None or found:
        raise ConfigError(found)
    return parameters, portfolio, table


def _check(allocations: Allocations) -> None:
    """Make sure that a configuration takes what is written: its rules are not all the formula's."""
    parameters = allocations.parameters
    Config(
        float(parameters.system_capacity),
        float(parameters.operating_threshold),
        allocations=allocations.units_per_second,
        user_ids=allocations.user_ids,
        unknown_allocation=float(parameters.unknown_allocation),
    )


def _explain(args: argparse.Namespace, allocations: Allocations, changed: Mapping[str, Change]) -> int:
    names = [entry.user for entry in allocations.users]
    owner = allocations.user_ids.get(args.explain.upper(), args.explain)
    if owner not in names:
        import difflib

        near = difflib.get_close_matches(owner, names, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise TMMError(f"{args.portfolio}: no User {terminal.plain(owner)!r}{hint}")
    said = words.explanation(allocations, owner, changed.get(owner))
    if args.json:
        figures = words.figures(allocations, changed, args.limit, None)["users"]
        terminal.print_json({**next(row for row in figures if row["user"] == owner), "sentences": said})
    else:
        print("\n".join(line for sentence in said for line in terminal.paragraph(sentence)))
    return 0


def _show(
    args: argparse.Namespace,
    allocations: Allocations,
    changed: Mapping[str, Change],
    before: Path | None,
    recorded: Recorded | None,
) -> None:
    paint = terminal.Paint.of(sys.stdout)
    parameters = allocations.parameters
    users = "User" if len(allocations.users) == 1 else "Users"
    head = f"allocations for {allocations.month}, {len(allocations.users):,} {users}, digest {allocations.digest}"
    print(paint.bold(f"tmm allocate: {head}"))
    print(f"  {NOTICE}")
    print(f"  Parameters {terminal.plain(parameters.version)}, digest {parameters.digest}.")
    print(f"  Compared with {terminal.plain(str(before), 200)}." if before else "  Compared with nothing.")
    print()
    print("\n".join(words.table_lines(allocations, changed, args.limit, terminal.columns(), paint)))
    print()
    blocks = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    for line in words.chart(allocations, terminal.columns(), paint, blocks=blocks):
        print(line)
    total, demand = float(allocations.total), float(allocations.busy_hour_demand)
    told = (
        f"The allocations add up to {total:,.3f}: {terminal.percent(total, float(parameters.operating_threshold))} of "
        f"the operating threshold, {terminal.percent(total, float(parameters.system_capacity))} of the system "
        f"capacity. All busy hours together ask for {demand:,.1f} Service Requests per second."
    )
    print("\n".join(terminal.paragraph(told)))
    print()
    if recorded is not None:
        for line in words.over_lines(recorded, allocations, paint):
            print(line)
        print()


def _limit(text: str) -> Fraction:
    try:
        value = Fraction(text) / 100
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if not 0 <= value <= 100 or len(text) > 20:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of percent from 0 to 10000")
    return value
