"""Many decisions at one instant: grouped by User, so that one compare-and-swap serves many Service Requests.

Pass 1 adds up each User's units, then every bucket grants what conforms, pass 2 hands the grants out in the order of
the requests. That gives what one by one gives, as long as the state of the Mechanism cannot change on the way:
`groupable` says how many requests that is. Large batches are added up in a histogram, and pass 2 is only for Users that
are over their allocations.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from .atomic cimport add, count, read, recheck, swap_if, unlikely
from .bucket cimport take
from .candidate cimport Candidate, compare, read_candidate, tell_difference
from .clock cimport clock_exact
from .decide cimport Terms, backlog_at, charge_load, copy_rule, decide_at_once, read_terms
from .gcra cimport ahead, base_of, plus, room_in, stamp_of
from .layout cimport (
    FIRST_COME, HARD, PRIORITY, SPARE_CAPACITY, THROTTLED, WITHIN_ALLOCATION,
    Door, SlabHead, units_of,
)
from .histogram cimport cell_of, clear, count_cells, everybody_inside, fill, gather, is_dense
from .load cimport active
from .sharing cimport spare_interval
from .tick cimport tick
from .workspace cimport ALL, EACH, GROUP_MAX, PLENTY, REST, Batch, Plan, Rule, Tally, Workspace, clamped, forget

cdef enum:
    PROBE = 512                     # requests looked at to guess how often a User repeats
    GROUP_MIN = 64                  # fewer are decided one by one
    REST_OF_STATE = 256             # requests decided one by one while the state may change


cdef inline bint repeats(Door* door, Workspace* work, Batch* batch, int64_t start) noexcept nogil:
    """Guess from the first requests whether a User comes up often enough for grouping to pay (birthday)."""
    cdef int64_t n = min(batch.n - start, <int64_t>PROBE), i, found = 0
    cdef uint32_t user
    for i in range(n):
        user = clamped(batch.users[start + i], door.user_slots)
        if work.tallies[user].own == 0:
            work.tallies[user].own = 1
            work.touched[found] = user
            found += 1
    for i in range(found):
        work.tallies[work.touched[i]].own = 0
    return (n - found) * (batch.n - start) > PROBE * PROBE


cdef inline int64_t groupable(Door* door, SlabHead* slab, Terms* terms, Batch* batch, int64_t start) noexcept nogil:
    """How many requests from `start` can be decided without the state changing on the way."""
    cdef int64_t n = min(batch.n - start, <int64_t>GROUP_MAX)
    cdef int64_t backlog = backlog_at(door, slab, &terms.queue, stamp_of(batch.now)), room
    if not active(door.control):
        room = terms.queue.activation - backlog
    elif terms.sharing == HARD or backlog > terms.brake:
        return n
    else:
        room = terms.brake - backlog
    if room < 0:
        return 0
    return min(n, room // (terms.queue.unit * terms.longest_cost))


cdef inline uint32_t ordinary(Tally* one) noexcept nogil:
    """Units not on the priority list."""
    return <uint32_t>one.units


cdef inline int64_t tally(Door* door, SlabHead* slab, Workspace* work, Batch* batch, int64_t start,
                          int64_t n) noexcept nogil:
    """Pass 1: add up the units of each User; returns how many Users there are."""
    cdef int64_t i = start, end = start + n, found = 0
    cdef const uint64_t* amounts = work.amounts
    cdef const uint32_t* users = batch.users
    cdef const uint16_t* srvs = batch.srvs
    cdef Tally* tallies = work.tallies
    cdef uint32_t mask = work.mask, user
    cdef uint64_t units
    while i < end:
        user = users[i] & mask
        units = amounts[srvs[i]]
        i += 1
        while i < end and users[i] == user:
            units += amounts[srvs[i]]
            i += 1
        if unlikely(tallies[user].units == 0):
            if user >= door.user_slots:
                continue
            tallies[user].row = units_of(door, slab, user, 0)
            work.touched[found] = user
            found += 1
        tallies[user].units += units
    return found


cdef inline int64_t grant(int64_t* word, int64_t interval, int64_t tolerance, int64_t wanted, bint uniform,
                          int64_t longest_cost, int64_t now, SlabHead* slab) noexcept nogil:
    """Charge a bucket for as many units as conform; -1 if which requests those are depends on their costs.

    `slab` counts an impossible word, as in `take`: NULL for a spare bucket.
    """
    cdef int64_t tat = read(word), base, room, given
    while True:
        base = base_of(tat, now, tolerance, longest_cost * interval)
        room = room_in(base, tolerance, interval)
        if room == 0:
            return 0
        if wanted > room and not uniform:
            return -1
        given = min(wanted, room)
        if swap_if(word, &tat, plus(now, base + given * interval)):
            if slab != NULL and base < ahead(tat, now):
                add(&slab.healed, 1)
            return given


cdef inline int64_t grant_in_time(int64_t* word, int64_t interval, int64_t tolerance, int64_t wanted, Batch* batch,
                                  int64_t longest_cost, SlabHead* slab) noexcept nogil:
    """Charge a bucket as `grant` does, never refusing by a clock read a whole batch ago.

    A candidate's bucket is asked again at the time the own one was: at a later one it would grant what that could not.
    """
    cdef int64_t given = grant(word, interval, tolerance, wanted, batch.uniform, longest_cost, stamp_of(batch.now),
                               slab)
    cdef int64_t more
    if 0 <= given < wanted and batch.clock_is_ours:
        if batch.again == 0:
            batch.again = clock_exact()
        more = grant(word, interval, tolerance, wanted - given, batch.uniform, longest_cost,
                     stamp_of(batch.again), slab)
        given = more if more < 0 else given + more
    return given


cdef inline void grant_own(Door* door, SlabHead* slab, Terms* terms, Rule* rule, Batch* batch, uint32_t user,
                           Tally* one, int64_t* given) noexcept nogil:
    """Ask the User's own bucket for its part of the batch."""
    cdef int64_t wanted = ordinary(one)
    given[0] = 0
    one.own = 0
    if rule.interval == 0:
        return
    given[0] = grant_in_time(&door.words[user].tat, rule.interval, rule.tolerance, wanted, batch,
                             terms.longest_cost, slab)
    if given[0] < 0:
        given[0] = 0
        one.own = EACH
    else:
        one.own = ALL if given[0] == wanted else <uint32_t>given[0]


