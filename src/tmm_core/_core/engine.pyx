# cython: freethreading_compatible=True, binding=False, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, embedsignature=False
"""The engine: checks what comes from outside, then decides without the GIL's help.

``boundscheck=False`` is safe because every index is checked against the slots before it is used, once at the
door; TMM_DEBUG=1 builds with the checks on.
"""

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from .atomic cimport add, begin_writing, publish, read, read_published, swap_if, write
from .batch cimport Batch, Tally, Workspace, clamped, decide_batch
from .clock cimport clock_early, clock_exact, clock_step
from .decide cimport FREE_THREADED, Terms, active, backlog_at, decide, read_terms
from .gcra cimport WRAPPED, base_of, plus, stamp_of
from .layout cimport (
    FIRST_COME, HARD, LAYOUT_VERSION, LINE, OUTCOMES, SPARE_CAPACITY, THROTTLED, Control, Door, Rule, Settings,
    SlabHead, Words, block_size, count_of, open_door, slab_at, units_of,
)
from .load cimport waiting
from .retry cimport take_place
from .sharing cimport spare_interval
from .tick cimport Scratch, tick, tick_due

import numpy as np

cnp.import_array()

cdef int64_t MAGIC = 0x31304D4D54   # "TMM01"

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

    def __cinit__(self, cnp.ndarray memory not None, int64_t users, int64_t srvs, int64_t slabs, tuple outcomes not None,
                  int64_t first_slab, int64_t last_slab, int64_t now):
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
            control.magic = MAGIC
            control.layout = LAYOUT_VERSION
            control.user_slots = users
            control.srv_slots = srvs
            control.slab_slots = slabs
            control.nbytes = block_size(users, srvs, slabs)
            control.backlog = stamp_of(now)
            control.retry_until = stamp_of(now)
            control.tick_at = now
            control.changed_at = now
        elif (control.magic != MAGIC or control.layout != LAYOUT_VERSION or control.user_slots != users
                or control.srv_slots != srvs or control.slab_slots != slabs):
            raise ValueError(f"the block has layout {control.layout} with {control.user_slots} Users, {control.srv_slots} "
                             f"SRVs and {control.slab_slots} slabs; expected layout {LAYOUT_VERSION} with {users}, "
                             f"{srvs} and {slabs}")
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
                free(self.workspaces[index].tallies)
                free(self.workspaces[index].touched)
                free(self.workspaces[index].rules)
                free(self.workspaces[index].amounts)
                free(self.workspaces[index].priority)
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
            stops spare admissions), `level`, `spare` (whether the spare bucket conforms), `outcome`.
        """
        cdef int64_t at = clock_exact() if now is None else now
        if user >= self.users or srv >= self.srvs:
            self.refuse_slots(user, srv)
        return look(&self.door, self.slab, user, srv, at)

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
            raise RuntimeError(f"all {self.last_slab - self.first_slab - 1} lanes of this Mechanism are taken: close one")
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
        cdef Control* control = self.door.control
        cdef int64_t generation = read(&control.generation) + 1
        cdef int64_t half = generation & 1, known = read(&self.settings_now().users), user
        cdef int64_t[:, ::1] given = np.ascontiguousarray(rules, dtype=np.int64)
        cdef uint32_t[::1] costs = np.ascontiguousarray(services, dtype=np.uint32)
        if given.shape[0] > self.door.user_slots or given.shape[0] < known or given.shape[1] != 4:
            raise ValueError(f"rules for {known} to {self.door.user_slots} Users with 4 terms each expected, found "
                             f"{given.shape[0]} with {given.shape[1]}")
        if costs.shape[0] != self.door.srv_slots:
            raise ValueError(f"{self.door.srv_slots} SRVs expected, found {costs.shape[0]}")
        terms = settings_of(settings)
        begin_writing()
        control.settings[half] = terms
        control.settings[half].users = given.shape[0]
        for user in range(self.door.srv_slots):
            self.door.services[half * self.door.srv_slots + user] = costs[user]
        for user in range(given.shape[0]):
            write_rule(&self.door.rules[user].half[half], given[user, 0], given[user, 1], given[user, 2], given[user, 3])
            if user >= known:
                write(&self.door.words[user].tat, stamp_of(now))
                write(&self.door.words[user].spare_tat, stamp_of(now))
                write(&self.door.words[user].horizon, plus(stamp_of(now), -(WRAPPED >> 1)))
        publish(&control.generation, generation)
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
        cdef int64_t slabs = read(&self.door.control.slabs_used)
        cdef cnp.ndarray total = np.zeros((OUTCOMES, self.users, self.srvs), dtype=np.int64)
        cdef int64_t* cell = <int64_t*>cnp.PyArray_DATA(total)
        cdef int64_t n = self.users * self.srvs, index, outcome, i
        cdef int64_t* part
        with nogil:
            for index in range(slabs):
                for outcome in range(OUTCOMES):
                    part = count_of(&self.door, slab_at(&self.door, index), 0, outcome, 0)
                    for i in range(n):
                        cell[outcome * n + i] += read(part + i)
        return np.ascontiguousarray(total.transpose(1, 2, 0))

    def units(self):
        """Return the units decided so far: ndarray of int64, shape (users, 4). *Thread-safe.*"""
        total = np.zeros((self.users, OUTCOMES), dtype=np.int64)
        cdef int64_t[:, ::1] cell = total
        cdef int64_t index, user
        cdef int outcome
        for index in range(read(&self.door.control.slabs_used)):
            for user in range(cell.shape[0]):
                for outcome in range(OUTCOMES):
                    cell[user, outcome] += read(units_of(slab_at(&self.door, index), user) + outcome)
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
        """Make the workspace of a slab."""
        cdef Workspace* work = &self.workspaces[index]
        if work.priority != NULL:
            return 0
        if work.tallies == NULL:
            work.tallies = <Tally*>calloc(self.door.user_slots, sizeof(Tally))
        if work.touched == NULL:
            work.touched = <uint32_t*>calloc(self.door.user_slots, sizeof(uint32_t))
        if work.rules == NULL:
            work.rules = <Rule*>calloc(self.door.user_slots, sizeof(Rule))
        if work.amounts == NULL:
            work.amounts = <uint64_t*>calloc(self.door.srv_slots, sizeof(uint64_t))
        if work.tallies == NULL or work.touched == NULL or work.rules == NULL or work.amounts == NULL:
            raise MemoryError()
        # The last one says that all are there.
        work.priority = <uint8_t*>calloc(self.door.srv_slots, sizeof(uint8_t))
        if work.priority == NULL:
            raise MemoryError()
        return 0

    cdef int refuse_slots(self, int64_t user, int64_t srv, int64_t index=-1) except -1:
        where = f"[{index}]" if index >= 0 else ""
        if self.users == 0:
            raise ValueError("the Mechanism is closed")
        if user >= self.users:
            raise IndexError(f"users{where}: slot {user} does not exist, expected 0 to {self.users - 1} (see Mechanism.user)")
        raise IndexError(f"srvs{where}: number {srv} does not exist, expected 0 to {self.srvs - 1} (see Mechanism.srv)")


cdef class Gate:
    """A User's own handle: one argument a call. One per connection or thread; *thread-safe*.

    Notes
    -----
    It follows the configuration: when an identifier moves to another User, so does its gate.
    """

    def admit(self, srv):
        """Decide on one Service Request of this User now; `srv` is a number from `Mechanism.srv`."""
        cdef uint32_t number = srv
        cdef Engine engine = self.engine
        cdef int64_t now = clock_early()
        if read(&engine.door.control.generation) != self.generation:
            self.follow()
        if self.user >= engine.users or number >= engine.srvs:
            engine.refuse_slots(self.user, number)
        engine.tick_if_due(engine.slab, now)
        return engine.answer(decide(&engine.door, engine.slab, self.user, number, now, True, FREE_THREADED))

    def admit_at(self, uint32_t srv, int64_t now):
        """Decide on one Service Request of this User at `now`, nanoseconds on a monotonic clock."""
        if read(&self.engine.door.control.generation) != self.generation:
            self.follow()
        return self.engine.admit_at(self.user, srv, now)

    def retry_after(self, now=None):
        """Take this User's next retry slot: seconds from now; see `Mechanism.retry_after`."""
        if read(&self.engine.door.control.generation) != self.generation:
            self.follow()
        return self.engine.retry_after(self.user, now)

    @property
    def slot(self):
        """The User's slot."""
        if read(&self.engine.door.control.generation) != self.generation:
            self.follow()
        return self.user

    cdef int follow(self) except -1:
        user, generation = self.resolve(self.user_id)
        self.user = user
        self.generation = generation
        return 0


