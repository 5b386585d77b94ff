"""The summary of what became of the traffic: the same figures for people and for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tmm_core.mechanism import Decision
from tmm_core.operations import terminal
from tmm_core.operations.terminal import Paint, duration, number, paragraph, percent, plain
from tmm_core.operations.traffic.outcome import Outcome, Queue
from tmm_core.policy.config import Config

__all__ = ["summary", "summary_lines"]

_MOST_USERS = 12
_MOST_EVENTS = 8
_OUTCOMES = (Decision.PRIORITY, Decision.WITHIN_ALLOCATION, Decision.SPARE_CAPACITY, Decision.THROTTLED)


def summary(outcome: Outcome, config: Config) -> dict[str, Any]:
    """Return all figures, ready for JSON. Loads are in units per second; nothing depends on the machine."""
    return {
        "service_requests": outcome.requests,
        "seconds": outcome.seconds,
        "offered": outcome.requests,
        "admitted": outcome.requests - outcome.of(Decision.THROTTLED),
        **{decision.name.lower(): outcome.of(decision) for decision in _OUTCOMES},
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
                "allocation": _allocation(config, slot, user),
                "offered": int(outcome.counts[slot].sum()),
                **{decision.name.lower(): int(outcome.counts[slot, decision]) for decision in _OUTCOMES},
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
    outcome : Outcome
    config : Config
    paint : Paint
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
        outcomes = [number(int(counts[decision])) for decision in _OUTCOMES]
        share = percent(int(counts[Decision.THROTTLED]), int(counts.sum()))
        return [plain(name, 32), number(allocation), number(int(counts.sum())), *outcomes, share]

    def rates(slots: list[int]) -> float:
        return sum(_allocation(config, slot, outcome.users[slot]) for slot in slots)

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
        rows.append(
            [
                label,
                number(queue.highest),
                percent(queue.highest, capacity),
                duration(queue.seconds_above_threshold),
                duration(queue.seconds_above_capacity),
                number(round(queue.highest_backlog)),
                duration(queue.longest_wait_s),
            ]
        )
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
            f" The highest of all, {number(highest.highest)} at {clock(highest.highest_second)}, came "
            "before or as "
            "it became active."
        )
    return text


def _without(queue: Queue, unit: str, clock: Callable[[float], str]) -> str:
    if not queue.highest_backlog:
        return "Without the Mechanism a DSP of this capacity would have kept up, second by second."
    return (
        "Without the Mechanism a DSP of this capacity would have been "
        f"{number(round(queue.highest_backlog))} {unit} "
        f"behind at {clock(queue.highest_backlog_second)}: a wait of {duration(queue.longest_wait_s)} "
        "for every "
        "User's requests, urgent ones too. It would have had a backlog for "
        f"{duration(queue.seconds_with_backlog)}."
    )


def _allocation(config: Config, slot: int, user: str) -> float:
    return config.unknown_allocation if slot == 0 else config.allocations.get(user, 0.0)


def _queue(queue: Queue) -> dict[str, Any]:
    return {
        "highest_second": queue.highest,
        "highest_second_at_s": queue.highest_second,
        "seconds_above_threshold": queue.seconds_above_threshold,
        "seconds_above_capacity": queue.seconds_above_capacity,
        "highest_backlog": queue.highest_backlog,
        "longest_wait_s": queue.longest_wait_s,
        "seconds_with_backlog": queue.seconds_with_backlog,
    }
