"""One evaluation from signals to a number, with everything that led to it: the pure middle of the loop.

    signals -> policies -> combine -> stabiliser -> guardrails -> Decision

The loop around it measures the signals and lets the actuator act; the simulator runs this same object in virtual time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from llmproxy.policy.scaling.base import ScalingPolicy, Signals, Wanted
from llmproxy.policy.scaling.combine import combine
from llmproxy.policy.scaling.guardrails import Guardrails
from llmproxy.policy.scaling.stabiliser import Stabiliser
from llmproxy.policy.scaling.tiers import Tiers


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided at `signals.now`, and why. `replicas` are to be ready or starting."""

    signals: Signals
    replicas: int
    reason: str
    """In words for operators."""
    opinions: tuple[Wanted, ...] = ()
    """Of every policy that had one."""
    wanted: Wanted | None = None
    """The one that won; None when nobody had one."""
    steadied: str = ""
    """What the stabiliser changed, and why."""
    limits: tuple[str, ...] = ()
    """The guardrails that made a difference."""
    alerts: tuple[str, ...] = field(default=())
    """To be sent: thresholds of a budget that were just crossed."""
    tiers: tuple[tuple[str, int], ...] = ()
    """The replicas by tier of capacity, where the pool has tiers."""
    per_hour: float | None = None
    """What all that exists may cost in an hour, whatever it is for; None: no limit."""

    @property
    def change(self) -> int:
        """Replicas to add; negative: to remove."""
        return self.replicas - self.signals.actual


class Decider:
    """Calls each policy once for each evaluation, in their order; `tiers`, where the pool has any, behind them."""

    __slots__ = ("guardrails", "policies", "stabiliser", "tiers")

    def __init__(
        self,
        policies: Sequence[ScalingPolicy],
        stabiliser: Stabiliser,
        guardrails: Guardrails,
        tiers: Tiers | None = None,
    ) -> None:
        self.policies = tuple(policies)
        self.stabiliser = stabiliser
        self.guardrails = guardrails
        self.tiers = tiers

    def decide(self, signals: Signals, now: float) -> Decision:
        """What to do now. Tell `done` what became of it."""
        tiers = self.tiers
        asked = [policy.want(signals, now) for policy in self.policies]
        if tiers is not None:
            asked.append(tiers.want(signals, now))
        opinions = tuple(one for one in asked if one is not None)
        actual = signals.actual
        wanted = combine(opinions, actual)
        steady, steadied = (actual, "") if wanted is None else self.stabiliser.steady(wanted.replicas, actual, now)
        ruling = self.guardrails.rule(steady, signals, now)
        replicas, limits = ruling.replicas, ruling.limits
        by_tier: tuple[tuple[str, int], ...] = ()
        if tiers is not None:
            split = tiers.split(
                replicas,
                signals,
                least=self.guardrails.least,
                wanted=wanted,
                per_hour=ruling.per_hour,
                full=ruling.full,
                paused=self.guardrails.paused,
            )
            replicas, limits, by_tier = split.replicas, (*limits, *split.notes), tuple(split.counts.items())
        said = "nobody has an opinion" if wanted is None else f"{wanted.policy}: {wanted.reason}"
        reason = "; ".join(part for part in (said, steadied, *limits) if part)
        why = reason, opinions, wanted, steadied, limits, ruling.alerts
        return Decision(signals, replicas, *why, by_tier, ruling.per_hour)

    def found(self, signals: Signals, now: float) -> None:
        """What is there was not brought about by this one; before its first `decide`."""
        self.stabiliser.found(signals.actual, now)
        if self.tiers is not None:
            self.tiers.found(signals)

    def done(self, change: int, now: float) -> None:
        """The actuator added so many replicas (removed: negative)."""
        self.stabiliser.done(change, now)
        self.guardrails.done(change, now)