cdef inline void grant_spare(Door* door, SlabHead* slab, Terms* terms, Rule* rule, Batch* batch, uint32_t user,
                             Tally* one, int64_t wanted, int64_t level, int64_t* given) noexcept nogil:
    """Ask the spare capacity for what is left; `level` is -1 where everything is admitted, 0 where nothing is."""
    given[0] = 0
    one.spare = 0
    if level == 0:
        return
    if one.own == EACH:
        one.spare = EACH
    elif level < 0:
        given[0] = wanted
        one.spare = ALL
    else:
        given[0] = grant(&door.words[user].spare_tat, spare_interval(rule.share_interval, level),
                         terms.spare_tolerance, wanted, batch.uniform, terms.longest_cost,
                         stamp_of(batch.now), NULL)
        one.spare = EACH if given[0] < 0 else ALL if given[0] == wanted else <uint32_t>given[0]
        given[0] = max(given[0], <int64_t>0)


cdef inline void grant_candidate(Door* door, SlabHead* slab, Batch* batch, uint32_t user, Tally* one, int64_t own,
                                 int64_t spare) noexcept nogil:
    """Ask the candidate's bucket for the User's part of the batch, or leave it to be asked for every request."""
    cdef Candidate terms
    cdef int64_t given = 0
    if not ordinary(one) or not read_candidate(door, user, 0, &terms):
        return
    if one.own == EACH or one.spare == EACH:
        given = -1
    elif terms.interval:
        given = grant_in_time(&door.aside[user].candidate_tat, terms.interval, terms.tolerance, ordinary(one), batch,
                              terms.longest_cost, NULL)
    if given >= 0:
        tell_difference(door, slab, user, own, spare, given, batch.shared)
        return
    one.ask_candidate = True
    if one.own == ALL:
        # One by one in pass 2: the same grants, but not by the tables.
        one.own = PLENTY


