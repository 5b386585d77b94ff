"""The monotonic clock in nanoseconds: the only file that reads one."""

from libc.stdint cimport int64_t

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
    #include <dlfcn.h>
    static int (*tmm_gettime)(clockid_t, struct timespec *) = clock_gettime;
    static void tmm_find_clock(void) {
        void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
        void *kernel = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
        void *found = kernel ? dlsym(kernel, "__vdso_clock_gettime") : NULL;
        if (kernel && !found) found = dlsym(kernel, "__kernel_clock_gettime");
        /* Whoever has put a clock of its own before that of the library means us, too. */
        if (found && libc && dlsym(libc, "clock_gettime") == (void *)clock_gettime)
            tmm_gettime = (int (*)(clockid_t, struct timespec *))found;
    }
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
    #if !(defined(__linux__) && defined(__GLIBC__))
    static inline void tmm_find_clock(void) {}
    #endif
    """
    # Once, before the clock is read: on Linux where the kernel keeps it, without the library's way round.
    void find_clock "tmm_find_clock"()
    # The time now.
    int64_t clock_exact "tmm_clock_exact"() noexcept nogil
    # A time that is cheap and at most clock_step() early: stricter for a test, asked first.
    int64_t clock_early "tmm_clock_early"() noexcept nogil
    int64_t clock_step "tmm_clock_step"() noexcept nogil
