"""A bucket in the block: one word, charged by one compare-and-swap. The rule is in gcra.pxd."""

from libc.stdint cimport int64_t
from .atomic cimport add, likely, read, swap_if, unlikely
from .gcra cimport ahead, base_of, plus
from .layout cimport SlabHead


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


cdef inline bint take_at_once(int64_t* word, int64_t interval, int64_t tolerance, int64_t cost,
                              int64_t now) noexcept nogil:
    """Charge a bucket that conforms on the face of it; `take` says what to think of one that does not."""
    cdef int64_t tat = read(word)
    cdef int64_t base
    while True:
        base = max(ahead(tat, now), <int64_t>0)
        if unlikely(base > tolerance):
            return False
        if likely(swap_if(word, &tat, plus(now, base + cost * interval))):
            return True