cdef inline void compare_in_time(Door* door, SlabHead* slab, Batch* batch, uint32_t user, uint32_t srv,
                                 int outcome) noexcept nogil:
    """Ask the candidate's bucket about one request, at the time at which the own one was asked."""
    if batch.again:
        compare(door, slab, user, srv, outcome, batch.again, False, batch.shared)
    else:
        compare(door, slab, user, srv, outcome, batch.now, batch.clock_is_ours, batch.shared)


cdef inline int64_t level_now(Door* door, SlabHead* slab, Terms* terms, int64_t now) noexcept nogil:
    """The level of a whole group: -1 where everything left is admitted, 0 where nothing is."""
    if not active(door.control):
        return -1
    if terms.sharing == HARD or backlog_at(door, slab, &terms.queue, now) > terms.brake:
        return 0
    if terms.sharing == FIRST_COME:
        return -1
    return max(read(&door.control.level), <int64_t>0)


cdef inline int ask_each(Door* door, SlabHead* slab, Terms* terms, Rule* rule, Batch* batch, uint32_t user,
                         Tally* one, int64_t cost, int64_t level) noexcept nogil:
    """Decide one request of a User whose mixed costs meet its limit inside the group."""
    cdef int64_t now
    batch.again = clock_exact() if batch.clock_is_ours else batch.now
    now = stamp_of(batch.again)
    if one.own == EACH and take(&door.words[user].tat, rule.interval, rule.tolerance, cost, terms.longest_cost,
                                now, slab):
        return WITHIN_ALLOCATION
    if level < 0:
        return SPARE_CAPACITY
    if level > 0 and take(&door.words[user].spare_tat, spare_interval(rule.share_interval, level),
                          terms.spare_tolerance, cost, terms.longest_cost, now, NULL):
        return SPARE_CAPACITY
    return THROTTLED


cdef inline int64_t tally_terms(Door* door, SlabHead* slab, Workspace* work, Batch* batch, Terms* terms,
                                int64_t start, int64_t n, bint dense) noexcept nogil:
    """Pass 1 and the terms of every User in it, all of one generation; returns how many Users there are."""
    cdef int64_t generation, found, i
    cdef uint32_t user, service
    while True:
        generation = read_terms(door, 0, 0, terms)
        batch.uniform = read(&door.control.settings[generation & 1].uniform)
        batch.candidate = read(&door.control.settings[generation & 1].candidate) != 0
        for i in range(door.srv_slots):
            service = door.services[(generation & 1) * door.srv_slots + i]
            work.answers[i] = PRIORITY if service & 1 else WITHIN_ALLOCATION
            work.cells[i] = work.answers[i] * door.cells + (1 + i) * door.column
            work.amounts[i] = <uint64_t>(service >> 1) << (32 * (service & 1))
        if dense:
            fill(work, batch, start, n)
            found = gather(door, slab, work, batch)
        else:
            found = tally(door, slab, work, batch, start, n)
        for i in range(found):
            user = work.touched[i]
            copy_rule(&work.rules[user], &door.words[user], generation)
        if recheck(&door.control.generation) == generation:
            return found
        forget(work, found)
        if dense:
            clear(work, batch)


cdef inline void tell_units(Door* door, Tally* one, int outcome, int64_t units, bint shared) noexcept nogil:
    """Count a User's units; nothing is written where there are none."""
    if units:
        count(one.row + outcome * door.cells, units, shared)


