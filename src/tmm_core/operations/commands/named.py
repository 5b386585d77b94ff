"""What a ``tmm.toml`` names: its block and its event log. Nothing else in it needs to be right.

Gateways go on with the last good configuration while the file has a mistake: who looks at them then must see them.
"""

from __future__ import annotations

from pathlib import Path

from tmm_core.errors import ConfigError, EventLogError, Mistake
from tmm_core.policy.config_files import block_named
from tmm_core.policy.toml_places import load_toml

__all__ = ["block_of", "event_log_of"]


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
