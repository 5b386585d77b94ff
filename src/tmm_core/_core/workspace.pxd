"""Room to work in: between decisions a worker's plan, between batches a thread's tallies, tables by SRV and histogram,
between ticks a process's lists.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from .layout cimport Control, Door, SlabHead, Words

cdef enum:
    GROUP_MAX = 1048576             # more are decided in pieces: tallies are 32-bit words
    PLENTY = GROUP_MAX + 1          # own grants that no group uses up
    ANY_SRV = 65536                 # values of an SRV's number
    CELLS_MAX = 1048576             # of a histogram


cdef extern from * nogil:
    """
    #include <stdint.h>
    #define TMM_ALL UINT32_MAX
    #define TMM_EACH (UINT32_MAX - 1)
    #define TMM_REST (UINT32_MAX - 2)
    """
    const uint32_t ALL "TMM_ALL"    # everything of this User conforms
    const uint32_t EACH "TMM_EACH"  # mixed costs at the limit: ask for every request
    const uint32_t REST "TMM_REST"  # own grants are used up, and what follows has one outcome


cdef struct Tally:                  # one User's part of a batch
    uint64_t units                  # on the priority list << 32 | not on it: one word, one store
    uint32_t own                    # requests the own bucket still grants, or ALL, EACH or REST
    uint32_t spare                  # requests the spare bucket still grants, or ALL or EACH
    int64_t* row                    # its units of the first outcome in the batch's slab
    uint32_t ask_candidate          # its bucket is to be asked for every request
    uint32_t rest                   # the outcome of all requests left in a histogram


cdef struct Rule:                   # a User's terms, copied: as in Words
    int64_t interval
    int64_t tolerance
    int64_t share_interval


cdef struct Cell:                   # of a histogram
    uint32_t user
    uint32_t srv


cdef struct Workspace:              # one thread's; the tallies are all zero between batches
    # A caller may write to its arrays while we read them. So that no index needs a comparison, there is a tally
    # for every value of `mask` and an entry for every 16-bit SRV; those beyond the slots are zero and never written.
    Tally* tallies                  # by User
    uint32_t mask                   # a power of two less one, not below the number of slots for Users less one
    uint32_t* touched               # Users with a tally
    Rule* rules                     # by User: the terms of this batch, all of one generation
    uint64_t* amounts               # by SRV: cost, in the half of `Tally.units` it counts in
    int64_t* cells                  # by SRV: where its counter lies for a User that is inside its allocation
    uint8_t* answers                # by SRV: the outcome for such a User
    uint32_t* histogram             # by SRV and User: requests of this batch; two tables, all zero between batches
    uint32_t histogram_users        # for how many Users it is
    uint64_t* columns               # by SRV: the outcome inside the allocation << 32 | where its column begins
    Cell* filled                    # its cells that are not zero
    int64_t cells_filled            # how many those are


cdef struct Scratch:                # room for the Users in excess, private to a process
    int64_t* excess
    int64_t* weight
    int64_t* satisfied
    int64_t room
    int64_t busy


cdef struct Queue:                  # the terms of the virtual queue, as in Settings
    int64_t unit
    int64_t activation
    int64_t ceiling
    int64_t charge_block


# ---- a worker's plan: see plan.pxd

cdef struct Plan

# Decides what the short way did not: `done` is 0, or of what only has to be told yet cost * OUTCOMES + outcome. Called
# by its address it is never put in line: no decision pays for the room it needs on the stack.
ctypedef int (*LongWay)(Plan* plan, uint32_t user, uint32_t srv, int64_t done, int64_t now,
                        bint clock_is_ours) noexcept nogil


cdef struct Plan:
    Control* control
    int64_t generation              # that the short way is for; NO_SHORT_WAY: everything goes the long one
    int64_t tick_ns
    Words* terms                    # moved on to the half of this generation: [0] of its pairs are in force
    uint32_t* services              # of this generation
    Words* words
    SlabHead* slab
    int64_t* inside                 # in the slab: units of slot 0 inside its allocation
    int64_t* listed                 # in the slab: units of slot 0 on the priority list
    int64_t bits                    # these three as in Door
    int64_t column
    int64_t tile
    Queue queue
    int64_t short_since             # ns: from then on units may be held back and nobody need look; NEVER: look
    int64_t users                   # slots in use
    LongWay long_way
    # what that needs besides
    int64_t srv_slots
    int64_t in_force                # generation all this was copied of
    int64_t far_since               # as `short_since`, with a candidate too
    int64_t candidate
    int64_t observe
    Door* door
    Scratch* scratch
    bint shared                     # others count in the slab too


cdef struct Place:                  # where a User's words are, in one generation and one slab
    int64_t generation              # NO_SHORT_WAY: nowhere
    Words* terms                    # as in Plan
    int64_t* word                   # own bucket
    int64_t* inside                 # its units inside its allocation: counts by SRV are columns behind
    int64_t* listed                 # and on the priority list


cdef inline int make_workspace(Workspace* work, int64_t users) except -1:
    """Allocate what is not there yet; the last one says that all are."""
    cdef uint32_t mask = 1
    while mask < users - 1:
        mask = mask * 2 + 1
    work.mask = mask
    if work.tallies == NULL:
        work.tallies = <Tally*>calloc(<size_t>mask + 1, sizeof(Tally))
    if work.touched == NULL:
        work.touched = <uint32_t*>calloc(users, sizeof(uint32_t))
    if work.rules == NULL:
        work.rules = <Rule*>calloc(users, sizeof(Rule))
    if work.amounts == NULL:
        work.amounts = <uint64_t*>calloc(ANY_SRV, sizeof(uint64_t))
    if work.cells == NULL:
        work.cells = <int64_t*>calloc(ANY_SRV, sizeof(int64_t))
    if (work.tallies == NULL or work.touched == NULL or work.rules == NULL or work.amounts == NULL
            or work.cells == NULL):
        raise MemoryError()
    work.answers = <uint8_t*>calloc(ANY_SRV, sizeof(uint8_t))
    if work.answers == NULL:
        raise MemoryError()
    return 0


cdef inline int make_histogram(Workspace* work) except -1:
    """Allocate what a large batch needs besides; the last one says that all are there."""
    if work.histogram == NULL:
        work.histogram = <uint32_t*>calloc(2 * CELLS_MAX + 64, sizeof(uint32_t))
    if work.columns == NULL:
        work.columns = <uint64_t*>calloc(ANY_SRV, sizeof(uint64_t))
    work.filled = <Cell*>calloc(CELLS_MAX, sizeof(Cell))
    if work.histogram == NULL or work.columns == NULL or work.filled == NULL:
        raise MemoryError()
    return 0


cdef inline void resize_histogram(Workspace* work, uint32_t users) noexcept nogil:
    """Be for so many Users. Beyond those it was for, callers who wrote to their arrays may have left something."""
    if work.histogram_users:
        memset(work.histogram, 0, (2 * CELLS_MAX + 64) * sizeof(uint32_t))
    work.histogram_users = users


cdef inline void free_workspace(Workspace* work) noexcept nogil:
    free(work.tallies)
    free(work.touched)
    free(work.rules)
    free(work.amounts)
    free(work.cells)
    free(work.answers)
    free(work.histogram)
    free(work.columns)
    free(work.filled)


cdef struct Batch:
    const uint32_t* users
    const uint16_t* srvs
    uint8_t* out
    int64_t n
    uint32_t user_limit             # every User's slot lies below it
    uint32_t srv_limit              # every SRV's slot lies below it
    int64_t now                     # ns
    int64_t again                   # at which the own bucket was last asked, ns; 0: at `now` alone
    bint clock_is_ours
    bint shared
    bint uniform
    bint observe
    bint candidate                  # an allocation beside the real one is tried


cdef inline uint32_t clamped(uint32_t index, int64_t size) noexcept nogil:
    """The index, or 0: checked before, but the caller may write to its arrays while we read them."""
    return index if index < size else 0


cdef inline void forget(Workspace* work, int64_t found) noexcept nogil:
    """Clear the tallies."""
    cdef int64_t i
    cdef Tally* one
    for i in range(found):
        one = &work.tallies[work.touched[i]]
        one.units = 0
        one.own = one.spare = one.ask_candidate = 0
