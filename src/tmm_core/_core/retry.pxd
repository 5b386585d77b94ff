"""Retry slots: each refusal takes the next free place on the User's own rate line, so callers come back spread.

    now          tat - tolerance: the own bucket conforms again
     |------------------|--------|--------|----> places, one interval apart
                        1st      2nd      3rd refusal

Nothing is reserved and nothing queued: one word, the last place given (`Aside.horizon`).
"""

from libc.stdint cimport int64_t, uint32_t
from .atomic cimport read, read_published, recheck, swap_if
from .gcra cimport SKEW, ahead, base_of, plus, stamp_of
from .layout cimport Control, Door, Settings, Words


cdef inline void push_back(int64_t* word, int64_t place, int64_t now, int64_t cap) noexcept nogil:
    """Let the word be at least `place`; one further ahead than any place is taken for damaged."""
    cdef int64_t found = read(word), lead
    while True:
        lead = ahead(found, now)
        if ahead(place, found) <= 0 and 0 < lead <= cap + SKEW:
            return
        if swap_if(word, &found, place):
            return


cdef inline int64_t next_place(int64_t horizon, int64_t ready, int64_t interval, int64_t cap,
                               int64_t now) noexcept nogil:
    """How far ahead of now the next free place is: after the last one, when the bucket is ready, within the cap."""
    cdef int64_t lead = ahead(horizon, now), place = ready
    if -interval < lead <= cap + SKEW:
        place = max(place, lead + interval)
    return min(place, cap)


cdef inline int64_t take_place(Door* door, uint32_t user, int64_t now_ns) noexcept nogil:
    """Take the User's next retry slot; returns nanoseconds from now, rounded up."""
    cdef Control* control = door.control
    cdef int64_t generation, interval, tolerance, longest, cap, place, now = stamp_of(now_ns)
    cdef int64_t* word = &door.aside[user].horizon
    cdef int64_t found = read(word), ready = 0
    cdef Words* words = &door.words[user]
    cdef int64_t half
    cdef Settings* settings
    while True:
        generation = read_published(&control.generation)
        half = generation & 1
        settings = &control.settings[half]
        interval = read(&words.interval[half])
        tolerance = read(&words.tolerance[half])
        longest = read(&settings.longest_cost) * interval
        cap = read(&settings.retry_cap)
        if interval == 0:
            interval = read(&words.share_interval[half])
            longest = -1
        if recheck(&control.generation) == generation:
            break
    if longest < 0:
        # Nothing allocated: its share may come, but never at once.
        ready = interval
    else:
        ready = max(base_of(read(&words.tat), now, tolerance, longest) - tolerance, <int64_t>0)
    while True:
        place = next_place(found, ready, interval, cap, now)
        if swap_if(word, &found, plus(now, place)):
            break
    push_back(&control.retry_until, plus(now, place), now, cap)
    return (place + 127) >> 7
