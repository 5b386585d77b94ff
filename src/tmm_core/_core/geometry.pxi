# Where everything is, for whoever provides the memory and checks that both mean the same: part of engine.pyx.

from .layout cimport TILE_BITS, TILES, tile_bits, tiled


def block_nbytes(int64_t users, int64_t srvs, int64_t slabs, /):
    """Return the bytes of a block for so many slots for Users and SRVs, and so many slabs of counters."""
    seldom()
    return block_size(users, srvs, slabs)


def base_ranges(int64_t user_slots, int64_t srvs, int64_t users, /):
    """Return the parts of a block, beside its slabs, that the first `users` slots use: [(offset, bytes)]."""
    cdef Door door
    cdef uint8_t* start = NULL
    seldom()
    open_door(&door, start, user_slots, srvs, 1)
    return [(0, <uint8_t*>door.words - start + users * sizeof(Words)),
            (<uint8_t*>door.aside - start, users * sizeof(Aside))]


def slab_ranges(int64_t user_slots, int64_t srvs, int64_t slab, int64_t users, /):
    """Return the parts of a slab that the first `users` slots use: [(offset, bytes)]."""
    cdef Door door
    cdef uint8_t* start = NULL
    cdef int64_t outcome
    cdef SlabHead* head
    seldom()
    open_door(&door, start, user_slots, srvs, slab + 1)
    head = slab_at(&door, slab)
    return [(<uint8_t*>head - start, <uint8_t*>differences_of(head, users) - <uint8_t*>head)] + [
        (<uint8_t*>units_of(&door, head, 0, outcome) - start, tiled(users, door.bits, srvs) * 8)
        for outcome in range(OUTCOMES)]


def tile_users(int64_t user_slots):
    """Return how many Users a tile of counters is for."""
    return <int64_t>1 << tile_bits(user_slots)


