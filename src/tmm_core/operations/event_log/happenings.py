"""What happened, from the event log, as one stream in order of time; as text, JSON or CloudEvents 1.0."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tmm_core.operations.event_log.event_records import iso
from tmm_core.operations.event_log.files import LogFile, LogSet
from tmm_core.operations.terminal import duration, number, plain

KINDS = ("began", "ended", "configuration", "fault", "priority-excess", "loss", "notification")
_MOST_USERS = 3  # named in a line of text


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened, at `at_ms` (UTC, milliseconds since 1970) on a host.

    `id` is the same whenever and from whichever file it is read; `kind` is one of `KINDS`.
    """

    id: str
    kind: str
    at_ms: int
    host: str
    subject: str
    data: dict[str, Any]


def happenings(logs: LogSet, since_ms: int = 0, until_ms: int = 1 << 62) -> list[Happening]:
    """Return what happened from `since_ms` until before `until_ms`, each thing once, in order of time."""
    found: dict[str, Happening] = {}
    for event in logs.events(since_ms, until_ms):
        for each in _of_event(event, logs):
            found[each.id] = each
    for file in logs.files:
        for each in _of_file(file, since_ms, until_ms):
            found.setdefault(each.id, each)
    inside = [each for each in found.values() if since_ms <= each.at_ms < until_ms]
    return sorted(inside, key=lambda each: (each.at_ms, each.host, KINDS.index(each.kind), each.id))


def _of_event(event: dict[str, Any], logs: LogSet) -> Iterator[Happening]:
    key = event["event"]
    users = _users_of(logs, key)
    began = ("number", "began_ms", "began_exact", "mode", "version", "operating_threshold", "release_threshold",
             "began_load", "began_offered_load", "began_backlog_s")  # fmt: skip
    data = {"event": key, **{name: event[name] for name in began}}
    over = [
        {"user": row["name"], "offered": row["began_offered"], "allocation": row["allocation"]}
        for row in users
        if row["over_at_beginning"]
    ]
    yield Happening(
        f"{key}/began", "began", event["began_ms"], event["host"], key, {**data, "over_allocation": over}
    )
    if event["ended_ms"] is not None:
        ended = (
            "number",
            "ended_ms",
            "ended_exact",
            "duration_ms",
            "load_max",
            "offered_max",
            "backlog_max_s",
            "level_min",
        )
        throttled = [
            {
                "user": row["name"],
                "throttled": row["throttled"],
                "throttled_seconds": row["throttled_seconds"],
            }
            for row in users
            if row["throttled"]
        ]
        data = {"event": key, **{name: event[name] for name in ended}, "throttled": throttled}
        yield Happening(f"{key}/ended", "ended", event["ended_ms"], event["host"], key, data)


def _users_of(logs: LogSet, event: str) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    # The last file knows the whole of an event; the first row's word about the beginning is in all of them.
    for _, row in logs.rows(
        "SELECT name, began_offered, allocation, over_at_beginning, throttled, throttled_seconds FROM event_users"
        " JOIN users USING (user) WHERE event = ?",
        (event,),
    ):
        if row["throttled"] >= rows.get(row["name"], {"throttled": -1})["throttled"]:
            rows[row["name"]] = dict(row)
    return sorted(rows.values(), key=lambda row: (-row["throttled"], -row["began_offered"], row["name"]))


