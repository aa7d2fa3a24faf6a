"""Tiers of capacity: which kind of replica to add, and which to let go.

    tiers_of_capacity:
      - {name: small, gpu: A10, prompt_tokens_max: 16k}
      - {name: big, gpu: 2xA100, worth: 4}

How many replicas there are the policies say, in replicas of the mean worth of those that are there. `Tiers` says of
which tier. A request whose prompt fits no smaller tier is demand for its own: g_k / (mu worth_k rho) in requests and in
prompt tokens, at least one while any came or waits, held as long as `demand` holds. Beyond that, the tier that comes
first and has room below its `max` is added; where memory is what is short (the rate of generated tokens, or the KV
cache), the one worth most. So a first tier with a `max`, rented by the hour, carries the base, and a second one on the
spot market the rest. Those let go are of the last tier first, and of none that its own demand needs while there are
others.

Where nothing changes otherwise, one that is dearer than the first tier and more than is needed gives way to one of the
first: a single large replica must not stay for good because nobody wants less than one.

A tier whose starts have failed lately (a spot market that is empty) comes last for a while: the others serve the wish,
larger ones its long prompts, and only what they have no room for is asked of it.

There are never more than the guardrails allow, nor dearer ones than the budget pays. When they leave no room to add the
replica that long prompts need, one of another tier makes room for it: nobody else can serve those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from llmproxy.policy.scaling.base import Rates, Signals, TierState, Wanted
from llmproxy.policy.scaling.highest import Highest
from llmproxy.policy.scaling.options import NoOptions
from llmproxy.policy.scaling.rounding import rounded_up

_RHO: Final = 0.85
_HOLD_S: Final = 300.0
_SLIVER: Final = 1e-9
_DIMENSIONS: Final = ("requests_per_s", "prefill_tokens_per_s")
_RATES: Final = (*_DIMENSIONS, "decode_tokens_per_s")


@dataclass(frozen=True, slots=True)
class Tier:
    """`worth`: what one does, in replicas of worth 1. `max`: None sets no limit of its own."""

    name: str
    worth: float = 1.0
    max: int | None = None
    price_per_hour: float = 0.0

    def __post_init__(self) -> None:
        if self.worth <= 0:
            raise ValueError("worth must be more than 0")


@dataclass(frozen=True, slots=True)
class Split:
    """How many of each tier are to be ready or starting, and what of that needs saying."""

    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def replicas(self) -> int:
        return sum(self.counts.values())


class Tiers:
    """A policy beside the others (`want`: what long prompts need), and what splits the number they agree on."""

    options_type: ClassVar[type] = NoOptions

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self.tiers = tuple(tiers)
        self._held = [Highest() for _ in tiers]
        self._needed = [0] * len(self.tiers)
        self._avoided: frozenset[str] = frozenset()
        self._held_worth = Highest()
        """Of what is needed in all, in thousandths of a replica of worth 1."""

    def reprice(self, other: "Tiers") -> None:
        """The same tiers at the prices and maxima of `other`; what was seen of them is kept."""
        if [tier.name for tier in other.tiers] != [tier.name for tier in self.tiers]:
            raise ValueError("these are other tiers")
        self.tiers = other.tiers

    def want(self, signals: Signals, now: float) -> Wanted | None:
        """Enough for the prompts that only larger tiers take; None where there are none."""
        window_s = max(_HOLD_S, signals.cold_start_s or 0.0)
        states = {one.name: one for one in signals.tiers}
        self._avoided = frozenset(one.name for one in signals.tiers if one.avoided)
        there = {one.name: one.actual for one in signals.tiers}
        worth = self._mean_worth({tier.name: there.get(tier.name, 0) for tier in self.tiers})
        for number, tier in enumerate(self.tiers):
            state = states.get(tier.name, TierState(tier.name))
            need = _need(state, signals.sustainable, tier.worth / worth) if number else 0
            if tier.max is not None:
                need = min(need, tier.max)
            self._needed[number] = self._held[number].add(need, now, window_s)
        self._pass_on(there)
        found = [(tier, need) for tier, need in zip(self.tiers, self._needed, strict=True) if need]
        if not found:
            return None
        missing = sum(max(need - there.get(tier.name, 0), 0) for tier, need in found)
        said = [f"{need} {tier.name}" for tier, need in found]
        replicas = max(sum(self._needed), signals.actual + missing if missing else 0)
        return Wanted(replicas, f"{' and '.join(said)} for prompts that fit nothing smaller", "tiers", is_floor=True)

    def found(self, signals: Signals) -> None:
        """These were there when a loop began, and count as needed then: it knows of no traffic yet."""
        actual = {one.name: one.actual for one in signals.tiers}
        self._hold_worth(sum(tier.worth * actual.get(tier.name, 0) for tier in self.tiers), signals)

    def split(
        self,
        replicas: int,
        signals: Signals,
        *,
        least: int,
        wanted: Wanted | None,
        per_hour: float | None,
        full: bool,
        paused: bool,
    ) -> Split:
        """`replicas` by tier, or fewer where those are worth as much, never more; after `want`, each evaluation.
        `wanted`: the opinion that won; `per_hour`: what there is to spend; `full`: no more are allowed than these."""
        counts = {one.name: one.actual for one in signals.tiers}
        counts = {tier.name: counts.get(tier.name, 0) for tier in self.tiers}
        worth = self._worth_needed(counts, signals, wanted)
        if paused:
            return Split(counts)
        actual, notes = sum(counts.values()), []
        if per_hour is not None:
            # Whatever drains is paid for too.
            per_hour = max(per_hour - signals.leaving_per_hour, min(self._cost(counts), per_hour))
        needed = self._affordable(per_hour)
        if wanted is not None and wanted.policy == "tiers":
            # Those that cannot be paid for nobody else can stand in for.
            replicas = max(replicas - sum(self._needed) + sum(needed), min(replicas, actual))
        if replicas > actual:
            for_memory = wanted is not None and wanted.for_memory
            notes += [f"starts of {tier.name} fail" for tier in self.tiers if tier.name in self._avoided]
            self._add(counts, needed, replicas - actual, max(least - actual, 0), for_memory)
        elif replicas < actual:
            self._remove(counts, needed, actual - replicas)
        elif not full and worth is not None:
            notes += self._trade_down(counts, needed, worth)
        if full:
            notes += self._swap(counts, needed)
        if per_hour is not None:
            notes += self._afford(counts, needed, per_hour)
        return Split(counts, tuple(notes))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _pass_on(self, there: Mapping[str, int]) -> None:
        """What is needed of a tier that is avoided, beyond what there is of it, a larger one is to do."""
        for number, tier in enumerate(self.tiers):
            short = self._needed[number] - there.get(tier.name, 0)
            able = (n for n in range(number + 1, len(self.tiers)) if self.tiers[n].name not in self._avoided)
            other = next(able, None)
            if tier.name in self._avoided and short > 0 and other is not None:
                able_to = self.tiers[other]
                more = self._needed[other] + max(rounded_up(short * tier.worth / able_to.worth), 1)
                self._needed[number] -= short
                self._needed[other] = more if able_to.max is None else min(more, able_to.max)

    def _affordable(self, per_hour: float | None) -> list[int]:
        """What long prompts need, as far as there is money for it."""
        needed = list(self._needed)
        if per_hour is None:
            return needed
        for number, tier in enumerate(self.tiers):
            if tier.price_per_hour:
                needed[number] = min(needed[number], int(max(per_hour, 0.0) / tier.price_per_hour + _SLIVER))
            per_hour -= needed[number] * tier.price_per_hour
        return needed

    def _add(self, counts: dict[str, int], needed: Sequence[int], most: int, least: int, for_memory: bool) -> None:
        wanted = most * self._mean_worth(counts)
        added = 0
        for number, tier in enumerate(self.tiers):
            while added < most and counts[tier.name] < needed[number]:
                counts[tier.name] += 1
                added, wanted = added + 1, wanted - tier.worth
        order = sorted(self.tiers, key=lambda tier: (tier.name in self._avoided, -tier.worth if for_memory else 0.0))
        while added < most and (wanted > _SLIVER or added < least):
            found = next((one for one in order if one.max is None or counts[one.name] < one.max), None)
            if found is None:
                return
            counts[found.name] += 1
            added, wanted = added + 1, wanted - found.worth

    def _remove(self, counts: dict[str, int], needed: Sequence[int], count: int) -> None:
        """So many, whatever they are worth: whoever says so may be out of money."""
        left = count * self._mean_worth(counts)
        for _ in range(count):
            spare = [tier for number, tier in enumerate(self.tiers) if counts[tier.name] > needed[number]]
            spare = spare or [tier for tier in self.tiers if counts[tier.name]]
            fitting = [tier for tier in spare if tier.worth <= left + _SLIVER]
            gone = fitting[-1] if fitting else min(spare, key=lambda tier: tier.worth)
            counts[gone.name] -= 1
            left -= gone.worth

    def _worth_needed(self, counts: Mapping[str, int], signals: Signals, wanted: Wanted | None) -> float | None:
        """In replicas of worth 1, the most of lately; None where nobody knows."""
        if wanted is None or wanted.need is None:
            return None
        return self._hold_worth(wanted.need * self._mean_worth(counts), signals)

    def _hold_worth(self, worth: float, signals: Signals) -> float:
        hold_s = max(_HOLD_S, signals.cold_start_s or 0.0)
        return self._held_worth.add(rounded_up(worth * 1000), signals.now, hold_s) / 1000

    def _trade_down(self, counts: dict[str, int], needed: Sequence[int], worth: float) -> list[str]:
        first = self.tiers[0]
        there = sum(tier.worth * counts[tier.name] for tier in self.tiers)
        if first.name in self._avoided or (first.max is not None and counts[first.name] >= first.max):
            return []
        for number, tier in enumerate(self.tiers):
            spare = counts[tier.name] > needed[number] and tier.price_per_hour >= first.price_per_hour
            if spare and tier.worth > first.worth and there - tier.worth + first.worth >= worth:
                counts[tier.name] -= 1
                counts[first.name] += 1
                return [f"a {first.name} does in the place of a {tier.name}"]
        return []

    def _swap(self, counts: dict[str, int], needed: Sequence[int]) -> list[str]:
        notes = []
        for number, tier in enumerate(self.tiers):
            while counts[tier.name] < needed[number] and tier.name not in self._avoided:
                spare = next((o for n, o in enumerate(self.tiers) if counts[o.name] > needed[n]), None)
                if spare is None:
                    break
                counts[spare.name] -= 1
                counts[tier.name] += 1
                notes.append(f"a {tier.name} in the place of a {spare.name}")
        return notes

    def _afford(self, counts: dict[str, int], needed: Sequence[int], per_hour: float) -> list[str]:
        notes = []
        while self._cost(counts) > per_hour + _SLIVER and any(counts.values()):
            there = [(number, tier) for number, tier in enumerate(self.tiers) if counts[tier.name]]
            spare = [one for one in there if counts[one[1].name] > needed[one[0]]]
            _, gone = max(spare or there, key=lambda one: one[1].price_per_hour)
            counts[gone.name] -= 1
            notes.append(f"the budget does not pay for another {gone.name}")
            if not gone.price_per_hour:
                break
        return notes

    def _mean_worth(self, counts: Mapping[str, int]) -> float:
        there = sum(counts.values())
        return sum(tier.worth * counts[tier.name] for tier in self.tiers) / there if there else self.tiers[0].worth

    def _cost(self, counts: Mapping[str, int]) -> float:
        return sum(tier.price_per_hour * counts[tier.name] for tier in self.tiers)


def with_tiers(
    signals: Signals, tiers: Sequence[Tier], states: Sequence[TierState], leaving_per_hour: float
) -> Signals:
    """`signals` of a pool with tiers: what one replica sustains, known of one of worth 1, is that of the mean of those
    that are there or come. `leaving_per_hour`: the cost of what drains and ends."""
    there = {one.name: one.actual for one in states}
    total = sum(there.values())
    worth = sum(tier.worth * there.get(tier.name, 0) for tier in tiers) / total if total else tiers[0].worth
    known = signals.sustainable
    scaled = Rates(*(None if rate is None else rate * worth for rate in (getattr(known, name) for name in _RATES)))
    leaving = {one.name: one.leaving for one in states}
    return replace(
        signals,
        ready=sum(one.ready for one in states),
        starting=sum(one.starting for one in states),
        draining=signals.draining + sum(leaving.values()),
        tiers=tuple(states),
        sustainable=scaled,
        leaving_per_hour=sum(tier.price_per_hour * leaving.get(tier.name, 0) for tier in tiers) + leaving_per_hour,
    )


def _need(state: TierState, sustainable: Rates, worth: float) -> int:
    """Replicas of this tier that its own requests need. `worth`: over the mean, which `sustainable` is about."""
    need = 0.0
    for name in _DIMENSIONS:
        demand, rate = getattr(state.demand, name), getattr(sustainable, name)
        if demand is not None and rate:
            need = max(need, demand / (rate * worth * _RHO))
    came = state.waiting or state.demand.requests_per_s
    return max(rounded_up(need), 1) if came else 0
