"""All pools' loops together, and what operators may do to them: pause, resume, ask for a floor. Each is written to the
audit log before it takes effect."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from llmproxy.config.units import parse_duration
from llmproxy.control.scaling.audit import Audit
from llmproxy.control.scaling.events import LONGEST_S, REPLICAS_BELOW, Event
from llmproxy.control.scaling.fleet import Stage
from llmproxy.control.scaling.keeper import skills
from llmproxy.control.scaling.pool_scaler import PoolScaler
from llmproxy.control.scaling.tables import LocalTable, Table
from llmproxy.core.backend import Backend
from llmproxy.core.clock import Clock

EVERYWHERE = "*"

_log = logging.getLogger("llmproxy.control.scaling")


def seconds(value: Any) -> float:
    """A duration as people write it: `10m`, `1h30m`, `45`. ValueError for anything else."""
    return parse_duration(value)


class Autoscalers:
    """By pool. `scalers` is written by whoever applies the configuration."""

    def __init__(self, audit: Audit, clock: Clock) -> None:
        self.scalers: dict[str, PoolScaler] = {}
        self._audit = audit
        self._clock = clock
        self._tables: list[Table] = [LocalTable()]
        """Pauses (the pool, or everywhere, and who paused it and why): of pools that this proxy scales alone, then on
        each Redis."""

    async def stop(self) -> None:
        scalers = list(self.scalers.values())
        self.scalers.clear()
        await asyncio.gather(*(scaler.stop() for scaler in scalers))

    def hung(self, pool: str, backend: Backend) -> None:
        """An engine makes no progress. While paused it stays; unless it is well by then, it is replaced afterwards."""
        scaler = self.scalers.get(pool)
        if scaler is not None and not self.is_paused(pool):
            scaler.parts.lives.hung(backend)

    def outside_per_hour(self, pool: str) -> Mapping[tuple[str, bool], float]:
        """What replicas cost that are no members of the pool (those that start, rest or end), by their tier of capacity
        and whether they are on the spot market."""
        scaler = self.scalers.get(pool)
        if scaler is None:
            return {}
        outside: dict[tuple[str, bool], float] = {}
        for one in scaler.parts.fleet.replicas.values():
            terms = scaler.parts.lives.terms.of(one.tier)
            if one.backend is None and terms.price_per_hour:
                kind = one.tier, terms.spot
                outside[kind] = outside.get(kind, 0.0) + terms.price_per_hour
        return outside

    def share_pauses(self, table: Table) -> None:
        """A Redis on which pools are paused for all proxies that share it."""
        if EVERYWHERE in self._tables[0].values:
            table.put(EVERYWHERE, self._tables[0].values[EVERYWHERE])
        self._tables.append(table)

    @property
    def own_pauses(self) -> Table:
        """Of pools that are shared with nobody."""
        return self._tables[0]

    def is_paused(self, pool: str) -> bool:
        paused = self._pauses(pool).values
        return EVERYWHERE in paused or pool in paused

    def _pauses(self, pool: str) -> Table:
        scaler = self.scalers.get(pool)
        return self.own_pauses if scaler is None else scaler.parts.shared.pauses

    def _meant(self, pool: str) -> list[Table]:
        return self._tables if pool == EVERYWHERE else [self._pauses(pool)]

    # -- commands --------------------------------------------------------------------------------------------------

    def pause(self, pool: str, who: str, why: str) -> None:
        """Change nothing any more, in `pool` or everywhere."""
        self._audit.write(who, "pause", why, pool=pool)
        for table in self._meant(pool):
            table.put(pool, f"{who}: {why}" if why else who)

    def resume(self, pool: str, who: str, why: str) -> None:
        """As before. `*` takes every pause away."""
        self._audit.write(who, "resume", why, pool=pool)
        for table in self._meant(pool):
            for name in list(table.values) if pool == EVERYWHERE else [pool]:
                table.put(name, None)

    def pauses(self, pool: str) -> dict[str, str]:
        """Those that hold in `pool` for this proxy alone, to be kept."""
        return {name: why for name, why in self.own_pauses.values.items() if name in (pool, EVERYWHERE)}

    def still_paused(self, found: Mapping[str, str]) -> None:
        """Pauses that hold since before this process."""
        for name, why in found.items():
            if name not in self.own_pauses.values:
                _log.warning("scaling of %s is still paused (%s)", "all pools" if name == EVERYWHERE else name, why)
                self.own_pauses.put(name, why)

    async def kept(self) -> bool:
        """Pauses are written down when this returns. False when other proxies that should know of them do not yet."""
        synced = await asyncio.gather(*(table.sync() for table in self._tables))
        alone = [one for one in self.scalers.values() if not one.parts.shared.pauses.is_shared]
        await asyncio.gather(*(scaler.parts.keeper.keep_pauses() for scaler in alone))
        return all(synced)

    def event(
        self, pool: str, who: str, why: str, *, replicas: int, for_s: float, in_s: float = 0.0, id: str | None = None
    ) -> None:
        """At least `replicas` for a while (within the pool's bounds); with an `id`, in the place of the one that has
        it. ValueError says what is wrong with it."""
        if not 0 <= replicas < REPLICAS_BELOW:
            raise ValueError(f"replicas must be from 0 to {REPLICAS_BELOW - 1}")
        if not 0 < for_s <= LONGEST_S or not 0 <= in_s <= LONGEST_S:
            raise ValueError("for must be more than nothing, and it and in at most 7d")
        begins, events = self._clock() + in_s, self.scalers[pool].parts.events
        events.room(id)
        self._audit.write(who, "event", why, pool=pool, replicas=replicas, for_s=for_s, in_s=in_s)
        events.add(Event(replicas, begins, begins + for_s, who, why), id)
        self.scalers[pool].hurry()

    def end_event(self, pool: str, who: str, why: str, id: str) -> None:
        """The floor with this `id`, if it is still there, is not needed any more."""
        events = self.scalers[pool].parts.events
        if id in events:
            self._audit.write(who, "end event", why, pool=pool)
            events.drop(id)

    def clear_events(self, pool: str, who: str, why: str) -> int:
        self._audit.write(who, "clear events", why, pool=pool)
        return self.scalers[pool].parts.events.clear()

    async def events_told(self, pool: str) -> bool:
        """False when the proxy that leads does not know of them yet."""
        return await self.scalers[pool].parts.shared.events.sync()

    # -- views -----------------------------------------------------------------------------------------------------

    def view(self, pool: str) -> dict[str, Any]:
        """One pool's state, for the admin API."""
        scaler = self.scalers[pool]
        parts, now = scaler.parts, self._clock()
        paused, sessions = parts.shared.pauses.values, parts.sessions_at(now)
        return {
            "pool": pool,
            "desired": scaler.desired,
            "max": parts.most,
            "tiers": _tiers(scaler, now) if parts.decider.tiers is not None else None,
            "leads": scaler.token is not None,
            "paused": paused.get(pool) or paused.get(EVERYWHERE),
            "shared": parts.shared.pauses.is_shared,
            "other_proxies": len(parts.shared.others(now)),
            "dry_run": parts.dry,
            "cold_start_s": round(parts.times.expected_s, 1),
            "cold_starts": {
                "requests": dict(parts.cold_starts.requests),
                "last_change_s": {way: round(took, 1) for way, took in parts.cold_starts.last_s.items()},
            },
            "backoff_s": round(parts.backoff.wait_s(now), 1),
            "events": parts.events.shown(),
            "replicas": [
                {
                    "id": one.id,
                    "url": one.url,
                    "stage": one.stage.value,
                    "tier": one.tier or None,
                    "for_s": round(now - one.since, 1),
                    "age_s": round(now - one.asked_at, 1),
                    "in_flight": one.backend.load.in_flight if one.backend is not None else 0,
                    "sessions": sessions.get(one.id, 0),
                    "leaves_because": one.recycle,
                }
                for one in sorted(parts.fleet.replicas.values(), key=lambda one: one.asked_at)
            ],
        }

    def readers(self) -> Mapping[str, Callable[[], Mapping[tuple[str, ...], float]]]:
        """For the metrics, by name."""
        return {
            "llmproxy_scaling_desired_replicas": lambda: {
                (pool,): float(one.desired) for pool, one in self.scalers.items() if one.desired is not None
            },
            "llmproxy_scaling_replicas": lambda: {
                (pool, stage.value): float(one.parts.fleet.count(stage))
                for pool, one in self.scalers.items()
                for stage in Stage
            },
            "llmproxy_scaling_tier_replicas": lambda: {
                (pool, tier): float(one.parts.fleet.staying(tier))
                for pool, one in self.scalers.items()
                if one.parts.decider.tiers is not None
                for tier in one.parts.fleet.tiers
            },
            "llmproxy_scaling_wanted_replicas": self._wanted,
            "llmproxy_scaling_decisions_total": lambda: {
                key: float(count) for one in self.scalers.values() for key, count in one.parts.decisions.counts.items()
            },
            "llmproxy_scaling_starts_total": lambda: {
                (pool, result): float(count)
                for pool, one in self.scalers.items()
                for result, count in one.parts.lives.starts.items()
            },
            "llmproxy_scaling_changes_total": lambda: {
                (pool, way): float(count)
                for pool, one in self.scalers.items()
                for way, count in one.parts.cold_starts.changes.items()
            },
            "llmproxy_scaling_change_seconds_total": lambda: {
                (pool, way): seconds
                for pool, one in self.scalers.items()
                for way, seconds in one.parts.cold_starts.seconds.items()
            },
            "llmproxy_scaling_cold_start_requests_total": lambda: {
                (pool, result): float(count)
                for pool, one in self.scalers.items()
                for result, count in one.parts.cold_starts.requests.items()
            },
            "llmproxy_scaling_cold_start_seconds": lambda: {
                (pool,): one.parts.times.expected_s for pool, one in self.scalers.items()
            },
            "llmproxy_scaling_forecast_skill_ratio": lambda: {
                (pool, dimension): skill
                for pool, one in self.scalers.items()
                for dimension, skill in skills(one.parts.decider).items()
            },
            "llmproxy_scaling_spent": self._spent,
            "llmproxy_scaling_budget": self._budgets,
            "llmproxy_scaling_leader": lambda: {
                (pool,): float(one.token is not None) for pool, one in self.scalers.items()
            },
            "llmproxy_scaling_paused": lambda: {(pool,): float(self.is_paused(pool)) for pool in self.scalers},
            "llmproxy_scaling_backoff_seconds": lambda: {
                (pool,): one.parts.backoff.wait_s(self._clock()) for pool, one in self.scalers.items()
            },
        }

    def _spent(self) -> Mapping[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for pool, one in self.scalers.items():
            spent = one.parts.decider.guardrails.spent
            if spent is not None:
                found |= {(pool, "hour"): spent.hour, (pool, "month"): spent.month}
        return found

    def _budgets(self) -> Mapping[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for pool, one in self.scalers.items():
            budget = one.parts.decider.guardrails.budget
            if budget is not None:
                limits = (("hour", budget.per_hour), ("month", budget.per_month))
                found |= {(pool, window): limit for window, limit in limits if limit is not None}
        return found

    def _wanted(self) -> Mapping[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {}
        for pool, one in self.scalers.items():
            latest = one.parts.decisions.latest
            for opinion in latest.decision.opinions if latest is not None else ():
                key = pool, opinion.policy
                found[key] = max(found.get(key, 0.0), float(opinion.replicas))
        return found


def _tiers(scaler: PoolScaler, now: float) -> list[dict[str, Any]]:
    parts = scaler.parts
    fleet, terms = parts.fleet, parts.lives.terms
    return [
        {
            "tier": tier,
            "desired": scaler.tiers.get(tier, 0) if scaler.desired is not None else None,
            "serving": fleet.count(Stage.SERVING, tier=tier),
            "present": fleet.staying(tier),
            "price_per_hour": terms.of(tier).price_per_hour,
            "spot": terms.of(tier).spot,
            "prompt_tokens_max": terms.of(tier).prompt_tokens_max,
            "requests_waiting_for_it": parts.pool.awaited.get(tier, 0),
            "starts_fail": parts.backoff.is_avoided(tier, now),
        }
        for tier in fleet.tiers
    ]
