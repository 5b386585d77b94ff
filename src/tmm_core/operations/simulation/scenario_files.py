"""Scenarios from TOML files: strict, with every mistake at once and its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

from tmm_core.errors import ConfigError, EventLogError, Mistake, TMMError
from tmm_core.operations.simulation.arrivals import logged_traffic
from tmm_core.operations.simulation.scenario import (
    CLIENT_KINDS,
    FAULT_KINDS,
    MIXES,
    POLICIES,
    PRIORITY_SRVS,
    TRAFFIC_KINDS,
    Change,
    Client,
    DspTerms,
    Fault,
    Scenario,
    SimUser,
    Traffic,
)
from tmm_core.operations.traffic.logged_traffic import names_event_log
from tmm_core.policy.config import Config, PriorityList
from tmm_core.policy.service_requests import srv_codes
from tmm_core.policy.tables import read_file
from tmm_core.policy.toml_places import LARGEST_FILE, Toml, toml_of
from tmm_core.policy.validation import CATEGORIES, SHARINGS, did_you_mean, shown

_SCENARIOS = Path(str(resources.files("tmm_core.operations").joinpath("scenarios")))
LONGEST_S = 86_400
_STEP = 0.1  # of activation_s, the longest step
MOST_USERS = 4000
UNKNOWN = "(unknown)"

Key = tuple[str | int, ...]

# Sections and their keys: least, most, default (a number), or the default; `date` for a time that may be left out.
_TOP: dict[str, Any] = {
    "title": "", "about": "", "source": "", "base": "", "base_traffic": True,
    "seconds": (1, LONGEST_S, 300), "seed": (0, 2**63 - 1, 1),
    "step_ms": (1, 100, 10), "begins_h": (0, 24, 0.0), "speed": (0.001, 10_000, 1.0), "overloads": (0, 1000, 1),
    "policies": tuple(POLICIES), "hosts": (1, 64, 1),
}  # fmt: skip
_CAPACITY: dict[str, Any] = {
    "system_capacity": (1e-3, 1e6, 25_000.0),
    "operating_threshold": (1e-3, 1e6, 20_000.0),
    "unknown_allocation": (0, 1e6, 50.0),
}
_MECHANISM: dict[str, Any] = {
    "burst_s": (0, 3600, 1.0), "activation_s": (0.01, 10, 0.25), "hold_s": (1, 3600, 10.0),
    "max_retry_after_s": (1, 86_400, 300.0), "sharing": "fair",
}  # fmt: skip
_DSP: dict[str, Any] = {
    "queue_s": (0.1, 3600, 60.0), "timeout_s": (0.1, 3600, 30.0), "strain_s": (0, 3600, 2.0),
    "slowdown": (0, 10, 0.02), "restart_s": (0, 3600, 120.0),
}  # fmt: skip
_CLIENT: dict[str, Any] = {
    "kind": "", "base_s": (0.01, 3600, 1.0), "factor": (1, 10, 2.0), "cap_s": (0.01, 3600, 60.0),
    "jitter": (0, 1, 1.0), "attempts": (1, 250, 8), "patience_s": (1, 3600, 600.0),
}  # fmt: skip
_USERS: dict[str, Any] = {
    "name": "", "count": (1, MOST_USERS, 1), "category": "other", "portfolio": (0, 1e9, 1.0),
    "allocation": (0, 1e6, 0.0), "shares": (), "client": "",
}  # fmt: skip
_TRAFFIC: dict[str, Any] = {
    "users": (), "kind": "", "rate": (0, 1e6, 0.0), "mix": "supplier", "knots": (), "at_s": (0, LONGEST_S, 0.0),
    "lasts_s": (0, LONGEST_S, 0.0), "ramp_s": (0, LONGEST_S, 0.0), "spread_s": (0, LONGEST_S, 0.0),
    "factors": (), "dwell_s": (), "wander": (0, 1, 0.15), "file": "", "since": date, "until": date,
}  # fmt: skip
_FAULT: dict[str, Any] = {
    "kind": "", "at_s": (0, LONGEST_S, 0.0), "lasts_s": (0, LONGEST_S, 60.0), "factor": (0.0, 1, 1.0),
}  # fmt: skip
_CHANGE: dict[str, Any] = {"at_s": (0, LONGEST_S, 0.0), "users": (), "factor": (0, 10, 1.0)}
_SECTIONS = {"capacity": _CAPACITY, "mechanism": _MECHANISM, "dsp": _DSP}
_LISTS = {"users": _USERS, "traffic": _TRAFFIC, "faults": _FAULT, "changes": _CHANGE}
_KNOWN = (*_TOP, *_SECTIONS, *_LISTS, "clients", "mixes", "priority", "costs", "behaviour")


def shipped_scenarios() -> dict[str, Path]:
    """Return the scenarios that come with the package, by name."""
    return {path.stem: path for path in sorted(_SCENARIOS.glob("*.toml")) if not path.stem.startswith("_")}


def demo_day() -> Scenario:
    """Read the day that `tmm demo` plays."""
    return _Reader(_SCENARIOS / "_demo-day.toml").scenario()


def load_scenario(name: str) -> Scenario:
    """Read a scenario: the name of a shipped one, or the path of a TOML file.

    Raises
    ------
    ConfigError
        All mistakes of the file, each with its line and column.
    TMMError
        There is neither such a file nor such a scenario.
    """
    shipped = shipped_scenarios()
    path = shipped.get(name) or Path(name)
    if name not in shipped and not path.exists():
        near = did_you_mean(name, shipped)
        raise TMMError(
            f"found neither a file nor a shipped scenario {shown(name)}{near}: see tmm simulate --list"
        )
    return _Reader(path).scenario()


class _Reader:
    """Reads one file, and the file it is based on."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, str(path)
        self.found: list[Mistake] = []
        toml = toml_of(read_file(path, LARGEST_FILE), self.file, self.found)
        if toml is None:
            raise ConfigError(self.found)
        self.toml: Toml = toml
        self.values: dict[str, Any] = toml.values
        self.base: dict[str, Any] = {}

    def scenario(self) -> Scenario:
        top = self.section((), _TOP, self.values, known=_KNOWN)
        if top["base"]:
            base = _Reader(self.path.parent / top["base"])
            self.base = base.values
            base.only_known()
            self.found += base.found
            below = base.section((), _TOP, base.values, known=_KNOWN)
            top = {key: top[key] if key in self.values else below[key] for key in _TOP}
            if not top["base_traffic"]:
                self.base = {**base.values, "traffic": []}
        parts = {name: self.merged(name, keys) for name, keys in _SECTIONS.items()}
        clients = self.clients()
        users = self.users(clients)
        mixes = {**MIXES, **self.mixes()}
        traffic = self.traffic({user.name for user in users}, mixes)
        faults = [Fault(**values) for _, values in self.rows("faults")]
        self.choose(("faults",), [fault.kind for fault in faults], FAULT_KINDS, "kind")
        changes = [Change(**{**each, "users": self.texts(each["users"])}) for _, each in self.rows("changes")]
        self.choose((), list(self.texts(top["policies"])), tuple(POLICIES), "policies")
        if 1000 % int(top["step_ms"]):
            self.fault(("step_ms",), f"step_ms {top['step_ms']} must divide 1000")
        longest = parts["mechanism"]["activation_s"] * _STEP * 1000
        if top["step_ms"] > longest:
            # Spare capacity is given up to a backlog of twice that: what comes at once beyond it is refused.
            self.fault(
                ("step_ms",),
                f"step_ms {top['step_ms']} must be at most {longest:g}, a tenth of activation_s: all of a step come at "
                "one instant",
            )
        sharing = parts["mechanism"]["sharing"]
        self.choose(("mechanism",), [sharing], SHARINGS, "sharing")
        if self.found:
            raise ConfigError(self.found[:100])
        try:
            config = self.config(parts, users)
        except ConfigError as error:
            for each in error.mistakes:
                field = each.field or ""
                place: Key = next(((name, field) for name, keys in _SECTIONS.items() if field in keys), ())
                self.fault(place, each.message)
            raise ConfigError(self.found) from None
        return Scenario(
            name=self.path.stem, title=top["title"] or self.path.stem, about=" ".join(top["about"].split()),
            source=" ".join(top["source"].split()), seconds=int(top["seconds"]), seed=int(top["seed"]),
            step_ms=int(top["step_ms"]), begins_h=top["begins_h"], speed=top["speed"],
            overloads=int(top["overloads"]), policies=self.texts(top["policies"]), hosts=int(top["hosts"]),
            config=config, users=users, traffic=traffic, mixes=mixes, dsp=DspTerms(**parts["dsp"]),
            faults=tuple(faults), changes=tuple(sorted(changes, key=lambda each: each.at_s)),
        )  # fmt: skip

    def only_known(self) -> None:
        """Note keys that a base does not have."""
        self.section((), _TOP, self.values, known=_KNOWN)

    def config(self, parts: Mapping[str, Mapping[str, Any]], users: Sequence[SimUser]) -> Config:
        priority = self.values.get("priority", self.base.get("priority", list(PRIORITY_SRVS)))
        return Config(
            **parts["capacity"],
            **parts["mechanism"],
            allocations={user.name: user.allocation for user in users},
            categories={user.name: user.category for user in users},
            priority=PriorityList(tuple(priority), version="scenario", source="illustrative"),
            costs=self.values.get("costs", self.base.get("costs", {})),
        )

    def clients(self) -> dict[str, Client]:
        clients = {}
        tables = {**self.base.get("clients", {}), **self.values.get("clients", {})}
        for name, table in tables.items():
            values = self.section(("clients", name), _CLIENT, table)
            self.choose(("clients", name), [values["kind"]], CLIENT_KINDS, "kind")
            clients[name] = Client(name, **{**values, "attempts": int(values["attempts"])})
        return clients

    def users(self, clients: Mapping[str, Client]) -> tuple[SimUser, ...]:
        users: list[SimUser] = []
        behaviour = {**self.base.get("behaviour", {}), **self.values.get("behaviour", {})}
        self.choose(("behaviour",), list(behaviour.values()), tuple(clients), "behaviour")
        usual = Client("no-retry", "no-retry", attempts=1)
        for place, values in self.rows("users"):
            self.choose(place, [values["category"]], CATEGORIES, "category")
            if values["client"]:
                self.choose(place, [values["client"]], tuple(clients), "client")
            client = clients.get(values["client"], usual)
            count, shares = int(values["count"]), [float(each) for each in values["shares"]]
            if shares and len(shares) != count:
                self.fault(
                    (*place, "shares"), f"{len(shares)} shares, expected one for each of {count} Users"
                )
            shares = shares if len(shares) == count else [1.0] * count
            total = sum(shares) or 1.0
            for number, share in enumerate(shares, 1):
                name = values["name"] if count == 1 else f"{values['name']} {number:02d}"
                part = share / total
                own = [clients.get(kind, usual) for who, kind in behaviour.items() if fnmatchcase(name, who)]
                users.append(
                    SimUser(
                        name, values["category"], values["portfolio"] * part, values["allocation"] * part,
                        own[-1] if own else client,
                    )
                )  # fmt: skip
        if not 0 < len(users) <= MOST_USERS:
            self.fault(("users",), f"{len(users)} Users, expected 1 to {MOST_USERS}")
        return tuple(users)

    def traffic(self, users: set[str], mixes: Mapping[str, Any]) -> tuple[Traffic, ...]:
        made = []
        for place, values in self.rows("traffic"):
            self.choose(place, [values["kind"]], TRAFFIC_KINDS, "kind")
            self.choose(place, [values["mix"]], tuple(mixes), "mix")
            file = self.path.parent / values["file"] if values["file"] else None
            if (values["kind"] == "replay") != (file is not None):
                self.fault(place, "file must be given for kind 'replay', and only for it")
            since, until = values.pop("since"), values.pop("until")
            if values["kind"] == "diurnal" and len(values["knots"]) < 2:
                self.fault((*place, "knots"), "diurnal traffic needs two knots or more: [hour, factor]")
            if (
                values["kind"] in ("on-off", "mmpp")
                and not len(values["factors"]) == len(values["dwell_s"]) > 1
            ):
                self.fault(place, "factors and dwell_s must be as many, two or more")
            try:
                numbers = {
                    "knots": tuple((float(x), float(y)) for x, y in values["knots"]),
                    "factors": tuple(float(each) for each in values["factors"]),
                    "dwell_s": tuple(max(1.0, float(each)) for each in values["dwell_s"]),
                }
            except (TypeError, ValueError):
                self.fault(place, "knots must be pairs of numbers; factors and dwell_s numbers")
                continue
            texts = {"users": self.texts(values["users"]), "file": file, "since_s": since, "until_s": until}
            one = Traffic(**{**values, **numbers, **texts})
            if file is not None:
                self.past(place, one)
            if values["kind"] != "replay" and not any(one.is_from(user) for user in (*users, UNKNOWN)):
                self.fault((*place, "users"), f"users {shown(list(one.users))} are no User of this scenario")
            made.append(one)
        return tuple(made)

    def past(self, place: Key, traffic: Traffic) -> None:
        """Note what keeps past traffic from being replayed: no such file, no event log, nothing in its time."""
        path = traffic.file
        assert path is not None
        timed = traffic.since_s is not None or traffic.until_s is not None
        try:
            if not names_event_log(path):
                if not path.is_file():
                    self.fault(
                        (*place, "file"), f"file {shown(str(path))}: there is no such file or event log"
                    )
                elif timed:
                    self.fault(place, f"since and until are for event logs: {shown(str(path))} is none")
                return
            with logged_traffic(traffic) as log:
                if log.size is None:
                    when = " in this time" if timed else ""
                    self.fault((*place, "file"), f"file {shown(str(path))}: no Service Request{when}")
        except (OSError, EventLogError) as error:
            self.fault((*place, "file"), str(error))

    def mixes(self) -> dict[str, dict[str, int]]:
        mixes: dict[str, dict[str, int]] = {}
        known = {UNKNOWN, *srv_codes()}
        for name, mix in {**self.base.get("mixes", {}), **self.values.get("mixes", {})}.items():
            wrong = [code for code, weight in mix.items() if code not in known or type(weight) is not int]
            if wrong or not mix:
                self.fault(
                    ("mixes", name), f"mix {shown(name)}: {shown(wrong)} must be SRVs with whole weights"
                )
            mixes[name] = mix
        return mixes

    # --- sections

    def merged(self, name: str, keys: Mapping[str, Any]) -> dict[str, Any]:
        table = {**self.base.get(name, {}), **self.values.get(name, {})}
        return self.section((name,), keys, table)

    def rows(self, name: str) -> list[tuple[Key, dict[str, Any]]]:
        found = []
        for values in (self.base, self.values):
            for number, row in enumerate(values.get(name, ())):
                place: Key = (name, number) if values is self.values else ("base",)
                found.append((place, self.section(place, _LISTS[name], row)))
        return found

    def section(
        self, place: Key, keys: Mapping[str, Any], table: Any, known: Sequence[str] = ()
    ) -> dict[str, Any]:
        if not isinstance(table, dict):
            self.fault(place, f"{place[-1] if place else 'the file'} must be a table")
            table = {}
        for key in table:
            if key not in (known or keys):
                fault = f"unknown key {shown(key)}{did_you_mean(key, known or keys)}"
                self.fault((*place, key), fault, at_key=True)
        return {key: self.value(place, key, rule, table.get(key)) for key, rule in keys.items()}

    def value(self, place: Key, key: str, rule: Any, value: Any) -> Any:
        if isinstance(rule, bool):
            if value is None or isinstance(value, bool):
                return rule if value is None else value
            self.fault((*place, key), f"{key} {shown(value)} must be true or false")
            return rule
        is_number = isinstance(rule, tuple) and len(rule) == 3 and isinstance(rule[0], int | float)
        default = rule[2] if is_number else rule
        if value is None:
            return None if rule is date else default
        if rule is date:
            return self.moment(place, key, value)
        if is_number:
            low, high, _ = rule
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                self.fault((*place, key), f"{key} {shown(value)} must be a number from {low:g} to {high:g}")
                return default
            return value if isinstance(default, int) and isinstance(value, int) else float(value)
        expected: type = str if isinstance(default, str) else list
        if not isinstance(value, expected):
            words = "a text" if expected is str else "a list"
            self.fault((*place, key), f"{key} {shown(value)} must be {words}")
            return default
        return value

    def moment(self, place: Key, key: str, value: Any) -> int | None:
        """Return the seconds since 1970 of a TOML date or date-time; UTC where it has no offset."""
        if not isinstance(value, date):
            example = "expected a date or a time without quotation marks, for example 2026-12-01T17:30:00Z"
            self.fault((*place, key), f"{key} {shown(value)} is no time: {example}")
            return None
        at = value if isinstance(value, datetime) else datetime.combine(value, time())
        return int(at.replace(tzinfo=at.tzinfo or UTC).timestamp())

    def choose(self, place: Key, values: Sequence[str], known: Sequence[str], key: str) -> None:
        for value in values:
            if value not in known:
                near = did_you_mean(value, known) or f", expected one of {', '.join(known)}"
                self.fault((*place, key), f"{key} {shown(value)} is unknown{near}")

    def texts(self, values: Sequence[Any]) -> tuple[str, ...]:
        return tuple(str(each) for each in values)

    def fault(self, place: Key, message: str, *, at_key: bool = False) -> None:
        """Note a mistake at the value of a path, or at its key."""
        line, column = self.toml.place_of_key(*place) if at_key else self.toml.place_of(*place)
        self.found.append(Mistake(message, file=self.file, line=line, column=column))
