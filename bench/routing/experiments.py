"""What is compared, and under which conditions."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from bench.routing.rivals import RIVALS
from llmproxy.sim.contender import Contender

OURS: Final = "expected_cost"

POLICIES: Final[Mapping[str, Contender]] = MappingProxyType(
    {OURS: Contender(OURS), "least_connections": Contender("least_connections"), **RIVALS}
)
"""Label -> policy. `least_connections` is weighted: a backend's weight is its speed."""

SCRAPE_OWN_S: Final = 1.0
"""How often this proxy reads gauges."""
SCRAPE_S: Final[Mapping[str, float]] = MappingProxyType({"llm_d": 0.05, "llm_d_live": 0.05})
"""Where a system has another habit: llm-d's picker refreshes its gauges every 50 ms."""
BY_STEP: Final = frozenset({"llm_d"})
"""Who is told what engines say (`llmproxy.sim.published`), and not how things are at that moment."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The fleet, and what goes wrong in it."""

    backends: str = "8"
    proxies: int = 1
    """Proxies that share the fleet. Requests take them in turns; none knows what the others sent."""
    estimate_error: float = 0.0
    """Up to this share a prompt's size misleads about its tokens, either way, each request for itself."""
    stale_s: float = 0.0
    """Age of the gauges when they reach the policies."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """Replayed at each of `loads`; where there are none, the highest at which enough requests are within the SLO is
    searched for."""

    name: str
    title: str
    conditions: Conditions
    loads: tuple[float, ...]


EXPERIMENTS: Final[Mapping[str, Experiment]] = MappingProxyType(
    {
        one.name: one
        for one in (
            Experiment("equal", "8 equal backends at 0.9x load", Conditions(), (0.9,)),
            Experiment("capacity", "8 equal backends: highest load with 90 % within the SLO", Conditions(), ()),
            Experiment("mixed", "2 fast (2.2x) and 6 slow backends at 1.1x load", Conditions("2@2.2,6@1.0"), (1.1,)),
            Experiment("estimates", "as equal, prompt sizes off by up to 30 %", Conditions(estimate_error=0.3), (0.9,)),
            Experiment("stale", "as equal, gauges 2 s old", Conditions(stale_s=2.0), (0.9,)),
            Experiment("proxies", "as equal, two proxies share the fleet", Conditions(proxies=2), (0.9,)),
            Experiment("loads", "8 equal backends at several loads", Conditions(), (0.5, 0.65, 0.8, 0.95, 1.1, 1.25)),
        )
    }
)

GROUPS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"robust": ("estimates", "stale", "proxies")})
"""Names for several experiments."""
ON_REQUEST: Final = frozenset({"loads"})
"""Run only when named: they judge nothing, and take long."""
