"""The arguments of several commands, and what they stand for: a time, event logs, a host's block, a file to write.

Of a ``tmm.toml`` only what is asked for needs to be right: gateways go on with the last good configuration while
the file has a mistake, and who looks at them then must see them. A file is put in its place whole or not at all, and
never over another one without being asked to.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tmm_core.errors import ConfigError, EventLogError, Mistake, TMMError
from tmm_core.policy.config_files import block_named
from tmm_core.policy.toml_places import load_toml

if TYPE_CHECKING:
    from tmm_core.mechanism import Mechanism


_AGO = re.compile(r"(\d+)(s|min|h|d)")
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


def about(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], description: str, examples: str
) -> None:
    """Say what a command is for, and what runs it."""
    parser.description, parser.epilog = description, examples
    parser.set_defaults(run=run)


def add_config(parser: argparse.ArgumentParser, what: str = "default tmm.toml") -> None:
    """Add the configuration that is meant."""
    parser.add_argument("-c", "--config", type=Path, default=Path("tmm.toml"), metavar="FILE", help=what)


def add_files_arguments(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add where the files go, and what else is shown."""
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path(folder),
        metavar="DIR",
        help=f"folder for the files (default {folder})",
    )
    parser.add_argument("--json", action="store_true", help="write the figures to stdout as JSON")
    parser.add_argument(
        "--quiet", action="store_true", help="show no progress and no summary; only write the files"
    )


def number_between(low: float, high: float, what: str) -> Callable[[str], float]:
    """Return what reads an option that is `what`, from `low` to `high`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {low:g} to {high:g}")
        return value

    return read


def day(text: str) -> date:
    """Return the day an option names."""
    try:
        if len(text) != 10:
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day, expected a form like 2026-12-01") from None


def moment(text: str) -> int:
    """Return UTC milliseconds since 1970 of a date, a time, or a span ago such as ``90min``."""
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
    """Return the logs, each ``tmm.toml`` replaced by the log it names; what `event_log_of` raises."""
    return [event_log_of(path) if path.suffix == ".toml" else path for path in paths]


def add_block_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which block is meant."""
    add_config(parser, "the configuration that names the block (default tmm.toml)")
    parser.add_argument("--block", metavar="NAME|PATH", help="the block itself, without a configuration")


def look_at(args: argparse.Namespace, *, change: bool = False) -> Mechanism:
    """Open the block the options name, to look at or to change; TMMError if none is configured, or there is none."""
    from tmm_core.mechanism import Mechanism  # an argument that names no block does not pay for it

    shared = block_of(Path(args.config)) if args.block is None else args.block
    try:
        return Mechanism.look(shared, change=change)
    except FileNotFoundError as error:
        raise TMMError(
            f"{error.filename}: found no block: no gateway with this block has started on this host"
        ) from None


def block_of(path: Path) -> str:
    """Return the block that the processes of a configuration share.

    ConfigError if the file cannot be read, or there is no ``[state] shared``.
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

    ConfigError or EventLogError if the file cannot be read, or names no log.
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


def place(path: Path, text: str, *, replace: bool = False, hint: str = "choose another name") -> bool:
    """Write a new file, UTF-8; readers see all of it or none of it, also when the machine stops half-way.

    Its folder is made if it does not exist. With `replace` it takes the place of another file of that name; without,
    that is a TMMError, which says by `hint` what to do. False: a file with exactly this content was there already.
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
