"""Traffic Management Mechanism (SECMP0067): a native admission core for gateways.

A Service Request is throttled only if it is not on the priority list, its Service User is over its allocation,
the Mechanism is active, and there is no spare capacity left for that User; every other Service Request is
admitted.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tmm_core.errors import ConfigError, DuisError, EventLogError, MemoryLayoutError, TMMError
from tmm_core.mechanism import Decision, Mechanism
from tmm_core.policy.config import Config, PriorityList

if TYPE_CHECKING:
    from tmm_core.policy.allocation import allocate
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


# What no decision needs: a monthly job, and what is told to people.
_LATER = {"Explanation": "snapshot", "Snapshot": "snapshot", "allocate": "policy.allocation"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
