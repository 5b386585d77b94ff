"""The sentence: who is admitted, and why.

    A Service Request is throttled only if it is not on the priority list, its Service User is over its
    allocation, the Mechanism is active, and there is no spare capacity left for that User; every other
    Service Request is admitted.
"""

from libc.stdint cimport int64_t, uint32_t
from .atomic cimport count, likely, read, read_published, recheck, swap_if, unlikely, write
from .bucket cimport take, take_at_once
from .candidate cimport agreed_at_once, compare
from .clock cimport clock_exact
from .gcra cimport stamp_of
from .layout cimport (
    FIRST_COME, HARD, OUTCOMES, PRIORITY, SPARE_CAPACITY, THROTTLED, WITHIN_ALLOCATION, Control, Door, Settings,
    SlabHead, Words, units_of,
)
from .load cimport active, charge_backlog, waiting
from .plan cimport NEVER, NO_SHORT_WAY, copy_queue, is_stale, lay_out, look_from, renew
from .sharing cimport spare_interval
from .tick cimport tick, tick_due
from .workspace cimport Place, Plan, Queue, Rule, Scratch

cdef extern from "atomics.h" nogil:
    const bint FREE_THREADED "TMM_FREE_THREADED"


cdef enum:
    BULK = 4096                     # units in one charge, above which their product with 1/T may overflow


cdef inline void copy_rule(Rule* copy, Words* words, int64_t generation) noexcept nogil:
    copy.interval = read(&words.interval[generation & 1])
    copy.tolerance = read(&words.tolerance[generation & 1])
    copy.share_interval = read(&words.share_interval[generation & 1])


cdef struct Terms:                  # one version of everything a decision needs, copied whole
    Rule rule
    Queue queue
    int64_t brake
    int64_t longest_cost
    int64_t sharing
    int64_t spare_tolerance
    uint32_t service


cdef inline int64_t read_terms(Door* door, uint32_t user, uint32_t srv, Terms* terms) noexcept nogil:
    """Copy the terms in force, all of one generation; returns the generation."""
    cdef Control* control = door.control
    cdef int64_t generation = read_published(&control.generation)
    cdef Settings* settings
    while True:
        settings = &control.settings[generation & 1]
        terms.service = door.services[(generation & 1) * door.srv_slots + srv]
        copy_rule(&terms.rule, &door.words[user], generation)
        copy_queue(&terms.queue, settings)
        terms.brake = read(&settings.brake)
        terms.longest_cost = read(&settings.longest_cost)
        terms.sharing = read(&settings.sharing)
        terms.spare_tolerance = read(&settings.spare_tolerance)
        # A half is only rewritten after the generation has moved on: unmoved means unmixed.
        if recheck(&control.generation) == generation:
            return generation
        generation = read_published(&control.generation)


cdef inline int64_t backlog_at(Door* door, SlabHead* slab, Queue* queue, int64_t now) noexcept nogil:
    """The backlog as time, what this worker holds back included."""
    return waiting(read(&door.control.backlog), now, queue.ceiling) + read(&slab.pending) * queue.unit


cdef inline bint spare_for(Door* door, SlabHead* slab, uint32_t user, Terms* terms, int64_t cost,
                           int64_t now) noexcept nogil:
    """Whether sharing leaves room for this User; its spare bucket is charged."""
    cdef int64_t level, interval
    if terms.sharing == HARD or backlog_at(door, slab, &terms.queue, now) > terms.brake:
        return False
    if terms.sharing == FIRST_COME:
        return True
    level = read(&door.control.level)
    if level <= 0:
        return False
    interval = spare_interval(terms.rule.share_interval, level)
    return take(&door.words[user].spare_tat, interval, terms.spare_tolerance, cost, terms.longest_cost, now, NULL)


cdef inline void activate(Control* control, int64_t now) noexcept nogil:
    """Become active; of several callers exactly one begins the event."""
    cdef int64_t state = read(&control.state)
    while not state & 1:
        if swap_if(&control.state, &state, state + 3):
            write(&control.quiet_us, 0)
            write(&control.changed_at, now)
            return


cdef inline void charge_load(Plan* plan, Queue* queue, int64_t units, int64_t now_ns) noexcept nogil:
    """Count admitted units into the virtual queue, and become active when it is too long.

    A worker holds units back until they make whole blocks, so that workers do not fight for one line; as long as the
    block cannot make the queue too long, it does not even look at it.
    """
    cdef Door* door = plan.door
    cdef int64_t due = units, now = stamp_of(now_ns), backlog
    cdef bint far
    if not plan.shared:
        due += read(&plan.slab.pending)
        if due < queue.charge_block:
            write(&plan.slab.pending, due)
            if now_ns >= plan.far_since:
                return
            due = 0
    if due != 0:
        charge_whole_blocks(door, plan.slab, queue, due, now, plan.shared)
    backlog = backlog_at(door, plan.slab, queue, now)
    if unlikely(backlog > queue.activation) and not active(door.control):
        activate(door.control, now_ns)
    # Nobody looks for what is there already; the tick that ends it has this worker look again.
    far = active(door.control) or backlog + queue.charge_block * queue.unit <= queue.activation
    look_from(plan, now_ns if far else NEVER)


