"""Which replica-hours a pool could drop at the same service: from what the loop knows to a replay, and back.

A replay takes seconds to a minute of CPU, so the proxy has it done by a process of its own, at the lowest priority:
`python -m llmproxy.advising`, which reads a `Job` as JSON and writes the advice as JSON. `llmproxy plan --config` does
the same in the foreground.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any, Final

from llmproxy.config.scaling import ScalingConfig
from llmproxy.control.scaling.pool_scaler import PoolScaler
from llmproxy.core.clock import Clock
from llmproxy.policy.scaling.money import Budget
from llmproxy.policy.scaling.stabiliser import Behavior, Direction
from llmproxy.scaling_parts import budget_of
from llmproxy.sim.scaling.fleet import Model
from llmproxy.sim.scaling.recommend import Advice, Recommendation, Setup, recommend
from llmproxy.sim.scaling.traffic import Rates, Window, arrivals

MINUTE_S: Final = 60
OBJECTIVE: Final = 0.995
_LEAST_MINUTES: Final = 30
_GAP_MAX: Final = 10
"""Minutes without a record that are filled with the last one; a longer absence is time without traffic."""
_LASTS_S: Final = 8
_BY_SIGNAL: Final = frozenset({"rules", "hold", "steps", "target"})
_LIMIT_S: Final = 900.0
_KEPT_S: Final = 600.0


class Unadvised(Exception):
    """Nothing can be said; the message says why."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be replayed. `rates`: requests a second, minute by minute from `unix_s` on."""

    policies: Sequence[tuple[str, Any]]
    least: int
    most: int
    up: Mapping[str, Any]
    down: Mapping[str, Any]
    changes_per_hour: int | None
    begins_per_s: float
    lasts_s: int
    wait_max_s: int
    cold_start_s: int
    unix_s: float
    rates: Sequence[float]
    budget: Mapping[str, Any] | None = None
    not_replayed: Sequence[str] = ()
    """In words, to be told with the answer."""


def job_of(
    settings: ScalingConfig,
    rates: Sequence[float],
    unix_s: float,
    *,
    per_replica: float | None,
    cold_start_s: float,
    lasts_s: float = _LASTS_S,
) -> Job:
    """A pool's own settings. Raises `Unadvised`."""
    begins_per_s = per_replica or settings.capacity.requests_per_s
    if not begins_per_s:
        raise Unadvised("what one replica sustains is not known: give `capacity.requests_per_s`")
    if len(rates) < _LEAST_MINUTES:
        raise Unadvised(f"{len(rates)} minutes of traffic are too few: half an hour at least is needed")
    if not any(rates):
        raise Unadvised("there was no traffic")
    named = tuple((one.name, one.options) for one in settings.policies) or (("demand", None), ("forecast", None))
    up, down = settings.behavior.up, settings.behavior.down
    budget = None if settings.tiers_of_capacity else budget_of(settings)
    return Job(
        named,
        settings.min,
        settings.max,
        asdict(Direction(up.window or 0.0, up.max_step, up.period)),
        asdict(Direction(300.0 if down.window is None else down.window, down.max_step, down.period)),
        settings.changes_per_hour,
        begins_per_s,
        min(max(round(lasts_s), 1), 600),
        max(round(settings.objective.ttft), 1),
        max(round(cold_start_s), 0),
        unix_s,
        rates,
        None if budget is None else asdict(budget),
        not_replayed(settings, [name for name, _ in named]),
    )


def not_replayed(settings: ScalingConfig, policies: Sequence[str]) -> list[str]:
    """What of a pool's settings the simulator does not know."""
    found = []
    if settings.tiers_of_capacity:
        found.append("tiers_of_capacity: all replicas are taken as one of worth 1, and a budget is left out")
    if settings.warm_pool.size:
        found.append("warm_pool: every start takes the whole cold start, and replicas at rest are not counted")
    if not _BY_SIGNAL.isdisjoint(policies):
        found.append("signals of engines, GPUs, latencies and outside queries: policies have no opinion by them")
    return found


def by_minute(points: Sequence[tuple[int, tuple[float | None, ...]]]) -> tuple[list[float], float]:
    """Kept minutes as rates without gaps, and when they begin (Unix time)."""
    rates: list[float] = []
    for number, figures in points:
        missing = number - points[0][0] - len(rates)
        fill = rates[-1] if rates and missing <= _GAP_MAX else 0.0
        rates.extend([fill] * missing)
        rates.append(figures[0] or 0.0)
    return rates, points[0][0] * float(MINUTE_S) if points else 0.0


