"""Charts as SVG text for pages: no script, no network, the same bytes for the same figures.

Every chart is drawn for a width, so that its letters stay legible on a telephone; a page holds a wide and a
narrow drawing and shows the one that fits. Series are told apart by dash, weight and place as well as by
colour. A chart carries a title and a description for who does not see it; the page puts its figures in a
table and a CSV file beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from tmm_core.policy.validation import escaped, uncovered

WIDE, NARROW = 720, 340
"""Widths in CSS pixels that charts are drawn for."""

# Okabe and Ito, darkened where a line or a bar on white needs 3:1 (WCAG 1.4.11).
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#C44F00", "#00785A", "#A8568A"
YELLOW, INK, GREY, GRID = "#F0E442", "#1A1A1A", "#595959", "#DDDDDD"
PALE = ' fill-opacity="0.4"'
HALO = 'stroke="#FFFFFF" stroke-width="4" paint-order="stroke"'
_FONT = 14
PLOT = 210
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)
_LETTER = 7.6  # mean width of a letter at _FONT


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = BLUE
    dash: str = ""
    weight: float = 2.0


@dataclass(frozen=True, slots=True)
class Bars:
    """One layer of stacked bars: a value for each place on the axis."""

    name: str
    values: Sequence[float]
    colour: str = BLUE


@dataclass(frozen=True, slots=True)
class Level:
    """A level line across the whole chart, for example the operating threshold."""

    name: str
    value: float
    dash: str = "9 4"


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a day: `day` counts from 0, hours are those of the clock, 0 to 24."""

    day: int
    from_hour: float
    to_hour: float


def line_chart(
    title: str,
    description: str,
    lines: Sequence[Line],
    ticks: Sequence[tuple[float, str]],
    *,
    until: float,
    unit: str,
    levels: Sequence[Level] = (),
    bands: Sequence[tuple[float, float]] = (),
    band_name: str = "",
    width: int = WIDE,
) -> str:
    """Draw lines over an axis from 0 to `until`, with shaded bands.

    Parameters
    ----------
    title, description : str
        Read out by screen readers.
    ticks : sequence of (float, str)
        Marks of the horizontal axis.
    until : float
        End of the horizontal axis.
    unit : str
        What the vertical axis counts.
    bands : sequence of (float, float)
        Shaded parts of the horizontal axis, begin and end.
    width : int
        `WIDE` or `NARROW`.
    """
    legend = [_line_key(line) for line in lines]
    if bands:
        legend.append(band_key(band_name))
    highest = _highest(levels, *[[y for _, y in line.points] for line in lines])
    frame = Frame(width, highest, unit=unit, legend=legend)

    def x_of(x: float) -> float:
        return frame.left + x / until * frame.plot_width

    parts = [
        *frame.bands([(x_of(began), x_of(ended)) for began, ended in bands]),
        *frame.grid(),
        *frame.ticks([(x_of(x), label) for x, label in ticks]),
        *[frame.line(line, x_of) for line in lines],
        *frame.levels(levels),
    ]
    return frame.document(title, description, parts)