cdef inline int64_t grant_all(Door* door, SlabHead* slab, Workspace* work, Batch* batch, Terms* terms,
                              int64_t found, int64_t level) noexcept nogil:
    """Ask every User's buckets, and count the units; returns the units admitted."""
    cdef int64_t i, wanted, own, spare, admitted = 0
    cdef uint32_t user
    cdef Tally* one
    for i in range(found):
        user = work.touched[i]
        one = &work.tallies[user]
        wanted = ordinary(one)
        own = spare = batch.again = 0
        if not wanted:
            one.own = ALL
        else:
            grant_own(door, slab, terms, &work.rules[user], batch, user, one, &own)
            if one.own != ALL:
                grant_spare(door, slab, terms, &work.rules[user], batch, user, one, wanted - own, level, &spare)
        admitted += <int64_t>(one.units >> 32) + own + spare
        tell_units(door, one, PRIORITY, one.units >> 32, batch.shared)
        tell_units(door, one, WITHIN_ALLOCATION, own, batch.shared)
        tell_units(door, one, SPARE_CAPACITY, spare, batch.shared)
        if one.own != EACH and one.spare != EACH:
            tell_units(door, one, THROTTLED, wanted - own - spare, batch.shared)
        if unlikely(batch.candidate):
            grant_candidate(door, slab, batch, user, one, own, spare)
        one.rest = WITHIN_ALLOCATION if one.own == ALL else SPARE_CAPACITY if one.spare == ALL else THROTTLED
    return admitted


cdef inline int next_of(Tally* one) noexcept nogil:
    """Hand out the next grant of a User that is over its allocation in this batch."""
    if one.own:
        one.own -= 1
        return WITHIN_ALLOCATION
    if one.spare == ALL:
        return SPARE_CAPACITY
    if one.spare:
        one.spare -= 1
        return SPARE_CAPACITY
    return THROTTLED


cdef inline int64_t hand_out_inside(Workspace* work, Batch* batch, int64_t i, int64_t end) noexcept nogil:
    """Answer and count requests up to the first whose User is over its allocation; returns where that is."""
    # Copies: a store to `out` may alias anything, and everything would be read again for every request.
    cdef const uint32_t* users = batch.users
    cdef const uint16_t* srvs = batch.srvs
    cdef uint8_t* out = batch.out
    cdef const uint8_t* answers = work.answers
    cdef const int64_t* cells = work.cells
    cdef bint shared = batch.shared
    cdef uint32_t mask = work.mask
    cdef Tally* tallies = work.tallies
    cdef Tally* one
    while i < end:
        one = &tallies[users[i] & mask]
        if unlikely(one.own != ALL):
            break
        # Tables, no branch on the SRV: half of those would be guessed wrong.
        out[i] = answers[srvs[i]]
        count(one.row + cells[srvs[i]], 1, shared)
        i += 1
    return i


cdef inline int64_t hand_out_rest(Workspace* work, Batch* batch, int64_t i, int64_t end) noexcept nogil:
    """After a histogram, pass over who is inside and answer who has one outcome left; returns where that ends."""
    cdef const uint32_t* users = batch.users
    cdef const uint16_t* srvs = batch.srvs
    cdef uint8_t* out = batch.out
    cdef const uint8_t* answers = work.answers
    cdef uint32_t mask = work.mask
    cdef uint32_t refused = SPARE_CAPACITY if batch.observe else THROTTLED
    cdef Tally* tallies = work.tallies
    cdef Tally* one
    while i < end:
        one = &tallies[users[i] & mask]
        if one.own != ALL:
            if one.own != REST:
                break
            if answers[srvs[i]] != PRIORITY:
                out[i] = <uint8_t>(one.rest if one.rest != THROTTLED else refused)
        i += 1
    return i


cdef inline int64_t hand_out(Door* door, SlabHead* slab, Workspace* work, Batch* batch, Terms* terms,
                             int64_t i, int64_t end, int64_t level, bint dense) noexcept nogil:
    """Pass 2: the outcomes, in order, and the counts; returns units admitted that were asked for one by one."""
    cdef int64_t admitted = 0
    cdef uint32_t user, srv
    cdef int outcome
    cdef Tally* one
    cdef uint32_t* cell
    while True:
        i = hand_out_rest(work, batch, i, end) if dense else hand_out_inside(work, batch, i, end)
        if i == end:
            return admitted
        user = clamped(batch.users[i], batch.user_limit)
        srv = clamped(batch.srvs[i], batch.srv_limit)
        outcome = hand_to(door, slab, work, batch, terms, user, srv, level, &admitted)
        batch.out[i] = SPARE_CAPACITY if batch.observe and outcome == THROTTLED else outcome
        if dense:
            cell = cell_of(work, batch, user, srv)
            if cell[0]:
                cell[0] -= 1
            one = &work.tallies[user]
            if one.own == 0 and (one.spare == 0 or one.spare == ALL) and one.units and not one.ask_candidate:
                one.own = REST
        i += 1


