# Slabs of counters for threads that decide without the GIL. Part of engine.pyx.

cdef int64_t claim_slab(Engine self) except -2:
    """Take a slab for a thread without the GIL, ours or a new one: its place among ours; -1 if there is none."""
    cdef int64_t index, free_word, slab
    for index in range(1, read(&self.owning)):
        free_word = 0
        if read(&self.taken[index]) == 0 and swap_if(&self.taken[index], &free_word, 1):
            return index
    if self.host is None or self.full:
        return -1
    slab = self.host.claim() if read(&self.owning) < OWN_MAX else -2
    if slab < 0:
        # -1: not just now, others are at it; a decision does not wait.
        self.full = slab == -2
        return -1
    sign(self, slab)
    index = read(&self.owning)
    self.own(slab)
    return index


cdef int sign(Engine self, int64_t slab) except -1:
    """Say whose the slab is, for people."""
    if self.host is not None and slab:
        write(&slab_at(&self.door, slab).owner, self.host.owner)
        write(&slab_at(&self.door, slab).adopted, slab_at(&self.door, slab).adopted + 1)
    return 0
