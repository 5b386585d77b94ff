# cython: freethreading_compatible=True, binding=False, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False, autotestdict=False
"""The engine: checks what comes from outside, then decides without the GIL's help.

``boundscheck=False`` is safe because every index is checked against the slots before it is used, once at the
door; TMM_DEBUG=1 builds with the checks on.
"""

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from .arrays cimport check_arrays, first_beyond
from .atomic cimport add, publish, read, read_published, swap_if, write
from .batch cimport Batch, Workspace, clamped, decide_batch, free_workspace, make_workspace
from .clock cimport clock_early, clock_exact, clock_step
from .decide cimport FREE_THREADED, decide
from .gcra cimport stamp_of
from .layout cimport (
    LAYOUT_VERSION, LINE, OUTCOMES, SPARE_CAPACITY, THROTTLED, Control, Rule, Settings, SlabHead, Words,
    block_size, count_of, open_door, slab_at, units_of,
)
from .load cimport waiting
from .retry cimport take_place
from .terms cimport add_up_counts, add_up_units, begin_block, is_block, look, put_in_force, settings_of
from .tick cimport tick, tick_due

import numpy as np

cnp.import_array()

cdef enum:
    RELEASE_GIL_FROM = 64           # requests: releasing costs as much as deciding on ten
    MAX_INDEX = 0x7FFFFFFF

assert sizeof(Control) % LINE == 0 and sizeof(Words) == LINE and sizeof(Rule) * 2 == LINE


def block_nbytes(int64_t users, int64_t srvs, int64_t slabs):
    """Return the bytes of a block for so many slots for Users and SRVs, and so many slabs of counters."""
    return block_size(users, srvs, slabs)