cdef class Lane:
    """A thread's own handle: Cython and C decide through it without the GIL. *One thread at a time.*"""

    cdef int admit(self, uint32_t user, uint32_t srv) noexcept nogil:
        cdef int64_t now = clock_early()
        self.engine.tick_if_due(self.slab, now)
        return self.heeded(decide(&self.engine.door, self.slab, clamped(user, self.engine.users),
                                  clamped(srv, self.engine.srvs), now, True, False))

    cdef int admit_at(self, uint32_t user, uint32_t srv, int64_t now) noexcept nogil:
        self.engine.tick_if_due(self.slab, now)
        return self.heeded(decide(&self.engine.door, self.slab, clamped(user, self.engine.users),
                                  clamped(srv, self.engine.srvs), now, False, False))

    cdef inline int heeded(self, int outcome) noexcept nogil:
        if outcome == THROTTLED and self.engine.settings_now().observe:
            return SPARE_CAPACITY
        return outcome

    @property
    def pointer(self):
        """A capsule for C: see ``tmm_core.h``. Valid as long as this object is."""
        return PyCapsule_New(<void*>self, "tmm_core.lane", NULL)

    def close(self):
        """Give the slab back; its counts stay."""
        if self.index >= 0:
            self.engine.release(self.index)
            self.index = -1

    def __dealloc__(self):
        if self.engine is not None and self.index >= 0:
            self.engine.release(self.index)


