# The handles beside the engine, part of engine.pyx: a User's gate, a thread's lane, and the door for C.

cdef enum:
    FOLLOWED_AT_MOST = 8


cdef class Gate:
    """A User's own handle: one argument a call. One per connection or thread; *thread-safe*.

    Notes
    -----
    It follows the configuration: when an identifier moves to another User, so does its gate.
    """

    @cython.always_allow_keywords(False)
    def admit(self, srv):
        """Decide on one Service Request of this User now; `srv` is a number from `Mechanism.srv`."""
        cdef uint32_t number = slot_of(srv, False)
        cdef int64_t now = clock_early()
        return self.answered(number, now, True)

    def admit_at(self, srv, now):
        """Decide on one Service Request of this User at `now`, nanoseconds on a monotonic clock."""
        return self.answered(slot_of(srv, False), ns_of(now), False)

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

    cdef inline object answered(self, uint32_t number, int64_t now, bint clock_is_ours):
        cdef int64_t outcome
        if unlikely(number >= self.engine.srvs or self.user >= self.engine.guard.users
                    or self.life != self.engine.life):
            return self.answered_late(number, now, clock_is_ours)
        if FREE_THREADED:
            if unlikely(read(&self.engine.door.control.generation) != self.generation):
                return self.answered_late(number, now, clock_is_ours)
            return answered(self.engine, self.user, number, now, clock_is_ours)
        outcome = decide_in_place(&self.engine.plan, &self.place, number, now, False)
        if unlikely(outcome < 0):
            if outcome == ~0 and read(&self.engine.door.control.generation) != self.generation:
                return self.answered_late(number, now, clock_is_ours)
            outcome = self.engine.plan.long_way(&self.engine.plan, self.user, number, ~outcome, now, clock_is_ours)
        return <object>self.engine.answers[outcome]

    cdef object answered_late(self, uint32_t number, int64_t now, bint clock_is_ours):
        """Decide where the slots do not exist, or the place is no longer the User's."""
        seldom()
        if self.user >= self.engine.guard.users or number >= self.engine.srvs:
            self.engine.refuse_slots(self.user, number)
        # It may move again meanwhile; in a process that is about to tell us of new terms, for as long as that takes.
        for _ in range(FOLLOWED_AT_MOST):
            if self.life == self.engine.life and read(&self.engine.door.control.generation) == self.generation:
                break
            self.follow()
        return answered_late(self.engine, self.user, number, now, clock_is_ours)

    cdef int follow(self) except -1:
        seldom()
        cdef tuple found = self.resolve(self.user_id)
        self.user, self.generation = found
        self.life = self.engine.life
        self.place.generation = NO_SHORT_WAY
        if not FREE_THREADED and not self.engine.watching:
            find_place(&self.place, &self.engine.plan, self.user, self.generation)
        return 0


cdef class Lane:
    """A thread's own handle: Cython and C decide through it without the GIL. *One thread at a time.*"""

    cdef int admit(self, uint32_t user, uint32_t srv) noexcept nogil:
        cdef int64_t now = clock_early()
        if likely(self.knows(user, srv)):
            return decide(&self.plan, user, srv, now, True)
        return self.admit_unknown(user, srv, now, True)

    cdef int admit_at(self, uint32_t user, uint32_t srv, int64_t now) noexcept nogil:
        if likely(self.knows(user, srv)):
            return decide(&self.plan, user, srv, now, False)
        return self.admit_unknown(user, srv, now, False)

    cdef inline bint knows(self, uint32_t user, uint32_t srv) noexcept nogil:
        """Whether both slots exist, in this life of the engine."""
        return self.engine.guard.epoch == self.epoch and user < self.plan.users and srv < self.plan.srv_slots

    cdef int admit_unknown(self, uint32_t user, uint32_t srv, int64_t now, bint clock_is_ours) noexcept nogil:
        seldom()
        if self.engine.guard.epoch != self.epoch:
            # A child after a fork must not count in its parent's slab: it has the common one.
            open_plan(&self.plan, &self.engine.door, slab_at(&self.engine.door, 0), &self.engine.scratch, True)
            self.epoch = self.engine.guard.epoch
            self.index = -1
        if is_stale(&self.plan):
            renew(&self.plan)
        return decide(&self.plan, clamped(user, self.plan.users), clamped(srv, self.plan.srv_slots), now,
                      clock_is_ours)

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


cdef Lane lane_of(Engine engine):
    cdef Lane lane = Lane.__new__(Lane)
    seldom()
    engine.ready()
    lane.index = claim_slab(engine)
    if lane.index < 0 and engine.host is None:
        refuse(RuntimeError, "all %lld lanes of this Mechanism are taken: close one", <long long>engine.owning - 1)
    lane.engine = engine
    lane.epoch = engine.guard.epoch
    open_plan(&lane.plan, &engine.door, slab_at(&engine.door, 0 if lane.index < 0 else engine.owned[lane.index]),
              &engine.scratch, lane.index < 0)
    return lane


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
    return take_place(&(<Lane>lane).engine.door, clamped(user, (<Lane>lane).engine.settings_now().users), now)


cdef CInterface c_interface
c_interface.version = 1
c_interface.nbytes = sizeof(CInterface)
c_interface.admit = c_admit
c_interface.admit_at = c_admit_at
c_interface.retry_after = c_retry_after
C_API = PyCapsule_New(&c_interface, "tmm_core._core.engine.C_API", NULL)
