"""Small pictures of a diagnosis as inline SVG; colours are classes of `style.py`, which knows light and dark.

Every function returns a complete <svg> with a size, a title and a description; names in it are escaped.
"""

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from syre.diagnostics import words
from syre.diagnostics.words import finite, finites, number, part, percent

SMALL = (320, 176)  # a small picture fits a phone
FLOOR = 1e-8  # of logarithmic axes: below it there is only rounding
BINS = 40


def escaped(text: Any, length: int = 300) -> str:
    return html.escape(words.shorten(text, length))


# ---- shapes ----------------------------------------------------------------------------------------------------------


def svg(width: float, height: float, title: str, description: str, shapes: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escaped(title)}"><title>{escaped(title)}</title>'
        f"<desc>{escaped(description, 2000)}</desc>{''.join(shapes)}</svg>"
    )


def text(x: float, y: float, label: str, css: str = "", turn: float = 0) -> str:
    turned = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}"{turned}>{escaped(label)}</text>'


def line(x: float, y: float, to_x: float, to_y: float, css: str) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" class="{css}"/>'


def rect(x: float, y: float, width: float, height: float, css: str, tip: str = "", more: str = "") -> str:
    inside = f"><title>{escaped(tip)}</title></rect>" if tip else "/>"
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{css}"{more}{inside}'


def curve(points: Iterable[tuple[float, float]], css: str) -> str:
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{css}"/>'


OUTLINES = {  # around 0: shapes differ, so that no reader depends on colours
    "circle": "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z",
    "square": "M-3.5 -3.5H3.5V3.5H-3.5Z",
    "diamond": "M0 -5L5 0L0 5L-5 0Z",
    "triangle": "M0 -4.8L4.6 3.6H-4.6Z",
}


def mark(x: float, y: float, shape: str, css: str, tip: str = "") -> str:
    inside = f"><title>{escaped(tip)}</title></path>" if tip else "/>"
    return f'<path d="{OUTLINES[shape]}" transform="translate({x:.1f} {y:.1f})" class="{css}"{inside}'


# ---- axes ------------------------------------------------------------------------------------------------------------

Scale = Callable[[float], float]


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Takes [low, high] to [start, end]; what lies outside to the nearer end."""
    span = (high - low) or 1.0
    return lambda value: start + (end - start) * min(max((value - low) / span, 0.0), 1.0)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    position = linear(math.log10(low), math.log10(high), start, end)
    return lambda value: position(math.log10(max(value, low)))


def steps(high: float, count: int = 4) -> list[float]:
    """About `count` round numbers from 0 to `high`."""
    rough = high / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    return [step * place for place in range(int(high / step * 1.000001) + 1)]


def powers(low: float, high: float, most: int = 5) -> list[float]:
    """Powers of ten from `low` to `high`, at most about `most` of them."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = max(1, math.ceil((last - first) / most))
    return [10.0**power for power in range(last, first - 1, -stride)]


def power(value: float) -> str:
    exponent = round(math.log10(value))
    return f"{value:g}" if -3 <= exponent <= 3 else f"1e{exponent}"


@dataclass(frozen=True, kw_only=True)
class Box:
    """Where the data of a picture lie."""

    left: float
    top: float
    right: float
    bottom: float

    def across(self, y: float, label: str, css: str = "grid") -> list[str]:
        """A horizontal line with its value."""
        return [line(self.left, y, self.right, y, css), text(self.left - 6, y + 4, label, "end")]

    def below(self, x: float, label: str) -> list[str]:
        """A mark of the horizontal axis with its value."""
        return [
            line(x, self.bottom, x, self.bottom + 4, "axis"),
            text(x, self.bottom + 16, label, "middle"),
        ]

    def names(self, horizontal: str, vertical: str, under: float = 31) -> list[str]:
        """The names of both axes, and the axes."""
        middle = (self.top + self.bottom) / 2
        return [
            line(self.left, self.bottom, self.right, self.bottom, "axis"),
            text((self.left + self.right) / 2, self.bottom + under, horizontal, "middle name"),
            text(13, middle, vertical, "middle name", turn=-90),
        ]


