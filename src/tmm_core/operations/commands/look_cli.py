"""`tmm status` and `tmm explain`: look at what the Mechanism of this host is doing, and ask what it would decide."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tmm_core.mechanism import UNKNOWN, Decision, Mechanism
from tmm_core.operations import terminal
from tmm_core.operations.commands.arguments import (
    about,
    add_block_options,
    add_config,
    day,
    look_at,
    number_between,
)
from tmm_core.operations.terminal import number, percent, plain
from tmm_core.policy.catalogue import by_srv_code
from tmm_core.policy.check import burst_at_once
from tmm_core.policy.config import Config
from tmm_core.policy.service_requests import fault_of
from tmm_core.policy.validation import did_you_mean
from tmm_core.snapshot import NO_LIMIT, Difference, Snapshot

# --- tmm status

_STATUS_EXAMPLES = """\
Reads only: nothing is charged, counted or changed, and no gateway waits for it.

examples:
  tmm status                        of the block that ./tmm.toml names
  tmm status --block tmm --live     of a block by its name, every second until Ctrl-C
  tmm status --json | jq .active

exit status: 0 good; 1 there is no block, or it cannot be used; 2 the command is wrong
"""
_STALE_S = 2.0
_PID_MASK = (1 << 22) - 1
_RATE = 1024  # rates in the core are in 1/1024 units per second
_SHOWN = 20


def add_status(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm status` takes."""
    about(
        parser,
        _status,
        "Show what the gateways of this host are doing: load, threshold, state, Users over their "
        "allocation, workers and the version in force.",
        _STATUS_EXAMPLES,
    )
    add = parser.add_argument
    add_block_options(parser)
    add("--live", action="store_true", help="show it again and again until Ctrl-C")
    add(
        "--every",
        type=number_between(0.05, 3600, "a number of seconds"),
        default=1.0,
        metavar="S",
        help="seconds between two looks of --live (default 1)",
    )
    add("--json", action="store_true", help="write JSON to stdout; with --live one line each")


def _status(args: argparse.Namespace) -> int:
    """Look, and show."""
    while True:
        with look_at(args) as mechanism:
            block = mechanism.block
            while block is None or not block.succeeded:
                _show(status_of(mechanism), args)
                if not args.live:
                    return 0
                time.sleep(args.every)


def _show(status: dict[str, Any], args: argparse.Namespace) -> None:
    if args.json and args.live:
        print(json.dumps(status, allow_nan=False), flush=True)
    elif args.json:
        terminal.print_json(status)
    else:
        if args.live and terminal.is_terminal(sys.stdout):
            print("\x1b[H\x1b[J", end="")
        print("\n".join(status_lines(status, terminal.Paint.of(sys.stdout))), flush=True)


