"""The engine as other Cython modules see it; `Lane` is the door for callers without the GIL."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t
from .header cimport Piece, Plain
from .layout cimport Door, Settings, SlabHead
from .workspace cimport Place, Plan, Scratch, Workspace

cdef enum:
    OWN_MAX = 64                        # slabs one process may own


cdef struct Guard:                      # of a shared block: in a page that a fork wipes
    int64_t users                       # slots that may be asked for; 0 once closed or forked
    int64_t epoch                       # which life of this engine, from 1; 0 once forked


@cython.final
cdef class Engine:
    cdef Plan plan                      # by which this process decides under the GIL
    cdef Door door
    cdef SlabHead* slab                 # this process's own: counted under the GIL
    cdef Guard* guard
    cdef uint32_t srvs
    cdef bint shared                    # others count in `slab` too: the common one, or free threads
    cdef Guard own_guard                # where no other process shares the block
    cdef Scratch scratch
    cdef int64_t owned[OWN_MAX]         # slabs of this process; the first is for calls under the GIL
    cdef int64_t taken[OWN_MAX]         # 1 while a thread counts there without the GIL, and where there is no slab
    cdef int64_t owning                 # how many
    cdef Workspace workspaces[OWN_MAX]  # made when first needed
    cdef PyObject* answers[4]
    cdef object memory
    cdef readonly object outcomes
    cdef object host                    # where more slabs come from: see engine.pyi
    cdef bint closed
    cdef readonly bint watching                  # looks on only: it counts nowhere
    cdef bint full                      # there are no more slabs for us
    cdef int64_t life

    cdef Settings* settings_now(self) noexcept nogil
    cdef void release(self, int64_t index) noexcept nogil
    cdef void begin(self, int64_t slab) noexcept
    cdef void own(self, int64_t slab) noexcept nogil
    cdef int catch_up(self) except -1
    cdef int ready(self) except -1
    cdef void use_slabs(self, int64_t used) noexcept nogil
    cdef int refuse_slots(self, int64_t user, int64_t srv, int64_t index=*) except -1


@cython.final
cdef class Lane:
    cdef Plan plan
    cdef Engine engine
    cdef int64_t index                  # among the engine's own slabs; -1: the common slab, or closed
    cdef int64_t epoch

    # One thread at a time; neither call needs the GIL. A slot out of range is decided as the unknown one.
    cdef int admit(self, uint32_t user, uint32_t srv) noexcept nogil
    cdef int admit_at(self, uint32_t user, uint32_t srv, int64_t now) noexcept nogil
    cdef int admit_unknown(self, uint32_t user, uint32_t srv, int64_t now, bint clock_is_ours) noexcept nogil
    cdef bint knows(self, uint32_t user, uint32_t srv) noexcept nogil


@cython.final
cdef class Gate:
    cdef Engine engine
    cdef object user_id
    cdef object resolve
    cdef int64_t generation
    cdef int64_t life                   # of the engine, for which the place is
    cdef Place place
    cdef uint32_t user

    cdef object answered(self, uint32_t number, int64_t now, bint clock_is_ours)
    cdef object answered_late(self, uint32_t number, int64_t now, bint clock_is_ours)
    cdef int follow(self) except -1


@cython.final
cdef class Kinds:
    cdef dict by_start
    cdef list recent

    cdef bint found(self, part, Plain* plain) except -1


@cython.final
cdef class Reception:
    cdef Engine engine                  # of all its gates, once it has seen one
    cdef void* users                    # what the texts of Users and SRVs mean, as far as it has seen them
    cdef void* srvs
    cdef Piece method                   # one of them
    cdef object user_field              # bytes for ASGI, str for WSGI
    cdef object srv_field
    cdef Kinds kinds
    cdef frozenset methods
    cdef dict gates
    cdef dict numbers
    cdef void* memory

    cdef object asked(self, scope)
    cdef bint is_method(self, PyObject* method) except -1
    cpdef object ask_body(self, part)
    cdef object by_fields(self, PyObject* headers)
    cdef object by_names(self, Piece user, Piece srv)
    cdef int64_t learn(self, Piece user, Piece srv, int64_t* number) except -1


cdef class Entrance:
    cdef public object _app
    cdef public object _by_message
    cdef public Reception _usual
