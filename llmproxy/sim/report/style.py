"""The style sheets of the page and of a plot that stands alone, light and dark."""

from typing import Final

_LIGHT: Final = ("#2a78d6", "#d9541e", "#168a62", "#b07800", "#6a4bc4", "#c93a5b", "#0f8aa0", "#7a6a55")
_DARK: Final = ("#5b9df0", "#f0814f", "#3dbd8d", "#dba53a", "#a48df2", "#ee7390", "#42b8cf", "#b7a68e")

_PAGE: Final = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1000px; padding: 24px 20px 60px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 12px; } h2 { font-size: 18px; margin: 40px 0 4px; }
h3 { font-size: 14px; margin: 16px 0 0; font-weight: 600; overflow-wrap: anywhere; }
p { margin: 4px 0 10px; color: var(--soft); max-width: 75ch; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .wide svg { min-width: 640px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; margin: 6px 0 12px; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 600; }
td small { color: var(--soft); display: block; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(290px, 1fr)); gap: 4px 20px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 6px 0; font-size: 13px; }
.legend svg { display: inline-block; width: 22px; height: 10px; margin-right: 6px; vertical-align: 0; }
"""
_PLOT: Final = """
.tick { fill: var(--soft); } .label { fill: var(--ink); } .middle { text-anchor: middle; } .end { text-anchor: end; }
.grid { stroke: var(--grid); } .axis { stroke: var(--soft); }
.mean { stroke: var(--ink); stroke-dasharray: 4 3; } .whisker { stroke: var(--ink); stroke-width: 1.5; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; } .line.dashed { stroke-dasharray: 6 4; }
.dot { stroke: var(--ground); stroke-width: 2; } .touch { fill: transparent; }
.touch:hover { fill: var(--soft); fill-opacity: .35; }
"""


def style() -> str:
    """The content of the page's style element."""
    return _scheme() + _PAGE + _PLOT + _colours()


def plot_style() -> str:
    """The content of the style element of a plot in a file of its own."""
    return _scheme() + "text { font: 12px system-ui, sans-serif; }" + _PLOT + _colours()


def _scheme() -> str:
    light = _variables("#ffffff", "#1c1e21", "#5f656d", "#e3e6ea", _LIGHT)
    dark = _variables("#15171a", "#e9ebee", "#a3a9b2", "#31363d", _DARK)
    return (
        f":root {{ color-scheme: light dark; {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    )


def _colours() -> str:
    return "".join(
        f".line.s{place} {{ stroke: var(--s{place}); }} .bar.s{place}, .dot.s{place} {{ fill: var(--s{place}); }}\n"
        for place in range(1, len(_LIGHT) + 1)
    )


def _variables(ground: str, ink: str, soft: str, grid: str, colours: tuple[str, ...]) -> str:
    named = {"ground": ground, "ink": ink, "soft": soft, "grid": grid}
    named |= {f"s{place}": colour for place, colour in enumerate(colours, 1)}
    return " ".join(f"--{name}: {colour};" for name, colour in named.items())
