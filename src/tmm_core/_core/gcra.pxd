"""The rule of a bucket: GCRA by virtual scheduling (ITU-T I.371, RFC 7415 3.5.1), without atomics.

Time is a *stamp*: nanoseconds times 128, modulo 2**64. Only differences of stamps mean anything, so a
bucket never runs out of range; an interval is exact to 1/128 ns (under 1e-6 up to 100,000 units a second).
"""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    STAMP_SHIFT = 7

cdef extern from * nogil:
    """
    #include <stdint.h>
    /* Not enumerators: those are unsigned with gcc and too narrow with MSVC. */
    #define TMM_SKEW INT64_C(128000000000)
    #define TMM_WRAPPED (INT64_C(1) << 61)
    """
    # A second, in stamps: by how much the clocks of two callers may differ.
    const int64_t SKEW "TMM_SKEW"
    # 208 days: a word further ahead than this is a past one, wrapped.
    const int64_t WRAPPED "TMM_WRAPPED"


cdef inline int64_t stamp_of(int64_t now) noexcept nogil:
    """The stamp of a time in nanoseconds, wrapping."""
    return <int64_t>(<uint64_t>now << STAMP_SHIFT)


cdef inline int64_t plus(int64_t stamp, int64_t span) noexcept nogil:
    """A stamp later by a span, wrapping (signed overflow would be undefined)."""
    return <int64_t>(<uint64_t>stamp + <uint64_t>span)


cdef inline int64_t ahead(int64_t tat, int64_t now) noexcept nogil:
    """By how much `tat` is ahead of `now`; negative when it is past."""
    return <int64_t>(<uint64_t>tat - <uint64_t>now)


cdef inline int64_t base_of(int64_t tat, int64_t now, int64_t tolerance, int64_t longest) noexcept nogil:
    """Where the next charge starts, ahead of now: 0 from a bucket at rest, at most `tolerance` if it conforms.

    `longest` is the longest single charge. A word further ahead than any charge could have put it was
    charged by another clock or another allocation (or is damaged): it counts as a full bucket, so nobody
    is locked out; one that lay idle until the stamp wrapped counts as at rest.
    """
    cdef int64_t lead = ahead(tat, now)
    if lead <= 0 or lead > WRAPPED:
        return 0
    if lead > tolerance + longest + SKEW:
        return tolerance
    return lead


cdef inline int64_t room_in(int64_t base, int64_t tolerance, int64_t interval) noexcept nogil:
    """Units a bucket admits one by one at one instant: floor((tolerance - base) / interval) + 1, or 0."""
    if base > tolerance:
        return 0
    return (tolerance - base) // interval + 1
