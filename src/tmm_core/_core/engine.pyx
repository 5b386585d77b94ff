# cython: freethreading_compatible=True, binding=False, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False, autotestdict=False
"""The engine: checks what comes from outside, then decides without the GIL's help.

``boundscheck=False`` is safe because every index is checked against the slots before it is used, once at the
door; TMM_DEBUG=1 builds with the checks on.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from .arrays cimport check_arrays, first_beyond
from .atomic cimport add, likely, publish, read, read_published, seldom, swap_if, unlikely, write
from .batch cimport decide_batch, decide_each
from .candidate cimport compare
from .clock cimport clock_early, clock_exact, clock_step, library_clock, use_clock
from .decide cimport FREE_THREADED, decide, decide_in_place, find_place, hold_nothing_back, open_plan
from .gcra cimport stamp_of
from .histogram cimport is_dense
from .layout cimport (
    DIFFERENCES, LAYOUT_VERSION, LINE, OUTCOMES, SPARE_CAPACITY, THROTTLED, Aside, Control, Door,
    Settings, SlabHead, Words, block_size, count_of, differences_of, open_door, slab_at, units_of,
)
from .load cimport waiting
from .numbers cimport ns_of, ns_or_clock, slot_of
from .named cimport Named, as_dict
from .ndarray cimport (
    INT64, READABLE, UINT8, UINT32, as_array, data_of, dimensions_of, empty, import_array, is_array, is_contiguous,
    is_writable, ndarray, npy_intp, shape_of, type_of, zeros,
)
from .plan cimport NO_SHORT_WAY, is_stale, look_again, renew
from .refusals cimport refuse, type_name
from .retry cimport take_place
from .terms cimport (
    add_up_counts, add_up_differences, add_up_units, begin_block, is_block, look, put_in_force, settings_of,
)
from .tick cimport tick
from .workspace cimport Batch, Plan, Workspace, clamped, free_workspace

import_array()

cdef enum:
    RELEASE_GIL_FROM = 64           # requests: releasing costs as much as deciding on ten
    MAX_INDEX = 0x7FFFFFFF

assert sizeof(Control) % LINE == 0 and sizeof(Words) == LINE and sizeof(Aside) == LINE


def clock():
    """Return the monotonic clock the engine reads, nanoseconds."""
    return clock_exact()


def call_clock(size_t address, size_t library, /):
    """Call this `clock_gettime`, if what is called is that of the C library.

    Whoever has put a clock of its own before that one means the engine, too.
    """
    if address and library and library == library_clock():
        use_clock(address)


def coarse_step():
    """Return by how much the cheap clock may lag, nanoseconds."""
    return clock_step()


cdef class Engine:
    """The admission core over a block of memory.

    Parameters
    ----------
    memory : ndarray of uint8
        The block, aligned to 64 bytes; zeros for a new one.
    users, srvs, slabs : int
        Its slots.
    outcomes : tuple
        Four objects to answer with, by outcome.
    first_slab, last_slab : int
        The slabs that belong to this process from the start; none to look on only.
    now : int
        Nanoseconds, monotonic: when the block starts.
    host : optional
        Of a block shared by processes: has `guard` (two int64 in a page that a fork wipes), `owner` (an int that
        names this process), `claim()` (one more slab; -1: not now, -2: never) and `renew(engine)`, which is called
        in a forked child and calls `start_over`.
    """

    def __cinit__(self, ndarray memory not None, int64_t users, int64_t srvs, int64_t slabs,
                  tuple outcomes not None, int64_t first_slab, int64_t last_slab, now, host=None, /):
        cdef Control* control
        cdef int64_t index
        seldom()
        check_memory(memory, users, srvs, slabs, first_slab, last_slab)
        if len(outcomes) != OUTCOMES:
            refuse(ValueError, "expected %d outcomes, found %lld", OUTCOMES, <long long>len(outcomes))
        self.memory = memory
        self.outcomes = outcomes
        self.host = host
        for index in range(OUTCOMES):
            self.answers[index] = <PyObject*>outcomes[index]
        self.guard = &self.own_guard
        if host is not None:
            self.guard = <Guard*>data_of(<ndarray?>host.guard)
        open_door(&self.door, <uint8_t*>data_of(memory), users, srvs, slabs)
        control = self.door.control
        if control.magic == 0 and is_writable(memory):
            begin_block(&self.door, ns_of(now))
        elif not is_block(&self.door):
            refuse(ValueError, "the block has layout %lld with %lld Users, %lld SRVs and %lld slabs; expected layout "
                   "%d with %lld, %lld and %lld", <long long>control.layout, <long long>control.user_slots,
                   <long long>control.srv_slots, <long long>control.slab_slots, LAYOUT_VERSION, <long long>users,
                   <long long>srvs, <long long>slabs)
        self.srvs = <uint32_t>srvs
        self.scratch.excess = <int64_t*>calloc(users, 8)
        self.scratch.weight = <int64_t*>calloc(users, 8)
        self.scratch.satisfied = <int64_t*>calloc(users, 8)
        self.scratch.room = users
        if self.scratch.excess == NULL or self.scratch.weight == NULL or self.scratch.satisfied == NULL:
            raise MemoryError()
        if first_slab == last_slab:
            self.watching = True
            self.slab = slab_at(&self.door, 0)
            return
        self.begin(first_slab)
        sign(self, first_slab)
        for index in range(first_slab + 1, last_slab):
            self.own(index)
        for index in range(1, self.owning):
            self.taken[index] = 0

    def __dealloc__(self):
        cdef int64_t index
        seldom()
        for index in range(OWN_MAX):
            free_workspace(&self.workspaces[index])
        free(self.scratch.excess)
        free(self.scratch.weight)
        free(self.scratch.satisfied)

    # ---- decisions

    def admit(self, user, srv):
        """Decide on one Service Request now.

        Parameters
        ----------
        user, srv : int
            Slots, from `Mechanism.user` and `Mechanism.srv`.

        Returns
        -------
        Decision
            False only for THROTTLED.

        Raises
        ------
        TypeError
            A slot that is no whole number.
        IndexError, OverflowError
            One that does not exist; nothing has been decided.

        Notes
        -----
        *Thread-safe.* Takes no lock and allocates nothing.
        """
        cdef uint32_t slot = slot_of(user, True), number = slot_of(srv, False)
        cdef int64_t now = clock_early()
        return answered(self, slot, number, now, True)

    def admit_at(self, user, srv, now):
        """Decide on one Service Request at `now`, nanoseconds on a monotonic clock; raises as `admit` does."""
        cdef uint32_t slot = slot_of(user, True), number = slot_of(srv, False)
        return answered(self, slot, number, ns_of(now), False)

    def admit_many(self, users, srvs, out=None, now=None):
        """Decide on many Service Requests at one instant, in order.

        Gives what a loop of `admit_at` with the same `now` gives.

        Parameters
        ----------
        users : ndarray of uint32, shape (n,)
        srvs : ndarray of uint16, shape (n,)
        out : ndarray of uint8, shape (n,), optional
            Where the decisions go; a new array by default.
        now : int, optional
            Nanoseconds, monotonic; the clock by default.

        Returns
        -------
        ndarray of uint8, shape (n,)
            `Decision` numbers.

        Raises
        ------
        TypeError, ValueError
            Arrays of another type or shape, not contiguous, or overlapping.
        IndexError
            A slot that does not exist; nothing has been decided.

        Notes
        -----
        *Thread-safe.* Releases the GIL from 64 requests on.
        """
        cdef Batch batch
        if out is None:
            if not is_array(users):
                refuse(TypeError, "users must be an ndarray of uint32, found %s", type_name(users))
            out = empty(1, shape_of(<ndarray>users), UINT8, 0) if dimensions_of(<ndarray>users) == 1 else None
        batch.n = check_arrays(users, srvs, out)
        batch.users = <const uint32_t*>data_of(<ndarray>users)
        batch.srvs = <const uint16_t*>data_of(<ndarray>srvs)
        batch.out = <uint8_t*>data_of(<ndarray>out)
        batch.clock_is_ours = now is None
        if now is None:
            batch.now = clock_exact() if batch.n >= RELEASE_GIL_FROM else clock_early()
        else:
            batch.now = ns_of(now)
        if self.guard.users == 0:
            self.ready()
        check_slots(self, &batch)
        run_batch(self, &batch)
        return out

    def retry_after(self, user, now=None):
        """Take the User's next retry slot.

        Parameters
        ----------
        user : int
        now : int, optional
            Nanoseconds, monotonic; the clock by default.

        Returns
        -------
        float
            Seconds from now until the slot, never rounded down; at most `max_retry_after_s`.

        Notes
        -----
        *Thread-safe.* Nothing is reserved: callers who do not come back cost nobody anything.
        """
        cdef uint32_t slot = slot_of(user, True)
        cdef int64_t ns
        if slot >= self.guard.users:
            self.refuse_slots(slot, 0)
        ns = take_place(&self.door, slot, ns_or_clock(now))
        return seconds_up(ns)

    def tick(self, now=None):
        """Run a control tick if one is due; returns whether it ran. *Thread-safe.*"""
        cdef int64_t at = ns_or_clock(now)
        self.ready()
        # Under the GIL: it charges what this process's slab holds back, and scalar calls write that too.
        return ticked(self, at)

    def peek(self, user, srv, now=None, /):
        """Say what would be decided, and on what grounds; charges nothing. *Thread-safe; out of date at once.*

        Returns
        -------
        dict of str to int
            `priority`, `own` (whether the own bucket conforms), `own_wait_ns`, `active`, `brake` (whether it
            stops spare admissions), `level`, `spare` (whether the spare bucket conforms), `outcome`; the words it
            follows from, each read once: `now` (ns), `tat`, `spare_tat`, `backlog` (stamps), `generation`.
        """
        cdef int64_t at = ns_or_clock(now)
        return peeked(self, slot_of(user, True), slot_of(srv, False), at)

    def admit_recorded(self, user, srv, now=None, /):
        """Decide on one Service Request; a refusal comes with its grounds. Slower than `admit`; *thread-safe*.

        Returns
        -------
        Decision, dict or None
            The words a refusal follows from, as from `peek`, which decided it: a refusal writes nothing but counts.
            None for all else.
        """
        return admit_recorded(self, slot_of(user, True), slot_of(srv, False), ns_or_clock(now))

    def gate(self, user_id, resolve, /):
        """Return a handle for one User; `resolve(user_id)` gives slot and generation when the terms have changed."""
        cdef Gate gate = Gate.__new__(Gate)
        seldom()
        gate.engine = self
        gate.user_id = user_id
        gate.resolve = resolve
        gate.follow()
        return gate

    def lane(self):
        """Return a handle for one thread that calls without the GIL.

        Raises
        ------
        RuntimeError
            All slabs of counters are taken. In a shared block it counts in the common slab instead, slower.
        """
        return lane_of(self)

    # ---- terms and state

    def apply(self, dict settings not None, rules, services, now, /):
        """Put new terms in force: all of them with one store.

        Parameters
        ----------
        settings : dict of str to int
            The fields of `Settings` in layout.pxd.
        rules : ndarray of int64, shape (users, 5)
            Interval, tolerance, share interval (stamps), weight (1/1024 units per second) and interval of the
            candidate allocation (stamps), by slot.
        services : ndarray of uint32, shape (srvs,)
            cost * 2 + priority.
        now : int
            Nanoseconds: new slots are at rest from here on.

        Notes
        -----
        One caller at a time; decisions go on meanwhile.
        """
        apply_terms(self, settings, rules, services, ns_of(now))

    @property
    def user_slots(self):
        """Slots for Users in the block."""
        return self.door.user_slots

    @property
    def generation(self):
        """How often terms have been put in force."""
        return read(&self.door.control.generation)

    def state(self, now=None, /):
        """Return what the Mechanism knows of itself.

        Returns
        -------
        dict of str to int
            `active`, `activations`, `level` (L - 1, in 1/65536), `load`, `offered` (1/1024 units per second),
            `backlog` (stamps), `ticks`, `tick_at`, `changed_at` (ns), `healed`, `generation`.

        Notes
        -----
        *Thread-safe; the value may be out of date at once.*
        """
        return state_of(self, now)

    def counts(self):
        """Return the requests decided so far: ndarray of int64, shape (users, srvs, 4). *Thread-safe.*"""
        return counts_of(self)

    def units(self):
        """Return the units decided so far: ndarray of int64, shape (users, 4). *Thread-safe.*"""
        return units_of_users(self)

    def differences(self):
        """Return the units candidate allocations would have decided otherwise: ndarray of int64, shape (users, 4).

        The last axis is indexed by `Difference`; since the start, all candidates together. *Thread-safe.*
        """
        return differences_of_users(self)

    def excess(self):
        """Return the units above the allocation by User, 1/1024 units per second: ndarray of int64. *Thread-safe.*"""
        return excess_of_users(self)

    def owners(self):
        """Return process and number of owners so far of every slab that has counted: list of (int, int)."""
        return owners_of(self)

    def words(self, user, /):
        """Return a User's words (own TAT, spare TAT, retry horizon), stamps: for tests and inspection."""
        return words_of(self, slot_of(user, True))

    def close(self):
        """Refuse every further call with a clear error; memory stays as it is for whoever looks at it."""
        self.closed = True
        self.guard.users = 0

    def start_over(self, int64_t slab, /):
        """Count in this slab from here on: in a child after a fork, whose threads and slabs are its parent's."""
        cdef int64_t index
        seldom()
        for index in range(OWN_MAX):
            # What another thread of the parent was doing will not be finished here.
            free_workspace(&self.workspaces[index])
            memset(&self.workspaces[index], 0, sizeof(Workspace))
        self.scratch.busy = 0
        if self.host is None:
            # The memory was copied with the process: all its slabs are ours.
            for index in range(1, self.owning):
                self.taken[index] = 0
            return
        self.begin(slab)
        sign(self, slab)
        self.catch_up()

    @property
    def idle(self):
        """Whether no thread counts here without the GIL."""
        cdef int64_t index
        if FREE_THREADED:
            return False
        for index in range(1, self.owning):
            if read(&self.taken[index]):
                return False
        return True

    @property
    def forked(self):
        """Whether this is a child after a fork that has not started over."""
        return self.guard.epoch == 0 and not self.watching

    # ---- inside

    cdef void begin(self, int64_t slab) noexcept:
        """Own this slab and no other. Slab 0 of a shared block is common: nobody owns it."""
        cdef int64_t index
        seldom()
        for index in range(OWN_MAX):
            self.taken[index] = 1
        self.owning = 0
        self.own(slab)
        self.slab = slab_at(&self.door, slab)
        self.full = False
        self.shared = FREE_THREADED or (self.host is not None and slab == 0)
        open_plan(&self.plan, &self.door, self.slab, &self.scratch, self.shared)
        self.life += 1
        self.guard.epoch = self.life

    cdef void own(self, int64_t slab) noexcept nogil:
        """Add a slab, taken by the caller."""
        cdef int64_t index = read(&self.owning)
        while not swap_if(&self.owning, &index, index + 1):
            pass
        self.owned[index] = slab
        self.use_slabs(slab + 1)

    cdef int catch_up(self) except -1:
        """Start over after a fork, and take in what another process has put in force."""
        seldom()
        if self.closed or self.watching:
            return 0
        if self.guard.epoch == 0:
            self.host.renew(self)
        self.guard.users = max(self.guard.users, read(&self.settings_now().users))
        return 0

    cdef int ready(self) except -1:
        """Be this process's own engine, and open."""
        if self.guard.users == 0 and not self.closed:
            self.catch_up()
        if self.closed or self.watching:
            raise ValueError("the Mechanism is closed" if self.closed else "the block may only be looked at")
        return 0

    cdef inline Settings* settings_now(self) noexcept nogil:
        return &self.door.control.settings[read_published(&self.door.control.generation) & 1]

    cdef inline void release(self, int64_t index) noexcept nogil:
        publish(&self.taken[index], 0)

    cdef void use_slabs(self, int64_t used) noexcept nogil:
        cdef int64_t found = read(&self.door.control.slabs_used)
        while found < used and not swap_if(&self.door.control.slabs_used, &found, used):
            pass

    cdef int refuse_slots(self, int64_t user, int64_t srv, int64_t index=-1) except -1:
        """Return if the slots do exist: this process is new, or another has put more in force. Otherwise raise."""
        seldom()
        self.catch_up()
        if user < self.guard.users and srv < self.srvs:
            return 0
        self.ready()
        return no_such_slot(self, user, index) if user >= self.guard.users else no_such_slot(self, srv, index, False)


include "deciding.pxi"
include "handles.pxi"
include "reception.pxi"
include "slabs.pxi"
include "batches.pxi"
include "looking.pxi"
include "geometry.pxi"
include "applying.pxi"
