"""The control tick: estimates, the level, and the way back to inactive. Run by whoever finds it due."""

from libc.stdint cimport int64_t, uint64_t
from .atomic cimport add, read, swap_if, write
from .gcra cimport SKEW, STAMP_SHIFT, WRAPPED, ahead, plus, stamp_of
from .layout cimport (
    OUTCOMES, SPARE_CAPACITY, THROTTLED, WITHIN_ALLOCATION, PRIORITY, Aside, Control, Door, Settings, slab_at,
    units_of,
)
from .load cimport charge_backlog, smoothed, waiting
from .plan cimport look_again
from .sharing cimport fill, satisfied_at
from .workspace cimport Plan, Scratch

cdef enum:
    SHORT_US = 250_000              # what a share is computed from
    LONG_US = 1_000_000             # what people are shown, and what ends an activation
    SPAN_MAX_US = 1_000_000_000     # 17 minutes: longer than any average remembers
    WORDS_SHIFT = 42                # of nanoseconds, 73 minutes: how often the words of Users are looked at


cdef inline bint tick_due(Control* control, int64_t tick_ns, int64_t now) noexcept nogil:
    """Whether a tick is due at `now`: the period is over, or the clock was set back."""
    cdef uint64_t set_back = SKEW >> STAMP_SHIFT
    # One comparison of unsigned numbers: what is set back by more is a long time since.
    return <uint64_t>ahead(now, read(&control.tick_at)) + set_back >= <uint64_t>tick_ns + set_back


cdef inline void refresh(int64_t* word, int64_t now, int64_t past, bint idle) noexcept nogil:
    """Keep a long idle word from wrapping round to the future: let it be `past`."""
    cdef int64_t found = read(word)
    cdef int64_t lead = ahead(found, now)
    if idle or lead < -WRAPPED or lead > WRAPPED:
        swap_if(word, &found, past)


cdef inline void refresh_users(Door* door, Settings* settings, int64_t stamp, bint idle) noexcept nogil:
    """Keep the words of Users from wrapping round. It fetches every User's line from whoever decides: now and then."""
    cdef int64_t user
    for user in range(settings.users):
        refresh(&door.words[user].tat, stamp, stamp, idle)
        refresh(&door.words[user].spare_tat, stamp, stamp, idle)
        refresh(&door.aside[user].horizon, stamp, plus(stamp, -(WRAPPED >> 1)), idle)
        if settings.candidate:
            refresh(&door.aside[user].candidate_tat, stamp, stamp, idle)


cdef inline int64_t survey(Door* door, Settings* settings, int half, int64_t span_us, int64_t* totals,
                           Scratch* scratch) noexcept nogil:
    """Add up all units by outcome and estimate each User's excess; returns how many Users are in excess."""
    cdef int64_t user, _slab, above, rate, throttled, spare, found = 0
    cdef int64_t slabs = read(&door.control.slabs_used), stride = door.slab_bytes // 8, cells = door.cells
    # Four variables, not an array: they stay in registers, and this is most of a tick.
    cdef int64_t all_throttled = 0, all_spare = 0, all_within = 0, all_priority = 0
    cdef int64_t* first = NULL      # the User's units in slab 0
    cdef int64_t* units
    cdef Aside* aside
    for user in range(settings.users):
        if user & ((<int64_t>1 << door.bits) - 1) == 0:
            first = units_of(door, slab_at(door, 0), user, 0)
        units = first
        first += 1
        throttled = spare = 0
        for _slab in range(slabs):
            throttled += read(units + THROTTLED * cells)
            spare += read(units + SPARE_CAPACITY * cells)
            all_within += read(units + WITHIN_ALLOCATION * cells)
            all_priority += read(units + PRIORITY * cells)
            units += stride
        all_throttled += throttled
        all_spare += spare
        aside = &door.aside[user]
        above = spare + throttled
        if above == aside.excess_seen and aside.excess_rate == 0:
            continue
        rate = smoothed(aside.excess_rate, min(above - aside.excess_seen, <int64_t>1 << 32), span_us, SHORT_US)
        aside.excess_seen = above
        aside.excess_rate = rate
        if rate:
            scratch.excess[found] = rate
            scratch.weight[found] = aside.weight[half]
            found += 1
    totals[THROTTLED] = all_throttled
    totals[SPARE_CAPACITY] = all_spare
    totals[WITHIN_ALLOCATION] = all_within
    totals[PRIORITY] = all_priority
    return found


