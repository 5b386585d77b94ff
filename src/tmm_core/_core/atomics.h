/* What differs between compilers: atomic words and hints. Nothing else. */
#ifndef TMM_ATOMICS_H
#define TMM_ATOMICS_H

#include <stdint.h>

#if UINTPTR_MAX < 0xffffffffffffffffu
#error "tmm-core needs a 64-bit machine: a bucket is one 64-bit word"
#endif

#ifdef Py_GIL_DISABLED
#define TMM_FREE_THREADED 1
#else
#define TMM_FREE_THREADED 0
#endif

#if defined(__GNUC__) || defined(__clang__)

#define TMM_RELAXED __ATOMIC_RELAXED
#define TMM_ACQUIRE __ATOMIC_ACQUIRE
#define TMM_RELEASE __ATOMIC_RELEASE
#define TMM_ACQ_REL __ATOMIC_ACQ_REL
#define tmm_atomic_load(word, order) __atomic_load_n((word), (order))
#define tmm_atomic_store(word, value, order) __atomic_store_n((word), (value), (order))
#define tmm_atomic_add(word, value, order) __atomic_fetch_add((word), (value), (order))
#define tmm_atomic_cas(word, expected, value, order) \
    __atomic_compare_exchange_n((word), (expected), (value), 0, (order), __ATOMIC_RELAXED)
#define tmm_atomic_fence(order) __atomic_thread_fence(order)
#define TMM_LIKELY(x) __builtin_expect(!!(x), 1)
#define TMM_UNLIKELY(x) __builtin_expect(!!(x), 0)
/* A call of it lies on no path that is taken often: the compiler makes all that leads there small. */
__attribute__((cold, noinline, unused)) static void tmm_seldom(void) { __asm__ volatile(""); }

#elif defined(_MSC_VER)

#include <intrin.h>
#define TMM_RELAXED 0
#define TMM_ACQUIRE 1
#define TMM_RELEASE 2
#define TMM_ACQ_REL 3
/* The Interlocked family is a full barrier: stronger than asked for, never weaker. */
#define tmm_atomic_load(word, order) _InterlockedOr64((volatile int64_t *)(word), 0)
#define tmm_atomic_store(word, value, order) \
    ((void)_InterlockedExchange64((volatile int64_t *)(word), (value)))
#define tmm_atomic_add(word, value, order) _InterlockedExchangeAdd64((volatile int64_t *)(word), (value))
static __forceinline int tmm_atomic_cas_(int64_t *word, int64_t *expected, int64_t value)
{
    int64_t found = _InterlockedCompareExchange64((volatile int64_t *)word, value, *expected);
    if (found == *expected) return 1;
    *expected = found;
    return 0;
}
#define tmm_atomic_cas(word, expected, value, order) tmm_atomic_cas_((word), (expected), (value))
#define tmm_atomic_fence(order) MemoryBarrier()
#define TMM_LIKELY(x) (x)
#define TMM_UNLIKELY(x) (x)
#define tmm_seldom() ((void)0)

#else
#error "tmm-core is built with gcc, clang or MSVC"
#endif

#endif