def small_box() -> Box:
    width, height = SMALL
    return Box(left=56, top=18, right=width - 12, bottom=height - 38)


# ---- one set of units ------------------------------------------------------------------------------------------------


def distances(entry: Mapping[str, Any]) -> str:
    """How far each unit of a set is from a symmetric state; those that are in one are of another colour."""
    box, values = small_box(), sorted(finites(entry.get("distances")))
    chance = finite(part(entry, "nearest").get("random"))
    high = max([*values, (chance or 0) * 1.1, 1e-9]) * 1.02
    symmetric = min(int(finite(entry.get("symmetric")) or 0), len(values))
    edges = np.linspace(0, high, BINS + 1)
    counts = np.histogram(values, edges)[0]
    inside = np.histogram(values[:symmetric], edges)[0]
    x, y = linear(0, high, box.left, box.right), linear(0, max(counts.max(), 1), box.bottom, box.top + 6)
    shapes = [rect(box.left, box.top, x(edges[1]) - box.left, box.bottom - box.top, "zone", "the symmetric states")]
    for height in {1, int(counts.max())} if counts.max() else ():
        shapes += box.across(y(height), number(height))
    for place in np.flatnonzero(counts):
        start, width = x(edges[place]), max(x(edges[place + 1]) - x(edges[place]) - 0.6, 0.6)
        span = f"{number(edges[place])} to {number(edges[place + 1])}"
        for count, under, css in ((inside[place], 0, "bad"), (counts[place], inside[place], "main")):
            if count > under:
                label = "symmetric" if css == "bad" else "not symmetric"
                tip = f"{words.counted(int(count - under), 'unit')}, {label}, at {span}"
                shapes.append(rect(start, y(count), width, y(under) - y(count), css, tip))
    if chance is not None:
        side = "end" if x(chance) > (box.left + box.right) / 2 else "start"
        shapes.append(line(x(chance), box.top - 4, x(chance), box.bottom, "chance"))
        shapes.append(text(x(chance) + (-4 if side == "end" else 4), box.top + 2, "random network", f"{side} quiet"))
    for value in steps(high):
        shapes += box.below(x(value), number(value))
    shapes += box.names("distance to the nearest symmetric state", words.kind(entry))
    return svg(*SMALL, f"{entry.get('name')}: distances to symmetry", in_words(entry), shapes)


def in_words(entry: Mapping[str, Any]) -> str:
    """What the histogram of a set of units shows, in a sentence or two."""
    nearest, count = part(entry, "nearest"), counted_units(entry)
    found = f"{number(entry.get('symmetric'))} of {count} are symmetric."
    if finite(nearest.get("median")) is None:
        return found
    chance = "" if finite(nearest.get("random")) is None else f"; in a random network {number(nearest['random'])}"
    return f"{found} Median distance {number(nearest['median'])}{chance}."


def counted_units(entry: Mapping[str, Any]) -> str:
    return words.counted(entry.get("count"), words.kind(entry)[:-1])


# ---- spectra ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)  # a network has many weights of one shape
def random_spectrum(rows: int, columns: int, count: int) -> tuple[float, ...]:
    """`count` singular values over the largest of a large Gaussian matrix, evenly spaced in their order.

    The quantiles of Marchenko and Pastur's law: with q = the smaller side over the larger, the singular values lie in
    [1 - sqrt q, 1 + sqrt q] and have the density sqrt((b - s^2) (s^2 - a)) / (pi q s) there, a and b the ends squared.
    """
    smaller, q = min(rows, columns), min(rows, columns) / max(rows, columns)
    # Densest at both ends, where the density has its square roots.
    grid = 1 - math.sqrt(q) * np.cos(np.linspace(0, math.pi, 2001))
    grid = np.maximum(grid, 1e-12)
    low, high = (1 - math.sqrt(q)) ** 2, (1 + math.sqrt(q)) ** 2
    density = np.sqrt(np.clip((high - grid**2) * (grid**2 - low), 0, None)) / grid
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    order = np.linspace(0, smaller - 1, count)  # 0 is the largest
    values = np.interp(1 - (order + 0.5) / smaller, below / below[-1], grid)
    return tuple(float(value) for value in values / values[0])