# ---- the door for C: tmm_core.h

cdef struct CInterface:
    uint32_t version
    uint32_t nbytes
    int (*admit)(void* lane, uint32_t user, uint32_t srv) noexcept nogil
    int (*admit_at)(void* lane, uint32_t user, uint32_t srv, int64_t now) noexcept nogil
    int64_t (*retry_after)(void* lane, uint32_t user, int64_t now) noexcept nogil


cdef int c_admit(void* lane, uint32_t user, uint32_t srv) noexcept nogil:
    return (<Lane>lane).admit(user, srv)


cdef int c_admit_at(void* lane, uint32_t user, uint32_t srv, int64_t now) noexcept nogil:
    return (<Lane>lane).admit_at(user, srv, now)


cdef int64_t c_retry_after(void* lane, uint32_t user, int64_t now) noexcept nogil:
    return take_place(&(<Lane>lane).engine.door, clamped(user, (<Lane>lane).engine.users), now)


cdef CInterface c_interface
c_interface.version = 1
c_interface.nbytes = sizeof(CInterface)
c_interface.admit = c_admit
c_interface.admit_at = c_admit_at
c_interface.retry_after = c_retry_after
C_API = PyCapsule_New(&c_interface, "tmm_core._core.engine.C_API", NULL)


# ---- helpers without a self

cdef int64_t check_arrays(users, srvs, out) except -1:
    """Check the arrays of a batch; returns their length."""
    check_array(users, "users", cnp.NPY_UINT32, "uint32")
    check_array(srvs, "srvs", cnp.NPY_UINT16, "uint16")
    check_array(out, "out", cnp.NPY_UINT8, "uint8")
    cdef int64_t n = cnp.PyArray_DIM(users, 0)
    if cnp.PyArray_DIM(srvs, 0) != n or cnp.PyArray_DIM(out, 0) != n:
        raise ValueError(f"users, srvs and out must be of one length, found {n}, {cnp.PyArray_DIM(srvs, 0)} and "
                         f"{cnp.PyArray_DIM(out, 0)}")
    if not cnp.PyArray_ISWRITEABLE(out):
        raise ValueError("out must be writable")
    cdef size_t begin = <size_t>cnp.PyArray_DATA(out), first = <size_t>cnp.PyArray_DATA(users)
    cdef size_t second = <size_t>cnp.PyArray_DATA(srvs)
    if n and ((begin < first + 4 * n and first < begin + n) or (begin < second + 2 * n and second < begin + n)):
        raise ValueError("out must not overlap users or srvs")
    return n


