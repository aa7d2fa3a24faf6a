"""The page: what was replayed, the figures as tables, and the plots."""

from collections.abc import Sequence
from html import escape
from itertools import groupby

from llmproxy.sim.experiment import Replay
from llmproxy.sim.report.charts import balance, bars, goodput_by_load, ttft_curves
from llmproxy.sim.report.scale import up_to
from llmproxy.sim.report.style import style
from llmproxy.sim.report.svg import series
from llmproxy.sim.report.words import COLUMNS, shown
from llmproxy.sim.summary import Summary, summaries


def page(facts: Sequence[tuple[str, str]], replays: Sequence[Replay], backends: Sequence[str]) -> str:
    """A whole HTML document. `facts` are the conditions, as names and values; `backends` the names of the fleet's."""
    found = sorted(summaries(replays), key=lambda one: one.load)
    places = {policy: place for place, policy in enumerate(dict.fromkeys(one.case.policy.name for one in replays))}
    by_load = {load: list(group) for load, group in groupby(found, key=lambda one: one.load)}
    highest = max(by_load)
    at_highest = f"At load {highest:g}. " if len(by_load) > 1 else ""
    legend = _legend(list(places))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Routing policies replayed</title><style>{style()}</style></head><body>",
        "<h1>Routing policies replayed</h1>",
        "<dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts),
        "</dl>",
        "<h2>Figures</h2>",
        "<p>Means over the seeds, ± their standard deviation. Percentiles by nearest rank. Goodput is requests within"
        " the SLO per second of trace time.</p>",
        *(_table(load, group) for load, group in by_load.items()),
        "<h2>Time to the first token</h2>",
        "<p>The share of requests answered within a time; further left and higher is better.</p>",
    ]
    for load, group in by_load.items():
        title = f"<h3>Load {load:g}</h3>" if len(by_load) > 1 else ""
        parts += [title, legend, _wide(ttft_curves(group, places))]
    several = len(by_load) > 1
    parts += [
        "<h2>Goodput</h2>",
        "<p>Requests that kept the SLO, per second of trace time"
        + (", against the load; the upright strokes are ± one standard deviation.</p>" if several else ".</p>"),
        legend if several else "",
        _wide(goodput_by_load(found, places)),
        "<h2>Prefix cache hits</h2>",
        f"<p>{at_highest}Prompt tokens that were in the prefix cache of the backend chosen, of all prompt tokens.</p>",
        _wide(bars(by_load[highest], places, "hit_rate", "hit rate", 100.0, " %")),
        "<h2>Balance</h2>",
        f"<p>{at_highest}Prompt tokens each backend computed, for its speed; the dashed line is the fleet's mean.</p>",
        _panels(by_load[highest], places, backends),
        "</body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _table(load: float, group: Sequence[Summary]) -> str:
    heads = "".join(f"<th>{escape(column.title)}</th>" for column in COLUMNS)
    rows = []
    for one in group:
        cells = []
        for column in COLUMNS:
            value, _, apart = shown(one.of(column.figure), column).partition(" ±")
            cells.append(f"<td>{value}{f'<small>±{apart}</small>' if apart else ''}</td>")
        rows.append(f"<tr><td>{escape(one.policy)}</td>{''.join(cells)}</tr>")
    return f"<h3>Load {load:g}</h3>" + _wide(
        f"<table><thead><tr><th>policy</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _wide(content: str) -> str:
    """Scrolls by itself where the window is narrower."""
    return f'<div class="wide">{content}</div>'


def _legend(policies: Sequence[str]) -> str:
    keys = (
        f'<span><svg viewBox="0 0 22 10"><line class="line {series(place)}" x1="0" y1="5" x2="22" y2="5"/></svg>'
        f"{escape(policy)}</span>"
        for place, policy in enumerate(policies)
    )
    return f'<div class="legend">{"".join(keys)}</div>'


def _panels(group: Sequence[Summary], places: dict[str, int], backends: Sequence[str]) -> str:
    top = up_to([share for one in group for share in one.work()] + [1.0]).high
    panels = (
        f"<div><h3>{escape(one.policy)}</h3>{balance(one, places[one.policy], backends, top)}</div>" for one in group
    )
    return f'<div class="panels">{"".join(panels)}</div>'
