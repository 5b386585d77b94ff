"""Event logs of a whole month on several hosts, made from aggregate rows: as large as the real ones, in seconds.

Rows are what the log's writer would have left; no Service Request is made. `minute_counts` is left out: the
report does not read it.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tmm_core import Config, PriorityList
from tmm_core.operations.event_log.event_records import config_record
from tmm_core.operations.event_log.files import file_of
from tmm_core.operations.event_log.schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION

SRVS = ("4.1.1", "4.6.1", "4.8.1", "2.2", "4.18", "7.4", "6.13", "8.2", "1.1.1", "(unknown)")
PRIORITY = ("2.2", "4.18", "7.4")
_SRV_SHARES = np.array([24, 20, 26, 8, 4, 3, 6, 5, 3, 1]) / 100
_DAY, _MINUTES = 86_400, 1_440
_MEAN_SHAPE = 0.842  # of the day below, weekends included
#: Day of the month from 0, second of the day, length in seconds.
EVENTS = ((2, 62_000, 640), (9, 61_200, 1_500), (9, 64_900, 190), (16, 61_500, 920), (23, 27_000, 75))


def users_of(count: int) -> list[str]:
    """Names, heavy-tailed: large suppliers first."""
    kinds = [("Large Supplier", 13), ("Electricity Network", 14), ("Gas Network", 8), ("Small Supplier", 30)]
    names = [f"{kind} {number:02d}" for kind, many in kinds for number in range(1, many + 1)]
    names += [f"Other Party {number:03d}" for number in range(1, count + 1)]
    return names[:count]


_CATEGORY = {
    "Large": "large-supplier", "Small": "small-supplier", "Electricity": "electricity-network",
    "Gas": "gas-network", "Other": "other",
}  # fmt: skip


def config_of(users: list[str], threshold: float, *, later: bool = False) -> Config:
    """A configuration whose allocations add up to four fifths of the threshold."""
    weights = _weights(len(users))
    if later:  # the monthly update
        weights = weights.copy()
        weights[:2] *= (1.08, 0.95)
    allocations = {user: round(float(w) * threshold * 0.8, 2) for user, w in zip(users, weights, strict=True)}
    listed = PriorityList(
        PRIORITY if later else PRIORITY[:2],
        version="2026-11" if later else "2026-10",
        approved_by="SEC Panel",
    )
    return Config(
        round(threshold * 1.25, 2), threshold, allocations=allocations, priority=listed, unknown_allocation=1.0,
        categories={user: _CATEGORY[user.split()[0]] for user in users},
    )  # fmt: skip


def _weights(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    weights = 1 / np.arange(1, count + 1) ** 1.1
    found: np.ndarray[Any, np.dtype[np.float64]] = weights / weights.sum() * 0.99
    return found


def write_month(
    folder: Path,
    year: int = 2026,
    month: int = 11,
    *,
    hosts: int = 4,
    users: int = 100,
    requests: float = 1e9,
    seed: int = 1,
    commit_s: int = 5,
    days: int | None = None,
) -> list[Path]:
    """Write one file for each host; `requests` of all hosts together. Returns the files."""
    start = int(datetime(year, month, 1, tzinfo=UTC).timestamp())
    end = int(datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp())
    days = days or (end - start) // _DAY
    names = [*users_of(users), "(unknown)"]
    mean = requests / (days * _DAY) / _MEAN_SHAPE
    threshold = round(mean * 2.6, 2)
    folder.mkdir(parents=True, exist_ok=True)
    first = file_of(folder / "gateway-1.db", f"{year}-{month:02d}")
    with closing(sqlite3.connect(first)) as connection:
        connection.executescript(SCHEMA)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("PRAGMA synchronous = OFF")
        rng = np.random.default_rng(seed)
        _write_host(connection, start, days, names, mean / hosts, threshold, rng, commit_s)
        connection.commit()
    # The other hosts had the same traffic: what is read, merged and added up is as much.
    files = [first]
    for host in range(2, hosts + 1):
        files.append(file_of(folder / f"gateway-{host}.db", f"{year}-{month:02d}"))
        shutil.copyfile(first, files[-1])
        with closing(sqlite3.connect(files[-1])) as connection:
            for key, value in (("host", f"gateway-{host}"), ("host_id", f"{host:032x}")):
                connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
            connection.execute("UPDATE sources SET source_id = ?", (f"s{host}",))
            for table in ("traffic_management_events", "event_users"):
                connection.execute(f"UPDATE {table} SET event = 's{host}' || substr(event, 3)")
            connection.commit()
    return files


def _write_host(
    connection: sqlite3.Connection, start: int, days: int, names: list[str], rate: float,
    threshold: float, rng: np.random.Generator, commit_s: int,
) -> None:  # fmt: skip
    month = f"{datetime.fromtimestamp(start, UTC):%Y-%m}"
    meta = {"host": "gateway-1", "host_id": f"{1:032x}", "month": month, "first_seq": "1"}
    connection.executemany("INSERT INTO meta VALUES (?, ?)", [*meta.items(), ("created_by", "test")])
    connection.executemany("INSERT INTO users VALUES (?, ?)", list(enumerate(names, 1)))
    connection.executemany("INSERT INTO srvs VALUES (?, ?)", list(enumerate(SRVS, 1)))
    connection.execute(
        "INSERT INTO sources VALUES (1, ?, 'shared', ?, ?, NULL, 7, 5)",
        ("s1", start * 1000, (start + days * _DAY) * 1000),
    )
    for since, later in ((start - 86_400 * 5, False), (start + 86_400 * 14 + 36_000, True)):
        config = config_of(names[:-1], threshold, later=later)
        connection.execute(
            "INSERT INTO configurations VALUES (1, ?, ?, ?)",
            (since * 1000, config.version, json.dumps(config_record(config))),
        )
    connection.executemany(
        "INSERT INTO commits VALUES (?, 1, ?, ?, ?, 5, 0)", _commits(start, days * _DAY, commit_s)
    )
    base = np.append(_weights(len(names) - 1) * 0.999, 0.001) * rate
    within = config_of(names[:-1], threshold)
    allocation = np.array([*within.allocations.values(), within.unknown_allocation])
    for day in range(days):
        _write_day(connection, start + day * _DAY, day, base, allocation, threshold, rng)


def _commits(start: int, length: int, step: int) -> Iterator[tuple[int, int, int, int]]:
    for seq, second in enumerate(range(start, start + length, step), 1):
        yield seq, second * 1000, (second + step) * 1000, second * 10**9


def _write_day(
    connection: sqlite3.Connection, start: int, day: int, base: Any, allocation: Any, threshold: float,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    minutes = np.arange(_MINUTES)
    hour = minutes / 60
    shape = 0.55 + 0.9 * np.exp(-((hour - 2.5) ** 2) / 6) + 0.8 * np.exp(-((hour - 17.5) ** 2) / 8)
    shape *= 0.92 if day % 7 in (5, 6) else 1.0
    offered = rng.poisson(60 * shape[:, None] * base[None, :])
    priority = (offered * 0.15).astype(np.int64)
    within = np.minimum(offered - priority, (allocation * 60 / 4).astype(np.int64))
    spare = offered - priority - within
    throttled = np.zeros_like(offered)
    for number, (event_day, at, length) in enumerate(EVENTS, 1):
        if event_day == day:
            first, last = at // 60, -(-(at + length) // 60)
            # Three Users run away; what they send above their share is throttled.
            surge = (offered[first:last, :3] * rng.uniform(2, 6)).astype(np.int64)
            throttled[first:last, :3] = surge // 2
            spare[first:last, :3] += surge - surge // 2
            _write_event(connection, number, start + at, length, threshold, throttled[first:last], allocation)
    cells = np.stack([throttled, spare, within, priority], axis=2)
    present = cells.any(axis=2)
    rows_minute, rows_user = np.nonzero(present)
    amounts = cells[present]
    rows = np.column_stack([start + rows_minute * 60, rows_user + 1, amounts, amounts])
    connection.executemany("INSERT INTO user_minutes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows.tolist())
    by_user = cells.sum(axis=0)
    of_users = [
        (start, user, *amounts, *amounts) for user, amounts in enumerate(by_user.tolist(), 1) if any(amounts)
    ]
    connection.executemany("INSERT INTO user_days VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", of_users)
    by_srv = (by_user[:, None, :] * _SRV_SHARES[None, :, None]).astype(np.int64)
    by_srv[:, 0, :] += by_user - by_srv.sum(axis=1)
    connection.executemany(
        "INSERT INTO day_counts VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (start, user, srv, *amounts)
            for user, srvs in enumerate(by_srv.tolist(), 1)
            for srv, amounts in enumerate(srvs, 1)
            if any(amounts)
        ],
    )


def _write_event(
    connection: sqlite3.Connection, number: int, at: int, length: int, threshold: float, throttled: Any,
    allocation: Any,
) -> None:  # fmt: skip
    began = at * 1000 + 70
    name = f"s1/{number}"
    connection.execute(
        "INSERT INTO traffic_management_events VALUES (?, 1, 1, ?, ?, ?, 1, ?, ?, 1, ?, 'enforce', 'v', ?, ?, ?, ?,"
        " 0.26, ?, ?, 0.5, 1.0)",
        (
            name, number, began, began * 10**6, began + length * 1000, began * 10**6 + length * 10**9,
            length * 1000, threshold, threshold * 0.95, threshold, threshold * 1.5, threshold, threshold * 1.8,
        ),
    )  # fmt: skip
    sums = throttled.sum(axis=0)
    for user in np.nonzero(sums)[0]:
        connection.execute(
            "INSERT INTO event_users VALUES (?, ?, ?, ?, 1, ?, 0, 0, 0, ?, 0, 0, 0, ?, ?, ?)",
            (
                name, int(user) + 1, float(allocation[user]), float(allocation[user]) * 2, int(sums[user]),
                int(sums[user]), length, began + 500, began + length * 1000 - 500,
            ),
        )  # fmt: skip
    rows = []
    for second in range(at, at + length):
        for user in range(len(allocation)):
            refused = int(sums[user]) // length
            rows += [(second, user + 1, srv, refused if srv == 1 else 0, 1, 1, 1) for srv in (1, 3, 4)]
    connection.executemany("INSERT INTO second_counts VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
