"""Arguments that several commands share: which logs, and which time."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tmm_core.operations.commands.named import event_log_of

__all__ = ["add_log_arguments", "logs_of", "moment"]

_AGO = re.compile(r"(\d+)(s|min|h|d)")
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


def moment(text: str) -> int:
    """Return UTC milliseconds since 1970 of a date, a time, or a span ago such as ``90min``.

    Raises
    ------
    argparse.ArgumentTypeError
        It is none of them.
    """
    match = _AGO.fullmatch(text)
    try:
        if match:
            at = datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
        else:
            at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: expected for example 2026-11-25, 2026-11-25T12:30, or 90min, 24h, 7d ago (UTC)"
        ) from None
    return int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1000)


def add_log_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the logs, and since and until."""
    parser.add_argument(
        "logs",
        nargs="+",
        type=Path,
        metavar="LOG",
        help="event logs of one or many hosts: events.db for all its months, one file of it, a folder, or a tmm.toml",
    )
    parser.add_argument(
        "--since", type=moment, default=0, metavar="TIME", help="2026-11-25, or 90min, 24h, 7d ago"
    )
    parser.add_argument(
        "--until", type=moment, default=1 << 62, metavar="TIME", help="the same; not included"
    )


def logs_of(paths: list[Path]) -> list[Path]:
    """Return the logs, each ``tmm.toml`` replaced by the log it names.

    Raises
    ------
    ConfigError, EventLogError
        One of them cannot be read, or names no log.
    """
    return [event_log_of(path) if path.suffix == ".toml" else path for path in paths]