cdef inline int hand_to(Door* door, SlabHead* slab, Workspace* work, Batch* batch, Terms* terms, uint32_t user,
                        uint32_t srv, int64_t level, int64_t* admitted) noexcept nogil:
    """Decide and count one request of a User that is over its allocation in this batch."""
    cdef Tally* one = &work.tallies[user]
    cdef int64_t cost
    cdef int outcome
    batch.again = 0
    if work.answers[srv] == PRIORITY:
        outcome = PRIORITY
    elif one.own != EACH and one.spare != EACH:
        outcome = next_of(one)
    else:
        # A bucket asked one by one: nothing has been granted from it.
        cost = work.amounts[srv]
        outcome = ask_each(door, slab, terms, &work.rules[user], batch, user, one, cost, level)
        count(one.row + outcome * door.cells, cost, batch.shared)
        if outcome != THROTTLED:
            admitted[0] += cost
    if unlikely(batch.candidate) and one.ask_candidate and outcome != PRIORITY:
        compare_in_time(door, slab, batch, user, srv, outcome)
    count(one.row + outcome * door.cells + (1 + <int64_t>srv) * door.column, 1, batch.shared)
    return outcome


cdef inline void decide_group(Plan* plan, Workspace* work, Batch* batch, int64_t start, int64_t n) noexcept nogil:
    """Decide `n` requests that cannot change the state of the Mechanism (see `groupable`)."""
    cdef Door* door = plan.door
    cdef SlabHead* slab = plan.slab
    cdef Terms terms
    cdef bint dense = is_dense(batch, n)
    cdef int64_t found = tally_terms(door, slab, work, batch, &terms, start, n, dense)
    cdef int64_t level = level_now(door, slab, &terms, stamp_of(batch.now))
    cdef int64_t admitted = grant_all(door, slab, work, batch, &terms, found, level)
    if not dense or not everybody_inside(work, found):
        admitted += hand_out(door, slab, work, batch, &terms, start, start + n, level, dense)
    if dense:
        count_cells(door, work, batch)
    if admitted:
        charge_load(plan, &terms.queue, admitted, batch.now)
    forget(work, found)


cdef inline void decide_each(Plan* plan, Batch* batch, int64_t start, int64_t n) noexcept nogil:
    """Decide `n` requests one by one."""
    cdef int64_t i
    cdef uint32_t user, srv
    cdef int64_t outcome
    tick(plan, batch.now)
    for i in range(start, start + n):
        user = clamped(batch.users[i], batch.user_limit)
        srv = clamped(batch.srvs[i], batch.srv_limit)
        outcome = decide_at_once(plan, user, srv, batch.now, True)
        if unlikely(outcome < 0):
            outcome = plan.long_way(plan, user, srv, ~outcome, batch.now, batch.clock_is_ours)
        batch.out[i] = <uint8_t>outcome


cdef inline void decide_batch(Plan* plan, Workspace* work, Batch* batch) noexcept nogil:
    """Decide a whole batch, in groups where that pays and gives the same."""
    cdef Door* door = plan.door
    cdef Terms terms
    cdef int64_t start = 0, n
    cdef bint grouping = batch.n >= GROUP_MIN and (
        is_dense(batch, batch.n) or (batch.n > PROBE and repeats(door, work, batch, 0)))
    tick(plan, batch.now)
    while start < batch.n:
        n = 0
        if grouping:
            read_terms(door, 0, 0, &terms)
            n = groupable(door, plan.slab, &terms, batch, start)
        if n >= GROUP_MIN or (n and n == batch.n - start):
            decide_group(plan, work, batch, start, n)
        else:
            n = min(batch.n - start, <int64_t>REST_OF_STATE if grouping else batch.n)
            decide_each(plan, batch, start, n)
        start += n
