# SPDX-License-Identifier: Apache-2.0
"""A roofline plot as SVG: instructions by their multiply-accumulates per byte and the rate that
they reach."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 44, 56
COLOURS = (  # Okabe and Ito
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
    *("#e69f00", "#56b4e9", "#f0e442", "#000000"),
)


@dataclass(frozen=True)
class Point:
    """An instruction: 10^9 multiply-accumulates a second, and how long it takes of its model."""

    macs_per_byte: float
    gmacs: float
    share: float


@dataclass(frozen=True)
class _Axes:
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = math.log(x / self.x[0]) / math.log(self.x[1] / self.x[0])
        up = math.log(y / self.y[0]) / math.log(self.y[1] / self.y[0])
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )


def roofline(points: Mapping[str, Sequence[Point]], gmacs: float, gbytes: float, title: str) -> str:
    """An SVG of all models' points under the two limits."""
    every = [point for some in points.values() for point in some]
    axes = _Axes(
        _decades([p.macs_per_byte for p in every] + [gmacs / gbytes]),
        _decades([p.gmacs for p in every] + [gmacs]),
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 24, title, size=15),
        *_grid(axes),
        *_roof(axes, gmacs, gbytes),
    ]
    for index, (name, some) in enumerate(points.items()):
        colour = COLOURS[index % len(COLOURS)]
        parts += [_mark(axes, point, colour) for point in some]
        at = TOP + 20 + 22 * index
        parts.append(f'<circle cx="{WIDTH - RIGHT + 24}" cy="{at}" r="5" fill="{colour}"/>')
        parts.append(_text(WIDTH - RIGHT + 36, at + 4, name))
    return "\n".join([*parts, "</svg>", ""])


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Powers of ten around all values."""
    low, high = math.log10(min(values)), math.log10(max(values) * 1.05)
    return 10.0 ** math.floor(low), 10.0 ** math.ceil(high)


def _text(x: float, y: float, words: str, size: int = 12, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {more}>{escape(words)}</text>'


def _line(start: tuple[float, float], end: tuple[float, float], style: str) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _grid(axes: _Axes) -> list[str]:
    parts = []
    style = 'stroke="#dddddd"'
    for power in range(round(math.log10(axes.x[0])), round(math.log10(axes.x[1])) + 1):
        x = 10.0**power
        parts.append(_line(axes.at(x, axes.y[0]), axes.at(x, axes.y[1]), style))
        across, down = axes.at(x, axes.y[0])
        parts.append(_text(across, down + 18, f"{x:g}", more='text-anchor="middle"'))
    for power in range(round(math.log10(axes.y[0])), round(math.log10(axes.y[1])) + 1):
        y = 10.0**power
        parts.append(_line(axes.at(axes.x[0], y), axes.at(axes.x[1], y), style))
        across, down = axes.at(axes.x[0], y)
        parts.append(_text(across - 8, down + 4, f"{y:g}", more='text-anchor="end"'))
    middle = (LEFT + WIDTH - RIGHT) / 2
    words = "multiply-accumulates per byte read and written"
    parts.append(_text(middle, HEIGHT - 14, words, more='text-anchor="middle"'))
    turned = f'text-anchor="middle" transform="rotate(-90 18 {HEIGHT / 2:.0f})"'
    parts.append(_text(18, HEIGHT / 2, "10⁹ multiply-accumulates per second", more=turned))
    return parts


def _roof(axes: _Axes, gmacs: float, gbytes: float) -> list[str]:
    style = 'stroke="#333333" stroke-width="2"'
    knee = gmacs / gbytes
    start = max(axes.x[0], axes.y[0] / gbytes)
    low, top, end = (
        axes.at(start, start * gbytes),
        axes.at(knee, gmacs),
        axes.at(axes.x[1], gmacs),
    )
    return [
        _line(low, top, style),
        _line(top, end, style),
        _text(end[0] - 4, end[1] - 8, f"{gmacs:,.0f} GMAC/s", more='text-anchor="end"'),
        _along(low, top, f"{gbytes:,.0f} GB/s from cache"),
    ]


def _along(start: tuple[float, float], end: tuple[float, float], words: str) -> str:
    """Words above a line, at its first quarter."""
    x, y = (3 * start[0] + end[0]) / 4, (3 * start[1] + end[1]) / 4
    angle = math.degrees(math.atan2(end[1] - start[1], end[0] - start[0]))
    turned = f'text-anchor="middle" transform="rotate({angle:.1f} {x:.1f} {y:.1f})"'
    return _text(x, y - 7, words, more=turned)


def _mark(axes: _Axes, point: Point, colour: str) -> str:
    """A circle whose area tells the share of its model's time."""
    x, y = axes.at(point.macs_per_byte, point.gmacs)
    radius = 2 + 14 * math.sqrt(point.share)
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.45" '
        f'stroke="{colour}"/>'
    )
