"""Tables for people, JSON for the record."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.reality.chats import Outcome
from bench.reality.emulated import Figures, Pair
from bench.reality.engines import Compared
from llmproxy.sim.score import percentile

_SHARES: Final = (("p50", 0.5), ("p90", 0.9))


def rows_of(compared: Compared) -> Iterator[tuple[str, float, float]]:
    """Name, measured and simulated, in seconds."""
    pairs = (
        ("TTFT", compared.measured.ttfts_s, compared.simulated.ttfts_s),
        ("ITL", compared.measured.itls_s, compared.simulated.itls_s),
    )
    for name, measured, simulated in pairs:
        for title, share in _SHARES:
            yield f"{name} {title}", _at(measured, share), _at(simulated, share)


def print_compared(console: Console, compared: Compared) -> None:
    gaps = len(compared.measured.itls_s)
    title = f"{compared.requests} requests in {compared.seconds:.0f} s, {gaps:,} gaps between tokens"
    table = Table(title=title, title_justify="left")
    for title in ("", "measured ms", "simulated ms", "off by"):
        table.add_column(title, justify="right" if title else "left")
    for name, measured, simulated in rows_of(compared):
        table.add_row(name, f"{measured * 1e3:.1f}", f"{simulated * 1e3:.1f}", f"{simulated / measured - 1:+.1%}")
    console.print(table)


def print_chats(console: Console, found: Mapping[str, Outcome]) -> None:
    table = Table(title="Chats with shared beginnings", title_justify="left")
    for title in ("policy", "prefix hit rate", "TTFT mean ms", "TTFT p50 ms", "turns"):
        table.add_column(title, justify="left" if title == "policy" else "right")
    for policy, one in found.items():
        cells = f"{one.hit_rate:.1%}", f"{one.ttft_mean_s * 1e3:.0f}", f"{one.ttft_p50_s * 1e3:.0f}", str(one.turns)
        table.add_row(policy, *cells)
    console.print(table)


def print_ranking(
    console: Console, simulated: Mapping[str, Figures], measured: Mapping[str, Figures], pairs: Sequence[Pair]
) -> None:
    table = Table(title="Seconds at the trace's own speed", title_justify="left")
    for title in ("policy", "TTFT mean: simulated", "measured", "off by", "TTFT p90: simulated", "measured", "off by"):
        table.add_column(title, justify="left" if title == "policy" else "right")
    for policy in simulated:
        cells: list[str] = []
        for figure in ("ttft_mean_s", "ttft_p90_s"):
            sim, real = getattr(simulated[policy], figure), getattr(measured[policy], figure)
            cells += [f"{sim:.2f}", f"{real:.2f}", f"{sim / real - 1:+.1%}"]
        table.add_row(policy, *cells)
    console.print(table)
    for pair in pairs:
        mark = "[green]agreed[/]" if pair.agreed else "[red]not agreed[/]"
        console.print(
            f"{pair.figure}: {pair.better} before {pair.worse}: x{pair.simulated:.2f} simulated,"
            f" x{pair.measured:.2f} measured: {mark}",
            highlight=False,
        )


def as_json(compared: Compared) -> dict[str, Any]:
    rows = {name: {"measured_s": measured, "simulated_s": simulated} for name, measured, simulated in rows_of(compared)}
    return {"requests": compared.requests, "seconds": compared.seconds, **rows}


def _at(values: Sequence[float], share: float) -> float:
    return percentile(sorted(values), share) or 0.0
