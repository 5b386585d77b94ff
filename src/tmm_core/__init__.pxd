"""The front door for Cython: ``from tmm_core cimport Lane, PRIORITY``.

``lane.admit(user, srv)`` and ``lane.admit_at(user, srv, now)`` need no GIL and return one of the outcomes below.
"""

from tmm_core._core.engine cimport Engine, Gate, Lane
from tmm_core._core.layout cimport PRIORITY, SPARE_CAPACITY, THROTTLED, WITHIN_ALLOCATION