def _of_file(file: LogFile, since_ms: int, until_ms: int) -> Iterator[Happening]:
    bounds = (since_ms, until_ms)
    for row in file.rows("SELECT * FROM configurations WHERE from_ms >= ? AND from_ms < ?", bounds):
        description = json.loads(row["description"])
        listed = description["priority_list"]
        data = {
            "version": row["version"],
            "operating_threshold": description["operating_threshold"],
            "users": len(description["allocations"]),
            "allocations": description.get("allocations_digest"),
            "candidate": (description.get("candidate") or {}).get("version"),
            "priority_list": listed["version"],
            "approved_by": listed["approved_by"],
        }
        name = f"{file.host_id}/configuration/{row['from_ms']}/{row['version']}"
        yield Happening(name, "configuration", row["from_ms"], file.host, row["version"], data)
    for row in file.rows(
        "SELECT faults.*, name FROM faults LEFT JOIN users USING (user) WHERE at_ms >= ? AND at_ms < ?",
        bounds,
    ):
        data = {"kind": row["kind"], "count": row["count"], "user": row["name"], "detail": row["detail"]}
        name = f"{file.host_id}/fault/{row['seq']}/{row['id']}"
        yield Happening(name, "fault", row["at_ms"], file.host, row["kind"], data)
    for row in file.rows(
        "SELECT p.*, name FROM priority_excesses AS p LEFT JOIN users USING (user) WHERE minute >= ? AND minute < ?",
        (since_ms // 1000, min(until_ms // 1000, 1 << 62)),
    ):
        data = {
            "user": row["name"],
            "rate": row["priority_rate"],
            "plan": row["plan"],
            "seconds": row["seconds"],
        }
        name = f"{file.host_id}/priority-excess/{row['minute']}/{row['name'] or ''}"
        subject = row["name"] or "all Users"
        yield Happening(name, "priority-excess", row["minute"] * 1000, file.host, subject, data)
    for row in file.rows("SELECT * FROM losses WHERE last_ms >= ? AND last_ms < ?", bounds):
        data = {name: row[name] for name in ("what", "records", "first_ms", "last_ms", "reason")}
        name = f"{file.host_id}/loss/{row['seq']}/{row['id']}"
        yield Happening(name, "loss", row["last_ms"], file.host, row["what"], data)
    for row in file.rows(
        "SELECT n.*, name FROM notifications AS n JOIN users USING (user) WHERE at_ms >= ? AND at_ms < ?",
        bounds,
    ):
        data = {
            "event": row["event"], "user": row["name"], "notice": row["notice"], "sender": row["sender"],
            "state": row["state"], "attempts": row["attempts"], "detail": row["detail"],
        }  # fmt: skip
        name = f"{row['event']}/{row['name']}/{row['notice']}/{row['sender']}"
        yield Happening(name, "notification", row["at_ms"], file.host, row["name"], data)


def as_json(each: Happening) -> str:
    """Return one line of JSON: ASCII only, so that no name can break it or hide in it."""
    return json.dumps(
        {"id": each.id, "kind": each.kind, "at": iso(each.at_ms), "host": each.host, "data": each.data},
        separators=(",", ":"), allow_nan=False,
    )  # fmt: skip


def as_cloud_event(each: Happening) -> str:
    """Return one line of CloudEvents 1.0 in JSON (structured mode)."""
    from urllib.parse import quote

    event = {
        "specversion": "1.0",
        "id": each.id,
        "source": f"/tmm/{quote(each.host, safe='')}",
        "type": f"tmm.{each.kind}",
        "subject": each.subject,
        "time": iso(each.at_ms),
        "datacontenttype": "application/json",
        "data": each.data,
    }
    return json.dumps(event, separators=(",", ":"), allow_nan=False)


def as_text(each: Happening) -> str:
    """Return one line for people; names are shown without control characters."""
    return f"{iso(each.at_ms)}  {plain(each.host, 30)}  {each.kind:<15}  {_sentence(each)}"


def _sentence(each: Happening) -> str:
    data = each.data
    if each.kind == "began":
        over = [
            f"{plain(user['user'])} ({number(round(user['offered'], 1))} of {number(user['allocation'])})"
            for user in data["over_allocation"][:_MOST_USERS]
        ]
        more = len(data["over_allocation"]) - len(over)
        return (
            f"event {data['number']}: offered {number(round(data['began_offered_load'], 1))}, operating threshold "
            f"{number(data['operating_threshold'])} units per second, backlog {data['began_backlog_s']:.2f} s"
            + (f"; over allocation: {', '.join(over)}" if over else "")
            + (f" and {more} more" if more else "")
            + ("; only observed" if data["mode"] == "observe" else "")
        )
    if each.kind == "ended":
        throttled = sum(user["throttled"] for user in data["throttled"])
        return (
            f"event {data['number']}: after {duration(data['duration_ms'] / 1000)}; {number(throttled)} Service "
            f"Requests of {len(data['throttled'])} Users throttled; highest offered load "
            f"{number(round(data['offered_max'], 1))}"
        )
    if each.kind == "configuration":
        return (
            f"version {data['version']}: operating threshold {number(data['operating_threshold'])}, "
            f"{data['users']} Users, allocations {data['allocations'] or '-'}, priority list "
            f"{plain(data['priority_list']) or '-'} approved by {plain(data['approved_by']) or '-'}"
            + (f"; candidate allocations {data['candidate']}, without effect" if data["candidate"] else "")
        )
    if each.kind == "fault":
        whose = f" of {plain(data['user'])}" if data["user"] else ""
        return f"{data['kind']}{whose} ({number(data['count'])}): {plain(data['detail'], 200)}"
    if each.kind == "priority-excess":
        whose = plain(data["user"]) if data["user"] else "all Users together"
        return (
            f"{whose}: {number(round(data['rate'], 1))} units per second of priority traffic, "
            f"{number(round(data['plan'], 1))} planned, for {data['seconds']} s of this minute"
        )
    if each.kind == "loss":
        since = iso(data["first_ms"])
        return f"{number(data['records'])} x {data['what']} since {since}: {plain(data['reason'], 200)}"
    return (
        f"{plain(data['user'])}: {data['notice']} of {data['event']} by {plain(data['sender'])}: {data['state']} "
        f"after {data['attempts']} attempts {plain(data['detail'], 100)}".rstrip()
    )
