"""The candidate allocation beside the real one: one more bucket a User, asked once the decision is made."""

from libc.stdint cimport int64_t, uint32_t
from .atomic cimport count, read, read_published, recheck
from .bucket cimport take, take_at_once
from .clock cimport clock_exact
from .gcra cimport stamp_of
from .layout cimport (
    CANDIDATE_ADMITTED, CANDIDATE_OVER, CANDIDATE_OVER_ACTIVE, CANDIDATE_WITHIN, SPARE_CAPACITY, WITHIN_ALLOCATION,
    Aside, Control, Door, SlabHead, differences_of,
)
from .load cimport active
from .workspace cimport Plan


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
        terms.tolerance = read(&door.words[user].tolerance[half])
        terms.interval = read(&door.aside[user].candidate_interval[half])
        terms.cost = door.services[half * door.srv_slots + srv] >> 1
        if recheck(&control.generation) == generation:
            return candidate != 0
        generation = read_published(&control.generation)


cdef inline bint conforms_to(Door* door, uint32_t user, Candidate* terms, int64_t now,
                             bint clock_is_ours) noexcept nogil:
    """Whether the candidate's bucket conforms, as the own bucket would be asked; it is charged."""
    cdef int64_t* word = &door.aside[user].candidate_tat
    if terms.interval == 0:
        return False
    if take(word, terms.interval, terms.tolerance, terms.cost, terms.longest_cost, stamp_of(now), NULL):
        return True
    return clock_is_ours and take(word, terms.interval, terms.tolerance, terms.cost, terms.longest_cost,
                                  stamp_of(clock_exact()), NULL)


cdef inline void tell_difference(Door* door, SlabHead* slab, uint32_t user, int64_t own, int64_t spare,
                                 int64_t candidate, bint shared) noexcept nogil:
    """Count what the candidate admits otherwise, of units in a row: `own`, then `spare`, then throttled ones."""
    cdef int64_t* cells = differences_of(slab, user)
    if own > candidate:
        count(cells + CANDIDATE_OVER, own - candidate, shared)
        if active(door.control):
            count(cells + CANDIDATE_OVER_ACTIVE, own - candidate, shared)
    elif candidate > own:
        count(cells + CANDIDATE_WITHIN, candidate - own, shared)
        if candidate > own + spare:
            count(cells + CANDIDATE_ADMITTED, candidate - own - spare, shared)


cdef inline bint agreed_at_once(Plan* plan, uint32_t user, int64_t cost, int64_t now) noexcept nogil:
    """Whether the candidate's bucket conforms on the face of it, as the own one did; it is charged. Else `compare`."""
    cdef Aside* aside = plan.door.aside + user
    cdef int64_t interval = read(&aside.candidate_interval[plan.in_force & 1])
    cdef int64_t tolerance = read(&plan.terms[user].tolerance[0])
    if recheck(&plan.control.generation) != plan.in_force or interval == 0:
        return False
    return take_at_once(&aside.candidate_tat, interval, tolerance, cost, stamp_of(now))


cdef inline void compare(Door* door, SlabHead* slab, uint32_t user, uint32_t srv, int outcome, int64_t now,
                         bint clock_is_ours, bint shared) noexcept nogil:
    """Ask the candidate's bucket too, and count where it answers otherwise than the own one did."""
    cdef Candidate terms
    cdef bint within
    if not read_candidate(door, user, srv, &terms):
        return
    within = conforms_to(door, user, &terms, now, clock_is_ours)
    tell_difference(door, slab, user, terms.cost if outcome == WITHIN_ALLOCATION else 0,
                    terms.cost if outcome == SPARE_CAPACITY else 0, terms.cost if within else 0, shared)
