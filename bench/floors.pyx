# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
# cython: binding=False
"""What nothing can be faster than: empty methods, one compare-and-swap, one clock; and loops that call us from C."""

cimport cython
from libc.stdint cimport int64_t, uint16_t, uint32_t
from tmm_core cimport Lane
from tmm_core._core.atomic cimport read, swap_if
from tmm_core._core.clock cimport clock_exact
from tmm_core._core.gcra cimport base_of, plus, stamp_of


cdef class Empty:
    """Methods that do nothing: what a call from Python costs at the least."""

    def none(self, users, srvs, out=None, now=None):
        return out

    @cython.always_allow_keywords(False)
    def one(self, srv):
        cdef uint32_t number = srv
        return True if number else False

    def two(self, uint32_t user, uint32_t srv):
        return True if user else False


def loop(f, a, int64_t n):
    """Call f(a) n times."""
    cdef int64_t _i
    for _i in range(n):
        f(a)


def clocks(int64_t n):
    """Read the exact clock n times."""
    cdef int64_t _i, last = 0
    for _i in range(n):
        last ^= clock_exact()
    return last


def swaps(int64_t[::1] words, const uint32_t[::1] users):
    """One compare-and-swap a request, each User's word in a cache line of its own: the floor without grouping."""
    cdef int64_t i, found
    for i in range(users.shape[0]):
        found = read(&words[8 * users[i]])
        while not swap_if(&words[8 * users[i]], &found, found + 1):
            pass


def bare_bucket(int64_t[::1] words, int64_t interval, int64_t tolerance, int64_t n, bint with_clock):
    """A single GCRA bucket and nothing else: one compare-and-swap, and the exact clock if asked for."""
    cdef int64_t _i, tat, base, admitted = 0, now = stamp_of(clock_exact())
    for _i in range(n):
        if with_clock:
            now = stamp_of(clock_exact())
        tat = read(&words[0])
        while True:
            base = base_of(tat, now, tolerance, interval)
            if base > tolerance:
                break
            if swap_if(&words[0], &tat, plus(now, base + interval)):
                admitted += 1
                break
    return admitted


def lane_now(Lane lane, uint32_t user, uint32_t srv, int64_t n):
    """Decide n times by the clock, without the GIL."""
    cdef int64_t _i, admitted = 0
    with nogil:
        for _i in range(n):
            admitted += lane.admit(user, srv) != 0
    return admitted


def lane_at(Lane lane, uint32_t user, uint32_t srv, int64_t now, int64_t n):
    """Decide n times at a given time, without the GIL."""
    cdef int64_t _i, admitted = 0
    with nogil:
        for _i in range(n):
            admitted += lane.admit_at(user, srv, now) != 0
    return admitted


def spans(Lane lane, const uint32_t[::1] users, const uint16_t[::1] srvs, int64_t[::1] out):
    """Time every single decision: nanoseconds between two readings of the clock around it, into `out`."""
    cdef int64_t i, before
    with nogil:
        for i in range(users.shape[0]):
            before = clock_exact()
            lane.admit(users[i], srvs[i])
            out[i] = clock_exact() - before


def read_spans(int64_t[::1] words, const uint32_t[::1] places, int64_t[::1] out):
    """The same with one word of memory read."""
    cdef int64_t i, before
    with nogil:
        for i in range(places.shape[0]):
            before = clock_exact()
            read(&words[places[i]])
            out[i] = clock_exact() - before


def empty_spans(int64_t[::1] out):
    """The same with nothing in between."""
    cdef int64_t i, before
    with nogil:
        for i in range(out.shape[0]):
            before = clock_exact()
            out[i] = clock_exact() - before
