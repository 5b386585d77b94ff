"""Metrics of a Mechanism, for Prometheus and OpenTelemetry: read from the counters when they are asked for.

    REGISTRY.register(Collector(mechanism))              # extra "prometheus"
    instrument(mechanism, get_meter("tmm"))              # extra "otel"

Where the workers of a host share one block, any of them shows the whole host. Labels come from closed sets: the
Users of the configuration, the catalogue of SRVs, the four decisions; unknown ones share one label each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tmm_core.mechanism import Decision, Mechanism

if TYPE_CHECKING:
    from tmm_core.operations.watch import Watcher

__all__ = ["FAMILIES", "Collector", "Family", "Sample", "instrument", "samples"]

_FRESH_S = 1.0  # a reading older than this is not used for another instrument
_DECISIONS = tuple(decision.name.lower() for decision in Decision)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name, kind, unit, labels and what it says."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    unit: str = "1"


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a metric."""

    labels: tuple[str, ...]
    value: float


_RATE = "units per second"
#: Every metric there is, by name. Counters end in ``_total``.
FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(
            "tmm_requests_total",
            "counter",
            "Service Requests decided, by User and decision.",
            ("user", "decision"),
        ),
        Family("tmm_units_total", "counter", "The same weighted by cost, in units.", ("user", "decision")),
        Family(
            "tmm_srv_requests_total",
            "counter",
            "Service Requests decided, by SRV and decision.",
            ("srv", "decision"),
        ),
        Family("tmm_active", "gauge", "1 while the Mechanism is active: a traffic management event."),
        Family("tmm_activations_total", "counter", "Traffic management events since the counters began."),
        Family("tmm_load", "gauge", f"Units admitted per second, over about a second ({_RATE}).", unit=_RATE),
        Family("tmm_offered_load", "gauge", f"Units admitted or throttled per second ({_RATE}).", unit=_RATE),
        Family(
            "tmm_backlog_seconds",
            "gauge",
            "Work a DSP of the operating threshold would have waiting.",
            unit="s",
        ),
        Family("tmm_level", "gauge", "A User may use so many times its allocation; 1: no spare capacity."),
        Family("tmm_system_capacity", "gauge", f"As configured ({_RATE}).", unit=_RATE),
        Family("tmm_operating_threshold", "gauge", f"As configured ({_RATE}).", unit=_RATE),
        Family("tmm_release_threshold", "gauge", f"As configured ({_RATE}).", unit=_RATE),
        Family("tmm_allocation", "gauge", f"Of each User, as configured ({_RATE}).", ("user",), _RATE),
        Family("tmm_ticks_total", "counter", "Control ticks since the counters began."),
        Family("tmm_healed_total", "counter", "Impossible words met and healed."),
        Family(
            "tmm_configuration_info",
            "gauge",
            "1; the configuration in force.",
            ("version", "mode", "sharing"),
        ),
        Family(
            "tmm_fail_open_total",
            "counter",
            "Service Requests admitted because nobody could decide; this process.",
        ),
        Family(
            "tmm_identity_mismatches_total", "counter", "DUIS headers that name another User; this process."
        ),
        Family(
            "tmm_event_log_failures", "gauge", "Commits to the event log that failed since the last good one."
        ),
        Family("tmm_event_log_writer", "gauge", "1 in the process that writes the host's event log."),
    )
}


