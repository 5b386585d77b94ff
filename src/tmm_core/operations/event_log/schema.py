"""The tables of the event log: what they hold, the version of it, and how to add to rows that may be there already.

Told to people in docs/event-log.md.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator

from tmm_core.operations.event_log.event_records import Batch

#: ``PRAGMA application_id``: an SQLite file with another one is not an event log. "TMMe".
APPLICATION_ID = 0x544D4D65
#: ``PRAGMA user_version``. A log of a later one is refused.
SCHEMA_VERSION = 1

_DAY = 86_400

#: Kinds of fault: a closed set, so that a report and a metric can list them.
FAULTS = (
    "fail-open",  # the gateway could not ask the Mechanism and admitted
    "healed",  # impossible words in the block, healed (clocks set back, damaged memory)
    "worker-died",  # a process counts no more in the shared block: ended, restarted or killed
    "store-state",  # the cluster's store: synced, stale, isolated, blind
    "identity-mismatch",  # the header named another User than the connection's certificate
    "configuration-refused",  # a new configuration was wrong; the last good one stays in force
    "clock-step",  # the wall clock moved against the monotonic one
    "log-unwritable",  # the log could not be written for a while
    "gap",  # nobody watched for a while
    "unclean-end",  # the last watcher ended without flushing
)
#: What can be lost, and is then counted.
LOSSES = ("counts", "event", "fault", "throttle-record", "notification", "second-detail")
#: What Users are told about.
NOTICES = ("began", "ended")

_OUTCOMES = """
    throttled INTEGER NOT NULL DEFAULT 0,
    spare     INTEGER NOT NULL DEFAULT 0,
    within    INTEGER NOT NULL DEFAULT 0,
    priority  INTEGER NOT NULL DEFAULT 0"""
_UNITS = """
    throttled_units INTEGER NOT NULL DEFAULT 0,
    spare_units     INTEGER NOT NULL DEFAULT 0,
    within_units    INTEGER NOT NULL DEFAULT 0,
    priority_units  INTEGER NOT NULL DEFAULT 0"""


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} TEXT NOT NULL CHECK ({column} IN ({', '.join(repr(each) for each in values)}))"


#: Came later: a log that has none is read as well, and whoever writes it adds them. Units that were offered and
#: throttled while candidate allocations were tried, and what those would have decided otherwise (`Difference`).
_CANDIDATE_TABLES = (
    """
CREATE TABLE IF NOT EXISTS candidate_days (
    day INTEGER NOT NULL, candidate TEXT NOT NULL, user INTEGER NOT NULL,
    offered_units     INTEGER NOT NULL DEFAULT 0,
    throttled_units   INTEGER NOT NULL DEFAULT 0,
    over_units        INTEGER NOT NULL DEFAULT 0,
    over_active_units INTEGER NOT NULL DEFAULT 0,
    within_units      INTEGER NOT NULL DEFAULT 0,
    admitted_units    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, candidate, user)) STRICT, WITHOUT ROWID
""",
    """
CREATE TABLE IF NOT EXISTS candidate_totals (
    source INTEGER NOT NULL, user INTEGER NOT NULL,
    over_units        INTEGER NOT NULL DEFAULT 0,
    over_active_units INTEGER NOT NULL DEFAULT 0,
    within_units      INTEGER NOT NULL DEFAULT 0,
    admitted_units    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (source, user)) STRICT, WITHOUT ROWID