cdef inline int64_t solve(Scratch* scratch, int64_t n, int64_t spare) noexcept nogil:
    """The level at which the Users in excess share `spare` (1/1024 units per second)."""
    cdef int64_t i
    if spare <= 0:
        return 0
    for i in range(n):
        # Nobody can have more than all of it: keeps the sums in range.
        scratch.excess[i] = min(scratch.excess[i], spare + 1)
        scratch.satisfied[i] = satisfied_at(scratch.excess[i], scratch.weight[i])
    return fill(scratch.excess, scratch.weight, scratch.satisfied, n, spare)


cdef inline int64_t given(Settings* settings, int64_t spare, int64_t backlog) noexcept nogil:
    """How much of the spare capacity to share out: the estimates of it are late, the backlog is not.

    Half as much again without a backlog, so that nothing stays unused; all of it with half the brake; half of it
    with twice that. So all are trimmed by weight: the brake would trim those who ask for little more than their share.
    """
    # A worker holds up to a block back, and then charges it whole: that is no backlog.
    cdef int64_t meant = (settings.brake >> 1) + settings.charge_block * settings.unit
    # In about microseconds, or the product does not fit.
    return spare * ((3 * meant - min(backlog, 2 * meant)) >> 17) // max(meant >> 16, <int64_t>1)


cdef inline void calm_down(Control* control, Settings* settings, int64_t span_us, int64_t now) noexcept nogil:
    """Become inactive once the offered load has been low for long enough and all retry slots have passed."""
    cdef int64_t state = read(&control.state)
    cdef int64_t owed
    if read(&control.offered) >= settings.release_rate:
        write(&control.quiet_us, 0)
        return
    write(&control.quiet_us, read(&control.quiet_us) + span_us)
    owed = ahead(read(&control.retry_until), stamp_of(now))
    if not state & 1 or read(&control.quiet_us) < settings.hold_us or 0 < owed <= settings.retry_cap + SKEW:
        return
    if swap_if(&control.state, &state, state - 1):
        write(&control.changed_at, now)


cdef inline bint tick(Plan* plan, int64_t now) noexcept nogil:
    """Run a control tick if one is due and nobody else has taken it."""
    cdef Door* door = plan.door
    cdef Scratch* scratch = plan.scratch
    cdef Control* control = door.control
    cdef int half = read(&control.generation) & 1
    cdef Settings* settings = &control.settings[half]
    cdef int64_t since = read(&control.tick_at), free = 0, span_us, quiet_us, outcome, grown, n, spare, held
    cdef int64_t totals[4]
    cdef int64_t offered = 0, admitted = 0
    cdef bint idle
    if not tick_due(control, settings.tick_ns, now) or not swap_if(&scratch.busy, &free, 1):
        return False
    if not swap_if(&control.tick_at, &since, now):
        write(&scratch.busy, 0)
        return False
    span_us = ahead(now, since) // 1000
    if span_us > 0:
        # Whole microseconds only; what is left over belongs to the next tick.
        write(&control.tick_at, since + span_us * 1000)
        # After half a year without a tick a stamp no longer tells past from future; this clock does.
        idle = span_us > (WRAPPED >> STAMP_SHIFT) // 1000
        refresh(&control.backlog, stamp_of(now), stamp_of(now), idle)
        refresh(&control.retry_until, stamp_of(now), stamp_of(now), idle)
        quiet_us = span_us
        span_us = min(span_us, <int64_t>SPAN_MAX_US)
        if not plan.shared:
            held = read(&plan.slab.pending)
            write(&plan.slab.pending, 0)
            look_again(plan)
            charge_backlog(&control.backlog, held * settings.unit, stamp_of(now), settings.ceiling)
        if since >> WORDS_SHIFT != now >> WORDS_SHIFT:
            refresh_users(door, settings, stamp_of(now), idle)
        n = survey(door, settings, half, span_us, totals, scratch)
        for outcome in range(OUTCOMES):
            grown = min(totals[outcome] - read(&control.seen[outcome]), <int64_t>1 << 32)
            write(&control.seen[outcome], totals[outcome])
            write(&control.rate[outcome], smoothed(read(&control.rate[outcome]), grown, span_us, SHORT_US))
            offered += grown
            if outcome != THROTTLED:
                admitted += grown
        write(&control.load, smoothed(read(&control.load), admitted, span_us, LONG_US))
        write(&control.offered, smoothed(read(&control.offered), offered, span_us, LONG_US))
        spare = settings.threshold_rate - read(&control.rate[PRIORITY]) - read(&control.rate[WITHIN_ALLOCATION])
        spare = given(settings, spare, waiting(read(&control.backlog), stamp_of(now), settings.ceiling))
        write(&control.level, solve(scratch, n, spare))
        calm_down(control, settings, quiet_us, now)
    add(&control.ticks, 1)
    write(&scratch.busy, 0)
    return True
