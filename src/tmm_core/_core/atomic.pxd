"""Atomic verbs on 64-bit words: the only file that names a memory order."""

from libc.stdint cimport int64_t

cdef extern from "atomics.h" nogil:
    """
    static inline int64_t tmm_read(int64_t *w) { return tmm_atomic_load(w, TMM_RELAXED); }
    static inline int64_t tmm_read_published(int64_t *w) { return tmm_atomic_load(w, TMM_ACQUIRE); }
    static inline void tmm_write(int64_t *w, int64_t v) { tmm_atomic_store(w, v, TMM_RELAXED); }
    static inline void tmm_publish(int64_t *w, int64_t v) { tmm_atomic_store(w, v, TMM_RELEASE); }
    static inline int tmm_swap_if(int64_t *w, int64_t *e, int64_t v)
    { return tmm_atomic_cas(w, e, v, TMM_ACQ_REL); }
    static inline void tmm_add(int64_t *w, int64_t v) { (void)tmm_atomic_add(w, v, TMM_RELAXED); }
    static inline int64_t tmm_recheck(int64_t *w)
    { tmm_atomic_fence(TMM_ACQUIRE); return tmm_atomic_load(w, TMM_RELAXED); }
    static inline void tmm_begin_writing(void) { tmm_atomic_fence(TMM_RELEASE); }
    """
    # One word by itself: counters, words a compare-and-swap will check again.
    int64_t read "tmm_read"(int64_t* word) noexcept
    void write "tmm_write"(int64_t* word, int64_t value) noexcept
    void add "tmm_add"(int64_t* word, int64_t amount) noexcept
    # A word that announces others: publish is the partner of read_published.
    int64_t read_published "tmm_read_published"(int64_t* word) noexcept
    void publish "tmm_publish"(int64_t* word, int64_t value) noexcept
    # True when `word` held *expected and now holds value; else *expected is what it held.
    bint swap_if "tmm_swap_if"(int64_t* word, int64_t* expected, int64_t value) noexcept
    # Read again after plain reads that must not move behind it; partner of begin_writing.
    int64_t recheck "tmm_recheck"(int64_t* word) noexcept
    void begin_writing "tmm_begin_writing"() noexcept
    # What is usual.
    bint likely "TMM_LIKELY"(bint condition) noexcept
    bint unlikely "TMM_UNLIKELY"(bint condition) noexcept
    # What no decision comes to: compiled for size (docs/decisions/0056).
    void seldom "tmm_seldom"() noexcept


cdef inline void count(int64_t* cell, int64_t amount, bint shared) noexcept nogil:
    """Add to a counter: a plain store where this thread is the only writer."""
    if shared:
        add(cell, amount)
    else:
        write(cell, cell[0] + amount)