def status_of(mechanism: Mechanism, *, at: datetime | None = None, now: int | None = None) -> dict[str, Any]:
    """Return the state of a shared block, ready for JSON.

    Parameters
    ----------
    mechanism : Mechanism
        From `Mechanism.look`, or any that shares a block.
    at : datetime, optional
        Aware UTC time now; the clock by default.
    now : int, optional
        Nanoseconds, monotonic, at the same moment.

    Returns
    -------
    dict
        Rates in units per second.
    """
    at = datetime.now(UTC) if at is None else at
    now = time.monotonic_ns() if now is None else now
    snapshot = mechanism.snapshot(now)
    state = mechanism.engine.state(now)
    config, block = mechanism.config, mechanism.block
    counts = snapshot.counts.sum(axis=(0, 1))
    excess = mechanism.engine.excess()[: len(snapshot.users)] / _RATE
    over = [
        {
            "user": snapshot.users[slot],
            "allocation": config.allocations.get(snapshot.users[slot], 0.0) if slot else config.unknown_allocation,
            "above": round(float(excess[slot]), 3),
        }
        for slot in sorted(excess.nonzero()[0], key=lambda slot: -excess[slot])
    ]  # fmt: skip

    def ago(stamp: int) -> str:
        return (at - timedelta(microseconds=max(now - stamp, 0) // 1000)).isoformat(timespec="milliseconds")

    return {
        "at": at.isoformat(timespec="milliseconds"),
        "block": None if block is None else block.path,
        "mode": config.mode,
        "active": snapshot.active,
        "since": ago(state["changed_at"]),
        "activations": snapshot.activations,
        "load": round(snapshot.load, 3),
        "offered_load": round(snapshot.offered_load, 3),
        "operating_threshold": config.operating_threshold,
        "release_threshold": config.release_threshold,
        "system_capacity": config.system_capacity,
        "level": round(snapshot.level, 4),
        "backlog_s": round(snapshot.backlog_s, 6),
        "age_s": round(max(now - state["tick_at"], 0) / 1e9, 3),
        "version": snapshot.version,
        "generation": snapshot.generation,
        "users": len(config.users),
        "allocations": {
            "file": config.allocations_file,
            "digest": config.allocations_digest,
            "effective_from": config.effective_from and config.effective_from.isoformat(),
        },
        "users_over_allocation": over,
        "candidate": _candidate(snapshot, config),
        "counts": {decision.name: int(counts[decision]) for decision in Decision},
        "healed": snapshot.healed,
        "workers": _workers(mechanism),
    }


def _candidate(snapshot: Snapshot, config: Config) -> dict[str, Any] | None:
    """What the candidate allocations would have decided otherwise, most first; None where there are none."""
    if snapshot.candidate is None:
        return None
    units, rates = snapshot.candidate.units, config.candidate_allocations or {}
    differing = sorted(units.sum(axis=1).nonzero()[0], key=lambda slot: -int(units[slot].sum()))
    return {
        "version": snapshot.candidate.version,
        "file": config.candidate_file,
        "units": {each.name.lower(): int(units[:, each].sum()) for each in Difference},
        "users": [
            {
                "user": snapshot.users[slot],
                "allocation": config.allocations.get(snapshot.users[slot], 0.0),
                "candidate": rates.get(snapshot.users[slot], 0.0),
                **{each.name.lower(): int(units[slot, each]) for each in Difference},
            }
            for slot in differing
        ],
    }


def _workers(mechanism: Mechanism) -> dict[str, Any]:
    """Processes by what the kernel says of their locks, never by their numbers."""
    block = mechanism.block
    alive: set[int] = set()
    slabs = {"alive": 0, "dead": 0}
    owners = mechanism.engine.owners()
    for slab, (owner, _) in enumerate(owners[1:] if block is not None else (), 1):
        if block is not None and block.is_alive(slab):
            slabs["alive"] += 1
            alive.add(owner & _PID_MASK)
        else:
            slabs["dead"] += 1
    adoptions = sum(max(adopted - 1, 0) for _, adopted in owners)
    return {
        "alive": sorted(alive),
        "slabs_alive": slabs["alive"],
        "slabs_dead": slabs["dead"],
        "adopted": adoptions,
    }


def status_lines(status: dict[str, Any], paint: terminal.Paint) -> list[str]:
    """Return the status for people."""
    counts, workers = status["counts"], status["workers"]
    decided = sum(counts.values())
    state = "ACTIVE" if status["active"] else "inactive"
    since = status["since"][:19].replace("T", " ")
    shares = ", ".join(
        f"{name.lower().replace('_', ' ')} {number(counts[name])} ({percent(counts[name], decided)})"
        for name in ("PRIORITY", "WITHIN_ALLOCATION", "SPARE_CAPACITY", "THROTTLED")
    )
    alive = ", ".join(map(str, workers["alive"])) or "-"
    facts = {
        "Mechanism": f"{state} since {since} UTC, mode {status['mode']}, "
        f"{number(status['activations'])} traffic management event{'' if status['activations'] == 1 else 's'} so far",
        "load": f"{_rate(status['load'])} admitted, {_rate(status['offered_load'])} offered, of "
        f"{_rate(status['operating_threshold'])} operating threshold, units per second",
        "backlog": f"{number(status['backlog_s'])} s; level {_level(status['level'])}",
        "decided": f"{number(decided)}: {shares}",
        "workers": f"{len(workers['alive'])} alive ({alive}), {workers['slabs_dead']} dead and not yet replaced; "
        "their counts are kept",
        "version": f"{status['version']}, generation {status['generation']}, {number(status['users'])} Users",
    }
    allocations = status["allocations"]
    if allocations["digest"] is not None:
        begins = f" from {allocations['effective_from']}" if allocations["effective_from"] else ""
        facts["allocations"] = f"digest {allocations['digest']}{begins}"
    lines = [paint.bold(f"tmm status {plain(str(status['block']), 200)}")]
    lines += [line for name, text in facts.items() for line in terminal.fact(name, text, 12)]
    if status["active"]:
        lines[1] = lines[1].replace(state, paint.red(state), 1)  # after the lines were broken by their width
    if status["age_s"] > _STALE_S:
        lines.append(
            f"  nothing has been decided for {terminal.duration(status['age_s'])}: rates are of then"
        )
    over = status["users_over_allocation"]
    lines.append(f"  Users over their allocation: {len(over) or 'none'}")
    if over:
        rows = [
            [plain(each["user"]), number(each["allocation"]), _rate(each["above"])] for each in over[:_SHOWN]
        ]
        lines += terminal.table(["User", "allocation /s", "above it /s"], rows, paint)
        if len(over) > _SHOWN:
            lines.append(f"  and {len(over) - _SHOWN} more (--json shows all)")
    if status["candidate"] is not None:
        lines += _candidate_lines(status["candidate"], paint)
    return lines


def _candidate_lines(candidate: dict[str, Any], paint: terminal.Paint) -> list[str]:
    users = candidate["users"]
    lines = terminal.paragraph(
        f"candidate allocations {candidate['version']}, without effect; Users decided otherwise: {len(users)}"
    )
    if users:
        head = ["User", "allocation", "candidate", "over it", "active", "inside it", "admitted"]
        figures = [
            [number(each["allocation"]), number(each["candidate"]),
             *(number(each[kind.name.lower()]) for kind in Difference)]
            for each in users[:_SHOWN]
        ]  # fmt: skip
        names = [each["user"] for each in users[:_SHOWN]]
        lines += terminal.table_of_names(head, names, figures, paint)
        lines += terminal.paragraph(
            "Allocations in units per second, else units. Over it: inside the allocation in force, over the "
            "candidate; active: those of them while the Mechanism was active, the most it would have throttled "
            "more. Inside it: over the allocation in force, inside the candidate; admitted: those of them that "
            "were throttled."
        )
        if len(users) > _SHOWN:
            lines.append(f"  and {len(users) - _SHOWN} more (--json shows all)")
    return lines


def _level(level: float) -> str:
    """Return what a level means for a User."""
    if level >= NO_LIMIT:
        return "unlimited (all that is asked for is there)"
    return f"{number(level)} (a User may use so many times its allocation)"


def _rate(value: float) -> str:
    return number(round(value, 1))


# --- tmm explain

_EXPLAIN_EXAMPLES = """\
Nothing is charged and nothing is counted.

examples:
  tmm explain 90-B3-D5-1F-30-01-00-00 4.1.1 -c tmm.toml
  tmm explain "Northern Energy" 7.4 -c tmm.toml --json

exit status: 0 good, whatever would be decided; 1 the files are wrong; 2 the command is wrong
"""


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Add what `tmm explain` takes."""
    about(
        parser,
        _explain,
        "Say what would be decided for a Service Request of one User and SRV, and why.",
        _EXPLAIN_EXAMPLES,
    )
    add = parser.add_argument
    add("user", metavar="USER", help="a Service User's EUI-64 or name")
    add("srv", metavar="SRV", help="a Service Reference Variant, as 4.1.1")
    add_config(parser, "the configuration (default tmm.toml)")
    add("--on", type=day, metavar="DATE", help="the day whose allocations count (default today, UTC)")
    add("--json", action="store_true", help="write the answer to stdout as JSON")


def _mechanism_of(config: Config) -> tuple[Mechanism, str]:
    """Return the Mechanism to ask, and where it is: the one place that chooses it.

    The one the gateways of this host share, if there is one; else a fresh one, of this process alone.
    """
    if config.shared is not None:
        with suppress(FileNotFoundError):
            mechanism = Mechanism.look(config.shared)
            assert mechanism.block is not None
            return mechanism, f"the gateways' block {mechanism.block.path}"
    return Mechanism(replace(config, shared=None)), "a Mechanism at rest, as after a start"


def _explain(args: argparse.Namespace) -> int:
    """Ask and answer."""
    config = Config.load(args.config, on=args.on)
    mechanism, source = _mechanism_of(config)
    with mechanism:
        explanation = mechanism.explain(args.user, args.srv)
        snapshot = mechanism.snapshot()
        active = snapshot.active
        if mechanism.block is not None:
            config = mechanism.config  # the one in force, whatever the file says by now
    facts = _facts(config, explanation.user, explanation.srv)
    candidate = _tried(config, snapshot, explanation.user)
    hints = _hints(config, args.user, args.srv, explanation.user, explanation.srv)
    if args.json:
        terminal.print_json(
            {
                "decision": explanation.decision.name,
                "sentence": explanation.sentence,
                "user": explanation.user,
                "srv": explanation.srv,
                "asked": source,
                "active": active,
                "version": config.version,
                **facts,
                "candidate": candidate,
                "notes": hints,
            }
        )
        return 0
    for line in textwrap.wrap(plain(explanation.sentence, 1000), min(terminal.columns(), 120)):
        print(line)
    print()
    listed = "on the priority list" if facts["priority"] else "not on the priority list"
    name = f", {facts['srv_name']}" if facts["srv_name"] else ""
    burst = number(facts["burst_at_once"])
    told = [
        ("asked", f"{source}; the Mechanism is {'active' if active else 'inactive'}"),
        ("version", f"{config.version}, mode {config.mode}"),
        ("User", plain(explanation.user, 200) + _category(facts["category"])),
        ("allocation", f"{number(facts['allocation'])} units per second; {burst} at once from rest"),
        ("SRV", plain(explanation.srv) + name),
        ("", f"{listed}, cost {facts['cost']}"),
        ("at worst", facts["at_worst"]),
        *([("candidate", candidate["sentence"])] if candidate is not None else []),
        *(("note", hint) for hint in hints),
    ]  # fmt: skip
    for label, text in told:
        for line in terminal.fact(label, text):
            print(line)
    return 0


def _facts(config: Config, user: str, srv: str) -> dict[str, Any]:
    """Return what decides about this User and SRV."""
    allocation = config.unknown_allocation if user == UNKNOWN else config.allocations.get(user, 0.0)
    request = by_srv_code().get(srv)
    priority = srv in config.priority_srvs
    if priority:
        at_worst = "never throttled"
    elif config.mode == "observe":
        at_worst = "counted as throttled, and admitted: over its allocation, no spare capacity"
    else:
        at_worst = "throttled: over its allocation, active, no spare capacity left"
    return {
        "category": config.categories.get(user, ""),
        "allocation": allocation,
        "burst_at_once": burst_at_once(config, allocation),
        "srv_name": request.name if request is not None else "",
        "priority": priority,
        "cost": config.cost_of(srv),
        "at_worst": at_worst,
    }


def _tried(config: Config, snapshot: Snapshot, user: str) -> dict[str, Any] | None:
    """Return what a candidate allocation would have decided otherwise for a User; None where none is tried."""
    rates, tried = config.candidate_allocations, snapshot.candidate
    if rates is None or tried is None or user == UNKNOWN or user not in snapshot.users:
        return None
    units = tried.units[snapshot.users.index(user)].tolist()
    rate = rates.get(user, 0.0)
    return {
        "version": tried.version,
        "allocation": rate,
        **{each.name.lower(): units[each] for each in Difference},
        "sentence": f"a candidate allocation of {number(rate)} units per second is tried without effect: so far "
        f"{number(units[Difference.OVER])} units would have been over it alone, at most "
        f"{number(units[Difference.OVER_WHILE_ACTIVE])} of them throttled, and "
        f"{number(units[Difference.ADMITTED])} that were throttled would have been admitted",
    }


def _hints(config: Config, user_id: str, srv_code: str, user: str, srv: str) -> list[str]:
    """Return what the asker may have got wrong."""
    hints = []
    if user == UNKNOWN:
        near = did_you_mean(user_id, config.users) if len(config.users) <= 1000 else ""
        hints.append(f"{user_id!r} is not in the allocations: all unknown Users share one pool{near}")
    if srv == UNKNOWN:
        fault = fault_of(srv_code) or f"{srv_code!r} is a Service Reference: ask for one of its variants"
        hints.append(f"{fault}: unknown SRVs are ordinary requests")
    return hints


def _category(category: str) -> str:
    return f" ({category})" if category else ""
