# Decisions of this process one by one, and refusals with their grounds. Part of engine.pyx.
#
# What every request comes to is in line, in one straight way, and keeps little for after a call: so few registers are
# saved. What is seldom is in functions of its own.

cdef inline object answered(Engine self, uint32_t user, uint32_t srv, int64_t now, bint clock_is_ours):
    """Decide in this process's slab, under the GIL where there is one."""
    if unlikely(user >= self.guard.users or srv >= self.srvs):
        return answered_late(self, user, srv, now, clock_is_ours)
    return <object>self.answers[decided(self, user, srv, now, clock_is_ours)]


cdef object answered_late(Engine self, uint32_t user, uint32_t srv, int64_t now, bint clock_is_ours):
    """Refuse slots that do not exist, and decide."""
    seldom()
    if user >= self.guard.users or srv >= self.srvs:
        self.refuse_slots(user, srv)
    return <object>self.answers[decided(self, user, srv, now, clock_is_ours)]


cdef inline int decided(Engine self, uint32_t user, uint32_t srv, int64_t now, bint clock_is_ours) noexcept:
    """Decide for slots that exist."""
    cdef Plan own
    if not FREE_THREADED:
        return decide(&self.plan, user, srv, now, clock_is_ours)
    open_plan(&own, &self.door, self.slab, &self.scratch, True)
    return decide(&own, user, srv, now, clock_is_ours)


cdef bint ticked(Engine self, int64_t now) noexcept:
    cdef Plan own
    if not FREE_THREADED:
        return tick(&self.plan, now)
    open_plan(&own, &self.door, self.slab, &self.scratch, True)
    return tick(&own, now)


cdef tuple admit_recorded(Engine self, uint32_t user, uint32_t srv, int64_t at):
    seldom()
    if user >= self.guard.users or srv >= self.srvs:
        self.refuse_slots(user, srv)
    ticked(self, at)
    grounds = peeked(self, user, srv, at)
    if grounds["outcome"] != THROTTLED:
        return answered_late(self, user, srv, at, False), None
    add(count_of(&self.door, self.slab, user, THROTTLED, srv), 1)
    add(units_of(&self.door, self.slab, user, THROTTLED), grounds["cost"])
    if self.settings_now().candidate:
        compare(&self.door, self.slab, user, srv, THROTTLED, at, False, True)
    return <object>self.answers[SPARE_CAPACITY if self.settings_now().observe else THROTTLED], grounds