""",
)

_DIFFERENCES = (
    "over_units",
    "over_active_units",
    "within_units",
    "admitted_units",
)  # in the order of Difference
CANDIDATE_COLUMNS = ("offered_units", "throttled_units", *_DIFFERENCES)

SCHEMA = f"""
-- host, host_id, month (2026-11), created_ms, created_by (version of this package)
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- Dictionaries. The numbers mean something in this file only: join on them, compare names across files.
CREATE TABLE users (user INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE srvs  (srv  INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE) STRICT;

-- A source is one life of a block of counters: they start at 0 and only grow. A block shared by the
-- processes of a host outlives its watchers; a private one dies with its process.
CREATE TABLE sources (
    source     INTEGER PRIMARY KEY,
    source_id  TEXT NOT NULL UNIQUE,
    kind       TEXT NOT NULL CHECK (kind IN ('private', 'shared')),
    began_ms   INTEGER NOT NULL,
    last_ms    INTEGER NOT NULL,             -- last commit
    ended_ms   INTEGER,                      -- when its watcher said good-bye; NULL: it watches, or died
    pid        INTEGER NOT NULL,             -- of its last watcher
    activations INTEGER NOT NULL             -- the engine's count at the last commit
) STRICT;

-- One row per transaction, numbered without a gap through all files of a host. from_ms to to_ms is the time
-- whose counts it holds: what no commit covers was watched by nobody.
CREATE TABLE commits (
    seq       INTEGER PRIMARY KEY,
    source    INTEGER NOT NULL REFERENCES sources,
    from_ms   INTEGER NOT NULL,
    to_ms     INTEGER NOT NULL,
    mono_ns   INTEGER NOT NULL,              -- monotonic clock at to_ms
    polls     INTEGER NOT NULL,
    requests  INTEGER NOT NULL               -- all requests of the source so far, after this commit
) STRICT;

-- What of a source's counters is in the log, and what was in it when this file began (in an earlier file).
CREATE TABLE totals (
    source INTEGER NOT NULL, user INTEGER NOT NULL, srv INTEGER NOT NULL, {_OUTCOMES},
    PRIMARY KEY (source, user, srv)) STRICT, WITHOUT ROWID;
CREATE TABLE bases (
    source INTEGER NOT NULL, user INTEGER NOT NULL, srv INTEGER NOT NULL, {_OUTCOMES},
    PRIMARY KEY (source, user, srv)) STRICT, WITHOUT ROWID;
CREATE TABLE unit_totals (
    source INTEGER NOT NULL, user INTEGER NOT NULL, {_UNITS},
    PRIMARY KEY (source, user)) STRICT, WITHOUT ROWID;
CREATE TABLE unit_bases (
    source INTEGER NOT NULL, user INTEGER NOT NULL, {_UNITS},
    PRIMARY KEY (source, user)) STRICT, WITHOUT ROWID;

-- Service Requests decided. second, minute and day are seconds since 1970-01-01 UTC at which it starts.
-- Only rows with something in them. Seconds are there only while the Mechanism was active.
CREATE TABLE second_counts (
    second INTEGER NOT NULL, user INTEGER NOT NULL, srv INTEGER NOT NULL, {_OUTCOMES},
    PRIMARY KEY (second, user, srv)) STRICT, WITHOUT ROWID;
CREATE TABLE minute_counts (
    minute INTEGER NOT NULL, user INTEGER NOT NULL, srv INTEGER NOT NULL, {_OUTCOMES},
    PRIMARY KEY (minute, user, srv)) STRICT, WITHOUT ROWID;
CREATE TABLE day_counts (
    day INTEGER NOT NULL, user INTEGER NOT NULL, srv INTEGER NOT NULL, {_OUTCOMES},
    PRIMARY KEY (day, user, srv)) STRICT, WITHOUT ROWID;
-- The same per User, with units.
CREATE TABLE user_minutes (
    minute INTEGER NOT NULL, user INTEGER NOT NULL, {_OUTCOMES}, {_UNITS},
    PRIMARY KEY (minute, user)) STRICT, WITHOUT ROWID;
CREATE TABLE user_days (
    day INTEGER NOT NULL, user INTEGER NOT NULL, {_OUTCOMES}, {_UNITS},
    PRIMARY KEY (day, user)) STRICT, WITHOUT ROWID;

-- Load in units per second, averages over about a second; backlog in seconds of the operating threshold.
-- Sums over the polls of the minute: mean = sum / polls (view system_minute_means).
CREATE TABLE system_minutes (
    minute      INTEGER PRIMARY KEY,
    polls       INTEGER NOT NULL,
    active_polls INTEGER NOT NULL,
    load_sum    REAL NOT NULL,  load_max    REAL NOT NULL,
    offered_sum REAL NOT NULL,  offered_max REAL NOT NULL,
    backlog_max_s REAL NOT NULL,
    level_min   REAL NOT NULL
) STRICT;
CREATE VIEW system_minute_means AS
    SELECT minute, polls, active_polls, load_sum / polls AS load_mean, load_max,
           offered_sum / polls AS offered_mean, offered_max, backlog_max_s, level_min FROM system_minutes;
CREATE TABLE system_seconds (
    second INTEGER PRIMARY KEY, load REAL NOT NULL, offered_load REAL NOT NULL,
    backlog_s REAL NOT NULL, level REAL NOT NULL
) STRICT;

-- A configuration put in force; description is a JSON object (see docs/event-log.md).
CREATE TABLE configurations (
    seq         INTEGER NOT NULL,
    from_ms     INTEGER NOT NULL,
    version     TEXT NOT NULL,
    description TEXT NOT NULL CHECK (json_valid(description)),
    PRIMARY KEY (from_ms, version)
) STRICT, WITHOUT ROWID;

-- One row per activation of one source, in every file of a month it lasted into; the last file knows its end.
-- event is unique in the world: source_id/number. An end that is not exact is known to the poll's second.
CREATE TABLE traffic_management_events (
    event               TEXT PRIMARY KEY,
    seq                 INTEGER NOT NULL,    -- of the commit that last wrote it
    source              INTEGER NOT NULL REFERENCES sources,
    number              INTEGER NOT NULL,    -- the engine's count of activations
    began_ms            INTEGER NOT NULL,
    began_mono_ns       INTEGER NOT NULL,
    began_exact         INTEGER NOT NULL CHECK (began_exact IN (0, 1)),
    ended_ms            INTEGER,             -- NULL: open
    ended_mono_ns       INTEGER,
    ended_exact         INTEGER CHECK (ended_exact IN (0, 1)),
    duration_ms         INTEGER,             -- by the monotonic clock, whatever the wall clock did
    mode                TEXT NOT NULL CHECK (mode IN ('enforce', 'observe')),
    version             TEXT NOT NULL,       -- of the configuration at the beginning
    operating_threshold REAL NOT NULL,       -- units per second
    release_threshold   REAL NOT NULL,
    began_load          REAL NOT NULL,       -- why: load, offered load (units per second) and backlog when seen
    began_offered_load  REAL NOT NULL,
    began_backlog_s     REAL NOT NULL,
    load_max            REAL NOT NULL,
    offered_max         REAL NOT NULL,
    backlog_max_s       REAL NOT NULL,
    level_min           REAL NOT NULL
) STRICT;

-- Each User in an event: what it offered when it began, against its allocation, and what became of its requests.
CREATE TABLE event_users (
    event TEXT NOT NULL REFERENCES traffic_management_events,
    user  INTEGER NOT NULL,
    allocation         REAL NOT NULL,        -- units per second, at the beginning
    began_offered      REAL NOT NULL,        -- units per second in the last poll before it was seen
    over_at_beginning  INTEGER NOT NULL CHECK (over_at_beginning IN (0, 1)),
    {_OUTCOMES}, {_UNITS},
    throttled_seconds  INTEGER NOT NULL DEFAULT 0,
    first_throttled_ms INTEGER,
    last_throttled_ms  INTEGER,
    PRIMARY KEY (event, user)) STRICT, WITHOUT ROWID;
CREATE TABLE event_counts (
    event TEXT NOT NULL, user INTEGER NOT NULL, srv INTEGER NOT NULL, {_OUTCOMES},
    PRIMARY KEY (event, user, srv)) STRICT, WITHOUT ROWID;

CREATE TABLE faults (
    id      INTEGER PRIMARY KEY,
    seq     INTEGER NOT NULL,
    at_ms   INTEGER NOT NULL,
    mono_ns INTEGER NOT NULL,
    {_one_of("kind", FAULTS)},
    user    INTEGER REFERENCES users,
    count   INTEGER NOT NULL,
    detail  TEXT NOT NULL
) STRICT;

-- Priority traffic above its plan: of one User, or (user NULL) of all together. Units per second.
CREATE TABLE priority_excesses (
    minute INTEGER NOT NULL, user INTEGER, seq INTEGER NOT NULL,
    priority_rate REAL NOT NULL, plan REAL NOT NULL, seconds INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX priority_excess_of ON priority_excesses (minute, ifnull(user, -1));

-- Throttled requests with all that is needed to decide them again; see 'tmm audit'.
CREATE TABLE throttle_records (
    id        INTEGER PRIMARY KEY,
    seq       INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    now_ns    INTEGER NOT NULL,              -- the time that was decided on, monotonic
    version   TEXT NOT NULL,
    user      INTEGER NOT NULL REFERENCES users,
    srv       INTEGER NOT NULL REFERENCES srvs,
    tat       INTEGER NOT NULL,              -- own bucket; stamps, 1/128 ns modulo 2**64
    spare_tat INTEGER NOT NULL,              -- spare bucket
    backlog   INTEGER NOT NULL,              -- stamps
    level     INTEGER NOT NULL,              -- (L - 1) * 65536
    active    INTEGER NOT NULL CHECK (active IN (0, 1)),
    decision  INTEGER NOT NULL CHECK (decision BETWEEN 0 AND 3)
) STRICT;

-- What could not be written, counted; told as soon as the log can be written again.
CREATE TABLE losses (
    id       INTEGER PRIMARY KEY,
    seq      INTEGER NOT NULL,
    {_one_of("what", LOSSES)},
    records  INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms  INTEGER NOT NULL,
    reason   TEXT NOT NULL
) STRICT;

-- Letters of other processes that are in the log, so that none is taken in twice; the latest only.
CREATE TABLE letters (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE notifications (
    event    TEXT NOT NULL,
    user     INTEGER NOT NULL REFERENCES users,
    {_one_of("notice", NOTICES)},
    sender   TEXT NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('sent', 'given-up')),
    attempts INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    detail   TEXT NOT NULL,
    PRIMARY KEY (event, user, notice, sender)) STRICT, WITHOUT ROWID;
{";".join(_CANDIDATE_TABLES)};
"""


def statements() -> Iterator[str]:
    """Yield the statements that make the tables one by one: `executescript` would commit by itself."""
    statement = ""
    for line in SCHEMA.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def adding(table: str, keys: tuple[str, ...], columns: tuple[str, ...]) -> str:
    """An insertion that adds to the row where there is one already."""
    return (
        f"INSERT INTO {table} ({', '.join((*keys, *columns))}) VALUES ({', '.join('?' * len((*keys, *columns)))})"
        f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET "
        + ", ".join(f"{name} = {name} + excluded.{name}" for name in columns)
    )


def by_day(rows: Iterable[tuple[int, ...]], *, keys: int) -> list[tuple[int, ...]]:
    """Rows by minute, added up by day."""
    days: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        key = (row[0] // _DAY * _DAY, *row[1:keys])
        amounts = row[keys:]
        found = days.get(key)
        days[key] = list(amounts) if found is None else [a + b for a, b in zip(found, amounts, strict=True)]
    return [(*key, *amounts) for key, amounts in days.items()]


# --- what candidate allocations would have decided otherwise


def add_candidate_tables(connection: sqlite3.Connection) -> None:
    """Add the tables to a log that was begun without them."""
    for statement in _CANDIDATE_TABLES:
        connection.execute(statement)


def has_candidates(connection: sqlite3.Connection) -> bool:
    """Return whether a log has the tables."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'candidate_days'").fetchone()
    return found is not None


def write_candidates(
    connection: sqlite3.Connection, source: int, batch: Batch, number_of: Callable[[str], int]
) -> None:
    """Write the rows of a batch."""
    days = [
        (day, version, number_of(user), *row) for (day, version, user), row in batch.candidate_days.items()
    ]
    connection.executemany(adding("candidate_days", ("day", "candidate", "user"), CANDIDATE_COLUMNS), days)
    sums = [(source, number_of(user), *row) for (user,), row in batch.candidate_totals.items()]
    connection.executemany(adding("candidate_totals", ("source", "user"), _DIFFERENCES), sums)


def candidate_totals(connection: sqlite3.Connection, source_id: str) -> dict[str, list[int]]:
    """Return what of a source's differences is in the log, by User."""
    rows = connection.execute(
        f"SELECT name, {', '.join(_DIFFERENCES)} FROM candidate_totals JOIN sources USING (source)"
        " JOIN users USING (user) WHERE source_id = ?",
        (source_id,),
    )
    return {row[0]: list(row[1:]) for row in rows}
