"""Traffic management events of the DCC System, from the activations that its hosts logged.

An overload that several hosts saw is one event: activations that overlap, or follow within a second, are
joined. An event belongs to the month it began in; one that lasts into another month is listed in both and
counted in the first, and each month has its own share of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tmm_core.operations.report.record import Activation, Month

__all__ = ["Event", "UserEvent", "active_spans", "events_of", "seconds_between"]

#: Ends are known to about a second where the log had to be told by a poll.
_JOIN_MS = 1_000


@dataclass(frozen=True, slots=True)
class UserEvent:
    """One User in one event, all hosts together.

    Attributes
    ----------
    counts : tuple of int
        Service Requests by `Decision` during the event.
    first_ms, last_ms : int or None
        First and last throttled request.
    over : bool
        Above its allocation when the event began.
    seconds : int
        Most seconds with a throttled request that one host saw.
    """

    user: str
    allocation: float
    counts: tuple[int, int, int, int]
    first_ms: int | None
    last_ms: int | None
    over: bool
    seconds: int


@dataclass(frozen=True, slots=True)
class Event:
    """One traffic management event of the System.

    Attributes
    ----------
    began_ms, until_ms : int
        Until the last host's activation ended; of an open event, until when it was last heard of.
    open : bool
        At least one host's log has no end of it.
    observed : bool
        The Mechanism only observed: nothing was refused.
    offered_max : float
        Highest load offered on one host, units per second.
    """

    number: int
    began_ms: int
    until_ms: int
    open: bool
    exact: bool
    observed: bool
    hosts: tuple[str, ...]
    activations: int
    operating_threshold: float
    offered_max: float
    backlog_max_s: float
    users: tuple[UserEvent, ...]

    @property
    def duration_s(self) -> float:
        return (self.until_ms - self.began_ms) / 1000

    @property
    def throttled(self) -> int:
        return sum(user.counts[0] for user in self.users)

    @property
    def users_throttled(self) -> int:
        return sum(1 for user in self.users if user.counts[0])

    @property
    def users_over(self) -> tuple[str, ...]:
        return tuple(user.user for user in self.users if user.over)

    def seconds_in(self, month: Month) -> float:
        """Return how long it lasted inside a month."""
        return max(0, min(self.until_ms, month.end_ms) - max(self.began_ms, month.start_ms)) / 1000

    def began_in(self, month: Month) -> bool:
        return month.start_ms <= self.began_ms < month.end_ms


def events_of(activations: Iterable[Activation]) -> tuple[Event, ...]:
    """Return the events, numbered from 1 in the order in which they began."""
    groups: list[list[Activation]] = []
    end = 0
    for each in sorted(activations, key=lambda each: (each.began_ms, each.host, each.event)):
        if groups and each.began_ms <= end + _JOIN_MS:
            groups[-1].append(each)
            end = max(end, each.until_ms)
        else:
            groups.append([each])
            end = each.until_ms
    return tuple(_joined(number, group) for number, group in enumerate(groups, 1))


def _joined(number: int, group: Sequence[Activation]) -> Event:
    return Event(
        number=number,
        began_ms=group[0].began_ms,
        until_ms=max(each.until_ms for each in group),
        open=any(each.open for each in group),
        exact=all(each.exact for each in group),
        observed=all(each.mode == "observe" for each in group),
        hosts=tuple(sorted({each.host for each in group})),
        activations=len(group),
        operating_threshold=group[0].operating_threshold,
        offered_max=max(each.offered_max for each in group),
        backlog_max_s=max(each.backlog_max_s for each in group),
        users=_users(group),
    )


def _users(group: Sequence[Activation]) -> tuple[UserEvent, ...]:
    found: dict[str, UserEvent] = {}
    for each in (user for activation in group for user in activation.users):
        before = found.get(each.user)
        if before is None:
            found[each.user] = UserEvent(
                each.user,
                each.allocation,
                each.counts,
                each.first_throttled_ms,
                each.last_throttled_ms,
                each.over_at_beginning,
                each.throttled_seconds,
            )
            continue
        throttled, spare, within, priority = (a + b for a, b in zip(before.counts, each.counts, strict=True))
        found[each.user] = UserEvent(
            each.user,
            max(before.allocation, each.allocation),
            (throttled, spare, within, priority),
            _first(before.first_ms, each.first_throttled_ms),
            _last(before.last_ms, each.last_throttled_ms),
            before.over or each.over_at_beginning,
            max(before.seconds, each.throttled_seconds),
        )
    return tuple(found[name] for name in sorted(found))


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


def _last(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


def active_spans(events: Iterable[Event], month: Month) -> list[tuple[int, int]]:
    """Return when the Mechanism was active in a month, in milliseconds since 1970."""
    return [
        (max(event.began_ms, month.start_ms), min(event.until_ms, month.end_ms))
        for event in events
        if event.began_ms < month.end_ms and event.until_ms > month.start_ms
    ]


def seconds_between(spans: Iterable[tuple[int, int]], start_ms: int, end_ms: int) -> float:
    """Return how many seconds of spans lie between two times."""
    return sum(max(0, min(end, end_ms) - max(begin, start_ms)) for begin, end in spans) / 1000
