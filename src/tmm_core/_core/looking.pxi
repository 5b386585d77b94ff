# What can be seen of a block without deciding: part of engine.pyx.

cdef dict state_of(Engine self, now):
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


cdef object counts_of(Engine self):
    cdef int64_t users = self.settings_now().users
    cdef cnp.ndarray total = np.zeros((OUTCOMES, self.srvs, users), dtype=np.int64)
    cdef int64_t* cell = <int64_t*>cnp.PyArray_DATA(total)
    with nogil:
        add_up_counts(&self.door, users, cell)
    return np.ascontiguousarray(total.transpose(2, 1, 0))


cdef object units_of_users(Engine self):
    cdef int64_t users = self.settings_now().users
    cdef cnp.ndarray total = np.zeros((users, OUTCOMES), dtype=np.int64)
    cdef int64_t* cell = <int64_t*>cnp.PyArray_DATA(total)
    with nogil:
        add_up_units(&self.door, users, cell)
    return total


cdef object differences_of_users(Engine self):
    cdef int64_t users = self.settings_now().users
    cdef cnp.ndarray total = np.zeros((users, DIFFERENCES), dtype=np.int64)
    cdef int64_t* cell = <int64_t*>cnp.PyArray_DATA(total)
    with nogil:
        add_up_differences(&self.door, users, cell)
    return total


cdef object excess_of_users(Engine self):
    cdef int64_t users = self.settings_now().users, user
    cdef cnp.ndarray rates = np.zeros(users, dtype=np.int64)
    cdef int64_t* cell = <int64_t*>cnp.PyArray_DATA(rates)
    for user in range(users):
        cell[user] = read(&self.door.words[user].excess_rate)
    return rates


cdef int no_such_slot(Engine self, int64_t slot, int64_t index, bint user=True) except -1:
    """Say what does not exist, and where in a batch it is."""
    where = f"[{index}]" if index >= 0 else ""
    if user:
        raise IndexError(f"users{where}: slot {slot} does not exist, expected 0 to {self.settings_now().users - 1} "
                         "(see Mechanism.user)")
    raise IndexError(f"srvs{where}: number {slot} does not exist, expected 0 to {self.srvs - 1} (see Mechanism.srv)")


cdef object seconds_up(int64_t ns):
    """Seconds as a float that is never less than the nanoseconds."""
    cdef double seconds = ns / 1e9
    if <int64_t>(seconds * 1e9) < ns:
        seconds = (ns + 1) / 1e9
    return seconds
