"""Eight emulated engines behind the real proxy: do policies rank as in the simulator?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, Final

from bench.labs.stage import Stage
from bench.reality.model import simulate
from bench.reality.play import play, times_of
from bench.reality.traffic import of_trace
from llmproxy.sim.profile import Profile
from llmproxy.sim.score import percentile
from llmproxy.sim.trace import Arrival, spread

POLICIES: Final = ("expected_cost", "prefix_affinity", "least_connections", "round_robin")
FIGURES: Final = ("ttft_mean_s", "ttft_p90_s")
APART: Final = 0.15
"""What the simulator separates by less is not ranked."""
_JITTER_S: Final = 3.0
_MODEL: Final = "emulated"


@dataclass(frozen=True, slots=True)
class Setting:
    """`faster`: by what factor trace and engines are."""

    backends: int = 8
    load: float = 0.9
    faster: float = 4.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds, at the trace's own speed."""

    ttft_mean_s: float
    ttft_p90_s: float

    @classmethod
    def of(cls, ttfts_s: Sequence[float]) -> "Figures":
        return cls(fmean(ttfts_s), percentile(sorted(ttfts_s), 0.9) or 0.0)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two policies that the simulator tells apart. `agreed`: the proxy's run ranks them alike."""

    figure: str
    better: str
    worse: str
    simulated: float
    measured: float

    @property
    def agreed(self) -> bool:
        return self.measured > 1


def arrivals_of(trace: Sequence[Arrival], setting: Setting) -> list[Arrival]:
    return spread(trace, setting.load, _JITTER_S, Random("0/arrivals"))


def simulated(arrivals: Sequence[Arrival], setting: Setting, policy: str) -> Figures:
    return Figures.of(simulate(arrivals, setting.backends, Profile(), policy).ttfts_s)


async def measured(
    arrivals: Sequence[Arrival], setting: Setting, policy: str, directory: Path
) -> tuple[Figures, dict[str, int]]:
    """The figures, and who got how many requests."""
    profile = directory / "profile.yaml"
    profile.write_text(replace(Profile(), speed=setting.faster).yaml())
    options = ["--profile", str(profile), "--max-model-len", "1000000"]
    async with Stage(directory) as stage:
        engines = await stage.engines(*[options] * setting.backends)
        proxy = await stage.proxy(stage.config(engines, pool=_pool(policy, setting.faster)))
        heard = await play(f"http://127.0.0.1:{proxy.port}", _MODEL, of_trace(arrivals, setting.faster))
    sent: dict[str, int] = {}
    for one in heard:
        sent[one.backend] = sent.get(one.backend, 0) + 1
    return Figures.of(times_of(heard, setting.faster).ttfts_s), sent


def ranked(simulated: dict[str, Figures], measured: dict[str, Figures]) -> list[Pair]:
    """Every two policies that are far enough apart, by each figure."""
    pairs = []
    for figure in FIGURES:
        sim = {name: getattr(figures, figure) for name, figures in simulated.items()}
        real = {name: getattr(figures, figure) for name, figures in measured.items()}
        pairs += [
            Pair(figure, better, worse, sim[worse] / sim[better], real[worse] / real[better])
            for better in sim
            for worse in sim
            if sim[worse] > sim[better] * (1 + APART)
        ]
    return pairs


def _pool(policy: str, faster: float) -> dict[str, Any]:
    """All that has the dimension of time is as much faster as the engines are."""
    signals = {"interval": f"{1000 / faster:.0f}ms", "timeout": f"{500 / faster:.0f}ms"}
    options = {"prefill_tokens_per_s": 10_000 * faster, "crowd": 0.02 / faster} if policy == "expected_cost" else {}
    return {"policy": {"name": policy, **options} if options else policy, "signals": signals}
