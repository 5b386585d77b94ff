"""Where everything lies in the block: structs of 64-bit words, one concern per cache line.

    Control | services[2][srvs] | Words[users] | Aside[users] | slab 0 | slab 1 | ...
    a slab:  SlabHead | differences[users][4] | counters[4][tiles]
    a tile:  units[users of the tile, and a line] | counts[srvs][users of the tile, and a line]

Slab 0 is common: several processes may count there, with atomic adds. Every other slab has one writer.
Of what belongs to nobody alone, what is written and what is only read never share a line. A User's line is another
matter: whoever decides for it reads its terms and writes its buckets, so both come over with one line.
Offsets only: the block may be mapped anywhere.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum:
    LINE = 64
    TILES = 64                      # at most twice as many
    TILE_BITS = 8                   # of the fewest Users of a tile
    OUTCOMES = 4
    DIFFERENCES = 4
    LAYOUT_VERSION = 4
    SETTINGS = 20

cdef enum:                         # outcomes, in the order of Decision
    THROTTLED = 0
    SPARE_CAPACITY = 1
    WITHIN_ALLOCATION = 2
    PRIORITY = 3

cdef enum:                         # how a candidate allocation differs, in the order of Difference
    CANDIDATE_OVER = 0              # inside the allocation, over the candidate
    CANDIDATE_OVER_ACTIVE = 1       # those of them while the Mechanism was active
    CANDIDATE_WITHIN = 2            # over the allocation, inside the candidate
    CANDIDATE_ADMITTED = 3          # those of them that were throttled

cdef enum:                         # rules of sharing
    FAIR = 0
    FIRST_COME = 1
    HARD = 2


cdef struct Settings:               # what a configuration fixes for everybody; all spans in stamps
    int64_t unit                    # of the operating threshold: 1/T
    int64_t activation              # backlog above which the Mechanism becomes active
    int64_t brake                   # backlog above which no spare capacity is given
    int64_t ceiling                 # the backlog never counts for more than this
    int64_t charge_block            # units a worker may hold back before it charges the backlog
    int64_t longest_cost            # largest cost of an SRV, units
    int64_t candidate               # which candidate allocation is beside the real one; 0: none
    int64_t sharing
    int64_t spare_tolerance
    int64_t tick_ns                 # nanoseconds between control ticks
    int64_t hold_us                 # microseconds of quiet before the Mechanism is inactive again
    int64_t release_rate            # rates in 1/1024 units per second
    int64_t threshold_rate
    int64_t retry_cap               # longest Retry-After
    int64_t users                   # slots in use
    int64_t uniform                 # every cost is 1
    int64_t observe                 # refuse nothing
    int64_t reserved[3]


cdef struct Words:                  # one line: all of a User that its decisions need. Generation g has terms [g & 1]
    int64_t tat                     # own bucket
    int64_t spare_tat               # spare bucket
    int64_t interval[2]             # stamps per unit of allocation; 0: nothing allocated
    int64_t tolerance[2]            # burst, stamps
    int64_t share_interval[2]       # stamps per unit at the weight


cdef struct Aside:                  # one line: what few of its decisions need, and the tick
    int64_t horizon                 # last retry slot given
    int64_t excess_seen             # tick: units above the allocation, total when last seen
    int64_t excess_rate             # tick: their rate
    int64_t weight[2]               # of the spare capacity, 1/1024 units per second
    int64_t candidate_tat           # bucket of the candidate allocation
    int64_t candidate_interval[2]   # stamps per unit of it; 0: nothing allocated


cdef struct Control:
    # line 0, written once
    int64_t magic
    int64_t layout
    int64_t user_slots
    int64_t srv_slots
    int64_t slab_slots
    int64_t nbytes
    int64_t created_by
    int64_t padding_0
    # line 1, read by every decision and seldom written
    int64_t generation              # table in force: half generation & 1; published
    int64_t state                   # activations * 2 + active
    int64_t level                   # (L - 1) * 65536
    int64_t slabs_used              # slabs 0 .. slabs_used - 1 have counted something
    int64_t padding_1[4]
    # line 2, written by admissions
    int64_t backlog                 # stamp at which the virtual queue is empty
    int64_t padding_2[7]
    # line 3, claimed by the tick
    int64_t tick_at                 # ns
    int64_t ticks
    int64_t padding_3[6]
    # lines 4 and 5, written by the tick and on activation
    int64_t seen[4]                 # units by outcome, all Users, at the last tick
    int64_t rate[4]                 # by outcome, over 0.25 s
    int64_t load                    # admitted, over 1 s
    int64_t offered                 # admitted and throttled, over 1 s
    int64_t quiet_us                # offered load below the release threshold for so long
    int64_t changed_at              # ns at which the state last changed
    int64_t retry_until             # stamp of the last retry slot given to anybody
    int64_t padding_4[3]
    # from line 6
    Settings settings[2]


cdef struct SlabHead:               # one line; then units and counts
    int64_t owner                   # process that counts here, for people: who owns a slab is not decided by it
    int64_t pending                 # units admitted and not yet charged to the backlog
    int64_t healed                  # impossible words found
    int64_t adopted                 # how often it has changed hands
    int64_t padding[4]


cdef struct Door:                   # addresses of one mapping: private to a process
    Control* control
    uint32_t* services              # [2][srvs]: cost * 2 + priority
    Words* words
    Aside* aside
    uint8_t* slabs
    int64_t slab_bytes
    int64_t counters                # bytes of a slab before them
    int64_t bits                    # of a tile: binary logarithm of its Users
    int64_t column                  # counters from the units to the first SRV, and from one SRV to the next
    int64_t tile                    # and from one tile to the next, less its Users: those are added as they come
    int64_t cells                   # counters from one outcome to the next
    int64_t user_slots
    int64_t srv_slots
    int64_t slab_slots


cdef inline int64_t whole_lines(int64_t nbytes) noexcept nogil:
    """Round up to whole cache lines."""
    return (nbytes + LINE - 1) // LINE * LINE


cdef inline int64_t tile_bits(int64_t user_slots) noexcept nogil:
    """Binary logarithm of the Users of a tile: many, so counters of one SRV lie together; but few are allocated."""
    cdef int64_t bits = TILE_BITS
    while user_slots >> bits > TILES:
        bits += 1
    return bits


cdef inline int64_t column_of(int64_t bits) noexcept nogil:
    """Counters from one SRV to the next: a line more than the Users, or all would lie in a few sets of a cache."""
    return (<int64_t>1 << bits) + LINE // 8


cdef inline int64_t tiled(int64_t users, int64_t bits, int64_t srvs) noexcept nogil:
    """Counters of one outcome in the tiles of the first `users` slots."""
    return (((users - 1) >> bits) + 1) * (1 + srvs) * column_of(bits)


cdef inline int64_t counters_at(int64_t users) noexcept nogil:
    """Bytes of a slab before its counters."""
    return LINE + whole_lines(users * DIFFERENCES * 8)


cdef inline int64_t slab_size(int64_t users, int64_t srvs) noexcept nogil:
    """Bytes of one slab."""
    cdef int64_t cells = OUTCOMES * tiled(users, tile_bits(users), srvs)
    return counters_at(users) + whole_lines(cells * 8)


cdef inline int64_t block_size(int64_t users, int64_t srvs, int64_t slabs) noexcept nogil:
    """Bytes of a block."""
    return (whole_lines(sizeof(Control)) + whole_lines(2 * srvs * 4)
            + users * (sizeof(Words) + sizeof(Aside)) + slabs * slab_size(users, srvs))


cdef inline void open_door(Door* door, uint8_t* memory, int64_t users, int64_t srvs, int64_t slabs) noexcept nogil:
    """Fill in the addresses for a block at `memory`."""
    door.control = <Control*>memory
    door.services = <uint32_t*>(memory + whole_lines(sizeof(Control)))
    door.words = <Words*>(<uint8_t*>door.services + whole_lines(2 * srvs * 4))
    door.aside = <Aside*>(door.words + users)
    door.slabs = <uint8_t*>(door.aside + users)
    door.slab_bytes = slab_size(users, srvs)
    door.counters = counters_at(users)
    door.bits = tile_bits(users)
    door.column = column_of(door.bits)
    door.tile = (1 + srvs) * door.column - (<int64_t>1 << door.bits)
    door.cells = tiled(users, door.bits, srvs)
    door.user_slots = users
    door.srv_slots = srvs
    door.slab_slots = slabs


cdef inline SlabHead* slab_at(Door* door, int64_t index) noexcept nogil:
    return <SlabHead*>(door.slabs + index * door.slab_bytes)


cdef inline int64_t* differences_of(SlabHead* slab, int64_t user) noexcept nogil:
    """The User's units that the candidate allocation would have decided otherwise, in this slab."""
    return <int64_t*>(<uint8_t*>slab + LINE) + user * DIFFERENCES


cdef inline int64_t* units_of(Door* door, SlabHead* slab, int64_t user, int64_t outcome) noexcept nogil:
    """The units of a User and an outcome in this slab.

    Most requests have one outcome and one of few SRVs: such counters lie side by side, so what is written stays in few
    lines and pages.
    """
    return (<int64_t*>(<uint8_t*>slab + door.counters)
            + outcome * door.cells + (user >> door.bits) * door.tile + user)


cdef inline int64_t* count_of(Door* door, SlabHead* slab, int64_t user, int64_t outcome, int64_t srv) noexcept nogil:
    """The counter of a User, an outcome and an SRV in this slab: columns of SRVs, behind that of the units."""
    return units_of(door, slab, user, outcome) + (1 + srv) * door.column
