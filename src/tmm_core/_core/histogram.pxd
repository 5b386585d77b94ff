"""Pass 1 of a batch that is large beside the number of Users and SRVs: how often each asks for which.

One increment a request. What a User asks for in units, and what is counted by SRV, follow from the table, cell by
cell; the answers of all who will turn out to be inside their allocations are written on the way.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from .atomic cimport count
from .layout cimport PRIORITY, Door, SlabHead, units_of
from .workspace cimport ALL, CELLS_MAX, Batch, Cell, Tally, Workspace

cdef enum:
    RUN = 16                        # cells looked at together
    RUNS = 4                        # runs that are looked at together first
    CELLS_PER_REQUEST = 2           # of a table that pays: most are looked at in vain
    ODD = CELLS_MAX + 4 * RUN       # where the second table begins: not in the same sets of a cache


cdef inline uint32_t height_of(Batch* batch) noexcept nogil:
    """Cells of one SRV that may be in use: a column for each, as traffic knows few SRVs and many Users."""
    return (batch.user_limit + RUN - 1) // RUN * RUN


cdef inline uint32_t mask_of(Batch* batch) noexcept nogil:
    """Columns are a power of two apart: no User, whatever a caller writes to its array meanwhile, is beyond."""
    cdef uint32_t mask = RUN - 1
    while mask < batch.user_limit - 1:
        mask = mask * 2 + 1
    return mask


cdef inline bint is_dense(Batch* batch, int64_t n) noexcept nogil:
    """Whether a histogram of `n` requests pays."""
    cdef int64_t cells = <int64_t>batch.srv_limit * height_of(batch)
    return cells <= n * CELLS_PER_REQUEST and <int64_t>batch.srv_limit * (mask_of(batch) + 1 + RUN) <= CELLS_MAX


cdef inline uint32_t* cell_of(Workspace* work, Batch* batch, uint32_t user, uint32_t srv) noexcept nogil:
    return &work.histogram[<uint32_t>work.columns[srv] + user]


cdef inline void fill(Workspace* work, Batch* batch, int64_t start, int64_t n) noexcept nogil:
    """Count `n` requests, and answer each as if its User were inside the allocation.

    Four at a time, all reads before the writes; in two tables by turns: a cell just written is slow to read.
    """
    cdef const uint32_t* users = batch.users + start
    cdef const uint16_t* srvs = batch.srvs + start
    cdef uint8_t* out = batch.out + start
    cdef const uint64_t* columns = work.columns
    cdef uint64_t column[4]
    cdef uint32_t* even = work.histogram
    cdef uint32_t* odd = even + ODD
    cdef uint32_t srv, mask = mask_of(batch), cell[4]
    cdef int64_t i, whole = n & ~<int64_t>3
    for srv in range(batch.srv_limit):
        work.columns[srv] = <uint64_t>work.answers[srv] << 32 | srv * (mask + 1 + RUN)
    for i in range(0, whole, 4):
        column[0], column[1], column[2], column[3] = (
            columns[srvs[i]], columns[srvs[i + 1]], columns[srvs[i + 2]], columns[srvs[i + 3]])
        cell[0], cell[1] = <uint32_t>column[0] + (users[i] & mask), <uint32_t>column[1] + (users[i + 1] & mask)
        cell[2], cell[3] = <uint32_t>column[2] + (users[i + 2] & mask), <uint32_t>column[3] + (users[i + 3] & mask)
        even[cell[0]] += 1
        odd[cell[1]] += 1
        even[cell[2]] += 1
        odd[cell[3]] += 1
        out[i], out[i + 1] = <uint8_t>(column[0] >> 32), <uint8_t>(column[1] >> 32)
        out[i + 2], out[i + 3] = <uint8_t>(column[2] >> 32), <uint8_t>(column[3] >> 32)
    for i in range(whole, n):
        column[0] = columns[srvs[i]]
        even[<uint32_t>column[0] + (users[i] & mask)] += 1
        out[i] = <uint8_t>(column[0] >> 32)


cdef inline bint is_empty(const uint32_t* run) noexcept nogil:
    cdef uint32_t bits = 0
    cdef int64_t i
    for i in range(RUN):
        bits |= run[i]
    return bits == 0


cdef inline bint add_up(uint32_t* cells, int64_t n) noexcept nogil:
    """Add cells of the second table to the first; False: they are all empty."""
    cdef uint32_t bits = 0
    cdef int64_t i
    for i in range(n):
        bits |= cells[i] | cells[i + ODD]
    if bits == 0:
        return False
    for i in range(n):
        cells[i] += cells[i + ODD]
        cells[i + ODD] = 0
    return True


cdef inline int64_t gather(Door* door, SlabHead* slab, Workspace* work, Batch* batch) noexcept nogil:
    """Add the second table to the first, make the tallies and list the cells; returns how many Users there are."""
    cdef Cell* cell = work.filled
    cdef int64_t found = 0
    cdef uint32_t srv, user, first, height = height_of(batch)
    cdef bint some = False
    cdef uint32_t* column
    cdef Tally* one
    for srv in range(batch.srv_limit):
        column = cell_of(work, batch, 0, srv)
        for first in range(0, height, 16):
            if first % (RUN * RUNS) == 0:
                some = add_up(column + first, min(height - first, <uint32_t>(RUN * RUNS)))
            if not some or is_empty(column + first):
                continue
            # Not beyond the limit: there it is of a caller who writes to its array meanwhile.
            for user in range(first, min(first + RUN, batch.user_limit)):
                if column[user] == 0:
                    continue
                one = &work.tallies[user]
                if one.units == 0:
                    one.row = units_of(door, slab, user, 0)
                    work.touched[found] = user
                    found += 1
                one.units += work.amounts[srv] * column[user]
                cell.user, cell.srv = user, srv
                cell += 1
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
    cdef int64_t i
    cdef uint32_t srv
    cdef int outcome
    cdef Tally* one
    cdef uint32_t* cell
    for i in range(work.cells_filled):
        srv = work.filled[i].srv
        one = &work.tallies[work.filled[i].user]
        cell = cell_of(work, batch, work.filled[i].user, srv)
        outcome = one.rest if work.answers[srv] != PRIORITY else PRIORITY
        count(one.row + outcome * door.cells + (1 + <int64_t>srv) * door.column, cell[0], batch.shared)
        cell[0] = 0