def layout_words():
    """Return version, sizes and the offset of every field of the block, by name: what two builds must agree on."""
    cdef Control control
    cdef Settings settings
    cdef Words words
    cdef Aside aside
    cdef SlabHead slab
    cdef Named[72] places = [
        Named("LAYOUT_VERSION", LAYOUT_VERSION),
        Named("LINE", LINE),
        Named("OUTCOMES", OUTCOMES),
        Named("DIFFERENCES", DIFFERENCES),
        Named("TILES", TILES),
        Named("TILE_BITS", TILE_BITS),
        Named("Settings", sizeof(Settings)),
        Named("Settings.unit", <char*>&settings.unit - <char*>&settings),
        Named("Settings.activation", <char*>&settings.activation - <char*>&settings),
        Named("Settings.brake", <char*>&settings.brake - <char*>&settings),
        Named("Settings.ceiling", <char*>&settings.ceiling - <char*>&settings),
        Named("Settings.charge_block", <char*>&settings.charge_block - <char*>&settings),
        Named("Settings.longest_cost", <char*>&settings.longest_cost - <char*>&settings),
        Named("Settings.candidate", <char*>&settings.candidate - <char*>&settings),
        Named("Settings.sharing", <char*>&settings.sharing - <char*>&settings),
        Named("Settings.spare_tolerance", <char*>&settings.spare_tolerance - <char*>&settings),
        Named("Settings.tick_ns", <char*>&settings.tick_ns - <char*>&settings),
        Named("Settings.hold_us", <char*>&settings.hold_us - <char*>&settings),
        Named("Settings.release_rate", <char*>&settings.release_rate - <char*>&settings),
        Named("Settings.threshold_rate", <char*>&settings.threshold_rate - <char*>&settings),
        Named("Settings.retry_cap", <char*>&settings.retry_cap - <char*>&settings),
        Named("Settings.users", <char*>&settings.users - <char*>&settings),
        Named("Settings.uniform", <char*>&settings.uniform - <char*>&settings),
        Named("Settings.observe", <char*>&settings.observe - <char*>&settings),
        Named("Settings.reserved", <char*>&settings.reserved - <char*>&settings),
        Named("Words", sizeof(Words)),
        Named("Words.tat", <char*>&words.tat - <char*>&words),
        Named("Words.spare_tat", <char*>&words.spare_tat - <char*>&words),
        Named("Words.interval", <char*>&words.interval - <char*>&words),
        Named("Words.tolerance", <char*>&words.tolerance - <char*>&words),
        Named("Words.share_interval", <char*>&words.share_interval - <char*>&words),
        Named("Aside", sizeof(Aside)),
        Named("Aside.horizon", <char*>&aside.horizon - <char*>&aside),
        Named("Aside.excess_seen", <char*>&aside.excess_seen - <char*>&aside),
        Named("Aside.excess_rate", <char*>&aside.excess_rate - <char*>&aside),
        Named("Aside.weight", <char*>&aside.weight - <char*>&aside),
        Named("Aside.candidate_tat", <char*>&aside.candidate_tat - <char*>&aside),
        Named("Aside.candidate_interval", <char*>&aside.candidate_interval - <char*>&aside),
        Named("Control", sizeof(Control)),
        Named("Control.magic", <char*>&control.magic - <char*>&control),
        Named("Control.layout", <char*>&control.layout - <char*>&control),
        Named("Control.user_slots", <char*>&control.user_slots - <char*>&control),
        Named("Control.srv_slots", <char*>&control.srv_slots - <char*>&control),
        Named("Control.slab_slots", <char*>&control.slab_slots - <char*>&control),
        Named("Control.nbytes", <char*>&control.nbytes - <char*>&control),
        Named("Control.created_by", <char*>&control.created_by - <char*>&control),
        Named("Control.padding_0", <char*>&control.padding_0 - <char*>&control),
        Named("Control.generation", <char*>&control.generation - <char*>&control),
        Named("Control.state", <char*>&control.state - <char*>&control),
        Named("Control.level", <char*>&control.level - <char*>&control),
        Named("Control.slabs_used", <char*>&control.slabs_used - <char*>&control),
        Named("Control.padding_1", <char*>&control.padding_1 - <char*>&control),
        Named("Control.backlog", <char*>&control.backlog - <char*>&control),
        Named("Control.padding_2", <char*>&control.padding_2 - <char*>&control),
        Named("Control.tick_at", <char*>&control.tick_at - <char*>&control),
        Named("Control.ticks", <char*>&control.ticks - <char*>&control),
        Named("Control.padding_3", <char*>&control.padding_3 - <char*>&control),
        Named("Control.seen", <char*>&control.seen - <char*>&control),
        Named("Control.rate", <char*>&control.rate - <char*>&control),
        Named("Control.load", <char*>&control.load - <char*>&control),
        Named("Control.offered", <char*>&control.offered - <char*>&control),
        Named("Control.quiet_us", <char*>&control.quiet_us - <char*>&control),
        Named("Control.changed_at", <char*>&control.changed_at - <char*>&control),
        Named("Control.retry_until", <char*>&control.retry_until - <char*>&control),
        Named("Control.padding_4", <char*>&control.padding_4 - <char*>&control),
        Named("Control.settings", <char*>&control.settings - <char*>&control),
        Named("SlabHead", sizeof(SlabHead)),
        Named("SlabHead.owner", <char*>&slab.owner - <char*>&slab),
        Named("SlabHead.pending", <char*>&slab.pending - <char*>&slab),
        Named("SlabHead.healed", <char*>&slab.healed - <char*>&slab),
        Named("SlabHead.adopted", <char*>&slab.adopted - <char*>&slab),
        Named("SlabHead.padding", <char*>&slab.padding - <char*>&slab),
    ]
    seldom()
    return as_dict(places, 72)


cdef int check_memory(ndarray memory, int64_t users, int64_t srvs, int64_t slabs, int64_t first_slab,
                      int64_t last_slab) except -1:
    """Refuse memory that cannot hold such a block."""
    seldom()
    if not (0 < users <= MAX_INDEX and 0 < srvs <= 65536 and 0 <= first_slab <= last_slab <= slabs
            and last_slab - first_slab <= OWN_MAX and slabs > 0):
        refuse(ValueError, "no block has %lld Users, %lld SRVs, slabs %lld to %lld of %lld", <long long>users,
               <long long>srvs, <long long>first_slab, <long long>last_slab, <long long>slabs)
    if type_of(memory) != UINT8 or not is_contiguous(memory) or dimensions_of(memory) != 1 or not (
            is_writable(memory) or first_slab == last_slab):
        raise ValueError("a block is a writable, contiguous array of bytes")
    if shape_of(memory)[0] < block_size(users, srvs, slabs) or <size_t>data_of(memory) % LINE:
        refuse(ValueError, "a block of %lld Users, %lld SRVs and %lld slabs has %lld bytes aligned to %d; found %lld",
               <long long>users, <long long>srvs, <long long>slabs, <long long>block_size(users, srvs, slabs), LINE,
               <long long>shape_of(memory)[0])
    return 0
