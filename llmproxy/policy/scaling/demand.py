"""`demand`: the default law, from what arrives and what one replica can serve.

    - demand: {target: 0.85, z: 1}

In each dimension in which both are known (requests, prefill tokens, decode tokens):

    n = max( g / (mu rho),  (g + z sigma / sqrt 3) / mu,  (f + backlog / 30 s) / mu  if backlog > 0.5 s of capacity )

g and f: demand over the last 60 s and 10 s; sigma: the standard deviation of single seconds; mu: what one replica
sustains. The tightest dimension wins, rounded up. The first term keeps utilisation at rho. The second keeps room for
chance: a request that may wait two seconds sees the demand of three seconds averaged, whose deviation is sigma/sqrt 3.
The third digs a queue off within half a minute of capacity. `forecast` adds the fourth term of the law, h / (0.95 mu),
as a policy of its own.

Traffic that stops instead of fading lets nothing go for an hour (`silence`).

Up at once; down only to the highest n of the last max(300 s, cold start), as what is let go is that long in coming
back. rho is `target`, lowered while the error budget burns and raised a little while it is not spent (`error_budget`).
docs/scaling.md derives all of it.
"""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Final

from llmproxy.policy.scaling.base import Signals, Wanted
from llmproxy.policy.scaling.error_budget import ErrorBudget
from llmproxy.policy.scaling.highest import Highest
from llmproxy.policy.scaling.options import Seconds, Share
from llmproxy.policy.scaling.rounding import rounded_up
from llmproxy.policy.scaling.silence import Silence

_AVERAGED_S: Final = 3.0
_REQUESTS: Final = "requests"
_DIMENSIONS: Final = (
    ("requests_per_s", _REQUESTS),
    ("prefill_tokens_per_s", "prompt tokens"),
    ("decode_tokens_per_s", "generated tokens"),
)


@dataclass(frozen=True, slots=True)
class DemandOptions:
    """See the module."""

    target: Share = Share(0.85)
    """Utilisation to aim at: rho, while the objective is met."""
    z: float = 1.0
    """Standard deviations of demand to keep room for."""
    objective: Share = Share(0.995)
    """Share of requests to be served in time; rho falls while more than the rest miss. 0 leaves rho alone."""
    target_min: Share = Share(0.5)
    """rho never falls below."""
    hold: Seconds = Seconds(300.0)
    """No going below what was wanted within this time, or the cold start where that is longer."""
    silence: Seconds = Seconds(3600.0)
    """How long what was needed is kept when requests stop instead of fading (`silence`). 0: no longer than else."""
    dig_off: Seconds = Seconds(30.0)
    """In which a backlog is to be gone."""
    backlog: Seconds = Seconds(0.5)
    """A shorter backlog than this, in seconds of capacity, is no backlog."""

    def __post_init__(self) -> None:
        if not 0 < self.target_min <= self.target <= 1:
            raise ValueError("target must be between target_min and 100%, and target_min more than 0")
        if self.z < 0 or not 0 <= self.objective < 1:
            raise ValueError("z cannot be negative, and objective must be less than 100%")
        if self.dig_off <= 0:
            raise ValueError("dig_off must be more than 0")


class DemandLaw:
    """The law in the module's docstring."""

    options_type: ClassVar[type] = DemandOptions

    def __init__(self, options: DemandOptions) -> None:
        self._options = options
        self._budget = ErrorBudget(options.objective, options.target, options.target_min)
        self._highest = Highest()
        self._silence = Silence(options.silence)
        self._spread = options.z / sqrt(_AVERAGED_S)

    def want(self, signals: Signals, now: float) -> Wanted | None:
        rho = self._budget.rho(signals.slo_miss_rate, now)
        found = self._tightest(signals, rho)
        if found is None:
            return None
        need, reason, for_memory = found
        wanted = rounded_up(need)
        hold_s = max(self._options.hold, signals.cold_start_s or 0.0)
        held = self._highest.add(wanted, now, self._silence.window_s(signals, now, hold_s))
        if held > wanted:
            return Wanted(
                held, f"was needed lately; now {wanted}: {reason}", "demand", for_memory=for_memory, need=need
            )
        return Wanted(wanted, reason, "demand", for_memory=for_memory, need=need)

    def _tightest(self, signals: Signals, rho: float) -> tuple[float, str, bool] | None:
        """Replicas before rounding, why, and whether it is for memory; None when no dimension is known."""
        demand, mu_of = signals.demand, signals.sustainable
        waiting = float(signals.queue_depth or 0)
        requests = demand.last_60s.requests_per_s or demand.last_10s.requests_per_s
        need, reason, for_memory = -1.0, "", False
        for name, word in _DIMENSIONS:
            mu, g = getattr(mu_of, name), getattr(demand.last_60s, name)
            if mu is None or mu <= 0 or g is None:
                continue
            f, sigma = getattr(demand.last_10s, name) or 0.0, getattr(demand.deviation_1s, name) or 0.0
            # The tokens that those who wait will bring: as many as others do in the mean.
            backlog = waiting if word == _REQUESTS else waiting / requests * g if requests else 0.0
            steady, chance, dig_off = g / rho / mu, (g + self._spread * sigma) / mu, 0.0
            if backlog > self._options.backlog * signals.ready * mu:
                dig_off = (f + backlog / self._options.dig_off) / mu
            most = max(steady, chance, dig_off)
            if most <= need:
                continue
            need, for_memory = most, name == "decode_tokens_per_s"
            if most == steady:
                reason = f"{g:.3g} {word}/s, {mu:.3g}/s a replica at {rho:.0%}"
            elif most == chance:
                reason = f"{g:.3g} {word}/s, give or take {sigma:.3g}, {mu:.3g}/s a replica"
            else:
                reason = f"{f:.3g} {word}/s and {backlog:.3g} waiting, {mu:.3g}/s a replica"
        if signals.kv_usage is not None and signals.ready and signals.ready * signals.kv_usage / rho > need:
            full = signals.ready * signals.kv_usage
            need, reason = full / rho, f"{full:.3g} replicas' KV cache in use, to be {rho:.0%} full"
            for_memory = True
        return None if need < 0 else (need, reason, for_memory)
