"""Pass 1 of a batch that is large beside the number of Users and SRVs: how often each asks for which.

One increment a request. What a User asks for in units, and what is counted by SRV, follow from the table, cell by
cell; the answers of all who will turn out to be inside their allocations are written on the way.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from .atomic cimport count
from .layout cimport PRIORITY, Door, SlabHead, count_of
from .workspace cimport ALL, CELLS_MAX, Batch, Cell, Tally, Workspace, clamped

cdef enum:
    RUN = 16                        # cells looked at together
    CELLS_PER_REQUEST = 2           # of a table that pays: most are looked at in vain


cdef inline uint32_t height_of(Batch* batch) noexcept nogil:
    """Cells of one SRV: a column for each, as traffic knows few SRVs and many Users."""
    return (batch.user_limit + RUN - 1) // RUN * RUN


cdef inline bint is_dense(Batch* batch, int64_t n) noexcept nogil:
    """Whether a histogram of `n` requests pays."""
    cdef int64_t cells = <int64_t>batch.srv_limit * height_of(batch)
    return cells <= CELLS_MAX and cells <= n * CELLS_PER_REQUEST


cdef inline uint32_t* cell_of(Workspace* work, Batch* batch, uint32_t user, uint32_t srv) noexcept nogil:
    return &work.histogram[srv * height_of(batch) + user]


cdef inline void fill(Workspace* work, Batch* batch, int64_t start, int64_t n) noexcept nogil:
    """Count `n` requests, and answer each as if its User were inside the allocation."""
    cdef const uint32_t* users = batch.users + start
    cdef const uint16_t* srvs = batch.srvs + start
    cdef uint8_t* out = batch.out + start
    cdef const uint32_t* columns = work.columns
    cdef uint32_t* table = work.histogram
    cdef uint32_t user_limit = batch.user_limit, srv, column, height = height_of(batch)
    cdef int64_t i
    for srv in range(batch.srv_limit):
        work.columns[srv] = srv * height << 2 | work.answers[srv]
    for i in range(n):
        column = columns[srvs[i]]
        table[(column >> 2) + clamped(users[i], user_limit)] += 1
        out[i] = column & 3


cdef inline bint is_empty(const uint32_t* run) noexcept nogil:
    cdef uint32_t bits = 0
    cdef int64_t i
    for i in range(RUN):
        bits |= run[i]
    return bits == 0


cdef inline int64_t gather(Door* door, SlabHead* slab, Workspace* work, Batch* batch) noexcept nogil:
    """Make the tallies and list the cells that are not zero; returns how many Users there are."""
    cdef uint32_t* run = work.histogram
    cdef Cell* cell = work.filled
    cdef int64_t found = 0
    cdef uint32_t srv, user, first, height = height_of(batch)
    cdef Tally* one
    for srv in range(batch.srv_limit):
        for first in range(0, height, 16):
            if not is_empty(run):
                for user in range(first, first + 16):
                    if run[user - first] == 0:
                        continue
                    one = &work.tallies[user]
                    if one.units == 0:
                        one.row = count_of(door, slab, user, 0, 0)
                        work.touched[found] = user
                        found += 1
                    one.units += work.amounts[srv] * run[user - first]
                    cell.user, cell.srv = user, srv
                    cell += 1
            run += RUN
    work.cells_filled = cell - work.filled
    return found


cdef inline bint everybody_inside(Workspace* work, int64_t found) noexcept nogil:
    """Whether all answers written by `fill` hold."""
    cdef int64_t i
    for i in range(found):
        if work.tallies[work.touched[i]].own != ALL:
            return False
    return True


cdef inline void clear(Workspace* work, Batch* batch) noexcept nogil:
    """Empty the table."""
    cdef int64_t i
    for i in range(work.cells_filled):
        cell_of(work, batch, work.filled[i].user, work.filled[i].srv)[0] = 0


cdef inline void count_cells(Door* door, Workspace* work, Batch* batch) noexcept nogil:
    """Count what is left in the table: of each User all have one outcome, but for those on the priority list."""
    cdef int64_t i, step = door.user_slots * door.srv_slots
    cdef uint32_t srv
    cdef int outcome
    cdef Tally* one
    cdef uint32_t* cell
    for i in range(work.cells_filled):
        srv = work.filled[i].srv
        one = &work.tallies[work.filled[i].user]
        cell = cell_of(work, batch, work.filled[i].user, srv)
        outcome = one.rest if work.answers[srv] != PRIORITY else PRIORITY
        count(one.row + outcome * step + srv, cell[0], batch.shared)
        cell[0] = 0