cdef int check_array(array, str name, int number, str dtype) except -1:
    if not cnp.PyArray_Check(array):
        raise TypeError(f"{name} must be an ndarray of {dtype}, found {type(array).__name__}")
    if cnp.PyArray_NDIM(array) != 1:
        raise ValueError(f"{name} must have one dimension, found {cnp.PyArray_NDIM(array)}")
    if cnp.PyArray_TYPE(array) != number or not cnp.PyArray_ISNOTSWAPPED(array):
        raise TypeError(f"{name} must be of dtype {dtype}, found {array.dtype}")
    if not cnp.PyArray_IS_C_CONTIGUOUS(array) or not cnp.PyArray_ISALIGNED(array):
        raise ValueError(f"{name} must be contiguous and aligned: use numpy.ascontiguousarray")
    return 0


cdef int64_t first_beyond(Batch* batch, uint32_t users, uint32_t srvs) noexcept nogil:
    """Index of the first request with a slot that does not exist; -1 if there is none."""
    cdef uint32_t top = 0
    cdef uint16_t number = 0
    cdef int64_t i
    for i in range(batch.n):
        top = max(top, batch.users[i])
        number = max(number, batch.srvs[i])
    if batch.n == 0 or (top < users and number < srvs):
        return -1
    for i in range(batch.n):
        if batch.users[i] >= users or batch.srvs[i] >= srvs:
            return i
    return -1


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


cdef Settings settings_of(dict terms) except *:
    cdef Settings settings
    memset(&settings, 0, sizeof(Settings))
    settings.unit = terms["unit"]
    settings.activation = terms["activation"]
    settings.brake = terms["brake"]
    settings.ceiling = terms["ceiling"]
    settings.charge_block = terms["charge_block"]
    settings.longest_cost = terms["longest_cost"]
    settings.sharing = terms["sharing"]
    settings.spare_tolerance = terms["spare_tolerance"]
    settings.tick_ns = terms["tick_ns"]
    settings.hold_us = terms["hold_us"]
    settings.release_rate = terms["release_rate"]
    settings.threshold_rate = terms["threshold_rate"]
    settings.retry_cap = terms["retry_cap"]
    settings.uniform = terms["uniform"]
    settings.observe = terms["observe"]
    return settings


cdef void write_rule(Rule* rule, int64_t interval, int64_t tolerance, int64_t share_interval, int64_t weight) noexcept nogil:
    write(&rule.interval, interval)
    write(&rule.tolerance, tolerance)
    write(&rule.share_interval, share_interval)
    write(&rule.weight, weight)


cdef object look(Door* door, SlabHead* slab, uint32_t user, uint32_t srv, int64_t at):
    cdef Terms terms
    cdef int64_t now = stamp_of(at), longest, wait = 0, level, spare_base, outcome
    cdef bint own = False, spare = False, braked
    read_terms(door, user, srv, &terms)
    if terms.rule.interval:
        wait = base_of(read(&door.words[user].tat), now, terms.rule.tolerance,
                       terms.longest_cost * terms.rule.interval) - terms.rule.tolerance
        own = wait <= 0
    braked = backlog_at(door, slab, &terms, now) > terms.brake
    level = read(&door.control.level)
    if terms.sharing != HARD and not braked:
        spare = terms.sharing == FIRST_COME
        if not spare and level > 0:
            longest = terms.longest_cost * spare_interval(terms.rule.share_interval, level)
            spare_base = base_of(read(&door.words[user].spare_tat), now, terms.spare_tolerance, longest)
            spare = spare_base <= terms.spare_tolerance
    outcome = 3 if terms.service & 1 else 2 if own else 1 if spare or not active(door.control) else 0
    return {
        "priority": terms.service & 1, "cost": terms.service >> 1, "own": own,
        "own_wait_ns": (max(wait, <int64_t>0) + 127) >> 7, "allocated": terms.rule.interval != 0,
        "active": active(door.control), "sharing": terms.sharing, "brake": braked, "level": level, "spare": spare,
        "outcome": outcome,
    }
