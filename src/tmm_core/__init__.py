"""Traffic Management Mechanism (SECMP0067): a native admission core for gateways.

A Service Request is throttled only if it is not on the priority list, its Service User is over its allocation,
the Mechanism is active, and there is no spare capacity left for that User; every other Service Request is
admitted.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tmm_core.errors import ConfigError, DuisError, EventLogError, MemoryLayoutError, TMMError

if TYPE_CHECKING:
    from tmm_core.mechanism import Decision, Mechanism
    from tmm_core.policy.allocation import allocate
    from tmm_core.policy.config import Config, PriorityList
    from tmm_core.snapshot import Explanation, Snapshot

__all__ = [
    "Config",
    "ConfigError",
    "Decision",
    "DuisError",
    "EventLogError",
    "Explanation",
    "Mechanism",
    "MemoryLayoutError",
    "PriorityList",
    "Snapshot",
    "TMMError",
    "allocate",
    "get_include",
]

__version__ = "0.1.0"


def get_include() -> str:
    """Return the folder of ``tmm_core.h``, for C and C++ extensions."""
    from pathlib import Path

    return str(Path(__file__).parent / "_core")


# Each is imported with what it needs, above all NumPy, by who asks for it: the command line first makes sure that
# Ctrl-C ends it quietly, and a worker loads neither a monthly job nor what is told to people.
_MODULES = {
    "Config": "policy.config",
    "Decision": "mechanism",
    "Explanation": "snapshot",
    "Mechanism": "mechanism",
    "PriorityList": "policy.config",
    "Snapshot": "snapshot",
    "allocate": "policy.allocation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
