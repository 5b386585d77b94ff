"""The sentence: who is admitted, and why.

    A Service Request is throttled only if it is not on the priority list, its Service User is over its
    allocation, the Mechanism is active, and there is no spare capacity left for that User; every other
    Service Request is admitted.
"""

from libc.stdint cimport int64_t, uint32_t
from .atomic cimport add, read, read_published, recheck, swap_if, write
from .clock cimport clock_exact
from .gcra cimport ahead, base_of, plus, stamp_of
from .layout cimport (
    CANDIDATE_ADMITTED, CANDIDATE_OVER, CANDIDATE_OVER_ACTIVE, CANDIDATE_WITHIN, FIRST_COME, HARD, PRIORITY,
    SPARE_CAPACITY, THROTTLED, WITHIN_ALLOCATION, Control, Door, Rule, Settings, SlabHead, count_of, differences_of,
    slab_at, units_of,
)
from .load cimport charge_backlog, waiting
from .sharing cimport spare_interval

cdef extern from "atomics.h" nogil:
    const bint FREE_THREADED "TMM_FREE_THREADED"
    bint likely "TMM_LIKELY"(bint condition) noexcept
    bint unlikely "TMM_UNLIKELY"(bint condition) noexcept


cdef enum:
    BULK = 4096                     # units in one charge, above which their product with 1/T may overflow


cdef struct Terms:                  # one version of everything a decision needs, copied whole
    Rule rule
    int64_t unit
    int64_t activation
    int64_t brake
    int64_t ceiling
    int64_t charge_block
    int64_t generation
    int64_t longest_cost
    int64_t candidate
    int64_t sharing
    int64_t spare_tolerance
    uint32_t service


cdef inline int64_t read_terms(Door* door, uint32_t user, uint32_t srv, Terms* terms) noexcept nogil:
    """Copy the terms in force, all of one generation; returns the generation."""
    cdef Control* control = door.control
    cdef int64_t generation = read_published(&control.generation)
    cdef Settings* settings
    cdef Rule* rule
    while True:
        settings = &control.settings[generation & 1]
        rule = &door.rules[user].half[generation & 1]
        terms.service = door.services[(generation & 1) * door.srv_slots + srv]
        terms.rule.interval = read(&rule.interval)
        terms.rule.tolerance = read(&rule.tolerance)
        terms.rule.share_interval = read(&rule.share_interval)
        terms.unit = read(&settings.unit)
        terms.activation = read(&settings.activation)
        terms.brake = read(&settings.brake)
        terms.ceiling = read(&settings.ceiling)
        terms.charge_block = read(&settings.charge_block)
        terms.longest_cost = read(&settings.longest_cost)
        terms.sharing = read(&settings.sharing)
        terms.spare_tolerance = read(&settings.spare_tolerance)
        # A half is only rewritten after the generation has moved on: unmoved means unmixed.
        if recheck(&control.generation) == generation:
            terms.generation = generation
            return generation
        generation = read_published(&control.generation)


cdef inline bint take(int64_t* word, int64_t interval, int64_t tolerance, int64_t cost, int64_t longest_cost,
                      int64_t now, SlabHead* slab) noexcept nogil:
    """Charge a bucket if it conforms: one compare-and-swap. A refusal writes nothing.

    `slab` counts an impossible word. It is NULL for a spare bucket, whose terms move with the level: further ahead than
    the level of now could have put it is nothing wrong there. It is NULL for a candidate's as well: no effect.
    """
    cdef int64_t tat = read(word)
    cdef int64_t base
    while True:
        base = base_of(tat, now, tolerance, longest_cost * interval)
        if base > tolerance:
            return False
        if swap_if(word, &tat, plus(now, base + cost * interval)):
            if slab != NULL and base < ahead(tat, now):
                add(&slab.healed, 1)
            return True


cdef inline int64_t backlog_at(Door* door, SlabHead* slab, Terms* terms, int64_t now) noexcept nogil:
    """The backlog as time, what this worker holds back included."""
    return waiting(read(&door.control.backlog), now, terms.ceiling) + read(&slab.pending) * terms.unit


cdef inline bint active(Control* control) noexcept nogil:
    return read(&control.state) & 1


cdef inline bint spare_for(Door* door, SlabHead* slab, uint32_t user, Terms* terms, int64_t cost,
                           int64_t now) noexcept nogil:
    """Whether sharing leaves room for this User; its spare bucket is charged."""
    cdef int64_t level, interval
    if terms.sharing == HARD or backlog_at(door, slab, terms, now) > terms.brake:
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


