# What can be seen of a block without deciding: part of engine.pyx.

cdef dict state_of(Engine self, now):
    cdef Control* control = self.door.control
    cdef Settings* settings = self.settings_now()
    cdef int64_t at = read(&control.tick_at) if now is None else ns_of(now)
    cdef int64_t state = read(&control.state), pending = 0, healed = 0, index
    for index in range(read(&control.slabs_used)):
        pending += read(&slab_at(&self.door, index).pending)
        healed += read(&slab_at(&self.door, index).healed)
    seldom()
    cdef Named[11] found = [
        Named("active", state & 1), Named("activations", state >> 1), Named("level", read(&control.level)),
        Named("load", read(&control.load)), Named("offered", read(&control.offered)),
        Named("backlog", waiting(read(&control.backlog), stamp_of(at), settings.ceiling) + pending * settings.unit),
        Named("ticks", read(&control.ticks)), Named("tick_at", read(&control.tick_at)),
        Named("changed_at", read(&control.changed_at)), Named("healed", healed),
        Named("generation", read(&control.generation)),
    ]
    return as_dict(found, 11)


cdef dict peeked(Engine self, uint32_t user, uint32_t srv, int64_t at):
    if not self.watching and (user >= self.guard.users or srv >= self.srvs):
        self.refuse_slots(user, srv)
    if user >= self.settings_now().users or srv >= self.srvs:
        no_such_slot(self, user, -1) if user >= self.settings_now().users else no_such_slot(self, srv, -1, False)
    return look(&self.door, self.slab, user, srv, at)


cdef ndarray sums(int dimensions, int64_t first, int64_t second, int64_t third=0):
    """Return an array of zeros."""
    cdef npy_intp[3] shape = [first, second, third]
    return zeros(dimensions, shape, INT64, 0)


cdef object counts_of(Engine self):
    cdef int64_t users = self.settings_now().users
    cdef ndarray total = sums(3, OUTCOMES, self.srvs, users)
    cdef int64_t* cell = <int64_t*>data_of(total)
    seldom()
    with nogil:
        add_up_counts(&self.door, users, cell)
    return total.transpose(2, 1, 0).copy()


cdef object units_of_users(Engine self):
    cdef int64_t users = self.settings_now().users
    cdef ndarray total = sums(2, users, OUTCOMES)
    cdef int64_t* cell = <int64_t*>data_of(total)
    seldom()
    with nogil:
        add_up_units(&self.door, users, cell)
    return total


cdef object differences_of_users(Engine self):
    cdef int64_t users = self.settings_now().users
    cdef ndarray total = sums(2, users, DIFFERENCES)
    cdef int64_t* cell = <int64_t*>data_of(total)
    seldom()
    with nogil:
        add_up_differences(&self.door, users, cell)
    return total


cdef object excess_of_users(Engine self):
    cdef int64_t users = self.settings_now().users, user
    cdef ndarray rates = sums(1, users, 0)
    cdef int64_t* cell = <int64_t*>data_of(rates)
    seldom()
    for user in range(users):
        cell[user] = read(&self.door.aside[user].excess_rate)
    return rates


cdef int no_such_slot(Engine self, int64_t slot, int64_t index, bint user=True) except -1:
    """Say what does not exist, and where in a batch it is."""
    cdef const char* what = "users" if user else "srvs"
    cdef const char* kind = "slot" if user else "number"
    cdef const char* see = "user" if user else "srv"
    cdef int64_t last = (self.settings_now().users if user else self.srvs) - 1
    seldom()
    if index < 0:
        refuse(IndexError, "%s: %s %lld does not exist, expected 0 to %lld (see Mechanism.%s)", what, kind,
               <long long>slot, <long long>last, see)
    refuse(IndexError, "%s[%lld]: %s %lld does not exist, expected 0 to %lld (see Mechanism.%s)", what,
           <long long>index, kind, <long long>slot, <long long>last, see)


cdef object seconds_up(int64_t ns):
    """Seconds as a float that is never less than the nanoseconds."""
    cdef double seconds = ns / 1e9
    if <int64_t>(seconds * 1e9) < ns:
        seconds = (ns + 1) / 1e9
    return seconds


cdef list owners_of(Engine self):
    cdef int64_t index
    seldom()
    return [(slab_at(&self.door, index).owner, slab_at(&self.door, index).adopted)
            for index in range(read(&self.door.control.slabs_used))]


cdef tuple words_of(Engine self, uint32_t user):
    cdef Words* words = &self.door.words[user]
    seldom()
    if user >= self.settings_now().users:
        no_such_slot(self, user, -1)
    return read(&words.tat), read(&words.spare_tat), read(&self.door.aside[user].horizon)