def advise(job: Job) -> dict[str, Any]:
    """Replay it. Arrivals within a minute are taken as Poisson's."""
    windows = tuple(Window(float(number * MINUTE_S), rate, 1.0) for number, rate in enumerate(job.rates))
    rates = Rates("traffic", windows, float(len(windows) * MINUTE_S))
    return advise_on(job, arrivals(rates, rates.mean, Random(0)))  # noqa: S311


def advise_on(job: Job, traffic: Sequence[int]) -> dict[str, Any]:
    """The same for arrivals second by second."""
    model = Model(job.cold_start_s, job.begins_per_s, job.lasts_s, job.wait_max_s)
    behavior = Behavior(Direction(**job.up), Direction(**job.down))
    policies = tuple((name, options) for name, options in job.policies)
    budget = None if job.budget is None else Budget(**{**job.budget, "alert_at": tuple(job.budget["alert_at"])})
    setup = Setup(policies, job.least, job.most, behavior, job.changes_per_hour, budget)
    found = recommend(setup, model, traffic, unix_s=job.unix_s, objective=OBJECTIVE)
    return {**_shown(found, len(traffic) / 3600), "not_replayed": list(job.not_replayed)}


def _shown(advice: Advice, hours: float) -> dict[str, Any]:
    now = advice.now

    def row(one: Recommendation) -> dict[str, Any]:
        return {
            "change": one.change,
            "replica_hours_saved": round(one.saved_hours, 2),
            "share_saved": round(one.saved_hours / now.replica_hours, 4),
            "slo_attained": round(one.slo_attained, 5),
        }

    return {
        "hours_replayed": round(hours, 2),
        "replica_hours": round(now.replica_hours, 2),
        "slo_attained": round(now.slo_attained, 5),
        "slo_kept": round(advice.floor, 5),
        "share_of_time_at_max": round(now.at_most, 4),
        "recommendations": [row(one) for one in advice.each],
        "together": row(advice.together) if advice.together is not None else None,
    }


class Adviser:
    """One pool at a time; what was found counts for ten minutes. `scalers` and `settings` are asked each time."""

    def __init__(
        self,
        scalers: Callable[[], Mapping[str, PoolScaler]],
        settings: Callable[[str], ScalingConfig | None],
        clock: Clock,
    ) -> None:
        self._scalers = scalers
        self._settings = settings
        self._clock = clock
        self._turn = asyncio.Lock()
        self._found: dict[str, tuple[float, dict[str, Any]]] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def advise(self, pool: str) -> Mapping[str, Any]:
        """Raises ValueError where nothing can be said."""
        async with self._turn:
            known = self._found.get(pool)
            if known is not None and self._clock() - known[0] < _KEPT_S:
                return known[1]
            try:
                found = await self._replayed(await self._job(pool))
            except Unadvised as error:
                raise ValueError(str(error)) from None
            self._found[pool] = self._clock(), found
            return found

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _job(self, pool: str) -> Job:
        # Whoever asked may have waited for others' turns.
        settings, scaler = self._settings(pool), self._scalers().get(pool)
        if settings is None or scaler is None:
            raise Unadvised("the pool is not scaled any more")
        parts = scaler.parts
        rates, unix_s = by_minute(await parts.keeper.history())
        latest = parts.decisions.latest
        known = latest.decision.signals if latest is not None else None
        per_replica = known.sustainable.requests_per_s if known is not None else None
        lasts_s = float(_LASTS_S)
        if known is not None and known.in_flight and known.demand.last_60s.requests_per_s:
            lasts_s = known.in_flight / known.demand.last_60s.requests_per_s
        cold_start_s = parts.times.expected_s
        return job_of(settings, rates, unix_s, per_replica=per_replica, cold_start_s=cold_start_s, lasts_s=lasts_s)

    async def _replayed(self, job: Job) -> dict[str, Any]:
        pipe = asyncio.subprocess.PIPE
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llmproxy.advising"), stdin=pipe, stdout=pipe, stderr=pipe
        )
        try:
            async with asyncio.timeout(_LIMIT_S):
                out, said = await process.communicate(json.dumps(asdict(job)).encode())
        except TimeoutError:
            raise Unadvised(f"the replay took longer than {_LIMIT_S:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            words = said.decode("utf-8", "replace").strip().splitlines()
            raise Unadvised(f"the replay failed: {words[-1] if words else process.returncode}")
        found: dict[str, Any] = json.loads(out)
        return found


def main() -> int:
    os.nice(19)
    json.dump(advise(Job(**json.load(sys.stdin))), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