def bar_chart(
    title: str,
    description: str,
    layers: Sequence[Bars],
    labels: Sequence[str],
    *,
    unit: str,
    levels: Sequence[Level] = (),
    label_every: int = 1,
    width: int = WIDE,
) -> str:
    """Draw stacked upright bars, one for each label; only each `label_every`-th label is written."""
    legend = [_bar_key(layer) for layer in layers] if len(layers) > 1 else []
    sums = [sum(values) for values in zip(*[layer.values for layer in layers], strict=True)]
    frame = Frame(width, _highest(levels, sums), unit=unit, legend=legend)
    step = frame.plot_width / max(1, len(labels))
    bar = max(1.0, min(44.0, step * 0.72))
    parts = frame.grid()
    for place in range(len(labels)):
        x, base = frame.left + (place + 0.5) * step - bar / 2, 0.0
        for layer in layers:
            value = layer.values[place]
            if value > 0:
                top, bottom = frame.y_of(base + value), frame.y_of(base)
                # Something is never drawn as nothing.
                top = min(top, bottom - 1.0)
                parts.append(
                    f'<rect x="{px(x)}" y="{px(top)}" width="{px(bar)}" height="{px(bottom - top)}" '
                    f'fill="{layer.colour}"/>'
                )
            base += value
    if width == NARROW:
        label_every = max(label_every, -(-len(labels) * 7 // 40))
    parts += frame.ticks(
        [
            (frame.left + (place + 0.5) * step, label)
            for place, label in enumerate(labels)
            if place % label_every == 0
        ]
    )
    return frame.document(title, description, [*parts, *frame.levels(levels)])


def row_chart(
    title: str,
    description: str,
    rows: Sequence[tuple[str, Sequence[float], str]],
    layers: Sequence[tuple[str, str]],
    *,
    width: int = WIDE,
) -> str:
    """Draw lying bars, one row for each name.

    Parameters
    ----------
    rows : sequence of (str, sequence of float, str)
        Name, a value for each layer, and the text at the end of the bar.
    layers : sequence of (str, str)
        Name and colour.
    """
    legend = [_bar_key(Bars(name, (), colour)) for name, colour in layers] if len(layers) > 1 else []
    keys, top = legend_of(legend, width, 4)
    parts, bottom = lying_bars(rows, [colour for _, colour in layers], width, top)
    return document(title, description, width, bottom + 4, [*keys, *parts])


def lying_bars(
    rows: Sequence[tuple[str, Sequence[float], str]], colours: Sequence[str], width: int, top: float
) -> tuple[list[str], float]:
    """Return the rows of a `row_chart` from `top` on, and where they end."""
    beside = width >= WIDE
    left = 250 if beside else 2
    pitch = 28 if beside else 46
    end = 14 + max([_LETTER * len(text) for _, _, text in rows], default=0.0)
    highest = max([sum(values) for _, values, _ in rows], default=0) or 1
    scale = (width - left - end) / highest
    parts = []
    for name, values, text in rows:
        y = top + (0 if beside else 18)
        shown = _shortened(name, 32 if beside else 42)
        parts.append(
            f'<text x="{left - 8}" y="{px(top + 15)}" text-anchor="end">{safe(shown)}</text>'
            if beside
            else f'<text x="{left}" y="{px(top + 12)}">{safe(shown)}</text>'
        )
        x = float(left)
        for value, colour in zip(values, colours, strict=True):
            if value > 0:
                long = max(1.0, value * scale)
                parts.append(
                    f'<rect x="{px(x)}" y="{px(y)}" width="{px(long)}" height="20" fill="{colour}"/>'
                )
                x += long
        parts.append(f'<text x="{px(x + 6)}" y="{px(y + 15)}">{safe(text)}</text>')
        top += pitch
    return parts, top


def day_chart(
    title: str,
    description: str,
    spans: Sequence[Span],
    labels: Sequence[str],
    *,
    width: int = WIDE,
) -> str:
    """Draw which parts of which days, the days from left to right and the hours of the day downwards."""
    left, top, height = 48, 12, 24 * 9
    step = (width - left - 6) / max(1, len(labels))
    parts = []
    for hour in range(0, 25, 6):
        y = top + hour * 9
        parts.append(
            f'<line x1="{left}" y1="{y}" x2="{width - 6}" y2="{y}" stroke="{GRID}"/>'
            f'<text x="{left - 6}" y="{y + 5}" text-anchor="end">{hour:02d}:00</text>'
        )
    every = 2 if width >= WIDE else 6
    for place, label in enumerate(labels):
        x = left + (place + 0.5) * step
        edge = px(left + place * step)
        parts.append(f'<line x1="{edge}" y1="{top}" x2="{edge}" y2="{top + height}" stroke="#EEEEEE"/>')
        if place % every == 0:
            parts.append(
                f'<text x="{px(x)}" y="{top + height + 20}" text-anchor="middle">{safe(label)}</text>'
            )
    for span in spans:
        tall = max(3.0, (span.to_hour - span.from_hour) * 9)
        parts.append(
            f'<rect x="{px(left + span.day * step + 1)}" y="{px(top + span.from_hour * 9)}" '
            f'width="{px(max(3.0, step - 2))}" height="{px(tall)}" fill="{VERMILION}"/>'
        )
    return document(title, description, width, top + height + 30, parts)


class Frame:
    """The plot with its vertical axis from 0, its legend above and its marks below."""

    def __init__(
        self,
        width: int,
        highest: float,
        *,
        unit: str = "",
        legend: Sequence[tuple[str, str]] = (),
        top: float = 0,
    ) -> None:
        self.width = width
        self.step = round_step(highest / 4)
        # A little air, so that the topmost label is inside.
        self.highest = highest * 1.04
        self.marks = [place * self.step for place in range(int(self.highest / self.step) + 1)]
        self.left = 14 + _LETTER * max(len(self.text(mark)) for mark in self.marks)
        self.plot_width = width - self.left - 8
        self.unit = unit
        self.keys, below = legend_of(legend, width, 26)
        self.top = top or below

    def y_of(self, value: float) -> float:
        return self.top + PLOT - value / self.highest * PLOT

    def text(self, value: float) -> str:
        if self.step >= 1:
            return f"{value:,.0f}"
        return f"{value:.3g}"

    def bands(self, periods: Sequence[tuple[float, float]]) -> list[str]:
        """Shade parts of the plot, from one place to another."""
        # A minute of a month must still be seen, and lines across an hour of an hour.
        return [
            f'<rect x="{px(left)}" y="{px(self.top)}" width="{px(max(2.0, right - left))}" height="{PLOT}" '
            f'fill="{YELLOW}"{PALE if right - left > 8 else ""}/>'
            for left, right in periods
        ]

    def line(self, line: Line, x_of: Callable[[float], float]) -> str:
        points = " ".join(f"{px(x_of(x))},{px(self.y_of(y))}" for x, y in line.points)
        dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
        return (
            f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="{px(line.weight)}"'
            f'{dash} stroke-linejoin="round"/>'
        )

    def grid(self) -> list[str]:
        parts = []
        for mark in self.marks:
            y = self.y_of(mark)
            parts.append(
                f'<line x1="{px(self.left)}" y1="{px(y)}" x2="{self.width - 8}" y2="{px(y)}" '
                f'stroke="{INK if mark == 0 else GRID}"/>'
                f'<text x="{px(self.left - 6)}" y="{px(y + 5)}" text-anchor="end">{self.text(mark)}</text>'
            )
        return parts

    def ticks(self, marks: Sequence[tuple[float, str]]) -> list[str]:
        bottom = self.top + PLOT
        parts, free = [], 0.0
        for x, label in marks:
            half = _LETTER * len(label) / 2
            x_text = min(x, self.width - half)
            if x_text - half < free:  # labels never run into each other
                continue
            free = x_text + half + 6
            parts.append(
                f'<line x1="{px(x)}" y1="{px(bottom)}" x2="{px(x)}" y2="{px(bottom + 5)}" stroke="{INK}"/>'
                f'<text x="{px(x_text)}" y="{px(bottom + 20)}" text-anchor="middle">{safe(label)}</text>'
            )
        return parts

    def levels(self, levels: Sequence[Level], anchor: str = "end", x: float | None = None) -> list[str]:
        """Draw lines of levels, their labels in the same order: none on another, on the axis or above the plot."""
        x = self.width - 12 if x is None else x
        drawn = sorted(levels, key=lambda each: -each.value)
        places: list[float] = []
        for level in drawn:
            y = self.y_of(level.value)
            if all(abs(y - 6 - other) > 15 for other in places) and y - 18 > self.top - 4:
                places.append(y - 6)
            elif y + 15 < self.top + PLOT - 4:
                places.append(y + 15)
            else:
                # No room beneath: those above move up.
                places = [*(other - 16 for other in places), places[-1] if places else y - 6]
        parts: list[str] = []
        for level, place in zip(drawn, places, strict=True):
            y = self.y_of(level.value)
            parts.append(
                f'<line x1="{px(self.left)}" y1="{px(y)}" x2="{self.width - 8}" y2="{px(y)}" stroke="{INK}" '
                f'stroke-width="1.5" stroke-dasharray="{level.dash}"/>'
                f'<text x="{px(x)}" y="{px(place)}" text-anchor="{anchor}" {HALO}>'
                f"{safe(level.name)} {self.text(level.value)}</text>"
            )
        return parts

    def document(self, title: str, description: str, parts: Sequence[str]) -> str:
        unit = f'<text x="2" y="{px(self.top - 10)}" fill="{GREY}">{safe(self.unit)}</text>'
        return document(title, description, self.width, self.top + PLOT + 28, [*self.keys, unit, *parts])


def document(title: str, description: str, width: int, height: float, parts: Sequence[str]) -> str:
    label = safe(f"{title} {description}")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {px(height)}" role="img" '
        f'aria-label="{label}" font-family="system-ui, -apple-system, Segoe UI, Roboto, sans-serif" '
        f'font-size="{_FONT}" fill="{INK}">'
    )
    return "\n".join([head, *parts, "</svg>"])


def legend_of(keys: Sequence[tuple[str, str]], width: int, after: float) -> tuple[list[str], float]:
    """Return the keys in rows, and where the plot may begin."""
    parts, x, y = [], 2.0, 16.0
    for name, sample in keys:
        need = 32 + _LETTER * len(name) + 18
        if x > 2 and x + need > width:
            x, y = 2.0, y + 22
        parts.append(
            f'<g transform="translate({px(x)} {px(y)})">{sample}<text x="32" y="0">{safe(name)}</text></g>'
        )
        x += need
    return parts, (y + 10 if keys else 4) + after


def _line_key(line: Line) -> tuple[str, str]:
    dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
    return line.name, (
        f'<line x1="0" y1="-5" x2="26" y2="-5" stroke="{line.colour}" '
        f'stroke-width="{px(line.weight)}"{dash}/>'
    )


def _bar_key(layer: Bars) -> tuple[str, str]:
    return layer.name, f'<rect x="0" y="-12" width="26" height="14" fill="{layer.colour}"/>'


def band_key(name: str) -> tuple[str, str]:
    return (
        name,
        f'<rect x="0" y="-12" width="26" height="14" fill="{YELLOW}"{PALE} stroke="{GREY}" stroke-width="0.5"/>',
    )


def _highest(levels: Sequence[Level], *values: Sequence[float]) -> float:
    return max([1e-9, *[level.value for level in levels], *[value for many in values for value in many]])


def visible(text: str) -> str:
    """Return text with its control, invisible and direction-turning characters shown as codes.

    Examples
    --------
    >>> visible("a\\u202eb")
    'a\\\\u202eb'
    """
    return uncovered(text, escaped)


def safe(text: str) -> str:
    return escape(visible(text))


def round_step(least: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power = 1.0
    while power * 10 <= least:
        power *= 10
    while power > least:
        power /= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def time_step(seconds: float, most: int) -> int:
    """Return the round number of seconds between marks of an axis so long, with at most so many of them."""
    days = -(-seconds // (86_400 * most))
    return next((each for each in _STEPS_S if seconds / each <= most), int(days) * 86_400)


def runs(marks: Sequence[bool]) -> list[tuple[int, int]]:
    """Return where those that are true begin and end, run by run.

    Examples
    --------
    >>> runs([True, False, True, True])
    [(0, 1), (2, 4)]
    """
    edges = [
        place for place, (one, next_one) in enumerate(pairwise([False, *marks, False])) if one != next_one
    ]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def px(number: float) -> str:
    """Return a coordinate with at most one decimal."""
    text = f"{number:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


Drawing = Callable[[int], str]
"""A chart that is yet to be drawn for a width."""
