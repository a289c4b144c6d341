"""Line charts as SVG, one or several, each over the same sizes and with a logarithmic height, so that ratios are distances.

No library: what is drawn is lines and words. What is ours is blue, its best one thick and the others dashed; peers
have colours of their own. Every line has its name at its end. Colours follow the reader's scheme, light or dark.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

__all__ = ["Line", "panels"]

WIDTH, HEIGHT, COLUMNS = 520, 270, 2
ALONE = 760
"""The width of a chart that has no neighbour."""
LEFT, RIGHT, TOP, BOTTOM = 50, 190, 36, 30
LABEL_PX = 13
"""The least distance of two names at the right."""

_OURS = ("#1f6fd0", "#6cb0ff")
_PEERS = (
    ("#c2410c", "#ff9a66"),
    ("#0f8a5f", "#4fd6a5"),
    ("#7c3aed", "#b79bff"),
    ("#a16207", "#e3b341"),
    ("#be185d", "#ff8ac0"),
)


@dataclass(frozen=True)
class Line:
    """One line: a value for each size, or ``None`` where there is none."""

    name: str
    values: Sequence[float | None]
    kind: Literal["ours", "other", "peer"]


@dataclass(frozen=True)
class _Frame:
    """Where a panel's numbers stand on the page."""

    left: float
    right: float
    top: float
    sizes: int
    low: int
    high: int

    def x(self, index: int) -> float:
        return self.left + (self.right - self.left) * index / max(1, self.sizes - 1)

    def y(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.top + HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def panels(title: str, sizes: Sequence[str], charts: Mapping[str, Sequence[Line]]) -> str:
    """Return the document, a chart for each name. Values are positive; a chart's height is whole powers of ten."""
    columns = min(COLUMNS, len(charts))
    each = WIDTH if columns > 1 else ALONE
    width, height = columns * each, -(-len(charts) // columns) * HEIGHT + 30
    body = [f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>']
    for index, (name, lines) in enumerate(charts.items()):
        shown = [math.log10(value) for line in lines for value in line.values if value is not None]
        row, column = divmod(index, columns)
        low, high = math.floor(min(shown)), math.ceil(max(shown))
        left, right = column * each + LEFT, (column + 1) * each - RIGHT
        frame = _Frame(left, right, row * HEIGHT + 30, len(sizes), low, max(high, low + 1))
        body += [*_scale(name, sizes, frame), *_curves(lines, frame)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    return "\n".join([head, _style(), f'<rect class="page" width="{width}" height="{height}"/>', *body, "</svg>\n"])


def _scale(name: str, sizes: Sequence[str], frame: _Frame) -> Iterator[str]:
    yield f'<text class="name" x="{frame.left}" y="{frame.top + 22}">{escape(name)}</text>'
    steps = (1, 2, 5) if frame.high - frame.low == 1 else (1,)
    for tick in [step * 10.0**power for power in range(frame.low, frame.high) for step in steps] + [10.0**frame.high]:
        at = frame.y(tick)
        yield f'<path class="grid" d="M{frame.left} {at:.1f}H{frame.right}"/>'
        yield f'<text class="end" x="{frame.left - 8}" y="{at + 4:.1f}">{tick:g}</text>'
    for index, size in enumerate(sizes):
        yield f'<text class="middle" x="{frame.x(index):.1f}" y="{frame.top + HEIGHT - 10}">{escape(size)}</text>'


def _curves(lines: Sequence[Line], frame: _Frame) -> Iterator[str]:
    """Yield each line and, from the top down, its name, moved where it would stand on the one before."""
    peers = [line.name for line in lines if line.kind == "peer"]
    ends = []
    for line in lines:
        points = [(frame.x(i), frame.y(value)) for i, value in enumerate(line.values) if value is not None]
        if points:
            ends.append((points[-1][1], line.name, line, points))
    free = -math.inf
    for end, name, line, points in sorted(ends, key=lambda found: found[:2]):
        css = f"peer p{peers.index(name) % len(_PEERS)}" if line.kind == "peer" else line.kind
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        free = max(free + LABEL_PX, end + 4)
        yield f'<path class="line {css}" d="M{path}"/>'
        yield f'<text class="label {css}" x="{frame.right + 8}" y="{free:.1f}">{escape(name)}</text>'


def _style() -> str:
    def colours(scheme: int) -> str:
        lines = [(".ours,.other", _OURS[scheme]), *((f".p{i}", pair[scheme]) for i, pair in enumerate(_PEERS))]
        return "".join(
            "".join(f"{css}.line{{stroke:{colour}}}{css}.label{{fill:{colour}}}" for css in classes.split(","))
            for classes, colour in lines
        )

    return (
        "<style>text{font:11px sans-serif;fill:#333}.title{font-size:15px}.name{font-size:13px;font-weight:bold}"
        ".end{text-anchor:end}.middle{text-anchor:middle}.page{fill:#fff}.grid{stroke:#ddd}.line{fill:none;stroke-width:1.5}"
        ".ours.line{stroke-width:3}.other.line{stroke-dasharray:4 3}.ours.label{font-weight:bold}"
        f"{colours(0)}@media(prefers-color-scheme:dark){{text{{fill:#ccc}}.page{{fill:#0d1117}}.grid{{stroke:#333}}"
        f"{colours(1)}}}</style>"
    )
