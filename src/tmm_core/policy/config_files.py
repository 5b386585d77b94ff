"""Read ``tmm.toml`` and the files it names: all of it, or an error with every mistake of every file.

`Config` and `PriorityList` judge the values; what is here finds the files, and puts to each mistake the file,
line, column and the word that stands there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from tmm_core.errors import ConfigError, Mistake
from tmm_core.policy import validation as check
from tmm_core.policy.allocation_files import AllocationTable, Place, file_in_force, read_allocations
from tmm_core.policy.config import Config, PriorityList
from tmm_core.policy.service_requests import is_srv
from tmm_core.policy.tables import LARGEST_TABLE, read_file
from tmm_core.policy.toml_places import LARGEST_FILE, Toml, toml_of

__all__ = [
    "PRIORITY_KEYS",
    "SECTIONS",
    "block_named",
    "load_config",
    "load_priority_list",
    "priority_list_on",
]

#: Section of ``tmm.toml`` -> key in it -> field of `Config`. ``[costs]`` has SRVs for keys.
SECTIONS: Mapping[str, Mapping[str, str]] = {
    "capacity": {
        "system_capacity": "system_capacity",
        "operating_threshold": "operating_threshold",
        "release_threshold": "release_threshold",
    },
    "mechanism": {
        "mode": "mode",
        "sharing": "sharing",
        "activation_s": "activation_s",
        "hold_s": "hold_s",
        "burst_s": "burst_s",
        "max_retry_after_s": "max_retry_after_s",
        "tick_s": "tick_s",
        "spare_weight": "spare_weight",
    },
    "files": {
        "allocations": "allocations",
        "candidate_allocations": "candidate_allocations",
        "priority_list": "priority",
        "event_log": "event_log",
    },
    "unknown_users": {"allocation": "unknown_allocation"},
    "costs": {},
    "state": {"shared": "shared", "max_users": "max_users"},
    "cluster": {"url": "cluster_url"},
}
#: Keys of a priority list.
PRIORITY_KEYS = ("version", "effective_from", "approved_by", "source", "srvs")

_REQUIRED = ("system_capacity", "operating_threshold")


def load_config(path: str | PathLike[str], *, on: date | None = None) -> Config:
    """Read ``tmm.toml`` and the files it names; see `Config.load`. *Thread-safe.*"""
    loader = _Loader(Path(path), on or datetime.now(UTC).date())
    return loader.load()


def load_priority_list(path: str | PathLike[str]) -> PriorityList:
    """Read a priority list in TOML; see `PriorityList.load`. *Thread-safe.*"""
    found: list[Mistake] = []
    priority, _ = _read_priority_list(Path(path), found)
    if priority is None or found:
        raise ConfigError(_in_order(found))
    return priority


class _Source(NamedTuple):
    """Where the value of a field of `Config` stands, and what it is called there."""

    file: str
    place: Place
    key: str


class _Loader:
    """Reads one configuration; used once."""

    def __init__(self, path: Path, on: date) -> None:
        self.path = path
        self.file = str(path)
        self.on = on
        self.found: list[Mistake] = []
        self.values: dict[str, Any] = {}
        self.sources: dict[str, _Source] = {}
        self.missing: list[str] = []
        self.tables: dict[str, AllocationTable] = {}  # by field of `Config`
        self.digests: dict[str, str] = {}

    def load(self) -> Config:
        toml = toml_of(read_file(self.path, LARGEST_FILE), self.file, self.found)
        if toml is None:
            raise ConfigError(_in_order(self.found))
        self._sections(toml)
        files = toml.values.get("files", {})
        if isinstance(files, dict):
            self._files(files, toml)
        config = self._config()
        if config is None or self.found:
            raise ConfigError(_in_order(self.found))
        return config

    def _wrong(self, fault: str, place: Place, field: str | None) -> None:
        self.found.append(_mistake(fault, self.file, place, field))

    def _sections(self, toml: Toml) -> None:
        """Take the values of the sections, and tell what is there too much and too little."""
        for section, values in toml.values.items():
            place = toml.place_of_key(section)
            if section not in SECTIONS:
                self._wrong(_unknown_section(section, values, self.found), place, section)
            elif not isinstance(values, dict):
                fault = f"{section} {check.shown(values)} must be a section: [{section}]"
                self._wrong(fault, place, section)
            elif section == "costs":
                self._costs(values, toml)
            else:
                self._section(section, values, toml)
        capacity = toml.values.get("capacity", {})
        if isinstance(capacity, dict):
            self.missing = [key for key in _REQUIRED if key not in capacity]
            where = toml.place_of("capacity") if "capacity" in toml.values else (1, 1)
            for key in self.missing:
                self._wrong(f"{key} is missing in [capacity]: units per second", where, key)
        else:
            self.missing = list(_REQUIRED)

    def _section(self, section: str, values: Mapping[str, Any], toml: Toml) -> None:
        known = SECTIONS[section]
        for key, value in values.items():
            if key not in known:
                self._wrong(_unknown_key(key, section, self.found), toml.place_of_key(section, key), key)
                continue
            field, place = known[key], toml.place_of(section, key)
            self.sources[field] = _Source(self.file, place, key)
            if section != "files":
                self.values[field] = value
                continue
            wrong: list[Mistake] = []
            check.optional_text(key, value, wrong)
            for mistake in wrong:
                self._wrong(mistake.message, place, key)

    def _costs(self, values: Mapping[str, Any], toml: Toml) -> None:
        costs = {}
        for code, cost in values.items():
            field = check.element("costs", code)
            if isinstance(cost, dict):
                fault = f"costs: write the SRV in quotation marks: {_quoted(code, cost)}"
                self._wrong(fault, toml.place_of_key("costs", code), field)
                continue
            costs[code] = cost
            place = toml.place_of("costs", code) if is_srv(code) else toml.place_of_key("costs", code)
            self.sources[field] = _Source(self.file, place, field)
        self.values["costs"] = costs

    def _files(self, files: Mapping[str, Any], toml: Toml) -> None:
        """Read the files that are named soundly."""
        paths: dict[str, Path] = {}
        for key in SECTIONS["files"]:
            wrong: list[Mistake] = []
            check.optional_text(key, files.get(key), wrong)
            if files.get(key) is not None and not wrong:
                paths[key] = self.path.parent / files[key]
        if "event_log" in paths:
            self.values["event_log"] = str(paths["event_log"])
        if "allocations" in paths:
            self._allocations(paths["allocations"])
        if "candidate_allocations" in paths:
            self._candidate(paths["candidate_allocations"])
        if "priority_list" in paths:
            self._priority_list(paths["priority_list"])

    def _allocations(self, path: Path) -> None:
        chosen = file_in_force(path, self.on, self.found)
        if chosen is None:
            return
        file, day = chosen
        table = self._table("allocations", file)
        if table is None:
            return
        self.values["user_ids"] = table.user_ids
        self.values["categories"] = table.categories
        self.values["allocations_file"] = str(file)
        self.values["allocations_digest"] = self.digests["allocations"]
        self.values["effective_from"] = day

    def _candidate(self, file: Path) -> None:
        """Take the allocations of the candidate: whose the identifiers are, those in force say."""
        if self._table("candidate_allocations", file) is not None:
            self.values["candidate_file"] = str(file)

    def _table(self, field: str, file: Path) -> AllocationTable | None:
        try:
            data = read_file(file, LARGEST_TABLE)
        except ConfigError as error:
            self.found += error.mistakes
            return None
        self.digests[field] = hashlib.sha256(data).hexdigest()[:12]
        table = self.tables[field] = read_allocations(data, str(file), self.found)
        self.values[field] = table.allocations
        return table

    def _priority_list(self, path: Path) -> None:
        before = len(self.found)
        priority = priority_list_on(path, self.on, self.found)
        if priority is not None and len(self.found) == before:
            self.values["priority"] = priority

    def _config(self) -> Config | None:
        values = {**self.values, "source": self.file}
        # What is missing is told already. A stand-in lets the other values be judged.
        stand_in = values.get("operating_threshold", values.get("system_capacity", check.MAX_THRESHOLD))
        for key in self.missing:
            values[key] = stand_in
        if isinstance(values.get("shared"), str):
            values["shared"] = block_named(values["shared"], self.path)
        try:
            return Config(**values)
        except ConfigError as error:
            # What only is wrong beside a stand-in is not wrong.
            self.found += [
                self._placed(mistake)
                for mistake in error.mistakes
                if not any(key in mistake.message for key in self.missing)
            ]
            return None

    def _placed(self, mistake: Mistake) -> Mistake:
        """Put to a mistake of a value the place it was read from."""
        field = mistake.field or ""
        if field in ("allocations", "candidate_allocations"):
            table = self.tables.get(field)
            unknown = check.as_number(self.values.get("unknown_allocation", 0.0)) or 0.0
            threshold = check.as_number(self.values.get("operating_threshold")) or 0.0
            if table is not None and unknown <= threshold:
                return _mistake(
                    mistake.message, table.file, table.place_above(threshold - unknown), "allocation"
                )
            field = "unknown_allocation"
        source = self.sources.get(field) or self._cell_of(field)
        if source is None:
            return Mistake(mistake.message, file=self.file, field=mistake.field)
        message = mistake.message.removeprefix(f"{field}: ")
        if message.startswith(f"{field} "):
            message = source.key + message.removeprefix(field)
        return _mistake(message, source.file, source.place, source.key)

    def _cell_of(self, field: str) -> _Source | None:
        """Return the cell of an allocations file that a field such as ``allocations['Northern Energy']`` is."""
        found = self._cells.get(field)
        if found is None:
            return None
        table, user, user_id = found
        column = "user_ids" if user_id else "allocation"
        return _Source(table.file, table.place_of(user, column, user_id), column)

    @cached_property
    def _cells(self) -> dict[str, tuple[AllocationTable, str, str]]:
        """Table, User and identifier by field: made for the first mistake, as there may be one in each row."""
        cells = {
            check.element(name, user): (table, user, "")
            for name, table in self.tables.items()
            for user in table.lines
        }
        in_force = self.tables.get("allocations")
        if in_force is not None:
            for user_id, user in in_force.user_ids.items():
                cells[check.element("user_ids", user_id)] = in_force, user, user_id
        return cells


def _mistake(message: str, file: str, place: Place, field: str | None) -> Mistake:
    return Mistake(message, file=file, line=place[0], column=place[1], field=field)


def block_named(shared: str, path: Path) -> str:
    """Return the block that `shared` means in the ``tmm.toml`` at `path`: a path, absolute, or a name.

    A path has a separator in it. Made absolute, it keeps one: ``./block`` would be the name ``block`` otherwise.
    """
    if "/" in shared or "\\" in shared:
        return os.path.abspath(path.parent / shared)
    return shared


def _unknown_section(section: str, values: object, found: list[Mistake]) -> str:
    if isinstance(values, dict | list):
        return f"unknown section [{section}]{check.did_you_mean(section, SECTIONS, found)}"
    for other, keys in SECTIONS.items():
        if section in keys:
            return f"key {section!r} stands outside a section, expected it in [{other}]"
    return f"unknown key {check.shown(section)} outside a section"


def _unknown_key(key: str, section: str, found: list[Mistake]) -> str:
    for other, keys in SECTIONS.items():
        if key in keys:
            return f"key {key!r} is not known in [{section}], expected it in [{other}]"
    hint = check.did_you_mean(key, SECTIONS[section], found)
    return f"unknown key {check.shown(key)} in [{section}]{hint}"


def _quoted(code: str, value: object) -> str:
    """Return the line that was meant by an SRV without quotation marks: TOML reads 4.8.1 as three keys."""
    while isinstance(value, dict) and len(value) == 1:
        ((part, value),) = value.items()
        code = f"{code}.{part}"
    if isinstance(value, dict):
        return f'"{code[:20]}..." = ...'
    return f'"{code[:20]}" = {check.shown(value)}'


def priority_list_on(path: Path, on: date, found: list[Mistake]) -> PriorityList | None:
    """Read the priority list in force on a day: a file, or a folder of them named by their first day.

    What is wrong goes to `found`; None if nothing sound is left.
    """
    chosen = file_in_force(path, on, found, suffix=".toml", what="priority list")
    if chosen is None:
        return None
    file, day = chosen
    priority, toml = _read_priority_list(file, found)
    if (
        priority is not None
        and toml is not None
        and path.is_dir()
        and priority.effective_from not in (None, day)
    ):
        fault = f"effective_from {priority.effective_from} must be the day of the file's name, {day}"
        found.append(_mistake(fault, str(file), toml.place_of("effective_from"), "effective_from"))
    return priority


def _read_priority_list(path: Path, found: list[Mistake]) -> tuple[PriorityList | None, Toml | None]:
    file = str(path)
    try:
        toml = toml_of(read_file(path, LARGEST_FILE), file, found)
    except ConfigError as error:
        found += error.mistakes
        return None, None
    if toml is None:
        return None, None
    values = {}
    for key, value in toml.values.items():
        if key in PRIORITY_KEYS:
            values[key] = value
            continue
        hint = check.did_you_mean(key, PRIORITY_KEYS, found)
        fault = f"unknown key {check.shown(key)} in a priority list{hint}"
        found.append(_mistake(fault, file, toml.place_of_key(key), key))
    if "srvs" not in values:
        fault = 'srvs is missing: the SRVs on the list, for example srvs = ["2.2", "7.4"]'
        found.append(_mistake(fault, file, (1, 1), "srvs"))
        values["srvs"] = []
    try:
        return PriorityList(**values), toml
    except ConfigError as error:
        found += [_placed_in_list(mistake, toml, file) for mistake in error.mistakes]
        return None, toml


def _placed_in_list(mistake: Mistake, toml: Toml, file: str) -> Mistake:
    field = mistake.field or ""
    key, _, index = field.partition("[")
    path: tuple[str | int, ...] = (key, int(index[:-1])) if index else (key,)
    message = mistake.message.removeprefix(f"{field}: ")
    if key == "effective_from" and isinstance(toml.values.get(key), str):
        message += " (without quotation marks)"
    return _mistake(message, file, toml.place_of(*path), field)


def _in_order(found: list[Mistake]) -> list[Mistake]:
    """Put mistakes in the order of the files as they were read, and of the lines in each."""
    files = {file: place for place, file in enumerate(dict.fromkeys(mistake.file for mistake in found))}
    return sorted(found, key=lambda mistake: (files[mistake.file], mistake.line or 0, mistake.column or 0))
