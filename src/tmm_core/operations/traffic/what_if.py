"""A configuration with some of its values changed, and both on the same traffic, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tmm_core.errors import ConfigError, Mistake
from tmm_core.mechanism import Decision
from tmm_core.operations import terminal
from tmm_core.operations.planning.allocation_changes import read_before
from tmm_core.operations.terminal import Paint, duration, number, plain
from tmm_core.operations.traffic.outcome import Outcome
from tmm_core.policy.allocation_files import AllocationTable
from tmm_core.policy.config import Config

__all__ = ["side_by_side", "side_by_side_lines", "what_if"]

_MOST_USERS = 12
_Side = tuple[Config, Outcome]


def what_if(config: Config, *, threshold: float | None = None, allocations: Path | None = None) -> Config:
    """Return a configuration with another operating threshold, other allocations, or both.

    The release threshold keeps its share of the operating threshold. Users of the file have the identifiers it
    gives, or, where it gives them none, those they have now.

    Parameters
    ----------
    config : Config
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


def _active_s(_: Config, outcome: Outcome) -> float:
    return sum(
        (outcome.seconds if each.ended_s is None else each.ended_s) - each.began_s for each in outcome.events
    )


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
    _Row("active for", _active_s, duration),
    _Row("highest second admitted", lambda c, o: o.admitted.highest),
    _Row("the same while active", lambda c, o: o.highest_while_active),
    _Row("seconds above threshold", lambda c, o: o.admitted.seconds_above_threshold),
)


def side_by_side(sides: Sequence[_Side]) -> dict[str, Any]:
    """Return Users of either configuration with what was throttled under both, ready for JSON."""
    (before, first), (after, second) = sides
    return {
        "users": [
            {
                "user": user,
                "allocation": [_allocation(before, user, first), _allocation(after, user, second)],
                "offered": [_of(first, user).sum_all, _of(second, user).sum_all],
                "throttled": [_of(first, user).throttled, _of(second, user).throttled],
            }
            for user in _users(first, second)
        ]
    }


def side_by_side_lines(sides: Sequence[_Side], paint: Paint, *, all_users: bool = False) -> Iterator[str]:
    """Yield the figures of both configurations, and the Users that it makes a difference to."""
    (before, first), (after, second) = sides
    yield paint.bold("As configured, and what if")
    rows = []
    for row in _ROWS:
        old, new = row.of(before, first), row.of(after, second)
        rows.append([row.label, row.text(old), row.text(new), _change(old, new, row.text)])
    yield from terminal.table(["", "as configured", "what if", "difference"], rows, paint)
    yield ""
    yield from _user_lines(sides, paint, all_users)


def _user_lines(sides: Sequence[_Side], paint: Paint, all_users: bool) -> Iterator[str]:
    (before, first), (after, second) = sides
    found = []
    for user in _users(first, second):
        old, new = _of(first, user), _of(second, user)
        rates = _allocation(before, user, first), _allocation(after, user, second)
        found.append((user, rates, old, new))
    differ = [each for each in found if each[1][0] != each[1][1] or each[2].throttled != each[3].throttled]
    if not differ and not all_users:
        yield "  No User's allocation differs, and none is throttled more or less."
        return
    shown = found if all_users else differ
    shown.sort(key=lambda each: (-abs(each[3].throttled - each[2].throttled), each[0]))
    rest = [] if all_users else shown[_MOST_USERS:]
    if rest:
        shown = shown[:_MOST_USERS]
    rows = [
        [
            plain(user, 32), _rate(rates[0]), _rate(rates[1]), number(max(old.sum_all, new.sum_all)),
            number(old.throttled), number(new.throttled), _change(old.throttled, new.throttled, number),
        ]
        for user, rates, old, new in shown
    ]  # fmt: skip
    yield paint.bold("Users" if all_users else "Users that it makes a difference to")
    head = ["Service User", "allocation/s", "what if", "offered", "throttled", "what if", "difference"]
    if terminal.table_width(head, rows, 1) > terminal.columns():  # what is offered is the same on both sides
        head, *rows = ([*row[:3], *row[4:]] for row in (head, *rows))
    yield from terminal.table(head, rows, paint)
    if rest:
        yield f"  and {number(len(rest))} more: --all-users"


@dataclass(frozen=True, slots=True)
class _Counts:
    sum_all: int
    throttled: int


def _of(outcome: Outcome, user: str) -> _Counts:
    if user not in outcome.users:
        return _Counts(0, 0)
    counts = outcome.counts[outcome.users.index(user)]
    return _Counts(int(counts.sum()), int(counts[Decision.THROTTLED]))


def _users(first: Outcome, second: Outcome) -> list[str]:
    """Return the Users of either, the unknown ones only where there were any."""
    users = list(dict.fromkeys([*first.users, *second.users]))
    unknown = {outcome.users[0] for outcome in (first, second) if not outcome.counts[0].any()}
    seen = {outcome.users[0] for outcome in (first, second)} - unknown
    return [user for user in users if user not in unknown or user in seen]


def _allocation(config: Config, user: str, outcome: Outcome) -> float | None:
    return config.unknown_allocation if user == outcome.users[0] else config.allocations.get(user)


def _rate(rate: float | None) -> str:
    return "-" if rate is None else number(rate)


def _change(old: float, new: float, text: Callable[[float], str]) -> str:
    if new == old:
        return "="
    return ("+" if new > old else "-") + text(abs(new - old))
