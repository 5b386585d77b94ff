"""The words of the report: numbers in sentences, what settings and faults mean, and the glossary."""

from __future__ import annotations

from collections.abc import Sequence

from tmm_core.operations.page import shown
from tmm_core.operations.terminal import percent
from tmm_core.policy.catalogue import by_srv_code

SENTENCE = (
    "A Service Request is throttled only if it is not on the priority list, its Service User is over its "
    "allocation, the Mechanism is active, and there is no spare capacity left for that User; every other Service "
    "Request is admitted."
)

CATEGORY = {
    "large-supplier": "Large Suppliers",
    "small-supplier": "Small Suppliers",
    "electricity-network": "Electricity Network Operators",
    "gas-network": "Gas Network Operators",
    "other": "Other SEC Parties",
    "": "No category",
}

#: What one User of a category is called.
PARTY = {
    "large-supplier": "Large Supplier",
    "small-supplier": "Small Supplier",
    "electricity-network": "Electricity Network Operator",
    "gas-network": "Gas Network Operator",
    "other": "Other SEC Party",
    "": "–",
}

#: Setting: its name, and what it means.
SETTING = {
    "system_capacity": ("System capacity", "units per second that the DCC System can process"),
    "operating_threshold": ("Operating threshold", "units per second at which the Mechanism becomes active"),
    "release_threshold": (
        "Release threshold",
        "units per second offered below which it becomes inactive again",
    ),
    "unknown_allocation": ("Allocation of unknown Users", "units per second, for all of them together"),
    "mode": ("Mode", "enforce: throttles; observe: decides, counts and logs, and refuses nothing"),
    "sharing": (
        "Sharing of spare capacity",
        "fair: in proportion to the allocations; first-come: who asks first; none: nobody goes above its allocation",
    ),
    "burst_s": ("Burst", "seconds of its allocation a User may send at once"),
    "activation_s": ("Activation backlog", "seconds of work waiting at which the Mechanism becomes active"),
    "hold_s": ("Hold", "seconds below the release threshold before it becomes inactive"),
    "tick_s": ("Control tick", "seconds between two looks at the load"),
    "max_retry_after_s": ("Longest Retry-After", "seconds a throttled User is asked to wait at most"),
    "spare_weight": (
        "Least weight",
        "units per second by which a User without allocation shares spare capacity",
    ),
}

FAULT = {
    "fail-open": "the gateway could not ask the Mechanism, and admitted",
    "healed": "impossible values met in memory, and healed",
    "worker-died": "a worker ended without saying so",
    "store-state": "the connection to the store that hosts share changed its state",
    "identity-mismatch": "a request named another User than the connection's certificate",
    "configuration-refused": "a new configuration was wrong; the last good one stayed in force",
    "clock-step": "the wall clock was set while the log was written",
    "log-unwritable": "the log could not be written for a while",
    "gap": "nobody watched for a while",
    "unclean-end": "the writer of the log ended without saying so",
}

LOSS = {
    "counts": "counts of Service Requests",
    "event": "traffic management events",
    "fault": "faults",
    "throttle-record": "records of single throttled requests",
    "notification": "messages to Users",
    "second-detail": "counts by the second",
}

GLOSSARY: Sequence[tuple[str, str]] = (
    ("Active", "The Mechanism is acting. While it is inactive nothing is throttled."),
    ("Admitted", "Let through to the DCC System."),
    ("Allocation", "Units per second a User is sure of, whatever the others do."),
    ("DCC", "Data and Communications Company."),
    (
        "Mechanism",
        "The Traffic Management Mechanism of SECMP0067. " + SENTENCE,
    ),
    ("Offered", "All Service Requests that arrived: admitted and throttled, repeated attempts included."),
    ("Operating threshold", "The load, in units per second, at which the Mechanism becomes active."),
    ("Operations Group", "The Sub-Committee of the SEC Panel recommended to receive this report."),
    ("Priority list", "SRVs that are never throttled, managed by the Panel or a Sub-Committee."),
    ("SEC", "Smart Energy Code."),
    ("Service Request", "One request of a User to the DCC System."),
    ("Service User, User", "A SEC Party that sends Service Requests."),
    ("Spare capacity", "The operating threshold less priority load and load within the allocations."),
    ("SRV", "Service Reference Variant: the kind of a Service Request, for example 7.4."),
    ("System capacity", "The most units per second the DCC System can process."),
    (
        "Throttled",
        "Refused by the Mechanism with HTTP status 503 and a time after which to try again; not processed.",
    ),
    ("Traffic management event", "One activation of the Mechanism, from its beginning to its end."),
    (
        "Unit",
        "What capacity is counted in: one Service Request, or as many units as its SRV is configured to cost.",
    ),
    (
        "Unknown Users, unknown SRVs",
        "What could not be told from the configuration; each is counted together.",
    ),
    ("Within allocation", "Admitted because the User was inside its allocation."),
    ("Working Day", "Not a Saturday, a Sunday or a bank holiday in England and Wales."),
)


def times(count: int) -> str:
    """Return how often, for example ``once`` or ``3 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def many(count: int, one: str, more: str = "") -> str:
    """Return a count with its noun, for example ``1 User`` or ``3 Users``."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def part(amount: float, whole: float) -> str:
    """Return a share in a sentence, for example ``12.3 %``."""
    return percent(amount, whole)


def pace(rate: float) -> str:
    """Return a rate in a sentence, for example ``1,234 per second``."""
    return f"{shown(rate, 'rate')} per second"


def moment(at: object) -> str:
    """Return a time in a sentence, to the minute: ``10 Nov 2026 17:31``."""
    return shown(at)[:-3]  # type: ignore[arg-type]


def joined(names: Sequence[str], most: int = 3) -> str:
    """Return names as in a sentence; those beyond `most` as a number."""
    shown_names = [*names[:most]]
    rest = len(names) - len(shown_names)
    if rest:
        shown_names.append(f"{rest:,} more")
    return shown_names[0] if len(shown_names) == 1 else f"{', '.join(shown_names[:-1])} and {shown_names[-1]}"


def srv_name(srv: str) -> str:
    """Return what an SRV is called in the catalogue."""
    found = by_srv_code().get(srv)
    return found.name if found else "unknown SRVs" if srv.startswith("(") else "not in the catalogue"