def samples(
    mechanism: Mechanism, *, desks: Iterable[Any] = (), watcher: Watcher | None = None
) -> Iterator[tuple[Family, list[Sample]]]:
    """Yield every metric with its values now.

    Parameters
    ----------
    desks : iterable
        Gateways of this process, or anything with `counts`.
    watcher : Watcher, optional

    Notes
    -----
    *Thread-safe; the values may be out of date at once.* Holds no lock of the engine.
    """
    snapshot = mechanism.snapshot()
    config = mechanism.config
    units = mechanism.engine.units()[: len(snapshot.users)]
    by_user, by_srv = snapshot.counts.sum(axis=1), snapshot.counts.sum(axis=0)

    def cells(names: list[str], rows: Any, always: frozenset[str]) -> list[Sample]:
        return [
            Sample((name, decision), value)
            for name, row in zip(names, rows.tolist(), strict=True)
            if any(row) or name in always
            for decision, value in zip(_DECISIONS, row, strict=True)
        ]

    # A User that is configured is there from the start, at 0: a rate needs the first sample too.
    known = frozenset(config.allocations)
    values: dict[str, list[Sample]] = {
        "tmm_requests_total": cells(snapshot.users, by_user, known),
        "tmm_units_total": cells(snapshot.users, units, known),
        "tmm_srv_requests_total": cells(snapshot.srvs, by_srv, frozenset()),
        "tmm_allocation": [
            *(Sample((user,), allocation) for user, allocation in config.allocations.items()),
            Sample((snapshot.users[0],), config.unknown_allocation),
        ],
        "tmm_configuration_info": [Sample((config.version, config.mode, config.sharing), 1)],
    }
    single: dict[str, float] = {
        "tmm_active": snapshot.active,
        "tmm_activations_total": snapshot.activations,
        "tmm_load": snapshot.load,
        "tmm_offered_load": snapshot.offered_load,
        "tmm_backlog_seconds": snapshot.backlog_s,
        "tmm_level": snapshot.level,
        "tmm_system_capacity": config.system_capacity,
        "tmm_operating_threshold": config.operating_threshold,
        "tmm_release_threshold": config.release_threshold or 0.0,
        "tmm_ticks_total": snapshot.ticks,
        "tmm_healed_total": snapshot.healed,
    }
    counts = [desk.counts for desk in desks]
    single["tmm_fail_open_total"] = sum(each.fail_open for each in counts)
    single["tmm_identity_mismatches_total"] = sum(
        each.identity_disagrees + each.identity_ambiguous for each in counts
    )
    if watcher is not None:
        single["tmm_event_log_failures"] = watcher.failures
        single["tmm_event_log_writer"] = watcher.elected
    for name, family in FAMILIES.items():
        if name in values:
            yield family, values[name]
        elif name in single:
            yield family, [Sample((), float(single[name]))]


class Collector:
    """A collector for ``prometheus_client``: register it once in each process. *Thread-safe.*

    Parameters
    ----------
    **options
        `desks` and `watcher`, as for `samples`.

    Notes
    -----
    It reads when it is scraped and keeps nothing, so the multiprocess mode of ``prometheus_client`` is not needed:
    with a shared block each worker shows the whole host. Scrape one worker, or aggregate with ``max``.
    """

    def __init__(self, mechanism: Mechanism, **options: Any) -> None:
        self._mechanism = mechanism
        self._options = options

    def describe(self) -> list[Any]:
        """Return nothing: names are not checked against other collectors before the first scrape."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the metrics, as ``prometheus_client`` asks for them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for family, found in samples(self._mechanism, **self._options):
            make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = make(family.name, family.help, labels=family.labels)
            for sample in found:
                metric.add_metric(list(sample.labels), sample.value)
            yield metric


def instrument(mechanism: Mechanism, meter: Any, **options: Any) -> list[Any]:
    """Make observable instruments of a meter of OpenTelemetry; returns them.

    Parameters
    ----------
    **options
        `desks` and `watcher`, as for `samples`.

    Notes
    -----
    Instruments have the names of the Prometheus metrics without ``_total``, which exporters add, and dots for the first
    underline: ``tmm.requests``. The Mechanism is read once for each collection, whatever the number of instruments.
    """
    from opentelemetry.metrics import CallbackOptions, Observation

    found: dict[str, tuple[Family, list[Sample]]] = {}
    served: set[str] = set()
    read_at = -_FRESH_S

    def read(name: str) -> tuple[Family, list[Sample]] | None:
        # A new collection begins where a name is asked for again; one reading serves all of it.
        nonlocal read_at
        now = time.monotonic()
        if name in served or now - read_at > _FRESH_S:
            read_at = now
            served.clear()
            found.clear()
            found.update((family.name, (family, each)) for family, each in samples(mechanism, **options))
        served.add(name)
        return found.get(name)

    def callback(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(given: CallbackOptions) -> Iterable[Observation]:
            reading = read(name)
            for sample in [] if reading is None else reading[1]:
                yield Observation(sample.value, dict(zip(FAMILIES[name].labels, sample.labels, strict=True)))

        return observe

    made = []
    for family in FAMILIES.values():
        make = meter.create_observable_counter if family.kind == "counter" else meter.create_observable_gauge
        name = family.name.removesuffix("_total").replace("_", ".", 1)
        made.append(make(name, callbacks=[callback(family.name)], unit=family.unit, description=family.help))
    return made