def clock():
    """Return the monotonic clock the engine reads, nanoseconds."""
    return clock_exact()


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
        The slabs that belong to this process.
    now : int
        Nanoseconds, monotonic: when the block starts.
    """

    def __cinit__(self, cnp.ndarray memory not None, int64_t users, int64_t srvs, int64_t slabs,
                  tuple outcomes not None, int64_t first_slab, int64_t last_slab, int64_t now):
        cdef Control* control
        cdef int index
        if not (0 < users <= MAX_INDEX and 0 < srvs <= 65536 and 0 <= first_slab < last_slab <= slabs):
            raise ValueError(f"no block has {users} Users, {srvs} SRVs, slabs {first_slab} to {last_slab} of {slabs}")
        if memory.dtype != np.uint8 or not cnp.PyArray_ISCARRAY(memory) or memory.ndim != 1:
            raise ValueError("a block is a writable, contiguous array of bytes")
        if memory.shape[0] < block_size(users, srvs, slabs) or <size_t>cnp.PyArray_DATA(memory) % LINE:
            raise ValueError(f"a block of {users} Users, {srvs} SRVs and {slabs} slabs has "
                             f"{block_size(users, srvs, slabs)} bytes aligned to {LINE}; found {memory.shape[0]}")
        if len(outcomes) != OUTCOMES:
            raise ValueError(f"expected {OUTCOMES} outcomes, found {len(outcomes)}")
        self.memory = memory
        self.outcomes = outcomes
        for index in range(OUTCOMES):
            self.answers[index] = <PyObject*>outcomes[index]
        open_door(&self.door, <uint8_t*>cnp.PyArray_DATA(memory), users, srvs, slabs)
        control = self.door.control
        if control.magic == 0:
            begin_block(&self.door, now)
        elif not is_block(&self.door):
            raise ValueError(f"the block has layout {control.layout} with {control.user_slots} Users, "
                             f"{control.srv_slots} SRVs and {control.slab_slots} slabs; expected layout "
                             f"{LAYOUT_VERSION} with {users}, {srvs} and {slabs}")
        self.first_slab = first_slab
        self.last_slab = last_slab
        self.slab = slab_at(&self.door, first_slab)
        self.slab.taken = 1
        self.use_slabs(first_slab + 1)
        self.srvs = <uint32_t>srvs
        self.users = 0
        self.workspaces = <Workspace*>calloc(slabs, sizeof(Workspace))
        self.scratch.excess = <int64_t*>calloc(users, 8)
        self.scratch.weight = <int64_t*>calloc(users, 8)
        self.scratch.satisfied = <int64_t*>calloc(users, 8)
        self.scratch.room = users
        if (self.workspaces == NULL or self.scratch.excess == NULL or self.scratch.weight == NULL
                or self.scratch.satisfied == NULL):
            raise MemoryError()

    def __dealloc__(self):
        cdef int64_t index
        if self.workspaces != NULL:
            for index in range(self.door.slab_slots):
                free_workspace(&self.workspaces[index])
            free(self.workspaces)
        free(self.scratch.excess)
        free(self.scratch.weight)
        free(self.scratch.satisfied)

    # ---- decisions

    def admit(self, uint32_t user, uint32_t srv):
        """Decide on one Service Request now.

        Parameters
        ----------
        user, srv : int
            Slots, from `Mechanism.user` and `Mechanism.srv`.

        Returns
        -------
        Decision
            False only for THROTTLED.

        Notes
        -----
        *Thread-safe.* Takes no lock and allocates nothing.
        """
        cdef int64_t now = clock_early()
        if user >= self.users or srv >= self.srvs:
            self.refuse_slots(user, srv)
        self.tick_if_due(self.slab, now)
        return self.answer(decide(&self.door, self.slab, user, srv, now, True, FREE_THREADED))

    def admit_at(self, uint32_t user, uint32_t srv, int64_t now):
        """Decide on one Service Request at `now`, nanoseconds on a monotonic clock. *Thread-safe.*"""
        if user >= self.users or srv >= self.srvs:
            self.refuse_slots(user, srv)
        self.tick_if_due(self.slab, now)
        return self.answer(decide(&self.door, self.slab, user, srv, now, False, FREE_THREADED))

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
        cdef int64_t index
        if out is None:
            if not cnp.PyArray_Check(users):
                raise TypeError(f"users must be an ndarray of uint32, found {type(users).__name__}")
            out = cnp.PyArray_EMPTY(1, cnp.PyArray_DIMS(users), cnp.NPY_UINT8, 0) if users.ndim == 1 else None
        batch.n = check_arrays(users, srvs, out)
        batch.users = <const uint32_t*>cnp.PyArray_DATA(users)
        batch.srvs = <const uint16_t*>cnp.PyArray_DATA(srvs)
        batch.out = <uint8_t*>cnp.PyArray_DATA(out)
        batch.clock_is_ours = now is None
        batch.now = clock_exact() if now is None else now
        index = first_beyond(&batch, self.users, self.srvs)
        if index >= 0:
            self.refuse_slots(batch.users[index], batch.srvs[index], index)
        self.tick_if_due(self.slab, batch.now)
        self.run(&batch)
        return out

    cdef int run(self, Batch* batch) except -1:
        """Run a batch: on a slab of its own without the GIL, or on the process's slab."""
        cdef Settings* settings = self.settings_now()
        cdef int64_t index = -1
        batch.uniform = settings.uniform
        batch.observe = settings.observe
        batch.shared = False
        if batch.n >= RELEASE_GIL_FROM:
            index = self.claim()
        if index < 0:
            batch.shared = FREE_THREADED
            if batch.n < RELEASE_GIL_FROM or FREE_THREADED:
                # Too few to group, or no workspace of its own: one by one.
                run_each(&self.door, self.slab, batch)
            else:
                self.prepare(self.first_slab)
                decide_batch(&self.door, self.slab, &self.workspaces[self.first_slab], batch)
            return 0
        try:
            self.prepare(index)
            self.lend_pending(self.slab, slab_at(&self.door, index))
            with nogil:
                decide_batch(&self.door, slab_at(&self.door, index), &self.workspaces[index], batch)
            self.lend_pending(slab_at(&self.door, index), self.slab)
        finally:
            self.release(index)
        return 0

    def retry_after(self, uint32_t user, now=None):
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
        cdef int64_t ns
        if user >= self.users:
            self.refuse_slots(user, 0)
        ns = take_place(&self.door, user, clock_exact() if now is None else now)
        return seconds_up(ns)

    def tick(self, now=None):
        """Run a control tick if one is due; returns whether it ran. *Thread-safe.*"""
        cdef int64_t at = clock_exact() if now is None else now
        cdef bint ran
        with nogil:
            ran = tick(&self.door, NULL if FREE_THREADED else self.slab, &self.scratch, at)
        return ran

    def peek(self, uint32_t user, uint32_t srv, now=None):
        """Say what would be decided, and on what grounds; charges nothing. *Thread-safe; out of date at once.*

        Returns
        -------
        dict of str to int
            `priority`, `own` (whether the own bucket conforms), `own_wait_ns`, `active`, `brake` (whether it
            stops spare admissions), `level`, `spare` (whether the spare bucket conforms), `outcome`; the words it
            follows from, each read once: `now` (ns), `tat`, `spare_tat`, `backlog` (stamps), `generation`.
        """
        cdef int64_t at = clock_exact() if now is None else now
        if user >= self.users or srv >= self.srvs:
            self.refuse_slots(user, srv)
        return look(&self.door, self.slab, user, srv, at)

    def admit_recorded(self, uint32_t user, uint32_t srv, now=None):
        """Decide on one Service Request; a refusal comes with its grounds. Slower than `admit`; *thread-safe*.

        Returns
        -------
        Decision, dict or None
            The words a refusal follows from, as from `peek`, which decided it: a refusal writes nothing but counts.
            None for all else.
        """
        cdef int64_t at = clock_exact() if now is None else now
        self.tick_if_due(self.slab, at)
        grounds = self.peek(user, srv, at)
        if grounds["outcome"] != THROTTLED:
            return self.admit_at(user, srv, at), None
        add(count_of(&self.door, self.slab, user, THROTTLED, srv), 1)
        add(units_of(self.slab, user) + THROTTLED, grounds["cost"])
        return self.answer(THROTTLED), grounds

    def gate(self, user_id, resolve):
        """Return a handle for one User; `resolve(user_id)` gives slot and generation when the terms have changed."""
        cdef Gate gate = Gate.__new__(Gate)
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
            All slabs of counters are taken.
        """
        cdef Lane lane = Lane.__new__(Lane)
        cdef int64_t index = self.claim()
        if index < 0:
            raise RuntimeError(f"all {self.last_slab - self.first_slab - 1} lanes of this Mechanism are taken: "
                               "close one")
        lane.engine = self
        lane.index = index
        lane.slab = slab_at(&self.door, index)
        return lane

    # ---- terms and state

    def apply(self, dict settings not None, rules, services, int64_t now):
        """Put new terms in force: all of them with one store.

        Parameters
        ----------
        settings : dict of str to int
            The fields of `Settings` in layout.pxd.
        rules : ndarray of int64, shape (users, 4)
            Interval, tolerance, share interval (stamps) and weight (1/1024 units per second), by slot.
        services : ndarray of uint32, shape (srvs,)
            cost * 2 + priority.
        now : int
            Nanoseconds: new slots are at rest from here on.

        Notes
        -----
        One caller at a time; decisions go on meanwhile.
        """
        cdef int64_t known = read(&self.settings_now().users)
        cdef Settings terms
        cdef int64_t[:, ::1] given = np.ascontiguousarray(rules, dtype=np.int64)
        cdef uint32_t[::1] costs = np.ascontiguousarray(services, dtype=np.uint32)
        if given.shape[0] > self.door.user_slots or given.shape[0] < known or given.shape[1] != 4:
            raise ValueError(f"rules for {known} to {self.door.user_slots} Users with 4 terms each expected, found "
                             f"{given.shape[0]} with {given.shape[1]}")
        if costs.shape[0] != self.door.srv_slots:
            raise ValueError(f"{self.door.srv_slots} SRVs expected, found {costs.shape[0]}")
        terms = settings_of(settings)
        terms.users = given.shape[0]
        put_in_force(&self.door, &terms, &given[0, 0] if terms.users else NULL, &costs[0], now)
        self.users = <uint32_t>given.shape[0]

    @property
    def user_slots(self):
        """Slots for Users in the block."""
        return self.door.user_slots

    @property
    def generation(self):
        """How often terms have been put in force."""
        return read(&self.door.control.generation)

    def state(self, now=None):
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
        cdef Control* control = self.door.control
        cdef Settings* settings = self.settings_now()
        cdef int64_t at = read(&control.tick_at) if now is None else now
        cdef int64_t state = read(&control.state), pending = 0, healed = 0, index
        for index in range(read(&control.slabs_used)):
            pending += read(&slab_at(&self.door, index).pending)
            healed += read(&slab_at(&self.door, index).healed)
        return {
            "active": state & 1, "activations": state >> 1, "level": read(&control.level),
            "load": read(&control.load), "offered": read(&control.offered),
            "backlog": waiting(read(&control.backlog), stamp_of(at), settings.ceiling) + pending * settings.unit,
            "ticks": read(&control.ticks), "tick_at": read(&control.tick_at), "changed_at": read(&control.changed_at),
            "healed": healed, "generation": read(&control.generation),
        }

    def counts(self):
        """Return the requests decided so far: ndarray of int64, shape (users, srvs, 4). *Thread-safe.*"""
        cdef cnp.ndarray total = np.zeros((OUTCOMES, self.users, self.srvs), dtype=np.int64)
        cdef int64_t* cell = <int64_t*>cnp.PyArray_DATA(total)
        with nogil:
            add_up_counts(&self.door, self.users, cell)
        return np.ascontiguousarray(total.transpose(1, 2, 0))

    def units(self):
        """Return the units decided so far: ndarray of int64, shape (users, 4). *Thread-safe.*"""
        cdef cnp.ndarray total = np.zeros((self.users, OUTCOMES), dtype=np.int64)
        cdef int64_t* cell = <int64_t*>cnp.PyArray_DATA(total)
        with nogil:
            add_up_units(&self.door, self.users, cell)
        return total

    def words(self, uint32_t user):
        """Return a User's words (own TAT, spare TAT, retry horizon), stamps: for tests and inspection."""
        if user >= self.users:
            self.refuse_slots(user, 0)
        return (read(&self.door.words[user].tat), read(&self.door.words[user].spare_tat),
                read(&self.door.words[user].horizon))

    def close(self):
        """Refuse every further call with a clear error; memory stays as it is for whoever looks at it."""
        self.users = 0

    # ---- inside

    cdef inline object answer(self, int outcome):
        if outcome == THROTTLED and self.settings_now().observe:
            outcome = SPARE_CAPACITY
        return <object>self.answers[outcome]

    cdef inline Settings* settings_now(self) noexcept nogil:
        return &self.door.control.settings[read_published(&self.door.control.generation) & 1]

    cdef inline void tick_if_due(self, SlabHead* slab, int64_t now) noexcept nogil:
        if tick_due(self.door.control, read(&self.settings_now().tick_ns), now):
            tick(&self.door, NULL if FREE_THREADED and slab == self.slab else slab, &self.scratch, now)

    cdef inline int64_t claim(self) noexcept nogil:
        """Take a slab for a thread without the GIL; -1 if there is none."""
        cdef int64_t index, free_word
        for index in range(self.first_slab + 1, self.last_slab):
            free_word = 0
            if (read(&slab_at(&self.door, index).taken) == 0
                    and swap_if(&slab_at(&self.door, index).taken, &free_word, 1)):
                self.use_slabs(index + 1)
                return index
        return -1

    cdef inline void release(self, int64_t index) noexcept nogil:
        publish(&slab_at(&self.door, index).taken, 0)

    cdef void use_slabs(self, int64_t used) noexcept nogil:
        cdef int64_t found = read(&self.door.control.slabs_used)
        while found < used and not swap_if(&self.door.control.slabs_used, &found, used):
            pass

    cdef void lend_pending(self, SlabHead* giver, SlabHead* taker) noexcept nogil:
        """Move the units held back, under the GIL: a batch goes on where the scalar calls stopped."""
        if not FREE_THREADED:
            write(&taker.pending, taker.pending + giver.pending)
            write(&giver.pending, 0)

    cdef int prepare(self, int64_t index) except -1:
        """Make the workspace of a slab, once."""
        if self.workspaces[index].priority == NULL:
            make_workspace(&self.workspaces[index], self.door.user_slots, self.door.srv_slots)
        return 0

    cdef int refuse_slots(self, int64_t user, int64_t srv, int64_t index=-1) except -1:
        where = f"[{index}]" if index >= 0 else ""
        if self.users == 0:
            raise ValueError("the Mechanism is closed")
        if user >= self.users:
            raise IndexError(f"users{where}: slot {user} does not exist, expected 0 to {self.users - 1} "
                             "(see Mechanism.user)")
        raise IndexError(f"srvs{where}: number {srv} does not exist, expected 0 to {self.srvs - 1} (see Mechanism.srv)")


cdef void run_each(Door* door, SlabHead* slab, Batch* batch) noexcept nogil:
    cdef int64_t i
    cdef int outcome
    for i in range(batch.n):
        outcome = decide(door, slab, clamped(batch.users[i], door.user_slots), clamped(batch.srvs[i], door.srv_slots),
                         batch.now, batch.clock_is_ours, batch.shared)
        batch.out[i] = SPARE_CAPACITY if batch.observe and outcome == THROTTLED else outcome


cdef object seconds_up(int64_t ns):
    """Seconds as a float that is never less than the nanoseconds."""
    cdef double seconds = ns / 1e9
    if <int64_t>(seconds * 1e9) < ns:
        seconds = (ns + 1) / 1e9
    return seconds


include "handles.pxi"
