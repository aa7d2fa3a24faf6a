"""From turns to figures: medians, ratios and differences within a round, and the targets of the project."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.measure import Measure
from bench.session import Values

Results = Mapping[str, Mapping[str, Sequence[Values]]]
"""measure -> peer -> one dict of values a round"""
REFERENCES = ("nginx", "vllm-router")


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of what the rounds gave."""

    median: float
    min: float
    max: float


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(median(values), min(values), max(values)) if values else None


def _pairs(
    peers: Mapping[str, Sequence[Values]], name: str, other: str, key: str, join: Callable[[float, float], float]
) -> Spread | None:
    rounds = zip(peers.get(name, ()), peers.get(other, ()), strict=False)
    return _spread([join(a[key], b[key]) for a, b in rounds if key in a and b.get(key)])


def value(results: Results, measure: str, peer: str, key: str) -> Spread | None:
    """A figure over all rounds."""
    return _spread([values[key] for values in results.get(measure, {}).get(peer, ()) if key in values])


def ratio(results: Results, measure: str, peer: str, other: str, key: str) -> Spread | None:
    """`peer`'s figure over `other`'s, round by round."""
    return _pairs(results.get(measure, {}), peer, other, key, lambda a, b: a / b)


def added(results: Results, measure: str, peer: str, other: str, key: str) -> Spread | None:
    """`peer`'s figure less `other`'s, round by round."""
    return _pairs(results.get(measure, {}), peer, other, key, lambda a, b: a - b)


def summary(results: Results, measures: Sequence[Measure]) -> dict[str, Any]:
    """The figures as they are saved: measure -> peer -> figure -> spread, `x_nginx`-style ratios among them."""
    found: dict[str, Any] = {}
    for measure in measures:
        for peer in results.get(measure.name, {}):
            row: dict[str, Any] = {}
            for figure in measure.figures:
                row[figure.key] = value(results, measure.name, peer, figure.key)
                if figure.added and peer != "direct":
                    row[f"{figure.key}_added"] = added(results, measure.name, peer, "direct", figure.key)
                for other in REFERENCES if figure.ratios else ():
                    row[f"{figure.key}_x_{other}"] = ratio(results, measure.name, peer, other, figure.key)
            found.setdefault(measure.name, {})[peer] = {
                key: asdict(spread) for key, spread in row.items() if spread is not None
            }
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target and what came out. `met` is None when it could not be measured."""

    text: str
    found: str
    met: bool | None


def _at_most(text: str, spread: Spread | None, limit: float, unit: str = "x", digits: int = 2) -> Verdict:
    if spread is None:
        return Verdict(text, "not measured", None)
    return Verdict(text, f"{spread.median:.{digits}f} {unit}", spread.median <= limit)


def targets(results: Results, peer: str = "llmproxy") -> list[Verdict]:
    """What this project wants to show, with the medians that show it or do not. CPU a request is that at full load."""
    litellm = ratio(results, "rps", "litellm", peer, "cpu_us")
    bursts = results.get("burst", {}).get(peer, ())
    lost = [turn["of"] - turn["answered"] for turn in bursts]
    return [
        _at_most("CPU a request <= 0.65x vllm-router's", ratio(results, "rps", peer, "vllm-router", "cpu_us"), 0.65),
        _at_most("CPU a request <= 3.5x nginx's", ratio(results, "rps", peer, "nginx", "cpu_us"), 3.5),
        _at_most("CPU a chunk <= 1.0x vllm-router's", ratio(results, "streams", peer, "vllm-router", "cpu_us"), 1.0),
        _at_most("CPU a chunk <= 1.5x nginx's", ratio(results, "streams", peer, "nginx", "cpu_us"), 1.5),
        _at_most("TTFT p50 within 150 us of nginx's", added(results, "ttft", peer, "nginx", "p50_us"), 150, "us", 0),
        _at_most("<= 10 KiB an open stream", value(results, "memory", peer, "kb_per_stream"), 10, "KiB", 1),
        Verdict(
            "LiteLLM's CPU a request >= 100x",
            f"{litellm.median:.0f} x" if litellm else "not measured",
            litellm.median >= 100 if litellm else None,
        ),
        Verdict(
            "2,000 clients at once are all answered",
            f"{max(lost):.0f} lost in the worst of {len(lost)} bursts" if lost else "not measured",
            max(lost) == 0 if lost else None,
        ),
    ]
