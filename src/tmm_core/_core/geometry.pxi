# Where everything is, for whoever provides the memory and checks that both mean the same: part of engine.pyx.

from .layout cimport TILE_BITS, TILES, tile_bits, tiled


def block_nbytes(int64_t users, int64_t srvs, int64_t slabs):
    """Return the bytes of a block for so many slots for Users and SRVs, and so many slabs of counters."""
    return block_size(users, srvs, slabs)


def base_ranges(int64_t user_slots, int64_t srvs, int64_t users):
    """Return the parts of a block, beside its slabs, that the first `users` slots use: [(offset, bytes)]."""
    cdef Door door
    cdef uint8_t* start = NULL
    open_door(&door, start, user_slots, srvs, 1)
    return [(0, <uint8_t*>door.rules - start + users * sizeof(Rules)),
            (<uint8_t*>door.words - start, users * sizeof(Words))]


def slab_ranges(int64_t user_slots, int64_t srvs, int64_t slab, int64_t users):
    """Return the parts of a slab that the first `users` slots use: [(offset, bytes)]."""
    cdef Door door
    cdef uint8_t* start = NULL
    cdef int64_t outcome
    cdef SlabHead* head
    open_door(&door, start, user_slots, srvs, slab + 1)
    head = slab_at(&door, slab)
    return [(<uint8_t*>head - start, <uint8_t*>units_of(head, users) - <uint8_t*>head),
            (<uint8_t*>differences_of(&door, head, 0) - start, users * DIFFERENCES * 8)] + [
        (<uint8_t*>count_of(&door, head, 0, outcome, 0) - start, tiled(users, door.bits, srvs) * 8)
        for outcome in range(OUTCOMES)]


def tile_users(int64_t user_slots):
    """Return how many Users a tile of counters is for."""
    return <int64_t>1 << tile_bits(user_slots)