def spectrum(
    title: str, values: Sequence[Any], description: str, across: str, up: str, chance: Sequence[float] = ()
) -> str:
    """Values over the largest, on a logarithmic axis, from the largest to the smallest."""
    box, known = small_box(), [(place, finite(value)) for place, value in enumerate(values)]
    largest = max([value for _, value in known if value is not None], default=0.0) or 1.0
    points = [(place, max(value / largest, FLOOR)) for place, value in known if value is not None]
    lowest = min([value for _, value in points] + [0.05])
    low = 10.0 ** max(math.floor(math.log10(lowest) + 1e-9), round(math.log10(FLOOR)))
    x = linear(0, max(len(values) - 1, 1), box.left + 4, box.right - 4)
    y = logarithmic(low, 1, box.bottom, box.top)
    shapes = [shape for value in powers(low, 1, 4) for shape in box.across(y(value), power(value))]
    if chance:
        shapes.append(curve([(x(place), y(value)) for place, value in enumerate(chance)], "chance"))
    if len(points) > 24:
        shapes.append(curve([(x(place), y(value)) for place, value in points], "curve"))
    else:
        shapes += [mark(x(place), y(value), "circle", "main", f"{number(value)}") for place, value in points]
    ends = (("largest", box.left + 4, "start"), ("smallest", box.right - 4, "end"))
    shapes += [text(place, box.bottom + 15, label, f"{css} quiet") for label, place, css in ends]
    return svg(*SMALL, title, description, [*shapes, *box.names(across, up)])


# ---- over the layers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Series:
    """One number for each place of the axis of layers, or None; `tips` say it in words."""

    name: str
    values: Sequence[float | None]
    tips: Sequence[str]
    css: str = "main"
    shape: str = "circle"  # or "bar"
    stem: float | None = None  # a line from this value to each mark


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A part of a picture over the layers, with its own vertical axis from 0 to `high`."""

    title: str
    up: str
    series: Sequence[Series]
    high: float = 1.0
    level: tuple[float, str] | None = None  # a dashed line, and what it is


def over_layers(title: str, description: str, labels: Sequence[str], panels: Sequence[Panel]) -> str:
    """Panels above each other that share the axis of layers, in the order of the network."""
    count, left, height, head = len(labels), 64, 118, 60
    step = min(max(880 / max(count, 1), 7), 72)
    right = left + step * count
    x = linear(-0.5, count - 0.5, left, right)
    shapes: list[str] = []
    for place, panel in enumerate(panels):
        top = head + place * (height + head)
        shapes += _panel(panel, Box(left=left, top=top, right=right, bottom=top + height), x, step)
    bottom = len(panels) * (height + head)
    stride, names = math.ceil(13 / step), [words.shorten(label.removesuffix(".weight"), 28) for label in labels]
    under = 44 + 5.4 * max(map(len, names))
    for place in range(0, count, stride):
        shapes.append(line(x(place), bottom, x(place), bottom + 4, "axis"))
        shapes.append(text(x(place) + 4, bottom + 14, names[place], "end", turn=-58))
    note = "layers, first to last" + ("" if stride == 1 else f" (the name of one in {stride})")
    shapes.append(text(left, bottom + under - 6, note, "start name"))
    return svg(round(max(right + 20, 340)), round(bottom + under), title, description, shapes)


def _panel(panel: Panel, box: Box, x: Scale, step: float) -> list[str]:
    y = linear(0, panel.high, box.bottom, box.top)
    shapes = [shape for value in steps(panel.high) for shape in box.across(y(value), number(value))]
    shapes += [text(13, (box.top + box.bottom) / 2, panel.up, "middle name", turn=-90)]
    shapes += [line(box.left, box.bottom, box.right, box.bottom, "axis"), *_legend(panel, box.top)]
    if panel.level is not None:
        shapes.append(line(box.left, y(panel.level[0]), box.right, y(panel.level[0]), "chance"))
    for series in panel.series:
        for place, value in enumerate(series.values):
            if value is not None:
                shapes += _value(series, x(place), y, value, series.tips[place], step)
    return shapes


def _legend(panel: Panel, top: float) -> list[str]:
    """The title of a panel, and under it what its marks are."""
    shapes, at, y = [text(8, top - 28, panel.title, "start head")], 8.0, top - 16
    for series in panel.series:
        shape = "square" if series.shape == "bar" else series.shape
        shapes += [mark(at + 5, y, shape, series.css), text(at + 14, y + 4, series.name, "start")]
        at += 30 + 6.4 * len(series.name)
    if panel.level is not None:
        shapes += [line(at, y, at + 20, y, "chance"), text(at + 25, y + 4, panel.level[1], "start")]
    return shapes


def _value(series: Series, x: float, y: Scale, value: float, tip: str, step: float) -> list[str]:
    if series.shape == "bar":
        height, width = max(y(0) - y(value), 1.5), min(max(step * 0.6, 3), 16)  # a bar of 0 is a stub, not a gap
        return [rect(x - width / 2, y(0) - height, width, height, series.css if value else "ref", tip)]
    stem = [] if series.stem is None else [line(x, y(series.stem), x, y(value), f"{series.css} stem")]
    return [*stem, mark(x, y(value), series.shape, series.css, tip)]


# ---- heads -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The heads of one attention: a share of the full rank each, those that equal another one, in words."""

    name: str
    values: Sequence[float | None]
    equal: frozenset[int]
    tips: Sequence[str]


