"""A worker's plan: all that the short way of a decision needs, copied out of the block once a generation.

It is private to whoever decides with it, a process's scalar calls, a lane or a batch: nobody else reads or writes it.
"""

from libc.stdint cimport int64_t
from .atomic cimport read, read_published, recheck
from .layout cimport PRIORITY, WITHIN_ALLOCATION, Door, Settings, SlabHead, Words, units_of
from .workspace cimport LongWay, Plan, Queue, Scratch

cdef extern from * nogil:
    """
    #include <stdint.h>
    #define TMM_NEVER INT64_MAX
    """
    const int64_t NEVER "TMM_NEVER"     # as a time in nanoseconds


cdef enum:
    NO_SHORT_WAY = -1


cdef inline void lay_out(Plan* plan, Door* door, SlabHead* slab, Scratch* scratch, bint shared,
                         LongWay long_way) noexcept nogil:
    """Begin to count in a slab; the terms are copied with the first decision."""
    plan.long_way = long_way
    plan.control = door.control
    plan.door = door
    plan.slab = slab
    plan.scratch = scratch
    plan.shared = shared
    plan.words = door.words
    plan.terms = door.words
    plan.services = door.services
    plan.srv_slots = door.srv_slots
    plan.bits = door.bits
    plan.column = door.column
    plan.tile = door.tile
    plan.inside = units_of(door, slab, 0, WITHIN_ALLOCATION)
    plan.listed = units_of(door, slab, 0, PRIORITY)
    plan.generation = plan.in_force = NO_SHORT_WAY
    plan.users = 0
    look_again(plan)


cdef inline void look_from(Plan* plan, int64_t since) noexcept nogil:
    """From `since` (ns) on no block can activate.

    Whoever tries a candidate looks all the same, and then asks its bucket too: so the short way has no question for it.
    """
    plan.far_since = since
    plan.short_since = NEVER if plan.candidate else since


cdef inline void look_again(Plan* plan) noexcept nogil:
    """The backlog may have grown: look at it with the next decision."""
    look_from(plan, NEVER)


cdef inline void copy_queue(Queue* copy, Settings* settings) noexcept nogil:
    copy.unit = read(&settings.unit)
    copy.activation = read(&settings.activation)
    copy.ceiling = read(&settings.ceiling)
    copy.charge_block = read(&settings.charge_block)


cdef inline bint is_stale(Plan* plan) noexcept nogil:
    return read_published(&plan.control.generation) != plan.in_force


cdef inline void renew(Plan* plan) noexcept nogil:
    """Copy the terms in force, all of one generation."""
    cdef int64_t generation = read_published(&plan.control.generation), half
    cdef Settings* settings
    while True:
        half = generation & 1
        settings = &plan.control.settings[half]
        plan.tick_ns = read(&settings.tick_ns)
        copy_queue(&plan.queue, settings)
        plan.users = read(&settings.users)
        plan.candidate = read(&settings.candidate)
        plan.observe = read(&settings.observe)
        if recheck(&plan.control.generation) == generation:
            break
        generation = read_published(&plan.control.generation)
    plan.terms = <Words*>(<int64_t*>plan.words + half)
    plan.services = plan.door.services + half * plan.srv_slots
    look_again(plan)
    plan.in_force = generation
    # Only who counts alone may take the short way.
    plan.generation = NO_SHORT_WAY if plan.shared else generation
