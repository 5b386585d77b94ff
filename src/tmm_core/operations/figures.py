"""Charts as SVG text: small, readable at 375 px, without script or network, and the same bytes for the same figures.

Offered and admitted load are told apart by dash and weight as well as by colour; every chart carries a title
and a description for who does not see it, and the CSV beside it holds all its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from tmm_core.operations.outcome import Series

__all__ = ["Panel", "clock_label", "elapsed_label", "load_chart"]

_WIDTH = 560
_LEFT, _RIGHT = 66, 14
_PLOT_HEIGHT = 190
_HEADING, _AXIS, _LEGEND = 34, 36, 76
# Okabe and Ito: told apart by who does not tell red from green, and in grey.
_OFFERED, _ADMITTED, _ACTIVE, _LINE, _INK = "#D55E00", "#0072B2", "#F0E442", "#444444", "#1A1A1A"
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_MOST_TICKS = 5


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot of offered against admitted load.

    Attributes
    ----------
    heading : str
    series : Series
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


def load_chart(
    title: str,
    description: str,
    panels: Sequence[Panel],
    *,
    operating_threshold: float,
    system_capacity: float,
    unit: str = "Service Requests per second",
) -> str:
    """Draw offered against admitted load, with operating threshold, system capacity and active periods.

    Parameters
    ----------
    title, description : str
        Read out by screen readers; the title is shown as well.
    panels : sequence of Panel
        Drawn below each other.
    operating_threshold, system_capacity : float
        Units per second.
    unit : str
        What the vertical axis counts.

    Returns
    -------
    str
        A whole SVG document.
    """
    height = _LEGEND + len(panels) * (_HEADING + _PLOT_HEIGHT + _AXIS) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-labelledby="title description" font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif" '
        f'font-size="15" fill="{_INK}">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="description">{escape(description)}</desc>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#FFFFFF"/>',
        f'<text x="{_LEFT}" y="22" font-size="17" font-weight="600">{escape(title)}</text>',
        *_legend(unit),
    ]
    top = _LEGEND
    for panel in panels:
        parts += _panel(panel, top + _HEADING, operating_threshold, system_capacity)
        top += _HEADING + _PLOT_HEIGHT + _AXIS
    return "\n".join([*parts, "</svg>", ""])


def _legend(unit: str) -> list[str]:
    y = 44
    parts = [
        f'<line x1="{_LEFT}" y1="{y - 5}" x2="{_LEFT + 26}" y2="{y - 5}" stroke="{_OFFERED}" stroke-width="2" '
        f'stroke-dasharray="5 2"/><text x="{_LEFT + 32}" y="{y}">offered</text>',
        f'<line x1="{_LEFT + 106}" y1="{y - 5}" x2="{_LEFT + 132}" y2="{y - 5}" stroke="{_ADMITTED}" '
        f'stroke-width="3"/><text x="{_LEFT + 138}" y="{y}">admitted</text>',
        f'<rect x="{_LEFT + 220}" y="{y - 13}" width="26" height="16" fill="{_ACTIVE}" fill-opacity="0.45" '
        f'stroke="{_LINE}" stroke-width="0.5"/><text x="{_LEFT + 252}" y="{y}">Mechanism active</text>',
        f'<text x="{_LEFT}" y="{y + 22}">{escape(unit)}</text>',
    ]
    return parts


def _panel(panel: Panel, top: int, threshold: float, capacity: float) -> list[str]:
    series = panel.series
    bottom, plot_width = top + _PLOT_HEIGHT, _WIDTH - _LEFT - _RIGHT
    end = series.first + max(1, len(series.offered)) * series.width
    highest = max([capacity, threshold, *series.offered]) * 1.02
    step_y = _round_step(highest / 4)

    def x_of(second: float) -> str:
        return _short(_LEFT + (second - series.first) / (end - series.first) * plot_width)

    def y_of(load: float) -> str:
        return _short(bottom - load / highest * _PLOT_HEIGHT)

    parts = [f'<text x="{_LEFT}" y="{top - 12}" font-weight="600">{escape(panel.heading)}</text>']
    for began, ended in _periods(series):
        left, right = x_of(began), x_of(ended)
        width = _short(max(1.5, float(right) - float(left)))  # a second of a month must still be seen
        parts.append(
            f'<rect x="{left}" y="{top}" width="{width}" height="{_PLOT_HEIGHT}" fill="{_ACTIVE}" fill-opacity="0.45"/>'
        )
    mark = 0.0
    while mark <= highest:
        parts.append(
            f'<line x1="{_LEFT}" y1="{y_of(mark)}" x2="{_WIDTH - _RIGHT}" y2="{y_of(mark)}" stroke="#DDDDDD"/>'
            f'<text x="{_LEFT - 6}" y="{y_of(mark)}" dy="5" text-anchor="end">{_load_text(mark, step_y)}</text>'
        )
        mark += step_y
    parts += _ticks(panel, end, x_of, bottom)
    middles = [x_of(series.first + (place + 0.5) * series.width) for place in range(len(series.offered))]
    for loads, colour, style in (
        (series.offered, _OFFERED, 'stroke-width="1.6" stroke-dasharray="5 2"'),
        (series.admitted, _ADMITTED, 'stroke-width="2.2"'),
    ):
        points = " ".join(f"{x},{y_of(load)}" for x, load in zip(middles, loads, strict=True))
        if points:
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" {style} stroke-linejoin="round"/>'
            )
    for level, name, dash in (
        (threshold, "operating threshold", "9 4"),
        (capacity, "system capacity", "2 3"),
    ):
        below = level == threshold and (capacity - threshold) / highest * _PLOT_HEIGHT < 20
        parts.append(
            f'<line x1="{_LEFT}" y1="{y_of(level)}" x2="{_WIDTH - _RIGHT}" y2="{y_of(level)}" stroke="{_LINE}" '
            f'stroke-width="1.4" stroke-dasharray="{dash}"/>'
            f'<text x="{_WIDTH - _RIGHT - 4}" y="{y_of(level)}" dy="{15 if below else -5}" text-anchor="end" '
            f'stroke="#FFFFFF" stroke-width="3" paint-order="stroke">{name} {_load_text(level, level % 1 or 1)}</text>'
        )
    return parts


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
            f'<text x="{x}" y="{bottom + 21}" text-anchor="{anchor}">{escape(panel.label(mark))}</text>'
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


def _round_step(least: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power = 1.0
    while power * 10 <= least:
        power *= 10
    while power > least:
        power /= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)


def _load_text(load: float, step: float) -> str:
    return f"{load:,.0f}" if step >= 1 else f"{load:.3g}"


def _short(number: float) -> str:
    """Return a coordinate with at most one decimal."""
    return f"{number:.1f}".removesuffix(".0")
