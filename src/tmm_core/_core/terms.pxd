"""What is not in the way of a decision: a new block, terms put in force, totals, and grounds."""

from cpython.mapping cimport PyMapping_GetItemString
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset
from .atomic cimport begin_writing, publish, read, seldom, write
from .decide cimport Terms, backlog_at, read_terms
from .gcra cimport WRAPPED, base_of, plus, stamp_of
from .layout cimport (
    DIFFERENCES, FIRST_COME, HARD, LAYOUT_VERSION, OUTCOMES, Aside, Control, Door, Settings, SlabHead, Words,
    block_size, differences_of, slab_at, units_of,
)
from .load cimport active
from .named cimport Named, as_dict
from .sharing cimport spare_interval


cdef extern from *:
    """
    #define TMM_MAGIC INT64_C(0x31304D4D54)
    """
    const int64_t MAGIC "TMM_MAGIC"  # "TMM01"


cdef struct Field:
    const char* name
    int64_t* place


cdef inline Settings settings_of(dict terms) except *:
    """The terms of a dictionary, each by the name of its field; all but `users`."""
    cdef Settings settings
    cdef Field field
    cdef Field[16] fields = [
        Field("unit", &settings.unit), Field("activation", &settings.activation), Field("brake", &settings.brake),
        Field("ceiling", &settings.ceiling), Field("charge_block", &settings.charge_block),
        Field("longest_cost", &settings.longest_cost), Field("candidate", &settings.candidate),
        Field("sharing", &settings.sharing), Field("spare_tolerance", &settings.spare_tolerance),
        Field("tick_ns", &settings.tick_ns), Field("hold_us", &settings.hold_us),
        Field("release_rate", &settings.release_rate), Field("threshold_rate", &settings.threshold_rate),
        Field("retry_cap", &settings.retry_cap), Field("uniform", &settings.uniform),
        Field("observe", &settings.observe),
    ]
    memset(&settings, 0, sizeof(Settings))
    for field in fields:
        field.place[0] = PyMapping_GetItemString(terms, field.name)
    return settings


cdef inline void write_terms(Words* words, Aside* aside, int64_t half, const int64_t* terms) noexcept nogil:
    """Write a User's terms into the half that nobody reads."""
    write(&words.interval[half], terms[0])
    write(&words.tolerance[half], terms[1])
    write(&words.share_interval[half], terms[2])
    write(&aside.weight[half], terms[3])
    write(&aside.candidate_interval[half], terms[4])


cdef inline void put_in_force(Door* door, Settings* settings, const int64_t* rules, const uint32_t* services,
                              int64_t now) noexcept nogil:
    """Write terms into the half that nobody reads, then turn to it with one store; new Users are at rest at `now`.

    A candidate begins where the own buckets are: as if it were put in force now.
    """
    cdef Control* control = door.control
    cdef int64_t generation = read(&control.generation) + 1
    cdef Settings* before = &control.settings[(generation - 1) & 1]
    cdef int64_t known = read(&before.users), half = generation & 1, i
    cdef bint begins = settings.candidate and settings.candidate != before.candidate
    begin_writing()
    control.settings[half] = settings[0]
    for i in range(door.srv_slots):
        door.services[half * door.srv_slots + i] = services[i]
    for i in range(settings.users):
        write_terms(&door.words[i], &door.aside[i], half, rules + 5 * i)
        if i >= known:
            write(&door.words[i].tat, stamp_of(now))
            write(&door.words[i].spare_tat, stamp_of(now))
            write(&door.aside[i].horizon, plus(stamp_of(now), -(WRAPPED >> 1)))
        if begins or i >= known:
            write(&door.aside[i].candidate_tat, read(&door.words[i].tat))
    publish(&control.generation, generation)


cdef inline void begin_block(Door* door, int64_t now) noexcept nogil:
    """Start a block of zeros: nothing counted, nothing waiting, inactive."""
    cdef Control* control = door.control
    control.magic = MAGIC
    control.layout = LAYOUT_VERSION
    control.user_slots = door.user_slots
    control.srv_slots = door.srv_slots
    control.slab_slots = door.slab_slots
    control.nbytes = block_size(door.user_slots, door.srv_slots, door.slab_slots)
    control.backlog = stamp_of(now)
    control.retry_until = stamp_of(now)
    control.tick_at = now
    control.changed_at = now


