# Batches. Part of engine.pyx.

from .workspace cimport make_histogram, make_workspace, resize_histogram


cdef int check_slots(Engine self, Batch* batch) except -1:
    """Refuse slots that do not exist, before anything is decided; the batch's limits say which do."""
    cdef int64_t index
    batch.user_limit, batch.srv_limit = self.guard.users, self.srvs
    index = first_beyond(batch)
    while index >= 0:
        self.refuse_slots(batch.users[index], batch.srvs[index], index)
        # Added meanwhile by another process.
        batch.user_limit = self.guard.users
        index = first_beyond(batch)
    return 0


cdef int run_batch(Engine self, Batch* batch) except -1:
    """Run a batch: on a slab of its own without the GIL, or on the process's slab."""
    cdef Settings* settings = self.settings_now()
    cdef int64_t index = -1
    cdef Plan own
    batch.uniform = settings.uniform
    batch.observe = settings.observe
    batch.shared = False
    if batch.n >= RELEASE_GIL_FROM:
        index = claim_slab(self)
    if index < 0:
        batch.shared = self.shared
        if FREE_THREADED:
            open_plan(&own, &self.door, self.slab, &self.scratch, True)
            decide_each(&own, batch, 0, batch.n)
        elif batch.n < RELEASE_GIL_FROM:
            decide_each(&self.plan, batch, 0, batch.n)
        else:
            prepare(self, 0, batch)
            decide_batch(&self.plan, &self.workspaces[0], batch)
        return 0
    open_plan(&own, &self.door, slab_at(&self.door, self.owned[index]), &self.scratch, False)
    try:
        prepare(self, index, batch)
        lend_pending(self, self.slab, own.slab)
        with nogil:
            decide_batch(&own, &self.workspaces[index], batch)
            if self.shared:
                hold_nothing_back(&own, batch.now)
        lend_pending(self, own.slab, self.slab)
    finally:
        self.release(index)
    return 0


cdef void lend_pending(Engine self, SlabHead* giver, SlabHead* taker) noexcept nogil:
    """Move the units held back, under the GIL: a batch goes on where the scalar calls stopped."""
    if not self.shared:
        write(&taker.pending, taker.pending + giver.pending)
        write(&giver.pending, 0)
        look_again(&self.plan)


cdef int prepare(Engine self, int64_t index, Batch* batch) except -1:
    """Make the workspace of a slab, once, and its histogram when the first large batch comes."""
    if self.workspaces[index].answers == NULL:
        seldom()
        make_workspace(&self.workspaces[index], self.door.user_slots)
    if self.workspaces[index].filled == NULL and is_dense(batch, batch.n):
        seldom()
        make_histogram(&self.workspaces[index])
    if self.workspaces[index].histogram_users != batch.user_limit and self.workspaces[index].filled != NULL:
        resize_histogram(&self.workspaces[index], batch.user_limit)
    return 0
