"""Charts as SVG text: small, readable at 375 px, no script, no network, the same bytes for the same figures.

The title says the finding, the lines are named where they are, and offered and admitted load are told apart
by dash and weight as well as by colour. Every chart carries a title and a description for who does not see
it; the CSV beside it holds its figures. Nothing but the standard library is needed.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from tmm_core.mechanism import Decision
from tmm_core.operations.charts import round_step
from tmm_core.operations.terminal import number
from tmm_core.operations.traffic.outcome import Outcome, Series
from tmm_core.policy.config import Config
from tmm_core.policy.validation import uncovered

__all__ = ["Panel", "bar_chart", "clock_label", "elapsed_label", "finding", "load_chart", "outcome_chart"]

_WIDTH = 540
_LEFT, _RIGHT = 68, 16
_PLOT_HEIGHT = 200
_HEADING, _AXIS = 36, 40
_TITLE_CHARS, _TEXT_CHARS = 50, 62  # that fit into the width
# Okabe and Ito: told apart by who does not tell red from green, and in grey.
_OFFERED, _ADMITTED, _ACTIVE, _LINE, _INK = "#D55E00", "#0072B2", "#F0E442", "#444444", "#1A1A1A"
_HALO = 'stroke="#FFFFFF" stroke-width="4" stroke-linejoin="round" paint-order="stroke"'
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
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
    name: str = "load",
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
    name : str
        Prefix of the identifiers inside: one of its own for each chart of a page.

    Returns
    -------
    str
        A whole SVG document.
    """
    head, y = _head(title, subtitle)
    head += _key(y + 26, unit)
    top = y + 62
    height = top + len(panels) * (_HEADING + _PLOT_HEIGHT + _AXIS) + 6
    for panel in panels:
        head += _panel(panel, top + _HEADING, operating_threshold, system_capacity)
        top += _HEADING + _PLOT_HEIGHT + _AXIS
    return _document(title, description, head, height, name)


def bar_chart(
    title: str,
    description: str,
    rows: Sequence[tuple[str, float, str]],
    *,
    limits: int = 0,
    subtitle: str = "",
    unit: str = "",
    name: str = "bars",
) -> str:
    """Draw a bar for each row, its name and its figure above it.

    Parameters
    ----------
    title, description : str
        As for `load_chart`.
    rows : sequence of (name, value, text)
        Values of 0 or more, all on one scale.
    limits : int
        How many rows at the end are limits the others are part of: they are drawn as outlines.
    name : str
        Prefix of the identifiers inside: one of its own for each chart of a page.

    Returns
    -------
    str
        A whole SVG document.
    """
    head, y = _head(title, subtitle)
    y += 26
    head.append(f'<text x="16" y="{y}" font-size="14">{_safe(unit)}</text>')
    highest = max((value for _, value, _ in rows), default=0) or 1
    for place, (label, value, text) in enumerate(rows):
        y += 27
        width = _short(max(value / highest * (_WIDTH - 32), 1 if value else 0))
        is_limit = place >= len(rows) - limits
        style = f'fill="none" stroke="{_LINE}" stroke-width="1.4"' if is_limit else f'fill="{_ADMITTED}"'
        head += [
            f'<text x="16" y="{y}" font-weight="600">{_safe(label)}</text>',
            f'<text x="{_WIDTH - _RIGHT}" y="{y}" text-anchor="end">{_safe(text)}</text>',
            f'<rect x="16" y="{y + 6}" width="{width}" height="14" {style}/>',
        ]
        y += 20
    return _document(title, description, head, y + 18, name)


def _head(title: str, subtitle: str) -> tuple[list[str], int]:
    """Write what is read first; returns it and how far down it comes."""
    head, y = [], 8
    for text, size, weight, chars in ((title, 18, 700, _TITLE_CHARS), (subtitle, 14, 400, _TEXT_CHARS)):
        for line in textwrap.wrap(_clean(text), chars):
            y += size + 5
            head.append(
                f'<text x="16" y="{y}" font-size="{size}" font-weight="{weight}">{escape(line)}</text>'
            )
    return head, y


