"""The engine as other Cython modules see it; `Lane` is the door for callers without the GIL."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t
from .batch cimport Batch, Workspace
from .layout cimport Door, Settings, SlabHead
from .tick cimport Scratch


@cython.final
cdef class Engine:
    cdef Door door
    cdef SlabHead* slab                 # this process's own: counted under the GIL
    cdef Scratch scratch
    cdef Workspace* workspaces          # by slab, made when first needed
    cdef PyObject* answers[4]
    cdef object memory
    cdef readonly object outcomes
    cdef uint32_t users                 # slots that may be asked for; 0 once closed
    cdef uint32_t srvs
    cdef int64_t first_slab             # slabs first_slab .. last_slab - 1 are this process's
    cdef int64_t last_slab

    cdef object answer(self, int outcome)
    cdef Settings* settings_now(self) noexcept nogil
    cdef void tick_if_due(self, SlabHead* slab, int64_t now) noexcept nogil
    cdef int run(self, Batch* batch) except -1
    cdef int prepare(self, int64_t index) except -1
    cdef int64_t claim(self) noexcept nogil
    cdef void release(self, int64_t index) noexcept nogil
    cdef void use_slabs(self, int64_t used) noexcept nogil
    cdef void lend_pending(self, SlabHead* giver, SlabHead* taker) noexcept nogil
    cdef int refuse_slots(self, int64_t user, int64_t srv, int64_t index=*) except -1


@cython.final
cdef class Lane:
    cdef Engine engine
    cdef SlabHead* slab
    cdef int64_t index

    # One thread at a time; neither call needs the GIL. A slot out of range is decided as the unknown one.
    cdef int admit(self, uint32_t user, uint32_t srv) noexcept nogil
    cdef int admit_at(self, uint32_t user, uint32_t srv, int64_t now) noexcept nogil
    cdef int heeded(self, int outcome) noexcept nogil


@cython.final
cdef class Gate:
    cdef Engine engine
    cdef object user_id
    cdef object resolve
    cdef int64_t generation
    cdef uint32_t user

    cdef int follow(self) except -1
