"""What the Mechanism would have done to a gateway's request log: the real engine on the log's own clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tmm_core.errors import TMMError
from tmm_core.mechanism import Mechanism
from tmm_core.operations.figures import Panel, clock_label
from tmm_core.operations.traffic.drive import Drive
from tmm_core.operations.traffic.outcome import Outcome
from tmm_core.operations.traffic.outcome_chart import outcome_chart
from tmm_core.operations.traffic.outcome_files import OutcomeFiles
from tmm_core.operations.traffic.request_log import LogNotes, RequestLog
from tmm_core.operations.traffic.request_order import by_second
from tmm_core.policy.config import Config

__all__ = ["WINDOW_S", "Replay", "run_replay", "time_at"]

WINDOW_S = 5.0
"""Seconds a line may be behind an earlier one, unless told otherwise."""

_DAY_S = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """A finished replay.

    Attributes
    ----------
    config : Config
        In force while it ran; its mode is ``enforce``.
    outcome : Outcome
    notes : LogNotes
        About the log.
    start : int
        The first second of the log, seconds since 1970.
    files : tuple of Path
        What was written.
    """

    config: Config
    outcome: Outcome
    notes: LogNotes
    start: int
    files: tuple[Path, ...]


def run_replay(
    log: RequestLog,
    config: Config,
    folder: Path,
    *,
    window_s: float = WINDOW_S,
    keep: tuple[Path, ...] = (),
    progress: Callable[[float], None] = lambda done: None,
) -> Replay:
    """Decide on every Service Request of a log, and write ``replay.csv``, ``users.csv`` and ``replay.svg``.

    Parameters
    ----------
    log : RequestLog
        Not read yet.
    config : Config
        With ``mode = "observe"`` the replay still shows what ``enforce`` would have throttled.
    folder : Path
        Made if it does not exist.
    window_s : float
        Seconds a line may be behind an earlier one.
    keep : tuple of Path
        Files that must not be overwritten.
    progress : callable
        Told `RequestLog.done`.

    Raises
    ------
    TMMError
        The log has no Service Request that can be decided on, or is damaged.
    OSError
        A file cannot be read or written.
    """
    config = replace(config, mode="enforce")
    notes = log.notes

    def time_of(second: float) -> str:
        return time_at((notes.start or 0) + int(second))

    with OutcomeFiles(folder, "replay", time_of, keep) as files, Mechanism(config, start=0) as mechanism:
        drive = Drive(mechanism, on_row=files.row)
        blocks = log.blocks(mechanism.user, mechanism.srv)
        for traffic in by_second(blocks, window_s, notes):
            drive.feed(traffic)
            progress(log.done())
        outcome = drive.finish()
        first = notes.start
        if first is None:
            raise TMMError(_nothing(log))
        chart = outcome_chart(
            outcome,
            config,
            Panel("The whole log (UTC)", outcome.series, _label_of(first), zero=-(first % _DAY_S)),
            f"tmm replay: {time_of(0)} to {time_of(outcome.seconds - 1)}",
            lambda second: f"from {time_of(second)}",
        )
        files.finish(outcome, config, chart)
    return Replay(config, outcome, notes, first, files.paths)


def time_at(second: int) -> str:
    """Return seconds since 1970 as text, for example ``2026-12-01T18:30:00Z``."""
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _label_of(start: int) -> Callable[[int], str]:
    """Return the labels of an axis in seconds since the midnight before the start: the day, or the time."""
    midnight = start - start % _DAY_S

    def label(seconds: int) -> str:
        if seconds % _DAY_S:
            return clock_label(seconds)
        at = _EPOCH + timedelta(seconds=midnight + seconds)
        return f"{at.day} {at:%b}"

    return label


def _nothing(log: RequestLog) -> str:
    """Say why there is nothing to decide on."""
    notes = log.notes
    if not notes.bad:
        return f"{log.name}: no Service Request after the header"
    faults = "\n".join(f"{log.name}: {bad}" for bad in notes.first_bad[:3])
    return f"{log.name}: none of {notes.bad:,} lines after the header can be read\n{faults}"