def heat(title: str, description: str, strips: Sequence[Strip]) -> str:
    """A row of cells for each attention, a cell for each head: the stronger its colour, the higher its rank."""
    names, top, row = [words.shorten(strip.name, 24) for strip in strips], 40, 26
    left = 24 + 6.0 * max(map(len, names), default=0)
    count = max((len(strip.values) for strip in strips), default=1) or 1
    cell = min(max(560 / count, 12), 40)
    shapes = [text(left, top - 24, "heads, first to last", "start name")]
    stride = math.ceil(16 / cell)
    shapes += [text(left + (n + 0.5) * cell, top - 8, str(n), "middle quiet") for n in range(0, count, stride)]
    for place, strip in enumerate(strips):
        y = top + place * row
        shapes.append(text(left - 8, y + 15, names[place], "end"))
        for head, value in enumerate(strip.values):
            shapes += _cell(left + head * cell, y, cell, strip, head, value)
    width = max(left + count * cell + 14, 330)
    bottom = top + len(strips) * row + 20
    shapes.append(text(left, bottom + 11, "0", "end quiet"))
    for place in range(5):
        share = (place + 0.5) / 5
        shapes.append(rect(left + 6 + place * 22, bottom, 22, 14, "main", percent(share), _strength(share)))
    shapes.append(text(left + 122, bottom + 11, "all of the rank", "start quiet"))
    return svg(round(width), bottom + 26, title, description, shapes)


def _strength(share: float) -> str:
    return f' fill-opacity="{0.06 + 0.94 * min(max(share, 0.0), 1.0):.2f}"'


def _cell(x: float, y: float, width: float, strip: Strip, head: int, value: float | None) -> list[str]:
    css, more = ("unknown", "") if value is None else ("main", _strength(value))
    shapes = [rect(x + 0.5, y, width - 1, 22, css, strip.tips[head], more)]
    if width >= 26:
        shapes.append(text(x + width / 2, y + 15, "-" if value is None else f"{100 * value:.0f}", "middle halo"))
    if head in strip.equal:
        shapes.append(rect(x + 1.5, y + 1, width - 3, 20, "ring"))
    return shapes


# ---- training --------------------------------------------------------------------------------------------------------


