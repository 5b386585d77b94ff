"""What one gateway noticed, as faults of the event log: every incident is in a count, told of or not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["GatewayFaults"]

#: Kind of a gateway's event, and that of the fault.
_KINDS = {
    "fail_open": "fail-open",
    "identity_disagrees": "identity-mismatch",
    "identity_ambiguous": "identity-mismatch",
}


class GatewayFaults:
    """Takes the events of one gateway as its `on_event`. *Thread-safe.*

    A gateway tells of a kind at most once a second, and of the last incidents of a burst not at all: `rest` looks at
    its counts.

    Parameters
    ----------
    fault : callable
        `Watcher.fault`.
    """

    def __init__(self, fault: Callable[..., object]) -> None:
        self._fault = fault
        self._guard = threading.Lock()
        self._told: dict[str, int] = {}
        self._latest: dict[str, str] = {}
        self._counts: Any = None

    def __call__(self, event: Any) -> None:
        if event.kind in _KINDS:
            self._counts = getattr(event, "counts", None)
            self._latest[event.kind] = event.message
            self._tell(event.kind, event.count)

    def rest(self) -> None:
        """Tell of what there was since the last event."""
        if self._counts is not None:
            for kind in tuple(self._latest):
                self._tell(kind, getattr(self._counts, kind))

    def _tell(self, kind: str, count: int) -> None:
        # A gateway counts from its start; the log holds how many more there were.
        with self._guard:
            more = count - self._told.get(kind, 0)
            if more > 0:
                self._fault(_KINDS[kind], self._latest[kind], count=more)
                self._told[kind] = count
