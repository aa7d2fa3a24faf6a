"""Demand for one tier of capacity: requests whose prompt fits no smaller one, as they are counted on arrival."""

from llmproxy.policy.scaling.meter import DemandMeter
from llmproxy.telemetry.metrics import Metrics


class TierMeter:
    """`key`: the pool and the tier."""

    def __init__(self, metrics: Metrics, key: tuple[str, str], now: float) -> None:
        self.demand = DemandMeter(now)
        self._metrics = metrics
        self._key = key
        self._seen = (0.0, 0.0)

    def own(self) -> tuple[float, float]:
        """Requests to this proxy, and their tokens."""
        found = self._metrics.tier_prompts.get(self._key)
        return (float(found.requests), found.tokens) if found is not None else (0.0, 0.0)

    def sample(self, now: float, elsewhere: tuple[float, float] = (0.0, 0.0)) -> None:
        """Once a second. `elsewhere`: the same of other proxies."""
        requests, tokens = (mine + theirs for mine, theirs in zip(self.own(), elsewhere, strict=True))
        self.demand.count(now, requests - self._seen[0], tokens - self._seen[1])
        self._seen = requests, tokens
