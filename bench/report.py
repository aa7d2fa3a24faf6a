"""Tables for people and JSON for the record."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.compare import REFERENCES, Results, Spread, added, ratio, summary, targets, value
from bench.measure import MEASURES, Figure, Measure

_RESULTS = Path(__file__).resolve().parent / "results"
_NOISY = 0.05


def _show(spread: Spread | None, digits: int, unit: str = "") -> str:
    if spread is None:
        return "-"
    text = f"{spread.median:,.{digits}f}{unit}"
    if spread.min == spread.max:
        return text
    return f"{text} [dim]({spread.min:,.{digits}f}-{spread.max:,.{digits}f})[/]"


def _columns(measure: Measure) -> list[tuple[str, Figure, str]]:
    """Title, figure and what the column is relative to (`""`: nothing)."""
    found: list[tuple[str, Figure, str]] = []
    for figure in measure.figures:
        found.append((figure.title, figure, ""))
        if figure.added:
            found.append((f"added {figure.title}", figure, "direct"))
        if figure.ratios:
            found.extend((f"/ {other}", figure, other) for other in REFERENCES)
    return found


def _cell(results: Results, measure: Measure, peer: str, figure: Figure, relative: str) -> str:
    if not relative:
        return _show(value(results, measure.name, peer, figure.key), figure.digits)
    if relative == peer:
        return ""
    if relative == "direct":
        return _show(added(results, measure.name, peer, relative, figure.key), figure.digits)
    return _show(ratio(results, measure.name, peer, relative, figure.key), 2, "x")


def print_measure(console: Console, results: Results, measure: Measure) -> None:
    """One table: peers down, figures across; medians, with the smallest and largest round behind them."""
    columns = _columns(measure)
    table = Table(title=measure.title, title_justify="left")
    table.add_column("peer")
    for title, _, _ in columns:
        table.add_column(title, justify="right")
    for peer, turns in results.get(measure.name, {}).items():
        if turns:
            table.add_row(peer, *(_cell(results, measure, peer, figure, other) for _, figure, other in columns))
    console.print(table)


def print_targets(console: Console, results: Results, peer: str) -> None:
    table = Table(title=f"Targets for {peer} (medians of this run)", title_justify="left")
    for title in ("target", "found", ""):
        table.add_column(title)
    for verdict in targets(results, peer):
        mark = {True: "[green]met[/]", False: "[red]missed[/]", None: "-"}[verdict.met]
        table.add_row(verdict.text, verdict.found, mark)
    console.print(table)


def warn_of_noise(console: Console, results: Results) -> None:
    shares = [
        turn["others_share"]
        for peers in results.values()
        for turns in peers.values()
        for turn in turns
        if "others_share" in turn
    ]
    if shares and max(shares) > _NOISY:
        console.print(
            f"[yellow]Not a quiet machine:[/] others used up to {100 * max(shares):.0f} % of the proxies' core. "
            "Trust the ratios more than the figures, and neither much."
        )


def save(results: Results, about: dict[str, Any], to: Path | None) -> Path:
    """Write the run as JSON, by default into bench/results under its date and commit."""
    now = datetime.now(UTC)
    path = to or _RESULTS / f"{now:%Y%m%d-%H%M%S}-{about['commit']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "taken_at": now.isoformat(timespec="seconds"),
        **about,
        "figures": summary(results, MEASURES),
        "targets": {
            peer: [{"target": it.text, "found": it.found, "met": it.met} for it in targets(results, peer)]
            for peer in sorted({peer for turns in results.values() for peer in turns if peer.startswith("llmproxy")})
        },
        "rounds": results,
    }
    path.write_text(json.dumps(_rounded(content), indent=1) + "\n")
    return path


def _rounded(item: Any) -> Any:
    if isinstance(item, float):
        return round(item, 4)
    if isinstance(item, dict):
        return {key: _rounded(inner) for key, inner in item.items()}
    if isinstance(item, list | tuple):
        return [_rounded(inner) for inner in item]
    return item
