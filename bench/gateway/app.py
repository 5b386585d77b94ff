"""What the benchmark serves: the cheapest possible answer alone, behind a middleware that only passes on, and behind
ours, by turns.

All sides run in one process (same memory, same hash seed, same heap), and all requests are the same, to the byte: the
application changes sides by itself, every `SLICE` requests. `by_header` answers without reading; `by_message` reads the
whole body first, as an application that gets a message does.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle, permutations
from time import perf_counter_ns, process_time_ns
from typing import Any

from tmm_core import Config, Mechanism
from tmm_core.gateway.asgi import TrafficManagement
from tmm_core.gateway.identify import HttpHeader, Source

USER = "90-B3-D5-1F-30-01-00-00"
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok"}
#: Requests until the next side's turn: about 15 ms, shorter than most of what disturbs a machine.
SLICE = 200
#: Where the times of all slices are told; they are forgotten then.
TOLD = "/told"

App = Callable[[Any, Any, Any], Awaitable[None]]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send(BODY)


async def reading(scope: Any, receive: Any, send: Any) -> None:
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    await send(START)
    await send(BODY)


class PassOnly:
    """The least that a middleware written as usual costs."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


# One User inside its allocation: every request is decided, charged and counted, and admitted.
mechanism = Mechanism(
    Config(1_000_000, 900_000, allocations={"Northern Energy": 800_000.0}, user_ids={USER: "Northern Energy"})
)


def rounds(sides: list[str]) -> Iterator[str]:
    """Return whose turn it is: all sides in some order and back again, so that what grows or wanes is nobody's."""
    orders = [[*order, *reversed(order)] for order in permutations(sides)]
    return (side for order in cycle(orders) for side in order)


def by_turns(app: App, identify: Source | None = None) -> App:
    """Return an application that is all three sides."""
    ours = TrafficManagement(app, mechanism, identify)
    sides: dict[str, App] = {"without": app, "pass-only": PassOnly(app), "with": ours}
    turns = rounds(list(sides))
    side, serve, left = "", app, 0
    began = 0, 0
    decided_before = 0
    slices: list[tuple[str, int, int]] = []  # side, nanoseconds, and nanoseconds of the process

    def turn() -> None:
        nonlocal side, serve, left, began
        now, worked = perf_counter_ns(), process_time_ns()
        if side:
            slices.append((side, now - began[0], worked - began[1]))
        side = next(turns)
        serve, left = sides[side], SLICE
        began = perf_counter_ns(), process_time_ns()

    async def told(scope: Any, receive: Any, send: Any) -> None:
        nonlocal side, left, turns, decided_before
        decided = int(mechanism.snapshot().counts[1:].sum())
        said = {
            "requests": SLICE,
            "slices": slices,
            "decided": decided - decided_before,
            "counts": str(ours.counts),
        }
        decided_before = decided
        body = json.dumps(said).encode()
        side, left, turns = "", 0, rounds(list(sides))
        slices.clear()
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    def chosen(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        nonlocal left
        if scope["path"] == TOLD:
            return told(scope, receive, send)
        if not left:
            turn()
        left -= 1
        return serve(scope, receive, send)

    return chosen


by_header = by_turns(bare, HttpHeader())
by_message = by_turns(reading)