cdef inline void charge_load(Door* door, SlabHead* slab, Terms* terms, int64_t units, int64_t now,
                             int64_t now_ns, bint shared) noexcept nogil:
    """Count admitted units into the virtual queue, and become active when it is too long.

    A worker holds units back until they make whole blocks, so that workers do not fight for one line; as long as the
    block cannot make the queue too long, it does not even look at it.
    """
    cdef int64_t due = units, backlog
    if not shared:
        due += read(&slab.pending)
        if likely(due < terms.charge_block):
            write(&slab.pending, due)
            if likely(slab.far == terms.generation + 1 and now_ns >= slab.far_since):
                return
            due = 0
    if due != 0:
        charge_whole_blocks(door, slab, terms, due, now, shared)
    backlog = backlog_at(door, slab, terms, now)
    if not shared:
        write(&slab.far_since, now_ns)
        write(&slab.far, terms.generation + 1 if backlog + terms.charge_block * terms.unit <= terms.activation else 0)
    if unlikely(backlog > terms.activation) and not active(door.control):
        activate(door.control, now_ns)


cdef inline void charge_whole_blocks(Door* door, SlabHead* slab, Terms* terms, int64_t due, int64_t now,
                                     bint shared) noexcept nogil:
    """Charge the virtual queue; what does not make a whole block is held back."""
    cdef int64_t rest
    if not shared:
        rest = due - terms.charge_block
        if rest >= terms.charge_block:
            rest %= terms.charge_block
        write(&slab.pending, rest)
        due -= rest
    if due > BULK:
        # More than fills the queue is not worth an overflow.
        due = min(due, terms.ceiling // terms.unit + 1)
    charge_backlog(&door.control.backlog, due * terms.unit, now, terms.ceiling)


cdef inline void count(int64_t* cell, int64_t amount, bint shared) noexcept nogil:
    """Add to a counter: a plain store where this thread is the only writer."""
    if shared:
        add(cell, amount)
    else:
        write(cell, cell[0] + amount)


cdef inline int decide(Door* door, SlabHead* slab, uint32_t user, uint32_t srv, int64_t now,
                       bint clock_is_ours, bint shared) noexcept nogil:
    """Decide on one Service Request at `now` (ns); with our own clock it is read again before a refusal."""
    cdef Terms terms
    cdef int outcome
    read_plan(door.control, &terms)
    outcome = decide_at_once(door, slab, &terms, user, srv, now, shared)
    if unlikely(outcome < 0):
        # A clock read too early must not refuse anybody: ask once more, with the exact time. The candidate's bucket
        # is asked at that time too: at a later one it would admit what the own one could not.
        if clock_is_ours:
            now = clock_exact()
            clock_is_ours = False
        outcome = decide_fully(door, slab, user, srv, now, shared)
    if unlikely(terms.candidate != 0 and outcome != PRIORITY):
        compare(door, slab, user, srv, outcome, now, clock_is_ours, shared)
    return outcome


cdef inline void read_plan(Control* control, Terms* terms) noexcept nogil:
    """Copy what the short way needs for every User and SRV; `decide_at_once` checks that it is of one generation."""
    cdef int64_t generation = read_published(&control.generation)
    cdef Settings* settings = &control.settings[generation & 1]
    terms.longest_cost = read(&settings.longest_cost)
    terms.unit = read(&settings.unit)
    terms.activation = read(&settings.activation)
    terms.ceiling = read(&settings.ceiling)
    terms.charge_block = read(&settings.charge_block)
    terms.candidate = read(&settings.candidate)
    terms.generation = generation


cdef inline int decide_at_once(Door* door, SlabHead* slab, Terms* plan, uint32_t user, uint32_t srv, int64_t now,
                               bint shared) noexcept nogil:
    """The short way of most: on the priority list, or inside the allocation; -1 for all else, with nothing written."""
    cdef int64_t half = plan.generation & 1
    cdef Rule* rule = &door.rules[user].half[half]
    cdef uint32_t service = door.services[half * door.srv_slots + srv]
    cdef int64_t interval = read(&rule.interval), tolerance = read(&rule.tolerance), cost = service >> 1
    cdef int outcome = PRIORITY
    if unlikely(recheck(&door.control.generation) != plan.generation):
        return -1
    if not service & 1:
        outcome = WITHIN_ALLOCATION
        if interval == 0 or not take(&door.words[user].tat, interval, tolerance, cost, plan.longest_cost,
                                     stamp_of(now), slab):
            return -1
    charge_load(door, slab, plan, cost, stamp_of(now), now, shared)
    tell(door, slab, user, srv, outcome, cost, shared)
    return outcome


cdef inline void tell(Door* door, SlabHead* slab, uint32_t user, uint32_t srv, int outcome, int64_t cost,
                      bint shared) noexcept nogil:
    """Count a decision: after the buckets, so that a worker killed in between has admitted too few, never too many."""
    count(count_of(door, slab, user, outcome, srv), 1, shared)
    count(units_of(slab, user) + outcome, cost, shared)


cdef inline int decide_fully(Door* door, SlabHead* slab, uint32_t user, uint32_t srv, int64_t now,
                             bint shared) noexcept nogil:
    """Decide on one Service Request at `now` (ns), by the whole sentence."""
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
    elif not active(door.control):
        outcome = SPARE_CAPACITY
    elif spare_for(door, slab, user, &terms, cost, stamp):
        outcome = SPARE_CAPACITY
    else:
        outcome = THROTTLED
    if outcome != THROTTLED:
        charge_load(door, slab, &terms, cost, stamp, now, shared)
    tell(door, slab, user, srv, outcome, cost, shared)
    return outcome


# ---- the candidate allocation beside the real one: one more bucket a User, asked once the decision is made

cdef struct Candidate:              # its terms for one User and SRV, all of one generation
    int64_t interval
    int64_t tolerance
    int64_t longest_cost
    int64_t cost


cdef inline bint read_candidate(Door* door, uint32_t user, uint32_t srv, Candidate* terms) noexcept nogil:
    """Copy the candidate's terms; False where there is none."""
    cdef Control* control = door.control
    cdef int64_t generation = read_published(&control.generation), half, candidate
    while True:
        half = generation & 1
        candidate = read(&control.settings[half].candidate)
        terms.longest_cost = read(&control.settings[half].longest_cost)
        terms.tolerance = read(&door.rules[user].half[half].tolerance)
        terms.interval = read(&door.words[user].candidate_interval[half])
        terms.cost = door.services[half * door.srv_slots + srv] >> 1
        if recheck(&control.generation) == generation:
            return candidate != 0
        generation = read_published(&control.generation)


cdef inline bint conforms_to(Door* door, uint32_t user, Candidate* terms, int64_t now,
                             bint clock_is_ours) noexcept nogil:
    """Whether the candidate's bucket conforms, as the own bucket would be asked; it is charged."""
    cdef int64_t* word = &door.words[user].candidate_tat
    if terms.interval == 0:
        return False
    if take(word, terms.interval, terms.tolerance, terms.cost, terms.longest_cost, stamp_of(now), NULL):
        return True
    return clock_is_ours and take(word, terms.interval, terms.tolerance, terms.cost, terms.longest_cost,
                                  stamp_of(clock_exact()), NULL)


cdef inline void tell_difference(Door* door, SlabHead* slab, uint32_t user, int64_t own, int64_t spare,
                                 int64_t candidate, bint shared) noexcept nogil:
    """Count what the candidate admits otherwise, of units in a row: `own`, then `spare`, then throttled ones."""
    cdef int64_t* cells = differences_of(door, slab, user)
    if own > candidate:
        count(cells + CANDIDATE_OVER, own - candidate, shared)
        if active(door.control):
            count(cells + CANDIDATE_OVER_ACTIVE, own - candidate, shared)
    elif candidate > own:
        count(cells + CANDIDATE_WITHIN, candidate - own, shared)
        if candidate > own + spare:
            count(cells + CANDIDATE_ADMITTED, candidate - own - spare, shared)


cdef inline void compare(Door* door, SlabHead* slab, uint32_t user, uint32_t srv, int outcome, int64_t now,
                         bint clock_is_ours, bint shared) noexcept nogil:
    """Ask the candidate's bucket too, and count where it answers otherwise than the own one did."""
    cdef Candidate terms
    cdef bint within
    if outcome == PRIORITY or not read_candidate(door, user, srv, &terms):
        return
    within = conforms_to(door, user, &terms, now, clock_is_ours)
    tell_difference(door, slab, user, terms.cost if outcome == WITHIN_ALLOCATION else 0,
                    terms.cost if outcome == SPARE_CAPACITY else 0, terms.cost if within else 0, shared)
