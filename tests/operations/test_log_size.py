"""How large the event log grows: what docs/operations.md says of it."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tmm_core.operations.event_log.event_records import Batch, Source, SystemMinute
from tmm_core.operations.events import EventLog

from .world import NOON

_MINUTES = 30 * 24 * 60


def test_a_month_of_a_hundred_users_is_about_as_large_as_is_told(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    source = Source("f00d", "shared", NOON, 1)
    used = {f"User {n}": chance.sample(range(129), 40 if n < 13 else 5) for n in range(100)}
    sizes, took = [], 0.0
    log = EventLog(tmp_path / "events.db", at_ms=NOON)
    for number in range(300):
        at_s = NOON // 1000 + number * 60
        counts = {
            (user, f"srv {srv}"): [0, chance.randrange(20), chance.randrange(400), chance.randrange(40)]
            for user, srvs in used.items()
            for srv in srvs
        }
        units = {(user,): [0, 100, 2_000, 200] for user in used}
        batch = Batch(source, at_s * 1000, at_s * 1000 + 59_000, at_s * 1_000_000_000, polls=60)
        batch.counts, batch.units = counts, units
        batch.minute_counts = {(at_s, *cell): row for cell, row in counts.items()}
        batch.user_minutes = {(at_s, user): [0, 100, 2_000, 200, 0, 100, 2_000, 200] for user in used}
        batch.system_minutes = {at_s: SystemMinute(60, 0, 1e6, 2e4, 1e6, 2e4, 0.1)}
        began = time.perf_counter()
        log.append(batch)
        took += time.perf_counter() - began
        if number in (99, 299):
            log.close()
            sizes.append(log.file.stat().st_size)
            log = EventLog(tmp_path / "events.db", at_ms=NOON)
    log.close()
    month_gb = (sizes[1] - sizes[0]) / 200 * _MINUTES / 1e9
    print(f"{month_gb:.2f} GB a month and host, {took / 300:.3f} s a minute to write; seed {seed}")
    assert 1.0 <= month_gb <= 1.2
