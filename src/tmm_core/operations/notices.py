"""What a Service User is told about a traffic management event: its own figures, and advice. Nothing of others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from string import Template
from typing import Any

from tmm_core.errors import ConfigError, Mistake
from tmm_core.operations.event_log.event_records import iso
from tmm_core.operations.terminal import duration, number
from tmm_core.policy.validation import uncovered

__all__ = ["FIELDS", "Notice", "Templates"]

#: Names that a template may use.
FIELDS = frozenset(
    {"user", "event", "began", "ended", "duration", "allocation", "offered", "throttled", "admitted", "priority",
     "within", "spare", "throttled_seconds", "first_throttled", "last_throttled", "by_srv"}
)  # fmt: skip

_BEGAN = """\
Subject: Traffic management: some of your Service Requests are being throttled

To $user

The DCC System has reached its operating threshold. Traffic management began at $began (UTC).
Your Service Requests above your allocation of $allocation units per second may be answered with HTTP 503;
the first one was at $first_throttled.

What to do:
- Send a throttled Service Request again after the time in its Retry-After header, not sooner: it was not processed.
- Postpone what is not urgent, for example bulk reads.
- Requests on the priority list, and all within your allocation, are admitted as always.

You will be told when this event has ended.
Event $event
"""
_ENDED = """\
Subject: Traffic management has ended: $throttled of your Service Requests were throttled

To $user

Traffic management began at $began and ended at $ended (UTC), after $duration.

Of your $offered Service Requests in this time
  $admitted were admitted: $priority on the priority list, $within within your allocation
  of $allocation units per second, $spare from spare capacity;
  $throttled were throttled, in $throttled_seconds seconds between $first_throttled and $last_throttled.

Throttled by Service Reference Variant:
$by_srv

What to do:
- Throttled Service Requests were not processed. Those you have not sent again can be sent now, spread over time.
- If this happens to you again and again, spread your scheduled reads, or ask for your allocation to be reviewed.

Event $event
"""


@dataclass(frozen=True, slots=True)
class Templates:
    """Texts for the beginning and the end of an event: ``string.Template``; a first line ``Subject: ...``.

    Raises
    ------
    ConfigError
        A text uses names that are not in `FIELDS`, or has no subject.
    """

    began: str = _BEGAN
    ended: str = _ENDED

    def __post_init__(self) -> None:
        found = []
        for name, text in (("began", self.began), ("ended", self.ended)):
            template = Template(text)
            unknown = sorted(set(template.get_identifiers()) - FIELDS)
            if unknown or not template.is_valid():
                what = f"${', $'.join(unknown)}" if unknown else "a $ that begins no name ($$ is a dollar)"
                known = ", ".join(sorted(FIELDS))
                found.append(Mistake(f"{name}.txt: {what} cannot be filled in, expected {known}", field=name))
            if not text.startswith("Subject: "):
                found.append(Mistake(f"{name}.txt: the first line must begin with 'Subject: '", field=name))
        if found:
            raise ConfigError(found)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Templates:
        """Read ``began.txt`` and ``ended.txt`` of a folder; what is not there is as it comes.

        Raises
        ------
        ConfigError
            All mistakes at once.
        """
        texts, found = {}, []
        if not Path(folder).is_dir():
            raise ConfigError(Mistake(f"{folder} is no folder with began.txt or ended.txt"))
        for name in ("began", "ended"):
            file = Path(folder) / f"{name}.txt"
            if file.is_file():
                try:
                    texts[name] = file.read_text(encoding="utf-8")
                except UnicodeDecodeError as error:
                    found.append(Mistake(f"is not UTF-8: {error}", file=str(file)))
                except OSError as error:
                    found.append(Mistake(f"cannot be read: {error.strerror}", file=str(file)))
        if not texts and not found:
            found.append(Mistake(f"{folder} has neither began.txt nor ended.txt"))
        if found:
            raise ConfigError(found)
        return cls(**texts)


@dataclass(frozen=True, slots=True)
class Notice:
    """One User, one event, its beginning or its end.

    Attributes
    ----------
    user, event, notice : str
        `notice` is ``began`` or ``ended``.
    began, ended : str
        ISO 8601, UTC; `ended` is empty in ``began``.
    counts : mapping of str to int
        The User's own Service Requests in the event: `throttled`, `spare`, `within`, `priority`,
        `throttled_seconds`.
    by_srv : mapping of str to int
        Its throttled ones by SRV.
    """

    user: str
    event: str
    notice: str
    began: str
    ended: str
    duration_s: float
    allocation: float
    first_throttled: str
    last_throttled: str
    counts: Mapping[str, int]
    by_srv: Mapping[str, int]
    templates: Templates = field(default_factory=Templates, repr=False)

    @property
    def id(self) -> str:
        """The same for each attempt at this notice."""
        return f"{self.event}/{self.notice}"

    @classmethod
    def of(
        cls, row: Mapping[str, Any], notice: str, by_srv: Mapping[str, int], templates: Templates
    ) -> Notice:
        """Return the notice of a row of ``event_users`` joined with its event."""
        ended = notice == "ended"
        return cls(
            user=row["name"], event=row["event"], notice=notice,
            began=iso(row["began_ms"]), ended=iso(row["ended_ms"]) if ended else "",
            duration_s=row["duration_ms"] / 1000 if ended else 0.0,
            allocation=row["allocation"],
            first_throttled=iso(row["first_throttled_ms"] or row["began_ms"]),
            last_throttled=iso(row["last_throttled_ms"] or row["began_ms"]),
            counts={name: row[name] for name in ("throttled", "spare", "within", "priority", "throttled_seconds")},
            by_srv=by_srv if ended else {}, templates=templates,
        )  # fmt: skip

    def json(self) -> str:
        """Return the notice for programs."""
        value = {
            "user": self.user, "event": self.event, "notice": self.notice, "began": self.began,
            "allocation": self.allocation, "first_throttled": self.first_throttled,
        }  # fmt: skip
        if self.notice == "ended":
            value |= {
                "ended": self.ended, "duration_s": self.duration_s, "last_throttled": self.last_throttled,
                "service_requests": dict(self.counts), "throttled_by_srv": dict(self.by_srv),
            }  # fmt: skip
        return json.dumps(value, indent=1)

    def text(self) -> str:
        """Return the notice for people, the subject in the first line."""
        counts = self.counts
        admitted = counts["spare"] + counts["within"] + counts["priority"]
        lines = [f"  {srv:<12} {number(count):>12}" for srv, count in sorted(self.by_srv.items())]
        values: dict[str, str] = {
            "user": uncovered(self.user, lambda _: "?"), "event": self.event, "began": _time(self.began),
            "ended": _time(self.ended), "duration": duration(round(self.duration_s, 1)),
            "allocation": number(self.allocation), "offered": number(admitted + counts["throttled"]),
            "admitted": number(admitted), **{name: number(count) for name, count in counts.items()},
            "first_throttled": _time(self.first_throttled), "last_throttled": _time(self.last_throttled),
            "by_srv": "\n".join(lines),
        }  # fmt: skip
        template = self.templates.began if self.notice == "began" else self.templates.ended
        return Template(template).substitute(values)

    def subject(self) -> str:
        """Return the subject of the text."""
        return self.text().partition("\n")[0].removeprefix("Subject: ").strip()

    def body(self) -> str:
        """Return the text without its subject."""
        return self.text().partition("\n")[2].lstrip("\n")


def _time(text: str) -> str:
    """A time to the second, for people."""
    return text[:19].replace("T", " ")
