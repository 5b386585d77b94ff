"""Weighted max-min shares of the spare capacity: one number, the level, by Newton's steps from below.

With x = level / 65536, User i may use x * weight[i] of spare capacity; x is the largest with
sum_i min(excess[i], x * weight[i]) <= spare (progressive filling; Bertsekas and Gallager, Data Networks 6.5.2).
"""

from libc.stdint cimport int64_t

cdef enum:
    LEVEL_SHIFT = 16

cdef extern from * nogil:
    """
    #include <stdint.h>
    #define TMM_LEVEL_MAX (INT64_C(1) << 36)
    #define TMM_SPARE_INTERVAL_MAX (INT64_C(1) << 48)
    """
    # Nobody can use more: every User in excess has all it asks for.
    const int64_t LEVEL_MAX "TMM_LEVEL_MAX"
    # 36 minutes: a share smaller than one unit in this time is no share.
    const int64_t SPARE_INTERVAL_MAX "TMM_SPARE_INTERVAL_MAX"


cdef inline int64_t satisfied_at(int64_t excess, int64_t weight) noexcept nogil:
    """The smallest level at which a User has all the excess it asks for."""
    return ((excess << LEVEL_SHIFT) + weight - 1) // weight


cdef inline int64_t fill(const int64_t* excess, const int64_t* weight, const int64_t* satisfied, int64_t n,
                         int64_t spare) noexcept nogil:
    """The largest level whose shares fit into `spare` (rates in 1/1024 units per second)."""
    cdef int64_t level = 0, better, given, hungry, i
    while True:
        given = 0
        hungry = 0
        for i in range(n):
            if satisfied[i] <= level:
                given += excess[i]
            else:
                hungry += weight[i]
        if hungry == 0:
            return LEVEL_MAX
        # Below the solution what is given fits, and the tangent stays below it too.
        better = ((spare - given) << LEVEL_SHIFT) // hungry
        if better <= level:
            # Rounding may have stopped one short of a User's corner.
            if total_at(excess, weight, satisfied, n, level + 1) > spare << LEVEL_SHIFT:
                return min(level, LEVEL_MAX)
            better = level + 1
        level = better
        if level >= LEVEL_MAX:
            return LEVEL_MAX


cdef inline int64_t total_at(const int64_t* excess, const int64_t* weight, const int64_t* satisfied, int64_t n,
                             int64_t level) noexcept nogil:
    """What all Users would take at a level, times 65536."""
    cdef int64_t total = 0, i
    for i in range(n):
        total += excess[i] << LEVEL_SHIFT if satisfied[i] <= level else level * weight[i]
    return total


cdef inline int64_t spare_interval(int64_t share_interval, int64_t level) noexcept nogil:
    """Stamps per unit of a User's spare bucket at a level above 0."""
    cdef int64_t interval = (share_interval << LEVEL_SHIFT) // level
    return min(max(interval, <int64_t>1), SPARE_INTERVAL_MAX)
