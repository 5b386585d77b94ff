# Terms from outside, checked and put in force: part of engine.pyx.

cdef int apply_terms(Engine self, dict settings, rules, services, int64_t now) except -1:
    cdef int64_t known = read(&self.settings_now().users)
    seldom()
    cdef Settings terms
    if self.closed or not is_writable(self.memory):
        raise ValueError("the Mechanism is closed" if self.closed else "the block may only be looked at")
    # No typed memoryviews: what Cython adds for those is a third of the extension.
    cdef ndarray given = as_array(rules, INT64, READABLE)
    cdef ndarray costs = as_array(services, UINT32, READABLE)
    if (dimensions_of(given) != 2 or not known <= shape_of(given)[0] <= self.door.user_slots
            or shape_of(given)[1] != 5):
        found = given.shape
        refuse(ValueError, "rules for %lld to %lld Users with 5 terms each expected, found the shape %S",
               <long long>known, <long long>self.door.user_slots, <PyObject*>found)
    if dimensions_of(costs) != 1 or shape_of(costs)[0] != self.door.srv_slots:
        found = costs.shape
        refuse(ValueError, "%lld SRVs expected, found the shape %S", <long long>self.door.srv_slots,
               <PyObject*>found)
    terms = settings_of(settings)
    terms.users = shape_of(given)[0]
    put_in_force(&self.door, &terms, <const int64_t*>data_of(given),
                 <const uint32_t*>data_of(costs), now)
    if not self.watching:
        self.ready()
        self.guard.users = max(self.guard.users, terms.users)
    return 0
