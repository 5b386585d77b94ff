"""The monotonic clock in nanoseconds: the only file that reads one."""

from libc.stdint cimport int64_t, uintptr_t

cdef extern from *:
    """
    #include <stdint.h>
    #if defined(_WIN32)
    #include <windows.h>
    static inline int64_t tmm_clock_exact(void) {
        LARGE_INTEGER c, f;
        QueryPerformanceCounter(&c);
        QueryPerformanceFrequency(&f);
        return (c.QuadPart / f.QuadPart) * 1000000000LL + (c.QuadPart % f.QuadPart) * 1000000000LL / f.QuadPart;
    }
    static inline int64_t tmm_clock_early(void) { return tmm_clock_exact(); }
    static inline int64_t tmm_clock_step(void) { return 0; }
    #else
    #include <time.h>
    #if defined(__linux__) && defined(__GLIBC__)
    #define TMM_SETS_CLOCK 1
    static int (*tmm_gettime)(clockid_t, struct timespec *) = clock_gettime;
    static inline uintptr_t tmm_library_clock(void) { return (uintptr_t)clock_gettime; }
    static inline void tmm_use_clock(uintptr_t address)
    { tmm_gettime = (int (*)(clockid_t, struct timespec *))address; }
    #else
    #define tmm_gettime clock_gettime
    #endif
    static inline int64_t tmm_clock_ns(clockid_t id) {
        struct timespec t;
        tmm_gettime(id, &t);
        return (int64_t)t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    static inline int64_t tmm_clock_exact(void) { return tmm_clock_ns(CLOCK_MONOTONIC); }
    #if defined(CLOCK_MONOTONIC_COARSE)
    static inline int64_t tmm_clock_early(void) { return tmm_clock_ns(CLOCK_MONOTONIC_COARSE); }
    static inline int64_t tmm_clock_step(void) {
        struct timespec t;
        clock_getres(CLOCK_MONOTONIC_COARSE, &t);
        return (int64_t)t.tv_sec * 1000000000LL + t.tv_nsec;
    }
    #else
    static inline int64_t tmm_clock_early(void) { return tmm_clock_exact(); }
    static inline int64_t tmm_clock_step(void) { return 0; }
    #endif
    #endif
    #ifndef TMM_SETS_CLOCK
    static inline uintptr_t tmm_library_clock(void) { return 0; }
    static inline void tmm_use_clock(uintptr_t address) { (void)address; }
    #endif
    """
    # Where the clock_gettime is that is called here, and to call another instead (on Linux with glibc; 0 elsewhere).
    uintptr_t library_clock "tmm_library_clock"() noexcept
    void use_clock "tmm_use_clock"(uintptr_t address) noexcept
    # The time now.
    int64_t clock_exact "tmm_clock_exact"() noexcept nogil
    # A time that is cheap and at most clock_step() early: stricter for a test, asked first.
    int64_t clock_early "tmm_clock_early"() noexcept nogil
    int64_t clock_step "tmm_clock_step"() noexcept nogil
