"""Charts as SVG files: small, readable at 375 px, drawn as those of the pages are (`charts`).

The title says the finding, and the lines are named where they are. The CSV beside a chart holds its figures.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tmm_core.mechanism import Decision
from tmm_core.operations.charts import (
    BLUE,
    GREY,
    HALO,
    PLOT,
    VERMILION,
    Frame,
    Level,
    Line,
    band_key,
    document,
    legend_of,
    lying_bars,
    px,
    runs,
    safe,
    time_step,
)
from tmm_core.operations.terminal import number
from tmm_core.operations.traffic.drive import Outcome, Series
from tmm_core.policy.config import Config

_WIDTH = 540
_HEADING, _AXIS = 36, 40
_TITLE_CHARS, _TEXT_CHARS = 50, 62  # that fit into the width
_MOST_TICKS = 5


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot of offered against admitted load.

    Attributes
    ----------
    label : callable
        Text for a time in axis seconds.
    zero : float
        Second of the series at which the axis has 0.
    speed : float
        Axis seconds in one second of the series.
    """

    heading: str
    series: Series
    label: Callable[[int], str]
    zero: float = 0.0
    speed: float = 1.0


def clock_label(seconds: int) -> str:
    """Return a time of day, for example ``17:30``; with seconds where they are not 0."""
    seconds %= 86_400
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}"
    return f"{text}:{seconds % 60:02d}" if seconds % 60 else text


def elapsed_label(seconds: int) -> str:
    """Return seconds since a moment, for example ``+90 s``."""
    return f"{seconds:+d} s" if seconds else "0 s"


def outcome_chart(
    outcome: Outcome, config: Config, whole: Panel, subtitle: str, began: Callable[[float], str]
) -> str:
    """Draw the whole traffic, and the activation that throttled most, if there was one.

    Parameters
    ----------
    whole : Panel
        The first plot.
    subtitle : str
        What traffic it was, and when.
    began : callable
        Text for the beginning of the activation, from seconds since the start of the traffic.
    """
    panels = [whole]
    if outcome.closest is not None:
        heading = f"Most throttled activation, {began(outcome.closest_began_s)}"
        panels.append(Panel(heading, outcome.closest, elapsed_label, zero=outcome.closest_began_s))
    uniform = all(cost == 1 for cost in config.costs.values())
    unit = "Service Requests per second" if uniform else "Units per second"
    highest = "" if whole.series.width == 1 else f" (highest of each {number(whole.series.width)} s)"
    description = (
        "Offered and admitted load against the operating threshold of "
        f"{number(config.operating_threshold)} and the "
        f"system capacity of {number(config.system_capacity)} {unit.lower()}. "
        f"{number(outcome.requests)} Service "
        f"Requests offered, {number(outcome.of(Decision.THROTTLED))} throttled, "
        f"{number(outcome.activations)} "
        f"activations. Highest second offered {number(outcome.offered.highest)}, admitted "
        f"{number(outcome.admitted.highest)}."
    )
    return load_chart(
        finding(outcome, config),
        description,
        panels,
        operating_threshold=config.operating_threshold,
        system_capacity=config.system_capacity,
        subtitle=subtitle,
        unit=unit + highest,
    )


def finding(outcome: Outcome, config: Config) -> str:
    """Say in one sentence what was found."""
    if not outcome.activations:
        return f"Never active, nothing throttled: {number(outcome.offered.highest)} offered in the highest second"
    return (
        f"Of up to {number(outcome.offered.highest)} offered per second, at most "
        f"{number(outcome.highest_while_active)} were admitted while the Mechanism was active"
    )


def load_chart(
    title: str,
    description: str,
    panels: Sequence[Panel],
    *,
    operating_threshold: float,
    system_capacity: float,
    subtitle: str = "",
    unit: str = "Service Requests per second",
) -> str:
    """Draw offered against admitted load, with operating threshold, system capacity and active periods.

    Parameters
    ----------
    title, description : str
        Read out by screen readers; the title is shown as well, and should say the finding.
    panels : sequence of Panel
        Drawn below each other.
    operating_threshold, system_capacity : float
        Units per second.
    subtitle : str
        What was measured, and when.
    unit : str
        What the vertical axis counts.
    """
    parts, top = _head(title, subtitle, unit)
    key, after = legend_of([band_key("Mechanism active")], _WIDTH, 8)
    parts += [f'<g transform="translate(14 {top})">', *key, "</g>"]
    top += int(after)
    for panel in panels:
        parts += _panel(panel, top + _HEADING, operating_threshold, system_capacity)
        top += _HEADING + PLOT + _AXIS
    return _standalone(title, description, parts, top + 6)


def bar_chart(
    title: str,
    description: str,
    rows: Sequence[tuple[str, float, str]],
    *,
    limits: int = 0,
    subtitle: str = "",
    unit: str = "",
) -> str:
    """Draw a bar for each row, its name above it and its figure at its end.

    Parameters
    ----------
    title, description, subtitle, unit : str
        As for `load_chart`.
    rows : sequence of (name, value, text)
        Values of 0 or more, all on one scale.
    limits : int
        How many rows at the end are limits the others are part of: they are drawn in grey.
    """
    parts, top = _head(title, subtitle, unit)
    first_limit = len(rows) - limits
    bars = [
        (name, [0, value] if place >= first_limit else [value, 0], text)
        for place, (name, value, text) in enumerate(rows)
    ]
    lying, bottom = lying_bars(bars, [BLUE, GREY], _WIDTH - 28, 0)
    parts += [f'<g transform="translate(14 {top + 10})">', *lying, "</g>"]
    return _standalone(title, description, parts, top + bottom + 14)


