"""A plot as SVG text: an area with axes, to which marks are added."""

from html import escape
from typing import Final

from llmproxy.sim.report.scale import Scale

COLOURS: Final = 8


def series(index: int) -> str:
    """The class of the `index`-th policy's marks: a colour, and beyond the last colour dashes too."""
    return f"s{index % COLOURS + 1}" + (" dashed" if index >= COLOURS else "")


def plain(value: float) -> str:
    """A tick's label: `0.1`, `25`, `1,000`."""
    return f"{value:,.10g}" if abs(value) >= 1 else f"{value:.3g}"


class Plot:
    """`width` x `height` pixels. `x` and `y` map values to the area inside the axes."""

    def __init__(self, title: str, x: Scale | None, y: Scale, *, width: int = 860, height: int = 340) -> None:
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = 56, width - 16, 14, height - 42
        self._x, self._y = x, y
        self._parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">']

    def x(self, value: float) -> float:
        assert self._x is not None
        return self.left + self._x.place(value) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - self._y.place(value) * (self.bottom - self.top)

    def axes(self, x_title: str, y_title: str, y_suffix: str = "", x_ticks: list[float] | None = None) -> None:
        """Grid lines across, ticks below, titles."""
        for tick in self._y.ticks():
            self.line("grid", self.left, self.y(tick), self.right, self.y(tick))
            self.text("tick end", self.left - 7, self.y(tick) + 4, plain(tick) + y_suffix)
        self.line("axis", self.left, self.bottom, self.right, self.bottom)
        if self._x is not None:
            for tick in self._x.ticks() if x_ticks is None else x_ticks:
                self.line("axis", self.x(tick), self.bottom, self.x(tick), self.bottom + 4)
                self.text("tick middle", self.x(tick), self.bottom + 18, plain(tick))
        self.text("tick middle", (self.left + self.right) / 2, self.height - 6, x_title)
        middle = (self.top + self.bottom) / 2
        self._parts.append(
            f'<text class="tick middle" transform="translate(13 {middle:.1f}) rotate(-90)">{escape(y_title)}</text>'
        )

    def line(self, style: str, x1: float, y1: float, x2: float, y2: float) -> None:
        self._parts.append(f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def path(self, style: str, points: list[tuple[float, float]]) -> None:
        """A line through points in pixels."""
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline class="line {style}" points="{way}"/>')

    def dot(self, style: str, x: float, y: float, tip: str, radius: float = 4.0) -> None:
        self._parts.append(
            f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"><title>{escape(tip)}</title></circle>'
        )

    def bar(self, style: str, x: float, y: float, width: float, height: float, tip: str) -> None:
        self._parts.append(
            f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{max(height, 0):.1f}"'
            f' rx="{min(2.0, width / 4):.1f}"><title>{escape(tip)}</title></rect>'
        )

    def text(self, style: str, x: float, y: float, words: str) -> None:
        self._parts.append(f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>')

    def done(self) -> str:
        """An element of a page."""
        return "".join([*self._parts, "</svg>"])

    def alone(self, style: str) -> str:
        """A file of its own, which an `img` can show."""
        size = f'width="{self.width}" height="{self.height}" '
        head = self._parts[0].replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" {size}', 1)
        ground = '<rect width="100%" height="100%" fill="var(--ground)"/>'
        return "\n".join([head, f"<style>{style}</style>", ground, *self._parts[1:], "</svg>\n"])
