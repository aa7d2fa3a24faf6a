"""Ratios of our policy's figures to the others', and what was aimed at. A ratio is taken within a seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from bench.routing.experiments import GROUPS, OURS
from bench.routing.replay import ATTAINMENT, Row

Figures = Mapping[int, float]
"""Seed -> figure."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Over the seeds."""

    mean: float
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class Target:
    """The ratio of `figure` to that of `rival` in `experiment`: at most (or at least) `bound`."""

    experiment: str
    figure: str
    rival: str
    bound: float
    at_least: bool = False
    stricter: bool = False
    """Nobody aimed at it: a rival that is told more than the real one can know. Shown, not judged."""


TARGETS: Final = (
    Target("equal", "ttft_p90_s", "least_connections", 0.45),
    Target("equal", "ttft_p90_s", "sglang", 0.55),
    Target("equal", "ttft_p90_s", "llm_d", 0.62),
    Target("equal", "ttft_p90_s", "llm_d_live", 0.62, stricter=True),
    Target("equal", "tpot_p99_s", "lmetric", 1.05),
    Target("capacity", "load", "sglang", 1.4, at_least=True),
    Target("capacity", "load", "llm_d", 1.4, at_least=True),
    Target("capacity", "load", "llm_d_live", 1.4, at_least=True, stricter=True),
    Target("capacity", "load", "lmetric", 1.0, at_least=True),
    Target("mixed", "ttft_mean_s", "lmetric", 0.88),
    Target("mixed", "ttft_p99_s", "lmetric", 0.82),
    Target("mixed", "ttft_mean_s", "least_connections", 0.5),
)
AHEAD: Final = ("ttft_mean_s", "ttft_p90_s")
"""In these, ours is to be ahead of everyone under every disturbance; of `NEAREST`, within the seeds' spread."""
NEAREST: Final = "lmetric"
_TOKENIZE: Final = ("dynamo", "lmetric")
"""They count tokens, so wrong estimates are no concern of theirs: they are compared as they are undisturbed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target, and what came of it. `met` None: not measured. `judged`: it was aimed at."""

    text: str
    found: Spread | None
    met: bool | None
    judged: bool = True


def figures(rows: Iterable[Row], experiment: str, policy: str, figure: str) -> Figures:
    """By seed. Where the load was searched for, at the highest load that fits; a seed without one is left out."""
    found: dict[int, Row] = {}
    for row in rows:
        if row["experiment"] != experiment or row["policy"] != policy or row[figure] is None:
            continue
        if experiment == "capacity" and row["slo_attainment"] < ATTAINMENT:
            continue
        other = found.get(row["seed"])
        if other is None or row["load"] > other["load"]:
            found[row["seed"]] = row
    return {seed: float(row[figure]) for seed, row in found.items()}


def spread(values: Iterable[float]) -> Spread | None:
    known = list(values)
    return Spread(fmean(known), min(known), max(known)) if known else None


def ratio(ours: Figures, theirs: Figures) -> Spread | None:
    """Over the seeds that both have."""
    return spread([ours[seed] / theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Every target of the experiments in `rows`."""
    names = {row["experiment"] for row in rows}
    told = [_verdict(rows, target) for target in TARGETS if target.experiment in names]
    for name in GROUPS["robust"]:
        if name in names:
            told.extend(verdict for figure in AHEAD for verdict in _ahead(rows, name, figure))
    return told


def _verdict(rows: Sequence[Row], target: Target) -> Verdict:
    found = ratio(
        figures(rows, target.experiment, OURS, target.figure),
        figures(rows, target.experiment, target.rival, target.figure),
    )
    sign = ">=" if target.at_least else "<="
    text = f"{target.experiment}: {target.figure} {sign} {target.bound:g} x {target.rival}"
    if found is None:
        return Verdict(text, None, None, not target.stricter)
    met = found.mean >= target.bound if target.at_least else found.mean <= target.bound
    return Verdict(text, found, met, not target.stricter)


def _ahead(rows: Sequence[Row], experiment: str, figure: str) -> Iterable[Verdict]:
    """Ours against the best of the others, and against the nearest."""
    ours = figures(rows, experiment, OURS, figure)
    policies = {row["policy"] for row in rows if row["experiment"] == experiment} - {OURS}
    ratios = {}
    for policy in policies:
        undisturbed = experiment == "estimates" and policy in _TOKENIZE
        found = ratio(ours, figures(rows, "equal" if undisturbed else experiment, policy, figure))
        if found is not None:
            ratios[policy] = found
    nearest = ratios.pop(NEAREST, None)
    if ratios:
        best = max(ratios, key=lambda policy: ratios[policy].mean)
        text = f"{experiment}: {figure} < everyone's but {NEAREST}'s (the best: {best})"
        yield Verdict(text, ratios[best], ratios[best].mean < 1)
    else:
        yield Verdict(f"{experiment}: {figure} < everyone's but {NEAREST}'s", None, None)
    text = f"{experiment}: {figure} <= {NEAREST}'s, within the seeds' spread"
    yield Verdict(text, nearest, None if nearest is None else nearest.min <= 1)