cdef inline void hold_nothing_back(Plan* plan, int64_t now) noexcept nogil:
    """Charge what is held back: whoever counts here next must not have to know of it."""
    cdef int64_t held = read(&plan.slab.pending)
    cdef Terms terms
    if held != 0:
        read_terms(plan.door, 0, 0, &terms)
        write(&plan.slab.pending, 0)
        plan.shared = True
        charge_load(plan, &terms.queue, held, now)


cdef inline void charge_whole_blocks(Door* door, SlabHead* slab, Queue* queue, int64_t due, int64_t now,
                                     bint shared) noexcept nogil:
    """Charge the virtual queue; what does not make a whole block is held back."""
    cdef int64_t rest
    if not shared:
        rest = due - queue.charge_block
        if rest >= queue.charge_block:
            rest %= queue.charge_block
        write(&slab.pending, rest)
        due -= rest
    if due > BULK:
        # More than fills the queue is not worth an overflow.
        due = min(due, queue.ceiling // queue.unit + 1)
    charge_backlog(&door.control.backlog, due * queue.unit, now, queue.ceiling)


cdef inline void open_plan(Plan* plan, Door* door, SlabHead* slab, Scratch* scratch, bint shared) noexcept nogil:
    """Begin to decide in a slab; `shared`: others count there too."""
    lay_out(plan, door, slab, scratch, shared, decide_with_care)


cdef inline int decide(Plan* plan, uint32_t user, uint32_t srv, int64_t now, bint clock_is_ours) noexcept nogil:
    """Decide on one Service Request at `now` (ns), and run a control tick that is due.

    With our own clock it is read again before a refusal. Where the Mechanism only observes, nothing is throttled.
    """
    cdef int64_t outcome = decide_at_once(plan, user, srv, now, False)
    return <int>outcome if likely(outcome >= 0) else plan.long_way(plan, user, srv, ~outcome, now, clock_is_ours)


cdef inline int64_t decide_at_once(Plan* plan, uint32_t user, uint32_t srv, int64_t now, bint ticked) noexcept nogil:
    """The short way of most: on the priority list, or inside the allocation; negative for all else.

    ~0: nothing has been written. ~(cost * OUTCOMES + outcome): the bucket is charged, and all else is to be done.
    `ticked`: no tick is due at `now`, the caller has seen to it.
    """
    cdef Place place
    place.generation = plan.generation
    locate(&place, plan, user)
    return decide_in_place(plan, &place, srv, now, ticked)


cdef inline int64_t decide_in_place(Plan* plan, Place* place, uint32_t srv, int64_t now, bint ticked) noexcept nogil:
    """As `decide_at_once`, for a User whose words have been found."""
    cdef uint32_t service = plan.services[srv]
    cdef int64_t interval = read(&place.terms.interval[0])
    cdef int64_t tolerance = read(&place.terms.tolerance[0]), cost = service >> 1
    if unlikely(recheck(&plan.control.generation) != place.generation):
        return ~0
    if not ticked and unlikely(tick_due(plan.control, plan.tick_ns, now)):
        return ~0
    if unlikely(service & 1):
        return told(plan, place.listed, srv, PRIORITY, cost, now)
    if unlikely(interval == 0) or unlikely(not take_at_once(place.word, interval, tolerance, cost, stamp_of(now))):
        return ~0
    return told(plan, place.inside, srv, WITHIN_ALLOCATION, cost, now)


cdef inline void locate(Place* place, Plan* plan, uint32_t user) noexcept nogil:
    """Say where a User's words are."""
    cdef int64_t cells = (user >> plan.bits) * plan.tile + user
    place.terms = plan.terms + user
    place.word = &plan.words[user].tat
    place.inside = plan.inside + cells
    place.listed = plan.listed + cells


cdef inline void find_place(Place* place, Plan* plan, uint32_t user, int64_t generation) noexcept nogil:
    """Keep where the words are of a User that has this slot in this generation."""
    if is_stale(plan):
        renew(plan)
    # Moved on meanwhile: the slot may be another's.
    place.generation = plan.generation if plan.generation == generation else NO_SHORT_WAY
    locate(place, plan, user)


cdef inline int64_t told(Plan* plan, int64_t* units, uint32_t srv, int outcome, int64_t cost,
                         int64_t now) noexcept nogil:
    """Charge the load as `charge_load` does, where that is to hold the units back; and `tell`."""
    cdef int64_t due = read(&plan.slab.pending) + cost
    if unlikely(due >= plan.queue.charge_block or now < plan.short_since):
        # With its cost: that of the SRV may change before it is read again.
        return ~(cost * OUTCOMES + outcome)
    write(&plan.slab.pending, due)
    count(units + (1 + <int64_t>srv) * plan.column, 1, False)
    count(units, cost, False)
    return outcome


cdef inline int decide_with_care(Plan* plan, uint32_t user, uint32_t srv, int64_t done, int64_t now,
                                 bint clock_is_ours) noexcept nogil:
    """The long way, for whatever the short one did not decide, and to tell what it did not tell."""
    cdef bint again = False
    cdef int64_t outcome = -1
    if done:
        return charged_and_told(plan, user, srv, done & (OUTCOMES - 1), done // OUTCOMES, now, clock_is_ours)
    if is_stale(plan):
        renew(plan)
        again = True
    if tick_due(plan.control, plan.tick_ns, now):
        tick(plan, now)
        again = True
    if plan.shared:
        outcome = decide_fully(plan, user, srv, now, clock_is_ours)
    elif again:
        outcome = decide_at_once(plan, user, srv, now, True)
        if outcome >= 0:
            return <int>outcome
        if ~outcome:
            return charged_and_told(plan, user, srv, ~outcome & (OUTCOMES - 1), ~outcome // OUTCOMES, now,
                                    clock_is_ours)
    if outcome < 0:
        # A clock read too early must not refuse anybody: ask once more, with the exact time. The candidate's bucket
        # is asked at that time too: at a later one it would admit what the own one could not.
        if clock_is_ours:
            now = clock_exact()
            clock_is_ours = False
        outcome = decide_fully(plan, user, srv, now, False)
    if plan.candidate and outcome != PRIORITY:
        compare(plan.door, plan.slab, user, srv, <int>outcome, now, clock_is_ours, plan.shared)
    return SPARE_CAPACITY if outcome == THROTTLED and plan.observe else <int>outcome


cdef inline int charged_and_told(Plan* plan, uint32_t user, uint32_t srv, int outcome, int64_t cost, int64_t now,
                                 bint clock_is_ours) noexcept nogil:
    """Charge the load and count, after the bucket; and ask the candidate's."""
    cdef int64_t due = read(&plan.slab.pending) + cost
    if due < plan.queue.charge_block and now >= plan.far_since:
        write(&plan.slab.pending, due)
    else:
        charge_load(plan, &plan.queue, cost, now)
    tell(plan, user, srv, outcome, cost)
    if plan.candidate and outcome == WITHIN_ALLOCATION and not agreed_at_once(plan, user, cost, now):
        compare(plan.door, plan.slab, user, srv, outcome, now, clock_is_ours, plan.shared)
    return outcome


cdef inline void tell(Plan* plan, uint32_t user, uint32_t srv, int outcome, int64_t cost) noexcept nogil:
    """Count a decision: after the buckets, so that a worker killed in between has admitted too few, never too many."""
    cdef int64_t* units = units_of(plan.door, plan.slab, user, outcome)
    count(units + (1 + <int64_t>srv) * plan.column, 1, plan.shared)
    count(units, cost, plan.shared)


cdef inline int decide_fully(Plan* plan, uint32_t user, uint32_t srv, int64_t now, bint or_not) noexcept nogil:
    """Decide on one Service Request at `now` (ns), by the whole sentence.

    `or_not`: -1, with nothing written, for what is neither on the priority list nor inside its allocation.
    """
    cdef Door* door = plan.door
    cdef SlabHead* slab = plan.slab
    cdef Terms terms
    cdef int64_t stamp = stamp_of(now), cost
    cdef int outcome
    read_terms(door, user, srv, &terms)
    cost = terms.service >> 1
    if terms.service & 1:
        outcome = PRIORITY
    elif terms.rule.interval and take(&door.words[user].tat, terms.rule.interval, terms.rule.tolerance, cost,
                                      terms.longest_cost, stamp, slab):
        outcome = WITHIN_ALLOCATION
    elif or_not:
        return -1
    elif not active(door.control):
        outcome = SPARE_CAPACITY
    elif spare_for(door, slab, user, &terms, cost, stamp):
        outcome = SPARE_CAPACITY
    else:
        outcome = THROTTLED
    if outcome != THROTTLED:
        charge_load(plan, &terms.queue, cost, now)
    tell(plan, user, srv, outcome, cost)
    return outcome