def _document(title: str, description: str, parts: Sequence[str], height: int, name: str) -> str:
    font = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-labelledby="{name}-title {name}-description" font-family="{font}" font-size="15" '
        f'fill="{_INK}">'
    )
    start = [
        svg,
        f'<title id="{name}-title">{_safe(title)}</title>',
        f'<desc id="{name}-description">{_safe(description)}</desc>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#FFFFFF"/>',
    ]
    return "\n".join([*start, *parts, "</svg>", ""])


def _clean(text: str) -> str:
    """Return text without what XML forbids or what changes how a line reads."""
    return uncovered(text, lambda _: "\ufffd")


def _safe(text: str) -> str:
    return escape(_clean(text))


def _key(y: int, unit: str) -> list[str]:
    """Name the unit and the shading; the lines are named in the plot."""
    x, below = 16, y + 22
    shade = f'fill="{_ACTIVE}" fill-opacity="0.4" stroke="{_LINE}" stroke-width="0.5"'
    return [
        f'<text x="16" y="{y}" font-size="14">{_safe(unit)}</text>',
        f'<rect x="{x}" y="{below - 12}" width="24" height="15" {shade}/>',
        f'<text x="{x + 31}" y="{below}" font-size="14">Mechanism active</text>',
    ]


def _panel(panel: Panel, top: int, threshold: float, capacity: float) -> list[str]:
    series = panel.series
    bottom, plot_width = top + _PLOT_HEIGHT, _WIDTH - _LEFT - _RIGHT
    end = series.first + max(1, len(series.offered)) * series.width
    highest = max([capacity, threshold, *series.offered]) * 1.13  # room for a label above the highest
    step_y = round_step(highest / 4)

    def x_of(second: float) -> str:
        return _short(_LEFT + (second - series.first) / (end - series.first) * plot_width)

    def y_of(load: float) -> str:
        return _short(bottom - load / highest * _PLOT_HEIGHT)

    parts = [f'<text x="16" y="{top - 13}" font-weight="600">{_safe(panel.heading)}</text>']
    for began, ended in _periods(series):
        left, right = x_of(began), x_of(ended)
        width = _short(max(1.5, float(right) - float(left)))  # a second of a month must still be seen
        parts.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{_PLOT_HEIGHT}" fill="{_ACTIVE}" '
            'fill-opacity="0.4"/>'
        )
    mark = 0.0
    while mark <= highest:
        parts.append(
            f'<line x1="{_LEFT}" y1="{y_of(mark)}" x2="{_WIDTH - _RIGHT}" y2="{y_of(mark)}" '
            'stroke="#DDDDDD"/>'
            f'<text x="{_LEFT - 7}" y="{y_of(mark)}" dy="5" '
            f'text-anchor="end">{_load_text(mark, step_y)}</text>'
        )
        mark += step_y
    parts += _ticks(panel, end, x_of, bottom)
    middles = [x_of(series.first + (place + 0.5) * series.width) for place in range(len(series.offered))]
    for loads, colour, style in (
        (series.offered, _OFFERED, 'stroke-width="1.8" stroke-dasharray="5 2"'),
        (series.admitted, _ADMITTED, 'stroke-width="2.4"'),
    ):
        points = " ".join(f"{x},{y_of(load)}" for x, load in zip(middles, loads, strict=True))
        if points:
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" {style} stroke-linejoin="round"/>'
            )
    for level, dash in ((threshold, "9 4"), (capacity, "2 3")):
        parts.append(
            f'<line x1="{_LEFT}" y1="{y_of(level)}" x2="{_WIDTH - _RIGHT}" y2="{y_of(level)}" '
            f'stroke="{_LINE}" '
            f'stroke-width="1.4" stroke-dasharray="{dash}"/>'
        )
    return parts + _labels(series, threshold, capacity, x_of, y_of)