def _head(title: str, subtitle: str, unit: str) -> tuple[list[str], int]:
    """Write what is read first; returns it and how far down it comes."""
    head, y = [], 8
    for text, size, weight, chars in ((title, 18, 700, _TITLE_CHARS), (subtitle, 14, 400, _TEXT_CHARS)):
        for line in textwrap.wrap(text, chars):
            y += size + 5
            head.append(f'<text x="16" y="{y}" font-size="{size}" font-weight="{weight}">{safe(line)}</text>')
    return [*head, f'<text x="16" y="{y + 26}">{safe(unit)}</text>'], y + 30


def _standalone(title: str, description: str, parts: Sequence[str], height: float) -> str:
    """Return a chart that is a file of its own: on white, with a title for who points at it."""
    own = [f"<title>{safe(title)}</title>", f'<rect width="{_WIDTH}" height="{px(height)}" fill="#FFFFFF"/>']
    return document(title, description, _WIDTH, height, [*own, *parts]) + "\n"


def _panel(panel: Panel, top: int, threshold: float, capacity: float) -> list[str]:
    series = panel.series
    end = series.first + max(1, len(series.offered)) * series.width
    # Room for a label above the highest.
    frame = Frame(_WIDTH, max([capacity, threshold, *series.offered]) * 1.09, top=top)

    def x_of(second: float) -> float:
        return frame.left + (second - series.first) / (end - series.first) * frame.plot_width

    def moment(place: float) -> float:
        return series.first + place * series.width

    offered, admitted = (
        [(moment(place + 0.5), load) for place, load in enumerate(loads)]
        for loads in (series.offered, series.admitted)
    )
    lines = [Line("offered", offered, VERMILION, "5 2", 1.8), Line("admitted", admitted, BLUE, "", 2.4)]
    levels = [Level("operating threshold", threshold), Level("system capacity", capacity, "2 3")]
    return [
        f'<text x="16" y="{top - 13}" font-weight="600">{safe(panel.heading)}</text>',
        *frame.bands([(x_of(moment(began)), x_of(moment(ended))) for began, ended in runs(series.active)]),
        *frame.grid(),
        *frame.ticks([(x_of(second), label) for second, label in _ticks(panel, end)]),
        *[frame.line(line, x_of) for line in lines if line.points],
        *frame.levels(levels, *_free_side(frame, series, threshold)),
        *_names(frame, lines, x_of),
    ]


def _names(frame: Frame, lines: Sequence[Line], x_of: Callable[[float], float]) -> list[str]:
    """Name the lines where they differ most, and where the offered load is highest."""
    offered, admitted = lines
    peak = max(offered.points, key=lambda point: point[1], default=(0.0, 0.0))
    if not peak[1]:
        return []
    gaps = [above[1] - below[1] for above, below in zip(offered.points, admitted.points, strict=True)]
    throttled = max(gaps) > 0
    words = f"offered{'' if throttled else ', all admitted'}: {peak[1]:,.0f} at most"
    named = [(peak, -8, offered.colour if throttled else admitted.colour, words)]
    if throttled:
        named.append((admitted.points[gaps.index(max(gaps))], 21, admitted.colour, "admitted"))
    parts = []
    for (second, load), below, colour, text in named:
        half = len(text) * 3.9
        x = min(max(x_of(second), frame.left + half + 4), frame.left + frame.plot_width - half)
        parts.append(
            f'<text x="{px(x)}" y="{px(frame.y_of(load) + below)}" text-anchor="middle" font-weight="600" '
            f'fill="{colour}" {HALO}>{text}</text>'
        )
    return parts


def _free_side(frame: Frame, series: Series, threshold: float) -> tuple[str, float]:
    """Return where the names of the levels hide least: text anchor and x."""
    n = len(series.offered)
    thirds = {
        ("start", frame.left + 6): series.offered[: n * 9 // 20],
        ("middle", frame.left + frame.plot_width / 2): series.offered[n * 11 // 40 : n * 29 // 40],
        ("end", frame.left + frame.plot_width - 4): series.offered[n - n * 9 // 20 :],
    }
    return min(thirds, key=lambda place: sum(load > 0.9 * threshold for load in thirds[place]))


def _ticks(panel: Panel, end: int) -> list[tuple[float, str]]:
    """Return a few seconds of the series that are round on the axis, and their labels."""
    first = (panel.series.first - panel.zero) * panel.speed
    last = (end - panel.zero) * panel.speed
    step = time_step(last - first, _MOST_TICKS)
    marks = range(int(-(-first // step)) * step, int(last) + 1, step)
    return [(panel.zero + mark / panel.speed, panel.label(mark)) for mark in marks]
