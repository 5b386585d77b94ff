"""The load as a virtual queue (CUSUM): the backlog a DSP of the threshold's capacity would have.

One word, the stamp at which that queue is empty: backlog = max(0, word - now), in stamps of time.
"""

from libc.stdint cimport int64_t
from .atomic cimport read, swap_if
from .gcra cimport SKEW, ahead, plus
from .layout cimport Control


cdef inline int64_t waiting(int64_t word, int64_t now, int64_t ceiling) noexcept nogil:
    """The backlog as time; a word no charge could have made counts as an empty queue."""
    cdef int64_t lead = ahead(word, now)
    if lead <= 0 or lead > ceiling + SKEW:
        return 0
    return lead


cdef inline void charge_backlog(int64_t* word, int64_t amount, int64_t now, int64_t ceiling) noexcept nogil:
    """Add to the virtual queue, up to its ceiling."""
    cdef int64_t found = 0, lead
    # Read so as to write: other workers' line then comes over once, and not a second time for the charge.
    swap_if(word, &found, found)
    while True:
        lead = waiting(found, now, ceiling) + amount
        if lead > ceiling:
            # A stale clock must not pull the word back.
            lead = max(ceiling, waiting(found, now, ceiling))
        if swap_if(word, &found, plus(now, lead)):
            return


cdef inline bint active(Control* control) noexcept nogil:
    return read(&control.state) & 1


cdef inline int64_t smoothed(int64_t rate, int64_t units, int64_t span_us, int64_t tau_us) noexcept nogil:
    """A rate (1/1024 units per second) after `units` more in `span_us`: first-order, over `tau_us`."""
    return (rate * tau_us + units * 1_024_000_000) // (tau_us + span_us)
