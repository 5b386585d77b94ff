"""What the arguments of several commands stand for: a time, event logs, a host's block to look at, a file to write.

Of a ``tmm.toml`` only what is asked for needs to be right: gateways go on with the last good configuration while
the file has a mistake, and who looks at them then must see them. A file is put in its place whole or not at all, and
never over another one without being asked to.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tmm_core.errors import ConfigError, EventLogError, Mistake, TMMError
from tmm_core.policy.config_files import block_named
from tmm_core.policy.toml_places import load_toml

if TYPE_CHECKING:
    from tmm_core.mechanism import Mechanism

__all__ = [
    "REPLACED_S",
    "add_log_arguments",
    "block_of",
    "event_log_of",
    "is_replaced",
    "logs_of",
    "look_when_there",
    "moment",
    "place",
    "say",
    "stop_when_told",
]

#: Seconds between looks whether another block is in the place of this.
REPLACED_S = 5.0

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


def block_of(path: Path) -> str:
    """Return the block that the processes of a configuration share.

    Raises
    ------
    ConfigError
        The file cannot be read, or there is no ``[state] shared``.
    """
    shared = _text(path, "state", "shared")
    if shared is None:
        raise ConfigError(
            Mistake(
                'there is no block to look at: set [state] shared, for example "tmm"; or run it inside the gateway '
                "(tmm_core.operations.watch.start, tmm_core.operations.serve.start)",
                file=str(path),
                field="shared",
            )
        )
    return block_named(shared, path)


def event_log_of(path: Path) -> Path:
    """Return the event log of a configuration.

    Raises
    ------
    ConfigError, EventLogError
        The file cannot be read, or names no log.
    """
    log = _text(path, "files", "event_log")
    if log is None:
        raise EventLogError(f"{path}: names no event log: [files] event_log, for example events.db")
    return path.parent / log


def _text(path: Path, section: str, key: str) -> str | None:
    toml = load_toml(path)
    values = toml.values.get(section)
    value = values.get(key) if isinstance(values, dict) else None
    if value is not None and not (isinstance(value, str) and value.strip()):
        line, column = toml.place_of(section, key)
        fault = f"{key} {value!r} must be a text that is not empty"
        raise ConfigError(Mistake(fault, file=str(path), line=line, column=column, field=key))
    return value


def stop_when_told() -> threading.Event:
    """Return what SIGTERM and Ctrl-C set from now on."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def say(text: str) -> None:
    """Tell who runs the command."""
    print(f"tmm: {text}", file=sys.stderr, flush=True)


def look_when_there(shared: str, stopped: Callable[[float], bool], period_s: float = 1.0) -> Mechanism | None:
    """Look at a shared block, as soon as a gateway has made it; says that it waits if there is none yet.

    Parameters
    ----------
    shared : str
        Name or path of the block.
    stopped : callable
        Waits so many seconds and returns whether to give up.

    Returns
    -------
    Mechanism or None
        None if it was given up.
    """
    from tmm_core.mechanism import Mechanism  # an argument that names no block does not pay for it

    told = False
    while True:
        try:
            return Mechanism.look(shared)
        except FileNotFoundError:
            if not told:
                told = True
                say("waiting for a gateway to make the block")
            if stopped(period_s):
                return None


def is_replaced(mechanism: Mechanism, shared: str) -> bool:
    """Tell whether another block is in the place of the one that is looked at: gateways now count there."""
    block = mechanism.block
    try:
        now = type(mechanism).look(shared)
    except FileNotFoundError:
        return False  # the old one can still be read
    try:
        return block is None or now.block is None or now.block.header.block_id != block.header.block_id
    finally:
        now.close()


def place(path: Path, text: str, *, replace: bool = False, hint: str = "choose another name") -> bool:
    """Write a new file; readers see all of it or none of it, also when the machine stops half-way.

    Parameters
    ----------
    path : Path
        Its folder is made if it does not exist.
    text : str
        Written as UTF-8.
    replace : bool
        Put it in the place of another file of that name.
    hint : str
        What to do where there is another file.

    Returns
    -------
    bool
        False if a file with exactly this content was there already.

    Raises
    ------
    TMMError
        Another file of that name is there.
    OSError
        The folder cannot be written to.
    """
    import tempfile  # only who writes a file pays for it

    data = text.encode("utf-8")
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named so that nobody who looks for dated files takes it for one.
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)  # mkstemp's 0600 would hide it from the gateway's account
        if replace:
            os.replace(part, path)
        else:
            _place_new(Path(part), path, hint)
        _sync_folder(path.parent)
    finally:
        Path(part).unlink(missing_ok=True)
    return True


def _place_new(part: Path, path: Path, hint: str) -> None:
    taken = TMMError(f"{path} is there already, with other content: {hint}")
    try:
        os.link(part, path)  # fails if the name is taken, at one moment with looking
    except FileExistsError:
        raise taken from None
    except (OSError, NotImplementedError, AttributeError):  # a file system without links
        if os.path.lexists(path):
            raise taken from None
        os.replace(part, path)


def _sync_folder(folder: Path) -> None:
    """Make the new name last; where a folder cannot be opened (Windows) the system sees to it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
