"""The new Service Requests of a scenario, second by second, from seeds of each User's own.

Only random 64-bit words and elementwise arithmetic are used: the same seed gives the same requests on every
machine. A User's traffic does not change when other Users are added or taken away.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tmm_core.operations.simulation.fresh import Codes, Fresh, Past, Senders
from tmm_core.operations.simulation.mixes import srv_table
from tmm_core.operations.simulation.replayed import Replayed, replayed
from tmm_core.operations.simulation.scenario import Scenario
from tmm_core.operations.simulation.streams import Stream, Streams
from tmm_core.operations.simulation.words import SRV, USER

__all__ = ["Arrivals"]

_UNKNOWN = "(unknown)"


class Arrivals:
    """Makes the new Service Requests of a scenario. *Not thread-safe.*

    Parameters
    ----------
    scenario : Scenario
    slot_of, number_of : callable
        `Mechanism.user` and `Mechanism.srv`.

    Raises
    ------
    TMMError
        A file to replay cannot be used.
    """

    def __init__(
        self, scenario: Scenario, slot_of: Callable[[str], int], number_of: Callable[[str], int]
    ) -> None:
        self._steps = scenario.steps_per_s
        self._replayed: list[Replayed] = []
        portfolio = {user.name: user.portfolio for user in scenario.users}
        portfolio[_UNKNOWN] = 1.0
        streams: list[Stream] = []
        tables: list[Codes] = []  # of each traffic
        ends = []
        for place, traffic in enumerate(scenario.traffic):
            if traffic.file is not None:
                self._replayed.append(replayed(traffic, slot_of, number_of))
                continue
            senders = [name for name in portfolio if traffic.is_from(name)]
            total = sum(portfolio[name] for name in senders) or 1.0
            streams += [Stream(name, place, traffic.rate * portfolio[name] / total) for name in senders]
            ends.append(len(streams))
            tables.append(srv_table(scenario.mixes[traffic.mix], number_of).astype(np.uint32))
        self._streams = Streams(scenario, streams)
        slots = np.array([slot_of(stream.user) for stream in streams], dtype=np.uint32)
        listed = np.zeros(1 << USER - SRV, dtype=np.uint32)
        listed[sorted({number_of(code) for code in scenario.config.priority_srvs} - {0})] = 1
        self._senders = Senders(slots, ends, tables, listed)

    def seconds(self, first: int, number: int = 1) -> Fresh:
        """Make the Service Requests of some seconds; called for one after the other."""
        past = [self._past(second) for second in range(first, first + number)] if self._replayed else []
        return Fresh(self._streams.seconds(first, number), self._senders, self._steps, first, past)

    def _past(self, second: int) -> list[Past]:
        """Return the past traffic of a second."""
        found = [each.second(second) for each in self._replayed]
        return [((words >> SRV).astype(np.uint32), times.astype(np.uint32)) for words, times in found]

    def close(self) -> None:
        """Close the files that are replayed. Harmless when repeated."""
        for each in self._replayed:
            each.close()