def pulls(title: str, description: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """Decay against gradient on the symmetric and on the broken part of each set of units, on a logarithmic axis."""
    left, right, top, row = 76, 268, 46, 66
    sides = [part(entry, side) for entry in entries for side in ("symmetric", "broken")]
    sizes = [size for side in sides for size in finites([side.get("decay"), side.get("gradient")]) if size > 0]
    largest = max(sizes, default=1.0)
    smallest = max(min(sizes, default=0.1), largest * 1e-12)  # a gradient of almost 0 is not to stretch the axis
    low, high = 10.0 ** math.floor(math.log10(smallest)), 10.0 ** math.ceil(math.log10(largest) + 1e-9)
    x, bottom = logarithmic(low, high, left, right), top + row * len(entries)
    shapes = [mark(14, 14, "square", "bad"), text(23, 18, "decay", "start")]
    shapes += [mark(74, 14, "circle", "main"), text(83, 18, "gradient", "start")]
    shapes += [text(right + 10, 18, "towards", "start quiet"), text(right + 10, 32, "symmetry", "start quiet")]
    for value in powers(low, high, 4):
        shapes += [line(x(value), top, x(value), bottom, "grid"), text(x(value), bottom + 16, power(value), "middle")]
    for place, entry in enumerate(entries):
        y = top + place * row
        label = f"{words.shorten(entry.get('name'), 28)}, lambda {number(entry.get('lambda'))}"
        shapes += [line(8, y, right + 72, y, "grid"), text(8, y + 16, label, "start head halo")]
        for height, side, name in ((33, "symmetric", "in common"), (52, "broken", "apart")):
            shapes += _pull(part(entry, side), y + height, name, x, left, right)
    shapes.append(line(left, bottom, right, bottom, "axis"))
    shapes.append(text((left + right) / 2, bottom + 32, "root mean square over the weights", "middle name"))
    return svg(right + 76, bottom + 42, title, description, shapes)


def _pull(side: Mapping[str, Any], y: float, label: str, x: Scale, left: float, right: float) -> list[str]:
    decay, gradient = finite(side.get("decay")), finite(side.get("gradient"))
    shapes = [text(left - 8, y + 4, label, "end"), line(left, y, right, y, "grid")]
    if decay is not None and gradient is not None:
        shapes.append(line(x(decay), y, x(gradient), y, "bad stem" if decay > gradient else "main stem"))
    if gradient is not None:
        shapes.append(mark(x(gradient), y, "circle", "main", f"gradient {number(gradient)}"))
    if decay is not None:
        shapes.append(mark(x(decay), y, "square", "bad", f"decay {number(decay)}"))
    return [*shapes, text(right + 10, y + 4, percent(finite(side.get("inward"))), "start")]


# ---- the verdict -----------------------------------------------------------------------------------------------------


def gauge(score: float, threshold: float | None) -> str:
    """The score between 0 and 1, and from where on it means a collapse."""
    left, right, middle = 14.0, 266.0, 24.0
    x = linear(0, 1, left, right)
    shapes = [rect(left, middle - 5, right - left, 10, "track")]
    if threshold is not None:
        at = x(threshold)
        shapes += [rect(at, middle - 5, right - at, 10, "zone"), line(at, middle - 9, at, middle + 9, "axis")]
        side = "start" if at < (left + right) / 2 else "end"
        shapes.append(text(at, 50, f"collapsed from {number(threshold)}", f"{side} quiet"))
    shapes += [
        text(end, 50, str(value), "middle quiet")
        for value, end in ((0, left), (1, right))
        if threshold is None or abs(x(threshold) - end) > 20
    ]
    over = threshold is not None and score >= threshold
    shapes.append(mark(x(score), middle, "diamond", "bad big" if over else "main big", f"score {number(score)}"))
    shapes.append(text(min(max(x(score), 44), 236), 12, f"score {number(score)}", "middle head"))
    sentence = f"Score {number(score)} between 0 and 1; collapsed from {number(threshold)}."
    return svg(280, 58, "Score of the verdict", sentence, shapes)
