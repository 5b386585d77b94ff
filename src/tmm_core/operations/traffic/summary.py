"""What became of the traffic: the same figures for people and for programs, and the files.

Of one configuration, and of another beside it on the same traffic, with some of its values changed. The files of `tmm
demo` and `tmm replay` are a row per second, a row per User, and a chart. They are written beside their names first
and moved into place when all is done: an interrupted run leaves no half file that could be taken for a whole one.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from tmm_core.errors import ConfigError, Mistake, TMMError
from tmm_core.mechanism import UNKNOWN, Decision
from tmm_core.operations import terminal
from tmm_core.operations.allocations import read_before
from tmm_core.operations.page import in_csv
from tmm_core.operations.terminal import Paint, duration, number, paragraph, percent, plain
from tmm_core.operations.traffic.drive import Outcome, Queue, Row
from tmm_core.policy.allocation_files import AllocationTable
from tmm_core.policy.config import Config

OUTCOMES = tuple(reversed(Decision))
"""In the order in which they are shown: ``counts[::-1]``."""
_LOAD = ("offered", "admitted", *(decision.name.lower() for decision in OUTCOMES))
SECONDS_HEADER = (
    "time",
    "second",
    *_LOAD,
    "offered_units",
    "admitted_units",
    "active",
    "level",
    "backlog_without_units",
)
USERS_HEADER = ("user", "category", "allocation", *_LOAD, "seconds_throttled", "highest_offered_second")


def allocation_of(config: Config, user: str) -> float | None:
    """Return the allocation of a User or of the unknown ones, units per second; None without one."""
    return config.unknown_allocation if user == UNKNOWN else config.allocations.get(user)


_MOST_USERS = 12
_MOST_EVENTS = 8


def summary(outcome: Outcome, config: Config) -> dict[str, Any]:
    """Return all figures, ready for JSON. Loads are in units per second; nothing depends on the machine."""
    return {
        "service_requests": outcome.requests,
        "seconds": outcome.seconds,
        "offered": outcome.requests,
        "admitted": outcome.requests - outcome.of(Decision.THROTTLED),
        **{decision.name.lower(): outcome.of(decision) for decision in OUTCOMES},
        "unknown_users": int(outcome.counts[0].sum()),
        "unknown_srvs": outcome.unknown_srv,
        "configuration": {
            "version": config.version,
            "system_capacity": config.system_capacity,
            "operating_threshold": config.operating_threshold,
            "release_threshold": config.release_threshold,
            "sharing": config.sharing,
            "users": len(config.users),
        },
        "activations": outcome.activations,
        "highest_admitted_second_while_active": outcome.highest_while_active,
        "with_mechanism": _queue(outcome.admitted),
        "without_mechanism": _queue(outcome.offered),
        "events": [
            {
                "began_s": event.began_s,
                "ended_s": event.ended_s,
                "throttled": event.throttled,
                "highest_offered_second": event.highest_offered,
                "highest_admitted_second": event.highest_admitted,
            }
            for event in outcome.events
        ],
        "users": [
            {
                "user": user,
                "category": config.categories.get(user, ""),
                "allocation": allocation_of(config, user) or 0.0,
                "offered": int(outcome.counts[slot].sum()),
                **{decision.name.lower(): int(outcome.counts[slot, decision]) for decision in OUTCOMES},
                "seconds_throttled": int(outcome.seconds_throttled[slot]),
                "highest_offered_second": int(outcome.highest_offered[slot]),
            }
            for slot, user in enumerate(outcome.users)
        ],
    }


def summary_lines(
    outcome: Outcome, config: Config, paint: Paint, clock: Callable[[float], str], *, all_users: bool = False
) -> Iterator[str]:
    """Yield the lines of the summary for people.

    Parameters
    ----------
    clock : callable
        Text for a time in seconds since the start of the traffic.
    all_users : bool
        List every User, not only those with most throttled and offered requests.
    """
    yield from _users(outcome, config, paint, all_users)
    yield ""
    yield from _events(outcome, paint, clock)
    yield ""
    yield from _load(outcome, config, paint, clock)


def _users(outcome: Outcome, config: Config, paint: Paint, all_users: bool) -> Iterator[str]:
    named = [slot for slot in range(len(outcome.users)) if slot or outcome.counts[0].any()]
    order = sorted(
        named, key=lambda slot: (-outcome.counts[slot, Decision.THROTTLED], -outcome.counts[slot].sum(), slot)
    )
    shown = order if all_users or len(order) <= _MOST_USERS + 1 else order[:_MOST_USERS]
    head = ["Service User", "allocation/s", "offered", "priority", "within", "spare", "throttled", ""]

    def row(name: str, allocation: float, counts: Any) -> list[str]:
        outcomes = [number(int(counts[decision])) for decision in OUTCOMES]
        share = percent(int(counts[Decision.THROTTLED]), int(counts.sum()))
        return [plain(name, 32), number(allocation), number(int(counts.sum())), *outcomes, share]

    def rates(slots: list[int]) -> float:
        return sum(allocation_of(config, outcome.users[slot]) or 0.0 for slot in slots)

    rows = [row(outcome.users[slot], rates([slot]), outcome.counts[slot]) for slot in shown]
    rest = order[len(shown) :]
    if rest:
        rows.append(row(f"{len(rest)} other Users", rates(rest), outcome.counts[rest].sum(axis=0)))
    rows.append(row("all", rates(order), outcome.counts.sum(axis=0)))
    for unneeded in ("allocation/s", "priority", "spare"):  # they are in the files as well
        # Closer together is better than less.
        if terminal.table_width(head, rows, 2 if unneeded == "allocation/s" else 1) > terminal.columns():
            place = head.index(unneeded)
            head, rows = _without_column(head, place), [_without_column(cells, place) for cells in rows]
    lines = terminal.table(head, rows, paint)
    yield paint.bold("Service Requests by outcome")
    yield lines[0]
    for line, cells in zip(lines[1:], rows, strict=True):
        yield line if cells[-2] == "0" else paint.red(line)
    for line in paragraph(
        "priority: on the priority list; within: inside the allocation; spare: above it, admitted"
    ):
        yield paint.faint(line)


def _without_column(cells: list[str], place: int) -> list[str]:
    return cells[:place] + cells[place + 1 :]


def _events(outcome: Outcome, paint: Paint, clock: Callable[[float], str]) -> Iterator[str]:
    yield paint.bold(f"Traffic management events: {number(outcome.activations)}")
    if not outcome.activations:
        yield "  The Mechanism was never active: nothing was throttled."
        return
    rows = []
    for event in outcome.events[:_MOST_EVENTS]:
        end = outcome.seconds if event.ended_s is None else event.ended_s
        lasted = duration(max(0.0, end - event.began_s)) + (" (not over)" if event.ended_s is None else "")
        figures = (event.highest_offered, event.highest_admitted, event.throttled)
        rows.append([clock(event.began_s), lasted, *map(number, figures)])
    yield from terminal.table(
        ["began", "active for", "highest/s offered", "admitted", "throttled"], rows, paint
    )
    if outcome.activations > _MOST_EVENTS:
        yield f"  and {number(outcome.activations - _MOST_EVENTS)} more"


def _load(outcome: Outcome, config: Config, paint: Paint, clock: Callable[[float], str]) -> Iterator[str]:
    capacity, threshold = config.system_capacity, config.operating_threshold
    uniform = all(cost == 1 for cost in config.costs.values())
    unit = "Service Requests" if uniform else "units"
    yield paint.bold(f"Load in {unit} per second: threshold {number(threshold)}, capacity {number(capacity)}")
    rows = []
    for label, queue in (("with the Mechanism", outcome.admitted), ("without it", outcome.offered)):
        above = map(duration, (queue.seconds_above_threshold, queue.seconds_above_capacity))
        worst = number(round(queue.highest_backlog)), duration(queue.longest_wait_s)
        rows.append([label, number(queue.highest), percent(queue.highest, capacity), *above, *worst])
    head = [
        "",
        "highest second",
        "of capacity",
        "above threshold",
        "above capacity",
        "backlog",
        "longest wait",
    ]
    if terminal.columns() < 104:
        head = ["", "highest", "of cap.", "over thr.", "over cap.", "backlog", "wait"]
    yield from terminal.table(head, rows, paint)
    if outcome.activations:
        yield from paragraph(_while_active(outcome, threshold, clock))
    yield from paragraph(_without(outcome.offered, unit, clock))


def _while_active(outcome: Outcome, threshold: float, clock: Callable[[float], str]) -> str:
    active, highest = outcome.highest_while_active, outcome.admitted
    text = (
        f"While the Mechanism was active, the highest admitted second was {number(active)}: "
        f"{percent(active, threshold)} of the operating threshold."
    )
    if highest.highest > active:
        text += (
            f" The highest of all, {number(highest.highest)} at {clock(highest.highest_second)}, came before or as "
            "it became active."
        )
    return text


def _without(queue: Queue, unit: str, clock: Callable[[float], str]) -> str:
    if not queue.highest_backlog:
        return "Without the Mechanism a DSP of this capacity would have kept up, second by second."
    return (
        f"Without the Mechanism a DSP of this capacity would have been {number(round(queue.highest_backlog))} {unit} "
        f"behind at {clock(queue.highest_backlog_second)}: a wait of {duration(queue.longest_wait_s)} for every "
        f"User's requests, urgent ones too. It would have had a backlog for {duration(queue.seconds_with_backlog)}."
    )


def _queue(queue: Queue) -> dict[str, Any]:
    same = (
        "seconds_above_threshold", "seconds_above_capacity", "highest_backlog", "longest_wait_s",
        "seconds_with_backlog",
    )  # fmt: skip
    return {
        "highest_second": queue.highest,
        "highest_second_at_s": queue.highest_second,
        **{name: getattr(queue, name) for name in same},
    }


_Side = tuple[Config, Outcome]


def what_if(config: Config, *, threshold: float | None = None, allocations: Path | None = None) -> Config:
    """Return a configuration with another operating threshold, other allocations, or both.

    The release threshold keeps its share of the operating threshold. Users of the file have the identifiers it
    gives, or, where it gives them none, those they have now.

    Parameters
    ----------
    threshold : float, optional
        Units per second.
    allocations : Path, optional
        An allocations file.

    Raises
    ------
    ConfigError
        All mistakes of the file, or of what both together make, with file, line and column.
    """
    values: dict[str, Any] = {"candidate_allocations": None, "candidate_file": None}
    if threshold is not None:
        release = (config.release_threshold or 0.0) / config.operating_threshold
        values |= {"operating_threshold": threshold, "release_threshold": threshold * release}
    table = None if allocations is None else read_before(allocations)
    if table is not None:
        named = set(table.user_ids.values())
        kept = {
            user_id: user
            for user_id, user in config.user_ids.items()
            if user in table.allocations and user not in named
        }
        values |= {
            "allocations": table.allocations,
            "user_ids": {**kept, **table.user_ids},
            "categories": table.categories,
            "allocations_file": str(allocations),
            "allocations_digest": None,
            "effective_from": None,
        }
    try:
        return replace(config, **values)
    except ConfigError as error:
        raise ConfigError([_placed(each, table, values, config) for each in error.mistakes]) from None


def _placed(
    mistake: Mistake, table: AllocationTable | None, values: dict[str, Any], config: Config
) -> Mistake:
    """Put to a mistake the place in the allocations file, or the option, that made it."""
    if table is None or mistake.field == "operating_threshold":
        return Mistake(f"--threshold: {mistake.message}", field=mistake.field)
    threshold = values.get("operating_threshold", config.operating_threshold)
    line, column = table.place_above(threshold - config.unknown_allocation)
    return Mistake(mistake.message, file=table.file, line=line, column=column, field=mistake.field)


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    of: Callable[[Config, Outcome], float]
    text: Callable[[float], str] = number


_ROWS: Sequence[_Row] = (
    _Row("operating threshold", lambda c, o: c.operating_threshold),
    _Row("release threshold", lambda c, o: c.release_threshold or 0.0),
    _Row("sum of allocations", lambda c, o: sum(c.allocations.values()) + c.unknown_allocation),
    _Row("Users", lambda c, o: len(c.users)),
    _Row("admitted", lambda c, o: o.requests - o.of(Decision.THROTTLED)),
    _Row("priority", lambda c, o: o.of(Decision.PRIORITY)),
    _Row("within allocation", lambda c, o: o.of(Decision.WITHIN_ALLOCATION)),
    _Row("spare capacity", lambda c, o: o.of(Decision.SPARE_CAPACITY)),
    _Row("throttled", lambda c, o: o.of(Decision.THROTTLED)),
    _Row("Users throttled", lambda c, o: int((o.counts[:, Decision.THROTTLED] > 0).sum())),
    _Row("activations", lambda c, o: o.activations),
    _Row("active for", lambda c, o: o.active_s, duration),
    _Row("highest second admitted", lambda c, o: o.admitted.highest),
    _Row("the same while active", lambda c, o: o.highest_while_active),
    _Row("seconds above threshold", lambda c, o: o.admitted.seconds_above_threshold),
)


def side_by_side(sides: Sequence[_Side]) -> dict[str, Any]:
    """Return Users of either configuration with what was throttled under both, ready for JSON."""
    return {
        "users": [
            {
                "user": each.name,
                "allocation": each.rates,
                "offered": each.offered,
                "throttled": each.throttled,
            }
            for each in _of_both(sides)
        ]
    }


def side_by_side_lines(sides: Sequence[_Side], paint: Paint, *, all_users: bool = False) -> Iterator[str]:
    """Yield the figures of both configurations, and the Users that it makes a difference to."""
    yield paint.bold("As configured, and what if")
    rows = []
    for row in _ROWS:
        old, new = (row.of(*side) for side in sides)
        rows.append([row.label, row.text(old), row.text(new), _change(old, new, row.text)])
    yield from terminal.table(["", "as configured", "what if", "difference"], rows, paint)
    yield ""
    found = _of_both(sides)
    if not all_users:
        found = [each for each in found if each.difference or each.rates[0] != each.rates[1]]
        if not found:
            yield "  No User's allocation differs, and none is throttled more or less."
            return
    found.sort(key=lambda each: (-each.difference, each.name))
    shown = found if all_users else found[:_MOST_USERS]
    rows = [
        [
            plain(each.name, 32), *("-" if rate is None else number(rate) for rate in each.rates),
            number(max(each.offered)), *map(number, each.throttled),
            _change(each.throttled[0], each.throttled[1], number),
        ]
        for each in shown
    ]  # fmt: skip
    yield paint.bold("Users" if all_users else "Users that it makes a difference to")
    head = ["Service User", "allocation/s", "what if", "offered", "throttled", "what if", "difference"]
    if terminal.table_width(head, rows, 1) > terminal.columns():  # what is offered is the same on both sides
        head, *rows = (_without_column(row, 3) for row in (head, *rows))
    yield from terminal.table(head, rows, paint)
    if len(found) > len(shown):
        yield f"  and {number(len(found) - len(shown))} more: --all-users"


@dataclass(frozen=True, slots=True)
class _User:
    """A User under both configurations."""

    name: str
    rates: list[float | None]
    offered: list[int]
    throttled: list[int]

    @property
    def difference(self) -> int:
        return abs(self.throttled[1] - self.throttled[0])


def _of_both(sides: Sequence[_Side]) -> list[_User]:
    """Return the Users of either, the unknown ones only where there were any under both."""
    found = []
    for name in dict.fromkeys(user for _, outcome in sides for user in outcome.users):
        counts = [outcome.of_user(name) for _, outcome in sides]
        offered = [sum(each) for each in counts]
        if name != UNKNOWN or all(offered):
            rates = [allocation_of(config, name) for config, _ in sides]
            found.append(_User(name, rates, offered, [each[Decision.THROTTLED] for each in counts]))
    return found


def _change(old: float, new: float, text: Callable[[float], str]) -> str:
    if new == old:
        return "="
    return ("+" if new > old else "-") + text(abs(new - old))


class OutcomeFiles:
    """Writes ``NAME.csv``, ``users.csv`` and ``NAME.svg`` into a folder; a context manager.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    time_of : callable
        Text of the column ``time`` for a second of the traffic.
    keep : sequence of Path
        Files that were read: refused as a place to write to.
    users : str
        Name of the file of Users.

    Raises
    ------
    TMMError
        A file that was read would be overwritten.
    OSError
        The folder cannot be made or written to.
    """

    def __init__(
        self, folder: Path, name: str, time_of: Callable[[int], str], keep: tuple[Path, ...] = (), *,
        users: str = "users.csv",
    ) -> None:  # fmt: skip
        self.seconds = folder / f"{name}.csv"
        self.users = folder / users
        self.chart = folder / f"{name}.svg"
        self._time_of = time_of
        self._done: list[Path] = []
        self._stack = ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        for path in self.paths:
            if any(path.exists() and kept.exists() and path.samefile(kept) for kept in keep):
                raise TMMError(f"{path} was read, and would be overwritten: choose another folder with --out")
        self._file = self._open(self.seconds)
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(SECONDS_HEADER)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in place after `finish`."""
        return self.seconds, self.users, self.chart

    def row(self, row: Row) -> None:
        """Write one second."""
        level = "" if row.level is None else f"{row.level:.4f}"
        self._rows.writerow(
            [self._time_of(row.second), row.second, row.offered, row.admitted, *row.counts[::-1], row.offered_units,
             row.admitted_units, int(row.active), level, f"{row.backlog_without:.0f}"]
        )  # fmt: skip

    def finish(self, outcome: Outcome, config: Config, chart: str) -> None:
        """Write the Users and the chart, and put all the files in place."""
        with self._open(self.users) as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(USERS_HEADER)
            for slot, user in enumerate(outcome.users):
                counts = outcome.counts[slot].tolist()
                allocation = allocation_of(config, user) or 0.0
                rows.writerow(
                    [in_csv(user), config.categories.get(user, ""), f"{allocation:.15g}", sum(counts),
                     sum(counts) - counts[Decision.THROTTLED], *counts[::-1], int(outcome.seconds_throttled[slot]),
                     int(outcome.highest_offered[slot])]
                )  # fmt: skip
        with self._open(self.chart) as file:
            file.write(chart)
        self._file.close()
        for path in self._done:
            os.replace(_part(path), path)
        self._done.clear()

    def _open(self, path: Path) -> TextIO:
        file = self._stack.enter_context(_part(path).open("w", encoding="utf-8", newline=""))
        self._done.append(path)
        return file

    def __enter__(self) -> OutcomeFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for path in self._done:
            _part(path).unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