cdef inline bint is_block(Door* door) noexcept nogil:
    """Whether there is a block of this layout and these sizes."""
    cdef Control* control = door.control
    return (control.magic == MAGIC and control.layout == LAYOUT_VERSION and control.user_slots == door.user_slots
            and control.srv_slots == door.srv_slots and control.slab_slots == door.slab_slots)


cdef inline void add_up(Door* door, SlabHead* slab, int64_t users, int64_t outcome, int64_t column, int64_t* total,
                        int64_t step) noexcept nogil:
    """Add a column of a slab, 0 for the units, to every `step`-th of `total`."""
    cdef int64_t first = 0, i
    cdef int64_t* part
    while first < users:
        part = units_of(door, slab, first, outcome) + column * door.column
        for i in range(min(users - first, <int64_t>1 << door.bits)):
            total[(first + i) * step] += read(part + i)
        first += <int64_t>1 << door.bits


cdef inline void add_up_counts(Door* door, int64_t users, int64_t* total) noexcept nogil:
    """Add every slab's counts to `total`, [outcome][srvs][users]."""
    cdef int64_t index, outcome, srv
    cdef int64_t* sum_of
    for index in range(read(&door.control.slabs_used)):
        sum_of = total
        for outcome in range(OUTCOMES):
            for srv in range(door.srv_slots):
                add_up(door, slab_at(door, index), users, outcome, 1 + srv, sum_of, 1)
                sum_of += users


cdef inline void add_up_units(Door* door, int64_t users, int64_t* total) noexcept nogil:
    """Add every slab's units to `total`, [users][outcome]."""
    cdef int64_t index, outcome
    for index in range(read(&door.control.slabs_used)):
        for outcome in range(OUTCOMES):
            add_up(door, slab_at(door, index), users, outcome, 0, total + outcome, OUTCOMES)


cdef inline void add_up_differences(Door* door, int64_t users, int64_t* total) noexcept nogil:
    """Add every slab's differences of candidate allocations to `total`, [users][difference]."""
    cdef int64_t index, i
    cdef int64_t* part
    for index in range(read(&door.control.slabs_used)):
        part = differences_of(slab_at(door, index), 0)
        for i in range(users * DIFFERENCES):
            total[i] += read(part + i)


cdef inline object look(Door* door, SlabHead* slab, uint32_t user, uint32_t srv, int64_t at):
    """What would be decided and on what grounds: every word is read once, so the answer follows from those returned."""
    cdef Terms terms
    cdef int64_t now = stamp_of(at), longest, wait = 0, spare_base, outcome
    cdef int64_t generation = read_terms(door, user, srv, &terms)
    cdef int64_t tat = read(&door.words[user].tat), spare_tat = read(&door.words[user].spare_tat)
    cdef int64_t level = read(&door.control.level), backlog = backlog_at(door, slab, &terms.queue, now)
    cdef bint own = False, spare = False, on = active(door.control), braked = backlog > terms.brake
    seldom()
    if terms.rule.interval:
        wait = base_of(tat, now, terms.rule.tolerance, terms.longest_cost * terms.rule.interval) - terms.rule.tolerance
        own = wait <= 0
    if terms.sharing != HARD and not braked:
        spare = terms.sharing == FIRST_COME
        if not spare and level > 0:
            longest = terms.longest_cost * spare_interval(terms.rule.share_interval, level)
            spare_base = base_of(spare_tat, now, terms.spare_tolerance, longest)
            spare = spare_base <= terms.spare_tolerance
    outcome = 3 if terms.service & 1 else 2 if own else 1 if spare or not on else 0
    cdef Named[16] found = [
        Named("priority", terms.service & 1), Named("cost", terms.service >> 1), Named("own", own),
        Named("own_wait_ns", (max(wait, <int64_t>0) + 127) >> 7), Named("allocated", terms.rule.interval != 0),
        Named("active", on), Named("sharing", terms.sharing), Named("brake", braked), Named("level", level),
        Named("spare", spare), Named("outcome", outcome), Named("now", at), Named("tat", tat),
        Named("spare_tat", spare_tat), Named("backlog", backlog), Named("generation", generation),
    ]
    return as_dict(found, 16)
