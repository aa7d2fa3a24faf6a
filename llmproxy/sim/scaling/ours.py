"""The production objects at the simulated fleet: `Decider` with `demand` and `forecast`, and their defaults."""

from collections.abc import Mapping, Sequence

from llmproxy.policy.scaling.base import Rates, Signals
from llmproxy.policy.scaling.capacity import Capacity
from llmproxy.policy.scaling.decision import Decider
from llmproxy.policy.scaling.guardrails import Guardrails, Limits
from llmproxy.policy.scaling.meter import DemandMeter
from llmproxy.policy.scaling.registry import build
from llmproxy.policy.scaling.stabiliser import Behavior, Direction, Stabiliser
from llmproxy.sim.scaling.fleet import Fleet, Model

POLICIES: tuple[tuple[str, Mapping[str, object]], ...] = (("demand", {}), ("forecast", {}))
_PERIOD_S = 5


class Ours:
    """Any policies of the registry by name and options. `unix_s`: the wall clock at the beginning, for schedules.
    `behavior`: by default no window of its own."""

    def __init__(
        self,
        model: Model,
        policies: Sequence[tuple[str, object]] = POLICIES,
        unix_s: float = 0.0,
        limits: Limits | None = None,
        behavior: Behavior | None = None,
    ) -> None:
        self.period_s = _PERIOD_S
        self._model, self._unix_s = model, unix_s
        self._meter = DemandMeter(0.0)
        # What a replica sustains is given, as it is to the others, whose targets are shares of it.
        self._capacity = Capacity(Rates(requests_per_s=model.begins_per_s))
        # `demand` keeps its own window for going down.
        self._decider = Decider(
            [build(name, options) for name, options in policies],
            Stabiliser(behavior or Behavior(down=Direction())),
            Guardrails(limits or Limits(model.replicas_min, model.replicas_max)),
        )

    def second(self, count: int, fleet: Fleet) -> None:
        # A hair before the second is over, so that it counts as one of it.
        self._meter.count(fleet.now - 0.5, count)

    def wanted(self, fleet: Fleet) -> int | None:
        now = float(fleet.now)
        signals = Signals(
            now=now,
            unix_s=self._unix_s + now,
            ready=fleet.ready,
            starting=fleet.starting,
            draining=len(fleet.draining),
            queue_depth=int(fleet.waiting),
            in_flight=int(fleet.running),
            demand=self._meter.demand(now),
            sustainable=self._capacity.rates,
            slo_miss_rate=fleet.miss_rate(),
            cold_start_s=float(self._model.cold_start_s),
        )
        return self._decider.decide(signals, now).replicas

    def done(self, change: int, fleet: Fleet) -> None:
        self._decider.done(change, float(fleet.now))