def _labels(
    series: Series,
    threshold: float,
    capacity: float,
    x_of: Callable[[float], str],
    y_of: Callable[[float], str],
) -> list[str]:
    """Name the lines where they are: the levels where the load is low, the loads where they differ most."""
    parts = []
    gaps = [offered - admitted for offered, admitted in zip(series.offered, series.admitted, strict=True)]
    anchor, x = _free_side(series, threshold)
    for level, name in ((threshold, "operating threshold"), (capacity, "system capacity")):
        below = level == threshold and float(y_of(threshold)) - float(y_of(capacity)) < 20
        parts.append(
            f'<text x="{x}" y="{y_of(level)}" dy="{16 if below else -5}" text-anchor="{anchor}" '
            'font-size="14" '
            f"{_HALO}>{name} {_load_text(level, level % 1 or 1)}</text>"
        )
    if not series.offered or not max(series.offered):
        return parts
    peak = series.offered.index(max(series.offered))
    throttled = max(gaps) > 0
    words = "offered" if throttled else "offered, all admitted"
    at = x_of(series.first + (peak + 0.5) * series.width)
    colour = _OFFERED if throttled else _ADMITTED
    text = f"{words}: {_load_text(series.offered[peak], 1)} at most"
    parts.append(_name(at, y_of(series.offered[peak]), -8, colour, text))
    if throttled:
        widest = gaps.index(max(gaps))
        at = x_of(series.first + (widest + 0.5) * series.width)
        parts.append(_name(at, y_of(series.admitted[widest]), 21, _ADMITTED, "admitted"))
    return parts


def _name(x: str, y: str, dy: int, colour: str, text: str) -> str:
    """Return a line's name beside a point of it, inside the picture."""
    half = len(text) * 3.9
    middle = min(max(float(x), _LEFT + half + 4), _WIDTH - _RIGHT - half)
    return (
        f'<text x="{_short(middle)}" y="{y}" dy="{dy}" text-anchor="middle" font-weight="600" '
        f'fill="{colour}" '
        f"{_HALO}>{text}</text>"
    )


def _free_side(series: Series, threshold: float) -> tuple[str, int]:
    """Return where the names of the levels hide least: text anchor and x."""
    n = len(series.offered)
    thirds = {
        ("start", _LEFT + 6): series.offered[: n * 9 // 20],
        ("middle", (_LEFT + _WIDTH - _RIGHT) // 2): series.offered[n * 11 // 40 : n * 29 // 40],
        ("end", _WIDTH - _RIGHT - 4): series.offered[n - n * 9 // 20 :],
    }
    near = 0.9 * threshold
    return min(thirds, key=lambda place: sum(load > near for load in thirds[place]))


def _ticks(panel: Panel, end: int, x_of: Callable[[float], str], bottom: int) -> list[str]:
    first = (panel.series.first - panel.zero) * panel.speed
    last = (end - panel.zero) * panel.speed
    step = next((each for each in _STEPS_S if (last - first) / each <= _MOST_TICKS), 0)
    if not step:
        days = int(-(-(last - first) // (86_400 * _MOST_TICKS)))
        step = days * 86_400
    parts = []
    mark = int(-(-first // step)) * step
    while mark <= last:
        x = x_of(panel.zero + mark / panel.speed)
        # The outermost labels keep inside the picture.
        anchor = "end" if float(x) > _WIDTH - 34 else "middle"
        parts.append(
            f'<line x1="{x}" y1="{bottom}" x2="{x}" y2="{bottom + 5}" stroke="{_INK}"/>'
            f'<text x="{x}" y="{bottom + 21}" text-anchor="{anchor}">{_safe(panel.label(mark))}</text>'
        )
        mark += step
    return parts


def _periods(series: Series) -> list[tuple[int, int]]:
    """Return the active periods, in seconds."""
    found: list[tuple[int, int]] = []
    for place, active in enumerate(series.active):
        began = series.first + place * series.width
        if active and found and found[-1][1] == began:
            found[-1] = (found[-1][0], began + series.width)
        elif active:
            found.append((began, began + series.width))
    return found


def _load_text(load: float, step: float) -> str:
    return f"{load:,.0f}" if step >= 1 else f"{load:.3g}"


def _short(number: float) -> str:
    """Return a coordinate with at most one decimal."""
    return f"{number:.1f}".removesuffix(".0")