def layout_words():
    """Return version, sizes and the offset of every field of the block, by name: what two builds must agree on."""
    cdef Control control
    cdef Settings settings
    cdef Rule rule
    cdef Rules rules
    cdef Words words
    cdef SlabHead slab
    return {
        "LAYOUT_VERSION": LAYOUT_VERSION, "LINE": LINE, "OUTCOMES": OUTCOMES,
        "DIFFERENCES": DIFFERENCES, "TILES": TILES, "TILE_BITS": TILE_BITS,
        "Settings": sizeof(Settings), "Settings.unit": <char*>&settings.unit - <char*>&settings,
        "Settings.activation": <char*>&settings.activation - <char*>&settings,
        "Settings.brake": <char*>&settings.brake - <char*>&settings,
        "Settings.ceiling": <char*>&settings.ceiling - <char*>&settings,
        "Settings.charge_block": <char*>&settings.charge_block - <char*>&settings,
        "Settings.longest_cost": <char*>&settings.longest_cost - <char*>&settings,
        "Settings.candidate": <char*>&settings.candidate - <char*>&settings,
        "Settings.sharing": <char*>&settings.sharing - <char*>&settings,
        "Settings.spare_tolerance": <char*>&settings.spare_tolerance - <char*>&settings,
        "Settings.tick_ns": <char*>&settings.tick_ns - <char*>&settings,
        "Settings.hold_us": <char*>&settings.hold_us - <char*>&settings,
        "Settings.release_rate": <char*>&settings.release_rate - <char*>&settings,
        "Settings.threshold_rate": <char*>&settings.threshold_rate - <char*>&settings,
        "Settings.retry_cap": <char*>&settings.retry_cap - <char*>&settings,
        "Settings.users": <char*>&settings.users - <char*>&settings,
        "Settings.uniform": <char*>&settings.uniform - <char*>&settings,
        "Settings.observe": <char*>&settings.observe - <char*>&settings,
        "Settings.reserved": <char*>&settings.reserved - <char*>&settings,
        "Rule": sizeof(Rule), "Rule.interval": <char*>&rule.interval - <char*>&rule,
        "Rule.tolerance": <char*>&rule.tolerance - <char*>&rule,
        "Rule.share_interval": <char*>&rule.share_interval - <char*>&rule,
        "Rule.weight": <char*>&rule.weight - <char*>&rule,
        "Rules": sizeof(Rules), "Rules.half": <char*>&rules.half - <char*>&rules,
        "Words": sizeof(Words), "Words.tat": <char*>&words.tat - <char*>&words,
        "Words.spare_tat": <char*>&words.spare_tat - <char*>&words,
        "Words.horizon": <char*>&words.horizon - <char*>&words,
        "Words.excess_seen": <char*>&words.excess_seen - <char*>&words,
        "Words.excess_rate": <char*>&words.excess_rate - <char*>&words,
        "Words.candidate_tat": <char*>&words.candidate_tat - <char*>&words,
        "Words.candidate_interval": <char*>&words.candidate_interval - <char*>&words,
        "Control": sizeof(Control), "Control.magic": <char*>&control.magic - <char*>&control,
        "Control.layout": <char*>&control.layout - <char*>&control,
        "Control.user_slots": <char*>&control.user_slots - <char*>&control,
        "Control.srv_slots": <char*>&control.srv_slots - <char*>&control,
        "Control.slab_slots": <char*>&control.slab_slots - <char*>&control,
        "Control.nbytes": <char*>&control.nbytes - <char*>&control,
        "Control.created_by": <char*>&control.created_by - <char*>&control,
        "Control.padding_0": <char*>&control.padding_0 - <char*>&control,
        "Control.generation": <char*>&control.generation - <char*>&control,
        "Control.state": <char*>&control.state - <char*>&control,
        "Control.level": <char*>&control.level - <char*>&control,
        "Control.slabs_used": <char*>&control.slabs_used - <char*>&control,
        "Control.padding_1": <char*>&control.padding_1 - <char*>&control,
        "Control.backlog": <char*>&control.backlog - <char*>&control,
        "Control.padding_2": <char*>&control.padding_2 - <char*>&control,
        "Control.tick_at": <char*>&control.tick_at - <char*>&control,
        "Control.ticks": <char*>&control.ticks - <char*>&control,
        "Control.padding_3": <char*>&control.padding_3 - <char*>&control,
        "Control.seen": <char*>&control.seen - <char*>&control,
        "Control.rate": <char*>&control.rate - <char*>&control,
        "Control.load": <char*>&control.load - <char*>&control,
        "Control.offered": <char*>&control.offered - <char*>&control,
        "Control.quiet_us": <char*>&control.quiet_us - <char*>&control,
        "Control.changed_at": <char*>&control.changed_at - <char*>&control,
        "Control.retry_until": <char*>&control.retry_until - <char*>&control,
        "Control.padding_4": <char*>&control.padding_4 - <char*>&control,
        "Control.settings": <char*>&control.settings - <char*>&control,
        "SlabHead": sizeof(SlabHead), "SlabHead.owner": <char*>&slab.owner - <char*>&slab,
        "SlabHead.pending": <char*>&slab.pending - <char*>&slab,
        "SlabHead.healed": <char*>&slab.healed - <char*>&slab,
        "SlabHead.adopted": <char*>&slab.adopted - <char*>&slab,
        "SlabHead.padding": <char*>&slab.padding - <char*>&slab,
    }


cdef int check_memory(cnp.ndarray memory, int64_t users, int64_t srvs, int64_t slabs, int64_t first_slab,
                      int64_t last_slab) except -1:
    """Refuse memory that cannot hold such a block."""
    if not (0 < users <= MAX_INDEX and 0 < srvs <= 65536 and 0 <= first_slab <= last_slab <= slabs
            and last_slab - first_slab <= OWN_MAX and slabs > 0):
        raise ValueError(f"no block has {users} Users, {srvs} SRVs, slabs {first_slab} to {last_slab} of {slabs}")
    if memory.dtype != np.uint8 or not cnp.PyArray_IS_C_CONTIGUOUS(memory) or memory.ndim != 1 or not (
            cnp.PyArray_ISWRITEABLE(memory) or first_slab == last_slab):
        raise ValueError("a block is a writable, contiguous array of bytes")
    if memory.shape[0] < block_size(users, srvs, slabs) or <size_t>cnp.PyArray_DATA(memory) % LINE:
        raise ValueError(f"a block of {users} Users, {srvs} SRVs and {slabs} slabs has "
                         f"{block_size(users, srvs, slabs)} bytes aligned to {LINE}; found {memory.shape[0]}")
    return 0
