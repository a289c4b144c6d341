"""A line chart as SVG: a few lines over sizes, each named at its end; legible on light and on dark pages.

No library: the charts of ``docs/`` are few and plain, and GitHub shows SVG as it is. Colours follow the reader's scheme.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape

__all__ = ["line_chart"]

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 48, 110, 52, 48
LABEL_PX = 16
"""The least distance of two names at the right."""

_LIGHT = ("#1f6fd0", "#c2410c", "#0f8a5f", "#7c3aed", "#a16207", "#be185d")
_DARK = ("#6cb0ff", "#ff9a66", "#4fd6a5", "#b79bff", "#e3b341", "#ff8ac0")


def line_chart(title: str, unit: str, xs: Sequence[str], lines: Mapping[str, Sequence[float]]) -> str:
    """Return the chart: ``xs`` stand at equal distances, ``lines`` holds one value for each, ``unit`` says of what."""
    if len(lines) > len(_LIGHT):
        raise ValueError(f"there are colours for {len(_LIGHT)} lines, not for {len(lines)}")
    step = _step(max(max(values) for values in lines.values()))
    top = step * -(-max(max(values) for values in lines.values()) // step)

    def x(index: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * index / (len(xs) - 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    body = [f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>']
    body.append(f'<text x="{LEFT}" y="40">{escape(unit)}</text>')
    for tick in range(int(top // step) + 1):
        at = y(tick * step)
        body.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        body.append(f'<text class="end" x="{LEFT - 8}" y="{at + 4:.1f}">{tick * step:g}</text>')
    for index, text in enumerate(xs):
        body.append(f'<text class="middle" x="{x(index):.1f}" y="{HEIGHT - BOTTOM + 22}">{escape(text)}</text>')
    for number, (values, label) in enumerate(zip(lines.values(), _labels(lines, y), strict=True)):
        path = "L".join(f"{x(index):.1f} {y(value):.1f}" for index, value in enumerate(values))
        body.append(f'<path class="line s{number}" d="M{path}"/>')
        body += [f'<circle class="f{number}" cx="{x(i):.1f}" cy="{y(v):.1f}" r="3"/>' for i, v in enumerate(values)]
        body.append(label)
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
    return "\n".join([head, f"<style>{_style()}</style>", *body, "</svg>", ""])


def _step(highest: float) -> float:
    """Return the distance of the grid's lines: 1, 2 or 5 times a power of ten, so that there are four to ten."""
    step = 1.0
    while highest / step > 10:
        step *= 2.5 if f"{step:g}".startswith("2") else 2
    return step


def _labels(lines: Mapping[str, Sequence[float]], y: Callable[[float], float]) -> list[str]:
    """Return the names at the lines' right ends, the lower of two that are too close pushed down."""
    places, lowest = {}, float("-inf")
    for name in sorted(lines, key=lambda name: -lines[name][-1]):
        lowest = places[name] = max(y(lines[name][-1]) + 4, lowest + LABEL_PX)
    return [
        f'<text class="f{number}" x="{WIDTH - RIGHT + 10}" y="{places[name]:.1f}">{escape(name)}</text>'
        for number, name in enumerate(lines)
    ]


def _style() -> str:
    """Return the rules: the dark scheme's colours stand in place of the light one's where that is asked for."""

    def colours(text: str, grid: str, palette: Sequence[str]) -> str:
        plain = f"text{{fill:{text}}}.grid{{stroke:{grid}}}"
        return plain + "".join(f".s{n}{{stroke:{c}}}.f{n}{{fill:{c}}}" for n, c in enumerate(palette))

    fixed = (
        "text{font:13px system-ui,sans-serif}.title{font-weight:600;font-size:15px}.end{text-anchor:end}"
        ".middle{text-anchor:middle}.line{fill:none;stroke-width:2}"
    )
    light, dark = colours("#24292f", "#d0d7de", _LIGHT), colours("#e6edf3", "#3d444d", _DARK)
    return f"{fixed}{light}@media(prefers-color-scheme:dark){{{dark}}}"
