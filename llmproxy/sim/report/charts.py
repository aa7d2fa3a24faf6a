"""The plots of the report. Each takes the summaries it shows, and the place of each policy among the colours."""

from collections.abc import Mapping, Sequence

from llmproxy.sim.report.scale import Linear, Log, up_to
from llmproxy.sim.report.svg import Plot, plain, series
from llmproxy.sim.summary import Summary

Places = Mapping[str, int]
_CURVE_POINTS = 200


def ttft_curves(found: Sequence[Summary], places: Places) -> str:
    """How many of the requests had their first token within which time, for the policies at one load."""
    curves = {one.policy: _thinned(curve) for one in found if (curve := one.curve())}
    every = [ttft for curve in curves.values() for ttft in curve]
    if not every:
        return "<p>No request was served.</p>"
    low, high = max(min(every), 1e-3), max(max(every), 2e-3)
    plot = Plot("TTFT, cumulative", Log(low, max(high, low * 2)), Linear(0, 100))
    plot.axes("TTFT in seconds (logarithmic)", "requests answered", " %")
    for policy, curve in curves.items():
        steps = [(plot.x(ttft), plot.y((rank + 1) * 100 / len(curve))) for rank, ttft in enumerate(curve)]
        plot.path(series(places[policy]), steps)
    for policy, curve in curves.items():
        for percent in (10, 25, 50, 75, 90, 99):
            ttft = curve[max(len(curve) * percent // 100, 1) - 1]
            tip = f"{policy}: {percent} % within {ttft:.3g} s"
            plot.dot("touch", plot.x(ttft), plot.y(percent), tip, 9)
    return plot.done()


def goodput_by_load(found: Sequence[Summary], places: Places) -> str:
    """Requests within the SLO per second against the load; bars when there is one load only."""
    loads = sorted({one.load for one in found})
    if len(loads) == 1:
        return bars(found, places, "goodput_rps", "requests within the SLO per second")
    tops = [sum(_spread(one, "goodput_rps")) for one in found]
    margin = (loads[-1] - loads[0]) * 0.04
    plot = Plot("Goodput by load", Linear(loads[0] - margin, loads[-1] + margin), up_to(tops))
    plot.axes("load (times the trace's rate)", "requests within the SLO per second", x_ticks=loads)
    for policy, place in places.items():
        own = sorted((one for one in found if one.policy == policy), key=lambda one: one.load)
        spreads = [(one.load, *_spread(one, "goodput_rps")) for one in own]
        plot.path(series(place), [(plot.x(load), plot.y(mean)) for load, mean, _ in spreads])
        for load, mean, deviation in spreads:
            x = plot.x(load)
            plot.line(f"line {series(place)}", x, plot.y(mean - deviation), x, plot.y(mean + deviation))
            tip = f"{policy} at load {load:g}: {mean:.3g} ± {deviation:.2g} /s"
            plot.dot(f"dot {series(place)}", x, plot.y(mean), tip)
    return plot.done()


def bars(found: Sequence[Summary], places: Places, figure: str, title: str, factor: float = 1.0, unit: str = "") -> str:
    """One bar for each policy, labelled with its value."""
    row = 30
    values = [(one.policy, *_spread(one, figure, factor)) for one in found]
    name_width = min(max(len(policy) for policy, _, _ in values) * 7.4 + 12, 340)
    scale = up_to([value + deviation for _, value, deviation in values])
    plot = Plot(title, scale, Linear(0, 1), height=row * len(values) + 46)
    plot.left = int(name_width)
    plot.right -= 64
    for tick in scale.ticks():
        plot.line("grid", plot.x(tick), plot.top, plot.x(tick), plot.bottom)
        plot.text("tick middle", plot.x(tick), plot.bottom + 16, plain(tick) + unit)
    plot.text("tick middle", (plot.left + plot.right) / 2, plot.height - 3, title)
    for index, (policy, value, deviation) in enumerate(values):
        y = plot.top + (plot.bottom - plot.top) / len(values) * index
        middle = y + row / 2 - 3
        tip = f"{policy}: {value:.3g}{unit} ± {deviation:.2g}"
        plot.bar(f"bar {series(places[policy])}", plot.left, y + 3, plot.x(value) - plot.left, row - 12, tip)
        if deviation:
            plot.line("whisker", plot.x(max(value - deviation, 0)), middle, plot.x(value + deviation), middle)
        plot.text("label end", plot.left - 8, middle + 4, _short(policy))
        plot.text("label", plot.x(value + deviation) + 7, middle + 4, f"{value:.3g}{unit}")
    return plot.done()


def balance(one: Summary, place: int, backends: Sequence[str], top: float) -> str:
    """The work each backend got under a policy, 1 being the fleet's mean."""
    work = one.work()
    plot = Plot(f"Balance under {one.policy}", None, Linear(0, top), width=330, height=160)
    plot.left, plot.bottom = 44, plot.height - 24
    plot.axes("backends", "work", x_ticks=[])
    room = (plot.right - plot.left) / len(work)
    for index, (backend, share) in enumerate(zip(backends, work, strict=True)):
        y = plot.y(share)
        width = room - min(2.0, room / 4)
        plot.bar(f"bar {series(place)}", plot.left + room * index, y, width, plot.bottom - y, f"{backend}: {share:.2f}")
    plot.line("mean", plot.left, plot.y(1.0), plot.right, plot.y(1.0))
    return plot.done()


def _spread(one: Summary, figure: str, factor: float = 1.0) -> tuple[float, float]:
    """Mean and standard deviation times `factor`, 0 for what is not there."""
    spread = one.of(figure)
    return (spread.mean or 0.0) * factor, (spread.deviation or 0.0) * factor


def _thinned(curve: list[float]) -> list[float]:
    """At most `_CURVE_POINTS` of its values, at equal steps of rank, the last among them."""
    count = min(len(curve), _CURVE_POINTS)
    return [curve[len(curve) * step // count - 1] for step in range(1, count + 1)]


def _short(policy: str) -> str:
    return policy if len(policy) <= 44 else f"...{policy[-41:]}"
